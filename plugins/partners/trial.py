"""Trying things before they are live: a filter on the last events, a test event to an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from yarl import URL

from hub.contract import Hub, Report
from hub.errors import InputError, NotFound
from hub.http import Reply, exchange, open_session
from hub.model import Event, Json, from_us, new_id
from hub.sql import query
from plugins.partners import params as p
from plugins.partners import tables
from plugins.partners.access import endpoint_row, sending, the_guard, the_partner
from plugins.partners.content_filter import BadFilter, Filter
from plugins.partners.endpoint import Endpoint, written
from plugins.partners.grants import matches, what_may_leave
from plugins.partners.guard import Guard
from plugins.partners.inbox import is_inbox, receive
from plugins.partners.managed import read_endpoints, read_grant
from plugins.partners.params import TEST_TYPE
from plugins.partners.schema import cloud_event, request
from plugins.partners.settings import PartnersSettings

#: How many events a filter is tried on, and how far back they are looked for.
SAMPLE, BACK = 20, 500
_EVENT = (
    "SELECT e.id, e.type, e.source, e.subject, e.occurred_at, e.scope_id, c.sealed_for, c.body FROM event e"
    " JOIN content c ON c.event_id = e.id WHERE c.quarantined = 0"
)
#: The newest events of the ledger, and one of them; read only.
_LAST = query(text(_EVENT + " AND e.position IS NOT NULL ORDER BY e.position DESC LIMIT :back"))
_ONE = query(text(_EVENT + " AND e.id = :id AND c.event_id = :id"))


async def try_filter(hub: Hub, given: p.FilterParams, report: Report) -> Json:
    """What the filter says of the last events that the partner may see: match or not, and why; no content is shown."""
    await the_partner(hub, given.partner)
    try:
        wanted = Filter(given.filter)
    except BadFilter as error:
        raise InputError(str(error), problem="filter-invalid", status=422, at="filter") from None
    grants = [read_grant(row) for row in await hub.fetch(tables.GRANTS_OF(partner=given.partner))]
    rows = [row for row in await hub.fetch(_LAST(back=BACK)) if any(matches(each, row[1]) for each in given.types)]
    tried: list[Json] = []
    for row in rows:
        if len(tried) == SAMPLE:
            break
        event = await _event(hub, row)
        data = None if event is None else what_may_leave(grants, event, hub.now())
        if event is not None and isinstance(data, dict):
            verdict = wanted.judge(event, data)
            tried.append({"event": str(event.id), "type": event.type, "matches": verdict.matches, "why": verdict.why})
    return {"tried": len(tried), "matching": sum(1 for each in tried if each["matches"]), "events": tried}


async def show_event(hub: Hub, given: p.EventParams, report: Report) -> Json:
    """One event as the partner may see it now: what a thin event's ``dataref`` leads to."""
    await the_partner(hub, given.partner)
    grants = [read_grant(row) for row in await hub.fetch(tables.GRANTS_OF(partner=given.partner))]
    for row in await hub.fetch(_ONE(id=given.event.bytes)):
        event = await _event(hub, row)
        data = None if event is None else what_may_leave(grants, event, hub.now())
        if event is not None and isinstance(data, dict):
            shown: Json = orjson.loads(cloud_event(replace(event, data=data)))
            return shown
    raise NotFound("không có sự kiện này / there is no such event")


async def as_sent(hub: Hub, row: Sequence[Any], event_id: UUID) -> tuple[dict[str, str], bytes] | str | None:
    """What an endpoint (a row of it) gets of an event today, byte for byte as at every try, or why it may not have it.

    None where the event's content is gone.
    """
    partner, connection = row[0], sending(hub)
    public_url = "" if connection is None else hub.settings_of(PartnersSettings)[connection].public_url
    opened = await read_endpoints(hub, [row], the_guard(hub), public_url)
    found = await hub.fetch(_ONE(id=event_id.bytes))
    event = await _event(hub, found[0]) if found else None
    if event is None or not opened:
        return None
    grants = tuple(read_grant(each) for each in await hub.fetch(tables.GRANTS_OF(partner=partner)))
    kind = hub.event_types.get(event.type)
    return written(replace(opened[0], grants=grants), event, kind.thin if kind else (), hub.now())


async def _event(hub: Hub, row: Any) -> Event | None:
    id, kind, source, subject, occurred_at, scope, sealed_for, body = row
    content: bytes | None = body
    if sealed_for is not None:
        (content,) = await hub.unseal([(sealed_for, body)])
    if content is None:
        return None
    own = UUID(bytes=bytes(id))
    return Event(
        id=own, type=kind, source=source, subject=subject, occurred_at=from_us(occurred_at),
        data=orjson.loads(content), scope=scope, correlation_id=own,
    )  # fmt: skip


async def send_test(hub: Hub, given: p.TestParams, report: Report) -> Json:
    """One signed event with ``test: true``, past the same guard as every other; nothing is kept of it.

    Of a type from the catalogue it is the granted part of that type's example.
    """
    await the_partner(hub, given.partner)
    data: Json = {"endpoint": given.endpoint}
    if given.type != TEST_TYPE:
        kind = hub.event_types.get(given.type)
        grants = [read_grant(row) for row in await hub.fetch(tables.GRANTS_OF(partner=given.partner))]
        example = dict(kind.example) if kind is not None else {}
        granted = what_may_leave(grants, made_up(hub, given.type, example), hub.now())
        if kind is None or isinstance(granted, str):
            text = "đơn vị này không được quyền xem loại sự kiện này / this partner has no grant for this event type"
            raise InputError(text, problem="event-type-unknown", status=422, at="type")
        data = granted
    guard = the_guard(hub)
    row = await endpoint_row(hub, given.partner, given.endpoint)
    found = await read_endpoints(hub, [row], guard)
    if not found:
        raise InputError("khóa của địa chỉ này đã bị hủy / this endpoint's keys were destroyed", status=409)
    reply = await send(hub, guard, found[0], made_up(hub, given.type, data))
    return {"failed": not 200 <= reply.status < 300 or reply.failure is not None, **told(reply)}


def made_up(hub: Hub, kind: str, data: Json) -> Event:
    """An event that no ledger holds."""
    id = new_id()
    return Event(
        id=id, type=kind, source="/partners/test", subject=None, occurred_at=hub.now(), data=data, scope="",
        correlation_id=id,
    )  # fmt: skip


async def send(hub: Hub, guard: Guard, endpoint: Endpoint, event: Event) -> Reply:
    headers, body = request(event, endpoint.mode, test=True)
    if not isinstance(endpoint.target, URL):
        raise InputError(f"url: {endpoint.target}", problem="url-not-public", status=422)
    now = hub.now()
    timestamp = int(now.timestamp())
    signature = endpoint.keys.signatures(str(event.id), timestamp, body, now)
    signed = {
        **headers, "webhook-id": str(event.id), "webhook-timestamp": str(timestamp), "webhook-signature": signature,
    }  # fmt: skip
    if is_inbox(endpoint.target):
        return await receive(hub, endpoint, signed, body)
    async with open_session(allowed=guard.allows) as session:
        return await exchange(
            session, "POST", endpoint.target, headers=signed, data=body, deadline_s=endpoint.timeout_s
        )


def told(reply: Reply) -> Json:
    """What was seen, without the answer's content: it may repeat what was sent."""
    return {
        "status": reply.status or None,
        "failure": reply.failure,
        "dns_ms": reply.dns_ms,
        "connect_ms": reply.connect_ms,
        "tls_ms": reply.tls_ms,
        "first_byte_ms": reply.first_byte_ms,
        "total_ms": round(reply.total_ms, 1),
    }
