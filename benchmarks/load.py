"""Ready-made requests over keep-alive sockets, without an HTTP library: as much load as Python can make."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit


@dataclass(slots=True)
class Load:
    """What the other end answered; ``waited_s`` per request, from its first byte sent to the last one answered."""

    seconds: float = 0.0
    waited_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def per_s(self) -> float:
        return len(self.waited_s) / self.seconds


class _Connection(asyncio.Protocol):
    """Writes the next request when the answer to the last one is whole."""

    def __init__(self, requests: Iterator[bytes], seen: Load, done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._seen = seen
        self._done = done
        self._buffer = b""
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def next(self) -> None:
        request = next(self._requests, None)
        if request is not None:
            self._since = perf_counter()
            self.transport.write(request)
        elif not self._done.done():
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if _is_whole(self._buffer):
            self._seen.waited_s.append(perf_counter() - self._since)
            self._seen.statuses[int(self._buffer[9:12])] += 1
            self._buffer = b""
            self.next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the other end closed a connection"))


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[:end].lower()
    if b"\r\ntransfer-encoding:" in head:
        return answer.endswith(b"\r\n0\r\n\r\n")
    _, _, after = head.partition(b"\r\ncontent-length:")
    return len(answer) >= end + 4 + int(after.partition(b"\r")[0] or 0)


async def load(url: str, requests: Sequence[bytes], connections: int) -> Load:
    """Every request once, each connection the next one when it has the answer to its last."""
    left, loop, parts, seen = iter(requests), asyncio.get_running_loop(), urlsplit(url), Load()
    opened, ends = [], []
    for _ in range(connections):
        end: asyncio.Future[None] = loop.create_future()
        _, connection = await loop.create_connection(
            lambda end=end: _Connection(left, seen, end),  # type: ignore[misc]  # no type for a bound default
            parts.hostname or "127.0.0.1",
            parts.port or 80,
        )
        opened.append(connection)
        ends.append(end)
    started = perf_counter()
    for connection in opened:
        connection.next()
    await asyncio.gather(*ends)
    seen.seconds = perf_counter() - started
    for connection in opened:
        connection.transport.close()
    return seen


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
