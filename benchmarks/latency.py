"""From accepted to the first byte at the partner, and what the others feel while one partner hangs.

    python -m benchmarks.latency [--store sqlite|postgres] [--seconds 10]

Events enter at 30 % of the rate that the machine delivers at, one unit each, and each goes to 50 endpoints. The
yardstick of
``isolation_ratio`` is the same load while all of them answer. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.deliver import database
from benchmarks.load import percentile
from benchmarks.process import print_json, run, say
from benchmarks.workload import EVENT_TYPE, SECRET, drafts
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.log import configure as configure_log
from hub.plugins import load_plugins
from hub.testing import eventually, running_hub

ENDPOINTS = 50
NAMES = [f"e{n:02}" for n in range(ENDPOINTS)]
#: How many events are delivered at full speed to learn the rate.
WARM_UP = 2_000


class Partners:
    """One server for all endpoints; notes when the first byte of each event came, and may hang on one of them."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], float] = {}
        self.hanging = ""
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        yield
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                at, endpoint = perf_counter(), head[6:9].decode()
                lower = head.lower()
                length = int(lower.partition(b"content-length: ")[2].partition(b"\r")[0])
                await reader.readexactly(length)
                self.seen.setdefault((lower.partition(b"webhook-id: ")[2].partition(b"\r")[0].decode(), endpoint), at)
                if endpoint == self.hanging:
                    await asyncio.Event().wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _feed(hub: HubApp, partners: Partners, per_s: float, seconds: float, first: int) -> list[float]:
    """Waits of the events that were committed at that pace, from COMMIT to the first byte."""
    accepted: dict[str, float] = {}
    total = int(per_s * seconds)
    began = perf_counter()

    async def one(n: int, draft: Any) -> None:
        await asyncio.sleep(max(0.0, began + n / per_s - perf_counter()))
        [event] = (await hub.commit(UnitOfWork(drafts=[draft]))).events
        accepted[str(event)] = perf_counter()

    await asyncio.gather(*(one(n, draft) for n, draft in enumerate(drafts(range(first, first + total)))))
    answering = [each for each in NAMES if each != partners.hanging]
    await eventually(lambda: sum(e != partners.hanging for _, e in partners.seen) >= total * len(answering), 30, 0.1)
    waits = [
        max(at - accepted[id], 0.0)
        for (id, endpoint), at in partners.seen.items()
        if endpoint != partners.hanging and id in accepted
    ]
    partners.seen.clear()
    return waits


async def measure(seconds: float, database_url: str) -> dict[str, Any]:
    partners = Partners()
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        folder = Path(name)
        secret = folder / "config" / "secret"
        secret.parent.mkdir()
        secret.write_text(SECRET)
        secret.chmod(0o600)
        async with partners.listening():
            connections = {
                each: {
                    "type": "partner",
                    "settings": {
                        "url": f"http://127.0.0.1:{partners.port}/{each}",
                        "secret": {"file": "secret"},
                        "allow_networks": ["127.0.0.0/8"],
                    },
                }
                for each in NAMES
            }
            subscriptions = [{"name": each, "types": [EVENT_TYPE], "to": each} for each in NAMES]
            with (folder / "hub.log").open("wb") as lines:
                configure_log(lines)
                async with running_hub(
                    folder,
                    load_plugins(),
                    connections=connections,
                    subscriptions=subscriptions,
                    settings={"database_url": database_url},
                ) as hub:
                    return await _compare(hub, partners, seconds)


async def _compare(hub: HubApp, partners: Partners, seconds: float) -> dict[str, Any]:
    # Every event goes to all endpoints: so many deliveries each.
    began = perf_counter()
    few = WARM_UP // ENDPOINTS
    await hub.commit(UnitOfWork(drafts=drafts(range(few))))
    done = "SELECT coalesce(sum(count), 0) FROM tally WHERE state = 'delivered'"

    async def all_done() -> bool:
        return await hub.store.read(done) == [(few * ENDPOINTS,)]

    await eventually(all_done, 60)
    full = few / (perf_counter() - began)
    partners.seen.clear()
    per_s = 0.3 * full
    say(f"full speed {full * ENDPOINTS:,.0f} deliveries/s; fed at {per_s * ENDPOINTS:,.0f}/s")
    calm = await _feed(hub, partners, per_s, seconds, few)
    partners.hanging = "e07"
    beside = await _feed(hub, partners, per_s, seconds, few + int(per_s * seconds))
    p95 = percentile(calm, 0.95)
    return {
        "fed_per_s": round(per_s * ENDPOINTS),
        "p50_ms": round(percentile(calm, 0.5) * 1000, 1),
        "p95_ms": round(p95 * 1000, 1),
        "p99_ms": round(percentile(calm, 0.99) * 1000, 1),
        "isolation_p95_ms": round(percentile(beside, 0.95) * 1000, 1),
        "isolation_ratio": round(percentile(beside, 0.95) / p95, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    with database(args.store, "") as url:
        print_json(run(measure(args.seconds, url)))


if __name__ == "__main__":
    main()
