"""Other files while the hub works: all of it counts at once, or nothing does, and nothing owed is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hub.app import HubApp
from hub.contract import (
    Connection,
    ConnectionContext,
    ConnectionSettings,
    ConnectorType,
    Delivered,
    Outcome,
    RetryLater,
    SecretRef,
    Shipment,
)
from hub.errors import ConfigError, InputError
from hub.plugins import Registry
from hub.settings import load
from hub.testing import RecordingSink, eventually, plain_event_type, registry_of
from tests.flow.conftest import THING, check_books, emit, reach

SUBSCRIPTION = '[[subscription]]\nname = "{name}"\ntypes = ["' + THING + '"]\nto = "{to}"\nordered = false\n'


class Settings(ConnectionSettings):
    label: str = "one"
    token: SecretRef | None = None


class Line:
    """A connector type whose connections tell what became of them."""

    def __init__(self) -> None:
        self.sinks: dict[str, list[RecordingSink]] = {}
        self.opened: list[tuple[str, str, str]] = []
        self.closed: list[tuple[str, str]] = []
        self.up: list[tuple[str, str]] = []

    def open(self, context: ConnectionContext, settings: Settings) -> Connection:
        if settings.label == "broken":
            raise ConfigError("label: is broken")
        me = (context.name, settings.label)
        sink = RecordingSink(concurrency=1)
        self.sinks.setdefault(context.name, []).append(sink)
        self.opened.append((*me, context.secret(settings.token) if settings.token else ""))

        async def run() -> None:
            self.up.append(me)
            try:
                await asyncio.Event().wait()
            finally:
                self.up.remove(me)

        async def close() -> None:
            self.closed.append(me)

        return Connection(sink=sink, run=run, close=close)

    @property
    def registry(self) -> Registry:
        kind = ConnectorType(name="line", settings=Settings, open=self.open)
        return registry_of(connector_types=[kind], event_types=[plain_event_type(THING)])


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    (folder / "connections").mkdir(parents=True)
    (folder / "hub.toml").write_text("")
    write(folder, "a", "one")
    subscribe(folder, "a")
    return folder


def write(folder: Path, name: str, label: str, **more: Any) -> None:
    secret = f'token = {{ file = "{more["token"]}" }}\n' if more else ""
    text = f'type = "line"\n[settings]\nlabel = "{label}"\n{secret}'
    (folder / "connections" / f"{name}.toml").write_text(text)


def subscribe(folder: Path, *names: str) -> None:
    (folder / "subscriptions.toml").write_text("".join(SUBSCRIPTION.format(name=f"to-{n}", to=n) for n in names))


@asynccontextmanager
async def running(config: Path, line: Line) -> AsyncIterator[HubApp]:
    known = line.registry
    app = HubApp(load(config, {}, known.connector_types, known.event_types, known.handlers), known, environ={})
    await app.open()
    await app.start()
    try:
        yield app
        await check_books(app.store)
    finally:
        await app.stop()


async def test_a_new_connection_and_its_subscription_count_from_now_on(config: Path, line: Line) -> None:
    async with running(config, line) as hub:
        write(config, "b", "one")
        subscribe(config, "a", "b")
        assert await hub.reload() == {"connections": ["b"], "subscriptions": 2, "needs_restart": []}
        await emit(hub)
        await reach(hub, ["delivered"] * 2)
        assert line.opened == [("a", "one", ""), ("b", "one", "")], "a was left as it is"
        await eventually(lambda: sorted(line.up) == [("a", "one"), ("b", "one")])


async def test_a_changed_connection_ends_its_tries_before_another_takes_its_place(config: Path, line: Line) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(shipment: Shipment) -> Outcome:
        begun.set()
        await go_on.wait()
        assert not line.closed, "nothing is closed under a try"
        return Delivered()

    async with running(config, line) as hub:
        line.sinks["a"][0].script.append(slowly)
        await emit(hub, 3)
        await begun.wait()
        write(config, "a", "two")
        reloading = asyncio.create_task(hub.reload())
        await eventually(lambda: len(line.sinks["a"]) == 2)
        go_on.set()
        await reloading
        await reach(hub, ["delivered"] * 3)
        assert [len(sink.shipments) for sink in line.sinks["a"]] == [1, 2]
        await eventually(lambda: line.up == [("a", "two")])
        assert line.closed == [("a", "one")]


async def test_what_is_gone_from_the_files_is_paused_with_a_repair_and_loses_nothing(config: Path, line: Line) -> None:
    write(config, "b", "one")
    subscribe(config, "a", "b")
    async with running(config, line) as hub:
        line.sinks["b"][0].script.append(RetryLater(reason="busy", after=timedelta(hours=1)))
        await emit(hub)
        await reach(hub, ["delivered", "pending(busy)"])
        (config / "connections" / "b.toml").unlink()
        subscribe(config, "a")
        await hub.reload()
        assert [kind for (kind,) in await hub.store.read("SELECT kind FROM repair")] == ["connection_file_gone"]
        await reach(hub, ["delivered", "pending(busy)"])


@pytest.mark.parametrize("wrong", ["broken settings", "unknown key", "a subscription to nobody"])
async def test_files_that_are_not_valid_change_nothing(config: Path, line: Line, wrong: str) -> None:
    async with running(config, line) as hub:
        write(config, "b", "broken" if wrong == "broken settings" else "one")
        if wrong == "unknown key":
            (config / "hub.toml").write_text("nonsense = 1\n")
        subscribe(config, "b" if wrong != "a subscription to nobody" else "nobody")
        with pytest.raises(ConfigError):
            await hub.reload()
        await emit(hub)
        await reach(hub, ["delivered"])
        assert len(line.sinks["a"][0].shipments) == 1 and line.up == [("a", "one")]


async def test_a_new_secret_opens_its_connection_anew_and_no_other(config: Path, line: Line) -> None:
    secret = config / "token"
    secret.write_text("first")
    secret.chmod(0o600)
    write(config, "b", "one", token="token")
    async with running(config, line) as hub:
        assert (await hub.reload())["connections"] == []
        secret.write_text("second")
        assert (await hub.reload())["connections"] == ["b"]
        assert [token for name, _, token in line.opened if name == "b"] == ["first", "second"]


async def test_what_counts_from_the_next_start_alone_is_named(config: Path, line: Line) -> None:
    async with running(config, line) as hub:
        (config / "hub.toml").write_text("[worker]\nclaim_batch = 7\n")
        assert (await hub.reload())["needs_restart"] == ["worker"]
        assert hub.config.hub.worker.claim_batch != 7


async def test_only_a_hub_that_works_can_be_told(config: Path, line: Line) -> None:
    known = line.registry
    app = HubApp(load(config, {}, known.connector_types, known.event_types, known.handlers), known, environ={})
    await app.open()
    try:
        with pytest.raises(InputError, match="no hub is running"):
            await app.reload()
    finally:
        await app.stop()
