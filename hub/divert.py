"""Deliveries that were diverted and come back, and how the destinations stand between which that is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from hub.commit import delivery_id
from hub.contract import DestinationNow
from hub.store.base import Store

#: So many that wait are looked at in one go: what a destination was first owed itself stays there.
LOOKED_AT = 5000
_TRIED = " AND tries BETWEEN 1 AND ?3"
#: What was in flight at a crash is found by an index of its own.
_WAITING = (
    "SELECT id, event_id, recipient, generation FROM (SELECT id, event_id, recipient, generation, priority, due_at"
    " FROM queue WHERE destination = ?1 AND state = 'pending' AND crashes = 0{0} UNION ALL"
    " SELECT id, event_id, recipient, generation, priority, due_at FROM queue"
    " WHERE destination = ?1 AND state = 'pending' AND crashes > 0{0}) s ORDER BY priority, due_at LIMIT ?2"
)
_STANDING = (
    "SELECT d.id, d.next_due_at, d.breaker_until, coalesce(d.paused_by, c.paused_by) FROM destination d"
    " JOIN connection c ON c.name = d.connection WHERE d.id IN ({0})"
)
_COUNTS = "SELECT destination, state, count FROM tally WHERE state NOT LIKE 'pruned:%' AND destination IN ({0})"


async def divert(
    store: Store, source: str, target: str, now: int, *, limit: int, tried: int, lost_may_have_left: bool
) -> int:
    """See ``hub.contract.Hub.divert``. Which destination it was first owed to, its id proves."""
    values = (source, LOOKED_AT, tried) if tried else (source, LOOKED_AT)
    waiting = await store.read(_WAITING.format(_TRIED if tried else ""), values)
    ids = [id for id, event, recipient, n in waiting if delivery_id(event, target, recipient, n) == id]
    return await store.divert(ids[:limit], source, target, now, lost_may_have_left=lost_may_have_left)


async def standings(store: Store, destinations: Sequence[str], now: int) -> Mapping[str, DestinationNow]:
    """See ``hub.contract.Hub.standings``."""
    if not destinations:
        return {}
    marks = ", ".join("?" * len(destinations))
    counts: dict[str, dict[str, int]] = {}
    for destination, state, count in await store.read(_COUNTS.format(marks), tuple(destinations)):
        counts.setdefault(destination, {})[state] = count
    found = {}
    for id, next_due_at, breaker_until, paused_by in await store.read(_STANDING.format(marks), tuple(destinations)):
        blocked: Literal["", "paused", "breaker_open"] = "breaker_open" if breaker_until > now else ""
        of_it = counts.get(id, {})
        found[id] = DestinationNow(
            open=of_it.pop("open", 0),
            counts=of_it,
            overdue_s=max(0.0, (now - next_due_at) / 1_000_000),
            blocked="paused" if paused_by is not None else blocked,
        )
    return found
