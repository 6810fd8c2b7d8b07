"""History by day on PostgreSQL: whole days are dropped, so that pruning costs nothing and leaves no holes.

An id begins with the millisecond it was made in and a delivery's with its event's, so a day of ids is a range of
bytes. Days are UTC's. Rows outside the days made so far are in the default partitions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg

from hub.store.ops.prune import COUNT_DAY
from hub.store.postgres.writer import translated

#: Each with the key that its days are ranges of; an event's parts go before it.
TABLES = {"attempt": "delivery_id", "delivery": "id", "content": "event_id", "event": "id"}
#: Longer than a unit of the hub, shorter than PostgreSQL's look for deadlocks: we give way, never a unit.
LOCK_TIMEOUT = "500ms"


#: Somebody reads for long, a right was taken away, the disk is full: rows go to the default partition meanwhile.
_NOT_NOW = (
    asyncpg.ObjectNotInPrerequisiteStateError,  # the lock time-out is one
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InsufficientResourcesError,
    asyncpg.DuplicateTableError,
)


_COUNT = translated(COUNT_DAY)
_KEEP_COUNT = (
    "INSERT INTO tally (destination, state, count) VALUES ($1, $2, $3)"
    " ON CONFLICT (destination, state) DO UPDATE SET count = tally.count + excluded.count"
)


@dataclass(slots=True)
class Ensured:
    """What was made now, and why the rest was not: those days' rows go to the default partition meanwhile."""

    made: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def day_of(us: int) -> date:
    return datetime.fromtimestamp(us // 1_000_000, UTC).date()


def first_key(day: date) -> bytes:
    """The least id of that day: 48 bits of milliseconds."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return (int(start.timestamp()) * 1000).to_bytes(6, "big")


def name_of(table: str, day: date) -> str:
    return f"{table}_p{day:%Y%m%d}"


async def days(connection: asyncpg.Connection[Any]) -> dict[date, set[str]]:
    """Which tables have a partition of their own, by day."""
    found: dict[date, set[str]] = {}
    for (name,) in await connection.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent IN (SELECT to_regclass(name) FROM unnest($1::text[]) name)",
        list(TABLES),
    ):
        if match := re.fullmatch(r"([a-z]+)_p(\d{4})(\d{2})(\d{2})", name):
            found.setdefault(date(int(match[2]), int(match[3]), int(match[4])), set()).add(match[1])
    return found


async def ensure(
    connection: asyncpg.Connection[Any], now_us: int, days_ahead: int = 7, *, moved_at_most: int = 10_000
) -> Ensured:
    """Makes the missing partitions of today and the days ahead; safe beside another process doing the same.

    Args:
        moved_at_most: rows that are taken out of the default partition: everybody waits meanwhile.
    """
    done = Ensured()
    there = await days(connection)
    for day in (day_of(now_us) + timedelta(n) for n in range(days_ahead + 1)):
        for table in TABLES:
            if table in there.get(day, ()):
                continue
            name = name_of(table, day)
            # One table a transaction: no lock is waited for while another is held.
            try:
                async with connection.transaction(isolation="read_committed"):
                    why = await _make(connection, table, day, moved_at_most)
            except _NOT_NOW as error:
                why = f"sqlstate_{error.sqlstate}"
            if why is None:
                done.made.append(name)
            elif why != "there":
                done.left[name] = why
    return done


async def _make(connection: asyncpg.Connection[Any], table: str, day: date, moved_at_most: int) -> str | None:
    """None, or why it was not made."""
    name, key = name_of(table, day), TABLES[table]
    low, high = first_key(day), first_key(day + timedelta(1))
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", name)
    if await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name):
        return "there"
    # Attaching waits for nobody who uses the table's other days; CREATE ... PARTITION OF would.
    await connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    early = f"FROM {table}_default WHERE {key} >= $1 AND {key} < $2"
    await connection.execute(f"LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE")
    count = await connection.fetchval(
        f"SELECT count(*) FROM (SELECT {early} LIMIT {moved_at_most + 1}) early", low, high
    )
    if count > moved_at_most:
        await connection.execute(f"DROP TABLE {name}")
        return "too_many_rows"
    if count:
        await connection.execute(
            f"WITH moved AS (DELETE {early} RETURNING *) INSERT INTO {name} SELECT * FROM moved", low, high
        )
    await connection.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('\\x{low.hex()}') TO ('\\x{high.hex()}')"
    )
    return None


async def droppable(connection: asyncpg.Connection[Any], before_us: int) -> list[date]:
    """Days that lie wholly before the instant, and whose every delivery has settled."""
    return [
        day
        for day in sorted(await days(connection))
        if day + timedelta(1) <= day_of(before_us) and not await _in_work(connection, day)
    ]


async def _in_work(connection: asyncpg.Connection[Any], day: date) -> bool:
    """Whether something of the day is still to be sent, or a batch still makes deliveries of an event of it."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT 1 FROM queue WHERE id >= $1 AND id < $2) OR EXISTS (SELECT 1 FROM batch"
        " WHERE event_id >= $1 AND event_id < $2 AND state IN ('freezing', 'running'))",
        first_key(day),
        first_key(day + timedelta(1)),
    )
    return found


async def drop(connection: asyncpg.Connection[Any], day: date) -> bool:
    """Drops the day's history and counts what went, once nothing in other tables hangs on it.

    False when something of it came back to life or is being read: ask again later.
    """
    there = (await days(connection)).get(day, set())
    gone = [table for table in TABLES if table in there]
    if not gone:
        return False
    # Before the locks, since it reads the whole day: without its references nothing of it changes any more.
    counts = await connection.fetch(_COUNT, first_key(day), first_key(day + timedelta(1)))
    try:
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            # All locks before the look: a replay of that day is either seen, or finds nothing any more.
            parents = ", ".join(f"ONLY {table}, {table}_default" for table in gone)
            await connection.execute(f"LOCK TABLE {parents} IN ACCESS EXCLUSIVE MODE")
            if await _in_work(connection, day):
                return False
            await connection.executemany(_KEEP_COUNT, sorted(tuple(row) for row in counts))
            await connection.execute("DROP TABLE " + ", ".join(name_of(table, day) for table in gone))
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.UndefinedTableError):
        return False
    return True
