"""API keys, answers of requests with an Idempotency-Key, and inbound requests as they came.

An answer ends within a day, a request when its connection says; both by ``keep_until``.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEYED = {"sqlite_strict": True, "sqlite_with_rowid": False, "sqlite_autoincrement": False}


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("sees", sa.Text, nullable=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("test", INT, nullable=False),
        sa.Column("rate_per_min", INT, nullable=False),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("expires_at", INT, nullable=True),
        sa.Column("revoked_at", INT, nullable=True),
        sa.Column("last_used_at", INT, nullable=True),
        sa.PrimaryKeyConstraint("digest"),
        **KEYED,
    )
    op.create_index("api_key_id", "api_key", ["id"], unique=True)
    op.create_table(
        "idempotency",
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("boot", sa.LargeBinary, nullable=False),
        sa.Column("status", INT, nullable=True),
        sa.Column("answer", sa.LargeBinary, nullable=True),
        sa.Column("keep_until", INT, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key"),
        **KEYED,
    )
    op.create_index("idempotency_keep", "idempotency", ["keep_until"])
    op.create_table(
        "raw_request",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("event_id", sa.LargeBinary, nullable=True),
        sa.Column("received_at", INT, nullable=False),
        sa.Column("sealed_for", sa.Text, nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("keep_until", INT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **KEYED,
    )
    op.create_index("raw_request_keep", "raw_request", ["keep_until"])
    op.create_index("raw_request_event", "raw_request", ["event_id"])
