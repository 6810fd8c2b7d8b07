"""How many rows a lane asks for: enough to be busy while a claim is committed, no more than it soon works off."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hub.clock import system_clock
from hub.store.base import Job
from hub.worker import Lane, LaneSpec

JOB = cast(Job, object())


class Tries:
    """Ends each try when it is told to."""

    def __init__(self) -> None:
        self.going: list[asyncio.Future[None]] = []

    async def __call__(self, job: Job, lane: Lane) -> None:
        self.going.append(asyncio.get_running_loop().create_future())
        await self.going[-1]

    async def end(self, lane: Lane, count: int) -> None:
        for _ in range(count):
            lane.put(JOB)
            await asyncio.sleep(0)
            self.going.pop().set_result(None)
            await asyncio.sleep(0)


async def test_a_lane_asks_for_one_round_in_flight_and_one_behind_it() -> None:
    lane = Lane(LaneSpec(10), system_clock, cast(Any, Tries()))
    assert (lane.room(), lane.hungry) == (20, True)
    for _ in range(16):
        lane.put(JOB)
    await asyncio.sleep(0)
    assert (lane.running, lane.room(), lane.hungry) == (10, 4, False)
    await dismissed(lane)


async def test_a_fast_lane_asks_for_what_it_worked_off_lately_and_for_less_when_it_is_slow_again() -> None:
    tries = Tries()
    lane = Lane(LaneSpec(10), system_clock, tries)
    await tries.end(lane, 500)
    lane.learn_speed()
    assert lane.room() == 10 + 500
    await tries.end(lane, 8)
    lane.learn_speed()
    assert lane.room() == 20
    await dismissed(lane)


async def dismissed(lane: Lane) -> None:
    lane.dismiss()
    for task in lane.tasks:
        task.cancel()
    await asyncio.gather(*lane.tasks, return_exceptions=True)
