"""What stands between a hub and its PostgreSQL server: a line that may stand still, break, or lose an answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

#: The driver's simple query, as it goes over the wire.
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


@dataclass
class Line:
    """Carries bytes to the server and back; ``url`` leads a hub through it."""

    url: str
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _refusing: bool = False
    #: Answers to COMMITs still to be lost, and those that were.
    to_lose: int = 0
    lost: int = 0

    def stand_still(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        self._open.clear()

    def go_on(self) -> None:
        self._refusing = False
        self._open.set()

    def cut(self) -> None:
        """Every connection is reset, and whoever tries again is refused."""
        self._refusing = True
        self.reset()

    def reset(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def carry(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        there_reader, there = await asyncio.open_connection("127.0.0.1", port)
        self._writers |= {writer, there}
        committing = asyncio.Event()

        async def out() -> None:
            while chunk := await reader.read(65536):
                await self._open.wait()
                if self.to_lose and COMMIT in chunk:
                    self.to_lose -= 1
                    committing.set()
                there.write(chunk)
                await there.drain()

        async def back() -> None:
            while chunk := await there_reader.read(65536):
                await self._open.wait()
                if committing.is_set():  # the server has done it; the hub will not hear of it
                    self.lost += 1
                    return
                writer.write(chunk)
                await writer.drain()

        ways = [asyncio.create_task(out()), asyncio.create_task(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in (writer, there):
                self._writers.discard(each)
                each.transport.abort()


@asynccontextmanager
async def line_to(dsn: str) -> AsyncIterator[Line]:
    """A line to the server of this DSN, open."""
    port = int(re.search(r":(\d+)/", dsn)[1])  # type: ignore[index]
    line = Line("")
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError):
            await line.carry(port, reader, writer)
        tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    line.url = dsn.replace(f":{port}/", f":{server.sockets[0].getsockname()[1]}/")
    line.go_on()
    try:
        yield line
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
