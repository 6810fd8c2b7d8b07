"""A handler's rows, its drafts and the end of its delivery are one transaction: its effect happens once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hub.app import HubApp
from hub.contract import Delivered, Guard, Handler, Hub, Refused, RetryLater, UnitOfWork
from hub.model import Draft, Event
from hub.sql import query
from hub.testing import StandingClock, eventually
from tests.flow.conftest import (
    CALL,
    ON_BOTH,
    SCHEDULE,
    THING,
    Site,
    check_books,
    emit,
    later,
    reach,
    states,
    subscription,
)

pytestmark = ON_BOTH

CREATE = query(text("CREATE TABLE IF NOT EXISTS effect (event TEXT PRIMARY KEY, n INTEGER NOT NULL)"))
EFFECT = query(text("INSERT INTO effect VALUES (:event, :n)"))
NEXT = query(text("UPDATE effect SET n = n + 1 WHERE event = 'counter' AND n = :seen"))
READ = query(text("SELECT n FROM effect WHERE event = 'counter'"))

Handle = Callable[[Event, Hub], Any]


def handling(site: Site, handle: Handle) -> None:
    site.handlers.append(Handler("h", handle))
    site.subscriptions.append(subscription("h", to="handler:h", types=[THING]))


async def effects(hub: HubApp) -> list[str]:
    rows = await hub.store.read("SELECT event FROM effect WHERE event <> 'counter' ORDER BY event")
    return [event for (event,) in rows]


async def test_effect_drafts_and_settlement_come_true_together(site: Site) -> None:
    sink = site.sink("alpha", subscribe={"types": [CALL]})

    async def handle(event: Event, hub: Hub) -> UnitOfWork:
        follow = Draft(type=CALL, source="/h", dedupe_key=str(event.id), data={"id": "follow"})
        return UnitOfWork(statements=[EFFECT(event=str(event.id), n=0)], drafts=[follow])

    handling(site, handle)
    async with site.running() as hub:
        await hub.commit(UnitOfWork(statements=[CREATE()]))
        ids = await emit(hub, 20)
        await reach(hub, ["delivered"] * 40)
        assert await effects(hub) == sorted(ids)
        assert len(sink.shipments) == 20
        await check_books(hub.store)


async def test_handlers_that_race_for_one_row_each_count_once(site: Site) -> None:
    """Ten at once read the same counter; a failed guard runs the handler again on what is true now."""

    async def handle(event: Event, hub: Hub) -> UnitOfWork:
        [(seen,)] = await hub.fetch(READ())
        return UnitOfWork(guards=[Guard(NEXT(seen=seen))], statements=[EFFECT(event=str(event.id), n=seen)])

    handling(site, handle)
    site.settings = {"retry": {"schedule_s": [0.001] * 50, "jitter": 0}, "breaker": {"failures": 1000}}
    async with site.running() as hub:
        await hub.commit(UnitOfWork(statements=[CREATE(), EFFECT(event="counter", n=0)]))
        ids = await emit(hub, 30)

        async def done() -> bool:
            site.clock.advance(1)  # type: ignore[attr-defined]
            hub.worker.wake()  # type: ignore[union-attr]
            return await states(hub) == ["delivered"] * 30

        await eventually(done)
        assert await hub.fetch(READ()) == [(30,)]
        assert await effects(hub) == sorted(ids)


async def test_nothing_of_a_unit_that_fails_stays_and_the_delivery_is_tried_again(
    site: Site, clock: StandingClock
) -> None:
    sink = site.sink("alpha", subscribe={"types": [CALL]})
    clash = True

    async def handle(event: Event, hub: Hub) -> UnitOfWork:
        follow = Draft(type=CALL, source="/h", dedupe_key=str(event.id), data={"id": "follow"})
        rows = [EFFECT(event=str(event.id), n=0)] * (2 if clash else 1)
        return UnitOfWork(statements=rows, drafts=[follow])

    handling(site, handle)
    async with site.running() as hub:
        await hub.commit(UnitOfWork(statements=[CREATE()]))
        ids = await emit(hub)
        await reach(hub, ["pending(plugin_error)"])
        assert await effects(hub) == [] and sink.shipments == []
        clash = False
        later(hub, clock, SCHEDULE[0])
        await reach(hub, ["delivered"] * 2)
        assert await effects(hub) == ids


async def test_a_handler_that_always_loses_its_race_is_put_off_not_forgotten(site: Site, clock: StandingClock) -> None:
    calls = 0

    async def handle(event: Event, hub: Hub) -> UnitOfWork:
        nonlocal calls
        calls += 1
        return UnitOfWork(guards=[Guard(NEXT(seen=-1))], statements=[EFFECT(event=str(event.id), n=0)])

    handling(site, handle)
    async with site.running() as hub:
        await hub.commit(UnitOfWork(statements=[CREATE(), EFFECT(event="counter", n=0)]))
        await emit(hub)
        await reach(hub, ["pending(conflict)"])
        assert calls == 3 and await effects(hub) == []


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(Delivered(), "delivered"), (Refused(reason="not_ours"), "dead(not_ours)"),
     (RetryLater(reason="not_yet"), "pending(not_yet)")],
)  # fmt: skip
async def test_a_handler_may_answer_an_outcome_instead(site: Site, outcome: Any, expected: str) -> None:
    async def handle(event: Event, hub: Hub) -> Any:
        return outcome

    handling(site, handle)
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, [expected])


async def test_a_hub_that_stops_in_a_handler_leaves_no_effect_and_a_restart_makes_it(
    site: Site, tmp_path: Path
) -> None:
    import asyncio

    entered, wait = asyncio.Event(), True

    async def handle(event: Event, hub: Hub) -> UnitOfWork:
        entered.set()
        if wait:
            await asyncio.Event().wait()
        return UnitOfWork(statements=[EFFECT(event=str(event.id), n=0)])

    handling(site, handle)
    site.settings = {"worker": {"stop_within_s": 0.2, "attempt_deadline_s": 5}}
    async with site.running() as hub:
        await hub.commit(UnitOfWork(statements=[CREATE()]))
        ids = await emit(hub, 3)
        await entered.wait()
    wait = False
    async with site.running() as hub:
        await reach(hub, ["delivered"] * 3)
        assert await effects(hub) == sorted(ids)
        assert (await hub.store.read("SELECT count(*) FROM attempt")) == [(3,)], "what never ended was no attempt"
