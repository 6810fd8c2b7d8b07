"""Many deliveries at once: order per key, slow partners, slots, pace, outages and a clock set back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from hub.app import HubApp
from hub.clock import system_clock
from hub.contract import Delivered, Outcome, RetryLater, Shipment
from hub.testing import RecordingSink, StandingClock, eventually
from tests.flow.conftest import ON_BOTH, SCHEDULE, Blocked, Site, emit, later, reach, states
from tests.flow.test_core_flow import BUSY, shipped

pytestmark = ON_BOTH


async def test_deliveries_of_one_key_leave_in_order_while_others_pass(
    hub: HubApp, alpha: RecordingSink, clock: StandingClock
) -> None:
    alpha.script = [BUSY]
    keyed = [(await emit(hub, ordering_key="m-1"))[0] for _ in range(10)]
    await reach(hub, ["pending(busy)"] + ["waiting"] * 9)
    others = await emit(hub, 5)
    await reach(hub, ["pending(busy)"] + ["waiting"] * 9 + ["delivered"] * 5)
    later(hub, clock, SCHEDULE[0])
    await reach(hub, ["delivered"] * 15)
    sent = [str(s.event.id) for s in alpha.shipments]
    assert [id for id in sent if id not in others] == [keyed[0], *keyed]


async def test_a_slow_partner_delays_nobody_else(site: Site) -> None:
    """By cause, not by time: everything else is finished while the slow one has not answered once."""
    fast, slow = site.sink("fast", concurrency=2), site.sink("slow", concurrency=2)
    blocked = Blocked(Delivered())
    slow.script = [blocked] * 50
    async with site.running() as hub:
        await emit(hub, 50)
        await reach(hub, ["delivered"] * 50, "fast")
        assert blocked.waiting == 2 and len(slow.shipments) == 2
        await emit(hub, 50)
        await reach(hub, ["delivered"] * 100, "fast")
        assert blocked.waiting == 2 and len(fast.shipments) == 100
        blocked.let_go.set()
        await reach(hub, ["delivered"] * 100, "slow")


async def test_no_more_tries_are_in_flight_than_the_sink_takes(site: Site) -> None:
    sink = site.sink("alpha", concurrency=3)
    most = flying = 0

    async def watch(shipment: Shipment) -> Outcome:
        nonlocal most, flying
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1
        return Delivered()

    sink.script = [watch] * 40
    async with site.running() as hub:
        await emit(hub, 40)
        await reach(hub, ["delivered"] * 40)
    assert most == 3


def most_in_a_second(instants: Sequence[float]) -> int:
    return max(sum(start <= i <= start + 1 for i in instants) for start in instants)


async def test_a_rate_is_kept_to(site: Site) -> None:
    """On the real clock: a busy machine makes it slower, never faster."""
    site.clock = system_clock
    sink = site.sink("alpha", rate_per_s=50.0, concurrency=40)
    starts: list[float] = []

    async def note(shipment: Shipment) -> Outcome:
        starts.append(asyncio.get_running_loop().time())
        return Delivered()

    sink.script = [note] * 70
    async with site.running() as hub:
        await emit(hub, 70)
        await reach(hub, ["delivered"] * 70)
    assert most_in_a_second(starts) <= 51
    assert min(b - a for a, b in itertools.pairwise(starts)) > 0.015


async def test_an_outage_kills_nothing_and_ends_with_the_first_success(site: Site, clock: StandingClock) -> None:
    site.settings = {"breaker": {"failures": 3, "first_s": 5, "max_s": 5}, "retry": {"schedule_s": [10], "jitter": 0}}
    sink = site.sink("alpha", concurrency=5)
    down = True

    async def answer(shipment: Shipment) -> Outcome:
        return RetryLater(reason="down") if down else Delivered()

    sink.script = [answer] * 1000
    async with site.running() as hub:
        await emit(hub, 20)

        async def open_breaker() -> bool:
            [(failures, in_flight)] = await hub.store.read(
                "SELECT failures, (SELECT count(*) FROM queue WHERE state = 'leased') FROM destination"
                " WHERE id = 'alpha'"
            )
            return bool(failures >= 3 and not in_flight)

        await eventually(open_breaker)
        tries = len(sink.shipments)
        for n in range(1, 6):
            later(hub, clock, 10)
            await shipped(sink, tries + n)
            await eventually(open_breaker)
        assert not any(s.startswith("dead") for s in await states(hub))
        down = False
        later(hub, clock, 10)
        await reach(hub, ["delivered"] * 20)


async def test_a_clock_set_back_loses_nothing(hub: HubApp, alpha: RecordingSink, clock: StandingClock) -> None:
    alpha.script = [BUSY]
    await emit(hub)
    await reach(hub, ["pending(busy)"])
    clock.advance(-7200)
    await emit(hub, 3)
    await reach(hub, ["pending(busy)"] + ["delivered"] * 3)
    later(hub, clock, 7200 + SCHEDULE[0])
    await reach(hub, ["delivered"] * 4)


async def test_every_slot_is_used_while_a_slow_partner_holds_the_others(site: Site) -> None:
    """Most of the slots are taken at once, by tries that do not end; the last ones must still be filled."""
    sink = site.sink("alpha", concurrency=10)
    slow = Blocked(Delivered())
    sink.script = [slow] * 10
    async with site.running() as hub:
        for count in (8, 2):
            await emit(hub, count)
            await eventually(lambda: slow.waiting == len(sink.shipments))
        await eventually(lambda: slow.waiting == 10)
        slow.let_go.set()
        await reach(hub, ["delivered"] * 10)
