"""For authors of plugins: a whole hub in a temporary folder, a clock that stands, a sink that records.

``async with running_hub(tmp_path, ...) as hub:`` gives the real thing: SQLite, worker, writer thread; with
``settings={"database_url": "postgresql://..."}`` the same on PostgreSQL.
Nothing here is used by the hub itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from hub.app import HubApp
from hub.clock import Clock
from hub.contract import (
    Admission,
    Admit,
    Command,
    Connection,
    ConnectionContext,
    ConnectionSettings,
    ConnectorType,
    Delivered,
    DestinationSpec,
    Directory,
    EventType,
    FeedView,
    Handler,
    Hub,
    Outcome,
    Shipment,
)
from hub.model import Event
from hub.plugins import Registry, load_plugins
from hub.settings import Configuration, ConnectionConfig
from hub.settings_model import HubSettings, InboundSettings, SubscriptionSettings, parse_schedule

START = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)


class StandingClock:
    """Stands until it is moved."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


async def eventually(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any], deadline_s: float = 10.0, every_s: float = 0.01
) -> Any:
    """Waits until ``condition`` answers something true and returns that; AssertionError at the deadline."""
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline_s
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        assert loop.time() < until, "the condition did not come true in time"
        await asyncio.sleep(every_s)


@dataclass(slots=True)
class RecordingSink:
    """Answers scripted outcomes in turn, then ``Delivered``; keeps every shipment."""

    script: list[Outcome | Callable[[Shipment], Awaitable[Outcome]]] = field(default_factory=list)
    resend_is_safe: bool = True
    concurrency: int = 10
    rate_per_s: float | None = None
    shipments: list[Shipment] = field(default_factory=list)
    admit_with: Callable[[Shipment], Admission] = lambda shipment: Admit()

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=self.concurrency, rate_per_s=self.rate_per_s)]

    def render(self, event: Event) -> bytes:
        return orjson.dumps(event.data, option=orjson.OPT_SORT_KEYS)

    async def admit(self, shipment: Shipment) -> Admission:
        return self.admit_with(shipment)

    async def send(self, shipment: Shipment) -> Outcome:
        self.shipments.append(shipment)
        step = self.script.pop(0) if self.script else Delivered()
        return await step(shipment) if callable(step) else step


class NoSettings(ConnectionSettings):
    """A connector type without settings."""


def connector(
    name: str,
    make: Connection | Callable[[ConnectionContext], Connection],
    channel: str | None = None,
) -> ConnectorType:
    """A connector type around a ready connection (or a function that makes one)."""
    return ConnectorType(
        name=name,
        settings=NoSettings,
        channel=channel,
        open=lambda context, settings: make(context) if callable(make) else make,
    )


def plain_event_type(name: str, *, personal: bool = False, thin: tuple[str, ...] = ("id", "n")) -> EventType:
    return EventType(
        name=name, title_vi=name, title_en=name, personal=personal, thin=thin, schema={"type": "object"}, example={}
    )


def registry_of(
    base: Registry | None = None,
    *,
    connector_types: Iterable[ConnectorType] = (),
    event_types: Iterable[EventType] = (),
    handlers: Iterable[Handler] = (),
    directory: Callable[[Hub], Directory | None] | None = None,
    commands: Iterable[Command] = (),
    feed_view: Callable[[Hub], FeedView | None] | None = None,
) -> Registry:
    """A registry of these parts, on top of ``base`` (the installed plugins, or nothing)."""
    base = base if base is not None else load_plugins(points=[])
    return replace(
        base,
        connector_types=MappingProxyType({**base.connector_types, **{c.name: c for c in connector_types}}),
        event_types=MappingProxyType({**base.event_types, **{e.name: e for e in event_types}}),
        handlers=MappingProxyType({**base.handlers, **{h.name: h for h in handlers}}),
        commands=MappingProxyType({**base.commands, **{f"{c.group} {c.name}": c for c in commands}}),
        directory=directory if directory is not None else base.directory,
        feed_view=feed_view if feed_view is not None else base.feed_view,
    )


def configuration(
    folder: Path,
    registry: Registry,
    *,
    connections: Mapping[str, Mapping[str, Any]],
    subscriptions: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
) -> Configuration:
    """A configuration as if read from ``folder/config``; ``connections``: name -> {type, settings, schedule}.

    Memory is not watched unless ``settings`` say so: a process that runs tests holds more than a hub.
    """
    given_settings = dict(settings or {})
    given_settings["worker"] = {"memory_mb": 0, **given_settings.get("worker", {})}
    made = {}
    for name, given in connections.items():
        kind = registry.connector_types[given.get("type", name)]
        made[name] = ConnectionConfig(
            name=name,
            type=kind.name,
            enabled=bool(given.get("enabled", True)),
            schedule=parse_schedule(given["schedule"]) if given.get("schedule") else None,
            settings=kind.settings.model_validate(given.get("settings", {})),
            file=f"connections/{name}.toml",
            inbound=InboundSettings.model_validate(given.get("inbound", {})),
        )
    (folder / "config").mkdir(exist_ok=True)
    return Configuration(
        folder=folder / "config",
        hub=HubSettings(**given_settings),
        connections=made,
        subscriptions=tuple(SubscriptionSettings.model_validate(s) for s in subscriptions),
    )


@asynccontextmanager
async def running_hub(
    folder: Path,
    registry: Registry,
    *,
    connections: Mapping[str, Mapping[str, Any]],
    subscriptions: Sequence[Mapping[str, Any]] = (),
    settings: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    start: bool = True,
    synchronous: str = "FULL",
) -> AsyncIterator[HubApp]:
    """A hub in ``folder``, opened and (by default) working; stopped at the end.

    Args:
        clock: the ledger's own unless given.
    """
    config = configuration(folder, registry, connections=connections, subscriptions=subscriptions, settings=settings)
    app = HubApp(config, registry, clock=clock, synchronous=synchronous)
    await app.open()
    try:
        if start:
            await app.start()
        yield app
    finally:
        await app.stop()
