"""One SMS per phone and campaign, and the joining reference of long messages.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "telecom_sms_sent",
        sa.Column("campaign", sa.LargeBinary(16), primary_key=True),
        sa.Column("phone_hash", sa.LargeBinary(16), primary_key=True),
        sa.Column("delivery_id", sa.LargeBinary(16), nullable=False),
        sa.Column("admitted_at", sa.BigInteger, nullable=False),
    )
    # Old campaigns are pruned by age.
    op.create_index("telecom_sms_sent_by_age", "telecom_sms_sent", ["admitted_at"])
    op.create_table(
        "telecom_sms_counter",
        sa.Column("sender", sa.Text, primary_key=True),
        sa.Column("phone_hash", sa.LargeBinary(16), primary_key=True),
        sa.Column("last_reference", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("telecom_sms_counter")
    op.drop_index("telecom_sms_sent_by_age", "telecom_sms_sent")
    op.drop_table("telecom_sms_sent")
