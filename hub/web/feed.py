"""The pull feed: events by feed position, waiting for the next one where the reader wants to.

A position is given after commit, so whoever asks for what is behind the last ``next`` misses nothing and sees nothing
twice, whichever node answers.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import Field

from hub import views
from hub.app import HubApp
from hub.contract import FeedView, Principal
from hub.errors import Busy
from hub.model import Event, Json, from_us
from hub.web.parameters import Parameters

#: While somebody waits, new positions are looked for this often, once for all of them.
LOOK_S = 0.2
#: Events looked through for one answer; with few grants most of them are not for the reader.
SCAN, CHUNK = 2000, 200
WAITING = 500

_HEAD = "SELECT max(position) FROM event"
_WITH_CONTENT = (
    "SELECT e.position, e.id, e.type, e.source, e.subject, e.occurred_at, e.scope_id, e.correlation_id, c.sealed_for,"
    " c.quarantined, c.body FROM event e LEFT JOIN content c ON c.event_id = e.id WHERE e.position > ?"
    " ORDER BY e.position LIMIT ?"
)


class FeedParameters(Parameters):
    after: int = Field(0, ge=0, le=views.LAST, description="Feed position: only events behind it, in order.")
    limit: int = Field(50, ge=1, le=1000, description="How many at most.")
    wait: int = Field(0, ge=0, le=30, description="Seconds to wait for an event where there is none yet.")


class Feed:
    """One per server."""

    def __init__(self, hub: HubApp) -> None:
        self._hub = hub
        self._waiting: set[asyncio.Future[None]] = set()
        self._looker: asyncio.Task[None] | None = None
        #: The highest position that whoever waits was woken for.
        self._seen = 0
        self._closing = False

    async def read(self, hub: HubApp, p: FeedParameters) -> Json:
        """What the principal may see, and the position to ask from next."""
        loop = asyncio.get_running_loop()
        until, after = loop.time() + p.wait, p.after
        while True:
            events, reached, is_end = await self._page(hub.principal, after, p.limit)
            left_s = until - loop.time()
            if events or not is_end or self._closing or left_s <= 0:
                return {"events": events, "next": reached}
            after = reached
            await self._news(after, left_s)

    async def _page(self, who: Principal, after: int, limit: int) -> tuple[list[Json], int, bool]:
        """Events, how far was read, and whether that is all there is."""
        # Read first: whatever has a position up to here is seen by the next query.
        head = max(after, await self._head())
        view = self._hub.feed_view
        if not who.owner:
            events = await views.events(self._hub.store, limit, after=after, who=who)
            reached = events[-1]["position"] if len(events) == limit else max(head, *(e["position"] for e in events), 0)
            return events, reached, len(events) < limit
        if view is None:
            return [], head, True
        return await self._viewed(view, who, after, limit)

    async def _viewed(self, view: FeedView, who: Principal, after: int, limit: int) -> tuple[list[Json], int, bool]:
        found: list[Json] = []
        for _ in range(SCAN // CHUNK):
            rows = await self._hub.store.read(_WITH_CONTENT, (after, CHUNK))
            opened = await self._opened(rows)
            for row, event in zip(rows, opened, strict=True):
                # A view that raises ends the answer with 500: to go on would be to skip an event.
                shown = None if event is None else await view(who, event)
                after = row[0]
                if shown is not None:
                    found.append({"position": after, **shown})
                    if len(found) == limit:
                        return found, after, False
            if len(rows) < CHUNK:
                return found, after, True
        return found, after, False

    async def _opened(self, rows: list[tuple[Any, ...]]) -> list[Event | None]:
        """None for what has no content any more, or none that could be read."""
        sealed = [(row[8] or "", row[10] if row[8] else None) for row in rows]
        bodies = await self._hub.unseal(sealed)
        events: list[Event | None] = []
        for row, opened in zip(rows, bodies, strict=True):
            _, id, type_, source, subject, occurred, scope, correlation, sealed_for, quarantined, body = row
            content = opened if sealed_for else body
            if content is None or quarantined:
                events.append(None)
                continue
            events.append(
                Event(
                    id=UUID(bytes=id), type=type_, source=source, subject=subject, occurred_at=from_us(occurred),
                    data=orjson.loads(content), scope=scope, correlation_id=UUID(bytes=correlation),
                )
            )  # fmt: skip
        return events

    async def _head(self) -> int:
        ((position,),) = await self._hub.store.read(_HEAD)
        return position or 0

    # -- waiting -----------------------------------------------------------------------------------

    async def _news(self, after: int, wait_s: float) -> None:
        """Until there may be an event behind ``after``, or the time is over."""
        if len(self._waiting) >= WAITING:
            raise Busy
        if self._looker is None or self._looker.done():
            self._seen = after
            self._looker = asyncio.create_task(self._look(), name="feed")
        if self._seen > after:
            return  # the others were woken for it just before
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            async with asyncio.timeout(wait_s):
                await waiting
        except TimeoutError:
            return
        finally:
            self._waiting.discard(waiting)

    async def _look(self) -> None:
        """Wakes everybody when there are new positions, for as long as somebody waits."""
        while self._waiting:
            with suppress(Busy):
                if (head := await self._head()) > self._seen:
                    self._seen = head
                    self._wake()
            await asyncio.sleep(LOOK_S)

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def close(self, app: web.Application) -> None:
        """Answers everybody who waits, so that a stop does not."""
        self._closing = True
        self._wake()
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)
