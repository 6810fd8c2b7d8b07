"""The partner of the kill test: a loopback server that writes down every message before it answers.

``python -m tests.e2e.kill_sink LOG``: prints its port; one request a line (``id body-hash``), one answer
a line. A line of the log ends with the verdict it will be answered with. It knows nothing of the hub.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path


async def main(log: Path) -> None:
    dice = random.Random(7)
    with log.open("ab", buffering=0) as out:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    break  # the sender died in the middle of a line
                verdict = b"503\n" if dice.random() < 0.1 else b"200\n"
                out.write(line.rstrip() + b" " + verdict)
                await asyncio.sleep(dice.random() * 0.01)
                writer.write(verdict)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
