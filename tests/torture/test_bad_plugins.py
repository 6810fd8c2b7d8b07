"""Plugins that block the loop, exit, spawn, will not stop or kill the process: named, put aside, alone in their end.

What raises or answers junk: tests/flow/test_bad_plugins.py.
"""

from __future__ import annotations

import asyncio
import io
import random
import signal
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.torture import backlog, kills, victim
from benchmarks.torture.partner import Callers, Partner
from hub import leaks, views, watchdog
from hub.app import HubApp
from hub.contract import Connection, Delivered, Outcome, Shipment, UnitOfWork
from hub.model import Draft
from hub.store.sqlite.copy import open_to_read
from hub.testing import RecordingSink, eventually
from tests.flow.conftest import THING, Site, check_books, emit, reach, states, subscription
from tests.flow.conftest import clock as clock
from tests.flow.conftest import database_url as database_url
from tests.flow.conftest import engine as engine
from tests.flow.conftest import site as site
from tests.flow.front_door import captured_log

HERE = __name__.rpartition(".")[0]


@pytest.fixture
def log() -> Iterator[io.BytesIO]:
    with captured_log() as lines:
        yield lines


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same watchdog, with less patience."""
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(watchdog, "STALL_S", 0.3)
    monkeypatch.setattr(watchdog, "COUNT_EVERY_S", 0.1)


class Plugin(RecordingSink):
    """A sink whose code stands here, as a stranger's would stand in his package."""


def lines(log: io.BytesIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(orjson.loads, log.getvalue().splitlines()) if line["event"] == event]


def bad(site: Site, **more: Any) -> Plugin:
    sink = Plugin(**more)
    site.parts["bad"] = Connection(sink=sink)
    site.subscriptions.append(subscription("bad"))
    return sink


async def block(shipment: Shipment) -> Outcome:
    time.sleep(0.6)  # noqa: ASYNC251 - what is wrong with it
    return Delivered()


async def test_one_that_blocks_the_loop_is_named_while_it_does_and_put_aside_the_third_time(
    site: Site, log: io.BytesIO
) -> None:
    good, sink = site.sink("good"), bad(site, concurrency=1)
    sink.script = [block] * 20
    async with site.running() as hub:
        await emit(hub, 20)
        await reach(hub, ["delivered"] * 20, "good")
        await paused(hub, "destination", "bad", "plugin_blocks")
        assert len(good.shipments) == 20 and len(sink.shipments) < 20
        told = lines(log, "loop.blocked")
        assert {(line["plugin"], line["destination"]) for line in told} == {(HERE, "bad")}
        assert all(line["where"].startswith(__name__) for line in told), "the line of its code"
        assert await hub.store.read("SELECT object, detail FROM repair WHERE cleared_at IS NULL") == [
            ("bad", "plugin_blocks")
        ]

        async def given_back() -> bool:
            return set(await states(hub, "bad")) <= {"delivered", "pending", "pending(stopped)"}

        await eventually(given_back)  # nothing is lost, and nothing stays in hand
        await check_books(hub.store)


async def paused(hub: HubApp, kind: str, name: str, reason: str) -> None:
    key = {"destination": "id", "connection": "name"}[kind]

    async def there() -> bool:
        sql = f"SELECT paused_by, paused_reason FROM {kind} WHERE {key} = ?"
        return await hub.store.read(sql, (name,)) == [("hub", reason)]

    await eventually(there, 20)


async def test_a_long_wait_for_the_disk_or_a_partner_is_no_stall(site: Site, log: io.BytesIO) -> None:
    async def wait(shipment: Shipment) -> Outcome:
        await asyncio.sleep(0.6)
        return Delivered()

    bad(site).script = [wait] * 5
    async with site.running() as hub:
        await emit(hub, 5)
        await reach(hub, ["delivered"] * 5)
    assert not lines(log, "loop.blocked")


async def test_one_that_starts_tasks_without_end_is_named_and_put_aside(
    site: Site, log: io.BytesIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "TASKS", 200)
    kept: list[asyncio.Task[None]] = []

    async def linger() -> None:
        await asyncio.Event().wait()

    async def spawn(shipment: Shipment) -> Outcome:
        kept.extend(asyncio.create_task(linger()) for _ in range(50))
        return Delivered()

    good, sink = site.sink("good"), bad(site)
    sink.script = [spawn] * 10
    async with site.running() as hub:
        await emit(hub, 10)
        await paused(hub, "connection", "bad", "plugin_spawns")
        assert {(line["plugin"], line["connection"]) for line in lines(log, "loop.crowded")} == {(HERE, "bad")}
        await reach(hub, ["delivered"] * 10, "good")
        assert len(good.shipments) == 10
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)


# -- leaks -------------------------------------------------------------------------------------------

KEPT: list[bytes] = []


class Hoarder(Plugin):
    """Keeps something of every shipment: what it makes, in its module; or what the hub made, in itself."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own

    async def send(self, shipment: Shipment) -> Outcome:
        if not self.own:
            return await super().send(shipment)  # the shipments, with their bodies
        KEPT.append(bytes(50_000))
        return Delivered()


@pytest.mark.parametrize("own", [True, False], ids=["of-its-own", "of-the-hubs"])
async def test_one_that_leaks_is_named_and_put_aside_while_the_others_go_on(
    site: Site, log: io.BytesIO, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    monkeypatch.setattr(leaks, "SAMPLE_S", 0.5)
    monkeypatch.setattr(leaks, "WEIGH_EVERY_S", 0.05)
    # A machine that stands still for a moment three times would have it put aside before it has leaked anything.
    monkeypatch.setattr(watchdog, "STALL_S", 60.0)
    site.settings["worker"] = {"memory_mb": int(leaks.rss_mb()) + 10, "stop_within_s": 1, "attempt_deadline_s": 5}
    good = backlog.Partner(None)
    site.parts["good"] = Connection(sink=good)
    site.parts["bad"] = Connection(sink=Hoarder(own))
    site.subscriptions += [subscription("good"), subscription("bad")]
    sent = 0
    async with site.running() as hub:
        # A first look may see too little of it on a busy machine, and then names nobody.
        while not (named := {(line["plugin"], line["connection"]) for line in lines(log, "memory.grown")} - {("", "")}):
            text = str(sent).ljust(10 if own else 30_000)
            await hub.commit(UnitOfWork(drafts=[thing(f"{sent}-{n}", text) for n in range(10)]))
            sent += 10
            assert sent < 30_000, "nobody was named"
            await eventually(lambda: len(good.sent) > sent - 50)  # noqa: B023 - what waits is memory too
        assert named == {(HERE, "bad")}
        await paused(hub, "connection", "bad", "plugin_leaks")
        await reach_count(hub, "good", sent)
        assert not tracemalloc.is_tracing(), "it costs, and is off again"
    KEPT.clear()


def thing(key: str, text: str) -> Draft:
    return Draft(type=THING, source="/test", dedupe_key=key, data={"id": text, "n": 1})


async def reach_count(hub: HubApp, name: str, count: int) -> None:
    async def there() -> bool:
        sql = "SELECT count FROM tally WHERE destination = ? AND state = 'delivered'"
        return await hub.store.read(sql, (name,)) == [(count,)]

    await eventually(there, 30)


async def test_nobody_is_accused_where_the_memory_is_nobodys(
    site: Site, log: io.BytesIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above its limit from the start, busy, and no plugin grows: a person is told, nothing is paused."""
    monkeypatch.setattr(leaks, "SAMPLE_S", 0.3)
    site.settings["worker"] = {"memory_mb": 1, "stop_within_s": 1}
    site.parts["good"] = Connection(sink=backlog.Partner(None))
    site.subscriptions.append(subscription("good"))
    sent = 0
    async with site.running() as hub:
        while not lines(log, "memory.grown"):
            await emit(hub, 10)
            sent += 10
        [line] = lines(log, "memory.grown")
        assert (line["plugin"], line["connection"]) == ("", "")

        async def told() -> bool:
            return [repair["kind"] for repair in await views.repairs(hub.store)] == ["memory_high"]

        await eventually(told)
        await reach_count(hub, "good", sent)


@pytest.mark.parametrize("safe", [True, False])
async def test_one_that_exits_ends_its_own_try_and_nothing_else(site: Site, log: io.BytesIO, safe: bool) -> None:
    async def leave(shipment: Shipment) -> Outcome:
        sys.exit(3)

    good, sink = site.sink("good"), bad(site, resend_is_safe=safe)
    sink.script = [leave]
    async with site.running() as hub:
        await emit(hub, 3)
        await reach(hub, ["delivered"] * 3, "good")
        odd = "pending(plugin_error)" if safe else "unknown(plugin_error)"
        await reach(hub, ["delivered"] * 2 + [odd], "bad")
    assert len(good.shipments) == 3
    assert [line["destination"] for line in lines(log, "plugin.raised")] == ["bad"]


async def test_one_that_will_not_stop_is_named_and_the_ledger_is_closed_all_the_same(
    site: Site, log: io.BytesIO
) -> None:
    over = asyncio.Event()

    async def deaf() -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    async def never() -> None:
        await over.wait()

    site.sink("good")
    site.parts["bad"] = Connection(sink=Plugin(), run=deaf, close=never)
    try:
        async with site.running() as hub:
            await emit(hub)
            await reach(hub, ["delivered"])
    finally:
        over.set()
    assert {(line["connection"], line["error"]) for line in lines(log, "plugin.raised")} == {
        ("bad", "will_not_stop"),
        ("bad", "TimeoutError"),
    }
    await eventually(lambda: lines(log, "hub.stopped"))


async def test_a_message_that_kills_the_process_ends_alone(tmp_path: Path) -> None:
    """Once in company, three times alone; then it is dead, and everything else has arrived."""
    dice = random.Random(11)
    callers = Callers(dice)
    things = [victim.POISON, *(f"m-{n}" for n in range(30))]
    callers.open = {id: ("door", orjson.dumps({"id": id, "n": n, "key": None})) for n, id in enumerate(things)}
    async with Partner(dice) as partner, kills.fork_server() as lives:
        base = {"folder": str(tmp_path), "database_url": "", "partner": partner.address, "without": ""}
        deaths = 0
        while True:
            await lives.begin(**base, point="", nth=0)
            if lives.ready.is_set():
                await callers.run(lives.url, lives.ended, new=False)
            if not callers.open and await _only_poison_is_left(tmp_path, lives):
                break
            assert lives.status == -signal.SIGKILL
            deaths += 1
            assert deaths <= 4, "it was tried once more than agreed"
        lives.kill(signal.SIGTERM)
        await asyncio.wait_for(lives.ended.wait(), 30)
    arrived = {each.event for (name, _), tries in partner.tries.items() for each in tries if name == "safe"}
    assert deaths == 4 and len(arrived) == 30


async def _only_poison_is_left(folder: Path, lives: kills.Lives) -> bool:
    """Until all is settled (True) or the hub is dead."""
    sql = "SELECT count(*) FROM queue WHERE destination = 'safe'"

    def over() -> bool:
        db = open_to_read(folder / "var" / "unionhub.db")
        try:
            return lives.ended.is_set() or db.execute(sql).fetchone() == (0,)
        finally:
            db.close()

    await eventually(over, 60, 0.02)
    return not lives.ended.is_set()
