"""API keys: what they may, how often, for how long, and what a test key never does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from hub import views
from hub.contract import Principal, UnitOfWork
from hub.errors import InputError, NotFound
from hub.model import Draft, Event, Json
from hub.sql import query
from hub.testing import StandingClock, eventually
from tests.engines import stored_bytes
from tests.flow.api_site import MADE, SECRET, TOKEN, open_site
from tests.flow.conftest import ON_BOTH, placed
from tests.flow.front_door import captured_log

ABSENT = "0192f3c4-77aa-7bbb-8ccc-000000000001"


@ON_BOTH
async def test_a_key_is_shown_once_kept_as_a_hash_and_gone_when_revoked(tmp_path: Path, database_url: str) -> None:
    async with open_site(tmp_path, database_url=database_url) as site:
        made = await site.run("keys add", name="an app", scopes="events:read, events:publish")
        key, id = made["key"], made["id"]
        assert key.startswith("hub_live_")
        assert (await site.get("/events", key)).status == 200
        stored = await stored_bytes(site.hub)
        assert key.encode() not in stored and key.removeprefix("hub_live_").encode() not in stored
        (listed,) = (await site.run("keys list"))["keys"]
        assert (listed["id"], listed["state"], listed["scopes"]) == (id, "active", ["events:publish", "events:read"])
        assert "key" not in listed and listed["last_used_at"] is not None
        assert (await site.call("DELETE", f"/api/v1/keys/{id}")).body == {"revoked": id}
        refused = await site.get("/events", key)
        assert (refused.status, refused.problem) == (401, "key-invalid")
        assert refused.headers["www-authenticate"] == "Bearer"
        with pytest.raises(NotFound):
            await site.run("keys revoke", id="00000000")


async def test_keys_are_made_over_http_by_an_administrator_alone(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        admin = await site.key("admin")
        made = await site.post("/keys", {"name": "an app", "scopes": ["things:look"]}, admin)
        assert made.status == 201 and made.body["key"].startswith("hub_live_")
        looks = await site.post("/keys", {"name": "more", "scopes": ["admin"]}, made.body["key"])
        assert (looks.status, looks.problem) == (403, "scope-missing")
        unknown = await site.post("/keys", {"name": "x", "scopes": ["things:look", "zz:zz"]}, admin)
        assert (unknown.status, unknown.place) == (422, "#/scopes/1") and b"zz:zz" not in unknown.raw
        typed = await site.post("/keys", {"name": "x", "scopes": "things:look"}, admin)
        assert (typed.status, typed.place) == (422, "#/scopes")
        with pytest.raises(InputError):
            await site.run("keys add", name="x", scopes="zz:zz")


async def test_a_key_opens_what_its_scopes_say_and_no_page(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        key = await site.key("things:look")
        assert (await site.get("/things/7/look", key)).status == 200
        for method, path in (("GET", "/events"), ("POST", "/things/cup"), ("POST", "/events"), ("GET", "/keys")):
            refused = await site.call(method, f"/api/v1{path}", key, json={} if method == "POST" else None)
            assert (refused.status, refused.problem) == (403, "scope-missing"), path
        for page in ("/", "/metrics", "/deliveries", "/live"):
            assert (await site.call("GET", page, key)).status == 403, page
        for wrong in ("", "hub_live_" + "a" * 43, key[:-1], key + "a", key.swapcase(), f"x{TOKEN}"):
            assert (await site.get("/things/7/look", wrong)).status == 401, wrong
        assert site.works.asked_by == []


async def test_no_key_is_in_a_line_an_error_or_an_answer(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        with captured_log() as log:
            key = await site.key("things:look")
            said = [
                await site.get(path, key)
                for path in ("/things/7/look", "/things/0/look", "/events", f"/things/{key}/look")
            ]
            said.append(await site.get("/things/7/look", key[:-1] + "x"))
            said.append(await site.call("GET", f"/api/v1/things/7/look?token={key}", ""))
            await eventually(lambda: b"key_unknown" in log.getvalue())
            assert key not in log.getvalue().decode() and key[9:-1] not in log.getvalue().decode()
        assert all(key[9:-1] not in answer.raw.decode() for answer in said)


async def test_an_end_is_announced_two_weeks_before_and_kept_to(tmp_path: Path) -> None:
    clock = StandingClock()
    async with open_site(tmp_path, clock=clock) as site:
        made = await site.run("keys add", name="an app", scopes="things:look", days=30)
        first = await site.get("/things/7/look", made["key"])
        assert "unionhub-key-expires" not in first.headers and await views.repairs(site.hub.store) == []
        clock.now += timedelta(days=17)
        second = await site.get("/things/7/look", made["key"])
        assert second.headers["unionhub-key-expires"] == "Wed, 23 Dec 2026 07:00:00 GMT"
        (repair,) = await views.repairs(site.hub.store)
        assert (repair["kind"], repair["object"]) == ("key_expiring", made["id"])
        clock.now += timedelta(days=13)
        ended = await site.get("/things/7/look", made["key"])
        assert (ended.status, ended.problem) == (401, "key-expired")
        await site.run("keys revoke", id=made["id"])
        assert await views.repairs(site.hub.store) == []


async def test_the_last_use_is_written_once_a_minute_at_most(tmp_path: Path) -> None:
    clock = StandingClock()
    async with open_site(tmp_path, clock=clock) as site:
        key = await site.key("things:look")
        uses = []
        for seconds in (0, 30, 29, 1, 59):
            clock.advance(seconds)
            await site.get("/things/7/look", key)
            uses.append((await site.run("keys list"))["keys"][0]["last_used_at"][14:19])
    assert uses == ["00:00", "00:00", "00:00", "01:00", "01:00"]


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        key, other = await site.key("things:look", rate=3), await site.key("things:look", rate=3)
        answers = [await site.get("/things/7/look", key) for _ in range(5)]
        assert [answer.status for answer in answers[:3]] == [200, 200, 200]
        assert answers[0].headers["ratelimit-policy"] == '"minute";q=3;w=60'
        assert answers[0].headers["ratelimit"].startswith('"minute";r=2;t=')
        last = answers[-1]
        assert (last.status, last.problem) == (429, "rate-limited")
        assert 1 <= int(last.headers["retry-after"]) <= 20
        assert last.headers["ratelimit"].startswith('"minute";r=0;t=')
        assert (await site.get("/things/7/look", other)).status == 200, "another key's requests count for themselves"


async def test_what_a_test_key_asks_for_is_checked_and_reaches_nobody(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        key = await site.key("things:make", "things:look", "events:publish", test=True)
        assert key.startswith("hub_test_")
        before = await site.count("event"), await site.count("queue"), await site.count("delivery")
        event = {"type": MADE, "data": {"id": "t-1"}}
        checked = await site.post("/events", event, key)
        assert (checked.status, checked.body["status"], checked.body["test"]) == (202, "checked", True)
        wrong = await site.post("/events", {"type": MADE, "data": {"id": 1}}, key)
        assert (wrong.status, wrong.problem) == (422, "payload-invalid")
        again = [await site.post("/events", event, key, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert again[0].raw == again[1].raw
        refused = await site.post("/things/cup", {}, key)
        assert (refused.status, refused.problem) == (403, "test-key-refused")
        assert (await site.get("/things/7/look", key)).status == 200
        assert (await site.count("event"), await site.count("queue"), await site.count("delivery")) == before
        assert site.sink.shipments == [] and site.works.asked_by == []


@ON_BOTH
async def test_a_key_that_sees_some_scopes_finds_nothing_else(tmp_path: Path, database_url: str) -> None:
    async with open_site(tmp_path, database_url=database_url) as site:
        ids = []
        for n, scope in enumerate(("CDCS-01", "CDCS-02", "")):
            draft = Draft(type=MADE, source="/t", dedupe_key=str(n), data={"id": scope}, scope=scope)
            ids.append(str((await site.hub.commit(UnitOfWork(drafts=[draft]))).events[0]))
        await placed(site.hub)
        scopes = ("events:read", "deliveries:read", "connections:read", "repairs:read", "events:publish", "things:make")
        key = await site.key(*scopes, sees="CDCS-01,CDCS-09")
        assert [e["id"] for e in (await site.get("/events?after=0", key)).body["events"]] == [ids[0]]
        mine = (await site.get("/deliveries", key)).body["deliveries"]
        assert [row["event_id"] for row in mine] == [ids[0]]
        assert (await site.get(f"/deliveries/{mine[0]['id']}", key)).status == 200
        for row in (await site.get("/deliveries")).body["deliveries"]:
            if row["event_id"] != ids[0]:
                foreign, absent = [await site.get(f"/deliveries/{id}", key) for id in (row["id"], ABSENT)]
                assert (foreign.status, foreign.raw) == (404, absent.raw)
        assert (await site.get(f"/deliveries?event_id={ids[1]}", key)).body["deliveries"] == []
        assert (await site.get("/connections", key)).body == {"connections": []}
        assert (await site.get("/repairs", key)).body == {"repairs": []}
        other = await site.post("/events", {"type": MADE, "data": {"id": "x"}, "scope": "CDCS-02"}, key)
        own = await site.post("/events", {"type": MADE, "data": {"id": "x"}, "scope": "CDCS-01"}, key)
        assert (other.status, own.status) == (404, 202)
        assert (await site.post("/things/cup", {}, key)).status == 404, "a command that does not ask who sees what"


async def test_a_plugins_key_sees_only_what_the_plugin_shows(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        await site.publish(1)
        await site.run("connections pause", name="post")
        key = await site.key("admin", owner="partner:so-noi-vu")
        assert (await site.get("/things/7/look", key)).body["owner"] == "partner:so-noi-vu"
        assert (await site.get("/events", key)).body["events"] == []
        assert (await site.get("/deliveries", key)).body["deliveries"] == []
        assert (await site.get("/connections", key)).body["connections"] == []
        (row,) = (await site.get("/deliveries")).body["deliveries"]
        for method, path in (
            ("GET", f"/deliveries/{row['id']}"), ("POST", f"/deliveries/{row['id']}/replay"),
            ("POST", "/connections/post/resume"), ("GET", "/keys"), ("POST", "/things/cup"),
        ):  # fmt: skip
            refused = await site.call(method, f"/api/v1{path}", key)
            assert (refused.status, refused.problem) == (404, "not-found"), path
        assert site.works.asked_by == []


# -- what a view makes of the feed -----------------------------------------------------------------


class Grants:
    """An invented plugin's view: things with even numbers, and of people their ids alone."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.broken = False

    async def __call__(self, principal: Principal, event: Event) -> Json | None:
        if self.broken:
            raise RuntimeError("no grants today")
        self.asked.append((principal.owner, event.data))
        if event.type == SECRET:
            return {"id": str(event.id), "data": {"id": event.data["id"]}}
        return None if int(event.data["id"][2:]) % 2 else {"id": str(event.id), "data": event.data}


@ON_BOTH
async def test_a_partner_reads_every_granted_event_once_and_in_order(tmp_path: Path, database_url: str) -> None:
    grants = Grants()
    async with open_site(tmp_path, database_url=database_url, feed_view=grants) as site:
        key = await site.key("events:read", owner="partner:p")
        made = [await site.publish(n) for n in range(9)]
        person = Draft(type=SECRET, source="/t", dedupe_key="p", subject="m-1", data={"id": "m-1", "n": "0912555123"})
        made.append(str((await site.hub.commit(UnitOfWork(drafts=[person]))).events[0]))
        await placed(site.hub)
        granted = [*made[0:9:2], made[9]]
        seen, after = [], 0
        while page := (await site.get(f"/events?after={after}&limit=2", key)).body:
            after = page["next"]
            if not page["events"]:
                break
            seen += [event["id"] for event in page["events"]]
            assert b"0912555123" not in str(page).encode()
        assert seen == granted
        assert {"n": "0912555123", "id": "m-1"} in [data for _, data in grants.asked], "the view sees the whole content"
        assert {owner for owner, _ in grants.asked} == {"partner:p"}
        grants.broken = True
        await site.publish(10)
        await placed(site.hub)
        assert (await site.get(f"/events?after={after}", key)).status == 500
        grants.broken = False
        assert len((await site.get(f"/events?after={after}", key)).body["events"]) == 1, "nothing was passed over"


async def test_an_erased_person_is_in_no_feed(tmp_path: Path) -> None:
    grants = Grants()
    async with open_site(tmp_path, feed_view=grants) as site:
        key = await site.key("events:read", owner="partner:p")
        person = Draft(type=SECRET, source="/t", dedupe_key="p", subject="m-1", data={"id": "m-1", "n": "n"})
        await site.hub.commit(UnitOfWork(drafts=[person]))
        assert len((await site.get("/events", key)).body["events"]) == 1
        site.hub.committer.ring.forget(["m-1"])
        erased = query(text("UPDATE subject_key SET wrapped = NULL WHERE subject = :subject"))
        await site.hub.commit(UnitOfWork(statements=[erased(subject="m-1")]))
        assert (await site.get("/events", key)).body["events"] == []


# -- waiting for the next one ----------------------------------------------------------------------


@ON_BOTH
async def test_a_reader_that_waits_is_answered_by_the_next_event(tmp_path: Path, database_url: str) -> None:
    async with open_site(tmp_path, database_url=database_url) as site:
        key = await site.key("events:read")
        after = (await site.get("/events?after=0", key)).body["next"]
        readers = [asyncio.create_task(site.get(f"/events?after={after}&wait=30", key)) for _ in range(3)]
        await eventually(somebody_waits)
        made = await site.publish(1)
        async with asyncio.timeout(20):
            pages = [(await reader).body for reader in readers]
        assert [[event["id"] for event in page["events"]] for page in pages] == [[made]] * 3
        empty = await site.get(f"/events?after={pages[0]['next']}&wait=1", key)
        assert empty.body == {"events": [], "next": pages[0]["next"]}


async def test_a_stop_answers_whoever_waits(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(20):
        async with open_site(tmp_path) as site:
            headers = {"Authorization": f"Bearer {await site.key('events:read')}"}
            waiting = asyncio.create_task(http.get(f"{site.url}/api/v1/events?wait=30", headers=headers))
            await eventually(somebody_waits)
        assert (await (await waiting).json())["events"] == []


def somebody_waits() -> bool:
    return any(task.get_name() == "feed" for task in asyncio.all_tasks())


async def test_a_cursor_holds_over_a_restart(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        key = await site.key("events:read")
        first = await site.publish(1)
        page = (await site.get("/events?after=0", key)).body
        assert [event["id"] for event in page["events"]] == [first]
        second = await site.publish(2)
    async with open_site(tmp_path) as site:
        third = await site.publish(3)
        rest = (await site.get(f"/events?after={page['next']}", key)).body
    assert [event["id"] for event in rest["events"]] == [second, third]
