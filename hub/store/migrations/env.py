"""Runs one owner's migrations on the connection it is given, inside one write transaction."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table=context.config.attributes["version_table"],
    transactional_ddl=True,
)
# The caller has begun: alembic's own transaction would let another process in between.
context.run_migrations()
