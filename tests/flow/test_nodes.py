"""Several nodes on one ledger: who leads, who sends, and what happens when one of them cannot say that it lives.

A line that stands still makes a node what a stopped process is to the others. Leases last 60 s where a test
shows that nobody waits for one to end, and three where it has to.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from sqlalchemy import text

from hub.app import HubApp
from hub.contract import Connection, Delivered, Outcome, Shipment, UnitOfWork
from hub.errors import ConfigError
from hub.model import Draft, Json, State
from hub.retry import SECOND
from hub.sql import query
from hub.store.base import Job, Store
from hub.store.postgres import SETTINGS, PostgresStore
from hub.testing import RecordingSink, StandingClock, configuration, connector, eventually, registry_of
from hub.wiring import PACE
from tests.flow.conftest import THING, Blocked, check_books, emit, reach, states
from tests.flow.fleet import Archive, Fleet
from tests.flow.front_door import captured_log
from tests.ledger import BREAKER, Desk
from tests.postgres import Server

pytestmark = pytest.mark.postgres

SHORT_S = 3.0
#: Far less than a lease of 60 s: what is there by now did not wait for one to end.
AT_ONCE_S = 20.0


@pytest.fixture
def fleet(tmp_path: Path, postgres_dsn: str) -> Fleet:
    return Fleet(tmp_path, postgres_dsn)


@pytest.fixture
def short(fleet: Fleet) -> Fleet:
    fleet.lease_s = SHORT_S
    return fleet


@pytest.fixture
def log() -> Iterator[io.BytesIO]:
    with captured_log() as lines:
        yield lines


def said(log: io.BytesIO, event: str) -> list[Json]:
    from hub.log import flush

    flush()
    return [line for line in map(orjson.loads, log.getvalue().splitlines()) if line["event"] == event]


def sent(*sinks: RecordingSink) -> list[str]:
    return [str(s.event.id) for sink in sinks for s in sink.shipments]


def sinks(**more: Any) -> tuple[RecordingSink, RecordingSink]:
    return RecordingSink(**more), RecordingSink(**more)


async def claimed(hub: HubApp, state: str = "leased") -> int:
    [(count,)] = await hub.store.read(
        "SELECT count(*) FROM queue WHERE lease_owner = ? AND state = ?", (hub.boot, state)
    )
    return int(count)


def leader(*hubs: HubApp) -> HubApp | None:
    leading = [hub for hub in hubs if hub.nodes.leads()]
    assert len(leading) <= 1
    return leading[0] if leading else None


# -- sharing -----------------------------------------------------------------------------------------


async def test_nodes_share_the_work_and_each_delivery_is_sent_once(fleet: Fleet) -> None:
    slow = Blocked(Delivered())
    ours, theirs = sinks(concurrency=2)
    ours.script = [slow] * 100
    async with fleet.node("a", {"x": Connection(sink=ours)}) as a:
        ids = await emit(a, 40)
        await eventually(lambda: slow.waiting == 2)
        async with fleet.node("b", {"x": Connection(sink=theirs)}) as b:
            # Node a has what it claimed; everything else is b's.
            await eventually(lambda: len(theirs.shipments) >= 36)
            slow.let_go.set()
            await reach(b, ["delivered"] * 40)
            assert sorted(sent(ours, theirs)) == sorted(ids)
            await check_books(b.store)


async def test_what_one_node_takes_in_another_hears_of_without_looking(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.worker.POLL_S", 3600.0)
    ours, theirs = sinks()
    async with fleet.node("a", {"x": Connection(sink=ours)}) as a:
        await emit(a)
        await reach(a, ["delivered"])  # it has looked, and would not look again today
        async with fleet.node("b", {"x": Connection(sink=theirs)}, start=False) as b:
            await emit(b, 5)
            await reach(a, ["delivered"] * 6)


async def test_without_hints_it_is_found_by_looking(fleet: Fleet) -> None:
    ours, theirs = sinks()
    async with fleet.node("a", {"x": Connection(sink=ours)}) as a:
        a.store.on_hint = lambda: None
        await emit(a)
        await reach(a, ["delivered"])
        async with fleet.node("b", {"x": Connection(sink=theirs)}, start=False) as b:
            await emit(b, 5)
            await reach(a, ["delivered"] * 6)


async def test_the_order_of_a_key_is_kept_over_nodes(fleet: Fleet) -> None:
    seen: dict[str, list[int]] = {}

    async def keep(shipment: Shipment) -> Outcome:
        data = shipment.event.data
        await asyncio.sleep(0)
        seen.setdefault(data["id"], []).append(data["n"])
        return Delivered()

    async with AsyncExitStack() as stack:
        hubs = []
        for name in ("a", "b", "c"):
            sink = RecordingSink(script=[keep] * 1000)
            hubs.append(await stack.enter_async_context(fleet.node(name, {"x": Connection(sink=sink)})))
        for n in range(12):
            drafts = [
                Draft(
                    type=THING,
                    source="/test",
                    dedupe_key=f"{key}-{n}",
                    ordering_key=f"k{key}",
                    data={"id": f"k{key}", "n": n},
                )
                for key in range(10)
            ]
            await hubs[n % 3].commit(UnitOfWork(drafts=drafts))
        await reach(hubs[0], ["delivered"] * 120)
        assert seen == {f"k{key}": list(range(12)) for key in range(10)}
        await check_books(hubs[0].store)


# -- leading -----------------------------------------------------------------------------------------


async def test_one_leads_and_gives_the_lead_back_when_it_stops(fleet: Fleet, log: io.BytesIO) -> None:
    async with AsyncExitStack() as stack:
        a, b, c = [await stack.enter_async_context(fleet.node(n, {})) for n in "abc"]
        assert leader(a, b, c) is a
        assert await a.store.read("SELECT count(*) FROM node") == [(3,)]
        await a.stop()
        following = await eventually(lambda: leader(b, c), AT_ONCE_S)
        assert len(said(log, "node.leads")) == 2
        assert said(log, "node.lost") == [], "it went in order"
        assert await following.store.read("SELECT count(*) FROM node") == [(2,)]


async def test_the_lead_is_taken_over_from_one_that_gives_no_sign_of_life(short: Fleet, log: io.BytesIO) -> None:
    async with short.node("a", {}) as a, short.node("b", {}) as b:
        short.lines["a"].stand_still()
        [(ends,)] = await b.store.read("SELECT lease_until FROM lease WHERE name = 'leader'")
        await eventually(lambda: not (a.nodes.leads() or a.nodes.good()))
        await eventually(b.nodes.leads)
        # By the database's clock: not before the lease ended, and without waiting for the next sign of life.
        [(owner, until)] = await b.store.read("SELECT owner, lease_until FROM lease WHERE name = 'leader'")
        assert owner == b.boot and until >= ends + SHORT_S * 1_000_000
        await eventually(lambda: said(log, "node.lost"))
        assert said(log, "node.lost")[0]["boot"] == a.boot.hex()
        short.lines["a"].go_on()
        await eventually(lambda: a.nodes.good())
        assert a.nodes.term == 2 and leader(a, b) is b


async def test_events_get_their_positions_from_the_leader_without_a_gap(fleet: Fleet) -> None:
    async with fleet.node("a", {}) as a, fleet.node("b", {}) as b:
        await asyncio.gather(*(emit(hub, 3) for hub in (a, b) for _ in range(20)))

        async def placed() -> bool:
            return await b.store.read("SELECT count(*) FROM event WHERE position IS NULL") == [(0,)]

        await eventually(placed)
        rows = await b.store.read("SELECT position FROM event ORDER BY position")
        assert [position for (position,) in rows] == list(range(1, 121))


# -- a node that cannot say that it lives -------------------------------------------------------------


@pytest.mark.parametrize("safe", [True, False])
async def test_what_a_silent_node_had_goes_on_elsewhere_and_its_late_word_changes_nothing(
    short: Fleet, log: io.BytesIO, safe: bool
) -> None:
    slow = Blocked(Delivered())
    ours, theirs = sinks(concurrency=1, resend_is_safe=safe)
    ours.script = [slow] * 10
    async with short.node("a", {"x": Connection(sink=ours)}) as a:
        ids = await emit(a, 2)  # as many as it claims: one under way, one behind it
        await eventually(lambda: slow.waiting == 1)
        async with short.node("b", {"x": Connection(sink=theirs)}) as b:
            first, second = sent(ours)[0], next(id for id in ids if id not in sent(ours))
            short.lines["a"].stand_still()
            await eventually(lambda: not a.nodes.good())
            end = "delivered" if safe else "unknown(crashed_while_sending)"
            await reach(b, sorted(["delivered", end]))
            assert sent(theirs).count(second) == 1 and sent(theirs).count(first) == int(safe)
            slow.let_go.set()  # its answer comes now
            short.lines["a"].go_on()
            await eventually(lambda: a.nodes.good())
            await eventually(lambda: any(line["delivery"] for line in said(log, "delivery.late")))
            await eventually(lambda: a.worker is not None and a.worker.busy == 0)
            assert sent(ours) == [first], "what had not begun was not sent"
            assert sorted(await states(b)) == sorted(["delivered", end]), "the late word was refused"
            attempts = await b.store.read("SELECT outcome, count(*) FROM attempt GROUP BY 1")
            assert dict(attempts) == ({"lost": 2, "delivered": 2} if safe else {"lost": 2, "delivered": 1})
            await check_books(b.store)


async def test_a_node_that_comes_back_sends_nothing_of_what_it_had_claimed_before(short: Fleet) -> None:
    """It counts as alive again when its old jobs get their turn: their time is over all the same."""
    slow = Blocked(Delivered())
    ours, theirs = sinks(concurrency=1)
    ours.script = [slow]
    async with short.node("a", {"x": Connection(sink=ours)}) as a:
        ids = await emit(a, 2)
        await eventually(lambda: slow.waiting == 1)
        async with short.node("b", {"x": Connection(sink=theirs)}) as b:
            short.lines["a"].stand_still()
            await reach(b, ["delivered"] * 2)
            short.lines["a"].go_on()
            await eventually(lambda: a.nodes.good())
            slow.let_go.set()
            await eventually(lambda: a.worker is not None and a.worker.busy == 0)
            assert len(ours.shipments) == 1
            assert sorted(sent(theirs)) == sorted(ids)


async def test_a_node_without_the_database_stops_claiming_and_sending_by_itself(short: Fleet) -> None:
    slow = Blocked(Delivered())
    sink = RecordingSink(concurrency=1, script=[slow])
    async with short.node("a", {"x": Connection(sink=sink)}) as a:
        await emit(a, 3)
        await eventually(lambda: slow.waiting == 1)
        short.lines["a"].cut()
        await eventually(lambda: not a.nodes.good())
        slow.let_go.set()
        # Its other jobs get their turn now, and are laid aside.
        await eventually(lambda: a.worker is not None and not a.worker._running)
        assert len(sink.shipments) == 1
        short.lines["a"].go_on()
        await reach(a, ["delivered"] * 3)
        assert len(sink.shipments) == 3, "nobody took over, so the first answer still counts"


async def test_after_an_outage_for_all_everybody_keeps_what_it_has(short: Fleet, log: io.BytesIO) -> None:
    """All leases have ended; who comes back first must not take the others for dead."""
    slow = Blocked(Delivered())
    both = sinks(concurrency=1, resend_is_safe=False)
    for sink in both:
        sink.script = [slow]
    async with (
        short.node("a", {"x": Connection(sink=both[0])}) as a,
        short.node("b", {"x": Connection(sink=both[1])}) as b,
    ):
        await emit(a, 4)  # a claims one to send and one behind it, b the others
        await eventually(lambda: slow.waiting == 2)
        for line in short.lines.values():
            line.stand_still()

        async def lapsed() -> bool:
            return not (a.nodes.good() or b.nodes.good())

        await eventually(lapsed)
        slow.let_go.set()  # answered, and nowhere to write it
        ends = asyncio.get_running_loop().time() + SHORT_S / 2  # trust ends a third before the lease does
        await eventually(lambda: asyncio.get_running_loop().time() > ends)
        for line in short.lines.values():
            line.go_on()
        await reach(a, ["delivered"] * 4)
        assert len(sent(*both)) == 4 and said(log, "node.lost") == [] and said(log, "delivery.late") == []


# -- sessions ----------------------------------------------------------------------------------------


class Session:
    """A connection that one node at a time may keep up: notes who does, and when."""

    def __init__(self) -> None:
        self.up: list[str] = []
        self.story: list[str] = []
        self.sinks: dict[str, RecordingSink] = {}

    def at(self, name: str) -> Connection:
        sink = self.sinks[name] = RecordingSink()

        async def run() -> None:
            self.up.append(name)
            self.story.append(f"{name} up")
            assert len(self.up) == 1, "one at a time"
            try:
                await asyncio.Event().wait()
            finally:
                self.up.remove(name)
                self.story.append(f"{name} down")

        return Connection(sink=sink, run=run, sessions=1)


async def test_one_node_keeps_a_session_and_sends_over_it_until_it_stops(fleet: Fleet) -> None:
    session = Session()
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(fleet.node("a", {"x": session.at("a")}))
        await eventually(lambda: session.up == ["a"])
        b = await stack.enter_async_context(fleet.node("b", {"x": session.at("b")}))
        await emit(b, 20)
        await reach(b, ["delivered"] * 20)
        assert len(session.sinks["a"].shipments) == 20 and session.sinks["b"].shipments == []
        await a.stop()
        await eventually(lambda: session.up == ["b"], AT_ONCE_S)
        await emit(b, 20)
        await reach(b, ["delivered"] * 40)
        assert len(session.sinks["b"].shipments) == 20


async def test_a_session_of_a_silent_node_ends_before_another_begins_one(short: Fleet) -> None:
    session = Session()
    async with short.node("a", {"x": session.at("a")}) as a:
        await eventually(lambda: session.up == ["a"])
        async with short.node("b", {"x": session.at("b")}) as b:
            short.lines["a"].stand_still()
            await eventually(lambda: session.up == ["b"])
            assert session.story == ["a up", "a down", "b up"]
            await emit(b, 5)
            await reach(b, ["delivered"] * 5)
            short.lines["a"].go_on()
            await eventually(a.nodes.good)
            await emit(a, 5)
            await reach(a, ["delivered"] * 10)
            assert len(session.sinks["b"].shipments) == 10 and session.up == ["b"]


async def test_a_hub_that_keeps_a_session_can_be_stopped(fleet: Fleet) -> None:
    session = Session()
    async with fleet.node("a", {"x": session.at("a")}) as a:
        await eventually(lambda: session.up == ["a"])
        await asyncio.wait_for(a.stop(), 10)
        assert session.up == []


# -- runs --------------------------------------------------------------------------------------------


async def runs(store: Store) -> list[tuple[Any, ...]]:
    return await store.read("SELECT slot, state FROM run ORDER BY slot")


def ended(store: Store, count: int = 1) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return [state for _, state in await runs(store)] == ["done"] * count

    return condition


async def test_a_run_of_a_silent_node_goes_on_elsewhere_from_its_cursor(short: Fleet) -> None:
    archive = Archive(6)
    archive.block = {"a": 3}
    async with short.node("a", {"archive": archive.at("a")}) as a:
        await a.pull_now("archive")
        await asyncio.wait_for(archive.blocked.wait(), 10)
        async with short.node("b", {"archive": archive.at("b")}) as b:
            short.lines["a"].stand_still()
            await eventually(ended(b.store))
            assert (archive.read_by("a"), archive.read_by("b")) == ([0, 1, 2, 3], [3, 4, 5])
            short.lines["a"].go_on()
            await eventually(a.nodes.good)
            assert await b.store.read("SELECT count(*) FROM event") == [(6,)]
            assert [state for _, state in await runs(b.store)] == ["done"], "the first one's end changed nothing"


async def test_a_run_of_a_node_that_stops_goes_on_elsewhere_at_once(fleet: Fleet) -> None:
    archive = Archive(6)
    archive.block = {"a": 3}
    async with fleet.node("a", {"archive": archive.at("a")}) as a:
        await a.pull_now("archive")
        await asyncio.wait_for(archive.blocked.wait(), 10)
        async with fleet.node("b", {"archive": archive.at("b")}) as b:
            await a.stop()
            await eventually(ended(b.store), AT_ONCE_S)
            assert (archive.read_by("a"), archive.read_by("b")) == ([0, 1, 2, 3], [3, 4, 5])


async def test_a_slot_is_one_run_over_all_nodes_and_is_made_up_by_the_next_leader(fleet: Fleet) -> None:
    """The schedule's slot lasts a thousand hours, so that all of the test is in one, but for the turn of a slot."""
    archive = Archive(1)
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(fleet.node("a", {"archive": archive.at("a")}, schedule="every 999999h"))
        await eventually(ended(a.store))
        b = await stack.enter_async_context(fleet.node("b", {"archive": archive.at("b")}, schedule="every 999999h"))
        # A slot that fell into the time when nobody led.
        await a.stop()
        await b.commit(UnitOfWork(statements=[query(text("UPDATE run SET slot = slot - 1"))()]))
        await eventually(ended(b.store, 2), AT_ONCE_S)
        slots = [slot for slot, _ in await runs(b.store)]
        assert slots[1] == slots[0] + 1


async def test_every_slot_is_one_run_whoever_leads(fleet: Fleet, clock: StandingClock) -> None:
    """Three nodes that all look at every tick, and whose leader stops in the middle, twice."""
    archive = Archive(1)
    async with AsyncExitStack() as stack:
        hubs = []
        for name in "abc":
            node = fleet.node(name, {"archive": archive.at(name)}, schedule="every 1h", clock=clock)
            hubs.append(await stack.enter_async_context(node))
        await eventually(ended(hubs[0].store))
        for tick in range(2, 22):
            clock.advance(3600)
            if tick in (7, 12):
                gone = await eventually(lambda: leader(*hubs), AT_ONCE_S)
                hubs.remove(gone)
                await gone.stop()
            for hub in hubs:
                assert hub.scheduler is not None
                hub.scheduler.look()
            await eventually(ended(hubs[0].store, tick), AT_ONCE_S)
        slots = [slot for slot, _ in await runs(hubs[0].store)]
        assert slots == list(range(slots[0], slots[0] + 21))


# -- what all nodes share ------------------------------------------------------------------------------


@pytest.fixture
async def desks(postgres_dsn: str) -> AsyncIterator[list[Desk]]:
    """Three processes' views of one ledger, and a clock that stands for all of them."""
    clock = StandingClock()
    async with AsyncExitStack() as stack:
        made = []
        for n in range(3):
            store = PostgresStore(postgres_dsn, breaker=BREAKER)
            await store.open()
            stack.push_async_callback(store.close)
            made.append(Desk(store, clock, boot=f"boot-{n}".encode().ljust(16), destinations=["a"]))
        await made[0].configure("a", rates={"a": int(1_000_000 / (PACE * 10))})
        yield made


def most_within(instants: list[int], seconds: float) -> int:
    return max(sum(1 for at in instants if start <= at < start + seconds * 1_000_000) for start in instants)


async def test_what_a_stopped_node_has_locked_holds_up_nobody(desks: list[Desk], postgres_dsn: str) -> None:
    """A session that is stopped between the two messages of a query: no time-out of the server's counts there."""
    first, second, _ = desks
    await first.owe_one("a")
    job = await first.claim_one()
    await second.store.beat(first.boot, "first", first.now, first.now + SECOND)
    stopped = await asyncpg.connect(
        postgres_dsn, server_settings=SETTINGS | {"application_name": f"unionhub {first.boot.hex()}"}
    )
    await stopped.execute("BEGIN; UPDATE queue SET reason = 'half done'")
    await stopped.prepare("SELECT 1")  # the driver asks, and is about to run it
    second.clock.advance(2)
    assert await second.store.take_over(second.boot, second.now) == 1
    assert await second.state(job.id) == "pending(crashed)"
    await eventually(stopped.is_closed)


async def test_a_thousand_ticks_on_three_nodes_are_a_thousand_runs(desks: list[Desk]) -> None:
    """Even if all three take themselves for the leader at every tick."""
    for slot in range(1, 1001):
        made = await asyncio.gather(*(desk.store.due_run("pull", "a", slot, desk.now) for desk in desks))
        assert made.count(True) == 1
        taken = [run for run in await asyncio.gather(*(d.store.claim_run(d.boot, d.now) for d in desks)) if run]
        assert [run.slot for run in taken] == [slot], "and one node runs it"
        assert await desks[slot % 3].store.finish_run(taken[0], "done", "", desks[0].now)
    assert await desks[0].store.read("SELECT count(*), count(DISTINCT slot) FROM run") == [(1000, 1000)]


async def test_a_run_that_was_taken_over_is_no_longer_its_first_nodes(desks: list[Desk]) -> None:
    first, second, _ = desks
    await first.store.due_run("pull", "a", 1, first.now)
    before = await first.store.claim_run(first.boot, first.now)
    assert before is not None
    await second.store.take_over(second.boot, second.now)
    after = await second.store.claim_run(second.boot, second.now)
    assert after is not None and after.id == before.id
    assert not await first.store.finish_run(before, "failed", "conflict", first.now)
    assert await runs(first.store) == [(1, "running")]
    assert await second.store.finish_run(after, "done", "", second.now)


async def test_what_a_claim_leased_unheard_is_freed_and_nothing_else(desks: list[Desk]) -> None:
    desk, other, _ = desks
    ids = [await desk.owe_one("a") for _ in range(4)]
    desk.clock.advance(10)
    mine = await desk.claim(limit=3)
    [theirs] = await other.claim()
    known = {mine[0].id, mine[1].id}
    assert await desk.store.free_jobs(desk.boot, known) == 1
    assert await desk.state(mine[2].id) == "pending" and await desk.state(theirs.id) == "leased"
    assert not await desk.settle(mine[2], State.DELIVERED), "a claim of it has to be heard of again"
    desk.clock.advance(10)
    assert [job.id for job in await other.claim()] == [mine[2].id]
    assert {*known, mine[2].id, theirs.id} == set(ids)


async def test_three_nodes_keep_one_pace_between_them(desks: list[Desk]) -> None:
    for _ in range(150):
        await desks[0].owe("a")
    instants: list[int] = []
    by: set[int] = set()
    for _ in range(130):
        for n, jobs in enumerate(await asyncio.gather(*(desk.claim() for desk in desks))):
            for job in jobs:
                instants.append(job.send_at)
                by.add(n)
                assert await desks[n].settle(job, State.DELIVERED)
        desks[0].clock.advance(0.1)
    assert len(instants) == len(set(instants)) >= 115 and len(by) > 1
    assert most_within(instants, 1) <= 11 and most_within(instants, 10) <= 100


async def test_a_breaker_opened_by_one_node_is_open_for_all_and_one_of_them_asks(desks: list[Desk]) -> None:
    for _ in range(20):
        await desks[0].owe("a")
    for _ in range(BREAKER.failures):
        [job, *rest] = await desks[0].claim(limit=1)
        assert not rest and await desks[0].retry_later(job, 0, health=1)
        desks[0].clock.advance(0.2)

    async def claimed_by_all() -> list[tuple[Desk, Job]]:
        found = await asyncio.gather(*(desk.claim() for desk in desks))
        return [(desk, job) for desk, jobs in zip(desks, found, strict=True) for job in jobs]

    assert await claimed_by_all() == []
    desks[0].clock.advance(BREAKER.first_s)
    [(desk, probe)] = await claimed_by_all()
    assert probe.breaker_open
    for _ in range(3):  # nobody else asks while that one is under way
        desk.clock.advance(1)
        assert await claimed_by_all() == []
    assert await desk.settle(probe, State.DELIVERED, health=-1)
    desk.clock.advance(1)
    assert await claimed_by_all() != []


# -- the time ------------------------------------------------------------------------------------------


@dataclass
class ServersClock:
    """The database's clock as it would be if somebody had set it: every ``clock_timestamp()`` of the hub asks it."""

    server: Server
    database: str

    def set_by(self, hours: float) -> None:
        self.server.execute(f"UPDATE clock_is SET ahead = '{hours} hours'", database=self.database)

    def now_us(self) -> int:
        [(us,)] = self.server.execute(
            "SELECT (extract(epoch FROM public.clock_timestamp()) * 1000000)::bigint", database=self.database
        )
        return int(us)


@pytest.fixture
def servers_clock(postgres_server: Server, postgres_dsn: str) -> ServersClock:
    database = postgres_dsn.rpartition("/")[2]
    postgres_server.execute(
        "CREATE TABLE clock_is (ahead interval NOT NULL)",
        "INSERT INTO clock_is VALUES ('0')",
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql SECURITY DEFINER AS"
        " 'SELECT pg_catalog.clock_timestamp() + ahead FROM public.clock_is'",
        f"ALTER DATABASE {database} SET search_path = public, pg_catalog",
        database=database,
    )
    return ServersClock(postgres_server, database)


@pytest.mark.parametrize("hours", [5, -5, 24 * 365])
async def test_the_time_is_the_databases_whatever_a_nodes_own_clock_says(
    fleet: Fleet, servers_clock: ServersClock, hours: float, log: io.BytesIO
) -> None:
    """Seen from the database, the clock of this machine is hours off."""
    servers_clock.set_by(hours)
    sink = RecordingSink(rate_per_s=100)
    async with fleet.node("a", {"x": Connection(sink=sink)}) as a:
        before = servers_clock.now_us()
        async with fleet.node("b", {"x": Connection(sink=RecordingSink())}, start=False) as b:
            await emit(b, 20)
        await reach(a, ["delivered"] * 20)
        after = servers_clock.now_us()
        for column in ("received_at FROM event", "settled_at FROM delivery", "started_at FROM attempt"):
            times = [at for (at,) in await a.store.read(f"SELECT {column}")]
            assert len(times) == 20 and before - SECOND <= min(times) <= max(times) <= after + SECOND, column
        [(until,)] = await a.store.read("SELECT lease_until FROM node")
        assert before < until <= servers_clock.now_us() + 60 * SECOND
        [told] = said(log, "node.clock_off")
        assert abs(told["off_s"] + hours * 3600) < 60


async def test_when_the_databases_clock_is_set_nobody_is_taken_for_dead(
    short: Fleet, servers_clock: ServersClock, log: io.BytesIO
) -> None:
    ours, theirs = sinks(resend_is_safe=False)
    async with (
        short.node("a", {"x": Connection(sink=ours)}) as a,
        short.node("b", {"x": Connection(sink=theirs)}) as b,
    ):
        count = 0
        for hours in (2, 24 * 365, 24 * 365 - 2):
            slow = Blocked(Delivered())
            ours.script, theirs.script = [slow] * 5, [slow] * 5
            await emit(a, 5)
            count += 5
            await eventually(lambda: slow.waiting == 5)  # noqa: B023
            told = len(said(log, "node.clock_set"))
            servers_clock.set_by(hours)
            await eventually(lambda: len(said(log, "node.clock_set")) == told + 2)  # noqa: B023
            slow.let_go.set()
            await reach(b, ["delivered"] * count)
            assert leader(a, b) is a and b.nodes.good()
        assert sorted(sent(ours, theirs)) == sorted(set(sent(ours, theirs)))
        assert said(log, "node.lost") == [] and said(log, "delivery.late") == []
        # After a step back too, who dies is found dead.
        short.lines["a"].stand_still()
        await eventually(b.nodes.leads)
        await eventually(lambda: said(log, "node.lost"))


# -- starting ------------------------------------------------------------------------------------------


async def test_of_two_nodes_that_start_together_with_keys_of_their_own_one_is_refused(
    tmp_path: Path, empty_postgres_dsn: str
) -> None:
    registry = registry_of(connector_types=[connector("x", Connection(sink=RecordingSink()))])

    def node(name: str) -> HubApp:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        given = {"connections": {"x": {}}, "settings": {"database_url": empty_postgres_dsn}}
        return HubApp(configuration(folder, registry, **given), registry)

    nodes = {name: node(name) for name in "abc"}  # each sees an empty database and makes a key
    done = await asyncio.gather(*(app.open() for app in nodes.values()), return_exceptions=True)
    refused = {name: error for name, error in zip(nodes, done, strict=True) if error is not None}
    assert len(refused) == 2
    for error in refused.values():
        assert isinstance(error, ConfigError) and "copy the key file" in str(error)
    [first] = set(nodes) - set(refused)
    for name in refused:
        (tmp_path / name / "var" / "hub.key").write_bytes((tmp_path / first / "var" / "hub.key").read_bytes())
        nodes[name] = node(name)
    await asyncio.gather(*(nodes[name].open() for name in refused))
    await asyncio.gather(*(app.start() for app in nodes.values()))
    assert leader(*nodes.values()) is not None
    assert await nodes[first].store.read("SELECT count(*) FROM connection WHERE name = 'x'") == [(1,)]
    await asyncio.gather(*(app.stop() for app in nodes.values()))


async def test_a_node_without_the_key_of_a_database_that_is_there_is_refused(tmp_path: Path, postgres_dsn: str) -> None:
    registry = registry_of()
    given = {"connections": {}, "settings": {"database_url": postgres_dsn}}
    with pytest.raises(ConfigError, match="copy the key file"):
        HubApp(configuration(tmp_path, registry, **given), registry)
    assert not (tmp_path / "var" / "hub.key").exists()
