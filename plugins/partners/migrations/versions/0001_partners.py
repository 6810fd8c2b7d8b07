"""Partners, their grants and endpoints, and how long an endpoint has been failing.

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
        "partners_partner",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("contact", sa.LargeBinary),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "partners_grant",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("partner", sa.Text, nullable=False),
        sa.Column("types", sa.LargeBinary, nullable=False),
        sa.Column("fields", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("legal_basis", sa.Text, nullable=False),
        sa.Column("begins_at", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger),
    )
    op.create_index("partners_grant_of", "partners_grant", ["partner"])
    op.create_table(
        "partners_endpoint",
        sa.Column("partner", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("types", sa.LargeBinary, nullable=False),
        sa.Column("settings", sa.LargeBinary, nullable=False),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("private_key", sa.LargeBinary),
        sa.Column("older_secret", sa.LargeBinary),
        sa.Column("older_private_key", sa.LargeBinary),
        sa.Column("older_until", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "partners_outage",
        sa.Column("destination", sa.Text, primary_key=True),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("failing_since", sa.BigInteger, nullable=False),
        sa.Column("told", sa.Integer, nullable=False),
    )
    op.create_table(
        "partners_change",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("change", "outage", "endpoint", "grant", "partner"):
        op.drop_table(f"partners_{table}")
