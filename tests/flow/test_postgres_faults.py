"""A PostgreSQL that restarts, loses connections and answers, or is locked by somebody, under a hub that works.

Nothing that was acknowledged is lost, and nothing is sent twice either: an answer that could not be written down
stays in memory until it can.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from hub.app import HubApp
from hub.contract import Connection, UnitOfWork
from hub.errors import Busy
from hub.model import Draft
from hub.retry import SECOND
from hub.testing import RecordingSink, StandingClock, eventually
from tests.conftest import migrated
from tests.engines import put_key
from tests.flow.conftest import THING, Site, emit, reach, states
from tests.flow.fleet import Archive, Fleet
from tests.flow.front_door import QUESTION, Door, open_door, question, signed
from tests.flow.test_rewiring import Endpoints, running
from tests.ledger import check_books
from tests.postgres import Server, running_postgres

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Another one than the other tests': this one is stopped."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def dsn(server: Server) -> str:
    return server.dsn(server.create_database(server.template("migrated", migrated)))


@asynccontextmanager
async def door_to(
    folder: Path, dsn: str, monkeypatch: pytest.MonkeyPatch, lease_s: float = 20.0
) -> AsyncIterator[Door]:
    put_key(folder)
    worker = {"lease_s": lease_s, "attempt_deadline_s": lease_s * 0.9}
    async with open_door(folder, monkeypatch, settings={"database_url": dsn, "worker": worker}) as door:
        yield door


@dataclass
class Senders:
    """Callers that post question after question, each until it is accepted, and note every answer."""

    door: Door
    statuses: Counter[int] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    without_retry_after: int = 0
    ending: bool = False

    async def one(self) -> None:
        while not self.ending:
            id = f"q-{uuid4().hex}"
            while True:
                try:
                    answer = await self.door.post(question(id), signed(question(id), id))
                except aiohttp.ClientError:
                    self.statuses[0] += 1
                    continue
                self.statuses[answer.status] += 1
                if answer.status == 202:
                    break
                self.without_retry_after += "retry-after" not in answer.headers
                await asyncio.sleep(0.05)
            self.accepted.append(id)
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.one()) for _ in range(8)]
        try:
            yield
        finally:
            self.ending = True
            await asyncio.gather(*tasks)

    async def some_more(self, count: int = 30) -> None:
        goal = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= goal, 30)


async def everything_arrived_once(door: Door, senders: Senders) -> None:
    hub = door.hub
    sink = hub.connections["quiet"].sink
    assert isinstance(sink, RecordingSink)
    assert set(senders.statuses) <= {202, 503} and not senders.without_retry_after, senders.statuses
    count = len(senders.accepted)

    async def delivered() -> bool:
        return await states(hub) == ["delivered"] * count

    await eventually(delivered, 30)
    [(events,)] = await hub.store.read("SELECT count(*) FROM event WHERE type = ?", (QUESTION,))
    assert events == count
    assert Counter(str(s.event.id) for s in sink.shipments).most_common(1)[0][1] == 1
    assert len(sink.shipments) == count
    await eventually(positions_given(hub))
    await check_books(hub.store)


def positions_given(hub: HubApp) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return await hub.store.read("SELECT count(*) FROM event WHERE position IS NULL") == [(0,)]

    return condition


async def test_a_server_that_crashes_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, server: Server, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door_to(tmp_path, dsn, monkeypatch) as door:
        senders = Senders(door)
        async with senders.posting():
            for _ in range(4):
                await senders.some_more()
                await asyncio.to_thread(server.stop, "immediate")
                before = senders.statuses[503]
                await eventually(lambda: senders.statuses[503] > before)  # noqa: B023
                ready = await door.get("/readyz")
                assert ready.status == 503 and "retry-after" in ready.headers
                assert "cannot be written now" in ready.body.decode(), "it says why"
                assert (await door.get("/healthz")).status == 200
                await asyncio.to_thread(server.start)
            await senders.some_more()
        assert (await door.get("/readyz")).status == 200
        await everything_arrived_once(door, senders)


async def test_connections_that_somebody_ends_lose_and_double_nothing(
    tmp_path: Path, server: Server, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = dsn.rpartition("/")[2]
    end_all = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}'"
    async with door_to(tmp_path, dsn, monkeypatch) as door:
        senders = Senders(door)
        ended = 0
        async with senders.posting():
            for _ in range(15):
                await senders.some_more(10)
                [(count,)] = await asyncio.to_thread(server.execute, end_all)
                ended += count
        assert ended >= 15
        await everything_arrived_once(door, senders)


@asynccontextmanager
async def locked(dsn: str, table: str) -> AsyncIterator[None]:
    """Somebody with a console open, who has gone for a coffee."""
    somebody = await asyncpg.connect(dsn)
    try:
        async with somebody.transaction():
            await somebody.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await somebody.close()


async def test_a_destination_is_known_to_the_ledger_before_anything_is_owed_there(
    tmp_path: Path, dsn: str, clock: StandingClock
) -> None:
    put_key(tmp_path)
    site, endpoints = Site(tmp_path, clock, database_url=dsn), Endpoints()
    endpoints.names = ["a"]
    async with running(site, endpoints, clock) as hub, asyncio.TaskGroup() as group:
        endpoints.names = ["a", "b"]
        owed = "SELECT DISTINCT destination FROM queue"
        async with locked(dsn, "connection"):  # which configuring writes, and no unit of events touches
            group.create_task(hub.rewire())
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock'"
            await eventually(lambda: is_true(hub, waiting))
            await emit(hub, 2)
            assert await hub.store.read(owed) == [("many/a",)]
        await eventually(lambda: routed_to(hub, 2))
        await emit(hub)
        await reach(hub, ["delivered"] * 4)
        assert (len(endpoints.got("a")), len(endpoints.got("b"))) == (3, 1)


async def is_true(hub: HubApp, sql: str) -> bool:
    return bool((await hub.store.read(sql))[0][0])


async def routed_to(hub: HubApp, destinations: int) -> bool:
    return len(hub.router.subscriptions) == destinations


async def test_whoever_meets_a_lock_waits_for_it_and_nobody_is_refused(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door_to(tmp_path, dsn, monkeypatch, lease_s=3.0) as door:
        senders = Senders(door)
        node = "SELECT lease_until FROM node"
        async with senders.posting():
            await senders.some_more(8)
            async with locked(dsn, "queue"):
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = ?"

                async def all_writers_wait() -> bool:
                    return (await door.hub.store.read(waiting, (dsn.rpartition("/")[2],)))[0][0] >= 4

                await eventually(all_writers_wait)
                [(until,)] = await door.hub.store.read(node)

                async def lives_on() -> bool:
                    return (await door.hub.store.read(node))[0][0] > until + 3 * SECOND

                await eventually(lives_on, 8)  # signs of life do not wait with the work
                assert door.hub.nodes.good() and door.hub.nodes.term == 1
            await senders.some_more(8)
        assert set(senders.statuses) == {202}
        await everything_arrived_once(door, senders)


async def test_a_lock_that_stays_refuses_callers_and_stops_neither_the_node_nor_the_rest(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub.store import postgres

    monkeypatch.setitem(postgres.SETTINGS, "lock_timeout", "300ms")  # ten seconds in an office
    async with door_to(tmp_path, dsn, monkeypatch) as door:
        senders = Senders(door)
        async with senders.posting():
            await senders.some_more()
            async with locked(dsn, "queue"):
                before = senders.statuses[503]
                await eventually(lambda: senders.statuses[503] > before + 3)
                assert door.hub.nodes.good() and (await door.get("/readyz")).status == 200
            await senders.some_more()
        await everything_arrived_once(door, senders)


async def test_a_database_that_says_nothing_does_not_hold_up_a_stop(tmp_path: Path, dsn: str) -> None:
    fleet = Fleet(tmp_path, dsn)
    async with fleet.node("a", {"x": Connection(sink=RecordingSink())}) as a:
        await emit(a)
        await reach(a, ["delivered"])
        fleet.lines["a"].stand_still()
        under_way = asyncio.create_task(emit(a, 5))
        await asyncio.sleep(0)
        await asyncio.wait_for(a.stop(), 20)  # ten seconds, on a machine with nothing else to do
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)


@pytest.mark.parametrize("safe", [True, False])
async def test_commits_whose_answers_are_lost_lose_and_double_nothing(tmp_path: Path, dsn: str, safe: bool) -> None:
    """The server has committed, the hub hears of a broken connection: claim, start, settlement and event alike."""
    fleet = Fleet(tmp_path, dsn)
    sink = RecordingSink(resend_is_safe=safe, concurrency=4)
    kept: list[str] = []
    async with fleet.node("a", {"x": Connection(sink=sink)}) as a:
        line = fleet.lines["a"]

        async def keep(n: int) -> None:
            draft = Draft(type=THING, source="/test", dedupe_key=str(n), data={"id": str(n), "n": n})
            while True:
                try:
                    [event] = (await a.commit(UnitOfWork(drafts=[draft]))).events
                except Busy:
                    continue
                kept.append(str(event))
                return

        for n in range(120):
            line.to_lose += n % 3 == 0
            await keep(n)
        await eventually(lambda: line.lost >= 40)
        line.to_lose = 0
        await reach(a, ["delivered"] * 120)
        assert sorted(str(s.event.id) for s in sink.shipments) == sorted(kept) == sorted(set(kept))
        await eventually(positions_given(a))
        await check_books(a.store)


async def test_a_run_whose_claim_was_not_heard_of_is_run_all_the_same(tmp_path: Path, dsn: str) -> None:
    fleet = Fleet(tmp_path, dsn)
    async with fleet.node("a", {"archive": Archive(2).at("a")}) as a:
        line = fleet.lines["a"]

        async def all_ended() -> bool:
            return await a.store.read("SELECT count(*) FROM run WHERE state IN ('due', 'running')") == [(0,)]

        for n in range(4):
            assert await a.pull_now("archive")
            line.to_lose = 1  # most likely the claim's: it is asked for at once
            await eventually(lambda: line.lost > n)  # noqa: B023
            await eventually(all_ended)
