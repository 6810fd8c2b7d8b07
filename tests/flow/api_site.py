"""A hub with its API open to keys, and two commands of an invented plugin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import aiohttp
import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from yarl import URL

from hub.app import HubApp
from hub.clock import Clock
from hub.contract import Command, Connection, EventType, FeedView, Hub, Report, Rest, UnitOfWork
from hub.control import run_command
from hub.errors import InputError
from hub.model import Draft, Json
from hub.plugins import Registry
from hub.testing import RecordingSink, connector, plain_event_type, registry_of, running_hub
from tests.console_site import served

TOKEN = "an-operators-token"
MADE = "vn.congdoan.thing.made.v1"
SECRET = "vn.congdoan.person.changed.v1"
THING = EventType(
    name=MADE,
    title_vi="Đã làm",
    title_en="Made",
    personal=False,
    thin=("id",),
    schema={
        "type": "object",
        "required": ["id"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "maxLength": 20},
            "parts": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        },
    },
    example={"id": "t-1"},
)


class Make(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: str = Field(max_length=40, json_schema_extra={"argument": True})
    count: int = Field(1, ge=1, le=9)
    colour: Literal["red", "blue"] | None = None
    of: UUID | None = None


class Look(BaseModel):
    model_config = ConfigDict(extra="forbid")
    no: int = Field(ge=1, le=99, json_schema_extra={"argument": True})
    full: bool = False
    since: AwareDatetime | None = None


@dataclass
class Works:
    """What the plugin's commands do, and who asked for it."""

    asked_by: list[Any] = field(default_factory=list)
    #: Cleared, it keeps a command from ending.
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    fail: bool = False

    async def make(self, hub: Hub, p: Make, report: Report) -> Json:
        self.asked_by.append(hub.principal)
        await self.may_end.wait()
        if self.fail:
            raise InputError("no clay", problem="not-settled", status=409)
        key = hub.principal.request_key or p.id
        draft = Draft(type=MADE, source="/things", dedupe_key=key, data={"id": p.id})
        (made,) = (await hub.commit(UnitOfWork(drafts=[draft]))).events
        return {"id": p.id, "count": p.count, "event": made, "run": len(self.asked_by)}

    async def look(self, hub: Hub, p: Look, report: Report) -> Json:
        return {"no": p.no, "full": p.full, "owner": hub.principal.owner}

    def commands(self) -> list[Command]:
        return [
            Command(
                group="things", name="make", params=Make, run=self.make, help_vi="Làm", help_en="Make",
                rest=Rest(method="POST", path="/things/{id}", scope="things:make", status=201),
            ),
            Command(
                group="things", name="look", params=Look, run=self.look, help_vi="Xem", help_en="Look", writes=False,
                rest=Rest(method="GET", path="/things/{no}/look", scope="things:look", narrows=True),
            ),
        ]  # fmt: skip


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def problem(self) -> str:
        assert self.headers["content-type"].startswith("application/problem+json"), self
        return str(self.body["type"]).removeprefix("/problems/")

    @property
    def place(self) -> str:
        """What the problem points at."""
        (error,) = self.body["errors"]
        return str(error.get("pointer") or error.get("parameter"))


@dataclass
class Site:
    hub: HubApp
    url: str
    http: aiohttp.ClientSession
    works: Works
    sink: RecordingSink

    async def call(
        self, method: str, path: str, key: str = TOKEN, json: Any = None, headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:  # fmt: skip
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        if json is not None:
            data = orjson.dumps(json)
        if data is not None:
            sent["Content-Type"] = "application/json"
        address = URL(self.url + path, encoded=True)
        async with self.http.request(method, address, data=data, headers={**sent, **(headers or {})}) as answer:
            raw = await answer.read()
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, raw)

    async def get(self, path: str, key: str = TOKEN, **more: Any) -> Answer:
        return await self.call("GET", f"/api/v1{path}", key, **more)

    async def post(self, path: str, json: Any = None, key: str = TOKEN, **more: Any) -> Answer:
        return await self.call("POST", f"/api/v1{path}", key, json, **more)

    async def key(self, *scopes: str, **more: Any) -> str:
        """A new key, made as on the command line."""
        made = await self.run("keys add", name="an app", scopes=",".join(scopes), **more)
        return str(made["key"])

    async def run(self, command: str, **params: Any) -> Json:
        return await run_command(self.hub, command, params, lambda progress: None)

    async def publish(self, number: int, key: str = TOKEN, **more: Any) -> str:
        answer = await self.post("/events", {"type": MADE, "data": {"id": f"t-{number}"}, **more}, key)
        assert answer.status == 202, answer
        return str(answer.body["id"])

    async def count(self, table: str) -> int:
        return int((await self.hub.store.read(f"SELECT count(*) FROM {table}"))[0][0])


@asynccontextmanager
async def open_site(
    folder: Path,
    *,
    clock: Clock | None = None,
    database_url: str = "",
    token: str = TOKEN,
    feed_view: FeedView | None = None,
    works: Works | None = None,
    settings: Json | None = None,
    plugins: Registry | None = None,
) -> AsyncIterator[Site]:
    """``plugins``: those installed beside the invented one."""
    works, sink = works or Works(), RecordingSink()
    works.may_end.set()
    registry = registry_of(
        plugins,
        connector_types=[connector("post", Connection(sink=sink))],
        event_types=[THING, plain_event_type(SECRET, personal=True)],
        commands=works.commands(),
        feed_view=None if feed_view is None else lambda hub: feed_view,
    )
    async with (
        running_hub(
            folder,
            registry,
            connections={"post": {}},
            subscriptions=[{"name": "all", "types": ["vn.congdoan.*"], "to": "post"}],
            settings={"database_url": database_url, **(settings or {})},
            clock=clock,
        ) as hub,
        served(hub, token) as url,
        aiohttp.ClientSession() as http,
    ):
        yield Site(hub, url, http, works, sink)
