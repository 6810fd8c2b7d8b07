"""What ``/in/{connection}`` takes: as its receiver says, and as its configuration limits and keeps it."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hub import views
from hub.app import HubApp
from hub.clock import Clock
from hub.contract import Connection, Inbound, RawRequest, UnitOfWork, Verified
from hub.errors import NotUnderstood, Unauthenticated
from hub.model import Draft
from hub.rawrequests import find
from hub.retention import Pruner, Rules
from hub.testing import StandingClock, connector, plain_event_type, registry_of, running_hub
from tests.console_site import served
from tests.engines import stored_bytes
from tests.flow.api_site import Answer
from tests.flow.conftest import ON_BOTH

TYPE = "vn.congdoan.note.taken.v1"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Notes:
    """Keeps every request it was shown; understands all but what says "?"."""

    requests: list[RawRequest] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    learned: bool = False

    def verify(self, request: RawRequest) -> Verified:
        if request.headers.get("x-genuine") != "yes":
            raise Unauthenticated
        return Verified(f"{request.path}?{request.query.get('id', '')}{request.headers.get('id', '')}")

    def understand(self, request: RawRequest, verified: Verified, body: Any) -> UnitOfWork:
        self.requests.append(request)
        self.bodies.append(body)
        if not self.learned and (request.query.get("id") == "?" or (isinstance(body, dict) and "?" in body)):
            raise NotUnderstood
        data = {"id": request.path, "n": request.query.get("id")}
        return UnitOfWork(drafts=[Draft(type=TYPE, source="", dedupe_key=verified.dedupe_key, data=data)])


@dataclass
class Door:
    hub: HubApp
    url: str
    http: aiohttp.ClientSession
    notes: Notes

    async def send(
        self, path: str, body: bytes | None = None, method: str = "POST", media: str = "application/json", **more: str
    ) -> Answer:
        headers = {"X-Genuine": "yes", **({"Content-Type": media} if body is not None else {}), **more}
        data = None if body is None else io.BytesIO(body)
        async with self.http.request(method, f"{self.url}/in/{path}", data=data, headers=headers) as answer:
            raw = await answer.read()
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, raw)

    async def count(self, table: str) -> int:
        return int((await self.hub.store.read(f"SELECT count(*) FROM {table}"))[0][0])


OPERATOR = Inbound(
    methods=("GET", "POST"), media=("application/json", FORM), status=200, answer=b"ACK", answer_media="text/plain"
)


@asynccontextmanager
async def door(
    folder: Path,
    inbound: dict[str, Any] | None = None,
    takes: Inbound | None = None,
    clock: Clock | None = None,
    database_url: str = "",
) -> AsyncIterator[Door]:
    notes = Notes()
    made = Connection(receiver=notes, inbound=takes or Inbound())
    registry = registry_of(
        connector_types=[connector("notes", made), connector("plain", Connection(receiver=Notes()))],
        event_types=[plain_event_type(TYPE)],
    )
    async with (
        running_hub(
            folder, registry, connections={"notes": {"inbound": inbound or {}}, "plain": {}}, clock=clock,
            settings={"database_url": database_url},
        ) as hub,
        served(hub) as url,
        aiohttp.ClientSession() as http,
    ):  # fmt: skip
        yield Door(hub, url, http, notes)


async def test_a_receiver_gets_method_path_and_query_and_answers_in_its_senders_words(tmp_path: Path) -> None:
    async with door(tmp_path, takes=OPERATOR) as at:
        got = await at.send("notes/receipts/v%2F1?id=7&id=8&x=", method="GET")
        assert (got.status, got.raw, got.headers["content-type"]) == (200, b"ACK", "text/plain")
        (request,) = at.notes.requests
        assert (request.method, request.path, request.query) == ("GET", "receipts/v%2F1", {"id": "8", "x": ""})
        assert request.remote == "127.0.0.1" and at.notes.bodies == [b""]
        assert (await at.send("notes/form", b"a=1&b=%C4%91", media=FORM)).status == 200
        assert at.notes.bodies[-1] == b"a=1&b=%C4%91", "what is not JSON is handed over as it came"
        assert (await at.send("notes/json", b'{"a":1}')).status == 200
        assert at.notes.bodies[-1] == {"a": 1}
        assert at.notes.requests[-1].path == "json"
        again = await at.send("notes/receipts/v%2F1?id=7&id=8&x=", method="GET")
        assert (again.status, await at.count("event")) == (200, 3), "a repeat is accepted and adds nothing"


async def test_what_a_receiver_does_not_take_is_refused_before_it(tmp_path: Path) -> None:
    async with door(tmp_path, takes=OPERATOR) as at:
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
            refused = await at.send("notes", method=method)
            assert (refused.status, refused.problem, refused.headers["allow"]) == (
                405,
                "method-not-allowed",
                "GET, POST",
            )
        assert (await at.send("plain", method="GET")).headers["allow"] == "POST"
        for media in ("text/plain", "application/xml", f"{FORM}; charset=utf-7", "application/jsonp"):
            assert (await at.send("notes", b"{}", media=media)).problem == "media-type-unsupported"
        assert (await at.send("plain", b"a=1", media=FORM)).status == 415
        assert (await at.send("notes/x", b"{}", **{"Content-Encoding": "gzip"})).status == 415
        forged = await at.send("notes", b"{}", **{"X-Genuine": "no"})
        assert (forged.status, forged.problem) == (
            401,
            "signature-invalid",
        ) and "www-authenticate" not in forged.headers
        assert (await at.send("nobody/at/all", method="GET")).problem == "not-found"
        assert at.notes.requests == [] and await at.count("event") == 0


async def test_a_size_of_its_own_stands_over_the_hubs(tmp_path: Path) -> None:
    big, small = b'{"a":"' + b"x" * 3_000_000 + b'"}', b'{"a":"' + b"x" * 2000 + b'"}'
    async with door(tmp_path, {"max_body_bytes": 4_000_000}) as at:
        assert (await at.send("notes", big)).status == 202
        assert (await at.send("notes", big, Expect="100-continue", id="2")).status == 202
        assert (await at.send("plain", big)).problem == "body-too-large"
    (tmp_path / "other").mkdir()
    async with door(tmp_path / "other", {"max_body_bytes": 1024}) as at:
        assert (await at.send("notes", small)).problem == "body-too-large"
        assert (await at.send("plain", small)).status == 202
    (tmp_path / "third").mkdir()
    async with door(tmp_path / "third", takes=replace(OPERATOR, max_body_bytes=1024)) as at:
        assert (await at.send("notes", small)).problem == "body-too-large"


async def test_a_source_that_sends_too_often_waits_and_the_others_do_not(tmp_path: Path) -> None:
    async with door(tmp_path, {"per_min": 3}) as at:
        answers = [await at.send("notes", b"{}", id=str(n)) for n in range(5)]
        assert [answer.status for answer in answers] == [202, 202, 202, 429, 429]
        assert answers[-1].problem == "rate-limited" and 1 <= int(answers[-1].headers["retry-after"]) <= 20
        assert await at.count("event") == 3
        assert (await at.send("plain", b"{}")).status == 202


@pytest.mark.parametrize(
    ("keep", "unread", "rows"), [("none", 422, (0, 0)), ("failures", 202, (2, 1)), ("all", 202, (3, 1))]
)
async def test_what_is_kept_as_it_came_is_what_the_connection_says(
    tmp_path: Path, keep: str, unread: int, rows: tuple[int, int]
) -> None:
    async with door(tmp_path, {"keep_raw": keep}) as at:
        for _ in range(2):
            assert (await at.send("notes", b'{"read":"a rare word"}', id="1")).status == 202
            assert (await at.send("notes", b'{"?":"a rare word"}', id="2")).status == unread
            assert (await at.send("notes?x=%ff%00", b"a rare word", id="3", odd="\udc80")).status == 400
        assert (await at.send("notes", b"a rare word", **{"X-Genuine": "no"})).status == 401
        assert await at.count("raw_request") == rows[0], "each once, and nothing of a stranger"
        assert len(await views.repairs(at.hub.store)) == rows[1]
        assert b'{"?":"a rare word"}' not in await stored_bytes(at.hub)


@ON_BOTH
async def test_a_kept_request_is_read_again_whole_with_its_path_and_query(tmp_path: Path, database_url: str) -> None:
    async with door(tmp_path, takes=OPERATOR, database_url=database_url) as at:
        assert (
            await at.send("notes/dlr/9?id=?", method="GET", **{"X-Kind": "dlr", "Authorization": "s"})
        ).status == 200
        assert (await at.send("notes/json", b'{"?":1}')).status == 200
        at.notes.learned = True
        assert await at.hub.reread("notes") == (2, 0)
        first = next(r for r in at.notes.requests[2:] if r.method == "GET")
        assert (first.path, first.query, first.headers["x-kind"]) == ("dlr/9", {"id": "?"}, "dlr")
        assert "authorization" not in first.headers
        assert at.notes.bodies[-1] == {"?": 1} or at.notes.bodies[-2] == {"?": 1}
        assert [e["type"] for e in await views.events(at.hub.store)].count(TYPE) == 2
        assert await views.repairs(at.hub.store) == []


async def test_a_kept_request_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    async with door(tmp_path, {"keep_raw": "all", "max_body_bytes": 8_388_608}) as at:
        sent = [random.Random(7).randbytes(5_000_000), b"\xff\xfe no text", b'{ "a" :\t1.0 }\n']
        for n, body in enumerate(sent):
            assert (await at.send("notes", body, id=str(n))).status == (202 if n == 2 else 400)
        rows = await at.hub.store.read("SELECT id FROM raw_request")
        kept = [(await find(id, at.hub.committer, at.hub.store))[0].body for (id,) in rows]
        assert {hashlib.sha256(b).digest() for b in kept} == {hashlib.sha256(b).digest() for b in sent}


async def test_what_was_kept_goes_after_its_days(tmp_path: Path) -> None:
    clock = StandingClock()
    async with door(tmp_path, {"keep_raw": "all", "keep_days": 2}, clock=clock) as at:
        assert (await at.send("notes", b"{}")).status == 202
        pruner = Pruner(at.hub.store, Rules.of(at.hub.config, at.hub.router), clock)
        for days, left in ((1, 1), (2, 0)):
            clock.now += timedelta(days=days)
            would = await pruner.would_go()
            assert would.get("raw_request", 0) == 1 - left
            await pruner.one_pass()
            assert await at.count("raw_request") == left
