"""The tables of the ledger. Columns are int, str and bytes; instants are microseconds since 1970 UTC.

``queue`` holds unsettled deliveries alone; ``event``, ``content``, ``delivery``, ``attempt`` and
``receipt`` are history. No envelope column holds a personal value: keys made of phones or citizen numbers
arrive as keyed hashes, content is sealed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Identity, Index, Integer, LargeBinary, MetaData, Table, Text, text

metadata = MetaData()

#: SQLite's STRICT tables know INTEGER only; it is 64 bits there.
Int = BigInteger().with_variant(Integer, "sqlite")
NEVER = 2**62
_HOT = {
    "fillfactor": 50,
    "autovacuum_vacuum_threshold": 500,
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_cost_delay": 0,
}


def _int(name: str, default: int | None = None, null: bool = False) -> Column[int]:
    return Column(name, Int, nullable=null, server_default=None if default is None else text(str(default)))


def _str(name: str, default: str | None = None, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null, server_default=None if default is None else text(f"'{default}'"))


def _bytes(name: str, null: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=null)


def _table(
    name: str, *columns: Column[Any] | Index, rowid: bool = False, by_day: str | None = None, hot: bool = False
) -> Table:
    """One table for both engines.

    Args:
        rowid: on SQLite, rows live in their primary key's tree unless so: one tree less to write.
        by_day: on PostgreSQL, the key that says which day's partition a row is in.
        hot: on PostgreSQL, rows change many times a minute: they want room beside them and early vacuuming.
    """
    return Table(
        name,
        metadata,
        *columns,
        sqlite_strict=True,
        sqlite_with_rowid=rowid,
        sqlite_autoincrement=rowid,
        postgresql_partition_by=by_day and f"RANGE ({by_day})",
        postgresql_with=_HOT if hot else {},
    )


installation = _table("installation", Column("key", Text, primary_key=True), _bytes("value"))

#: One row. ``sequence`` counts the commits of a file (a copy that is behind knows it), and on PostgreSQL the feed
#: positions given. ``hold`` says why nothing may be sent.
ledger = _table(
    "ledger",
    Column("id", Int, primary_key=True, autoincrement=False),
    _int("sequence"),
    _str("hold", null=True),
    hot=True,
)

subject_key = _table(
    "subject_key",
    Column("subject", Text, primary_key=True),
    _bytes("wrapped", null=True),  # NULL once the person is erased
    _int("created_at"),
    _int("erased_at", null=True),
)

#: Which keys were destroyed, on whose word and why; ``key_id`` is a hash of the wrapped key.
erasure = _table(
    "erasure",
    Column("key_id", LargeBinary, primary_key=True),
    _str("subject"),
    _int("erased_at"),
    _str("erased_by"),
    _str("reason"),
    Index("erasure_at", "erased_at"),
)

projection = _table("projection", Column("id", LargeBinary, primary_key=True), _bytes("fields"))

event = _table(
    "event",
    # On SQLite the one writer's insert order is the commit order, so the row id is the feed position.
    Column("position", Int, primary_key=True, autoincrement=True),
    _bytes("id"),
    _str("source"),
    _str("type"),
    _str("subject", null=True),
    _int("occurred_at"),
    _int("received_at"),
    _bytes("correlation_id"),
    _bytes("batch_id", null=True),
    _str("scope_id"),
    _int("key_hash"),
    Index("event_id", "id", unique=True),
    rowid=True,
    by_day="id",
)

content = _table(
    "content",
    Column("event_id", LargeBinary, primary_key=True),
    _str("sealed_for", null=True),  # the subject whose key opens it; NULL: not personal
    _int("quarantined", 0),
    _bytes("body"),
    by_day="event_id",
)

dedupe = _table(
    "dedupe",
    Column("source", Text, primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    _bytes("content_hash"),
    _bytes("event_id"),
    _int("keep_until"),
    Index("dedupe_keep", "keep_until"),
)

_DELIVERY = (
    lambda: _bytes("event_id"),
    lambda: _str("destination"),
    lambda: _str("recipient"),
    lambda: _int("generation"),
    lambda: _bytes("batch_id", null=True),
    lambda: _str("subscription"),
    lambda: _bytes("projection"),
    lambda: _str("purpose"),
    lambda: _str("state"),
    lambda: _str("reason", ""),
    lambda: _int("priority"),
    lambda: _int("weight", 1),
    lambda: _bytes("order_key", null=True),
    lambda: _int("on_dead_hold"),
    lambda: _int("expires_at", null=True),
    lambda: _int("tries", 0),
    lambda: _int("crashes", 0),
    lambda: _int("lease_no", 0),
    lambda: _bytes("body_sha256", null=True),
    lambda: _int("created_at"),
    lambda: _str("scope_id"),
    lambda: _int("key_hash"),
)

queue = _table(
    "queue",
    Column("seq", Int, Identity(), primary_key=True, autoincrement=True),
    _bytes("id"),
    *(make() for make in _DELIVERY),
    _int("due_at"),
    _bytes("lease_owner", null=True),
    _int("lease_until", null=True),
    Index("queue_id", "id", unique=True),
    rowid=True,
    hot=True,
)
_PENDING = "state = 'pending' AND crashes = 0"
_SUSPECT = "state = 'pending' AND crashes > 0"
_TIMED = "state IN ('accepted', 'unknown')"
for name, columns, where in (
    ("queue_due", ("destination", "priority", "due_at"), _PENDING),
    ("queue_suspect", ("due_at",), _SUSPECT),
    ("queue_order", ("destination", "order_key", "seq"), "order_key IS NOT NULL"),
    ("queue_timer", ("due_at",), _TIMED),
    ("queue_expiry", ("expires_at",), "expires_at IS NOT NULL AND state IN ('waiting', 'pending')"),
    ("queue_owned", ("lease_until",), "state IN ('leased', 'sending')"),
):
    Index(name, *(queue.c[c] for c in columns), sqlite_where=text(where), postgresql_where=text(where))

delivery = _table(
    "delivery",
    Column("id", LargeBinary, primary_key=True),
    *(make() for make in _DELIVERY),
    _int("settled_at"),
    by_day="id",
)
Index(
    "delivery_dead",
    delivery.c.destination,
    delivery.c.settled_at,
    sqlite_where=text("state = 'dead'"),
    postgresql_where=text("state = 'dead'"),
)

attempt = _table(
    "attempt",
    Column("delivery_id", LargeBinary, primary_key=True),
    Column("lease_no", Int, primary_key=True, autoincrement=False),
    _str("destination"),
    _int("started_at"),
    _int("finished_at"),
    _str("outcome"),
    _str("reason"),
    _int("status", null=True),
    _int("connect_us", null=True),
    _int("first_byte_us", null=True),
    _int("total_us", null=True),
    _bytes("answer", null=True),
    by_day="delivery_id",
)

provider_ref = _table(
    "provider_ref",
    Column("connection", Text, primary_key=True),
    Column("ref", Text, primary_key=True),
    _bytes("delivery_id"),
    _int("of_parts"),  # how many references the whole delivery has; 0: not known
    _str("state"),  # awaited | delivered | failed | superseded
    _str("reason", ""),
    _int("updated_at"),
    Index("provider_ref_delivery", "delivery_id"),
)

receipt = _table(
    "receipt",
    Column("id", LargeBinary, primary_key=True),
    _str("connection"),
    _str("ref"),
    _str("state"),
    _str("reason"),
    _int("received_at"),
    _bytes("delivery_id", null=True),  # NULL while parked
    Index("receipt_ref", "connection", "ref"),
)
_PARKED = "delivery_id IS NULL"
Index("receipt_parked", receipt.c.received_at, sqlite_where=text(_PARKED), postgresql_where=text(_PARKED))

connection = _table(
    "connection",
    Column("name", Text, primary_key=True),
    _str("type"),
    _str("managed_by"),
    _str("cursor", null=True),
    _str("paused_by", null=True),
    _str("paused_reason", ""),
)

destination = _table(
    "destination",
    Column("id", Text, primary_key=True),
    _str("connection"),
    _int("next_due_at", NEVER),
    _int("not_before", 0),
    _str("paused_by", null=True),
    _str("paused_reason", ""),
    _int("failures", 0),
    _int("breaker_until", 0),
    _int("next_send_at", 0),
    _int("spacing_us", 0),
    _int("last_served_at", 0),
    Index("destination_due", "next_due_at"),
    Index("destination_connection", "connection"),
    hot=True,
)

run = _table(
    "run",
    Column("id", LargeBinary, primary_key=True),
    _str("kind"),  # pull | fan_out
    _str("object"),
    _int("slot"),
    _str("state"),  # due | running | done | failed
    _str("cursor", null=True),
    _int("pages", 0),
    _int("items", 0),
    _str("reason", ""),
    _int("due_at"),
    _bytes("lease_owner", null=True),
    _int("started_at", null=True),
    _int("finished_at", null=True),
    Index("run_slot", "kind", "object", "slot", unique=True),
)
_OPEN_RUN = "state IN ('due', 'running')"
Index("run_open", run.c.due_at, sqlite_where=text(_OPEN_RUN), postgresql_where=text(_OPEN_RUN))
_FINISHED = "finished_at IS NOT NULL"
Index("run_finished", run.c.finished_at, sqlite_where=text(_FINISHED), postgresql_where=text(_FINISHED))

batch = _table(
    "batch",
    Column("id", LargeBinary, primary_key=True),
    _bytes("event_id"),
    _str("state"),  # freezing | running | done | stopped
    _bytes("audience"),
    _int("total", 0),
    _int("made", 0),
    _int("unreachable", 0),
    _int("created_at"),
)

batch_subject = _table(
    "batch_subject",
    Column("batch_id", LargeBinary, primary_key=True),
    Column("n", Int, primary_key=True, autoincrement=False),
    _str("subject"),
)

repair = _table(
    "repair",
    Column("id", Int, Identity(), primary_key=True, autoincrement=True),
    _str("kind"),
    _str("object"),
    _str("detail"),
    _int("opened_at"),
    _int("cleared_at", null=True),
    rowid=True,
)
_OPEN = "cleared_at IS NULL"
Index(
    "repair_open", repair.c.kind, repair.c.object, unique=True, sqlite_where=text(_OPEN), postgresql_where=text(_OPEN)
)

_CLEARED = "cleared_at IS NOT NULL"
Index("repair_cleared", repair.c.cleared_at, sqlite_where=text(_CLEARED), postgresql_where=text(_CLEARED))

tally = _table(
    "tally",
    Column("destination", Text, primary_key=True),
    Column("state", Text, primary_key=True),
    _int("count"),
    hot=True,
)

#: A row per running process; whose row is gone, what it had leased is taken over.
node = _table(
    "node",
    Column("boot", LargeBinary, primary_key=True),
    _str("name"),
    _int("started_at"),
    _int("lease_until"),
    hot=True,
)

#: What one process does at a time: leading, or holding a session to a partner.
lease = _table(
    "lease",
    Column("name", Text, primary_key=True),
    _bytes("owner"),
    _int("lease_until"),
    hot=True,
)

#: Of a key only a keyed hash is kept: ``digest``.
api_key = _table(
    "api_key",
    Column("digest", LargeBinary, primary_key=True),
    _str("id"),
    _str("name"),
    _str("scopes"),  # with spaces between
    _str("sees", null=True),  # scopes of rows, as a JSON list; NULL: all
    _str("owner"),
    _int("test"),
    _int("rate_per_min"),
    _int("created_at"),
    _int("expires_at", null=True),
    _int("revoked_at", null=True),
    _int("last_used_at", null=True),
    Index("api_key_id", "id", unique=True),
)

#: A request with an Idempotency-Key, from before it runs; ``status`` is NULL while it does.
idempotency = _table(
    "idempotency",
    Column("principal", Text, primary_key=True),
    Column("key", LargeBinary, primary_key=True),
    _bytes("fingerprint"),
    _bytes("boot"),  # the process it runs in
    _int("status", null=True),
    _bytes("answer", null=True),
    _int("keep_until"),
    Index("idempotency_keep", "keep_until"),
)

#: Inbound requests as they came, where a connection keeps them.
raw_request = _table(
    "raw_request",
    Column("id", LargeBinary, primary_key=True),
    _str("connection"),
    _str("state"),  # read | unread | not_json
    _bytes("event_id", null=True),
    _int("received_at"),
    _str("sealed_for"),
    _bytes("request"),  # head and body
    _int("keep_until"),
    Index("raw_request_keep", "keep_until"),
    Index("raw_request_event", "event_id"),
)


def on_postgres() -> MetaData:
    """The same tables as PostgreSQL has them: there an event's key is its id.

    Its position is given after commit, by one process; a unique key would have to hold the day's part of the id.
    """
    there = MetaData()
    for table in metadata.sorted_tables:
        if table is not event:
            table.to_metadata(there)
    columns: list[Column[Any]] = [column._copy() for column in event.columns if column.name not in ("position", "id")]
    theirs = Table(
        "event",
        there,
        _int("position", null=True),
        Column("id", LargeBinary, primary_key=True),
        *columns,
        postgresql_partition_by="RANGE (id)",
    )
    Index("event_position", theirs.c.position)
    Index("event_unplaced", theirs.c.id, postgresql_where=text("position IS NULL"))
    return there
