"""The first ledger."""

from __future__ import annotations

from alembic import op

from hub.store import tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    # The first revision is the tables as declared; later ones are written out step by step, and a test
    # compares the end of the history with the declaration.
    tables.metadata.create_all(op.get_bind())
    op.execute("INSERT INTO ledger (id, sequence, hold) VALUES (1, 0, NULL)")
