"""A line between a hub and its partner that behaves badly, in the modes of Toxiproxy; in this process.

Source: the list of toxics in Toxiproxy's README.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

#: latency: each piece takes its time · down: nobody is there · bandwidth: bytes per second · slow_close: the end of the
#: answer comes late · timeout: taken and never answered · reset: cut off hard once the request is through · slicer:
#: one byte at a time · limit_data: closed after so many bytes of the answer · never: accepted, nothing is read.
Mode = Literal[
    "good", "latency", "down", "bandwidth", "slow_close", "timeout", "reset", "slicer", "limit_data", "never"
]


@dataclass
class FaultyLine:
    """Carries requests to the partner and answers back; ``mode`` holds for connections made from then on."""

    there: int
    port: int = 0
    mode: Mode = "good"
    #: Seconds for latency and slow_close; bytes for bandwidth (per second) and limit_data.
    amount: float = 0.0
    connections: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(OSError):
                await self._carry(self.mode, reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _carry(self, mode: Mode, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if mode == "down":
            return
        if mode == "never":
            await asyncio.Event().wait()
        there_reader, there = await asyncio.open_connection("127.0.0.1", self.there)
        ways = [
            asyncio.create_task(self._out(mode, reader, there)),
            asyncio.create_task(self._back(mode, there_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there.transport.abort()

    async def _out(self, mode: Mode, reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            await self._write(mode, there, chunk)

    async def _back(self, mode: Mode, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = int(self.amount)
        while chunk := await there.read(65536):
            if mode == "timeout":
                await asyncio.Event().wait()
            if mode == "reset":
                return  # whoever carries us aborts both ends
            if mode == "limit_data":
                writer.write(chunk[:left])
                await writer.drain()
                left -= len(chunk)
                if left <= 0:
                    writer.close()
                    await writer.wait_closed()
                    return
                continue
            await self._write(mode, writer, chunk)
        if mode == "slow_close":
            await asyncio.sleep(self.amount)

    async def _write(self, mode: Mode, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        if mode == "latency":
            await asyncio.sleep(self.amount)
        size = 1 if mode == "slicer" else max(int(self.amount / 20), 1) if mode == "bandwidth" else len(chunk)
        for start in range(0, len(chunk), size):
            writer.write(chunk[start : start + size])
            await writer.drain()
            await asyncio.sleep(0.05 if mode == "bandwidth" else 0)

    def cut(self) -> None:
        """Ends every connection there is; the next ones are made anew."""
        for task in list(self._tasks):
            task.cancel()


@asynccontextmanager
async def faulty_line(there: int) -> AsyncIterator[FaultyLine]:
    """A line to a port of this machine."""
    line = FaultyLine(there)
    server = await asyncio.start_server(line.accept, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        line.cut()
        await asyncio.gather(*line._tasks, return_exceptions=True)
        await server.wait_closed()
