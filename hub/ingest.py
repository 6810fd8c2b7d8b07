"""One inbound message, from raw bytes to COMMIT: verify, parse, understand, commit; only then an answer.

What is genuine but not understood is kept, sealed and quarantined, with one repair. What is not genuine
leaves a counter and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import text

from hub import strictjson
from hub.commit import Committer
from hub.contract import EventType, Guard, RawRequest, Receiver, UnitOfWork, Verified
from hub.errors import Conflict, HubError, NotUnderstood
from hub.log import log
from hub.model import Draft, from_us, to_us
from hub.sql import query
from hub.store.base import Store

QUARANTINED = EventType(
    name="vn.congdoan.request.quarantined.v1",
    title_vi="Yêu cầu đã ký đúng nhưng chưa đọc được",
    title_en="Genuine request that no mapping could read",
    personal=True,
    thin=("connection",),
    schema={"type": "object", "properties": {"connection": {"type": "string"}}, "required": ["connection"]},
    example={"connection": "c-thainguyen"},
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an inbound message: kept now, known already, or kept for a person."""

    events: int
    repeated: bool
    quarantined: bool


async def take(request: RawRequest, receiver: Receiver, committer: Committer, store: Store, event_source: str) -> Taken:
    """Raises ``Unauthenticated``, ``InputError`` (not strict JSON), ``IdempotencyConflict`` or ``Busy``."""
    verified = receiver.verify(request)
    body = strictjson.loads(request.body)
    try:
        unit = _as_sent(receiver.understand(request, verified, body), request, event_source)
    except NotUnderstood as error:
        return await _quarantine(request, verified, committer, store, event_source, error.code)
    except HubError:
        raise
    except Exception as error:  # a named edge: a mapping that breaks on a genuine body has not understood it
        log("plugin.raised", connection=request.connection, error=type(error).__name__)
        return await _quarantine(request, verified, committer, store, event_source, "plugin_error")
    committed = await committer.commit(unit, connection=request.connection)
    return Taken(committed.repeated.count(False), bool(committed.repeated) and all(committed.repeated), False)


def _as_sent(unit: UnitOfWork, request: RawRequest, event_source: str) -> UnitOfWork:
    """The same message is the same bytes under the sender's own id, whatever our mapping makes of them."""
    drafts: list[Draft] = [replace(d, source=event_source, same_as=request.body) for d in unit.drafts]
    return replace(unit, drafts=drafts)


async def _quarantine(
    request: RawRequest,
    verified: Verified,
    committer: Committer,
    store: Store,
    event_source: str,
    reason: str,
) -> Taken:
    data: dict[str, Any] = {"connection": request.connection}
    draft = Draft(
        type=QUARANTINED.name,
        source=event_source,
        dedupe_key=verified.dedupe_key,
        data=data,
        same_as=request.body,
        occurred_at=request.received_at,
    )
    committed = await committer.commit(
        UnitOfWork(drafts=[draft]), connection=request.connection, quarantined={draft.id: request.body}
    )
    # Also for a repeat: the process may have died before the repair of the first one was open.
    event_id = committed.events[0].hex
    await store.open_repair("not_understood", request.connection, event_id, to_us(request.received_at))
    if not committed.repeated[0]:
        log("request.quarantined", connection=request.connection, event_id=event_id, reason=reason)
    return Taken(committed.repeated.count(False), committed.repeated[0], True)


_KEPT = query(
    text(
        "SELECT c.event_id, c.sealed_for, c.body, e.received_at FROM content c JOIN event e ON e.id = c.event_id"
        " WHERE c.quarantined = 1 AND e.source = :source ORDER BY e.position"
    )
)
#: 2: read after all; the bytes stay as they came.
_READ = query(text("UPDATE content SET quarantined = 2 WHERE event_id = :id AND quarantined = 1"))


async def reread(
    connection: str, receiver: Receiver, committer: Committer, store: Store, source: str
) -> tuple[int, int]:
    """Puts what was kept through today's mapping; answers how many could be read, and how many still cannot.

    Each one is one transaction: what it means and that it has been read, so that a second call adds nothing.
    """
    done, left = 0, 0
    for event_id, sealed_for, sealed, received_at in await store.fetch(_KEPT(source=committer.uri(source))):
        await committer.ring.prepare([sealed_for], make=False)
        body = committer.ring.unseal(sealed_for, sealed)
        if body is None:
            continue  # erased meanwhile
        request = RawRequest(connection, {}, body, from_us(received_at))
        # The sender's own id is taken by the kept request; this one is derived from it and as stable.
        verified = Verified("reread:" + event_id.hex())
        try:
            unit = _as_sent(receiver.understand(request, verified, strictjson.loads(body)), request, source)
        except Exception as error:  # the same named edge as above, one request at a time
            log("request.still_unread", connection=connection, event_id=event_id.hex(), error=type(error).__name__)
            left += 1
            continue
        drafts = [replace(d, correlation_id=UUID(bytes=event_id)) for d in unit.drafts]
        guards = [Guard(_READ(id=event_id), otherwise="read_already"), *unit.guards]
        try:
            await committer.commit(replace(unit, drafts=drafts, guards=guards), connection=connection)
        except Conflict:
            continue  # somebody else read it first
        done += 1
    if not left:
        await store.clear_repair("not_understood", connection, to_us(committer.now()))
    return done, left
