"""Units and members."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "members_unit",
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "members_member",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("citizen_hash", sa.LargeBinary),
        sa.Column("phone_hash", sa.LargeBinary),
        sa.Column("person_hash", sa.LargeBinary, nullable=False),
        sa.Column("unit_code", sa.Text, nullable=False),
        sa.Column("has_app", sa.BigInteger, nullable=False),
        sa.Column("has_phone", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("profile", sa.LargeBinary, nullable=False),
        sa.Column("row_hash", sa.LargeBinary, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_index("members_member_citizen", "members_member", ["citizen_hash"], unique=True)
    op.create_index("members_member_phone", "members_member", ["phone_hash"])
    op.create_index("members_member_person", "members_member", ["person_hash"])
    op.create_index("members_member_unit", "members_member", ["unit_code", "status", "subject"])
    op.create_index(
        "members_member_nameless",
        "members_member",
        ["person_hash"],
        unique=True,
        sqlite_where=sa.text("citizen_hash IS NULL"),
        postgresql_where=sa.text("citizen_hash IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("members_member")
    op.drop_table("members_unit")
