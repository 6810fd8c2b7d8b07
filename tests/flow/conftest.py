"""A whole hub with sinks that record: what every flow test is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub import views
from hub.app import HubApp
from hub.clock import Clock
from hub.contract import Connection, ConnectorType, Directory, EventType, Handler, Hub, Shipment, UnitOfWork
from hub.model import Draft, Json, new_id
from hub.store.base import Store
from hub.testing import (
    RecordingSink,
    StandingClock,
    connector,
    eventually,
    plain_event_type,
    registry_of,
    running_hub,
)
from tests import ledger
from tests.engines import ON_BOTH, database_url, engine

__all__ = ["ON_BOTH", "database_url", "engine"]  # used by the tests here

THING = "vn.congdoan.thing.happened.v1"
PERSONAL = "vn.congdoan.person.changed.v1"
CALL = "vn.congdoan.call.made.v1"
SCHEDULE = (10, 100, 1000)


def subscription(name: str, **more: Any) -> dict[str, Any]:
    goal = {} if "to_each" in more else {"to": name}
    return {"name": name, "types": ["vn.congdoan.*"], **goal, **more}


@dataclass
class Site:
    """One installation in a folder; may be opened again and again, with other parts."""

    folder: Path
    #: None is the ledger's own.
    clock: Clock | None
    parts: dict[str, Connection] = field(default_factory=dict)
    channels: dict[str, str] = field(default_factory=dict)
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    handlers: list[Handler] = field(default_factory=list)
    directory: Callable[[Hub], Directory | None] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    #: "" is the SQLite file in the folder.
    database_url: str = ""

    def sink(self, name: str, *, channel: str = "", subscribe: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """A connection of this name that records; ``subscribe`` None makes it get everything."""
        sink = RecordingSink(**more)
        self.parts[name] = Connection(sink=sink)
        if channel:
            self.channels[name] = channel
        self.subscriptions.append(subscription(name, **(subscribe or {})))
        return sink

    def running(self, *, start: bool = True, schedule: str = "") -> AbstractAsyncContextManager[HubApp]:
        types: list[ConnectorType] = [connector(n, part, self.channels.get(n)) for n, part in self.parts.items()]
        events: list[EventType] = [
            plain_event_type(THING),
            plain_event_type(PERSONAL, personal=True),
            plain_event_type(CALL),
        ]
        registry = registry_of(
            connector_types=types, event_types=events, handlers=self.handlers, directory=self.directory
        )
        settings = {
            "retry": {"schedule_s": SCHEDULE, "jitter": 0},
            "worker": {"stop_within_s": 1, "attempt_deadline_s": 5},
            **self.settings,
            "database_url": self.database_url,
        }
        return running_hub(
            self.folder,
            registry,
            connections={name: {"type": name, "schedule": schedule} for name in self.parts},
            subscriptions=self.subscriptions,
            settings=settings,
            clock=self.clock,
            start=start,
            synchronous="OFF",
        )


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def site(tmp_path: Path, clock: StandingClock, database_url: str) -> Site:
    return Site(tmp_path, clock, database_url=database_url)


@pytest.fixture
def alpha(site: Site) -> RecordingSink:
    sink: RecordingSink = site.sink("alpha")
    return sink


@pytest.fixture
async def hub(site: Site, alpha: RecordingSink) -> AsyncIterator[HubApp]:
    """A hub with one sink, alpha, that takes everything."""
    async with site.running() as hub:
        yield hub
        await check_books(hub.store)


@pytest.fixture
def store(hub: HubApp) -> Store:
    return hub.store


async def check_books(store: Store) -> None:
    """``tests.ledger.check_books``, after every event has its feed position."""
    while await store.place_events(1000):
        pass
    await ledger.check_books(store)


async def emit(hub: HubApp, count: int = 1, **more: Any) -> list[str]:
    """Commits events in one unit; answers their ids."""
    given = {"type": THING, "source": "/test", **more}
    drafts = [
        Draft(**{"dedupe_key": str(new_id()), "data": {"id": str(n), "n": n, "secret": "s"}, **given})
        for n in range(count)
    ]
    return [str(id) for id in (await hub.commit(UnitOfWork(drafts=drafts))).events]


async def states(hub: HubApp, destination: str | None = None) -> list[str]:
    """``state`` or ``state(reason)`` of every delivery, the oldest event first."""
    rows: Sequence[Json] = await views.deliveries(hub.store, destination=destination, limit=5000)
    return [f"{r['state']}({r['reason']})" if r["reason"] else r["state"] for r in reversed(rows)]


async def reach(hub: HubApp, expected: list[str], destination: str | None = None) -> None:
    """Waits until the deliveries are exactly in these states."""
    seen: list[str] = []

    async def condition() -> bool:
        nonlocal seen
        seen = await states(hub, destination)
        return sorted(seen) == sorted(expected)

    try:
        await eventually(condition)
    except AssertionError:
        assert sorted(seen) == sorted(expected)


async def placed(hub: HubApp) -> None:
    """Waits until every event has its feed position: on PostgreSQL the leader gives it a moment after the commit."""

    async def condition() -> bool:
        return await hub.store.read("SELECT count(*) FROM event WHERE position IS NULL") == [(0,)]

    await eventually(condition)


def later(hub: HubApp, clock: StandingClock, seconds: float) -> None:
    """Moves the clock and tells the worker, which would else notice within a second."""
    clock.advance(seconds)
    assert hub.worker is not None
    hub.worker.wake()


class Blocked:
    """A partner that does not answer until it is let go."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.waiting = 0
        self.let_go = asyncio.Event()

    async def __call__(self, shipment: Shipment) -> Any:
        self.waiting += 1
        await self.let_go.wait()
        return self.outcome
