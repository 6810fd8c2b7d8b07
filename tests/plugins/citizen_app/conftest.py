"""A citizen_app connection as the hub would open it, and the simulator in its own process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from hub.contract import Connection, ConnectionContext, Hub, SecretRef, Shipment
from hub.model import Event, Json, new_id
from plugins.citizen_app.connector import open_connection
from plugins.citizen_app.settings import CitizenAppSettings

CLIENT_SECRET = "s3cret:/%+ä"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_WEBHOOK_SECRET = "whsec_" + base64.b64encode(bytes(range(32, 64))).decode()
PHONE = "+84912555123"
TEXT = "Công đoàn mời đoàn viên khám sức khỏe."


@dataclass
class Simulator:
    """The running process: its ports and its log."""

    http: aiohttp.ClientSession
    port: int
    control: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def put(self, **change: Any) -> Json:
        async with self.http.put(f"http://127.0.0.1:{self.control}/control", json=change) as response:
            return cast(Json, {"http": response.status, **await response.json()})

    async def state(self) -> Json:
        async with self.http.get(f"http://127.0.0.1:{self.control}/control") as response:
            return cast(Json, await response.json())

    async def until(self, holds: Callable[[Json], bool]) -> Json:
        """The first state for which ``holds`` is true; asks again and again, for 10 s at most."""
        async with asyncio.timeout(10):
            while not holds(state := await self.state()):
                pass
        return state

    def lines(self) -> list[Json]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def hub_port() -> int:
    """Where the simulator posts questions; a test listens there."""
    return free_port()


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory, hub_port: int) -> Iterator[Json]:
    """One process for all tests, since starting it takes longer than any of them."""
    log = tmp_path_factory.mktemp("citizen_app") / "log"
    command = [
        sys.executable, "-m", "plugins.citizen_app.simulator", "--log", str(log), "--client-secret", CLIENT_SECRET,
        "--webhook-secret", WEBHOOK_SECRET, "--hub-url", f"http://127.0.0.1:{hub_port}", "--key", "00" * 32,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        yield {**json.loads(running.stdout.readline()), "log": log}
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0


@pytest.fixture
async def simulator(process: Json) -> AsyncIterator[Simulator]:
    """An app that has seen nothing yet."""
    assert process["ready"]
    async with aiohttp.ClientSession() as http:
        simulator = Simulator(http, process["port"], process["control"], process["log"])
        assert (await simulator.put(forget=True))["http"] == 200
        os.truncate(simulator.log, 0)
        yield simulator


@dataclass
class FakeHub:
    """What this plugin asks of the hub. The app signs with real time, so the clock starts there."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.moment

    def keyed_hash(self, kind: str, value: str) -> bytes:
        return (kind + value).encode()[::-1][:16].rjust(16, b"-")


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()


Open = Callable[..., Connection]


@pytest.fixture
async def open_app(tmp_path: Path, hub: FakeHub) -> AsyncIterator[Open]:
    known = {"SECRET": CLIENT_SECRET, "WRONG": "wrong", "HOOK": WEBHOOK_SECRET, "OLD_HOOK": OLD_WEBHOOK_SECRET}
    opened: list[Connection] = []

    def secret(ref: SecretRef) -> str:
        return known[ref.env or ""]

    async def ignore(*_: str) -> None: ...

    def make(url: str, **more: Any) -> Connection:
        context = ConnectionContext(
            name="c-thainguyen", hub=cast(Hub, hub), secret=secret, log=lambda *_, **__: None,
            open_repair=ignore, clear_repair=ignore, var_dir=tmp_path,
        )  # fmt: skip
        given = {"base_url": url, "client_id": "union-hub", "client_secret": {"env": "SECRET"}, **more}
        connection = open_connection(context, CitizenAppSettings.model_validate(given))
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        assert connection.close is not None
        await connection.close()


def event(**data: Any) -> Event:
    made = new_id()
    return Event(
        id=made, type="vn.congdoan.campaign.announced.v1", source="campaigns", subject=None,
        occurred_at=datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC),
        data=data or {"title": "Thông báo", "text": TEXT, "campaign": "kham-suc-khoe"}, scope="", correlation_id=made,
    )  # fmt: skip


async def record_nothing(refs: Sequence[str], of_parts: int = 0) -> None:
    raise AssertionError("this sink gets no references")


def shipment(connection: Connection, of: Event | None = None, **more: Any) -> Shipment:
    of = of or event()
    assert connection.sink is not None
    given = {
        "id": new_id().bytes, "lease_no": 1, "try_no": 1, "destination": "c-thainguyen", "event": of,
        "recipient": "m-1", "address": PHONE, "batch_id": None, "expires_at": None,
        "body": connection.sink.render(of), "deadline_s": 5.0, "record_refs": record_nothing,
    }  # fmt: skip
    return Shipment(**{**given, **more})
