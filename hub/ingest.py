"""One inbound message, from raw bytes to COMMIT: verify, parse, understand, commit; only then an answer.

What is genuine but not understood is kept, sealed and quarantined, with one repair. What is not genuine
leaves a counter and nothing else. How much is kept as it came, a connection says (``keep_raw``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import text

from hub.commit import AsSent, Committer
from hub.contract import Committed, EventType, Guard, RawRequest, Receiver, UnitOfWork, Verified
from hub.crashpoint import crashpoint
from hub.errors import Conflict, HubError, InputError, NotUnderstood
from hub.log import log
from hub.model import Draft, from_us, to_us
from hub.rawrequests import DEFAULT, Keeping, as_it_came, find, from_kept, parsed
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


async def take(
    request: RawRequest,
    receiver: Receiver,
    committer: Committer,
    store: Store,
    event_source: str,
    raw: Keeping = DEFAULT,
) -> Taken:
    """Raises ``Unauthenticated``, ``InputError`` (not strict JSON), ``IdempotencyConflict`` or ``Busy``."""
    crashpoint("request.read")
    verified = receiver.verify(request)
    crashpoint("request.verified")
    try:
        body = parsed(request)
    except InputError:
        if raw.what != "none":
            await committer.commit(UnitOfWork(statements=[as_it_came(request, verified, "not_json", committer, raw)]))
        raise
    try:
        unit = receiver.understand(request, verified, body)
    except NotUnderstood as error:
        return await _quarantine(request, verified, committer, store, event_source, error.code, raw)
    except HubError:
        raise
    except (Exception, SystemExit) as error:
        # A named edge: a mapping that breaks on a genuine body has not understood it.
        log("plugin.raised", connection=request.connection, error=type(error).__name__)
        return await _quarantine(request, verified, committer, store, event_source, "plugin_error", raw)
    if raw.what == "all":
        kept = as_it_came(request, verified, "read", committer, raw, unit.drafts)
        unit = replace(unit, statements=[*unit.statements, kept])
    try:
        committed = await committer.commit(
            unit, connection=request.connection, as_sent=AsSent(event_source, request.body)
        )
    except InputError as error:
        if error.problem != "event-type-unknown":
            raise
        # The sender cannot help it that a configured type is in no catalogue.
        return await _quarantine(request, verified, committer, store, event_source, error.problem, raw)
    crashpoint("request.kept")
    return Taken(committed.repeated.count(False), bool(committed.repeated) and all(committed.repeated), False)


async def _quarantine(
    request: RawRequest,
    verified: Verified,
    committer: Committer,
    store: Store,
    event_source: str,
    reason: str,
    raw: Keeping,
) -> Taken:
    if raw.what == "none":
        raise InputError(problem="not-understood", status=422)
    data: dict[str, Any] = {"connection": request.connection}
    draft = Draft(
        type=QUARANTINED.name,
        source=event_source,
        dedupe_key=verified.dedupe_key,
        data=data,
        same_as=request.body,
        occurred_at=request.received_at,
    )
    # Its body is the event's content.
    head = as_it_came(replace(request, body=b""), verified, "unread", committer, raw, [draft], request.body)
    committed = await committer.commit(
        UnitOfWork(statements=[head], drafts=[draft]),
        connection=request.connection,
        quarantined={draft.id: request.body},
    )
    # Also for a repeat: the process may have died before the repair of the first one was open.
    event_id = committed.events[0].hex
    await store.open_repair("not_understood", request.connection, event_id, to_us(request.received_at))
    if not committed.repeated[0]:
        log("request.quarantined", connection=request.connection, event_id=event_id, reason=reason)
    return Taken(committed.repeated.count(False), committed.repeated[0], True)


_KEPT = query(
    text(
        "SELECT c.event_id, c.sealed_for, c.body, e.received_at, r.sealed_for, r.request FROM content c"
        " JOIN event e ON e.id = c.event_id LEFT JOIN raw_request r ON r.event_id = c.event_id AND r.state = 'unread'"
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
    rows = await store.fetch(_KEPT(source=committer.uri(source)))
    for event_id, sealed_for, sealed, received_at, head_for, head in rows:
        await committer.ring.prepare([sealed_for, head_for or sealed_for], make=False)
        body = committer.ring.unseal(sealed_for, sealed)
        if body is None:
            continue  # erased meanwhile
        request = RawRequest(connection, {}, body, from_us(received_at))
        if head is not None and (opened := committer.ring.unseal(head_for, head)) is not None:
            request = replace(from_kept(connection, opened, from_us(received_at)), body=body)
        # The sender's own id is taken by the kept request; this one is derived from it and as stable.
        verified = Verified("reread:" + event_id.hex())
        try:
            unit = receiver.understand(request, verified, parsed(request))
        except Exception as error:  # the same named edge as above, one request at a time
            log("request.still_unread", connection=connection, event_id=event_id.hex(), error=type(error).__name__)
            left += 1
            continue
        drafts = [replace(d, correlation_id=UUID(bytes=event_id)) for d in unit.drafts]
        guards = [Guard(_READ(id=event_id), otherwise="read_already"), *unit.guards]
        try:
            unit = replace(unit, drafts=drafts, guards=guards)
            await committer.commit(unit, connection=connection, as_sent=AsSent(source, body))
        except Conflict:
            continue  # somebody else read it first
        done += 1
    if not left:
        await store.clear_repair("not_understood", connection, to_us(committer.now()))
    return done, left


async def replay(id: bytes, receiver: Receiver, committer: Committer, store: Store) -> Committed:
    """Puts one request that was kept as it came through today's mapping; raises ``NotFound`` when it is gone.

    What it means today is stored as new events, once, however often it is replayed.
    Raises: NotUnderstood, InputError when today's mapping cannot read it either.
    """
    request, event_id = await find(id, committer, store)
    # The sender's own id is taken by what it meant when it came.
    verified = Verified("replay:" + id.hex())
    unit = receiver.understand(request, verified, parsed(request))
    source = f"/connections/{request.connection}"
    lineage = None if event_id is None else UUID(bytes=event_id)
    drafts = [
        replace(d, dedupe_key=f"replay:{id.hex()}:{n}", correlation_id=lineage) for n, d in enumerate(unit.drafts)
    ]
    return await committer.commit(
        replace(unit, drafts=drafts), connection=request.connection, as_sent=AsSent(source, request.body)
    )
