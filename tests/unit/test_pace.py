"""Send instants of a destination that several nodes share: one that was missed is not made up."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest

from hub.model import to_us
from hub.store.base import Job
from hub.testing import StandingClock
from hub.worker import LATE_US, Lane, LaneSpec

SPACING_US = 100_000


def job(send_at: int) -> Job:
    made = cast(Job, Job.__new__(Job))
    made.send_at = send_at
    return made


def lane(clock: StandingClock, *, shared: bool) -> Lane:
    async def run(job: Job, lane: Lane) -> None:
        raise AssertionError

    return Lane(LaneSpec(1, SPACING_US), clock, run, shared=shared)


@pytest.mark.parametrize(
    ("late_us", "kept"), [(0, True), (SPACING_US // 2 + LATE_US, True), (SPACING_US // 2 + LATE_US + 1, False)]
)
async def test_an_instant_is_used_until_half_its_spacing_is_over(late_us: int, kept: bool) -> None:
    clock = StandingClock()
    now = to_us(clock())
    assert await lane(clock, shared=True).pace(job(now - late_us)) is kept
    assert await lane(clock, shared=False).pace(job(now - late_us)) is True, "alone it keeps the spacing itself"


async def test_of_many_that_a_stall_held_up_none_goes_out_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second's worth of instants, and the loop stands still for half of it: only those to come are used."""
    clock = StandingClock()
    shared = lane(clock, shared=True)
    start = to_us(clock())
    jobs = [job(start + n * SPACING_US) for n in range(10)]
    clock.advance(0.5)
    sent: list[int] = []

    async def sleep(seconds: float, *_: Any) -> None:
        clock.advance(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    for each in jobs:
        if await shared.pace(each):
            sent.append(to_us(clock()))
            assert each.send_at <= sent[-1] <= each.send_at + SPACING_US // 2 + LATE_US
    assert len(sent) == 5 and all(after - before >= SPACING_US for before, after in pairwise(sent))
