"""Two yardsticks: what a bare client does with the same requests, and what the sink can take.

    python -m benchmarks.baseline client|sockets --url URL [--events 20000]

``client`` is one aiohttp session, keep-alive, concurrency 100, nothing durable, no second try after a 503.
``sockets`` writes ready-made requests to 100 keep-alive sockets without an HTTP library: when it is not well
ahead of the client, the sink is what was measured, not the client.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import aiohttp

from benchmarks.process import print_json, run
from benchmarks.workload import SESSION_HEADERS, raw_requests, signed_requests

CONCURRENCY = 100


async def client(url: str, count: int) -> float:
    """Answered requests per second."""
    requests = iter(signed_requests(count))
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, headers=SESSION_HEADERS) as session:

        async def post_in_turn() -> None:
            for headers, body in requests:
                async with session.post(url, headers=headers, data=body) as response:
                    await response.read()

        started = perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONCURRENCY):
                tasks.create_task(post_in_turn())
        return count / (perf_counter() - started)


class _Connection(asyncio.Protocol):
    """Writes the next request when the answer to the last one is whole."""

    def __init__(self, requests: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._done = done
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def next(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self.transport.write(request)
        elif not self._done.done():
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if _is_whole(self._buffer):
            self._buffer = b""
            self.next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the sink closed a connection"))


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[:end].lower()
    if b"\r\ntransfer-encoding:" in head:
        return answer.endswith(b"\r\n0\r\n\r\n")
    _, _, after = head.partition(b"\r\ncontent-length:")
    return len(answer) >= end + 4 + int(after.partition(b"\r")[0] or 0)


async def sockets(url: str, count: int) -> float:
    """Answered requests per second."""
    requests = iter(raw_requests(url, count))
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    connections, ends = [], []
    for _ in range(CONCURRENCY):
        end = loop.create_future()
        _, connection = await loop.create_connection(
            lambda end=end: _Connection(requests, end),  # type: ignore[misc]  # no type for a bound default
            parts.hostname or "127.0.0.1",
            parts.port or 80,
        )
        connections.append(connection)
        ends.append(end)
    started = perf_counter()
    for connection in connections:
        connection.next()
    await asyncio.gather(*ends)
    seconds = perf_counter() - started
    for connection in connections:
        connection.transport.close()
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baseline", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["client", "sockets"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--events", type=int, default=20_000)
    args = parser.parse_args()
    print_json({"per_s": run({"client": client, "sockets": sockets}[args.what](args.url, args.events))})


if __name__ == "__main__":
    main()
