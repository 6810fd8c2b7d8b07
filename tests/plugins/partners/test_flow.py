"""The whole way: a committed event, the worker, the sink, a partner in another process, the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.model import Draft, Json, new_id
from hub.plugins import load_plugins
from hub.testing import eventually, plain_event_type, registry_of, running_hub
from hub.views import connections, deliveries
from tests.engines import ON_BOTH
from tests.plugins.partners.conftest import SECRET, Simulator

TYPE = "vn.congdoan.partners-test.made.v1"
Hubs = Callable[..., Any]


@pytest.fixture
def hub_with(simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Hubs:
    """Opens a hub with one partner connection per name; retries come quickly."""
    monkeypatch.setenv("PARTNER_TEST_SECRET", SECRET)
    registry = registry_of(load_plugins(allowed={"partners"}), event_types=[plain_event_type(TYPE)])

    @asynccontextmanager
    async def run(*names: str, **settings: Any) -> AsyncIterator[HubApp]:
        given = {"secret": {"env": "PARTNER_TEST_SECRET"}, "allow_networks": ["127.0.0.0/8"], **settings}
        async with running_hub(
            tmp_path,
            registry,
            connections={n: {"type": "partner", "settings": {**given, "url": simulator.url(n)}} for n in names},
            subscriptions=[{"name": n, "types": [TYPE], "to": n} for n in names],
            settings={
                "retry": {"schedule_s": [0.05] * 20},
                "breaker": {"first_s": 0.05, "max_s": 0.2},
                "database_url": database_url,
            },
        ) as hub:
            yield hub

    return run


async def emit(hub: HubApp, count: int) -> list[str]:
    """Commits events; answers their ids."""
    drafts = [
        Draft(type=TYPE, source="/test", dedupe_key=str(new_id()), data={"id": str(n), "n": n}) for n in range(count)
    ]
    committed = await hub.commit(UnitOfWork(drafts=drafts))
    return [str(each) for each in committed.events]


async def states(hub: HubApp, destination: str) -> list[str]:
    found: Sequence[Json] = await deliveries(hub.store, destination=destination, limit=500)
    return [each["state"] for each in found]


def all_delivered(hub: HubApp, destination: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return await states(hub, destination) == ["delivered"] * count

    return condition


@ON_BOTH
async def test_every_event_reaches_every_partner_once(simulator: Simulator, hub_with: Hubs) -> None:
    async with hub_with("a", "b") as hub:
        ids = await emit(hub, 50)
        for name in ("a", "b"):
            await eventually(all_delivered(hub, name, 50))
    lines = simulator.lines()
    assert sorted(line["id"] for line in lines) == sorted(f"{each}@{name}" for each in ids for name in ("a", "b"))
    assert {line["verdict"] for line in lines} == {"taken"}


@ON_BOTH
async def test_what_fails_at_first_is_tried_again_and_taken_once(simulator: Simulator, hub_with: Hubs) -> None:
    await simulator.put(fail_first_share=0.5)
    async with hub_with("a") as hub:
        await emit(hub, 40)
        await eventually(all_delivered(hub, "a", 40))
    state = await simulator.state()
    assert (state["taken"], state["repeats"]) == (40, 0)
    assert state["refused"] > 0


async def test_a_partner_that_is_down_catches_up_and_delays_nobody(simulator: Simulator, hub_with: Hubs) -> None:
    await simulator.put(endpoints={"a": {"down": True}})
    async with hub_with("a", "b") as hub:
        await emit(hub, 20)
        await eventually(all_delivered(hub, "b", 20))
        assert "delivered" not in await states(hub, "a")
        await simulator.put(endpoints={"a": {"down": False}})
        await eventually(all_delivered(hub, "a", 20), deadline_s=30)
    assert (await simulator.state())["endpoints"]["a"]["taken"] == 20


@ON_BOTH
async def test_410_pauses_the_endpoint_and_loses_nothing(simulator: Simulator, hub_with: Hubs) -> None:
    await simulator.put(endpoints={"a": {"status": 410}})
    async with hub_with("a") as hub:
        await emit(hub, 5)

        async def paused() -> Json | None:
            return next((each for each in await connections(hub.store) if each["reason"] == "gone"), None)

        await eventually(paused)

        async def held() -> bool:
            return await states(hub, "a") == ["pending"] * 5

        await eventually(held)
    assert {line["verdict"] for line in simulator.lines()} == {"refused"}


async def test_an_answer_that_never_came_is_asked_for_again_with_the_same_bytes(
    simulator: Simulator, hub_with: Hubs
) -> None:
    await simulator.put(withhold=True)
    async with hub_with("a", timeout_s=0.2) as hub:
        (one,) = await emit(hub, 1)
        await simulator.until(lambda state: state["repeats"] >= 1)
        await simulator.put(withhold=False)
        await eventually(all_delivered(hub, "a", 1), deadline_s=30)
    state = await simulator.state()
    assert (state["taken"], state["changed_bodies"]) == (1, 0)
    assert {line["id"] for line in simulator.lines()} == {f"{one}@a"}
