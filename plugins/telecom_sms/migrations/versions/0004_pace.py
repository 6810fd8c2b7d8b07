"""One pace of an account over all nodes.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "telecom_sms_pace",
        sa.Column("connection", sa.Text, primary_key=True),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("rate", sa.BigInteger, nullable=False),
        sa.Column("cut_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("telecom_sms_pace")
