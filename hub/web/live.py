"""Server-sent events: tells open pages that something changed, at most four times a second."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from aiohttp import ClientConnectionResetError, web

from hub.app import HubApp
from hub.web.problems import problem

#: Least time between two signals to one page.
SPACING_S = 0.25
#: A comment this often keeps proxies from closing the stream and finds readers that are gone.
PING_S = 15.0
#: Claims, and repairs and pauses by commands and plugins, tell nobody: they are looked for this often.
LOOK_S = 1.0
READERS = 64

_STANDING = (
    "SELECT (SELECT coalesce(max(id), 0) FROM repair), (SELECT count(*) FROM repair WHERE cleared_at IS NULL),"
    " (SELECT count(*) FROM destination WHERE paused_by IS NOT NULL),"
    " (SELECT max(last_served_at) FROM destination),"
    " (SELECT count(*) FROM connection WHERE paused_by IS NOT NULL), (SELECT hold FROM ledger)"
)


class Live:
    """``poke`` is called after every commit and costs next to nothing while nobody looks."""

    def __init__(self, hub: HubApp) -> None:
        self._hub = hub
        self._version = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._readers = 0
        self._closing = False
        self._looker: asyncio.Task[None] | None = None
        self._before: asyncio.Task[list[tuple[Any, ...]]] | None = None

    def poke(self) -> None:
        self._version += 1
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def close(self, app: web.Application) -> None:
        """Ends every stream, so that a stop does not wait for pages that are open."""
        self._closing = True
        self.poke()
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        if self._readers >= READERS:
            return problem("busy", 503, headers={"Retry-After": "10"})
        self._readers += 1
        try:
            await self._begin_to_look()
            return await self._stream(request)
        finally:
            self._readers -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
        )
        seen = self._version
        with suppress(ClientConnectionResetError, ConnectionError):
            await response.prepare(request)
            await response.write(b"retry: 2000\n\n")
            while not self._closing:
                changed = await self._wait(seen)
                if self._closing:
                    break
                seen = self._version
                await response.write(b"event: changed\ndata: %d\n\n" % seen if changed else b": still here\n\n")
                await asyncio.sleep(SPACING_S if changed else 0)
        return response

    async def _wait(self, seen: int) -> bool:
        """True as soon as the version is another; False after ``PING_S``."""
        if self._version != seen or self._closing:
            return True
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            async with asyncio.timeout(PING_S):
                await waiting
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiting)
        return True

    async def _begin_to_look(self) -> None:
        """A stream opens only after the first look: a change between the two would be seen by nobody."""
        if self._looker is None or self._looker.done():
            self._before = asyncio.create_task(self._hub.store.read(_STANDING))
            self._looker = asyncio.create_task(self._look(self._before))
        assert self._before is not None
        await asyncio.shield(self._before)

    async def _look(self, first: asyncio.Task[list[tuple[Any, ...]]]) -> None:
        """Pokes when claims, repairs, pauses or the hold changed, for as long as somebody reads."""
        before = await first
        while self._readers:
            await asyncio.sleep(LOOK_S)
            now = await self._hub.store.read(_STANDING)
            if now != before:
                before = now
                self.poke()
