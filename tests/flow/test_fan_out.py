"""One event, many recipients: each is owed once, on one channel, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from hub import views
from hub.app import HubApp
from hub.model import Audience, Json, to_us
from hub.testing import RecordingSink, StandingClock, eventually
from tests.flow.conftest import CALL, ON_BOTH, Site, check_books, emit, later, reach, subscription

pytestmark = ON_BOTH

COUNT = 1200
#: Every third has the app, every fourth of the others nothing, the rest a phone.
SUBJECTS = [f"m-{n:04}" for n in range(COUNT)]
APP = {s for n, s in enumerate(SUBJECTS) if n % 3 == 0}
NOTHING = {s for n, s in enumerate(SUBJECTS) if n % 3 and n % 4 == 0}
PHONE = {s for n, s in enumerate(SUBJECTS) if n % 2 or n % 3 == 0} | (set(SUBJECTS) - APP - NOTHING)


class People:
    """A directory in memory, which fails or waits at a page when told to."""

    def __init__(self, subjects: Sequence[str] = SUBJECTS) -> None:
        self.subjects = list(subjects)
        self.addresses_of = {"app": set(APP), "phone": set(PHONE)}
        self.refused: dict[str, str] = {}
        self.asked = 0
        self.fail_at = self.block_at = -1
        self.blocked = asyncio.Event()

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        for start in range(0, len(self.subjects), 333):
            yield self.subjects[start : start + 333]

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        if len(subjects) > 1:  # a page of the fan-out; each delivery asks for one
            await self._asked_for_page()
        return {s: f"{channel}:{s}" for s in subjects if s in self.addresses_of[channel]}

    async def _asked_for_page(self) -> None:
        self.asked += 1
        if self.asked == self.fail_at:
            raise KeyError("the table was locked")
        if self.asked == self.block_at:
            self.blocked.set()
            await asyncio.Event().wait()

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        return self.refused.get(subject)


@pytest.fixture
def people(site: Site) -> People:
    people = People()
    site.directory = lambda hub: people
    return people


@pytest.fixture
def app(site: Site, people: People) -> RecordingSink:
    sink: RecordingSink = site.sink("app", channel="app", concurrency=50)
    return sink


@pytest.fixture
def phone(site: Site, app: RecordingSink) -> RecordingSink:
    sink: RecordingSink = site.sink("phone", channel="phone", concurrency=50, resend_is_safe=False)
    site.subscriptions[:] = [subscription("calls", types=[CALL], to_each={"app": "app", "phone": "phone"})]
    return sink


async def call(hub: HubApp, *channels: str, **more: object) -> None:
    audience = Audience({"unit": "all"}, channels or ("app", "phone"), "news")
    await emit(hub, type=CALL, audience=audience, **more)


def batch_is(hub: HubApp, state: str) -> object:
    async def condition() -> bool:
        [batch] = await views.batches(hub.store)
        return bool(batch["state"] == state)

    return condition


async def everybody_was_owed_once(hub: HubApp) -> None:
    rows = await hub.store.read(
        "SELECT recipient, destination FROM queue UNION ALL SELECT recipient, destination FROM delivery"
    )
    assert len(rows) == len(set(rows)) == COUNT - len(NOTHING)
    owed = dict(rows)
    assert {s for s, d in owed.items() if d == "app"} == APP
    assert {s for s, d in owed.items() if d == "phone"} == set(SUBJECTS) - APP - NOTHING
    [batch] = await views.batches(hub.store)
    assert (batch["state"], batch["total"], batch["made"], batch["unreachable"]) == (
        "done", COUNT, COUNT - len(NOTHING), len(NOTHING),
    )  # fmt: skip


async def test_everybody_is_owed_once_on_the_first_channel_with_an_address(
    site: Site, app: RecordingSink, phone: RecordingSink
) -> None:
    async with site.running() as hub:
        await call(hub)
        await reach(hub, ["delivered"] * (COUNT - len(NOTHING)))
        await everybody_was_owed_once(hub)
        assert {s.recipient for s in app.shipments} == APP and len(app.shipments) == len(APP)
        assert {(s.recipient, s.address) for s in phone.shipments} == {
            (s, f"phone:{s}") for s in set(SUBJECTS) - APP - NOTHING
        }
        await check_books(hub.store)


async def test_the_order_of_channels_is_the_events_own(site: Site, app: RecordingSink, phone: RecordingSink) -> None:
    async with site.running() as hub:
        await call(hub, "phone", "app")
        await eventually(batch_is(hub, "done"))
        # In one statement: between two, some would move from the one to the other.
        owed = "SELECT destination FROM queue UNION ALL SELECT destination FROM delivery"
        rows = dict(await hub.store.read(f"SELECT destination, count(*) FROM ({owed}) o GROUP BY 1"))
        assert rows["phone"] == len(PHONE)


@pytest.mark.parametrize("fail_at", [1, 2, 3, 5])
async def test_a_fan_out_that_breaks_on_the_way_goes_on_and_repeats_nobody(
    site: Site, clock: StandingClock, people: People, phone: RecordingSink, fail_at: int
) -> None:
    people.fail_at = fail_at
    async with site.running() as hub:
        await call(hub)
        await eventually(lambda: _repairs(hub, 1))
        assert people.asked == fail_at
        clock.advance(60)
        await eventually(batch_is(hub, "done"))
        await everybody_was_owed_once(hub)
        await eventually(lambda: _repairs(hub, 0))


async def _repairs(hub: HubApp, count: int) -> bool:
    return len(await views.repairs(hub.store)) == count


@pytest.mark.parametrize("block_at", [1, 3])
async def test_a_hub_that_stops_in_a_fan_out_goes_on_with_it_and_repeats_nobody(
    site: Site, people: People, phone: RecordingSink, block_at: int
) -> None:
    people.block_at = block_at
    async with site.running() as hub:
        await call(hub)
        await people.blocked.wait()
    people.block_at = -1
    async with site.running() as hub:
        await eventually(batch_is(hub, "done"))
        await everybody_was_owed_once(hub)


async def test_a_crash_while_the_audience_is_frozen_starts_the_list_anew(
    site: Site, people: People, phone: RecordingSink
) -> None:
    """Half a list was written; the people moved in between, nobody was owed anything yet."""
    entered = asyncio.Event()
    whole = people.recipients

    async def half(selector: Json) -> AsyncIterator[Sequence[str]]:
        yield list(reversed(SUBJECTS[:700]))
        entered.set()
        await asyncio.Event().wait()

    people.recipients = half  # type: ignore[method-assign]
    async with site.running() as hub:
        await call(hub)
        await entered.wait()
        assert await hub.store.read("SELECT count(*) FROM batch_subject") == [(700,)]
    people.recipients = whole  # type: ignore[method-assign]
    async with site.running() as hub:
        await eventually(batch_is(hub, "done"))
        await everybody_was_owed_once(hub)


async def test_who_joins_after_the_list_is_frozen_is_not_addressed(
    site: Site, people: People, phone: RecordingSink
) -> None:
    people.block_at = 2
    async with site.running() as hub:
        await call(hub)
        await people.blocked.wait()
    people.subjects = [f"new-{n}" for n in range(5000)]
    people.addresses_of["phone"] |= set(people.subjects)
    people.block_at = -1
    async with site.running() as hub:
        await eventually(batch_is(hub, "done"))
        await everybody_was_owed_once(hub)


async def test_a_stopped_batch_makes_no_more_deliveries(site: Site, people: People, phone: RecordingSink) -> None:
    from sqlalchemy import text

    from hub.contract import UnitOfWork
    from hub.sql import query

    people.block_at = 3  # the second page
    async with site.running() as hub:
        await call(hub)
        await people.blocked.wait()
        made = (await views.batches(hub.store))[0]["made"]
        assert made > 0
        await hub.commit(UnitOfWork(statements=[query(text("UPDATE batch SET state = 'stopped'"))()]))
    people.block_at = -1
    async with site.running() as hub:
        await eventually(lambda: _no_open_runs(hub))
        [batch] = await views.batches(hub.store)
        assert (batch["state"], batch["made"]) == ("stopped", made)


async def _no_open_runs(hub: HubApp) -> bool:
    return await hub.store.read("SELECT count(*) FROM run WHERE state IN ('due', 'running')") == [(0,)]


async def test_address_and_consent_are_read_again_at_the_moment_of_sending(
    site: Site, clock: StandingClock, people: People, phone: RecordingSink
) -> None:
    people.subjects = SUBJECTS[1:3]
    gone, left = people.subjects
    people.addresses_of["phone"] |= {gone, left}
    async with site.running() as hub:
        await hub.store.pause("connection", "phone", "operator", "", to_us(clock()))
        await call(hub, "phone")
        await reach(hub, ["pending"] * 2)
        people.addresses_of["phone"].discard(gone)
        people.refused[left] = "left_the_union"
        await hub.store.pause("connection", "phone", None, "", to_us(clock()))
        later(hub, clock, 0)
        await reach(hub, ["cancelled(no_address)", "cancelled(left_the_union)"])
        assert phone.shipments == []


async def test_the_same_call_reported_twice_is_one_batch(site: Site, people: People, phone: RecordingSink) -> None:
    async with site.running() as hub:
        await call(hub, dedupe_key="tet-2027")
        await call(hub, dedupe_key="tet-2027")
        await eventually(batch_is(hub, "done"))
        await everybody_was_owed_once(hub)


async def test_two_subscriptions_to_one_connection_owe_each_recipient_once(
    site: Site, people: People, phone: RecordingSink
) -> None:
    site.subscriptions.append(subscription("again", types=[CALL], to_each={"app": "app", "phone": "phone"}))
    async with site.running() as hub:
        await call(hub)
        await eventually(batch_is(hub, "done"))
        await everybody_was_owed_once(hub)
