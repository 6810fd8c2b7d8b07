"""An event of the ledger, owed to one destination once more: its next generation, or the first where there was none."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text

from hub.commit import Committer, delivery_id, event_range, queue_row
from hub.contract import Guard, UnitOfWork
from hub.errors import Conflict
from hub.model import Priority
from hub.routing import Router
from hub.sql import query
from hub.store.base import Store

_HERE = "id >= ?1 AND id <= ?2 AND event_id = ?3 AND destination = ?4"
_KNOWN = (
    f"SELECT id, generation, created_at, 1 FROM queue WHERE {_HERE} UNION ALL"
    f" SELECT id, generation, created_at, 0 FROM delivery WHERE {_HERE} ORDER BY 2 DESC"
)
#: Locks the event while its content is there and the delivery is not: of two who ask at once, one makes it.
_NOT_YET = query(
    text(
        "UPDATE event SET key_hash = key_hash WHERE id = :event AND EXISTS (SELECT 1 FROM content c WHERE c.event_id ="
        " :event AND c.quarantined = 0) AND NOT EXISTS (SELECT 1 FROM queue q WHERE q.id = :id)"
        " AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.id = :id)"
    )
)


async def resend(
    store: Store, committer: Committer, router: Router, event: UUID, destination: str, before: int, now: int
) -> UUID | None:
    """See ``hub.contract.Hub.resend``. ``before``, ``now``: µs."""
    known = await store.read(_KNOWN, (*event_range(event.bytes), event.bytes, destination))
    if known:
        last, generation, created_at, is_open = known[0]
        if is_open or created_at >= before:
            return None
        following = await store.replay(last, delivery_id(event.bytes, destination, "", generation + 1), now)
        return None if following is None else UUID(bytes=following)
    rows = await store.read("SELECT type, scope_id, key_hash FROM event WHERE id = ?", (event.bytes,))
    if not rows:
        return None
    kind, scope, shard = rows[0]
    route = next((each for each in router.routes(kind) if each.subscription.to == destination), None)
    if route is None:
        return None
    owed = queue_row(
        route.subscription, route.projection.id, event.bytes, destination, "", now, shard,
        priority=int(Priority.BULK), scope=scope,
    )  # fmt: skip
    try:
        guard = Guard(_NOT_YET(event=event.bytes, id=owed.id), otherwise="owed")
        await committer.commit(UnitOfWork(guards=[guard]), deliveries=[owed])
    except Conflict as conflict:
        if conflict.otherwise != "owed":
            raise
        return None
    return UUID(bytes=owed.id)
