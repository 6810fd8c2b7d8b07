"""Budgets of sendings, what is thought of each carrier, and when the tables were last pruned.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("telecom_sms_batch", sa.Column("budget", sa.BigInteger, nullable=True))
    op.add_column("telecom_sms_batch", sa.Column("spent", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("telecom_sms_batch", sa.Column("paused_by", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "telecom_sms_carrier",
        sa.Column("route", sa.Text, primary_key=True),
        sa.Column("connection", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "telecom_sms_upkeep",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("done_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for name in ("upkeep", "carrier"):
        op.drop_table(f"telecom_sms_{name}")
    for name in ("budget", "spent", "paused_by"):
        op.drop_column("telecom_sms_batch", name)
