"""A wire between a store and its server that a test can hold, cut and slow down; what was said on it is kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

#: A statement that is prepared, and its name alone where it is run again.
_PREPARED = re.compile(rb"(__asyncpg_stmt_\w+__)\0([^\0]{4,})\0")
_NAME = re.compile(rb"__asyncpg_stmt_\w+__")


class Wire:
    """Passes on what clients and server say, one piece as it came at a time."""

    def __init__(self, dsn: str) -> None:
        self._server = urlsplit(dsn)
        self.dsn = dsn
        #: Everything that clients said.
        self.said = bytearray()
        #: Awaited with each piece a client says and the texts of the statements it names, before the server hears it.
        self.before_passing_on: Callable[[bytes], Awaitable[object]] | None = None
        #: When the server says this, the client does not hear it any more, nor anything else.
        self.cut_at_answer: bytes | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._flows.clear()

    def go_on(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Ends every connection."""
        for end in self._ends:
            end.close()

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(self._server.hostname, self._server.port)
        self._ends |= {to_client, to_server}
        pumps = [
            asyncio.create_task(self._pump(client, to_server, self._hearing())),
            asyncio.create_task(self._pump(server, to_client, self._to_client)),
        ]
        self._pumps |= set(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in (to_client, to_server):
            end.close()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        passes: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(1 << 16):
                await self._flows.wait()
                if not await passes(piece):
                    return
                target.write(piece)
                await target.drain()

    def _hearing(self) -> Callable[[bytes], Awaitable[bool]]:
        texts: dict[bytes, bytes] = {}

        async def to_server(piece: bytes) -> bool:
            self.said += piece
            texts.update(_PREPARED.findall(piece))
            if self.before_passing_on is not None:
                await self.before_passing_on(piece + b"".join(texts.get(name, b"") for name in _NAME.findall(piece)))
            return True

        return to_server

    async def _to_client(self, piece: bytes) -> bool:
        return self.cut_at_answer is None or self.cut_at_answer not in piece


@asynccontextmanager
async def wire_to(dsn: str) -> AsyncIterator[Wire]:
    """``wire.dsn`` leads to the server by way of the wire."""
    wire = Wire(dsn)
    server = await asyncio.start_server(wire._connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wire.dsn = dsn.replace(f":{urlsplit(dsn).port}/", f":{port}/")
    try:
        yield wire
    finally:
        server.close()
        wire.go_on()
        wire.cut()
        for pump in wire._pumps:
            pump.cancel()
        await asyncio.gather(*wire._pumps, return_exceptions=True)


class Stop:
    """Holds the first client that says a text, until it is released."""

    def __init__(self, wire: Wire, text: bytes) -> None:
        self._text = text
        self.reached = asyncio.Event()
        self.released = asyncio.Event()
        wire.before_passing_on = self._look

    async def _look(self, piece: bytes) -> None:
        if self._text in piece and not self.reached.is_set():
            self.reached.set()
            await self.released.wait()
