"""Who was erased: which key was destroyed, when, on whose word and why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEYED = {"sqlite_strict": True, "sqlite_with_rowid": False, "sqlite_autoincrement": False}


def upgrade() -> None:
    op.create_table(
        "erasure",
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("erased_at", INT, nullable=False),
        sa.Column("erased_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("key_id"),
        **KEYED,
    )
    op.create_index("erasure_at", "erasure", ["erased_at"])
