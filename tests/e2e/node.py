"""One node of the story of the nodes: a small hub in a process of its own, on a shared PostgreSQL database.

``python -m tests.e2e.node FOLDER DSN NAME TCP_PORT UDP_PORT LEASE_S CLOCK_OFF_S``: takes facts in until SIGUSR1 and
prints each once its commit has answered, works until SIGTERM. CLOCK_OFF_S: how wrong this machine's clock is.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

import hub.clock

if __name__ == "__main__":  # before anybody else takes the clock from there
    _off, _right = timedelta(seconds=float(sys.argv[7])), hub.clock.system_clock
    hub.clock.system_clock = lambda: _right() + _off

from hub.contract import (
    Admission,
    Admit,
    Connection,
    DestinationSpec,
    Outcome,
    Page,
    RetryLater,
    Shipment,
    UnitOfWork,
)
from hub.contract import Delivered as Arrived
from hub.errors import Busy
from hub.model import Draft, Event
from hub.testing import connector, plain_event_type, registry_of, running_hub

THING = "vn.congdoan.thing.happened.v1"
CALL = "vn.congdoan.call.made.v1"
PAGE = "vn.congdoan.page.read.v1"
KEYS, PAGES = 4, 250


class LineSink:
    """One line out, one line back."""

    def __init__(self, name: str, node: str, port: int, *, resend_is_safe: bool = True) -> None:
        self.name = name
        self.node = node
        self.port = port
        self.resend_is_safe = resend_is_safe

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=10)]

    def render(self, event: Event) -> bytes:
        return orjson.dumps(event.data)

    async def admit(self, shipment: Shipment) -> Admission:
        return Admit()

    async def send(self, shipment: Shipment) -> Outcome:
        digest = hashlib.sha256(shipment.body).hexdigest()[:16]
        data = shipment.event.data
        answer = await ask(
            self.port,
            f"{self.name} {self.node} {shipment.event.id} {shipment.delivery_id} {digest} {data['id']} {data['n']}",
        )
        return Arrived() if answer == b"200\n" else RetryLater(reason="busy", ambiguous=not answer)


async def ask(port: int, line: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(line.encode() + b"\n")
        return await reader.readline()
    finally:
        writer.close()


class PacedSink(LineSink):
    """Ten a second over all nodes; a datagram leaves the moment it is sent."""

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=10, rate_per_s=10)]

    async def send(self, shipment: Shipment) -> Outcome:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            datagrams.connect(("127.0.0.1", self.port))
            datagrams.send(f"{self.name} {self.node} {shipment.event.id}".encode())
            await asyncio.get_running_loop().sock_recv(datagrams, 10)
        return Arrived()


class Session(LineSink):
    """Is sent over while it is up; one node at a time may keep it up."""

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"session {self.node}\n".encode())
            while await reader.readline():
                pass
        finally:
            writer.close()


class Archive:
    """Is read page after page, by whichever node has the run."""

    def __init__(self, node: str, port: int) -> None:
        self.node = node
        self.port = port

    async def page(self, cursor: str | None) -> Page:
        n = int(cursor or 0)
        await ask(self.port, f"page {self.node} {n}")
        draft = Draft(type=PAGE, source="", dedupe_key=f"page-{n}", data={"id": "page", "n": n})
        return Page(unit=UnitOfWork(drafts=[draft]), cursor=str(n + 1), done=n + 1 >= PAGES)

    async def acknowledge(self, page: Page) -> None:
        return None


async def main(folder: Path, dsn: str, name: str, tcp: int, udp: int, lease_s: float) -> None:
    session = Session("line", name, tcp)
    parts = {
        "safe": Connection(sink=LineSink("safe", name, tcp)),
        "unsafe": Connection(sink=LineSink("unsafe", name, tcp, resend_is_safe=False)),
        "paced": Connection(sink=PacedSink("paced", name, udp)),
        "line": Connection(sink=session, run=session.run, sessions=1),
        "archive": Connection(source=Archive(name, tcp)),
    }
    registry = registry_of(
        connector_types=[connector(n, part) for n, part in parts.items()],
        event_types=[plain_event_type(THING), plain_event_type(CALL), plain_event_type(PAGE)],
    )
    stop, quiet = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, quiet.set)

    def to(destination: str, *types: str, **more: Any) -> dict[str, Any]:
        return {"name": destination, "types": types, "to": destination, **more}

    async with running_hub(
        folder,
        registry,
        connections={n: {"type": n, "schedule": "every 999999h" if n == "archive" else ""} for n in parts},
        subscriptions=[
            to("safe", THING),
            to("unsafe", THING, ordered=False),  # one that is unknown would hold its key for ever
            to("paced", CALL),
            to("line", CALL),
        ],
        settings={
            "retry": {"schedule_s": [0.05] * 40},
            "breaker": {"failures": 10_000},
            "worker": {"lease_s": lease_s, "attempt_deadline_s": lease_s * 0.5, "stop_within_s": 5},
            "database_url": dsn,
        },
    ) as app:
        print("ready", app.boot.hex(), flush=True)

        async def keep(kind: str, key: str, n: int) -> None:
            draft = Draft(
                type=kind, source="/nodes", dedupe_key=f"{key}-{n}", ordering_key=key, data={"id": key, "n": n}
            )
            while True:
                try:
                    [event] = (await app.commit(UnitOfWork(drafts=[draft]))).events
                except Busy:
                    await asyncio.sleep(0.1)
                    continue
                print("kept", event, kind, key, n, flush=True)
                return

        async def keep_on(kind: str, key: str, pause_s: float) -> None:
            n = 0
            while not (quiet.is_set() or stop.is_set()):
                await keep(kind, key, n)
                n += 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(quiet.wait(), pause_s)

        await asyncio.gather(
            *(keep_on(THING, f"{name}-{app.boot.hex()[:4]}-{k}", 0.1) for k in range(KEYS)),
            keep_on(CALL, f"{name}-{app.boot.hex()[:4]}-call", 0.22),
            stop.wait(),
        )


if __name__ == "__main__":
    folder, dsn, name, tcp, udp, lease_s = sys.argv[1:7]
    asyncio.run(main(Path(folder), dsn, name, int(tcp), int(udp), float(lease_s)))
