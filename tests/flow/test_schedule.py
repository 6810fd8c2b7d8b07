"""Schedules over stops and starts: each minute that a cron line names is one run; the last one missed is made up."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from hub.app import HubApp
from hub.model import EPOCH
from hub.testing import StandingClock, eventually
from tests.flow.conftest import Site
from tests.flow.fleet import Archive

VIETNAM = timedelta(hours=7)


async def minutes(hub: HubApp) -> list[str]:
    """The minutes that runs stand for, as a clock in Vietnam shows them; all of them are over."""
    rows = await hub.store.read("SELECT slot, state FROM run ORDER BY slot")
    assert {state for _, state in rows} <= {"done"}
    return [f"{EPOCH + timedelta(minutes=slot) + VIETNAM:%d %H:%M}" for slot, _ in rows]


async def reach(hub: HubApp, *expected: str) -> None:
    async def condition() -> bool:
        rows = await hub.store.read("SELECT state FROM run")
        return len(rows) >= len(expected) and {state for (state,) in rows} <= {"done"}

    assert hub.scheduler is not None
    hub.scheduler.look()
    await eventually(condition)
    assert await minutes(hub) == list(expected)


def set_to(clock: StandingClock, text: str) -> None:
    clock.now = datetime.fromisoformat(f"2026-11-{text}+07:00")


async def test_what_a_stop_missed_is_made_up_once_and_a_first_start_misses_nothing(
    site: Site, clock: StandingClock
) -> None:
    site.parts["archive"] = Archive(1).at("a")
    cron = "0 3 * * *"
    set_to(clock, "23T14:00:00")
    async with site.running(schedule=cron) as hub:
        await reach(hub)  # it was not there at three
        set_to(clock, "24T02:59:59")
        await reach(hub)
        set_to(clock, "24T03:00:00")
        await reach(hub, "24 03:00")
        set_to(clock, "24T09:00:00")
        await reach(hub, "24 03:00")
    set_to(clock, "27T05:00:00")
    for _ in range(2):  # three nights were missed: the last one is made up, once
        async with site.running(schedule=cron) as hub:
            await reach(hub, "24 03:00", "27 03:00")
    async with site.running(schedule=cron) as hub:
        set_to(clock, "28T03:01:30")  # a timer that comes late
        await reach(hub, "24 03:00", "27 03:00", "28 03:00")


async def test_what_could_not_be_written_when_it_was_due_is_written_later(site: Site, clock: StandingClock) -> None:
    """The slot was taken by a run that had not ended."""
    archive = Archive(1)
    archive.block = {"a": 0}
    site.parts["archive"] = archive.at("a")
    set_to(clock, "23T14:00:00")
    async with site.running(schedule="0 3 * * *") as hub:
        await hub.pull_now("archive")
        await archive.blocked.wait()
        set_to(clock, "24T03:00:00")
        assert hub.scheduler is not None
        hub.scheduler.look()
        archive.block = {}
        await hub.store.read("SELECT 1")
    async with site.running(schedule="0 3 * * *") as hub:  # the pull goes on, then the night's comes

        async def both_done() -> bool:
            assert hub.scheduler is not None
            hub.scheduler.look()
            return await hub.store.read("SELECT state FROM run") == [("done",), ("done",)]

        await eventually(both_done)


async def test_what_is_due_is_found_without_any_timer(
    site: Site, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers go by this machine's own clock; what is due is due by the ledger's."""
    monkeypatch.setattr("hub.schedule.LOOK_EVERY_S", 0.05)
    site.parts["archive"] = Archive(1).at("a")
    async with site.running(schedule="every 1000h") as hub:
        for tick in range(1, 4):

            async def ended() -> bool:
                return await hub.store.read("SELECT state FROM run") == [("done",)] * tick  # noqa: B023

            await eventually(ended)
            clock.advance(1000 * 3600)
