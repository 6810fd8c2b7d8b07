"""Commands of the API itself: its keys, and publishing an event."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from hub.app import HubApp
from hub.contract import Command, Guard, Hub, Report, Rest, UnitOfWork
from hub.errors import InputError, NotFound, NotUnderstood
from hub.model import Draft, Json, new_id, to_us
from hub.security import api_keys
from hub.strictjson import misfit
from hub.views import parse_id, show_id, show_time

#: Scopes of the core; those of plugins stand in the ``rest`` of their commands.
SCOPES = {
    "admin": "everything, keys included",
    "connections:read": "look at connections",
    "connections:write": "pause and resume connections",
    "deliveries:read": "look at deliveries",
    "deliveries:write": "send again, resolve",
    "events:publish": "publish events",
    "events:read": "read the feed",
    "repairs:read": "look at what needs a person",
    "requests:read": "look at what inbound requests are kept",
    "requests:write": "put a kept request through today's mapping",
}
_KEY_ID_BYTES = 4
#: An id that is written readable on the envelope: no phone, no citizen number.
_OPAQUE = re.compile(r"(?!\+?[0-9]{8,}$)[A-Za-z0-9._:@/-]{1,200}", re.ASCII)


def _typed(kind: type) -> BeforeValidator:
    """On the command line a list is written with commas and an object as JSON."""

    def read(value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str) or (info.context or {}).get("rest"):
            return value
        if kind is list:
            return [part.strip() for part in value.split(",") if part.strip()]
        try:
            return orjson.loads(value)
        except ValueError:
            raise ValueError("không phải JSON / not JSON") from None

    return BeforeValidator(read)


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid")


#: The API's description lists what ``one_of`` names: an installation knows it only when its plugins are loaded.
_Scope = Annotated[str, Field(max_length=60, json_schema_extra={"one_of": "scopes"})]


# -- keys ------------------------------------------------------------------------------------------


class AddKey(_Params):
    name: str = Field(
        min_length=1, max_length=80, description="Who uses it and what for.", json_schema_extra={"argument": True}
    )
    scopes: Annotated[list[_Scope], _typed(list)] = Field(
        min_length=1, max_length=50, description="What it may do, with commas between: events:read,events:publish."
    )
    days: int = Field(365, ge=1, le=3650, description="Days until it expires; 14 days before, everybody is told.")
    test: bool = Field(False, description="A test key: what it asks for reaches no phone and no partner.")
    rate: int = Field(600, ge=1, le=60_000, description="Requests a minute, on each node.")
    owner: str = Field(
        "", max_length=100, pattern=r"^([a-z0-9_-]+:[A-Za-z0-9._-]+)?$",
        description="Whose key it is, as a plugin knows them: partner:so-noi-vu. It then sees what they were granted.",
    )  # fmt: skip
    sees: Annotated[list[Annotated[str, Field(max_length=200)]] | None, _typed(list)] = Field(
        None, max_length=100, description="Only events and deliveries of these scopes (unit codes); by default all."
    )


class OneKey(_Params):
    id: str = Field(max_length=40, description="Id of a key.", json_schema_extra={"argument": True})


class Nothing(_Params):
    """No parameters."""


async def _add_key(hub: Hub, p: AddKey, report: Report) -> Json:
    known = SCOPES.keys() | {c.rest.scope for c in _app(hub).registry.commands.values() if c.rest is not None}
    if unknown := [n for n, scope in enumerate(p.scopes) if scope not in known]:
        raise InputError(
            f"quyền này không có / no such scope; known are {', '.join(sorted(known))}",
            status=422,
            at=f"#/scopes/{unknown[0]}",
        )
    key = api_keys.new_key(test=p.test)
    id = new_id().bytes[-_KEY_ID_BYTES:].hex()
    now = hub.now()
    expires = now + timedelta(days=p.days)
    row = api_keys.ADD(
        digest=hub.keyed_hash(api_keys.KIND, key), id=id, name=p.name, scopes=" ".join(dict.fromkeys(p.scopes)),
        sees=None if p.sees is None else orjson.dumps(p.sees).decode(), owner=p.owner, test=int(p.test),
        rate_per_min=p.rate, created_at=to_us(now), expires_at=to_us(expires),
    )  # fmt: skip
    await hub.commit(UnitOfWork(guards=[Guard(row)]))
    return {"id": id, "key": key, "expires_at": show_time(to_us(expires))}


def _shown_once(answer: Json, lang: str) -> str:
    vi = f"Khóa (chỉ hiện một lần này, hãy cất ngay): {answer['key']}\nMã khóa {answer['id']}, hết hạn"
    en = f"Key (shown this once, put it away now): {answer['key']}\nId {answer['id']}, expires"
    return f"{en if lang == 'en' else vi} {answer['expires_at']}"


async def _list_keys(hub: Hub, p: Nothing, report: Report) -> Json:
    now = to_us(hub.now())
    keys = [api_keys.ApiKey.of(row) for row in await hub.fetch(api_keys.LIST())]
    return {
        "keys": [
            {
                "id": key.id, "name": key.name, "state": key.state(now), "test": key.test, "owner": key.owner,
                "scopes": sorted(key.scopes), "sees": None if key.sees is None else sorted(key.sees),
                "rate": key.rate_per_min, "expires_at": show_time(key.expires_at),
                "last_used_at": show_time(key.last_used_at),
            }
            for key in keys
        ]
    }  # fmt: skip


async def _revoke_key(hub: Hub, p: OneKey, report: Report) -> Json:
    app = _app(hub)
    now = to_us(hub.now())
    if not any(row[0] == p.id for row in await hub.fetch(api_keys.LIST())):
        raise NotFound(f"không có khóa {p.id} / no key {p.id}")
    await hub.commit(UnitOfWork(statements=[api_keys.REVOKE(id=p.id, now=now)]))
    await app.store.clear_repair("key_expiring", p.id, now)
    return {"revoked": p.id}


# -- requests as they came -------------------------------------------------------------------------


class ListRequests(_Params):
    connection: str | None = Field(None, max_length=40, description="Only of this connection.")
    state: Literal["read", "unread", "not_json"] | None = Field(None, description="Only in this state.")
    limit: int = Field(50, ge=1, le=1000, description="How many rows at most, newest first.")


class OneRequest(_Params):
    id: str = Field(
        max_length=40, description="Id of a kept request.", json_schema_extra={"argument": True, "format": "uuid"}
    )


async def _list_requests(hub: Hub, p: ListRequests, report: Report) -> Json:
    asked = [(name, value) for name, value in (("connection", p.connection), ("state", p.state)) if value is not None]
    where = "".join(f" AND {name} = ?" for name, _ in asked)
    rows = await _app(hub).store.read(
        f"SELECT id, connection, state, event_id, received_at FROM raw_request WHERE 1 = 1{where}"  # noqa: S608
        " ORDER BY received_at DESC, id LIMIT ?",
        (*(value for _, value in asked), p.limit),
    )
    return {
        "requests": [
            {
                "id": show_id(id), "connection": connection, "state": state, "event_id": show_id(event),
                "received_at": show_time(at),
            }
            for id, connection, state, event, at in rows
        ]
    }  # fmt: skip


async def _replay_request(hub: Hub, p: OneRequest, report: Report) -> Json:
    app, id = _app(hub), parse_id(p.id)
    rows = await app.store.read("SELECT connection FROM raw_request WHERE id = ?", (id,))
    if not rows:
        raise NotFound(f"không có yêu cầu {p.id} / no request {p.id}")
    try:
        committed = await app.replay_request(rows[0][0], id)
    except (NotUnderstood, InputError):
        raise InputError(
            "bản hiện tại vẫn chưa đọc được yêu cầu này, không đổi gì / today's mapping cannot read it either, nothing"
            " was changed",
            problem="not-understood", status=422,
        ) from None  # fmt: skip
    return {
        "replayed": p.id,
        "events": [str(event) for event in committed.events],
        "new": committed.repeated.count(False),
    }


# -- publishing ------------------------------------------------------------------------------------


class Publish(_Params):
    type: str = Field(
        max_length=200, description="Event type in full, from the catalogue.",
        json_schema_extra={"one_of": "event_types"},
    )  # fmt: skip
    data: Annotated[dict[str, Any], _typed(dict)] = Field(description="What happened, as the type's schema says.")
    subject: str | None = Field(
        None, min_length=1, max_length=200, description="Opaque id of whom it is about; never a phone or a number."
    )
    id: str | None = Field(
        None, min_length=1, max_length=200, description="Your own id of it: the same id again adds nothing."
    )
    occurred_at: AwareDatetime | None = Field(None, description="When it happened, RFC 3339; by default now.")
    ordering_key: str | None = Field(
        None, min_length=1, max_length=200, description="Deliveries of one key go one after another."
    )
    scope: str = Field("", max_length=200, description="Code of the union unit it belongs to.")


async def _publish(hub: Hub, p: Publish, report: Report) -> Json:
    """One transaction, answered after its COMMIT."""
    app, who = _app(hub), hub.principal
    kind = app.registry.event_types.get(p.type)
    if kind is None:
        said = "loại sự kiện không có trong danh mục / this event type is not in the catalogue"
        raise InputError(said, problem="event-type-unknown", status=422, at="#/type")
    if (found := misfit(kind.schema, p.data)) is not None:
        place, rule = found
        vi, en = f"data{place} không đúng lược đồ: {rule}", f"data{place} does not fit the schema: {rule}"
        raise InputError(f"{vi} / {en}", problem="payload-invalid", status=422, at=f"#/data{place}")
    if p.subject is not None and not _OPAQUE.fullmatch(p.subject):
        vi = "subject là mã ghi công khai: chữ không dấu, số và . _ : @ / -, không phải số điện thoại hay số định danh"
        en = "subject is an opaque id: letters, digits and . _ : @ / -, no phone and no citizen number"
        raise InputError(f"{vi} / {en}", status=422, at="#/subject")
    if not who.sees_all and (who.owner or p.scope not in (who.sees or ())):
        raise NotFound
    draft = Draft(
        type=p.type,
        source=f"/api/{who.name}",
        dedupe_key=f"id:{p.id}" if p.id is not None else who.request_key or new_id().hex,
        data=p.data,
        subject=p.subject,
        occurred_at=p.occurred_at,
        ordering_key=p.ordering_key,
        scope=p.scope,
    )
    if who.test:
        return {"id": str(draft.id), "status": "checked", "test": True}
    committed = await app.commit(UnitOfWork(drafts=[draft]))
    return {"id": str(committed.events[0]), "status": "accepted", "test": False}


def _app(hub: Hub) -> HubApp:
    assert isinstance(hub, HubApp)
    return hub


_ID: Json = {"type": "string", "format": "uuid"}
_TEXT: Json = {"type": "string"}
_INSTANT: Json = {"type": "string", "format": "date-time"}

COMMANDS: tuple[Command, ...] = (
    Command(
        group="keys", name="add", params=AddKey, run=_add_key, render=_shown_once,
        help_vi="Tạo khóa API; khóa chỉ hiện một lần", help_en="Make an API key; it is shown once",
        rest=Rest(method="POST", path="/keys", scope="admin", status=201),
        answer={
            "type": "object", "required": ["id", "key", "expires_at"],
            "properties": {"id": _TEXT, "key": _TEXT, "expires_at": _INSTANT},
        },
    ),
    Command(
        group="keys", name="list", params=Nothing, run=_list_keys, writes=False,
        help_vi="Liệt kê khóa API, hạn và lần dùng cuối", help_en="List API keys, their ends and last use",
        rest=Rest(method="GET", path="/keys", scope="admin"),
        answer={"type": "object", "required": ["keys"], "properties": {"keys": {"type": "array"}}},
    ),
    Command(
        group="keys", name="revoke", params=OneKey, run=_revoke_key,
        help_vi="Thu hồi khóa API ngay", help_en="Revoke an API key at once",
        rest=Rest(method="DELETE", path="/keys/{id}", scope="admin"),
        answer={"type": "object", "required": ["revoked"], "properties": {"revoked": _TEXT}},
    ),
    Command(
        group="requests", name="list", params=ListRequests, run=_list_requests, writes=False,
        help_vi="Các yêu cầu gửi đến được giữ nguyên bản", help_en="Inbound requests that were kept as they came",
        rest=Rest(method="GET", path="/requests", scope="requests:read"),
        answer={"type": "object", "required": ["requests"], "properties": {"requests": {"type": "array"}}},
    ),
    Command(
        group="requests", name="replay", params=OneRequest, run=_replay_request,
        help_vi="Đọc lại một yêu cầu đã giữ bằng bản hiện tại", help_en="Put a kept request through today's mapping",
        rest=Rest(method="POST", path="/requests/{id}/replay", scope="requests:write"),
    ),
    Command(
        group="events", name="publish", params=Publish, run=_publish,
        help_vi="Phát một sự kiện có trong danh mục", help_en="Publish an event of the catalogue",
        rest=Rest(
            method="POST", path="/events", scope="events:publish", status=202, takes_test_keys=True, narrows=True
        ),
        answer={
            "type": "object", "required": ["id", "status", "test"],
            "properties": {
                "id": _ID, "status": {"enum": ["accepted", "checked"]}, "test": {"type": "boolean"},
            },
        },
    ),
)  # fmt: skip
