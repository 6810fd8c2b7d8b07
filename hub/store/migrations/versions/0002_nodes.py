"""Several processes on one ledger, and indexes to prune what has served its time.

Events, contents, deliveries and attempts need none: their ids are in the order of time.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEYED = {"sqlite_strict": True, "sqlite_with_rowid": False, "sqlite_autoincrement": False}
#: PostgreSQL: a few rows, each renewed every few seconds.
HOT: dict[str, Any] = {
    "postgresql_with": {
        "fillfactor": 50,
        "autovacuum_vacuum_threshold": 500,
        "autovacuum_vacuum_scale_factor": 0.01,
        "autovacuum_vacuum_cost_delay": 0,
    }
}


def upgrade() -> None:
    op.create_table(
        "node",
        sa.Column("boot", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("started_at", INT, nullable=False),
        sa.Column("lease_until", INT, nullable=False),
        sa.PrimaryKeyConstraint("boot"),
        **KEYED,
        **HOT,
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.LargeBinary, nullable=False),
        sa.Column("lease_until", INT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
        **KEYED,
        **HOT,
    )
    op.create_index("dedupe_keep", "dedupe", ["keep_until"])
    for name, table, column, condition in (
        ("receipt_parked", "receipt", "received_at", "delivery_id IS NULL"),
        ("repair_cleared", "repair", "cleared_at", "cleared_at IS NOT NULL"),
        ("run_finished", "run", "finished_at", "finished_at IS NOT NULL"),
    ):
        given = sa.text(condition)
        op.create_index(name, table, [column], sqlite_where=given, postgresql_where=given)
