"""A server that reads the body and answers, as the shortest one on aiohttp does: the yardstick of what takes requests.

    python -m benchmarks.hello

Prints ``{"port": N}`` when it listens, stops on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal

from aiohttp import web

from benchmarks.process import print_json, run

PATH = "/in/app"


async def until_told() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def listen(runner: web.AppRunner) -> int:
    """The free port it listens on."""
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


async def serve() -> None:
    async def hello(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=202, body=b'{"status":"accepted"}', content_type="application/json")

    app = web.Application()
    app.router.add_post(PATH, hello)
    runner = web.AppRunner(app, access_log=None)
    print_json({"port": await listen(runner)})
    await until_told()
    await runner.cleanup()


if __name__ == "__main__":
    run(serve())
