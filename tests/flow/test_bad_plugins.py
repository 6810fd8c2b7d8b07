"""A plugin raises, answers junk, blocks: no row is lost, nothing unsafe goes out twice, the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from hub.contract import (
    Accepted,
    Admit,
    Connection,
    ConnectionContext,
    Delivered,
    Exchange,
    Handler,
    Hold,
    Outcome,
    Refused,
    RetryLater,
    Shipment,
    UnitOfWork,
)
from hub.model import Json
from hub.testing import RecordingSink, StandingClock, eventually
from tests.flow.conftest import ON_BOTH, SCHEDULE, Site, check_books, emit, later, reach, states, subscription

HOUR = timedelta(hours=1)


async def raise_it(shipment: Shipment) -> Outcome:
    raise ConnectionResetError("in the middle")


async def hang(shipment: Shipment) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


def answering(junk: Any) -> Callable[[Shipment], Awaitable[Any]]:
    async def answer(shipment: Shipment) -> Any:
        return junk

    return answer


JUNK = {
    "raises": raise_it,
    "hangs": hang,
    "none": answering(None),
    "true": answering(True),
    "text": answering("delivered"),
    "class": answering(Delivered),
    "retry-after-number": answering(RetryLater(reason="busy", after=30)),  # type: ignore[arg-type]
    "refused-odd-scope": answering(Refused(reason="busy", scope="everybody")),  # type: ignore[arg-type]
    "accepted-without-refs": answering(Accepted(refs=None, receipt_within=HOUR)),  # type: ignore[arg-type]
    "accepted-within-number": answering(Accepted(refs=("r",), receipt_within=5)),  # type: ignore[arg-type]
    "exchange-of-text": answering(Delivered(exchange="200 OK")),  # type: ignore[arg-type]
}


@ON_BOTH
@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
@pytest.mark.parametrize("safe", [True, False], ids=["safe", "unsafe"])
async def test_an_odd_end_of_a_try_is_never_a_success_and_never_sent_twice_unsafely(
    site: Site, clock: StandingClock, junk: Any, safe: bool
) -> None:
    site.settings = {"worker": {"attempt_deadline_s": 0.05}}
    sink = site.sink("alpha", resend_is_safe=safe)
    sink.script = [junk]
    async with site.running() as hub:
        await emit(hub, 3)
        odd = "deadline" if junk is hang else "plugin_error"
        await reach(hub, ["delivered"] * 2 + [f"pending({odd})" if safe else f"unknown({odd})"])
        later(hub, clock, SCHEDULE[0])
        await emit(hub)
        await reach(hub, ["delivered"] * 4 if safe else ["delivered"] * 3 + [f"unknown({odd})"])
        sent = [s.delivery_id for s in sink.shipments]
        assert len(sent) - len(set(sent)) == int(safe)
        await check_books(hub.store)


UNWRITABLE = {
    "reason-none": RetryLater(reason=None),  # type: ignore[arg-type]
    "reason-surrogate": RetryLater(reason="\udc80"),
    "refused-bytes": Refused(reason=b"x"),  # type: ignore[arg-type]
    "refs-of-bytes": Accepted(refs=(b"r",), receipt_within=HOUR),  # type: ignore[arg-type]
    "refs-of-none": Accepted(refs=(None,), receipt_within=HOUR),  # type: ignore[arg-type]
    "status-text": Delivered(exchange=Exchange(status="two hundred")),  # type: ignore[arg-type]
    "status-huge": Delivered(exchange=Exchange(status=2**70)),
}


@ON_BOTH
@pytest.mark.parametrize("outcome", UNWRITABLE.values(), ids=UNWRITABLE.keys())
async def test_an_outcome_that_no_column_takes_keeps_nobody_else_from_being_settled(
    site: Site, outcome: Outcome
) -> None:
    """They are committed in batches: the one that cannot be written must not take its batch along."""
    sink = site.sink("alpha", concurrency=20, resend_is_safe=False)
    sink.script = [Delivered(), outcome]
    async with site.running() as hub:
        await emit(hub, 20)

        async def settled() -> bool:
            found = await states(hub)
            return found.count("delivered") >= 19 and not any(s.startswith(("leased", "sending")) for s in found)

        await eventually(settled)
        [odd] = [s.split("(")[0] for s in await states(hub) if s != "delivered"] or ["delivered"]
        expected = {Delivered: "delivered", Accepted: "accepted", RetryLater: "pending", Refused: "dead"}
        assert odd in (expected[type(outcome)], "unknown"), "as it was said, or not known; nothing better"
        await emit(hub, 5)
        await eventually(lambda: len(sink.shipments) >= 25)
        await eventually(settled)
        await check_books(hub.store)


class Broken(RecordingSink):
    """Breaks before the first byte, once, where it is told to."""

    where = ""

    def render(self, event: Any) -> bytes:
        if self._now("render"):
            raise KeyError("render")
        return super().render(event)

    async def admit(self, shipment: Shipment) -> Any:
        if self._now("admit-raises"):
            raise KeyError("admit")
        if self._now("admit-none"):
            return None
        if self._now("admit-hangs"):
            await asyncio.Event().wait()
        if self._now("hold-naive"):
            return Hold(datetime(2026, 11, 23), "quiet")  # noqa: DTZ001 - what is odd about it
        return Admit()

    def _now(self, where: str) -> bool:
        if self.where != where:
            return False
        self.where = ""
        return True


@ON_BOTH
@pytest.mark.parametrize("where", ["render", "admit-raises", "admit-none", "admit-hangs", "hold-naive"])
async def test_what_breaks_before_the_first_byte_is_tried_again_even_where_a_resend_is_unsafe(
    site: Site, clock: StandingClock, where: str
) -> None:
    site.settings = {"worker": {"attempt_deadline_s": 0.1}}
    sink = Broken(resend_is_safe=False)
    sink.where = where
    site.parts["alpha"] = Connection(sink=sink)
    site.subscriptions.append(subscription("alpha"))
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["pending(plugin_error)"])
        assert sink.shipments == []
        later(hub, clock, SCHEDULE[0])
        await reach(hub, ["delivered"])
        assert len(sink.shipments) == 1


@ON_BOTH
async def test_a_connection_that_cannot_open_is_left_out_and_what_is_owed_to_it_is_kept(
    site: Site, clock: StandingClock
) -> None:
    alpha, beta = site.sink("alpha"), site.sink("beta")
    good = site.parts["beta"]
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["delivered"] * 2)

    def broken(context: ConnectionContext) -> Connection:
        raise RuntimeError("no such library")

    site.parts["beta"] = broken  # type: ignore[assignment]
    async with site.running() as hub:
        await emit(hub, 3)
        await reach(hub, ["delivered"] * 4, "alpha")
        assert (await states(hub, "beta")).count("pending") == 3
    site.parts["beta"] = good
    async with site.running() as hub:
        await reach(hub, ["delivered"] * 8)
        assert len(alpha.shipments) == len(beta.shipments) == 4


# -- handlers ----------------------------------------------------------------------------------------


async def handler_raises(event: Any, hub: Any) -> Any:
    raise KeyError("name")


async def handler_hangs(event: Any, hub: Any) -> Any:
    await asyncio.Event().wait()


@ON_BOTH
@pytest.mark.parametrize(
    "first",
    [handler_raises, handler_hangs, answering(None), answering("done")],
    ids=["raises", "hangs", "none", "text"],
)
async def test_a_handler_that_breaks_is_run_again_later(site: Site, clock: StandingClock, first: Any) -> None:
    site.settings = {"worker": {"attempt_deadline_s": 0.05}}
    calls = 0

    async def handle(event: Any, hub: Any) -> Any:
        nonlocal calls
        calls += 1
        return (
            await (first(event, hub) if first in (handler_raises, handler_hangs) else first(event))
            if (calls == 1)
            else UnitOfWork()
        )

    site.handlers.append(Handler("h", handle))
    site.subscriptions.append(subscription("h", to="handler:h"))
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["pending(plugin_error)"])
        later(hub, clock, SCHEDULE[0])
        await reach(hub, ["delivered"])
        assert calls == 2


@ON_BOTH
async def test_a_handler_that_failed_often_is_not_slowed_down_once_it_works_again(
    site: Site, clock: StandingClock
) -> None:
    """Its successes close the breaker too, although they commit in a transaction of their own."""
    site.settings = {"breaker": {"failures": 2, "first_s": 5}}
    broken = True

    async def handle(event: Any, hub: Any) -> Any:
        return RetryLater(reason="not_yet") if broken else UnitOfWork()

    site.handlers.append(Handler("h", handle))
    site.subscriptions.append(subscription("h", to="handler:h"))
    async with site.running() as hub:
        await emit(hub, 5)
        await reach(hub, ["pending(not_yet)"] * 5)
        broken = False
        later(hub, clock, SCHEDULE[0])
        await reach(hub, ["delivered"] * 5)
        await emit(hub, 20)
        await reach(hub, ["delivered"] * 25)
        assert await hub.store.read("SELECT failures FROM destination WHERE id = 'handler:h'") == [(0,)]


# -- the directory -----------------------------------------------------------------------------------


class BrokenDirectory:
    """Hangs or raises at the moment of sending."""

    def __init__(self) -> None:
        self.how = ""

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        yield ["m-1"]

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        if self.how == "addresses":
            raise KeyError("table")
        return dict.fromkeys(subjects, "address")

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        if self.how == "may_contact":
            await asyncio.Event().wait()
        return None


@ON_BOTH
@pytest.mark.parametrize("how", ["addresses", "may_contact"])
async def test_a_directory_that_breaks_costs_a_try_and_no_row(site: Site, clock: StandingClock, how: str) -> None:
    from hub.model import Audience, to_us
    from tests.flow.conftest import CALL

    site.settings = {"worker": {"attempt_deadline_s": 0.05}}
    directory = BrokenDirectory()
    site.directory = lambda hub: directory
    sink = site.sink("app", channel="app", subscribe={"to_each": {"app": "app"}}, resend_is_safe=False)
    async with site.running() as hub:
        await hub.store.pause("connection", "app", "operator", "", to_us(clock()))
        await emit(hub, type=CALL, audience=Audience({}, ("app",), "news"))
        await reach(hub, ["pending"])
        directory.how = how
        await hub.store.pause("connection", "app", None, "", to_us(clock()))
        later(hub, clock, 0)
        await reach(hub, ["pending(plugin_error)"])
        directory.how = ""
        later(hub, clock, SCHEDULE[0])
        await reach(hub, ["delivered"])
        assert len(sink.shipments) == 1


async def test_one_bad_plugin_takes_no_time_from_another(site: Site) -> None:
    good, bad = site.sink("good"), site.sink("bad", concurrency=5)
    bad.script = [hang, raise_it, answering(None)] * 20
    async with site.running() as hub:
        await emit(hub, 100)
        await reach(hub, ["delivered"] * 100, "good")
        assert len(good.shipments) == 100
