"""Starts the simulated axis on two loopback ports and says so in one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web

from .axis import Axis
from .packets import HABITS

Json = dict[str, Any]


async def start(options: argparse.Namespace, log: TextIO) -> tuple[Axis, list[web.AppRunner], Json]:
    """Listens on both ports; answers the axis, what to clean up, and the line that says ready."""
    axis = Axis(options, log)
    service = web.Application(client_max_size=64 << 20)
    service.router.add_post("/{call:.*}", axis.serve)
    control = web.Application()
    control.router.add_get("/control", axis.show)
    control.router.add_put("/control", axis.change)
    runners, ports = [], []
    for application, port in ((service, options.port), (control, options.control_port)):
        # An answer held back must not keep a stopping simulator alive.
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5, auto_decompress=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        runners.append(runner)
        ports.append(runner.addresses[0][1])
    ready = {
        "ready": True,
        "port": ports[0],
        "control": ports[1],
        "documents": axis.documents,
        "packets": len(axis.packets),
        "habits": list(HABITS),
    }
    return axis, runners, ready


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m plugins.doc_mgmt.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=20, help="readable packets waiting at the start")
    parser.add_argument("--only-readable", action="store_true", help="leave out the broken and the repeated packet")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--system-id", default="SYS-DEMO")
    parser.add_argument("--secret", default="demo-axis-secret-not-for-use")
    parser.add_argument("--secret-file", type=Path, help="read the key from here: an argument shows in ps")
    parser.add_argument("--tolerance-s", type=float, default=900.0, help="how far a call's timestamp may be off")
    parser.add_argument("--fail-share", type=float, default=0.0, help="share of statuses whose first try gets 503")
    parser.add_argument("--key", default="", help="taken for uniformity: no personal value is logged here")
    options = parser.parse_args(argv)
    if options.secret_file is not None:
        options.secret = options.secret_file.read_text().strip()
    return options


async def main(argv: list[str]) -> None:
    options = arguments(argv)
    with options.log.open("a", encoding="utf-8") as log:
        _, runners, ready = await start(options, log)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        print(json.dumps(ready), flush=True)
        await stopped.wait()
        for runner in runners:
            await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
