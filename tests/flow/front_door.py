"""A hub behind its real server, and what a stranger or a genuine sender puts on its wire."""

from __future__ import annotations

import asyncio
import base64
import hmac
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from hub import log as hub_log
from hub.app import HubApp
from hub.contract import Connection, ConnectorType, RawRequest, UnitOfWork, Verified
from hub.model import Draft, Json
from hub.plugins import load_plugins
from hub.testing import RecordingSink, connector, plain_event_type, registry_of, running_hub
from hub.web import server
from hub.web.problems import PROBLEMS
from tests.engines import tables

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NAME = "c-thainguyen"
#: Part of everything hostile that is sent here; must come back in no answer and no log line.
MARK = "zq9801547"
PHONE = "0912555123"
QUESTION = "vn.congdoan.question.asked.v1"


@dataclass
class Answer:
    """One response as it came over the socket."""

    status: int
    headers: dict[str, str]
    body: bytes
    #: What else was sent before the server closed.
    rest: bytes = b""

    @property
    def problem(self) -> str:
        """The slug, after checking that this is a problem document that tells nothing of the request."""
        assert self.headers["content-type"].startswith("application/problem+json"), self
        found = orjson.loads(self.body)
        slug = str(found["type"]).removeprefix("/problems/")
        assert slug in PROBLEMS and found["status"] == self.status, found
        assert found["title"] == " / ".join(PROBLEMS[slug])
        for told in (MARK, PHONE, "Traceback", ".py", "Error"):
            assert told not in self.body.decode(), found
        return slug


@dataclass
class Door:
    """Where the hub listens."""

    hub: HubApp
    http: aiohttp.ClientSession
    port: int
    log: io.BytesIO

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def post(self, body: bytes, headers: dict[str, str], path: str = f"/in/{NAME}", **more: Any) -> Answer:
        async with self.http.post(self.url(path), data=body, headers=headers, **more) as response:
            return await _read(response)

    async def get(self, path: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        url = URL(self.url(path), encoded=True)
        async with self.http.get(url, headers=headers, allow_redirects=False, **more) as response:
            return await _read(response)

    async def raw(self, sent: bytes, *, within_s: float = 5.0) -> Answer:
        """Sends bytes and reads until the server closes: both what was answered and that nothing followed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(within_s):
                writer.write(sent)
                return parse(await reader.read())
        finally:
            writer.close()

    async def rows(self) -> dict[str, int]:
        """How many rows every table has: what "nothing stored" means."""
        names = await tables(self.hub)
        return {name: (await self.hub.store.read(f'SELECT count(*) FROM "{name}"'))[0][0] for name in names}

    def lines(self, event: str) -> list[Json]:
        return [line for line in map(orjson.loads, self.log.getvalue().splitlines()) if line["event"] == event]


async def _read(response: aiohttp.ClientResponse) -> Answer:
    return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())


def parse(received: bytes) -> Answer:
    """The first response in ``received``; what follows its body is kept apart."""
    head, _, after = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    return Answer(int(first.split()[1]), headers, after[:length], after[length:])


def question(id: str = "q-1", text: str = "Công ty chậm trả lương, công đoàn giúp chúng tôi.") -> bytes:
    worker = {"name": "Nguyễn Thị Mẫu", "phone": PHONE}
    return orjson.dumps(
        {"type": "question", "id": id, "worker": worker, "text": text, "asked_at": "2026-11-23T14:05:09+07:00"}
    )


def signed(body: bytes, id: str = "msg_1", at: str = "", key: bytes = KEY, version: str = "v1") -> dict[str, str]:
    """The headers of a genuine sender. ``at``: seconds since 1970 as they shall be written."""
    at = at or str(int(datetime.now(UTC).timestamp()))
    digest = hmac.digest(key, f"{id}.{at}.".encode() + body, "sha256")
    return {
        "Content-Type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": at,
        "webhook-signature": f"{version},{base64.b64encode(digest).decode()}",
    }


def raw_request(headers: dict[str, str], body: bytes = b"", *more: bytes, path: str = f"/in/{NAME}") -> bytes:
    """A POST by hand, headers in Latin-1: ``more`` are header lines as they shall stand on the wire."""
    lines = [f"POST {path} HTTP/1.1".encode(), *(f"{k}: {v}".encode("latin-1") for k, v in headers.items()), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class _Fragile:
    """A receiver whose mapping has a bug: it trusts a field to be there."""

    def verify(self, request: RawRequest) -> Verified:
        return Verified(request.headers["webhook-id"])

    def understand(self, request: RawRequest, verified: Verified, body: Any) -> UnitOfWork:
        data = {"n": body["n"]["m"]}
        return UnitOfWork(drafts=[Draft(type="vn.congdoan.test.made.v1", source="", dedupe_key="x", data=data)])


class _Broken(_Fragile):
    """A receiver that falls over what it was sent, and says what that was."""

    def verify(self, request: RawRequest) -> Verified:
        raise ValueError(f"cannot verify {request.body!r} of {request.headers!r}")


def _types() -> list[ConnectorType]:
    return [
        connector("fragile", Connection(receiver=_Fragile())),
        connector("broken", Connection(receiver=_Broken())),
        connector("quiet", Connection(sink=RecordingSink())),
    ]


@contextmanager
def captured_log() -> Iterator[io.BytesIO]:
    """Log lines of the process, strictly catalogued; the process's own stream comes back afterwards."""
    before, handlers, level = vars(hub_log._state).copy(), logging.root.handlers[:], logging.root.level
    lines = io.BytesIO()
    hub_log.configure(lines, strict=True)
    try:
        yield lines
    finally:
        vars(hub_log._state).update(before)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


@asynccontextmanager
async def open_door(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, token: str = "", settings: Json | None = None
) -> AsyncIterator[Door]:
    """A citizen app that posts questions, a receiver with a bug, and a connection that takes nothing."""
    monkeypatch.setenv("APP_SECRET", "s3cret")
    monkeypatch.setenv("HOOK", SECRET)
    app = {
        "base_url": "http://127.0.0.1:1",
        "client_id": "union-hub",
        "client_secret": {"env": "APP_SECRET"},
        "webhook_secrets": [{"env": "HOOK"}],
    }
    registry = registry_of(
        load_plugins(), connector_types=_types(), event_types=[plain_event_type("vn.congdoan.test.made.v1")]
    )
    with captured_log() as lines:
        async with running_hub(
            folder,
            registry,
            connections={NAME: {"type": "citizen_app", "settings": app}, "fragile": {}, "broken": {}, "quiet": {}},
            subscriptions=[{"name": "s", "types": [QUESTION], "to": "quiet"}],
            settings=settings,
        ) as hub:
            runner = server.runner(server.build(hub, token))
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with aiohttp.ClientSession() as http:
                yield Door(hub, http, runner.addresses[0][1], lines)
            await runner.cleanup()
