"""A hub as a process: opens, listens, works until a signal, stops within its time."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import Callable

from aiohttp import web

from hub import control
from hub.app import HubApp
from hub.errors import ConfigError
from hub.log import log
from hub.notify import READY, STOPPING, keep_watchdog, notify
from hub.plugins import Registry
from hub.settings import Configuration
from hub.web import server

#: How long a node that may not go on still says so.
LINGER_S = 5.0


async def serve_forever(
    config: Configuration,
    registry: Registry,
    *,
    with_token: bool = False,
    on_ready: Callable[[HubApp, str], None] | None = None,
) -> None:
    """Runs until SIGTERM or SIGINT. ``on_ready`` gets the hub and its URL.

    Raises: ConfigError when another node has upgraded the tables under this one.
    """
    hub = HubApp(config, registry)
    await hub.open()
    runners: list[web.AppRunner] = []
    watchdog: asyncio.Task[None] | None = None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(_reload(hub), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    try:
        http = config.hub.http
        token = _token(hub, needed=with_token or not server.is_loopback(http.host))
        runner = server.runner(server.build(hub, token))
        await runner.setup()
        runners.append(runner)
        url = await _listen(runner, http.host, http.port)
        runners.append(await control.serve(hub))
        await hub.start()
        loop.add_signal_handler(signal.SIGHUP, reload)
        watchdog = asyncio.create_task(keep_watchdog(), name="watchdog")
        notify(READY)
        log("hub.listening", url=url)
        _say(url, token)
        if on_ready is not None:
            on_ready(hub, url)
        outdated = asyncio.create_task(hub.is_outdated.wait(), name="outdated")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait((stopped, outdated), return_when=asyncio.FIRST_COMPLETED)
        outdated.cancel()
        if hub.outdated is not None:
            # Whoever asks /readyz sends elsewhere meanwhile.
            await asyncio.wait((stopped,), timeout=LINGER_S)
            raise hub.outdated
    finally:
        notify(STOPPING)
        # Together, since each may wait a moment for what is still arriving.
        await asyncio.gather(*(each.cleanup() for each in runners), return_exceptions=True)
        await hub.stop()
        if watchdog is not None:
            watchdog.cancel()


async def _reload(hub: HubApp) -> None:
    """SIGHUP, as ``unionhub reload``: what is wrong is said in the log, since nobody waits for an answer."""
    try:
        await hub.reload()
    except Exception as error:  # a named edge: whatever the files hold, the hub goes on
        log("hub.not_reloaded", error=error)


def _token(hub: HubApp, *, needed: bool) -> str:
    ref = hub.config.hub.http.console_token
    if ref is not None:
        return hub.secret(ref)
    return secrets.token_urlsafe(24) if needed else ""


async def _listen(runner: web.AppRunner, host: str, port: int) -> str:
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"không mở được cổng {host}:{port} ({error.strerror}); đặt http.port khác hoặc dừng chương trình đang dùng"
            f" / cannot listen on {host}:{port} ({error.strerror}); set another http.port or stop what uses it"
        ) from None
    bound = runner.addresses[0]
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{bound[1]}/"  # noqa: S104 - shown, not bound


def _say(url: str, token: str) -> None:
    """The one thing on stdout: where to look. A token is shown here and never logged."""
    shown = f"{url}?token={token}" if token else url
    print(f"Trang vận hành / console: {shown}", file=sys.stdout, flush=True)
