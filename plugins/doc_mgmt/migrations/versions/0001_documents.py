"""Documents, their attachments, packets seen, quarantine and the arrival counter.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "doc_mgmt_document",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("doc_id", sa.Text, nullable=False),
        sa.Column("own_organ_id", sa.Text, nullable=False),
        sa.Column("own_organ_name", sa.Text, nullable=False),
        sa.Column("identity_hash", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("content_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("from_organ_id", sa.Text, nullable=False),
        sa.Column("code_number", sa.Text, nullable=False),
        sa.Column("code_notation", sa.Text, nullable=False),
        sa.Column("promulgated_on", sa.Text, nullable=False),
        sa.Column("partner_document_id", sa.Text, nullable=False),
        sa.Column("type_name", sa.Text, nullable=False),
        sa.Column("business_type", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("due_on", sa.Text),
        sa.Column("header_sealed", sa.LargeBinary),
        sa.Column("attachment_count", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("arrival_year", sa.Integer),
        sa.Column("arrival_number", sa.Integer),
        sa.Column("received_at_us", sa.BigInteger, nullable=False),
        sa.Column("registered_at_us", sa.BigInteger),
        sa.Column("repeats", sa.Integer, nullable=False),
        sa.Column("differing_repeats", sa.Integer, nullable=False),
        sa.UniqueConstraint("arrival_year", "arrival_number"),
    )
    op.create_index("doc_mgmt_document_newest", "doc_mgmt_document", ["received_at_us"])
    op.create_table(
        "doc_mgmt_attachment",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("document_id", sa.LargeBinary(16), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("name_sealed", sa.LargeBinary),
        sa.Column("content_sealed", sa.LargeBinary),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("extension", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.UniqueConstraint("document_id", "ordinal"),
    )
    op.create_table(
        "doc_mgmt_packet",
        sa.Column("connection", sa.Text, primary_key=True),
        sa.Column("doc_id", sa.Text, primary_key=True),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("reference_id", sa.LargeBinary(16), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "doc_mgmt_quarantine",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("doc_id", sa.Text, nullable=False),
        sa.Column("own_organ_id", sa.Text, nullable=False),
        sa.Column("own_organ_name", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("raw_sealed", sa.LargeBinary),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
    )
    op.create_index("doc_mgmt_quarantine_open", "doc_mgmt_quarantine", ["connection", "state"])
    op.create_table(
        "doc_mgmt_counter",
        sa.Column("year", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    for table in ("counter", "quarantine", "packet", "attachment", "document"):
        op.drop_table(f"doc_mgmt_{table}")
