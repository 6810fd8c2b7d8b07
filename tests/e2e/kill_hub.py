"""The victim of the kill test: a small hub in a process of its own, which commits under load until it is killed.

``python -m tests.e2e.kill_hub FOLDER PORT NAME COUNT``: every acknowledged event id is printed once its commit
has answered. With COUNT 0 it only works off what is there and stops on SIGTERM.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from hub.contract import Admission, Admit, Connection, DestinationSpec, Outcome, RetryLater, Shipment, UnitOfWork
from hub.contract import Delivered as Arrived
from hub.model import Draft, Event
from hub.testing import connector, plain_event_type, registry_of, running_hub

TYPE = "vn.congdoan.thing.happened.v1"


class LineSink:
    """One line out, one line back; ``resend_is_safe`` as told."""

    def __init__(self, name: str, port: int, *, resend_is_safe: bool) -> None:
        self.name = name
        self.port = port
        self.resend_is_safe = resend_is_safe

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=20)]

    def render(self, event: Event) -> bytes:
        return orjson.dumps(event.data)

    async def admit(self, shipment: Shipment) -> Admission:
        return Admit()

    async def send(self, shipment: Shipment) -> Outcome:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            digest = hashlib.sha256(shipment.body).hexdigest()[:16]
            writer.write(f"{self.name} {shipment.event.id} {shipment.delivery_id} {digest}\n".encode())
            answer = await reader.readline()
        finally:
            writer.close()
        if answer == b"200\n":
            return Arrived()
        return RetryLater(reason="busy", ambiguous=not answer)


async def main(folder: Path, port: int, name: str, count: int) -> None:
    sinks = {
        "safe": LineSink("safe", port, resend_is_safe=True),
        "unsafe": LineSink("unsafe", port, resend_is_safe=False),
    }
    registry = registry_of(
        connector_types=[connector(n, Connection(sink=s)) for n, s in sinks.items()],
        event_types=[plain_event_type(TYPE)],
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running_hub(
        folder,
        registry,
        connections={n: {"type": n} for n in sinks},
        subscriptions=[{"name": n, "types": ["vn.congdoan.*"], "to": n} for n in sinks],
        settings={"retry": {"schedule_s": [0.05] * 40}, "breaker": {"failures": 10_000}},
    ) as hub:
        print("ready", os.getpid(), flush=True)

        async def commit(n: int) -> None:
            draft = Draft(type=TYPE, source="/kill", dedupe_key=f"{name}-{n}", data={"id": f"{name}-{n}", "n": n})
            [event] = (await hub.commit(UnitOfWork(drafts=[draft]))).events
            print("kept", event, flush=True)

        for start in range(0, count, 20):
            await asyncio.gather(*(commit(n) for n in range(start, min(start + 20, count))))
            await asyncio.sleep(0.005)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
