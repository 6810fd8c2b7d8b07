"""The first ledger."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import SchemaItem

revision = "0001"
down_revision = None

INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
#: Identity: PostgreSQL's spelling of what AUTOINCREMENT does on SQLite.
#: SQLite: rows in the tree of their primary key, or numbered rows with an index beside them.
KEYED = {"sqlite_strict": True, "sqlite_with_rowid": False, "sqlite_autoincrement": False}
ROWS = {"sqlite_strict": True, "sqlite_with_rowid": True, "sqlite_autoincrement": True}
#: PostgreSQL: ids begin with the millisecond they were made in, so a range of them is a day (see partitions.py).
BY_DAY: dict[str, dict[str, Any]] = {table: {"postgresql_partition_by": f"RANGE ({key})"} for table, key in (
    ("event", "id"), ("content", "event_id"), ("delivery", "id"), ("attempt", "delivery_id"),
)}  # fmt: skip
#: PostgreSQL: rows that change many times a minute want room beside them, and their old versions gone soon.
HOT: dict[str, Any] = {
    "postgresql_with": {
        "fillfactor": 50,
        "autovacuum_vacuum_threshold": 500,
        "autovacuum_vacuum_scale_factor": 0.01,
        "autovacuum_vacuum_cost_delay": 0,
    }
}


def upgrade() -> None:
    op.create_table(
        "attempt",
        sa.Column("delivery_id", sa.LargeBinary, nullable=False),
        sa.Column("lease_no", INT, autoincrement=False, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("started_at", INT, nullable=False),
        sa.Column("finished_at", INT, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("status", INT, nullable=True),
        sa.Column("connect_us", INT, nullable=True),
        sa.Column("first_byte_us", INT, nullable=True),
        sa.Column("total_us", INT, nullable=True),
        sa.Column("answer", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", "lease_no"),
        **KEYED,
        **BY_DAY["attempt"],
    )
    op.create_table(
        "batch",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("event_id", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("audience", sa.LargeBinary, nullable=False),
        sa.Column("total", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("made", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("unreachable", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **KEYED,
    )
    op.create_table(
        "batch_subject",
        sa.Column("batch_id", sa.LargeBinary, nullable=False),
        sa.Column("n", INT, autoincrement=False, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "n"),
        **KEYED,
    )
    op.create_table(
        "connection",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("managed_by", sa.Text, nullable=False),
        sa.Column("cursor", sa.Text, nullable=True),
        sa.Column("paused_by", sa.Text, nullable=True),
        sa.Column("paused_reason", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        **KEYED,
    )
    op.create_table(
        "content",
        sa.Column("event_id", sa.LargeBinary, nullable=False),
        sa.Column("sealed_for", sa.Text, nullable=True),
        sa.Column("quarantined", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
        **KEYED,
        **BY_DAY["content"],
    )
    op.create_table(
        "dedupe",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("event_id", sa.LargeBinary, nullable=False),
        sa.Column("keep_until", INT, nullable=False),
        sa.PrimaryKeyConstraint("source", "key"),
        **KEYED,
    )
    op.create_table(
        "delivery",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("event_id", sa.LargeBinary, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("generation", INT, nullable=False),
        sa.Column("batch_id", sa.LargeBinary, nullable=True),
        sa.Column("subscription", sa.Text, nullable=False),
        sa.Column("projection", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("priority", INT, nullable=False),
        sa.Column("weight", INT, server_default=sa.text("1"), nullable=False),
        sa.Column("order_key", sa.LargeBinary, nullable=True),
        sa.Column("on_dead_hold", INT, nullable=False),
        sa.Column("expires_at", INT, nullable=True),
        sa.Column("tries", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("lease_no", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary, nullable=True),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("scope_id", sa.Text, nullable=False),
        sa.Column("key_hash", INT, nullable=False),
        sa.Column("settled_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **KEYED,
        **BY_DAY["delivery"],
    )
    op.create_index(
        "delivery_dead",
        "delivery",
        ["destination", "settled_at"],
        unique=False,
        sqlite_where=sa.text("state = 'dead'"),
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_table(
        "destination",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("next_due_at", INT, server_default=sa.text("4611686018427387904"), nullable=False),
        sa.Column("not_before", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("paused_by", sa.Text, nullable=True),
        sa.Column("paused_reason", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("failures", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("breaker_until", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("next_send_at", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("spacing_us", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("last_served_at", INT, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **KEYED,
        **HOT,
    )
    op.create_index("destination_connection", "destination", ["connection"], unique=False)
    op.create_index("destination_due", "destination", ["next_due_at"], unique=False)
    if op.get_context().dialect.name == "postgresql":
        # A position is given after commit, by one process; a unique key would have to hold the day.
        key: list[SchemaItem] = [
            sa.Column("position", INT, nullable=True),
            sa.Column("id", sa.LargeBinary, nullable=False),
            sa.PrimaryKeyConstraint("id"),
        ]
    else:
        key = [
            sa.Column("position", INT, autoincrement=True, nullable=False),
            sa.Column("id", sa.LargeBinary, nullable=False),
            sa.PrimaryKeyConstraint("position"),
        ]
    op.create_table(
        "event",
        *key,
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=True),
        sa.Column("occurred_at", INT, nullable=False),
        sa.Column("received_at", INT, nullable=False),
        sa.Column("correlation_id", sa.LargeBinary, nullable=False),
        sa.Column("batch_id", sa.LargeBinary, nullable=True),
        sa.Column("scope_id", sa.Text, nullable=False),
        sa.Column("key_hash", INT, nullable=False),
        **ROWS,
        **BY_DAY["event"],
    )
    if op.get_context().dialect.name == "postgresql":
        op.create_index("event_position", "event", ["position"])
        op.create_index("event_unplaced", "event", ["id"], postgresql_where=sa.text("position IS NULL"))
        for table in BY_DAY:
            op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    else:
        op.create_index("event_id", "event", ["id"], unique=True)
    op.create_table(
        "installation",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("key"),
        **KEYED,
    )
    op.create_table(
        "ledger",
        sa.Column("id", INT, autoincrement=False, nullable=False),
        sa.Column("sequence", INT, nullable=False),
        sa.Column("hold", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **KEYED,
        **HOT,
    )
    op.create_table(
        "projection",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("fields", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **KEYED,
    )
    op.create_table(
        "provider_ref",
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("delivery_id", sa.LargeBinary, nullable=False),
        sa.Column("of_parts", INT, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("updated_at", INT, nullable=False),
        sa.PrimaryKeyConstraint("connection", "ref"),
        **KEYED,
    )
    op.create_index("provider_ref_delivery", "provider_ref", ["delivery_id"], unique=False)
    op.create_table(
        "queue",
        sa.Column("seq", INT, sa.Identity(), autoincrement=True, nullable=False),
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("event_id", sa.LargeBinary, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("generation", INT, nullable=False),
        sa.Column("batch_id", sa.LargeBinary, nullable=True),
        sa.Column("subscription", sa.Text, nullable=False),
        sa.Column("projection", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("priority", INT, nullable=False),
        sa.Column("weight", INT, server_default=sa.text("1"), nullable=False),
        sa.Column("order_key", sa.LargeBinary, nullable=True),
        sa.Column("on_dead_hold", INT, nullable=False),
        sa.Column("expires_at", INT, nullable=True),
        sa.Column("tries", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("lease_no", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary, nullable=True),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("scope_id", sa.Text, nullable=False),
        sa.Column("key_hash", INT, nullable=False),
        sa.Column("due_at", INT, nullable=False),
        sa.Column("lease_owner", sa.LargeBinary, nullable=True),
        sa.Column("lease_until", INT, nullable=True),
        sa.PrimaryKeyConstraint("seq"),
        **ROWS,
        **HOT,
    )
    op.create_index(
        "queue_due",
        "queue",
        ["destination", "priority", "due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND crashes = 0"),
        postgresql_where=sa.text("state = 'pending' AND crashes = 0"),
    )
    op.create_index(
        "queue_expiry",
        "queue",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("expires_at IS NOT NULL AND state IN ('waiting', 'pending')"),
        postgresql_where=sa.text("expires_at IS NOT NULL AND state IN ('waiting', 'pending')"),
    )
    op.create_index("queue_id", "queue", ["id"], unique=True)
    op.create_index(
        "queue_order",
        "queue",
        ["destination", "order_key", "seq"],
        unique=False,
        sqlite_where=sa.text("order_key IS NOT NULL"),
        postgresql_where=sa.text("order_key IS NOT NULL"),
    )
    op.create_index(
        "queue_owned",
        "queue",
        ["lease_until"],
        unique=False,
        sqlite_where=sa.text("state IN ('leased', 'sending')"),
        postgresql_where=sa.text("state IN ('leased', 'sending')"),
    )
    op.create_index(
        "queue_suspect",
        "queue",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND crashes > 0"),
        postgresql_where=sa.text("state = 'pending' AND crashes > 0"),
    )
    op.create_index(
        "queue_timer",
        "queue",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('accepted', 'unknown')"),
        postgresql_where=sa.text("state IN ('accepted', 'unknown')"),
    )
    op.create_table(
        "receipt",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("ref", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("received_at", INT, nullable=False),
        sa.Column("delivery_id", sa.LargeBinary, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **KEYED,
    )
    op.create_index("receipt_ref", "receipt", ["connection", "ref"], unique=False)
    op.create_table(
        "repair",
        sa.Column("id", INT, sa.Identity(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("opened_at", INT, nullable=False),
        sa.Column("cleared_at", INT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **ROWS,
    )
    op.create_index(
        "repair_open",
        "repair",
        ["kind", "object"],
        unique=True,
        sqlite_where=sa.text("cleared_at IS NULL"),
        postgresql_where=sa.text("cleared_at IS NULL"),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("slot", INT, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("cursor", sa.Text, nullable=True),
        sa.Column("pages", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("items", INT, server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("due_at", INT, nullable=False),
        sa.Column("lease_owner", sa.LargeBinary, nullable=True),
        sa.Column("started_at", INT, nullable=True),
        sa.Column("finished_at", INT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        **KEYED,
    )
    op.create_index(
        "run_open",
        "run",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('due', 'running')"),
        postgresql_where=sa.text("state IN ('due', 'running')"),
    )
    op.create_index("run_slot", "run", ["kind", "object", "slot"], unique=True)
    op.create_table(
        "subject_key",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=True),
        sa.Column("created_at", INT, nullable=False),
        sa.Column("erased_at", INT, nullable=True),
        sa.PrimaryKeyConstraint("subject"),
        **KEYED,
    )
    op.create_table(
        "tally",
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("count", INT, nullable=False),
        sa.PrimaryKeyConstraint("destination", "state"),
        **KEYED,
        **HOT,
    )
    op.execute("INSERT INTO ledger (id, sequence, hold) VALUES (1, 0, NULL)")
