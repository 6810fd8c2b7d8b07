"""Publishing, and the same request again: one answer, one event, whatever happened in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from sqlalchemy import text

from hub.model import to_us
from hub.retention import Pruner, Rules
from hub.sql import Statement, query
from hub.store.base import Unit
from hub.testing import StandingClock, eventually
from tests.engines import put_key, stored_bytes
from tests.flow.api_site import MADE, SECRET, Site, Works, open_site
from tests.flow.conftest import ON_BOTH


def once(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """For what leaves nothing behind."""
    async with open_site(tmp_path_factory.mktemp("hub")) as opened:
        yield opened


EVENT = {"type": MADE, "data": {"id": "t-1"}}


@ON_BOTH
async def test_a_published_event_is_delivered_once_however_often_it_is_sent(tmp_path: Path, database_url: str) -> None:
    async with open_site(tmp_path, database_url=database_url) as site:
        key = await site.key("events:publish")
        first = await site.post("/events", EVENT, key, headers=once("k1"))
        assert first.status == 202 and "idempotency-replayed" not in first.headers
        again = [await site.post("/events", EVENT, key, headers=once(k)) for k in ("k1", '"k1"')]
        spaced = await site.post("/events", data=b'{"data": {"id":"t-1"}, "type":"%b"}' % MADE.encode(), key=key,
                                 headers=once("k1"))  # fmt: skip
        for answer in (*again, spaced):
            assert (answer.status, answer.raw) == (202, first.raw)
            assert answer.headers["idempotency-replayed"] == "true"
        other = await site.post("/events", {**EVENT, "data": {"id": "t-2"}}, key, headers=once("k1"))
        assert (other.status, other.problem, other.place) == (422, "idempotency-key-reused", "Idempotency-Key")
        elsewhere = await site.post("/things/cup", {}, headers=once("k1"))
        assert elsewhere.status == 201, "another principal's key is another key"
        own = await site.post("/events", EVENT, key, headers=once("k2"))
        assert own.body["id"] != first.body["id"]
        await eventually(lambda: len(site.sink.shipments) == 3)
        assert len({s.event.id for s in site.sink.shipments}) == 3
        (row,) = await site.hub.store.read(
            "SELECT source FROM event WHERE id = ?", (bytes.fromhex(first.body["id"].replace("-", "")),)
        )
        assert "/api/key:" in row[0]


@ON_BOTH
async def test_while_the_first_runs_its_repeat_is_told_so(tmp_path: Path, database_url: str) -> None:
    async with open_site(tmp_path, database_url=database_url) as site:
        site.works.may_end.clear()
        first = asyncio.create_task(site.post("/things/cup", {}, headers=once("k")))
        await eventually(lambda: site.works.asked_by)
        second = await site.post("/things/cup", {}, headers=once("k"))
        assert (second.status, second.problem) == (409, "request-in-flight")
        other = await site.post("/things/cup", {"count": 2}, headers=once("k"))
        assert (other.status, other.problem) == (422, "idempotency-key-reused")
        site.works.may_end.set()
        answer = await first
        assert answer.status == 201 and len(site.works.asked_by) == 1
        assert (await site.post("/things/cup", {}, headers=once("k"))).raw == answer.raw


@ON_BOTH
async def test_of_a_hundred_at_once_one_is_done(tmp_path: Path, database_url: str) -> None:
    async with open_site(tmp_path, database_url=database_url) as site:
        answers = await asyncio.gather(*(site.post("/events", EVENT, headers=once("k")) for _ in range(100)))
        assert {a.status for a in answers} <= {202, 409}
        assert len({a.raw for a in answers if a.status == 202}) == 1 == await site.count("event")
        assert {a.problem for a in answers if a.status == 409} <= {"request-in-flight"}
        assert (await site.post("/events", EVENT, headers=once("k"))).status == 202


@pytest.mark.asyncio(loop_scope="module")
async def test_the_catalogue_tells_schema_and_an_example_that_fits_for_every_type(still: Site) -> None:
    kinds = (await still.get("/event-types")).body["event_types"]
    assert [kind["type"] for kind in kinds] == [SECRET, MADE] and kinds[1]["version"] == 1
    for kind in kinds:
        jsonschema.validate(kind["example"], kind["schema"])


async def test_what_was_refused_may_be_tried_again_with_the_same_key(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        site.works.fail = True
        refused = await site.post("/things/cup", {}, headers=once("k"))
        assert (refused.status, refused.problem) == (409, "not-settled")
        site.works.fail = False
        mended = await site.post("/things/cup", {"count": 2}, headers=once("k"))
        assert mended.status == 201, "with another body too: nothing had been done"
        assert await site.count("idempotency") == 1


_LOSE = query(text("UPDATE idempotency SET status = NULL, answer = NULL, boot = :boot"))


@ON_BOTH
async def test_what_a_dead_process_left_half_done_is_done_again_and_adds_nothing(
    tmp_path: Path, database_url: str
) -> None:
    async with open_site(tmp_path, database_url=database_url) as site:
        for path, body in (("/things/cup", {}), ("/events", EVENT)):
            first = await site.post(path, body, headers=once(path))
            # As if it had died between its event's commit and its answer's.
            await site.hub.store.commit(_statement(_LOSE(boot=b"another process.")))
            again = await site.post(path, body, headers=once(path))
            assert "idempotency-replayed" not in again.headers
            event = "event" if path == "/things/cup" else "id"
            assert (again.status, again.body[event]) == (first.status, first.body[event])
        assert await site.count("event") == 2


def _statement(statement: Statement) -> Unit:
    return Unit(statements=[statement])


async def test_a_key_is_forgotten_after_a_day_and_its_answer_is_sealed_until_then(tmp_path: Path) -> None:
    clock = StandingClock()
    async with open_site(tmp_path, clock=clock) as site:
        first = await site.post("/things/a-very-rare-cup", {}, headers=once("k"))
        stored = await stored_bytes(site.hub)
        assert b'"count":1' in first.raw and first.raw not in stored
        clock.now += timedelta(hours=23, minutes=59)
        assert (await site.post("/things/a-very-rare-cup", {}, headers=once("k"))).raw == first.raw
        clock.now += timedelta(minutes=2)
        later = await site.post("/things/a-very-rare-cup", {"count": 2}, headers=once("k"))
        assert later.body["run"] == 2 and later.body["event"] != first.body["event"]
        clock.now += timedelta(days=2)
        gone = await Pruner(site.hub.store, Rules.of(site.hub.config, site.hub.router), clock).one_pass()
        assert gone["idempotency"] == 1 and await site.count("idempotency") == 0


@pytest.mark.parametrize("key", ["", " ", '""', "a" * 201, "a b", "ké"])
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_key_is_refused(still: Site, key: str) -> None:
    answer = await still.post("/events", EVENT, headers=once(key))
    assert (answer.status, answer.problem) == (400, "idempotency-key-invalid")
    assert await still.count("event") == 0


@pytest.mark.parametrize(
    ("body", "problem", "place"),
    [
        ({"type": "vn.congdoan.thing.zzinput.v1", "data": {}}, "event-type-unknown", "#/type"),
        ({"type": "vn.congdoan.request.quarantined.v1", "data": {}}, "event-type-unknown", "#/type"),
        ({"type": MADE, "data": {}}, "payload-invalid", "#/data"),
        ({"type": MADE, "data": {"id": "zzinput" * 9}}, "payload-invalid", "#/data/id"),
        ({"type": MADE, "data": {"id": "x", "zzinput": 1}}, "payload-invalid", "#/data"),
        ({"type": MADE, "data": {"id": "x", "parts": [{}, {"n": "zzinput"}]}}, "payload-invalid", "#/data/parts/1/n"),
        ({"type": MADE, "data": "zzinput"}, "input-invalid", "#/data"),
        ({"type": MADE, "data": '{"id": "x"}'}, "input-invalid", "#/data"),
        ({"type": MADE}, "input-invalid", "#/data"),
        ({**EVENT, "subject": "0912555123"}, "input-invalid", "#/subject"),
        ({**EVENT, "subject": "Nguyễn Thị Mẫu"}, "input-invalid", "#/subject"),
        ({**EVENT, "occurred_at": "2026-11-23T07:00:00"}, "input-invalid", "#/occurred_at"),
        ({**EVENT, "colour": "red"}, "input-invalid", "#/colour"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_does_not_fit_is_refused_with_the_place(still: Site, body: Any, problem: str, place: str) -> None:
    answer = await still.post("/events", body)
    assert (answer.status, answer.problem, answer.place) == (422, problem, place)
    assert b"zzinput" not in answer.raw and b"0912555123" not in answer.raw
    assert await still.count("event") == 0


async def test_the_senders_own_id_is_one_event_and_another_content_a_conflict(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        first = await site.publish(1, id="mine-1")
        assert await site.publish(1, id="mine-1") == first
        other = await site.post("/events", {"type": MADE, "data": {"id": "t-2"}, "id": "mine-1"})
        assert (other.status, other.problem) == (409, "idempotency-conflict")
        assert await site.count("event") == 1


async def test_personal_content_is_sealed_and_the_command_line_publishes_too(tmp_path: Path) -> None:
    async with open_site(tmp_path, works=Works()) as site:
        data = {"id": "m-1", "n": "a rare sentence about a person"}
        made = await site.run("events publish", type=SECRET, data=str(data).replace("'", '"'), subject="member-1")
        assert made["status"] == "accepted" and b"a rare sentence" not in await stored_bytes(site.hub)
        assert await _subjects(site) == ["member-1"]


async def _subjects(site: Site) -> list[str]:
    return [subject for (subject,) in await site.hub.store.read("SELECT subject FROM event")]


@pytest.mark.postgres
async def test_what_runs_on_another_node_is_in_flight_until_that_node_is_silent(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    put_key(tmp_path)
    async with open_site(tmp_path, database_url=request.getfixturevalue("postgres_dsn")) as site:
        first = await site.post("/events", EVENT, headers=once("k"))
        await site.hub.store.commit(_statement(_LOSE(boot=b"another process.")))
        now = to_us(site.hub.now())
        await site.hub.store.beat(b"another process.", "other", now, now + 60_000_000)
        running = await site.post("/events", EVENT, headers=once("k"))
        assert (running.status, running.problem) == (409, "request-in-flight")
        await site.hub.store.leave(b"another process.")
        again = await site.post("/events", EVENT, headers=once("k"))
        assert (again.status, again.body["id"]) == (202, first.body["id"])
