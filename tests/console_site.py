"""A console on a free port, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.model import Draft
from hub.web import server


@asynccontextmanager
async def served(hub: HubApp, token: str = "") -> AsyncIterator[str]:
    """The address of the hub's web server, without a slash at the end."""
    runner = server.runner(server.build(hub, token))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def put(hub: HubApp, key: str, *, type: str = "vn.congdoan.thing.made.v1", subject: str | None = None) -> str:
    """Commits one event and answers its id."""
    draft = Draft(type=type, source="/tests", dedupe_key=key, data={"id": key}, subject=subject)
    return str((await hub.commit(UnitOfWork(drafts=[draft]))).events[0])
