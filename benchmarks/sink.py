"""The other end of the wire: answers POSTs as cheaply as Python can, and logs what it took.

    python -m benchmarks.sink --log FILE [--port 0] [--fail-percent 5]

Checks nothing but framing. The first attempt of 5 % of the ids, chosen by a hash of the id, is answered 503.
Prints ``{"ready": true, "port": N}`` when it listens, stops on SIGTERM. A line of the log is
``id status nanoseconds`` on the system's monotonic clock, which every process of the machine shares.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path
from time import monotonic_ns
from typing import BinaryIO, cast
from zlib import crc32

from benchmarks.process import print_json, run

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
BAD_FRAMING = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
FLUSH_EVERY_S = 0.1


class Log:
    """Lines in memory, written a few times a second: a write per request would cost more than the answer."""

    def __init__(self, file: BinaryIO, fail_percent: int) -> None:
        self.lines: list[bytes] = []
        self.fail_percent = fail_percent
        #: Ids that were answered 503 once.
        self.refused: set[bytes] = set()
        self._file = file

    def flush(self) -> None:
        self._file.write(b"".join(self.lines))
        self._file.flush()
        self.lines.clear()

    def flush_for_ever(self, loop: asyncio.AbstractEventLoop) -> None:
        self.flush()
        loop.call_later(FLUSH_EVERY_S, self.flush_for_ever, loop)


class SinkProtocol(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._rest + data if self._rest else data
        while True:
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0:
                break
            head = buffer[: head_end + 2].lower()
            message_id, length = _field(head, b"\r\nwebhook-id:"), _field(head, b"\r\ncontent-length:")
            if not message_id or not length.isdigit():
                self._transport.write(BAD_FRAMING)
                self._transport.close()
                return
            end = head_end + 4 + int(length)
            if len(buffer) < end:
                break
            self._answer(message_id)
            buffer = buffer[end:]
            if not buffer:
                break
        self._rest = buffer

    def _answer(self, message_id: bytes) -> None:
        log = self._log
        if crc32(message_id) % 100 < log.fail_percent and message_id not in log.refused:
            log.refused.add(message_id)
            log.lines.append(b"%b 503 %d\n" % (message_id, monotonic_ns()))
            self._transport.write(UNAVAILABLE)
        else:
            log.lines.append(b"%b 200 %d\n" % (message_id, monotonic_ns()))
            self._transport.write(OK)


def _field(head: bytes, name: bytes) -> bytes:
    """The value of a header in a lower-case head; empty when it is missing."""
    start = head.find(name)
    if start < 0:
        return b""
    start += len(name)
    return head[start : head.index(b"\r", start)].strip()


async def serve(path: Path, port: int, fail_percent: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    with path.open("wb") as file:
        log = Log(file, fail_percent)
        server = await loop.create_server(lambda: SinkProtocol(log), "127.0.0.1", port, backlog=1024)
        log.flush_for_ever(loop)
        print_json({"ready": True, "port": server.sockets[0].getsockname()[1]})
        await stopped.wait()
        server.close()
        log.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink", description=__doc__.splitlines()[0])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fail-percent", type=int, default=5)
    args = parser.parse_args()
    run(serve(args.log, args.port, args.fail_percent))


if __name__ == "__main__":
    main()
