"""The core's reads over HTTP, and how every operation is served: who may, how often, once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from hub import dead_letters, views
from hub.app import HubApp, asked_by
from hub.contract import Principal
from hub.control import all_commands
from hub.errors import InputError, NotFound
from hub.log import log
from hub.model import Json, State
from hub.plugins import Registry
from hub.web import body
from hub.web.access import PRINCIPAL, refuse_other_sites
from hub.web.feed import Feed, FeedParameters
from hub.web.idempotency import HEADER, Idempotency
from hub.web.openapi import document
from hub.web.operations import Operation, of_commands, parameters
from hub.web.parameters import Name, Parameters

BASE = "/api/v1"


class NoParameters(Parameters):
    pass


class OneDelivery(Parameters):
    id: UUID = Field(description="Id of a delivery.")


class DeliveriesParameters(Parameters):
    state: State | None = Field(None, description="Only deliveries in this state.")
    destination: Name | None = Field(None, description="Only this destination.")
    reason: Name | None = Field(None, description="Only this reason code.")
    event_id: UUID | None = Field(None, description="Only deliveries of this event.")
    before: UUID | None = Field(None, description="Only those listed after this delivery: the answer's `next`.")
    limit: int = Field(50, ge=1, le=1000, description="How many at most, newest first.")


class StoppedParameters(Parameters):
    by: Literal["reason", "destination", "state"] = Field("reason", description="What is counted by.")
    state: State | None = Field(None, description="Only this state; else dead, cancelled and unknown.")
    destination: Name | None = Field(None, description="Only this destination.")
    reason: Name | None = Field(None, description="Only this reason code.")


class ReplayStopped(BaseModel):
    """All that stopped for one reason."""

    model_config = ConfigDict(extra="forbid")
    reason: Name = Field(description="Reason code of those to send again.")
    destination: Name | None = Field(None, description="Only to this destination.")
    state: Literal["dead", "cancelled"] = Field("dead", description="Dead or cancelled ones.")
    expect: int | None = Field(
        None, ge=1, le=2**53, description="How many there are; without it they are counted and nothing is sent."
    )


# -- what is answered, as JSON Schema --------------------------------------------------------------

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer"}
_ID: Json = {"type": "string", "format": "uuid"}
_INSTANT: Json = {"type": "string", "format": "date-time"}


def _or_null(schema: Json) -> Json:
    return {**schema, "type": [schema["type"], "null"]}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list_of(item: Json) -> Json:
    return {"type": "array", "items": item}


_EVENT = _object(
    position=_COUNT, id=_ID, type=_TEXT, source=_TEXT, subject=_or_null(_TEXT), occurred_at=_INSTANT,
    received_at=_INSTANT, batch_id=_or_null(_ID),
)  # fmt: skip
_DELIVERY = _object(
    id=_ID, event_id=_ID, destination=_TEXT, recipient=_TEXT, generation=_COUNT, batch_id=_or_null(_ID),
    subscription=_TEXT, state={"type": "string", "enum": [s.value for s in State]}, reason=_TEXT, priority=_COUNT,
    tries=_COUNT, crashes=_COUNT, created_at=_INSTANT, expires_at=_or_null(_INSTANT), due_at=_or_null(_INSTANT),
    settled_at=_or_null(_INSTANT),
)  # fmt: skip
_MS: Json = {"type": ["number", "null"]}
_ATTEMPT = _object(
    no=_COUNT, started_at=_INSTANT, finished_at=_INSTANT, outcome=_TEXT, reason=_TEXT, status=_or_null(_COUNT),
    dns_ms=_MS, connect_ms=_MS, tls_ms=_MS, first_byte_ms=_MS, total_ms=_MS, answer=_or_null(_TEXT),
)  # fmt: skip
_RECEIPT = _object(ref=_TEXT, state=_TEXT, reason=_TEXT, received_at=_INSTANT)
_CONNECTION = _object(
    destination=_or_null(_TEXT), connection=_TEXT, type=_TEXT, state=_TEXT, paused_by=_or_null(_TEXT), reason=_TEXT,
    failures=_COUNT, not_before=_or_null(_INSTANT), breaker_until=_or_null(_INSTANT),
    counts={"type": "object", "additionalProperties": _COUNT},
)  # fmt: skip
#: What a plugin's view makes of an event.
_VIEWED: Json = {"type": "object", "required": ["position"], "properties": {"position": _COUNT}}
_REPAIR = _object(id=_COUNT, kind=_TEXT, object=_TEXT, detail=_TEXT, opened_at=_INSTANT)
_EVENT_TYPE = _object(
    type=_TEXT, version=_COUNT, title=_TEXT, personal={"type": "boolean"}, thin=_list_of(_TEXT),
    schema={"type": "object"}, example={"type": "object"}, deprecated={"type": "boolean"}, successor=_or_null(_TEXT),
)  # fmt: skip
_ONE_DELIVERY: Json = {
    **_DELIVERY,
    "properties": {
        **_DELIVERY["properties"],
        # Its feed position comes a moment after its commit.
        "event": {**_EVENT, "properties": {**_EVENT["properties"], "position": _or_null(_COUNT)}},
        "attempts": _list_of(_ATTEMPT),
        "receipts": _list_of(_RECEIPT),
    },
}

# -- answers ---------------------------------------------------------------------------------------


async def _connections(hub: HubApp, p: NoParameters) -> Json:
    return {"connections": await views.connections(hub.store, who=hub.principal)}


async def _deliveries(hub: HubApp, p: DeliveriesParameters) -> Json:
    rows = await views.deliveries(
        hub.store,
        state=p.state.value if p.state else None,
        destination=p.destination,
        reason=p.reason,
        event_id=p.event_id.bytes if p.event_id else None,
        before=p.before.bytes if p.before else None,
        limit=p.limit,
        who=hub.principal,
    )
    return {"deliveries": rows, "next": rows[-1]["id"] if len(rows) == p.limit else None}


async def _delivery(hub: HubApp, p: OneDelivery) -> Json:
    found = await views.delivery(hub.store, p.id.bytes, who=hub.principal, unseal=hub.unseal)
    if found is None:
        raise NotFound
    return found


async def _event_types(hub: HubApp, p: NoParameters) -> Json:
    return {
        "event_types": [
            {
                "type": name, "version": int(name.rpartition(".v")[2]), "title": f"{kind.title_vi} / {kind.title_en}",
                "personal": kind.personal, "thin": list(kind.thin), "schema": dict(kind.schema),
                "example": dict(kind.example), "deprecated": kind.deprecated, "successor": kind.successor or None,
            }
            for name, kind in sorted(hub.registry.event_types.items())
        ]
    }  # fmt: skip


async def _repairs(hub: HubApp, p: NoParameters) -> Json:
    return {"repairs": await views.repairs(hub.store, who=hub.principal)}


async def _stopped(hub: HubApp, p: StoppedParameters) -> Json:
    state = p.state.value if p.state else None
    return await dead_letters.counted(hub, p.by, state, p.destination, p.reason)


async def _replay_stopped(hub: HubApp, p: ReplayStopped) -> Json:
    return await dead_letters.replay(hub, p.reason, p.destination, p.state, p.expect, lambda progress: None)


def _read(
    path: str, scope: str, summary: str, params: type[Any], run: Callable[[HubApp, Any], Awaitable[Json]], answer: Json
) -> Operation:
    name = "get_" + "_".join(part.strip("{}") for part in path.strip("/").split("/"))
    return Operation(
        method="GET", path=path, id=name, summary=summary, scope=scope, params=params, run=run, answer=answer
    )


def _reads(feed: Callable[[HubApp, Any], Awaitable[Json]]) -> tuple[Operation, ...]:
    """What the core lets read."""
    return (
        _read(
            "/connections", "connections:read", "Destinations and connections with their state and counts.",
            NoParameters, _connections, _object(connections=_list_of(_CONNECTION)),
        ),
        _read(
            "/events", "events:read",
            "Events in the order of the feed; ask again with `after` = `next`. A partner's key reads what it was"
            " granted, as it was agreed.",
            FeedParameters, feed, _object(events=_list_of({"anyOf": [_EVENT, _VIEWED]}), next=_COUNT),
        ),
        _read(
            "/deliveries", "deliveries:read", "Deliveries, newest first.", DeliveriesParameters, _deliveries,
            _object(deliveries=_list_of(_DELIVERY), next=_or_null(_ID)),
        ),
        _read(
            "/deliveries/{id}", "deliveries:read", "One delivery with its event, attempts and receipts.", OneDelivery,
            _delivery, _ONE_DELIVERY,
        ),
        _read(
            "/event-types", "events:read", "The catalogue: every type with its JSON Schema and an example.",
            NoParameters, _event_types, _object(event_types=_list_of(_EVENT_TYPE)),
        ),
        _read(
            "/repairs", "repairs:read", "What a person must do, the oldest first.", NoParameters, _repairs,
            _object(repairs=_list_of(_REPAIR)),
        ),
    )  # fmt: skip


#: In bulk; only for who may see everything.
_IN_BULK = (
    Operation(
        method="GET", path="/stopped", id="get_stopped", scope="deliveries:read", params=StoppedParameters,
        summary="Deliveries that did not arrive, counted by reason, destination or state.", run=_stopped,
        answer=_object(groups=_list_of({"type": "object"})), narrows=False,
    ),
    Operation(
        method="POST", path="/stopped/replay", id="replay_stopped", scope="deliveries:write", params=ReplayStopped,
        summary="Counts all that stopped for one reason; with that number as `expect`, sends them again. Answers when"
        " all are owed again.",
        run=_replay_stopped, answer={"type": "object"}, writes=True, narrows=False,
    ),
)  # fmt: skip


# -- serving ---------------------------------------------------------------------------------------


def table(registry: Registry, feed: Feed | None = None) -> list[Operation]:
    """Every operation: the core's reads, then the commands with ``rest``. Without ``feed`` to be looked at only."""
    return [*_reads(feed.read if feed else _unread), *_IN_BULK, *of_commands(all_commands(registry))]


async def _unread(hub: HubApp, p: Any) -> Json:
    raise NotFound


def mount(app: web.Application, hub: HubApp) -> None:
    """Adds every operation and the document that describes them."""
    feed, idempotency = Feed(hub), Idempotency(hub)
    app.on_shutdown.append(feed.close)
    operations = table(hub.registry, feed)
    for operation in operations:
        add = app.router.add_get if operation.method == "GET" else _adder(app, operation.method)
        add(BASE + operation.path, _handler(hub, operation, idempotency))
    described = orjson.dumps(document(BASE, operations, hub.registry.event_types.values()))

    async def describe(request: web.Request) -> web.StreamResponse:
        return web.Response(body=described, content_type="application/json")

    app.router.add_get("/api/openapi.json", describe)


def _adder(app: web.Application, method: str) -> Callable[..., Any]:
    return lambda path, handler: app.router.add_route(method, path, handler)


def _handler(
    hub: HubApp, operation: Operation, idempotency: Idempotency
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        who = request[PRINCIPAL]
        _refuse(operation, who, request)
        limits = hub.config.hub.http
        sent = await body.read(request, limits.max_body_bytes, limits.body_deadline_s) if operation.has_body else b""
        checked, asked = parameters(operation, request, sent)

        async def work(who: Principal) -> bytes:
            with asked_by(who):
                return orjson.dumps(await operation.run(hub, checked), default=str)

        key = request.headers.get(HEADER) if operation.method == "POST" else None
        status, again = operation.status, False
        if key is None:
            answer = await work(who)
        else:
            asked = orjson.dumps([operation.method, operation.path]) + asked
            status, answer, again = await idempotency.once(who, idempotency.key_of(key), asked, status, work)
        if operation.writes:
            log("api.answered", who=who.name, operation=operation.id, status=status)
        return _answer(status, answer, again)

    return handle


def _refuse(operation: Operation, who: Principal, request: web.Request) -> None:
    if not who.may(operation.scope):
        raise InputError(f"needs {operation.scope}", problem="scope-missing", status=403)
    if not operation.narrows and not who.sees_all:
        raise NotFound
    if operation.method != "GET":
        refuse_other_sites(request)
    if operation.writes and who.test and not operation.takes_test_keys:
        raise InputError(problem="test-key-refused", status=403)


def _answer(status: int, answer: bytes, again: bool = False) -> web.Response:
    headers = {"Cache-Control": "no-store"} | ({"Idempotency-Replayed": "true"} if again else {})
    return web.Response(body=answer, status=status, content_type="application/json", headers=headers)
