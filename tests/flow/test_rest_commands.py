"""A command answers over HTTP as on the command line: one table, one code path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from hub.contract import Rest
from hub.testing import eventually
from hub.web.operations import of_commands
from tests.flow.api_site import MADE, Site, Works, open_site
from tests.flow.front_door import captured_log

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(tmp_path_factory.mktemp("hub"), settings={"http": {"max_body_bytes": 4096}}) as opened:
        yield opened


async def test_a_command_takes_its_fields_from_path_body_and_query(site: Site) -> None:
    made = await site.post("/things/cup", {"count": 2, "of": "0192f3c4-77aa-7bbb-8ccc-000000000001"})
    assert (made.status, made.body["id"], made.body["count"]) == (201, "cup", 2)
    assert made.headers["cache-control"] == "no-store"
    looked = await site.get("/things/7/look?full=true")
    assert (looked.status, looked.body) == (200, {"no": 7, "full": True, "owner": ""})
    assert await site.run("things look", no=7, full=True) == looked.body, "the same on the command line"
    assert site.works.asked_by[-1].name == "operator"


@pytest.mark.parametrize(
    ("body", "status", "problem", "place"),
    [
        ({"colours": 1}, 422, "input-invalid", "#/colours"),
        ({"count": "2"}, 422, "input-invalid", "#/count"),
        ({"count": 10}, 422, "input-invalid", "#/count"),
        ({"count": True}, 422, "input-invalid", "#/count"),
        ({"colour": "zzinput"}, 422, "input-invalid", "#/colour"),
        ({"of": "zzinput"}, 422, "input-invalid", "#/of"),
        ({"id": "zzinput"}, 422, "input-invalid", "#/id"),
        ({"<zzinput>": 1}, 422, "input-invalid", "#/*"),
        (["zzinput"], 422, "input-invalid", "#"),
        (b'{"count":1,"count":2}', 400, "json-duplicate-key", ""),
        (b'{"count":NaN}', 400, "json-number-range", ""),
        (b"\xef\xbb\xbf{}", 400, "json-invalid", ""),
        (b'{"colour":"\\u0000"}', 400, "json-nul", ""),
        (b"[" * 50, 400, "json-too-deep", ""),
        (b'{"x":"' + b"a" * 5000 + b'"}', 413, "body-too-large", ""),
    ],
)
async def test_a_wrong_body_is_a_problem_that_points_at_the_place_and_repeats_nothing(
    site: Site, body: Any, status: int, problem: str, place: str
) -> None:
    before = len(site.works.asked_by)
    sent = {"data": body} if isinstance(body, bytes) else {"json": body}
    answer = await site.post("/things/cup", **sent)
    assert (answer.status, answer.problem) == (status, problem)
    if place:
        assert answer.place == place
    assert b"zzinput" not in answer.raw
    assert len(site.works.asked_by) == before, "it was run"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/things/7/look?x=1", "x"), ("/things/7/look?full=perhaps", "full"), ("/things/7/look?full=1&full=1", "full"),
        ("/things/0/look", "no"), ("/things/zzinput/look", "no"), ("/things/7/look?full=%00", "full"),
        ("/things/7/look?full=%ed%a0%80", "full"), ("/things/7/look?no=8", "no"), ("/things/7/look?since=0.5", "since"),
        ("/things/7/look?since=2026-11-23", "since"),
    ],
)  # fmt: skip
async def test_a_wrong_parameter_is_named(site: Site, path: str, place: str) -> None:
    answer = await site.get(path)
    assert (answer.status, answer.problem) == (400, "input-invalid")
    if "no=8" not in path:
        assert answer.place == place
    assert b"zzinput" not in answer.raw


async def test_only_plain_json_is_a_body_and_a_query_is_none(site: Site) -> None:
    text = await site.post("/things/cup", data=b"{}", headers={"Content-Type": "text/plain"})
    zipped = await site.post("/things/cup", data=b"{}", headers={"Content-Encoding": "gzip"})
    assert (text.problem, zipped.problem) == ("media-type-unsupported", "content-encoding-unsupported")
    assert (await site.post("/things/cup?count=2", {})).place == "count"
    other = await site.call("PUT", "/api/v1/things/cup", json={})
    assert (other.status, other.problem, other.headers["allow"]) == (405, "method-not-allowed", "POST")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "//["}],
)
async def test_a_page_of_another_site_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    before = len(site.works.asked_by)
    answer = await site.post("/things/cup", headers=headers)
    assert (answer.status, answer.problem) == (403, "cross-site")
    assert len(site.works.asked_by) == before
    own = await site.post("/things/own", headers={"Origin": site.url, "Sec-Fetch-Site": "same-origin"})
    assert own.status == 201


async def test_what_a_command_refuses_is_told_as_a_problem(site: Site) -> None:
    absent = "0192f3c4-77aa-7bbb-8ccc-000000000001"
    assert (await site.post(f"/deliveries/{absent}/replay")).problem == "not-found"
    unread = await site.post("/deliveries/zzinput/replay")
    assert (unread.status, unread.problem, unread.place) == (400, "id-invalid", "id")
    assert b"zzinput" not in unread.raw
    assert (await site.post("/connections/nobody/pause")).problem == "not-found"


async def test_an_operator_pauses_resumes_and_sends_again(site: Site) -> None:
    event = await site.publish(1)
    rows = await eventually(lambda: _settled(site, event))
    paused = await site.post("/connections/post/pause", {"reason": "moving house"})
    assert (paused.status, paused.body) == (200, {"name": "post", "state": "paused"})
    again = await site.post(f"/deliveries/{rows[0]['id']}/replay")
    assert again.status == 200
    (state,) = (await site.get("/connections")).body["connections"]
    assert (state["state"], state["reason"]) == ("paused", "moving house")
    assert (await site.post("/connections/post/resume")).status == 200
    await eventually(lambda: sum(str(s.event.id) == event for s in site.sink.shipments) == 2)


async def _settled(site: Site, event: str) -> Any:
    return (await site.get(f"/deliveries?state=delivered&event_id={event}")).body["deliveries"]


async def test_the_document_tells_of_commands_and_of_what_is_sent(site: Site) -> None:
    document = (await site.call("GET", "/api/openapi.json")).body
    make = document["paths"]["/api/v1/things/{id}"]["post"]
    taken = make["requestBody"]["content"]["application/json"]["schema"]
    assert set(taken["properties"]) == {"count", "colour", "of"} and taken["additionalProperties"] is False
    assert {p["name"] for p in make["parameters"]} == {"id", "Idempotency-Key"}
    assert {"201", "400", "401", "403", "409", "422", "429", "503"} <= set(make["responses"])
    hook = document["webhooks"][MADE]["post"]["requestBody"]["content"]["application/cloudevents+json"]["schema"]
    assert set(hook["properties"]["data"]["properties"]) == {"id", "parts"}
    assert "required" not in hook["properties"]["data"], "what was not granted is not there"


async def test_a_command_with_a_path_that_cannot_be_is_left_out() -> None:
    make, look = Works().commands()
    bad = [
        replace(make, rest=Rest(method="POST", path="things", scope="x")),
        replace(make, rest=Rest(method="POST", path="/things/{nothing}", scope="x")),
        replace(look, rest=Rest(method="POST", path="/things/{no}", scope="x")),
    ]
    named = {f"c{n}": command for n, command in enumerate([make, *bad])}
    assert [operation.path for operation in of_commands(named)] == ["/things/{id}"]


async def test_a_write_is_logged_with_who_asked_and_a_read_is_not(site: Site) -> None:
    key = await site.key("things:make", "things:look")
    with captured_log() as log:
        await site.get("/things/3/look", key)
        await site.post("/things/cup", {}, key)
        await eventually(lambda: b"api.answered" in log.getvalue())
        (line,) = [line for line in log.getvalue().decode().splitlines() if "api.answered" in line]
    assert '"who":"key:' in line and '"operation":"things_make"' in line and key not in line
