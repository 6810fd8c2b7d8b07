"""Clocks that are set, time zones that differ, and a process that may open no more files."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from benchmarks.torture import kills
from benchmarks.torture.partner import Callers, Partner
from hub.contract import Delivered, Hold, Outcome, RetryLater, Shipment
from hub.model import to_us
from hub.schedule import slot
from hub.settings_model import parse_schedule
from hub.testing import START, RecordingSink, StandingClock, eventually
from tests.flow.conftest import SCHEDULE, Site, check_books, emit, later, reach
from tests.flow.conftest import clock as clock
from tests.flow.conftest import database_url as database_url
from tests.flow.conftest import engine as engine
from tests.flow.conftest import site as site

BUSY = RetryLater(reason="busy")
STEPS = [timedelta(hours=2), timedelta(hours=-2), timedelta(days=365), timedelta(days=-365)]


@pytest.mark.parametrize("step", STEPS, ids=["2h-on", "2h-back", "year-on", "year-back"])
async def test_a_clock_that_is_set_sends_nothing_early_nothing_twice_and_loses_nothing(
    site: Site, clock: StandingClock, step: timedelta
) -> None:
    """While one waits for its retry, one is held, one is under way and one comes afterwards."""
    sink: RecordingSink = site.sink("alpha", concurrency=4)
    always, until = sink.admit_with, clock.now + timedelta(hours=1)
    going = asyncio.Event()

    async def slow(shipment: Shipment) -> Outcome:
        await going.wait()
        return BUSY

    async with site.running() as hub:
        sink.script = [BUSY]
        await emit(hub)
        await reach(hub, ["pending(busy)"])
        sink.admit_with = lambda shipment: Hold(until, "quiet")
        await emit(hub)
        await reach(hub, ["pending(busy)", "pending(quiet)"])
        sink.admit_with = always
        sink.script = [slow]
        await emit(hub)
        await eventually(lambda: len(sink.shipments) == 2)
        clock.now += step
        going.set()
        await emit(hub)
        due = step > timedelta()
        # What was due by the clock before is due by the clock after when that has come so far, and not earlier.
        others = ["delivered"] * 2 if due else ["pending(busy)", "pending(quiet)"]
        await reach(hub, [*others, "pending(busy)", "delivered"])
        later(hub, clock, abs(step.total_seconds()) + 3600 + SCHEDULE[0])
        await reach(hub, ["delivered"] * 4)
        assert len(sink.shipments) == 6, "two were tried twice, nothing else was"
        await check_books(hub.store)


@pytest.fixture
def zones() -> Iterator[list[str]]:
    before = os.environ.get("TZ")
    yield ["UTC", "Asia/Ho_Chi_Minh", "Pacific/Kiritimati", "America/St_Johns"]
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()


async def test_four_time_zones_give_one_result(zones: list[str], tmp_path: Path) -> None:
    """Slots of schedules, what the ledger holds and what a partner is sent, around midnight and the end of a month."""
    results = set()
    for zone in zones:
        os.environ["TZ"] = zone
        time.tzset()
        folder = tmp_path / zone.replace("/", "-")
        folder.mkdir()
        results.add(await _a_day(folder))
    assert len(results) == 1


async def _a_day(folder: Path) -> bytes:
    moments = [
        START.replace(day=30, hour=hour, minute=minute) for hour, minute in ((16, 59), (17, 0), (23, 0), (23, 59))
    ]
    schedules = [parse_schedule(text) for text in ("every 5m", "0 6 * * *", "0 0 1 * *", "30 23 * * sun,mon")]
    found: list[object] = [[slot(schedule, moment) for schedule in schedules] for moment in moments]
    six = to_us(moments[2]) // 60_000_000
    assert found[2][1] == six, "23:00 in UTC is six in the morning in Vietnam, wherever the machine stands"  # type: ignore[index]
    clock = StandingClock()
    site = Site(folder, clock)
    sink = site.sink("alpha")
    sink.script = [Delivered(), Delivered(), Delivered(), BUSY]
    async with site.running() as hub:
        for n, moment in enumerate(moments):
            clock.now = moment
            await emit(hub, subject="s", occurred_at=moment)
            await reach(hub, ["delivered"] * (n + 1) if n < 3 else ["delivered"] * 3 + ["pending(busy)"])
        found += await hub.store.read("SELECT type, occurred_at, received_at FROM event ORDER BY position")
        found += await hub.store.read("SELECT state, due_at FROM queue ORDER BY seq")
    found += [[s.body.decode(), s.event.occurred_at.isoformat()] for s in sink.shipments]
    return orjson.dumps(found)


async def test_a_process_that_may_open_no_more_files_recovers_and_loses_nothing(tmp_path: Path) -> None:
    """Callers that connect and say nothing take every descriptor; once they are gone, all goes on."""
    dice = random.Random(11)
    callers = Callers(dice)
    async with Partner(dice) as partner, kills.fork_server() as lives:
        base = {"folder": str(tmp_path), "database_url": "", "partner": partner.address, "without": ""}
        await lives.begin(**base, point="", nth=0, files=64)
        port = urlsplit(lives.url).port
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        fds = Path(f"/proc/{lives.pid}/fd")
        await eventually(lambda: len(list(fds.iterdir())) >= 64)
        enough, posted = asyncio.Event(), 50
        callers.on_acknowledged = lambda count: enough.set() if count >= posted else None
        calling = asyncio.create_task(callers.run(lives.url, enough))
        for _, writer in idle:
            writer.close()
        await asyncio.wait_for(calling, 30)
        await eventually(lambda: len(list(fds.iterdir())) < 64)
        await eventually(lambda: {name for name, _ in partner.tries} == {"safe", "unsafe", "carrier"}, 20)
        lives.kill(signal.SIGTERM)
        await asyncio.wait_for(lives.ended.wait(), 30)
        assert lives.status == 0
    said = (tmp_path / "hub.log").read_text()
    assert "Traceback" not in said
    assert said.count("Too many open files") < 50, "no loop of complaints"
