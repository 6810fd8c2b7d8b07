"""The operator's API, read only: one table of routes, from which the OpenAPI document is made too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import Field

from hub import __version__, views
from hub.app import HubApp
from hub.errors import InputError, NotFound
from hub.model import Json, State
from hub.web.parameters import Name, Parameters, read

BASE = "/api/v1"


class NoParameters(Parameters):
    pass


class EventsParameters(Parameters):
    after: int = Field(0, ge=0, le=views.LAST, description="Feed position: only events behind it, in order.")
    limit: int = Field(50, ge=1, le=1000, description="How many at most.")


class DeliveriesParameters(Parameters):
    state: State | None = Field(None, description="Only deliveries in this state.")
    destination: Name | None = Field(None, description="Only this destination.")
    reason: Name | None = Field(None, description="Only this reason code.")
    event_id: UUID | None = Field(None, description="Only deliveries of this event.")
    before: UUID | None = Field(None, description="Only those listed after this delivery: the answer's `next`.")
    limit: int = Field(50, ge=1, le=1000, description="How many at most, newest first.")


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
    connect_ms=_MS, first_byte_ms=_MS, total_ms=_MS, answer=_or_null(_TEXT),
)  # fmt: skip
_RECEIPT = _object(ref=_TEXT, state=_TEXT, reason=_TEXT, received_at=_INSTANT)
_CONNECTION = _object(
    destination=_or_null(_TEXT), connection=_TEXT, type=_TEXT, state=_TEXT, paused_by=_or_null(_TEXT), reason=_TEXT,
    failures=_COUNT, not_before=_or_null(_INSTANT), breaker_until=_or_null(_INSTANT),
    counts={"type": "object", "additionalProperties": _COUNT},
)  # fmt: skip
_REPAIR = _object(id=_COUNT, kind=_TEXT, object=_TEXT, detail=_TEXT, opened_at=_INSTANT)
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


async def _connections(hub: HubApp, p: NoParameters, path: Mapping[str, str]) -> Json:
    return {"connections": await views.connections(hub.store)}


async def _events(hub: HubApp, p: EventsParameters, path: Mapping[str, str]) -> Json:
    events = await views.events(hub.store, p.limit, after=p.after)
    return {"events": events, "next": events[-1]["position"] if events else p.after}


async def _deliveries(hub: HubApp, p: DeliveriesParameters, path: Mapping[str, str]) -> Json:
    rows = await views.deliveries(
        hub.store,
        state=p.state.value if p.state else None,
        destination=p.destination,
        reason=p.reason,
        event_id=p.event_id.bytes if p.event_id else None,
        before=p.before.bytes if p.before else None,
        limit=p.limit,
    )
    return {"deliveries": rows, "next": rows[-1]["id"] if len(rows) == p.limit else None}


async def _delivery(hub: HubApp, p: NoParameters, path: Mapping[str, str]) -> Json:
    try:
        delivery_id = UUID(path["id"]).bytes
    except ValueError:
        raise InputError("'id': not an id", problem="id-invalid") from None
    found = await views.delivery(hub.store, delivery_id)
    if found is None:
        raise NotFound
    return found


async def _repairs(hub: HubApp, p: NoParameters, path: Mapping[str, str]) -> Json:
    return {"repairs": await views.repairs(hub.store)}


@dataclass(frozen=True, slots=True)
class Route:
    """One GET: what it takes, what it answers."""

    path: str
    summary: str
    parameters: type[Any]
    answer: Callable[[HubApp, Any, Mapping[str, str]], Awaitable[Json]]
    schema: Json
    #: Besides 400, which every route can answer.
    problems: tuple[int, ...] = field(default=())


ROUTES: tuple[Route, ...] = (
    Route(
        "/connections", "Destinations and connections with their state and counts.", NoParameters, _connections,
        _object(connections=_list_of(_CONNECTION)),
    ),
    Route(
        "/events", "Events in the order of the feed; ask again with `after` = `next`.", EventsParameters, _events,
        _object(events=_list_of(_EVENT), next=_COUNT),
    ),
    Route(
        "/deliveries", "Deliveries, newest first.", DeliveriesParameters, _deliveries,
        _object(deliveries=_list_of(_DELIVERY), next=_or_null(_ID)),
    ),
    Route(
        "/deliveries/{id}", "One delivery with its event, attempts and receipts.", NoParameters, _delivery,
        _ONE_DELIVERY, problems=(404,),
    ),
    Route(
        "/repairs", "What a person must do, the oldest first.", NoParameters, _repairs,
        _object(repairs=_list_of(_REPAIR)),
    ),
)  # fmt: skip


def mount(app: web.Application, hub: HubApp) -> None:
    """Adds the routes of the table and the document that describes them."""
    for route in ROUTES:
        app.router.add_get(BASE + route.path, _handler(hub, route))
    described = orjson.dumps(openapi())

    async def document(request: web.Request) -> web.StreamResponse:
        return web.Response(body=described, content_type="application/json")

    app.router.add_get("/api/openapi.json", document)


def _handler(hub: HubApp, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        answer = await route.answer(hub, read(route.parameters, request), request.match_info)
        return web.Response(
            body=orjson.dumps(answer), content_type="application/json", headers={"Cache-Control": "no-store"}
        )

    return handle


# -- the document ----------------------------------------------------------------------------------


def openapi() -> Json:
    """OpenAPI 3.1 of the table above."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Union Hub",
            "version": __version__,
            "description": "What the ledger holds, for operators. Errors are RFC 9457 problem documents.",
        },
        "paths": {BASE + route.path: {"get": _operation(route)} for route in ROUTES},
        "components": {
            "schemas": {"Problem": _object(type=_TEXT, title=_TEXT, status=_COUNT)},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # Without a token the hub answers on loopback only.
        "security": [{}, {"token": []}],
    }


def _operation(route: Route) -> Json:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answers: Json = {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": route.schema}}},
        **{
            str(status): {"description": {400: "A parameter is wrong; it is named.", 404: "No such thing."}[status],
                          "content": problem}
            for status in (400, *route.problems)
        },
    }  # fmt: skip
    name = "_".join(part.strip("{}") for part in route.path.strip("/").split("/"))
    return {
        "operationId": f"get_{name}",
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": answers,
    }


def _path_parameters(route: Route) -> list[Json]:
    return [{"name": "id", "in": "path", "required": True, "schema": _ID}] if "{id}" in route.path else []


def _query_parameters(route: Route) -> list[Json]:
    schema = route.parameters.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": prop["description"],
            "schema": _plain(prop, schema.get("$defs", {})),
        }
        for name, prop in schema.get("properties", {}).items()
    ]


def _plain(prop: Json, defs: Json) -> Json:
    """A parameter's schema without references and titles; an absent parameter is the null of an optional one."""
    options = [o for o in prop.get("anyOf", [prop]) if o.get("type") != "null"]
    found = options[0]
    if "$ref" in found:
        found = defs[found["$ref"].rsplit("/", 1)[1]]
    plain = {k: v for k, v in found.items() if k not in ("title", "description")}
    if prop.get("default") is not None:
        plain["default"] = prop["default"]
    return plain
