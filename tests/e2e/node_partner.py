"""What the nodes of the story reach: writes down, with its own clock's microseconds, everything that comes in.

``python -m tests.e2e.node_partner LOG``: prints its TCP and its UDP port. Over TCP a line is a message and gets one
back; ``session NODE`` is told of when it comes and when its connection ends. Datagrams carry the kernel's time of
their arrival, so that this process being late counts nobody's messages together. It knows nothing of the hub.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
import time
from pathlib import Path

#: Linux: a ``timespec`` with every datagram (SO_TIMESTAMPNS).
TIMESTAMPS = 35


async def main(log: Path) -> None:
    dice = random.Random(7)
    with log.open("ab", buffering=0) as out:

        def note(words: bytes, at: int | None = None) -> None:
            out.write(b"%d %s\n" % (time.time_ns() // 1000 if at is None else at, words))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            session = b""
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    break  # the sender died in the middle of a line
                words = line.rstrip()
                verdict = b"503" if words.startswith(b"unsafe ") and dice.random() < 0.1 else b"200"
                note(words + b" " + verdict)
                if words.startswith(b"session "):
                    session = words
                await asyncio.sleep(0.005 + dice.random() * 0.03)
                writer.write(verdict + b"\n")
            if session:
                note(session + b" ended")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.SOL_SOCKET, TIMESTAMPS, 1)
        datagrams.setblocking(False)
        datagrams.bind(("127.0.0.1", 0))

        def receive() -> None:
            while True:
                try:
                    words, more, _, sender = datagrams.recvmsg(1000, 200)
                except BlockingIOError:
                    return
                [seconds, nanoseconds] = struct.unpack("qq", more[0][2])
                note(words, seconds * 1_000_000 + nanoseconds // 1000)
                datagrams.sendto(b"200", sender)

        asyncio.get_running_loop().add_reader(datagrams.fileno(), receive)
        print(server.sockets[0].getsockname()[1], datagrams.getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
