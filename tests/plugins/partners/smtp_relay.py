"""A mail relay in a process of its own: takes mail over SMTP and writes each one down, or refuses as it is told.

    python tests/plugins/partners/smtp_relay.py --log FILE [--password WORD] [--refuse ADDRESS] [--busy-first]

Source: RFC 5321 (commands and codes), RFC 4954 (AUTH PLAIN).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from pathlib import Path


class Relay:
    def __init__(self, log: Path, password: str, refuse: str, busy_first: bool) -> None:
        self._log = log
        self._password = password
        self._refuse = refuse
        self._busy = busy_first

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())

        known, sender, people = not self._password, "", []
        say("220 relay.example")
        while line := await reader.readline():
            verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            match verb.upper():
                case "EHLO":
                    say("250-relay.example")
                    say("250 AUTH PLAIN" if self._password else "250 8BITMIME")
                case "AUTH":
                    given = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")
                    known = given[-1] == self._password
                    say("235 welcome" if known else "535 wrong name or password")
                case "MAIL" if known:
                    sender, people = rest, []
                    say("250 ok")
                case "RCPT" if known:
                    refused = bool(self._refuse) and self._refuse in rest
                    people += [] if refused else [rest]
                    say("550 no such person" if refused else "250 ok")
                case "DATA" if people:
                    say("354 go on")
                    text = b""
                    while (piece := await reader.readline()) not in (b".\r\n", b""):
                        text += piece.removeprefix(b".")
                    if self._busy:
                        self._busy = False
                        say("451 try again later")
                    else:
                        with self._log.open("a") as log:
                            log.write(json.dumps({"from": sender, "to": people, "text": text.decode()}) + "\n")
                        say("250 kept")
                case "RSET" | "NOOP":
                    say("250 ok")
                case "QUIT":
                    say("221 bye")
                    break
                case _:
                    say("503 not now")
            await writer.drain()
        writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--password", default="")
    parser.add_argument("--refuse", default="")
    parser.add_argument("--busy-first", action="store_true")
    given = parser.parse_args()
    relay = Relay(given.log, given.password, given.refuse, given.busy_first)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
