"""History by day: each row in its day, days made ahead beside anybody else, and dropped only when nothing is owed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from hub.model import State
from hub.store.postgres import PostgresStore, partitions
from hub.store.postgres.partitions import TABLES, droppable, ensure, first_key, name_of
from hub.testing import StandingClock
from tests.ledger import Desk

pytestmark = pytest.mark.postgres

Connection = asyncpg.Connection
#: Far from the days that migrating has made.
DAY = date(2031, 5, 17)
NEXT = DAY + timedelta(1)


def us(day: date, hour: int = 0) -> int:
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp()) * 1_000_000


def key(moment_us: int, tail: int = 0) -> bytes:
    return (moment_us // 1000).to_bytes(6, "big") + tail.to_bytes(10, "big")


MORNING = key(us(DAY, 8), 1)


@pytest.fixture
async def connection(postgres_dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def other(postgres_dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


_NEEDED = """
SELECT attname, atttypid::regtype::text FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND attnotnull AND NOT atthasdef AND attidentity = '' AND attname <> $2"""


async def put(connection: Connection, table: str, row: bytes, state: str = "delivered") -> None:
    """A row with this key, the rest filled in."""
    column = TABLES.get(table, "id")
    blanks = {"bigint": 0, "text": state, "bytea": b""}
    rest = {name: blanks[kind] for name, kind in await connection.fetch(_NEEDED, table, column)}
    marks = ", ".join(f"${n}" for n in range(1, len(rest) + 2))
    await connection.execute(
        f"INSERT INTO {table} ({', '.join([column, *rest])}) VALUES ({marks})", row, *rest.values()
    )


async def put_history(connection: Connection, row: bytes) -> None:
    for table in TABLES:
        await put(connection, table, row)


async def where(connection: Connection, table: str, row: bytes) -> str:
    found: str = await connection.fetchval(
        f"SELECT tableoid::regclass::text FROM {table} WHERE {TABLES[table]} = $1", row
    )
    return found


async def tables_of(connection: Connection, day: date) -> set[str]:
    return (await partitions.days(connection)).get(day, set())


async def test_migrating_makes_today_and_a_week_ahead(connection: Connection) -> None:
    today = partitions.day_of(await connection.fetchval("SELECT (extract(epoch FROM now()) * 1000000)::bigint"))
    found = await partitions.days(connection)
    # Midnight may have passed since the template was made.
    assert {today + timedelta(n) for n in range(7)} <= found.keys()
    assert all(tables == set(TABLES) for tables in found.values())


async def test_what_is_missing_is_made_and_a_second_call_makes_nothing(connection: Connection) -> None:
    first = await ensure(connection, us(DAY, 23), days_ahead=2)
    assert sorted(first.made) == sorted(name_of(table, DAY + timedelta(n)) for table in TABLES for n in range(3))
    assert "event_p20310517" in first.made and not first.left
    second = await ensure(connection, us(DAY, 23), days_ahead=2)
    assert (second.made, second.left) == ([], {})


@pytest.mark.parametrize("table", TABLES)
async def test_a_day_begins_with_its_first_millisecond_and_ends_before_the_next_days(
    connection: Connection, table: str
) -> None:
    await ensure(connection, us(DAY), days_ahead=1)
    for row, there in (
        (key(us(DAY) - 1000, 2**80 - 1), f"{table}_default"),
        (key(us(DAY)), name_of(table, DAY)),
        (key(us(NEXT) - 1000, 2**80 - 1), name_of(table, DAY)),
        (key(us(NEXT)), name_of(table, NEXT)),
    ):
        await put(connection, table, row)
        assert await where(connection, table, row) == there


async def test_every_partition_has_the_keys_and_indexes_of_its_table(connection: Connection) -> None:
    await ensure(connection, us(DAY), days_ahead=0)
    for table in TABLES:
        counts = await connection.fetch(
            "SELECT count(*) FROM pg_index WHERE indrelid IN ($1::text::regclass, $2::text::regclass) AND indisvalid"
            " GROUP BY indrelid",
            table,
            name_of(table, DAY),
        )
        assert len({row[0] for row in counts}) == 1 and len(counts) == 2
    await put(connection, "event", MORNING)
    with pytest.raises(asyncpg.UniqueViolationError):
        await put(connection, "event", MORNING)


async def test_two_nodes_making_the_same_days_do_not_disturb_each_other(
    connection: Connection, other: Connection
) -> None:
    done = await asyncio.gather(ensure(connection, us(DAY), 5), ensure(other, us(DAY), 5))
    made = [name for each in done for name in each.made]
    assert len(made) == len(set(made))
    left = [name for each in done for name in each.left]
    assert set(made) | set(left) == {name_of(t, DAY + timedelta(n)) for t in TABLES for n in range(6)}


async def test_rows_that_came_before_their_day_was_made_move_into_it(connection: Connection) -> None:
    await put_history(connection, MORNING)
    await put_history(connection, key(us(NEXT)))
    done = await ensure(connection, us(DAY), days_ahead=0)
    assert len(done.made) == 4
    for table in TABLES:
        assert await where(connection, table, MORNING) == name_of(table, DAY)
        assert await where(connection, table, key(us(NEXT))) == f"{table}_default"


async def test_too_many_rows_to_move_stay_in_the_default_partition_and_that_is_told(connection: Connection) -> None:
    for n in range(3):
        await put(connection, "content", key(us(DAY), n))
    done = await ensure(connection, us(DAY), days_ahead=0, moved_at_most=2)
    assert done.left == {"content_p20310517": "too_many_rows"}
    assert await tables_of(connection, DAY) == {"event", "delivery", "attempt"}
    assert await where(connection, "content", key(us(DAY), 2)) == "content_default"


async def test_a_day_that_cannot_be_made_now_is_told_and_made_the_next_time(
    connection: Connection, other: Connection
) -> None:
    async with other.transaction():
        await other.execute("LOCK TABLE delivery_default IN ACCESS SHARE MODE")
        done = await ensure(connection, us(DAY), days_ahead=0)
    assert done.left == {"delivery_p20310517": "sqlstate_55P03"}
    await put(connection, "delivery", MORNING)
    assert (await ensure(connection, us(DAY), days_ahead=0)).made == ["delivery_p20310517"]
    assert await where(connection, "delivery", MORNING) == "delivery_p20310517"


async def test_only_whole_days_before_the_instant_may_go(connection: Connection) -> None:
    await ensure(connection, us(DAY), days_ahead=1)
    made_by_migrating = [day for day in await partitions.days(connection) if day < DAY]
    assert await droppable(connection, us(NEXT) - 1) == sorted(made_by_migrating)
    assert await droppable(connection, us(NEXT)) == [*sorted(made_by_migrating), DAY]


async def test_a_day_stays_while_a_delivery_of_it_has_not_settled(connection: Connection) -> None:
    await ensure(connection, us(DAY), days_ahead=1)
    for row, stays in (
        (key(us(DAY) - 1000, 2**80 - 1), False),
        (key(us(DAY)), True),
        (key(us(NEXT) - 1000, 2**80 - 1), True),
        (key(us(NEXT)), False),
    ):
        await put(connection, "queue", row, "pending")
        assert (DAY not in await droppable(connection, us(NEXT, 5))) is stays
        assert await partitions.drop(connection, DAY) is not stays
        await connection.execute("DELETE FROM queue")
        await ensure(connection, us(DAY), days_ahead=1)


@pytest.mark.parametrize(("state", "stays"), [("freezing", True), ("running", True), ("done", False)])
async def test_a_day_stays_while_a_batch_makes_deliveries_of_its_event(
    connection: Connection, state: str, stays: bool
) -> None:
    await ensure(connection, us(DAY), days_ahead=0)
    await connection.execute(
        "INSERT INTO batch (id, event_id, state, audience, created_at) VALUES ('b', $1, $2, '', 0)", MORNING, state
    )
    assert (DAY not in await droppable(connection, us(NEXT))) is stays
    assert await partitions.drop(connection, DAY) is not stays


async def test_dropping_a_day_takes_its_whole_history_and_nothing_else(connection: Connection) -> None:
    await ensure(connection, us(DAY), days_ahead=1)
    await put_history(connection, MORNING)
    await put_history(connection, key(us(NEXT)))
    assert await partitions.drop(connection, DAY)
    assert await tables_of(connection, DAY) == set()
    assert await tables_of(connection, NEXT) == set(TABLES)
    for table in TABLES:
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1
    assert not await partitions.drop(connection, DAY), "there is nothing to drop any more"


async def test_a_day_being_read_is_not_dropped_until_the_reader_is_done(
    connection: Connection, other: Connection
) -> None:
    await ensure(connection, us(DAY), days_ahead=0)
    await put_history(connection, MORNING)
    async with other.transaction():
        await other.fetch("SELECT * FROM content")
        assert not await partitions.drop(connection, DAY)
        assert await tables_of(connection, DAY) == set(TABLES), "all or nothing"
    assert await partitions.drop(connection, DAY)


async def test_a_replay_at_the_same_moment_keeps_its_day(connection: Connection, other: Connection) -> None:
    await ensure(connection, us(DAY), days_ahead=0)
    await put_history(connection, MORNING)
    assert DAY in await droppable(connection, us(NEXT))
    replay = other.transaction()
    await replay.start()
    await other.fetch("SELECT * FROM delivery WHERE id = $1", MORNING)
    await put(other, "queue", key(us(DAY, 8), 2), "pending")
    assert not await partitions.drop(connection, DAY)
    await replay.commit()
    assert not await partitions.drop(connection, DAY)
    assert await tables_of(connection, DAY) == set(TABLES)


async def test_a_replay_that_commits_while_the_drop_waits_for_it_keeps_its_day(
    connection: Connection, other: Connection
) -> None:
    await ensure(connection, us(DAY), days_ahead=0)
    await put_history(connection, MORNING)
    replay = other.transaction()
    await replay.start()
    await other.fetch("SELECT * FROM delivery WHERE id = $1", MORNING)
    drop = asyncio.create_task(partitions.drop(connection, DAY))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1"
    while not drop.done() and not await other.fetchval(waiting, connection.get_server_pid()):
        pass
    await put(other, "queue", key(us(DAY, 8), 2), "pending")
    await replay.commit()
    assert not await drop
    assert await tables_of(connection, DAY) == set(TABLES)


async def test_a_dropped_day_goes_with_all_that_hangs_on_it_and_is_counted(postgres_dsn: str) -> None:
    """The books still balance: what is gone is counted beside what is kept."""
    clock = StandingClock()
    store = PostgresStore(postgres_dsn)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a")
    raw = await asyncpg.connect(postgres_dsn)
    await ensure(raw, us(DAY), days_ahead=0)
    for n in range(3):
        await desk.owe("a", event_id=key(us(DAY, 5 + n), 1))
    await desk.owe("a", event_id=key(us(NEXT, 5), 1))
    first, second, third, _ = sorted(await desk.claim(), key=lambda job: job.id)
    await desk.settle(first, State.DELIVERED)
    await desk.accept(second, "ref")
    await desk.settle(third, State.DEAD, "because")
    await store.drop_days(us(DAY))  # today's, which are made at every start
    assert not (await store.drop_days(us(NEXT)))["event"], "a receipt is awaited"
    assert await tables_of(raw, DAY) == set(TABLES)
    await desk.receipt("ref", "delivered")
    await store.place_events(10)
    assert await store.drop_days(us(NEXT)) | {"day": 1} == {"receipt": 1, "provider_ref": 1, "day": 1}
    assert await tables_of(raw, DAY) == set()
    assert await store.read("SELECT count(*) FROM event") == [(1,)]
    assert await store.read("SELECT count(*) FROM attempt") == [(0,)]
    tally = {(d, s): n for d, s, n in await store.read("SELECT destination, state, count FROM tally") if n}
    assert tally["a", "delivered"] == tally["a", "pruned:delivered"] == 2
    assert tally["a", "dead"] == tally["a", "pruned:dead"] == 1 and tally["", "pruned:event"] == 3
    await raw.close()
    await store.close()


def test_the_first_key_of_a_day_is_less_than_every_id_of_it_and_more_than_every_id_before() -> None:
    assert key(us(DAY) - 1000, 2**80 - 1) < first_key(DAY) < key(us(DAY))
