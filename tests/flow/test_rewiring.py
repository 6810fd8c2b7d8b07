"""A connection that has endpoints of its own: others come and go while the hub works, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from hub.app import HubApp
from hub.contract import Connection, Delivered, DestinationSpec, Outcome, Shipment, Subscribed
from hub.testing import RecordingSink, StandingClock, connector, eventually, plain_event_type, registry_of, running_hub
from tests.flow.conftest import ON_BOTH, THING, Site, check_books, emit, reach

pytestmark = ON_BOTH


class Endpoints(RecordingSink):
    """A sink with a destination per endpoint, each subscribed to everything."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.fields: tuple[str, ...] = ()
        self.leads_to = "many"
        self.refuses = False

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(name=name, concurrency=self.concurrency) for name in self.names]

    async def routes(self) -> Sequence[Subscribed]:
        if self.refuses:
            raise OSError("the table cannot be read")
        return [
            Subscribed(name=f"many:{name}", types=(THING,), to=f"{self.leads_to}/{name}", fields=self.fields)
            for name in self.names
        ]

    def got(self, name: str) -> list[object]:
        return [s.event.data.get("secret") for s in self.shipments if s.destination == f"many/{name}"]


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints()


def running(site: Site, endpoints: Endpoints, clock: StandingClock) -> AbstractAsyncContextManager[HubApp]:
    connection = Connection(sink=endpoints, routes=endpoints.routes)
    registry = registry_of(
        connector_types=[connector("many", connection)], event_types=[plain_event_type(THING)]
    )  # fmt: skip
    settings = {"database_url": site.database_url, "worker": {"stop_within_s": 1}}
    return running_hub(site.folder, registry, connections={"many": {}}, settings=settings, clock=clock)


async def test_what_is_added_is_owed_from_then_on_and_what_is_gone_no_more(
    site: Site, endpoints: Endpoints, clock: StandingClock
) -> None:
    async with running(site, endpoints, clock) as hub:
        await emit(hub)
        assert await hub.store.read("SELECT count(*) FROM queue") == [(0,)]
        endpoints.names = ["a"]
        await hub.rewire()
        await emit(hub, 2)
        await reach(hub, ["delivered"] * 2)
        endpoints.names = ["b"]
        await hub.rewire()
        await emit(hub)
        await reach(hub, ["delivered"] * 3)
        assert (len(endpoints.got("a")), len(endpoints.got("b"))) == (2, 1)
        await check_books(hub.store)


async def test_another_start_knows_them_without_being_told(
    site: Site, endpoints: Endpoints, clock: StandingClock
) -> None:
    endpoints.names = ["a"]
    async with running(site, endpoints, clock) as hub:
        await emit(hub)
        await reach(hub, ["delivered"])


async def test_what_may_not_leave_any_more_is_cancelled_although_it_was_looked_up_before(
    site: Site, endpoints: Endpoints, clock: StandingClock
) -> None:
    endpoints.names, endpoints.fields = ["a"], ("secret",)
    async with running(site, endpoints, clock) as hub:
        await emit(hub)
        await reach(hub, ["delivered"])
        await hub.store.pause("destination", "many/a", "operator", "", 0)
        await emit(hub)
        endpoints.fields = ()
        await hub.rewire()
        await hub.store.pause("destination", "many/a", None, "", 0)
        await reach(hub, ["delivered", "cancelled(grant_ended)"])
        assert endpoints.got("a") == ["s"]


async def test_a_try_that_is_under_way_ends_although_its_endpoint_is_gone_and_the_rest_waits(
    site: Site, endpoints: Endpoints, clock: StandingClock
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(shipment: Shipment) -> Outcome:
        begun.set()
        await go_on.wait()
        return Delivered()

    endpoints.names, endpoints.concurrency, endpoints.script = ["a"], 1, [slowly]
    async with running(site, endpoints, clock) as hub:
        await emit(hub, 3)
        await begun.wait()
        endpoints.names = []
        await hub.rewire()
        go_on.set()

        async def one_ended() -> bool:
            rows = await hub.store.read("SELECT state, count(*) FROM queue GROUP BY state")
            return rows == [("pending", 2)]

        await eventually(one_ended)
        endpoints.names = ["a"]
        await hub.rewire()
        await reach(hub, ["delivered"] * 3)
        await check_books(hub.store)


async def test_one_that_cannot_say_what_it_wants_changes_nothing(
    site: Site, endpoints: Endpoints, clock: StandingClock
) -> None:
    endpoints.names = ["a"]
    async with running(site, endpoints, clock) as hub:
        endpoints.names, endpoints.refuses = [], True
        with pytest.raises(OSError, match="cannot be read"):
            await hub.rewire()
        await emit(hub)
        await reach(hub, ["delivered"])


async def test_a_subscription_that_leads_to_others_is_left_out(
    site: Site, endpoints: Endpoints, clock: StandingClock
) -> None:
    endpoints.names, endpoints.leads_to = ["a"], "others"
    async with running(site, endpoints, clock) as hub:
        await emit(hub)
        assert await hub.store.read("SELECT count(*) FROM queue") == [(0,)]
