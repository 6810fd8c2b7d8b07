"""What was agreed with people: refusals, consent, limits, what they wrote, and what messages cost.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_PHONE = "phone_hash"


def upgrade() -> None:
    for name in ("purpose", "connection", "network", "unit"):
        op.add_column("telecom_sms_sent", sa.Column(name, sa.Text, nullable=False, server_default=""))
    for name in ("segments", "dong"):
        op.add_column("telecom_sms_sent", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.create_index("telecom_sms_sent_by_phone", "telecom_sms_sent", [_PHONE, "admitted_at"])
    op.create_table(
        "telecom_sms_phone",
        sa.Column(_PHONE, sa.LargeBinary(16), primary_key=True),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("network", sa.Text, nullable=False, server_default=""),
    )
    op.create_table(
        "telecom_sms_prefix",
        sa.Column("prefix", sa.Text, primary_key=True),
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("messages", sa.Integer, nullable=False),
    )
    op.create_table(
        "telecom_sms_optout",
        sa.Column(_PHONE, sa.LargeBinary(16), primary_key=True),
        sa.Column("purpose", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("phone", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "telecom_sms_consent",
        sa.Column(_PHONE, sa.LargeBinary(16), primary_key=True),
        sa.Column("purpose", sa.Text, primary_key=True),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "telecom_sms_do_not_call",
        sa.Column(_PHONE, sa.LargeBinary(16), primary_key=True),
        sa.Column("listed_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "telecom_sms_override",
        sa.Column("campaign", sa.LargeBinary(16), primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("given_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "telecom_sms_template",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "telecom_sms_batch",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("template", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(16), nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("test", sa.Integer, nullable=False),
        sa.Column("paused_at", sa.BigInteger, nullable=True),
        sa.Column("send_at", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("telecom_sms_batch_name", "telecom_sms_batch", ["name"], unique=True)
    op.create_table(
        "telecom_sms_part",
        sa.Column("connection", sa.Text, primary_key=True),
        sa.Column(_PHONE, sa.LargeBinary(16), primary_key=True),
        sa.Column("reference", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("of_parts", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body_hash", sa.LargeBinary(16), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
    )
    op.create_index("telecom_sms_part_by_age", "telecom_sms_part", ["received_at"])
    op.create_table(
        "telecom_sms_heard",
        sa.Column("body_hash", sa.LargeBinary(16), primary_key=True),
        sa.Column("heard_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "telecom_sms_inbox",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("sent_to", sa.Text, nullable=False),
        sa.Column("keyword", sa.Text, nullable=False),
        sa.Column("meaning", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("telecom_sms_inbox_by_age", "telecom_sms_inbox", ["received_at"])


def downgrade() -> None:
    for name in (
        "inbox", "heard", "part", "batch", "template", "override", "do_not_call", "consent", "optout", "prefix", "phone"
    ):  # fmt: skip
        op.drop_table(f"telecom_sms_{name}")
    op.drop_index("telecom_sms_sent_by_phone", "telecom_sms_sent")
    for name in ("purpose", "connection", "network", "unit", "segments", "dong"):
        op.drop_column("telecom_sms_sent", name)
