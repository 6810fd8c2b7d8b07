"""Lets go of what the plugin's own tables have kept long enough: in small steps, by one connection at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from hub.contract import ConnectionContext, Guard, Hub, UnitOfWork
from hub.errors import Conflict, HubError
from hub.model import to_us

from . import tables
from .settings import SendingSettings

EVERY: Final = timedelta(hours=6)
#: Rows in one transaction, and the rest after each, for whoever waits for the ledger meanwhile.
ROWS: Final = 500
_REST_S: Final = 0.05
_LOOK_S: Final = 600.0
_DAY: Final = timedelta(days=1)


def kept_up(ctx: ConnectionContext, run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """``run``, with the plugin's tables kept small beside it."""

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(_always(ctx))
            await run()
            keeping.cancel()

    return both


async def _always(ctx: ConnectionContext) -> None:
    while True:
        # Not at once: a machine that started with a wrong clock has had time to correct it.
        await asyncio.sleep(_LOOK_S)
        with suppress(HubError):  # busy: in ten minutes it is not
            if await is_due(ctx.hub):
                rows = await prune(ctx.hub)
                ctx.log("sms.pruned", rows=rows)


async def is_due(hub: Hub) -> bool:
    """Whether this call is the one that does it now."""
    now = hub.now()
    turn = tables.TAKE_UPKEEP(now=to_us(now), before=to_us(now - EVERY) + 1)
    try:
        await hub.commit(UnitOfWork(guards=[Guard(turn)]))
    except Conflict:
        return False
    return True


async def prune(hub: Hub) -> dict[str, int]:
    """Deletes what is older than the longest any connection wants; answers how many steps touched each table."""
    keep = _days(hub)
    now, steps = hub.now(), {}
    for name, drop in tables.KEPT.items():
        before = to_us(now - keep[name] * _DAY)
        count = 0
        while await _took(hub, Guard(drop(before=before, limit=ROWS), ROWS)):
            count += 1
            await asyncio.sleep(_REST_S)
        await hub.commit(UnitOfWork(statements=[drop(before=before, limit=ROWS)]))
        steps[name] = count
    return steps


async def _took(hub: Hub, whole: Guard) -> bool:
    """A step that found as many rows as it may take; one that found fewer is undone, and is the last."""
    try:
        await hub.commit(UnitOfWork(guards=[whole]))
    except Conflict:
        return False
    return True


def _days(hub: Hub) -> dict[str, int]:
    settings = list(hub.settings_of(SendingSettings).values())
    sent = max((each.keep_sent_days for each in settings), default=400)
    inbox = max((each.keep_inbox_days for each in settings), default=400)
    return {
        "sent": sent, "inbox": inbox, "heard": 2, "prefix": 2, "phone": sent, "counter": 30, "override": sent,
        "batch": sent,
    }  # fmt: skip
