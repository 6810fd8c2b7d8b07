"""``python -m plugins.telecom_sms.simulator``: an SMSC on 127.0.0.1 with a control port (GET and PUT /control)."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import sys
from pathlib import Path

from aiohttp import web

from .journal import Journal
from .smsc import Smsc

#: A long message whose other parts have not come for so long is written to the log as it is.
_INCOMPLETE_AFTER_S = 60.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="telecom_sms simulator", description=__doc__)
    parser.add_argument(
        "--port", type=int, action="append", help="SMPP port, 0 (the default) for a free one; may be given again"
    )
    parser.add_argument("--control-port", type=int, default=0, help="HTTP control port; 0 for a free one")
    parser.add_argument("--log", type=Path, required=True, help="JSON lines of what was taken and refused")
    parser.add_argument("--key", default="", metavar="HEX", help="key of the phone hashes; by default a random one")
    parser.add_argument("--system-id", default="demo")
    parser.add_argument("--password", default="demo")
    parser.add_argument("--accounts", type=Path, help="JSON file: system_id -> password, instead of the two above")
    parser.add_argument("--seed", type=int, default=1, help="of the lots drawn for throttled and lost messages")
    parser.add_argument("--tls-cert", type=Path, help="PEM certificate; with --tls-key the SMPP port speaks TLS")
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--set", default="{}", metavar="JSON", help="fields of /control to start with")
    return parser.parse_args()


def _control(smsc: Smsc) -> web.Application:
    async def show(_: web.Request) -> web.Response:
        return web.json_response(smsc.state())

    async def change(request: web.Request) -> web.Response:
        try:
            wanted = json.loads(await request.read())
            if not isinstance(wanted, dict):
                raise ValueError("a JSON object is wanted")
            smsc.change(wanted)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(smsc.state())

    app = web.Application()
    app.add_routes([web.get("/control", show), web.put("/control", change)])
    return app


async def _write_incomplete(journal: Journal) -> None:
    while True:
        await asyncio.sleep(_INCOMPLETE_AFTER_S / 4)
        journal.give_up_incomplete(_INCOMPLETE_AFTER_S)


async def main(arguments: argparse.Namespace) -> None:
    key = bytes.fromhex(arguments.key) or os.urandom(16)
    tls = None
    if arguments.tls_cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with arguments.log.open("a", encoding="utf-8") as file:
        journal = Journal(file, key)
        accounts = {arguments.system_id: arguments.password}
        if arguments.accounts:
            accounts = json.loads(arguments.accounts.read_text(encoding="utf-8"))
        smsc = Smsc(journal, key, accounts, arguments.seed)
        smsc.change(json.loads(arguments.set))
        ports = [await smsc.start(port, tls) for port in arguments.port or [0]]
        runner = web.AppRunner(_control(smsc))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", arguments.control_port)
        await site.start()
        control = runner.addresses[0][1]
        print(json.dumps({"ready": True, "port": ports[0], "ports": ports, "control": control}), flush=True)
        sweeping = asyncio.create_task(_write_incomplete(journal))
        await stop.wait()
        sweeping.cancel()
        await smsc.stop()
        await runner.cleanup()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(_arguments())))
