"""What the portal keeps: passes, the inspector inbox, replays.

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


def upgrade() -> None:
    op.create_table(
        "partners_pass",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("partner", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "partners_inbox",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("partner", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary),
    )
    op.create_index("partners_inbox_of", "partners_inbox", ["partner", "received_at"])
    op.create_table(
        "partners_replay",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("partner", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("after", sa.LargeBinary, nullable=False),
        sa.Column("until", sa.LargeBinary, nullable=False),
        sa.Column("per_s", sa.Integer, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("partners_replay_of", "partners_replay", ["partner", "endpoint"])


def downgrade() -> None:
    for table in ("replay", "inbox", "pass"):
        op.drop_table(f"partners_{table}")
