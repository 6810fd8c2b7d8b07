"""Letting history go: bounded steps, whole events, and nothing of what is still owed."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from hub import retention
from hub.commit import delivery_id, event_range
from hub.errors import InputError
from hub.model import State
from hub.retry import SECOND
from hub.sql import query
from hub.store.base import PruneStep, ReceiptRow, Store, Unit
from hub.store.ledger import Ledger
from hub.store.ops import commit, operate
from hub.store.ops import prune as ops
from hub.store.ops.books import BOOKS
from hub.store.sqlite import SqliteStore
from hub.testing import StandingClock, eventually
from tests.history import DAY, campaign, finished_run, id_at, number, numbers, orphans, prune, steps
from tests.ledger import BREAKER, UNRESOLVED_S, Desk, check_books, fact, owed

TABLES: tuple[Literal["content", "event"], ...] = ("content", "event")
HISTORY = ("event", "content", "delivery", "attempt", "provider_ref", "receipt")


async def last_year(desk: Desk) -> bytes:
    """An event of last year, and a young one behind it."""
    event_id = id_at(desk.now - 500 * DAY)
    await desk.owe("a", "b", event_id=event_id)
    for job in await desk.claim():
        await desk.accept(job, f"ref-{job.destination}")
    for where in ("a", "b"):
        await desk.receipt(f"ref-{where}", "delivered", connection=where)
    await desk.owe_one("c")
    await desk.settle(await desk.claim_one(), State.DELIVERED)
    return event_id


@pytest.fixture
async def old(desk: Desk) -> bytes:
    return await last_year(desk)


# -- what goes together ----------------------------------------------------------------------------


async def test_an_event_goes_with_everything_that_hangs_on_it(desk: Desk, old: bytes) -> None:
    assert await numbers(desk.store, *HISTORY) == {
        "event": 2, "content": 2, "delivery": 3, "attempt": 3, "provider_ref": 2, "receipt": 2
    }  # fmt: skip
    assert await prune(desk.store, "event", [old]) == {
        "event": 1, "content": 1, "delivery": 2, "attempt": 2, "provider_ref": 2, "receipt": 2
    }  # fmt: skip
    assert await numbers(desk.store, *HISTORY) == {
        "event": 1, "content": 1, "delivery": 1, "attempt": 1, "provider_ref": 0, "receipt": 0
    }  # fmt: skip
    assert await orphans(desk.store) == []


async def test_content_may_go_while_the_rest_stays_to_be_looked_at(desk: Desk, old: bytes) -> None:
    before = await numbers(desk.store, *HISTORY)
    assert await prune(desk.store, "content", [old]) == {"content": 1}
    assert await numbers(desk.store, *HISTORY) == {**before, "content": 1}
    assert await prune(desk.store, "event", [old]) == {
        "event": 1, "delivery": 2, "attempt": 2, "provider_ref": 2, "receipt": 2
    }  # fmt: skip


async def keep_in_queue(desk: Desk, state: str) -> None:
    if state == "pending":
        return
    if state == "waiting":
        await desk.owe_one("a", order_key=b"k")
        return
    job = await desk.claim_one()
    if state == "sending":
        await desk.store.start(job.id, job.lease_no, b"sha", [])
    elif state == "accepted":
        await desk.accept(job, "r")
    elif state == "unknown":
        await desk.lose_track(job)
    elif state == "held":
        await desk.settle(job, State.DEAD, "refused")


@pytest.mark.parametrize("state", ["waiting", "pending", "leased", "sending", "accepted", "unknown", "held"])
async def test_nothing_of_an_event_goes_while_one_of_its_deliveries_is_unsettled(desk: Desk, state: str) -> None:
    event_id = id_at(desk.now - 500 * DAY)
    if state == "waiting":
        await desk.owe_one("a", order_key=b"k")
    await desk.owe("a", "b", event_id=event_id, order_key=b"k", on_dead_hold=int(state == "held"))
    done = await desk.claim_one(capacity={"b": 1})
    await desk.settle(done, State.DELIVERED)
    await keep_in_queue(desk, state)
    await desk.owe_one("c")
    before = await numbers(desk.store, *HISTORY)
    for table in TABLES:
        assert await prune(desk.store, table, [event_id]) == {}
    assert await numbers(desk.store, *HISTORY) == before


async def test_a_neighbour_of_an_unsettled_event_goes_alone(desk: Desk) -> None:
    """Of the same millisecond: their deliveries' ids lie side by side."""
    at = desk.now - 500 * DAY
    owing, settled = id_at(at, 1), id_at(at, 2)
    await desk.owe("b", event_id=owing)
    await desk.owe("a", event_id=settled)
    await desk.settle(await desk.claim_one(capacity={"a": 1}), State.DELIVERED)
    await desk.owe_one("c")
    assert await prune(desk.store, "event", [owing, settled]) == {
        "event": 1, "content": 1, "delivery": 1, "attempt": 1
    }  # fmt: skip
    assert await desk.store.read("SELECT 1 FROM event WHERE id = ?", (owing,))
    assert await orphans(desk.store) == []


async def test_an_event_whose_fan_out_is_not_done_stays(desk: Desk, old: bytes) -> None:
    await campaign(desk, old, "running")
    for table in TABLES:
        assert await prune(desk.store, table, [old]) == {}


async def test_a_batch_goes_with_its_event_and_its_list_in_parts(desk: Desk, old: bytes) -> None:
    await campaign(desk, old, subjects=25)
    seen = [
        [step.rows.get(table, 0) for table in ("batch_subject", "batch", "run", "event")]
        async for step in steps(desk.store, "event", [old], limit=10)
    ]
    assert seen == [[7, 0, 0, 0], [9, 0, 0, 0], [9, 0, 0, 0], [0, 1, 1, 1]]
    assert await numbers(desk.store, "batch", "batch_subject", "run") == {"batch": 0, "batch_subject": 0, "run": 0}


async def test_what_nobody_could_read_stays_until_its_event_goes(desk: Desk, old: bytes) -> None:
    unread = query(text("UPDATE content SET quarantined = 1 WHERE event_id = :id"))(id=old)
    await desk.store.commit(Unit(statements=[unread]))
    assert await prune(desk.store, "content", [old]) == {}
    assert (await prune(desk.store, "event", [old]))["content"] == 1


# -- bounded ---------------------------------------------------------------------------------------


async def test_a_large_fan_out_goes_in_parts_its_content_first_and_its_envelope_last(desk: Desk) -> None:
    event_id = id_at(desk.now - 500 * DAY)
    await desk.commit(fact("large", desk.now, event_id=event_id))
    await desk.store.commit(Unit(deliveries=[owed(event_id, "a", desk.now, recipient=f"p{n}") for n in range(25)]))
    for job in await desk.claim():
        await desk.accept(job, job.id.hex())
    for (ref,) in await desk.store.read("SELECT ref FROM provider_ref"):
        await desk.receipt(ref, "delivered")
    await desk.owe_one("c")
    seen = []
    async for step in steps(desk.store, "event", [event_id], limit=10):
        seen.append((step.rows.get("delivery", 0), step.rows.get("content", 0), step.rows.get("event", 0)))
        assert await orphans(desk.store) == []
    assert seen == [(10, 1, 0), (10, 0, 0), (5, 0, 1)]


@pytest.mark.parametrize("limit", [3, 4, 5])
async def test_events_that_fit_into_a_step_are_there_or_gone_as_a_whole(desk: Desk, limit: int) -> None:
    ids = [id_at(desk.now - 500 * DAY, n) for n in range(7)]
    for event_id in ids:
        await desk.owe("a", "b", event_id=event_id)
    for job in await desk.claim():
        await desk.settle(job, State.DELIVERED)
    await desk.owe_one("c")
    async for step in steps(desk.store, "event", ids, limit=limit):
        assert step.rows["delivery"] <= limit
        for event_id in ids:
            found = await desk.store.read("SELECT count(*) FROM delivery WHERE event_id = ?", (event_id,))
            envelope = await desk.store.read("SELECT count(*) FROM event WHERE id = ?", (event_id,))
            assert (found, envelope) in [([(2,)], [(1,)]), ([(0,)], [(0,)])]
    assert await number(desk.store, "delivery") == 0


async def test_more_events_than_a_step_looks_at_are_asked_for_again(desk: Desk) -> None:
    ids = [id_at(desk.now - 500 * DAY, n) for n in range(ops.EVENTS + 5)]
    await desk.commit(*[fact(f"f{n}", desk.now, event_id=event_id) for n, event_id in enumerate(ids)])
    await desk.owe_one("c")
    while await desk.store.place_events(1000):
        pass
    step = await desk.store.prune(PruneStep(table="content", events=ids))
    assert (step.rows, list(step.left)) == ({"content": ops.EVENTS}, ids[ops.EVENTS :])


# -- what ends by itself ---------------------------------------------------------------------------


async def ended(desk: Desk, table: Any, before: int, limit: int = 200) -> int:
    return (await desk.store.prune(PruneStep(table=table, before=before, limit=limit))).rows[table]


async def test_keys_of_messages_go_at_their_own_time_and_a_few_at_once(desk: Desk) -> None:
    await desk.commit(*[fact(f"f{n}", desk.now + n * SECOND) for n in range(10)])  # kept a second each
    assert await ended(desk, "dedupe", desk.now + 6 * SECOND, limit=3) == 3
    assert await ended(desk, "dedupe", desk.now + 6 * SECOND, limit=3) == 2
    assert await ended(desk, "dedupe", desk.now + 6 * SECOND, limit=3) == 0
    assert await number(desk.store, "dedupe") == 5


async def test_a_repeat_is_recognised_although_its_event_is_gone(desk: Desk, old: bytes) -> None:
    again = fact("k1", desk.now)  # the key that ``old`` came with
    await prune(desk.store, "event", [old])
    assert (await desk.commit(again)).events == [(old, True)]


async def test_only_parked_receipts_go_by_their_age(desk: Desk, old: bytes) -> None:
    await desk.receipt("nobody's", "delivered")
    assert await ended(desk, "receipt", desk.now) == 0
    assert await ended(desk, "receipt", desk.now + 1) == 1
    assert await desk.store.read("SELECT count(*) FROM receipt WHERE delivery_id IS NULL") == [(0,)]
    assert await number(desk.store, "receipt") == 2, "matched ones go with their delivery"


async def test_only_cleared_repairs_go(desk: Desk) -> None:
    for name in ("x", "y"):
        await desk.store.open_repair("trouble", name, "", desk.now)
    await desk.store.clear_repair("trouble", "x", desk.now)
    assert await ended(desk, "repair", desk.now + 1) == 1
    assert await desk.repairs() == [("trouble", "y")]


async def test_the_last_scheduled_and_the_last_asked_run_of_a_connection_stay(desk: Desk) -> None:
    """A slot that is long and past must not become due again, and somebody may ask what the last run said."""
    for slot in (1, 2, 3, -10, -20):
        await finished_run(desk, "axis", slot, desk.now)
    await finished_run(desk, "other", 1, desk.now)
    assert await ended(desk, "run", desk.now + 1) == 3
    left = await desk.store.read("SELECT object, slot FROM run ORDER BY object, slot")
    assert left == [("axis", -20), ("axis", 3), ("other", 1)]


# -- what happens to it meanwhile ------------------------------------------------------------------


async def replay(desk: Desk, event_id: bytes, destination: str = "a") -> bytes | None:
    first, again = (delivery_id(event_id, destination, "", n) for n in (0, 1))
    return await desk.store.replay(first, again, desk.now)


async def test_a_delivery_whose_content_is_gone_cannot_be_sent_again(desk: Desk, old: bytes) -> None:
    await prune(desk.store, "content", [old])
    before = await numbers(desk.store, "queue", *HISTORY)
    with pytest.raises(InputError, match=r"hết thời hạn lưu.* / .*gone") as refused:
        await replay(desk, old)
    assert (refused.value.problem, refused.value.http_status) == ("content-gone", 410)
    assert await numbers(desk.store, "queue", *HISTORY) == before


async def test_a_replayed_delivery_keeps_its_event_and_content(desk: Desk, old: bytes) -> None:
    again = await replay(desk, old)
    for table in TABLES:
        assert await prune(desk.store, table, [old]) == {}
    job = await desk.claim_one()
    assert (job.id, job.content) == (again, b"{}")
    await desk.settle(job, State.DELIVERED)
    assert (await prune(desk.store, "event", [old]))["delivery"] == 3


async def test_a_receipt_for_what_is_gone_is_parked_and_moves_nothing(desk: Desk, old: bytes) -> None:
    await prune(desk.store, "event", [old])
    await desk.receipt("ref-a", "failed", "late")
    assert await desk.store.read("SELECT ref, delivery_id FROM receipt") == [("ref-a", None)]


async def test_the_counters_count_what_is_gone_too(desk: Desk, old: bytes) -> None:
    tally = "SELECT destination, state, count FROM tally WHERE state NOT LIKE 'pruned:%' AND count <> 0"
    before = sorted(await desk.store.read(tally))
    await prune(desk.store, "event", [old])
    assert sorted(await desk.store.read(tally)) == before
    gone = await desk.store.read("SELECT destination, state, count FROM tally WHERE state LIKE 'pruned:%'")
    assert sorted(gone) == [("", "pruned:event", 1), ("a", "pruned:delivered", 1), ("b", "pruned:delivered", 1)]
    assert {name: wrong for name, sql in BOOKS.items() if (wrong := await desk.store.read(sql))} == {}


class Two:
    """A ledger that several processes share, and a gate at which one unit stands before its COMMIT."""

    def __init__(self, desk: Desk, gate: Any) -> None:
        self.desk = desk
        self.gate = gate

    async def standing(self, op: Callable[[Any], Any]) -> asyncio.Task[Any]:
        """Begins ``op`` in a unit of its own; it has done its work and has not committed."""
        assert isinstance(self.desk.store, Ledger)
        await self.gate.execute("SELECT pg_advisory_lock(7)")
        unit = asyncio.create_task(
            self.desk.store.submit(lambda tx: (op(tx), tx.execute("SELECT pg_advisory_xact_lock(7)"))[0])
        )
        await eventually(lambda: self.waits("advisory"))
        return unit

    async def waits(self, kind: str, units: int = 1) -> bool:
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND locktype = $1"
            " AND datname = current_database()"
        )
        return bool(await self.gate.fetchval(waiting, kind) >= units)

    async def let_go(self) -> None:
        await self.gate.execute("SELECT pg_advisory_unlock(7)")


@pytest.fixture
async def two(postgres_dsn: str, clock: StandingClock) -> AsyncIterator[Two]:
    import asyncpg

    from hub.store.postgres import PostgresStore

    store = PostgresStore(postgres_dsn, breaker=BREAKER, unresolved_after_s=UNRESOLVED_S)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a", "b", "c")
    gate = await asyncpg.connect(postgres_dsn)
    yield Two(desk, gate)
    await gate.close()
    await check_books(store)
    await store.close()


@pytest.mark.postgres
async def test_a_replay_that_is_under_way_keeps_its_event_and_content(two: Two) -> None:
    old = await last_year(two.desk)
    first, again = (delivery_id(old, "a", "", n) for n in (0, 1))
    unit = await two.standing(lambda tx: operate.replay(tx, first, again, two.desk.now))
    for table in TABLES:
        assert await prune(two.desk.store, table, [old]) == {}
    await two.let_go()
    assert await unit == again
    for table in TABLES:
        assert await prune(two.desk.store, table, [old]) == {}
    assert await orphans(two.desk.store) == []


@pytest.mark.postgres
@pytest.mark.parametrize("table", ["content", "event"])
async def test_a_replay_waits_for_what_is_being_pruned_and_is_refused(two: Two, table: Any) -> None:
    old = await last_year(two.desk)
    while await two.desk.store.place_events(100):
        pass
    unit = await two.standing(lambda tx: ops.prune(tx, PruneStep(table=table, events=[old])))
    replayed = asyncio.create_task(replay(two.desk, old))
    await eventually(lambda: two.waits("transactionid"))
    await two.let_go()
    assert (await unit).rows[table] == 1
    with pytest.raises(InputError):
        await replayed
    assert await numbers(two.desk.store, "queue", "content") == {"queue": 0, "content": 1}


@pytest.mark.postgres
async def test_a_receipt_that_is_being_matched_goes_with_its_delivery(two: Two) -> None:
    old = await last_year(two.desk)
    row = ReceiptRow(b"another", "a", "ref-a", "interim", "", two.desk.now)
    unit = await two.standing(lambda tx: commit.take_receipt(tx, row))
    pruned = asyncio.create_task(prune(two.desk.store, "event", [old]))
    await eventually(lambda: two.waits("advisory", 2))
    await two.let_go()
    await unit
    assert (await pruned)["receipt"] == 3
    assert await orphans(two.desk.store) == []


@pytest.mark.postgres
async def test_an_event_that_is_not_in_the_feed_yet_stays(two: Two) -> None:
    old = await last_year(two.desk)
    for table in TABLES:
        assert not any((await two.desk.store.prune(PruneStep(table=table, events=[old]))).rows.values())
    assert (await prune(two.desk.store, "event", [old]))["event"] == 1


@pytest.mark.postgres
async def test_a_transaction_that_somebody_leaves_open_shows_as_an_old_snapshot(two: Two) -> None:
    async with two.gate.transaction(isolation="repeatable_read"):
        await two.gate.fetchval("SELECT count(*) FROM event")
        assert await eventually(two.desk.store.snapshot_age_s) > 0


# -- whole days ------------------------------------------------------------------------------------


async def test_what_hangs_on_a_day_goes_before_it_is_dropped_and_the_books_still_balance(
    desk: Desk, old: bytes
) -> None:
    store = desk.store
    assert isinstance(store, Ledger)
    await campaign(desk, old, subjects=5)
    day = (desk.now - 500 * DAY) // DAY * DAY
    first, behind = ((us // 1000).to_bytes(6) for us in (day, day + DAY))
    steps = 0
    while rows := await store.submit(lambda tx: ops.forget_beside(tx, first, behind, 2)):
        steps += 1
        assert sum(rows.values()) <= 4
    assert steps == 1 + 3 and await numbers(store, "batch", "batch_subject", "run", "provider_ref", "receipt") == {
        "batch": 0, "batch_subject": 0, "run": 0, "provider_ref": 0, "receipt": 0
    }  # fmt: skip

    counted = await store.read(ops.COUNT_DAY, (first, behind))

    def drop(tx: Any) -> None:
        for destination, state, count in counted:
            tx.count(destination, state, count)
        for table, key in (("attempt", "delivery_id"), ("delivery", "id"), ("content", "event_id"), ("event", "id")):
            tx.execute(f"DELETE FROM {table} WHERE {key} >= ? AND {key} < ?", (first, behind))

    await store.submit(drop)
    assert await orphans(store) == []


# -- by index --------------------------------------------------------------------------------------


@given(st.binary(min_size=16, max_size=16))
def test_a_deliverys_range_is_the_one_its_id_is_made_for(event_id: bytes) -> None:
    assert ops.delivery_range(event_id) == event_range(event_id)


@pytest.fixture
async def sqlite_desk(tmp_path: Path, empty_sqlite: Path, clock: StandingClock) -> AsyncIterator[Desk]:
    path = tmp_path / "unionhub.db"
    shutil.copy(empty_sqlite, path)
    store = SqliteStore(path, breaker=BREAKER, synchronous="OFF", clock=clock)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a", "b", "c")
    yield desk
    await store.close()


async def scans(store: Store, sql: str, parameters: Sequence[Any]) -> list[str]:
    """Steps of the plan that read a table from one end to the other."""
    plan = [row[3] for row in await store.read(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    return [step for step in plan if step.startswith("SCAN") and "CONSTANT ROW" not in step]


@pytest.mark.parametrize("table", ["dedupe", "receipt", "repair", "run", "content", "event"])
async def test_a_step_reads_by_index_alone(sqlite_desk: Desk, table: Any) -> None:
    store = sqlite_desk.store
    assert isinstance(store, Ledger)
    old = await last_year(sqlite_desk)
    await campaign(sqlite_desk, old)
    others = [id_at(sqlite_desk.now - 499 * DAY, n) for n in range(3)]
    for event_id in others:
        await sqlite_desk.owe("a", event_id=event_id)
    await sqlite_desk.owe_one("a")
    said: list[tuple[str, Sequence[Any]]] = []

    def op(tx: Any) -> None:
        run = tx.execute
        tx.execute = lambda sql, parameters=(): (said.append((sql, parameters)), run(sql, parameters))[1]
        ops.prune(tx, PruneStep(table=table, before=sqlite_desk.now, events=[old, *others], limit=10))
        tx.execute = run

    await store.submit(op)
    said = [(re.sub(r"/\*pg:.*?\*/", "", sql), parameters) for sql, parameters in said]
    read = {name for sql, _ in said for name in re.findall(r"(?:FROM|JOIN) (\w+)", sql)}
    assert read == {
        "content": {"event", "queue", "batch", "content"},
        "event": {"event", "queue", "batch", "batch_subject", "run", "delivery", *HISTORY},
    }.get(table, {table})
    for sql, parameters in said:
        assert await scans(store, sql, parameters) == [], sql
        assert "LIMIT ?" not in sql or parameters[-1] <= 10 + 1, "no more is read than may go"


@pytest.mark.parametrize("sql", [retention._OLD_EVENTS, retention._OLD_CONTENTS])
async def test_a_page_of_what_is_old_is_read_by_index(sqlite_desk: Desk, sql: str) -> None:
    assert await scans(sqlite_desk.store, sql, (b"\x01", b"\x02", 10)) == []


# -- what says itself until when it is kept ----------------------------------------------------------

_ANSWER = query(
    text(
        "INSERT INTO idempotency (principal, key, fingerprint, boot, keep_until)"
        " VALUES ('key:1', :id, :id, :id, :keep_until)"
    )
)
_REQUEST = query(
    text(
        "INSERT INTO raw_request (id, connection, state, received_at, sealed_for, request, keep_until)"
        " VALUES (:id, 'a', 'read', 0, 'raw:a', :id, :keep_until)"
    )
)


async def test_answers_and_requests_go_when_they_said_they_would(desk: Desk) -> None:
    rows = [made(id=b"%d" % n, keep_until=n * 100) for made in (_ANSWER, _REQUEST) for n in range(5)]
    await desk.store.commit(Unit(statements=rows))
    for table in ("idempotency", "raw_request"):
        step = PruneStep(table=table, before=300, limit=2)
        gone = [(await desk.store.prune(step)).rows for _ in range(3)]
        assert gone == [{table: 2}, {table: 1}, {table: 0}]
        assert [r[0] for r in await desk.store.read(f"SELECT keep_until FROM {table} ORDER BY 1")] == [300, 400]
