"""The group rules of the writer on PostgreSQL, under trouble that is real: on the wire, or made by the server."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.util import await_only

from hub.errors import Busy
from hub.model import State
from hub.sql import query
from hub.store.base import Unit
from hub.store.postgres import SETTINGS, PostgresStore, partitions
from hub.store.postgres.writer import Op, Session, Tx, Writer, _number
from hub.testing import StandingClock, eventually
from tests.conformance.wire import Stop, Wire, wire_to
from tests.ledger import BREAKER, Desk, fact, owed
from tests.postgres import Server

pytestmark = pytest.mark.postgres

CREATE = "CREATE TABLE probe (name TEXT PRIMARY KEY, n BIGINT NOT NULL CHECK (n < 1000), more BIGINT)"


class Rig:
    """A writer on its own table, by way of a wire, and a connection that sees what is committed."""

    def __init__(self, wire: Wire, watch: asyncpg.Connection[Any], sessions: int, timeout_s: float) -> None:
        self.wire = wire
        self.watch = watch
        self.runs: dict[str, int] = {}
        self.hints = 0
        self.on_due: Callable[[], object] = lambda: None
        self._timeout_s = timeout_s
        self.writer = Writer(self._connect, self._hint, sessions, connect_within_s=5.0)
        self.writer.start()

    async def _connect(self) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(self.wire.dsn, command_timeout=self._timeout_s, server_settings=SETTINGS)

    async def _hint(self, session: Session) -> None:
        self.hints += 1
        self.on_due()

    async def submit(self, op: Op) -> Any:
        async with asyncio.timeout(20):  # a writer that died answers nobody
            return await self.writer.submit(op)

    def put(self, name: str, n: int = 0) -> Op:
        def op(tx: Tx) -> str:
            self.runs[name] = self.runs.get(name, 0) + 1
            tx.execute("INSERT INTO probe (name, n) VALUES (?, ?)", (name, n))
            tx.count("a", "open", 1)
            return name

        return op

    async def together(self, *ops: Op) -> list[Any]:
        """Runs them as one group of the one session: it is kept busy until all are submitted."""
        begun, gate = asyncio.Event(), asyncio.Event()

        def busy(tx: Tx) -> None:
            begun.set()
            await_only(gate.wait())

        first = asyncio.create_task(self.submit(busy))
        await begun.wait()
        rest = [asyncio.create_task(self.submit(op)) for op in ops]
        await asyncio.sleep(0)
        gate.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)

    async def names(self) -> set[str]:
        """What another connection sees."""
        [(names, tally)] = await self.watch.fetch(
            "SELECT array(SELECT name FROM probe), (SELECT sum(count) FROM tally)"
        )
        found = set(names)
        assert (tally or 0) == len(found), "what is undone is not counted"
        return found

    async def names_are(self, names: set[str]) -> bool:
        return await self.names() == names

    async def end(self, pid: int) -> None:
        """The server's process of a session dies."""
        await self.watch.execute("SELECT pg_terminate_backend($1)", pid)
        await eventually(lambda: self._is_gone(pid))

    async def _is_gone(self, pid: int) -> bool:
        return not await self.watch.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid)


@pytest.fixture
async def wire(ledger_dsn: str) -> AsyncIterator[Wire]:
    async with wire_to(ledger_dsn) as wire:
        yield wire


Build = Callable[..., Rig]


@pytest.fixture
async def build(ledger_dsn: str, wire: Wire) -> AsyncIterator[Build]:
    """Makes rigs over one table."""
    watch = await asyncpg.connect(ledger_dsn, command_timeout=20)
    await watch.execute(CREATE)
    rigs: list[Rig] = []

    def make(sessions: int = 1, timeout_s: float = 10.0) -> Rig:
        rigs.append(Rig(wire, watch, sessions, timeout_s))
        return rigs[-1]

    yield make
    wire.go_on()
    async with asyncio.timeout(20):
        for rig in rigs:
            await rig.writer.close()
    await watch.close()


@pytest.fixture
async def rig(build: Build) -> Rig:
    return build()


def xid(tx: Tx) -> int:
    return int(tx.execute("SELECT pg_current_xact_id()::text").fetchone()[0])


def pid(tx: Tx) -> int:
    return int(tx.execute("SELECT pg_backend_pid()").fetchone()[0])


def refuse(tx: Tx) -> None:
    tx.execute("INSERT INTO probe (name, n) VALUES ('refused', 0)")
    tx.count("a", "open", 1)
    raise ValueError("no")


# -- groups ------------------------------------------------------------------------------------------


async def test_many_callers_share_one_transaction(rig: Rig) -> None:
    before = await rig.submit(xid)
    shared = await rig.together(*[xid] * 200)
    after = await rig.submit(xid)
    assert len(shared) == 200 and len(set(shared)) == 1
    assert before < shared[0] < after


async def test_more_callers_than_a_group_holds_share_a_few(build: Build) -> None:
    rig = build(sessions=4)
    numbers = await asyncio.gather(*(rig.submit(xid) for _ in range(1000)))
    assert 4 <= len(set(numbers)) <= 8


async def test_a_caller_is_answered_only_after_the_commit(rig: Rig) -> None:
    stop = Stop(rig.wire, b"COMMIT\0")
    task = asyncio.create_task(rig.submit(rig.put("x")))
    await stop.reached.wait()
    assert not task.done() and await rig.names() == set()
    stop.released.set()
    assert await task == "x" and await rig.names() == {"x"}


async def test_a_unit_that_fails_fails_alone(rig: Rig) -> None:
    results = await rig.together(rig.put("a"), refuse, rig.put("b"), rig.put("a"), rig.put("c"))
    assert [type(r).__name__ for r in results] == ["str", "ValueError", "str", "UniqueViolationError", "str"]
    assert await rig.names() == {"a", "b", "c"}
    assert set(rig.runs.values()) <= {1, 2, 3}
    assert rig.runs["b"] <= 2 and rig.runs["c"] <= 2, "run again alone, once"


async def test_a_unit_that_goes_on_after_a_failed_statement_is_no_success(rig: Rig) -> None:
    """The server answers its COMMIT with ROLLBACK, and calls that no error."""

    def careless(tx: Tx) -> str:
        with suppress(tx.violation):
            tx.execute("INSERT INTO probe (name, n) VALUES ('x', 5000)")
        return "done"

    with pytest.raises(RuntimeError, match="nothing was stored"):
        await rig.submit(careless)
    results = await rig.together(rig.put("a"), rig.put("b"), careless)
    assert results[:2] == ["a", "b"] and isinstance(results[2], RuntimeError)
    assert await rig.names() == {"a", "b"}


async def test_even_a_stop_iteration_reaches_its_caller_and_only_him(rig: Rig) -> None:
    results = await rig.together(rig.put("a"), lambda tx: next(iter(())), rig.put("b"))
    assert results[0] == "a" and isinstance(results[1], RuntimeError) and results[2] == "b"


async def test_one_unit_that_waits_for_a_lock_holds_up_nobody_on_another_session(build: Build) -> None:
    rig = build(sessions=2)
    begun = asyncio.Event()

    def waits(tx: Tx) -> str:
        begun.set()
        tx.execute("SELECT pg_advisory_xact_lock(1)")
        return "waited"

    async with rig.watch.transaction():
        await rig.watch.execute("SELECT pg_advisory_xact_lock(1)")
        waiting = asyncio.create_task(rig.submit(waits))
        await begun.wait()
        assert await rig.submit(lambda tx: "quick") == "quick"
        assert not waiting.done()
    assert await waiting == "waited"


async def test_a_group_waits_for_no_lock_while_it_holds_others(rig: Rig) -> None:
    """Two groups that wait for one another's locks would both stand still; alone, a unit takes all of its at once."""
    key = ("order", "a", b"key")

    def locks(tx: Tx) -> str:
        tx.lock(key)
        return "locked"

    await rig.watch.execute("SELECT pg_advisory_lock($1)", _number(key))
    together = asyncio.create_task(rig.together(rig.put("a"), locks, rig.put("b")))
    await eventually(lambda: rig.names_are({"a"}))
    assert not together.done()
    await rig.watch.execute("SELECT pg_advisory_unlock($1)", _number(key))
    assert await together == ["a", "locked", "b"]
    assert await rig.names() == {"a", "b"} and rig.runs["a"] == 2 and rig.runs["b"] == 1


async def test_what_comes_last_runs_after_the_others_of_its_group(rig: Rig) -> None:
    """A claim: it holds rows that the others fold into."""
    ran: list[str] = []

    def op(name: str) -> Op:
        def run(tx: Tx) -> int:
            ran.append(name)
            if name != "claim":
                tx.count("a", "open", 0)
            return xid(tx)

        return run

    begun, gate = asyncio.Event(), asyncio.Event()

    def busy(tx: Tx) -> None:
        begun.set()
        await_only(gate.wait())

    first = asyncio.create_task(rig.submit(busy))
    await begun.wait()
    claim = asyncio.create_task(rig.writer.submit(op("claim"), last=True))
    others = [asyncio.create_task(rig.submit(op(f"unit {n}"))) for n in range(2)]
    await asyncio.sleep(0)
    gate.set()
    await first
    assert len({await claim, *await asyncio.gather(*others)}) == 1, "in the same transaction"
    assert ran == ["unit 0", "unit 1", "claim"]


# -- callers -----------------------------------------------------------------------------------------


async def test_a_caller_that_went_away_takes_nobody_along(rig: Rig) -> None:
    stop = Stop(rig.wire, b"COMMIT\0")
    first = asyncio.create_task(rig.submit(rig.put("first")))
    await stop.reached.wait()
    gone = asyncio.create_task(rig.submit(rig.put("gone")))
    stays = asyncio.create_task(rig.submit(rig.put("stays")))
    await asyncio.sleep(0)
    gone.cancel()
    stop.released.set()
    assert await first == "first" and await stays == "stays"
    assert await rig.names() == {"first", "gone", "stays"}


async def test_a_caller_that_goes_away_while_his_unit_runs_takes_nobody_along(rig: Rig) -> None:
    stop = Stop(rig.wire, b"COMMIT\0")
    gone = asyncio.create_task(rig.submit(rig.put("gone")))
    stays = asyncio.create_task(rig.submit(rig.put("stays")))
    await stop.reached.wait()
    gone.cancel()
    stop.released.set()
    assert await stays == "stays"
    assert await rig.names() == {"gone", "stays"}


async def test_closing_commits_what_was_submitted_and_refuses_the_rest(rig: Rig) -> None:
    stop = Stop(rig.wire, b"COMMIT\0")
    taken = [asyncio.create_task(rig.submit(rig.put(f"n{i}"))) for i in range(30)]
    await stop.reached.wait()
    late = asyncio.create_task(rig.submit(rig.put("late")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(rig.writer.close())
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="closing"):
        await rig.submit(rig.put("too late"))
    stop.released.set()
    await closing
    assert await asyncio.gather(*taken, late) == [*(f"n{i}" for i in range(30)), "late"]
    assert len(await rig.names()) == 31


async def test_a_hint_follows_only_what_is_due_and_its_trouble_is_nobodys_failure(rig: Rig) -> None:
    def due(tx: Tx) -> str:
        tx.due("a", 1)
        return "due"

    await rig.submit(rig.put("a"))
    assert rig.hints == 0

    def broken() -> None:
        raise OSError("no such channel")

    rig.on_due = broken
    assert await rig.submit(due) == "due"
    assert await rig.submit(rig.put("b")) == "b"
    assert rig.hints == 1 and rig.runs == {"a": 1, "b": 1}


# -- deadlocks ---------------------------------------------------------------------------------------


def crossing(rig: Rig, first: str, second: str, met: asyncio.Barrier) -> Op:
    """Locks one row, meets the other side, then wants its row; the second time it need not wait."""

    def op(tx: Tx) -> str:
        rig.runs["crossing"] = rig.runs.get("crossing", 0) + 1
        tx.execute("UPDATE probe SET n = n + 1 WHERE name = ?", (first,))
        if rig.runs["crossing"] == 1:
            await_only(met.wait())
        tx.execute("UPDATE probe SET n = n + 1 WHERE name = ?", (second,))
        return first

    return op


@pytest.mark.parametrize("company", [0, 3])
async def test_two_writers_that_lock_each_other_out_are_both_done(build: Build, company: int) -> None:
    """Alone, or in the company of others, who are run again with the one that had to give way."""
    one, two = build(), build()
    await one.submit(lambda tx: [one.put(name)(tx) for name in ("x", "y")])
    met = asyncio.Barrier(2)
    results = await asyncio.gather(
        one.together(crossing(one, "x", "y", met), *(one.put(f"one-{i}") for i in range(company))),
        two.together(crossing(two, "y", "x", met), *(two.put(f"two-{i}") for i in range(company))),
    )
    assert [r[0] for r in results] == ["x", "y"]
    assert sorted([one.runs["crossing"], two.runs["crossing"]]) == [1, 2]
    counts = dict(await one.watch.fetch("SELECT name, n FROM probe WHERE name IN ('x', 'y')"))
    assert counts == {"x": 2, "y": 2}
    assert len(await one.names()) == 2 + 2 * company


async def test_one_that_always_gets_in_the_way_is_told_busy_in_the_end(rig: Rig) -> None:
    def unlucky(tx: Tx) -> None:
        rig.runs["unlucky"] = rig.runs.get("unlucky", 0) + 1
        tx.execute("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40P01'; END $$")

    results = await rig.together(rig.put("a"), unlucky, rig.put("b"))
    assert results[0] == "a" and isinstance(results[1], Busy) and results[2] == "b"
    assert rig.runs["unlucky"] == 4 and await rig.names() == {"a", "b"}


# -- time-outs ---------------------------------------------------------------------------------------


async def test_every_session_of_the_store_has_its_time_outs(ledger_dsn: str) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    sql = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    store = PostgresStore(ledger_dsn)
    await store.open()
    expected = tuple(SETTINGS[name] for name in names)
    assert all(s.endswith("s") and int(s[:-1]) <= 15 for s in expected)
    assert tuple(await store.submit(lambda tx: tx.execute(sql).fetchone())) == expected
    assert await store.read(sql) == [expected]
    with pytest.raises(Busy, match="25006"):
        await store.read("UPDATE ledger SET hold = NULL RETURNING 1")
    await store.close()


@pytest.mark.parametrize(
    ("setting", "statement", "state"),
    [
        ("statement_timeout", "SELECT pg_sleep(60)", "57014"),
        ("lock_timeout", "SELECT pg_advisory_xact_lock(1)", "55P03"),
    ],
)
async def test_a_unit_that_takes_too_long_is_told_busy_and_the_others_stand(
    rig: Rig, setting: str, statement: str, state: str
) -> None:
    def slow(tx: Tx) -> None:
        tx.execute(f"SET LOCAL {setting} = '50ms'")
        tx.execute(statement)

    await rig.watch.execute("SELECT pg_advisory_lock(1)")
    before = await rig.submit(pid)
    results = await rig.together(rig.put("a"), slow, rig.put("b"))
    assert results[0] == "a" and results[2] == "b" and await rig.names() == {"a", "b"}
    assert isinstance(results[1], Busy) and results[1].may_retry and state in str(results[1])
    assert await rig.submit(pid) == before, "the connection is as good as before"


async def test_a_transaction_left_open_is_ended_by_the_server_and_told_busy(rig: Rig) -> None:
    ended: list[int] = []

    def forgets(tx: Tx) -> None:
        rig.runs["forgets"] = rig.runs.get("forgets", 0) + 1
        tx.execute("INSERT INTO probe (name, n) VALUES ('x', 0)")
        tx.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        ended.append(pid(tx))
        await_only(eventually(lambda: rig._is_gone(ended[-1])))
        tx.execute("SELECT 1")

    with pytest.raises(Busy):
        await rig.submit(forgets)
    assert rig.runs == {"forgets": 1} and await rig.names() == set()
    assert await rig.submit(pid) != ended[0]


# -- lost connections --------------------------------------------------------------------------------


async def test_callers_of_a_session_that_died_are_told_busy_and_the_next_one_reconnects(rig: Rig) -> None:
    """Nobody is run again on a connection that may die just so; every caller may try again."""
    before = await rig.submit(pid)

    def dies(tx: Tx) -> None:
        await_only(rig.end(before))

    results = await rig.together(rig.put("a"), dies, rig.put("b"))
    assert {type(r) for r in results} == {Busy} and all(r.may_retry for r in results)
    assert max(rig.runs.values()) == 1 and await rig.names() == set()
    assert await rig.submit(rig.put("after")) == "after"
    assert await rig.submit(pid) != before


async def test_a_session_that_died_idle_is_made_anew(rig: Rig) -> None:
    for n in range(3):
        await rig.end(await rig.submit(pid))
        with suppress(Busy):  # the news of its end may still be on the wire
            await rig.submit(lambda tx: None)
        assert await rig.submit(rig.put(f"n{n}")) == f"n{n}"


async def test_a_unit_that_fails_alone_after_its_group_did_leaves_the_rest_to_be_told(rig: Rig) -> None:
    """The connection is lost while units are run again: who was committed hears so, the rest hear Busy."""
    before = await rig.submit(pid)

    def dies_alone(tx: Tx) -> None:
        rig.runs["dies"] = rig.runs.get("dies", 0) + 1
        if rig.runs["dies"] == 1:
            raise ValueError("the group fails")
        await_only(rig.end(before))
        tx.execute("SELECT 1")

    results = await rig.together(rig.put("a"), dies_alone, rig.put("b"))
    assert results[0] == "a" and isinstance(results[1], Busy) and isinstance(results[2], Busy)
    assert await rig.names() == {"a"}
    assert await rig.submit(rig.put("b")) == "b"


SLOW_COMMIT = (
    "CREATE OR REPLACE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(5);"
    " RETURN NULL; END $$;"
    " CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON probe DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    " EXECUTE FUNCTION be_slow()"
)


@pytest.mark.parametrize("lost", ["the question", "the answer", "the server", "patience"])
async def test_a_commit_whose_answer_is_lost_is_not_run_again(build: Build, lost: str) -> None:
    """Nobody knows whether it stands: a second run could do it twice. The connection is not used again."""
    rig = build(timeout_s=0.3 if lost in ("the server", "patience") else 10.0)
    before = await rig.submit(pid)

    async def at_commit(piece: bytes) -> None:
        if b"COMMIT\0" in piece:
            rig.wire.stop() if lost == "the server" else rig.wire.cut()

    def lose(tx: Tx) -> None:
        if lost == "the answer":
            rig.wire.cut_at_answer = b"COMMIT\0"
        elif lost == "patience":
            await_only(rig.watch.execute(SLOW_COMMIT))
        else:
            rig.wire.before_passing_on = at_commit

    results = await rig.together(lose, rig.put("a"), rig.put("b"))
    rig.wire.cut_at_answer = rig.wire.before_passing_on = None
    rig.wire.go_on()
    assert {type(r) for r in results} == {Busy}
    assert await rig.submit(pid) != before
    await eventually(lambda: rig._is_gone(before))
    assert rig.runs == {"a": 1, "b": 1}
    # The server may hear that nobody waits any more before it has committed, or after.
    stands = {"the question": [set()], "patience": [set(), {"a", "b"}]}.get(lost, [{"a", "b"}])
    assert await rig.names() in stands


async def test_what_commit_itself_refuses_is_told_its_caller_and_the_others_stand(rig: Rig) -> None:
    """A constraint of a plugin's that is looked at in the end: the server has answered, so nothing is in doubt."""
    await rig.watch.execute("ALTER TABLE probe ADD UNIQUE (more) DEFERRABLE INITIALLY DEFERRED")

    def claim_number(name: str) -> Op:
        def op(tx: Tx) -> str:
            tx.execute("INSERT INTO probe (name, n, more) VALUES (?, 0, 7)", (name,))
            tx.count("a", "open", 1)
            return name

        return op

    before = await rig.submit(pid)
    results = await rig.together(rig.put("a"), claim_number("first"), claim_number("second"), rig.put("b"))
    assert isinstance(results.pop(2), asyncpg.UniqueViolationError)
    assert results == ["a", "first", "b"] and await rig.names() == {"a", "first", "b"}
    assert await rig.submit(pid) == before


async def test_a_unit_committed_without_an_answer_is_a_repeat_when_it_is_said_again(
    ledger_dsn: str, wire: Wire, clock: StandingClock
) -> None:
    store = PostgresStore(wire.dsn)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a")
    draft = fact("k", desk.now, ["a"])
    wire.cut_at_answer = b"COMMIT\0"
    with pytest.raises(Busy):
        await desk.commit(draft)
    wire.cut_at_answer = None
    assert (await desk.commit(draft)).events == [(draft.event[0], True)]
    assert len(await desk.claim()) == 1
    await store.close()


async def test_a_group_that_cannot_begin_is_told_at_once_not_one_after_another(build: Build) -> None:
    """The server hangs: forty callers must not wait for it one after the other."""
    rig = build(timeout_s=0.2)
    await rig.submit(rig.put("before"))
    rig.wire.stop()
    said = len(rig.wire.said)
    results = await asyncio.gather(*(rig.submit(rig.put(f"n{i}")) for i in range(40)), return_exceptions=True)
    assert {type(r) for r in results} == {Busy} and rig.runs == {"before": 1}
    rig.wire.go_on()
    assert await rig.submit(rig.put("after")) == "after"
    assert rig.wire.said[said:].count(b"BEGIN\0") <= 2, "once for all of them, and once for the one after"
    assert await rig.names() == {"before", "after"}


async def test_a_server_that_hangs_in_the_middle_of_a_group_is_waited_for_once(build: Build) -> None:
    rig = build(timeout_s=0.2)
    await rig.submit(rig.put("before"))

    def hangs(tx: Tx) -> None:
        rig.wire.stop()
        tx.execute("SELECT 1")

    results = await rig.together(rig.put("a"), hangs, *(rig.put(f"n{i}") for i in range(20)))
    assert {type(r) for r in results} == {Busy} and max(rig.runs.values()) == 1
    rig.wire.go_on()
    assert await rig.submit(rig.put("after")) == "after"
    assert await rig.names() == {"before", "after"}


async def test_closing_does_not_wait_for_a_server_that_hangs(build: Build) -> None:
    rig = build(timeout_s=0.2)
    await rig.submit(rig.put("a"))
    rig.wire.stop()
    async with asyncio.timeout(10):
        await rig.writer.close()


async def test_a_reader_that_died_is_made_anew(ledger_dsn: str, postgres_server: Server) -> None:
    store = PostgresStore(ledger_dsn)
    await store.open()

    async def read() -> list[Any]:
        return await store.read("SELECT pg_backend_pid()")

    [(before,)] = await read()
    database = ledger_dsn.rpartition("/")[2]
    others = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    await asyncio.to_thread(postgres_server.execute, others)

    async def again() -> bool:
        try:
            return await read() != [(before,)]
        except Busy as busy:
            assert busy.may_retry
            return False

    assert await eventually(again)
    await store.ping()
    await store.close()


# -- what is told ------------------------------------------------------------------------------------

CANARY = "0912345678"


def told(error: BaseException) -> str:
    """Everything a log or an answer could show of it, its causes included."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


WRONG: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a key twice": ("INSERT INTO probe (name, n) VALUES (?, 0), (?, 0)", (CANARY, CANARY)),
    "a key there already": ("INSERT INTO probe (name, n) VALUES (?, 0)", ("Nguyễn Văn A",)),
    "a row that lacks a value": ("INSERT INTO probe (name, n) VALUES (?, ?)", (CANARY, None)),
    "a row that breaks a check": ("INSERT INTO probe (name, n) VALUES (?, 1000)", (CANARY,)),
    "a text where a number is due": ("UPDATE probe SET n = ?", (CANARY,)),
    "a number no column holds": ("UPDATE probe SET n = ?", (int(CANARY) ** 5,)),
    "a text that is no number": ("SELECT ?::text::bigint", (f"x{CANARY}",)),
    "a sign no text holds": ("UPDATE probe SET name = ?", (f"{CANARY}\0",)),
    "a key no index holds": (
        "INSERT INTO probe (name, n) SELECT string_agg(md5(i::text), ?), 0 FROM generate_series(1, 300) i",
        (CANARY,),
    ),
    "a table there is not": ("UPDATE nowhere SET name = ?", (CANARY,)),
    "no SQL at all": ("UPDATE probe SET SET name = ?", (CANARY,)),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_wrong_is_told_as_wrong_without_its_values_and_the_others_stand(rig: Rig, wrong: str) -> None:
    """Busy would mean: try again. A value in an error ends up in a log."""
    await rig.submit(rig.put("Nguyễn Văn A"))
    results = await rig.together(rig.put("a"), lambda tx: tx.execute(*WRONG[wrong]), rig.put("b"))
    assert results[0] == "a" and results[2] == "b"
    assert isinstance(results[1], Exception) and not isinstance(results[1], Busy)
    assert CANARY not in told(results[1]) and "Nguyễn" not in told(results[1])
    assert await rig.names() == {"Nguyễn Văn A", "a", "b"}


@pytest.mark.parametrize("read", ["SELECT ?::text::bigint", "SELECT 1 WHERE 1 = ?"])
async def test_reads_tell_no_values_either(ledger_dsn: str, read: str) -> None:
    store = PostgresStore(ledger_dsn)
    await store.open()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any error, but not Busy
        await store.read(read, (f"x{CANARY}",))
    assert not isinstance(caught.value, Busy) and CANARY not in told(caught.value)
    await store.close()


async def test_a_constraint_that_was_broken_is_named(rig: Rig) -> None:
    await rig.submit(rig.put("x"))
    with pytest.raises(asyncpg.UniqueViolationError, match="probe_pkey"):
        await rig.submit(rig.put("x"))


# -- statements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 20, 500])
async def test_a_large_page_is_copied_and_a_small_one_is_not(
    ledger_dsn: str, wire: Wire, clock: StandingClock, rows: int
) -> None:
    """COPY takes a statement of its own to begin with; for a few rows that is more than it saves."""
    store = PostgresStore(wire.dsn)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a")
    page = fact("k", desk.now)
    said = len(wire.said)
    page_rows = [owed(page.event[0], "a", desk.now, recipient=f"m-{i}") for i in range(rows)]
    await store.commit(Unit(drafts=[page], deliveries=page_rows))
    heard = bytes(wire.said[said:])
    assert (b'COPY "queue"' in heard) is (rows == 500) is (b"INSERT INTO queue" not in heard)
    jobs = await desk.claim(limit=1000, capacity={"a": 1000})
    assert {j.id for j in jobs} == {row.id for row in page_rows}
    assert [j.recipient for j in sorted(jobs, key=lambda j: int(j.recipient[2:]))] == [r.recipient for r in page_rows]
    await store.close()


async def a_day_at_the_office(desk: Desk) -> None:
    """One delivery through everything that is written on the way."""
    id = await desk.owe_one(order_key=b"key")
    job = await desk.claim_one()
    assert await desk.store.start(id, job.lease_no, b"sha", [])
    await desk.accept(job, "r-" + id.hex())
    await desk.receipt("r-" + id.hex(), "delivered")
    assert await desk.state(id) == "delivered"
    assert await desk.store.place_events(10) == 1
    await desk.sweep()


async def test_prepared_statements_outlive_new_and_dropped_days_and_a_reconnect(
    postgres_dsn: str, postgres_server: Server, clock: StandingClock
) -> None:
    store = PostgresStore(postgres_dsn)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a")
    other = await asyncpg.connect(postgres_dsn)
    await a_day_at_the_office(desk)
    for days in pairwise([clock() + timedelta(n) for n in (0, 10, 20)]):
        made = await partitions.ensure(other, int(days[1].timestamp() * 1_000_000), days_ahead=2)
        assert made.made
        await a_day_at_the_office(desk)
    for day in await partitions.droppable(other, 2**55):
        if day > clock().date() + timedelta(5):
            assert await partitions.drop(other, day)
    await a_day_at_the_office(desk)
    await other.execute("ALTER TABLE queue ADD COLUMN later BIGINT")
    await a_day_at_the_office(desk)
    await asyncio.to_thread(
        postgres_server.execute,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()",
        database=postgres_dsn.rpartition("/")[2],
    )
    await eventually(lambda: _answers(store.ping()))
    await eventually(lambda: _answers(store.read("SELECT 1")))
    await a_day_at_the_office(desk)
    await store.close()


async def _answers(call: Coroutine[Any, Any, Any]) -> bool:
    try:
        await call
    except Busy:
        return False
    return True


async def test_a_statement_that_fits_its_table_no_more_is_prepared_anew(rig: Rig) -> None:
    """Another node, upgraded first, has changed the table under this one."""

    def look(tx: Tx) -> list[Any]:
        return [tuple(row) for row in tx.execute("SELECT * FROM probe").fetchall()]

    await rig.submit(rig.put("x"))
    assert await rig.submit(look) == [("x", 0, None)]
    before = await rig.submit(pid)
    await rig.watch.execute("ALTER TABLE probe DROP COLUMN more")
    assert await rig.submit(look) == [("x", 0)]
    assert await rig.together(rig.put("y"), look) == ["y", [("x", 0), ("y", 0)]]
    assert await rig.submit(pid) == before


async def test_a_plugins_rows_and_the_ledgers_are_undone_together(ledger_dsn: str, clock: StandingClock) -> None:
    """A constraint of the plugin's own table breaks in the middle of a group: nobody else's unit is touched."""
    store = PostgresStore(ledger_dsn, breaker=BREAKER)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a")
    await store.commit(Unit(statements=[query(text(CREATE))()]))
    put = query(text("INSERT INTO probe (name, n) VALUES (:name, :n)"))
    units = [Unit(statements=[put(name=f"n{i % 20}", n=0)], drafts=[fact(f"k{i}", desk.now, ["a"])]) for i in range(40)]
    results = await asyncio.gather(*(store.commit(u) for u in units), return_exceptions=True)
    assert sum(isinstance(r, asyncpg.UniqueViolationError) for r in results) == 20
    jobs = await desk.claim()
    assert len(jobs) == 20
    assert await store.settle([], desk.now) == []
    for job in jobs:
        assert await desk.settle(job, State.DELIVERED)
    await store.close()
