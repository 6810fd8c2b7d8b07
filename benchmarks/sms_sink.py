"""A bare SMSC for benchmarks: takes every bind and every submit_sm, each answered at once under an id of its own.

    python -m benchmarks.sms_sink [--port N]

Prints ``{"ready": true, "port": N}``; ends on SIGTERM. It shares no code with the client it is a yardstick for.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import struct
from itertools import count

from benchmarks.process import print_json, run

_HEADER = struct.Struct(">4I")
_SUBMIT, _UNBIND = 0x04, 0x06
_ANSWER_BIT = 0x80000000
#: Message ids of a submit_sm_resp: counted over all connections, ten digits each.
_IDS = count(1_000_000_000)


class Peer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, end, out = 0, len(buffer), []
        while end - at >= 16:
            length, command, _, sequence = _HEADER.unpack_from(buffer, at)
            if end - at < length:
                break
            at += length
            if command == _SUBMIT:
                out.append(_HEADER.pack(27, command | _ANSWER_BIT, 0, sequence) + b"%d\0" % next(_IDS))
            elif not command & _ANSWER_BIT:
                body = b"" if command == _UNBIND or command == 0x15 else b"sink\0"
                out.append(_HEADER.pack(16 + len(body), command | _ANSWER_BIT, 0, sequence) + body)
        self._buffer = buffer[at:]
        if out:
            self._transport.write(b"".join(out))  # type: ignore[attr-defined]


async def main(port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(Peer, "127.0.0.1", port)
    print_json({"ready": True, "port": server.sockets[0].getsockname()[1]})
    await stop.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    run(main(parser.parse_args().port))
