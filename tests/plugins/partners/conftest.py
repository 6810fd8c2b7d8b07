"""A partner connection as the hub would open it, and the simulator in its own process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from hub.contract import Connection, ConnectionContext, Hub, Shipment, Sink, UnitOfWork
from hub.model import Event, Json, new_id
from plugins.partners.connector import open_connection
from plugins.partners.settings import PartnerSettings

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NEW_SECRET = "whsec_" + base64.b64encode(KEY[::-1]).decode()


@dataclass
class Simulator:
    """The running process: its ports and its log."""

    http: aiohttp.ClientSession
    port: int
    control: int
    log: Path

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/hook/{name}"

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


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Json]:
    """One process for all tests, since starting it takes longer than any of them."""
    folder = tmp_path_factory.mktemp("partners")
    (folder / "secrets.json").write_text(json.dumps({"new-key": NEW_SECRET}))
    command = [
        sys.executable, "-m", "plugins.partners.simulator", "--port", "0", "--control-port", "0", "--log",
        str(folder / "log"), "--secret", SECRET, "--secrets", str(folder / "secrets.json"),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        yield {**json.loads(running.stdout.readline()), "log": folder / "log"}
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0


@pytest.fixture
async def simulator(process: Json) -> AsyncIterator[Simulator]:
    """Partners who have seen nothing yet."""
    assert process["ready"]
    async with aiohttp.ClientSession() as http:
        simulator = Simulator(http, process["port"], process["control"], process["log"])
        assert (await simulator.put(forget=True))["http"] == 200
        os.truncate(simulator.log, 0)
        yield simulator


@dataclass
class Clock:
    """What the sink asks of the hub. The simulator checks against real time, so it starts there."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: What the sink committed: words about outages.
    units: list[UnitOfWork] = field(default_factory=list)

    def now(self) -> datetime:
        return self.moment

    async def commit(self, unit: UnitOfWork) -> None:
        self.units.append(unit)

    def told(self) -> list[tuple[str, str]]:
        """Event type and stage or reason, in order."""
        drafts = [draft for unit in self.units for draft in unit.drafts]
        return [(d.type.split(".")[3], d.data.get("stage") or d.data.get("reason", "")) for d in drafts]


@pytest.fixture
def clock() -> Clock:
    return Clock()


Open = Callable[..., Connection]


@pytest.fixture
async def open_partner(clock: Clock) -> AsyncIterator[Open]:
    opened_here: list[Connection] = []

    def make(url: str, **more: Any) -> Connection:
        connection = opened(clock, url, **more)
        opened_here.append(connection)
        return connection

    yield make
    for connection in opened_here:
        assert connection.close is not None
        await connection.close()


def opened(clock: Clock, url: str, **more: Any) -> Connection:
    """A connection to one partner, with no hub around it but its clock; whoever opens it closes it."""
    known = {"SECRET": SECRET, "NEW_SECRET": NEW_SECRET, "SHORT": "whsec_c2hvcnQ="}

    async def ignore(*_: str) -> None: ...

    context = ConnectionContext(
        name="p-so-noi-vu", hub=cast(Hub, clock), secret=lambda ref: known[ref.env or ""], log=lambda *_, **__: None,
        open_repair=ignore, clear_repair=ignore, var_dir=Path(),
    )  # fmt: skip
    given = {"url": url, "secret": {"env": "SECRET"}, "allow_networks": ["127.0.0.0/8", "::1/128"], **more}
    return open_connection(context, PartnerSettings.model_validate(given))


def event(**data: Any) -> Event:
    made = new_id()
    return Event(
        id=made, type="vn.congdoan.member.updated.v1", source="members", subject="m-1",
        occurred_at=datetime(2026, 11, 23, 7, 5, 9, tzinfo=UTC), data=data or {"unit": "CDCS-01"}, scope="CDCS-01",
        correlation_id=made,
    )  # fmt: skip


def shipped(sink: Sink, what: Event, body: bytes | None = None, deadline_s: float = 15.0) -> Shipment:
    """What the worker would hand to the sink."""

    async def record(_: Any) -> None: ...

    return Shipment(
        id=new_id().bytes, lease_no=1, try_no=1, destination="p-so-noi-vu", event=what, recipient="", address=None,
        batch_id=None, expires_at=None, body=sink.render(what) if body is None else body, deadline_s=deadline_s,
        record_refs=record,
    )  # fmt: skip


async def ship(connection: Connection, what: Event, body: bytes | None = None, deadline_s: float = 15.0) -> Any:
    """One try of ``what``, as the worker does it; answers the outcome."""
    assert connection.sink is not None
    return await connection.sink.send(shipped(connection.sink, what, body, deadline_s))


@contextmanager
def asked(store: Any) -> Iterator[list[str]]:
    """What a request asks of the ledger, in order: SQL without values. What the hub does beside it is left out."""
    said: list[str] = []
    original = {name: getattr(store, name) for name in ("read", "fetch", "commit")}

    def watched(name: str) -> Any:
        async def call(what: Any, *more: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            coroutine = task.get_coro()
            if coroutine is not None and coroutine.__qualname__.startswith("RequestHandler."):
                parts = [what.query] if name == "fetch" else [what]
                if name == "commit":
                    parts = [*(each.statement.query for each in what.guards), *(each.query for each in what.statements)]
                said.append(" ".join([name, *(each if isinstance(each, str) else each.sqlite for each in parts)]))
            return await original[name](what, *more)

        return call

    for name in original:
        setattr(store, name, watched(name))
    try:
        yield said
    finally:
        for name in original:
            delattr(store, name)


@asynccontextmanager
async def receiver(seen: list[str]) -> AsyncIterator[str]:
    """Takes requests on connections that stay; remembers each ``webhook-id`` as it comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                await reader.readexactly(int(fields["Content-Length"]))
                seen.append(fields["webhook-id"])
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
