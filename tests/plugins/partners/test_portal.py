"""The partner's portal over HTTP, as a developer with a browser and no JavaScript uses it."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from yarl import URL

from hub.app import HubApp
from hub.contract import EventType, Guard, UnitOfWork
from hub.errors import Conflict
from hub.log import flush
from hub.model import Draft, new_id
from hub.plugins import load_plugins
from hub.testing import StandingClock, eventually, registry_of, running_hub
from plugins.partners import portal_tables, replays
from plugins.partners.portal import LINK, PAGES, sessions
from plugins.partners.portal.account import _tries
from tests.console_site import served
from tests.engines import ON_BOTH
from tests.flow.front_door import captured_log
from tests.plugins.partners.conftest import asked
from tests.plugins.partners.test_guard import Listener, listening
from tests.plugins.partners.test_managed import run, sink_of

TYPE = "vn.congdoan.member.updated.v1"
TOKEN = "the-consoles-token"
GRANT = {"types": [TYPE], "fields": ["unit"], "purpose": "đối chiếu", "legal_basis": "Quy chế 12"}
KIND = EventType(
    name=TYPE, title_vi="Đoàn viên thay đổi", title_en="Member changed", personal=False, thin=("unit",),
    schema={"type": "object", "properties": {"unit": {"type": "string"}, "phone": {"type": "string"}}},
    example={"unit": "CDCS-01", "phone": "0900000000"},
)  # fmt: skip


@dataclass
class Developer:
    """A browser without JavaScript: keeps cookies, fills in forms."""

    hub: HubApp
    http: aiohttp.ClientSession
    url: str
    csrf: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str) -> tuple[int, str]:
        async with self.http.get(self.url + path, headers=self.headers, allow_redirects=False) as answer:
            text = await answer.text()
            if found := re.search(r'name="csrf" value="([0-9a-f]{32})"', text):
                self.csrf = found[1]
            return answer.status, html.unescape(text)

    async def post(self, path: str, csrf: bool = True, **form: str) -> tuple[int, str]:
        """Status, and the page or where it leads."""
        data = {**form, "csrf": self.csrf} if csrf else form
        async with self.http.post(
            self.url + path, data=data or {"": ""}, headers=self.headers, allow_redirects=False
        ) as answer:
            return answer.status, answer.headers.get("Location") or html.unescape(await answer.text())

    async def sign_in(self, partner: str) -> None:
        made = await LINK.run(self.hub, sessions.LinkParams(partner=partner), lambda said: None)
        assert await self.post("/portal/sign-in", csrf=False, t=URL(made["link"]).query["t"]) == (303, "/portal/")
        assert (await self.get("/portal/"))[0] == 200


@dataclass
class Site:
    hub: HubApp
    url: str
    clock: StandingClock | None
    _open: list[aiohttp.ClientSession] = field(default_factory=list)

    def developer(self) -> Developer:
        # Cookies of addresses that are numbers are kept too.
        http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self._open.append(http)
        return Developer(self.hub, http, self.url)

    async def signed_in(self, partner: str) -> Developer:
        made = self.developer()
        await made.sign_in(partner)
        return made

    async def publish(self, unit: str) -> str:
        draft = Draft(type=TYPE, source="/tests", dedupe_key=unit, data={"unit": unit, "phone": "0900000000"})
        return str((await self.hub.commit(UnitOfWork(drafts=[draft]))).events[0])

    async def close(self) -> None:
        for http in self._open:
            await http.close()


@asynccontextmanager
async def open_site(folder: Path, database_url: str = "", clock: StandingClock | None = None) -> AsyncIterator[Site]:
    _tries._tries.clear()  # of earlier tests
    registry = registry_of(load_plugins(allowed={"partners"}), event_types=[KIND])
    async with (
        running_hub(
            folder,
            registry,
            connections={"doi-tac": {"type": "partners", "settings": {"allow_networks": ["127.0.0.0/8"]}}},
            settings={"database_url": database_url, "retry": {"schedule_s": [0.05]}, "breaker": {"failures": 1000}},
            clock=clock,
        ) as hub,
        served(hub, TOKEN) as url,
    ):
        for partner in ("so-noi-vu", "bhxh"):
            await run(hub, "add", partner=partner, title=f"Đơn vị {partner}")
            await run(hub, "grant", partner=partner, **GRANT)
        site = Site(hub, url, clock)
        try:
            yield site
        finally:
            await site.close()


@pytest.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    async with open_site(tmp_path, database_url) as opened:
        yield opened


async def link(site: Site, partner: str = "so-noi-vu") -> str:
    made = await LINK.run(site.hub, sessions.LinkParams(partner=partner), lambda said: None)
    return URL(made["link"]).query["t"]


# -- signing in ------------------------------------------------------------------------------------


@ON_BOTH
async def test_a_link_signs_in_once_and_only_a_hash_of_it_is_kept(site: Site) -> None:
    token, dev = await link(site), site.developer()
    assert (await dev.get("/portal/"))[0] == 303
    assert token in (await dev.get(f"/portal/sign-in?t={token}"))[1]
    assert await dev.post("/portal/sign-in", csrf=False, t=token) == (303, "/portal/")
    [cookie] = [c for c in dev.http.cookie_jar if c.key == sessions.COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"], cookie["path"]) == (
        True, "Strict", "28800", "/portal/",
    )  # fmt: skip
    status, page = await dev.get("/portal/")
    assert status == 200 and "Đơn vị so-noi-vu" in page and TYPE in page
    rows = await site.hub.store.read("SELECT digest, kind, partner FROM partners_pass")
    assert [row[1:] for row in rows] == [("session", "so-noi-vu")]
    assert token not in repr(rows) and cookie.value not in repr(rows)
    stranger = site.developer()
    assert (await stranger.post("/portal/sign-in", csrf=False, t=token))[0] == 403
    assert (await stranger.get("/portal/"))[0] == 303
    assert await dev.post("/portal/sign-out") == (303, "/portal/sign-in")
    dev.http.cookie_jar.update_cookies({sessions.COOKIE: cookie.value}, URL(site.url + "/portal/"))
    assert (await dev.get("/portal/"))[0] == 303, "a session that ended is no session, whoever kept its cookie"


async def test_a_wrong_a_used_and_an_old_link_get_one_and_the_same_page_and_a_session_ends_after_eight_hours(
    tmp_path: Path,
) -> None:
    clock = StandingClock()
    async with open_site(tmp_path, clock=clock) as site:
        used, old = await link(site), await link(site)
        dev = site.developer()
        assert (await dev.post("/portal/sign-in", csrf=False, t=used))[0] == 303
        clock.advance(15 * 60)
        with captured_log() as lines:
            answers = [
                await site.developer().post("/portal/sign-in", csrf=False, t=t) for t in (used, old, "wrong", "")
            ]
            flush()
        assert {status for status, _ in answers} == {403} and len({page for _, page in answers}) == 1
        said = lines.getvalue().decode()
        assert said.count('"page.refused"') == 4 and not any(token in said for token in (used, old, "wrong"))
        clock.advance(8 * 3600 - 15 * 60 - 1)
        assert (await dev.get("/portal/"))[0] == 200
        clock.advance(1)
        assert (await dev.get("/portal/"))[0] == 303


async def test_guessing_links_is_slowed_down_and_does_not_use_up_a_good_one(tmp_path: Path) -> None:
    clock = StandingClock()
    async with open_site(tmp_path, clock=clock) as site:
        good, dev = await link(site), site.developer()
        answers = [(await dev.post("/portal/sign-in", csrf=False, t=f"guess-{n}"))[0] for n in range(12)]
        assert answers == [403] * 10 + [429] * 2
        assert (await dev.post("/portal/sign-in", csrf=False, t=good))[0] == 429
        clock.advance(60)
        assert (await dev.post("/portal/sign-in", csrf=False, t=good))[0] == 303


async def test_the_portal_is_open_from_outside_while_console_and_api_stay_closed(site: Site) -> None:
    dev = site.developer()
    dev.headers = {"Host": "hub.example.vn"}
    assert (await dev.get("/portal/sign-in"))[0] == 200
    for path in ("/", "/deliveries", "/api/v1/events", "/metrics", "/portal", "/portalx", "/PORTAL/"):
        assert (await dev.get(path))[0] in (401, 403, 404), path
    assert (await dev.get("/portal/nothing"))[0] == 404
    for path in (
        "/portal/../deliveries",
        "/portal/%2e%2e/deliveries",
        "/portal/..%2fdeliveries",
        "//portal/",
        "/portal//",
    ):
        async with dev.http.get(URL(site.url + path, encoded=True), headers=dev.headers) as answer:
            assert answer.status in (401, 403, 404), path
    async with dev.http.get(site.url + "/portal/sign-in") as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["Cache-Control"] == "no-store"
        text = await answer.text()
    assert "<script" not in text and "style=" not in text and "http" not in text.replace("http-equiv", "")
    sheet = re.search(r'href="(/portal/static/[^"]+)"', text)
    assert sheet is not None and (await dev.get(sheet[1]))[0] == 200


async def test_a_form_of_another_site_or_without_its_token_changes_nothing(site: Site) -> None:
    dev = await site.signed_in("so-noi-vu")
    assert (await dev.post("/portal/new-inbox", csrf=False, endpoint="hop-thu"))[0] == 403
    dev.headers = {"Origin": "https://evil.example"}
    assert (await dev.post("/portal/new-inbox", endpoint="hop-thu"))[0] == 403
    dev.headers = {"Content-Type": "application/json"}
    assert (await dev.post("/portal/new-inbox", endpoint="hop-thu"))[0] == 415
    dev.headers = {}
    assert (await dev.post("/portal/new-inbox", filler="x" * 70_000))[0] == 413
    assert (await run(site.hub, "show", partner="so-noi-vu"))["endpoints"] == []


# -- what a developer does -------------------------------------------------------------------------


@ON_BOTH
async def test_a_verified_event_is_seen_in_the_inbox_without_a_server_and_only_what_is_granted(site: Site) -> None:
    dev = await site.signed_in("so-noi-vu")
    assert await dev.post("/portal/new-inbox", endpoint="hop-thu") == (303, "/portal/inbox/hop-thu")
    _, page = await dev.get(f"/portal/types/{TYPE}")
    assert '"unit": "CDCS-01"' in page and "0900000000" not in page.split("JSON Schema")[0]
    status, page = await dev.post("/portal/endpoints/hop-thu/test", type=TYPE)
    assert status == 200 and "204" in page
    _, page = await dev.get("/portal/inbox/hop-thu")
    assert "chữ ký đúng" in page and "webhook-signature: v1," in page and '"test":true' in page

    async def routed() -> bool:
        return any(s.name == "partners:so-noi-vu.hop-thu" for s in site.hub.router.subscriptions)

    await eventually(routed, 30)
    event = await site.publish("U-live")

    async def arrived() -> bool:
        return "U-live" in (await dev.get("/portal/inbox/hop-thu"))[1]

    await eventually(arrived, 30)
    _, page = await dev.get("/portal/inbox/hop-thu")
    assert f"webhook-id: {event}" in page and "0900000000" not in page
    kept = await site.hub.store.read("SELECT content FROM partners_inbox")
    assert all(b"U-live" not in bytes(content) for (content,) in kept), "what was received lies sealed"
    assert (await dev.get("/portal/?lang=en"))[0] == 303
    assert "Endpoints" in (await dev.get("/portal/"))[1]


async def test_the_inbox_keeps_the_last_fifty_for_a_day(tmp_path: Path) -> None:
    clock = StandingClock()
    async with open_site(tmp_path, clock=clock) as site:
        dev = await site.signed_in("so-noi-vu")
        await dev.post("/portal/new-inbox", endpoint="hop-thu")
        for _ in range(52):
            clock.advance(5)
            await run(site.hub, "test", partner="so-noi-vu", endpoint="hop-thu")
        assert (await dev.get("/portal/inbox/hop-thu"))[1].count("<article") == 50
        clock.advance(timedelta(days=1).total_seconds())
        dev = await site.signed_in("so-noi-vu")
        assert (await dev.get("/portal/inbox/hop-thu"))[1].count("<article") == 0

        async def gone() -> bool:
            return (await site.hub.store.read("SELECT count(*) FROM partners_inbox"))[0][0] == 0

        await eventually(gone, 30)


async def test_endpoints_are_made_changed_and_their_keys_shown_once(site: Site) -> None:
    dev = await site.signed_in("so-noi-vu")
    form = {"endpoint": "chinh", "url": "https://nhan.example.vn/hook", "types": "vn.congdoan.*", "mode": "structured"}
    status, page = await dev.post("/portal/new-endpoint", **form)
    secret = re.search(r"whsec_[A-Za-z0-9+/=]+", page)
    assert status == 200 and secret is not None
    assert "whsec_" not in (await dev.get("/portal/endpoints/chinh"))[1]
    status, page = await dev.post("/portal/endpoints/chinh/rotate", hours="1")
    assert status == 200 and secret[0] not in page and "whsec_" in page
    assert (await dev.post("/portal/endpoints/chinh", url="https://hai.example.vn/"))[0] == 303
    assert "https://hai.example.vn/" in (await dev.get("/portal/endpoints/chinh"))[1]
    status, page = await dev.post("/portal/endpoints/chinh", url="https://169.254.169.254/")
    assert status == 422 and "mạng nội bộ" in page
    for bad in ("inbox:/portal", "file:///etc/passwd", "http://nhan.example.vn/"):
        assert (await dev.post("/portal/endpoints/chinh", url=bad))[0] == 422, bad
    assert (await dev.post("/portal/endpoints/chinh", types="<script>"))[0] == 422
    assert (await dev.post("/portal/endpoints/chinh/remove", sure="no"))[0] == 422
    assert await dev.post("/portal/endpoints/chinh/remove", sure="chinh") == (303, "/portal/")
    assert (await dev.get("/portal/endpoints/chinh"))[0] == 404


@ON_BOTH
async def test_a_server_that_was_lost_recovers_everything_counted_first(site: Site) -> None:
    dev = await site.signed_in("so-noi-vu")
    never = [await site.publish(f"never-{n}") for n in range(3)]  # before there was an endpoint
    async with listening(Listener(), "127.0.0.1") as partner:
        said = b"unit unknown, call 0900000001; token=canary-7731"
        partner.answer = b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(said) + said
        url = f"http://127.0.0.1:{partner.port}/hook"
        assert (await dev.post("/portal/new-endpoint", endpoint="chinh", url=url))[0] == 200

        async def routed() -> bool:
            return any(s.name == "partners:so-noi-vu.chinh" for s in site.hub.router.subscriptions)

        await eventually(routed, 30)
        failed = [await site.publish(f"failed-{n}") for n in range(3)]

        async def dead() -> bool:
            return (await dev.get("/portal/endpoints/chinh"))[1].count("đã dừng gửi</span>") == 3

        await eventually(dead, 30)
        _, page = await dev.get("/portal/endpoints/chinh")
        assert "Lỗi liên tục từ" in page and "địa chỉ bị tắt lúc" in page
        found = re.search(rf"deliveries/([0-9a-f-]{{36}})\"><code>{failed[0]}", page)
        assert found is not None
        one = f"/portal/endpoints/chinh/deliveries/{found[1]}"
        _, page = await dev.get(one)
        assert "máy chủ trả lời mã 500" in page and f"POST {url}" in page and failed[0] in page and " ms" in page
        assert "unit unknown, call ***; token=***" in page and "0900000001" not in page and "canary" not in page
        assert partner.bodies[0].decode() in page, "what was sent, byte for byte"
        del partner.bodies[:]
        partner.answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"

        status, page = await dev.post(one + "/resend")
        assert status == 200 and "Gửi lại 1 lượt" in page and not partner.bodies
        status, where = await dev.post(one + "/resend", sure="1")
        assert status == 303

        async def delivered() -> bool:
            return "đã tới nơi</span> · gửi lại lần 1" in (await dev.get(where))[1]

        await eventually(delivered, 30)
        _, page = await dev.get("/portal/endpoints/chinh/replay?mode=failed")
        assert "Gửi lại 2 sự kiện" in page
        _, page = await dev.get("/portal/endpoints/chinh/replay?mode=all")
        assert "Gửi lại 6 sự kiện" in page
        _, page = await dev.get("/portal/endpoints/chinh/replay?mode=missing&per_s=100")
        assert "Gửi lại 5 sự kiện" in page and "0:00:01" in page
        given = dict(re.findall(r'name="(mode|since|until|per_s|expect)" value="([^"]+)"', page))
        assert (await dev.post("/portal/endpoints/chinh/replay", **{**given, "expect": "4"}))[0] == 409
        assert len(partner.bodies) == 1, "nothing is sent before it was confirmed"
        assert (await dev.post("/portal/endpoints/chinh/replay", **given))[0] == 303

        async def recovered() -> bool:
            return "5/5" in (await dev.get("/portal/endpoints/chinh"))[1] and len(partner.bodies) == 6

        await eventually(recovered, 30)
        seen = {each for each in (*never, *failed) if any(each.encode() in body for body in partner.bodies)}
        assert seen == {*never, *failed}

        async def taken_back() -> bool:
            return "Lỗi liên tục từ" not in (await dev.get("/portal/endpoints/chinh"))[1]

        await eventually(taken_back, 30)
        assert await site.hub.store.pause("destination", "doi-tac/so-noi-vu.chinh", "hub", "failing_too_long", 0)
        assert "Địa chỉ này đang tạm dừng" in (await dev.get("/portal/endpoints/chinh"))[1]
        assert "Gửi lại 0 sự kiện" in (await dev.get("/portal/endpoints/chinh/replay?mode=missing"))[1]


async def test_of_several_who_resend_at_once_one_owes_it(site: Site) -> None:
    event = UUID(await site.publish("u-1"))
    dev = await site.signed_in("so-noi-vu")
    await dev.post("/portal/new-inbox", endpoint="hop-thu")
    to = "doi-tac/so-noi-vu.hop-thu"

    async def ended() -> bool:
        rows = await site.hub.store.read("SELECT count(*) FROM queue WHERE destination = ?", (to,))
        return any(s.to == to for s in site.hub.router.subscriptions) and rows[0][0] == 0

    began = site.hub.now()
    for generation in range(2):
        await eventually(ended, 30)
        now = site.hub.now()
        owed = await asyncio.gather(*(site.hub.resend(event, to, before=now) for _ in range(5)))
        assert len([each for each in owed if each is not None]) == 1, generation
    await eventually(ended, 30)
    assert await site.hub.resend(event, to, before=began) is None, "it was owed again since"
    assert await site.hub.resend(UUID(int=1), to, before=site.hub.now()) is None
    assert await site.hub.resend(event, "doi-tac/so-noi-vu.khong-co", before=site.hub.now()) is None


async def test_a_replay_under_way_is_stopped(site: Site) -> None:
    dev = await site.signed_in("so-noi-vu")
    for n in range(40):
        await site.publish(f"u-{n}")
    await dev.post("/portal/new-inbox", endpoint="hop-thu")
    _, page = await dev.get("/portal/endpoints/hop-thu/replay?mode=missing&per_s=1")
    given = dict(re.findall(r'name="(mode|since|until|per_s|expect)" value="([^"]+)"', page))
    assert given["expect"] == "40"
    assert (await dev.post("/portal/endpoints/hop-thu/replay", **given))[0] == 303
    _, page = await dev.get("/portal/endpoints/hop-thu")
    stop = re.search(r'action="(/portal/endpoints/hop-thu/replays/[0-9a-f-]+/stop)"', page)
    assert stop is not None
    assert (await dev.post(stop[1]))[0] == 303
    state, sent = (await site.hub.store.read("SELECT state, sent FROM partners_replay"))[0]
    assert state == "stopped" and sent < 40

    async def routed() -> bool:
        return any(s.name == "partners:so-noi-vu.hop-thu" for s in site.hub.router.subscriptions)

    await eventually(routed, 30)  # only then would a step send
    _, book = sink_of(site.hub)
    owed = "SELECT (SELECT count(*) FROM queue) + (SELECT count(*) FROM delivery)"
    before = await site.hub.store.read(owed)
    await replays.step(site.hub, "doi-tac", book.endpoints)
    assert await site.hub.store.read(owed) == before
    [row] = await site.hub.fetch(portal_tables.REPLAYS_OF(partner="so-noi-vu", endpoint="hop-thu"))
    moved = {"id": bytes(row[0]), "old": bytes(row[4]), "new": bytes(row[5])}
    late = portal_tables.STEP_REPLAY(**moved, sent=1, state="running", now=1)
    with pytest.raises(Conflict):  # a step that was under way when it was stopped
        await site.hub.commit(UnitOfWork(guards=[Guard(late)]))
    assert (await site.hub.store.read("SELECT state, sent FROM partners_replay"))[0] == (state, sent)
    assert (await dev.post(stop[1]))[0] == 404


async def test_the_doctor_names_the_rule_that_failed(site: Site) -> None:
    dev = await site.signed_in("so-noi-vu")
    await dev.post("/portal/new-inbox", endpoint="hop-thu")
    await dev.post("/portal/endpoints/hop-thu/test")
    _, page = await dev.get("/portal/inbox/hop-thu")
    headers, body = (each.strip() for each in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL))
    told = []
    wrong = "whsec_" + "QUFB" * 8
    for given in (
        {"endpoint": "hop-thu", "body": body},
        {"endpoint": "hop-thu", "body": "\ufeff" + body},
        {"endpoint": "hop-thu", "body": body.replace(":", ": ", 1), "sent": body},
        {"secret": wrong, "body": body, "sent": body},
        {"secret": "nonsense", "body": body},
    ):
        status, page = await dev.post("/portal/doctor", headers=headers, **given)
        found = re.search(r'role="status">.*?<code>([a-z_]+)</code>', page, re.DOTALL)
        assert status == 200 and found is not None
        told.append(found[1])
        assert wrong not in page
    assert told == ["ok", "bom_added", "body_reencoded", "wrong_secret", "secret_malformed"]


# -- another partner's -----------------------------------------------------------------------------


async def test_every_object_of_another_partner_is_absent_on_every_route(site: Site) -> None:
    theirs = await site.signed_in("bhxh")
    await theirs.post("/portal/new-inbox", endpoint="cua-ho")

    async def routed() -> bool:
        return any(s.name == "partners:bhxh.cua-ho" for s in site.hub.router.subscriptions)

    await eventually(routed, 30)
    await site.publish("secret-unit")

    async def delivered() -> str:
        _, page = await theirs.get("/portal/endpoints/cua-ho")
        found = re.search(r"đã tới nơi.*deliveries/([0-9a-f-]{36})", page, re.DOTALL)
        return found[1] if found else ""

    delivery = await eventually(delivered, 30)
    _, page = await theirs.get("/portal/endpoints/cua-ho/replay?mode=all&per_s=1")
    given = dict(re.findall(r'name="(mode|since|until|per_s|expect)" value="([^"]+)"', page))
    await theirs.post("/portal/endpoints/cua-ho/replay", **given)
    replay = (await site.hub.store.read("SELECT id FROM partners_replay"))[0][0].hex()
    before = await _whole(site)

    dev = await site.signed_in("so-noi-vu")
    await dev.post("/portal/new-inbox", endpoint="hop-thu")
    tried = 0
    for route in PAGES:
        if "{" not in route.path or "static" in route.path:
            continue
        # Their endpoint; and, where there is more in the path, our own endpoint with their thing behind it.
        for endpoint in ("cua-ho", "hop-thu") if route.path.count("{") > 1 else ("cua-ho",):
            filled = {"endpoint": endpoint, "delivery": delivery, "replay": replay, "type": "vn.congdoan.secret.v1"}
            absent = {"endpoint": "khong-co", "delivery": str(new_id()), "replay": new_id().hex, "type": "vn.no.v1"}
            form = {"sure": "1", "url": "https://x.example.vn/", "mode": "all", "expect": "1", "hours": "1"}
            seen, queries = [], []
            for names in (filled, absent if endpoint == "cua-ho" else {**absent, "endpoint": endpoint}):
                path = route.path.format_map(names)
                with asked(site.hub.store) as said:
                    seen.append(await dev.get(path) if route.method == "GET" else await dev.post(path, **form))
                queries.append(said)
            page_of_theirs, page_of_none = seen
            assert page_of_theirs[0] == page_of_none[0] == 404, route.path
            without = [re.sub(r'name="csrf" value="[^"]+"', "", page) for _, page in seen]
            assert without[0] == without[1], route.path
            # Equal by its cause: what takes the time is the same look-ups in the same order.
            assert queries[0] == queries[1] != [], route.path
            tried += 1
    assert tried >= 14
    form = {"headers": "a: b", "body": "{}", "endpoint": "cua-ho"}
    assert (await dev.post("/portal/doctor", **form))[0] == 404
    assert await _whole(site) == before, "and nothing of theirs was changed"


async def _whole(site: Site) -> list[Any]:
    rows = await site.hub.store.read(
        "SELECT url, types, settings, secret FROM partners_endpoint WHERE partner = 'bhxh'"
    )
    counts = await site.hub.store.read("SELECT count(*) FROM partners_replay WHERE state = 'stopped'")
    return [*rows, *counts]


HOSTILE = (
    "\x00",
    "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    "a" * 3000,
    "0001-01-01",
    "9999-12-31",
)


async def test_hostile_values_are_refused_or_shown_never_an_error_of_ours(site: Site) -> None:
    dev = await site.signed_in("so-noi-vu")
    await dev.post("/portal/new-inbox", endpoint="hop-thu")
    names = ("endpoint", "url", "types", "mode", "filter", "hours", "type", "since", "until", "per_s", "secret", "sure")
    for value in HOSTILE:
        form = {name: value for name in names if (name, value[:1]) != ("endpoint", "0")}
        for route in PAGES:
            if route.method != "POST" or route.path.endswith(("/sign-out", "/sign-in")):
                continue
            path = route.path.format(endpoint="hop-thu", delivery=new_id(), replay=new_id())
            status, _ = await dev.post(path, **form)
            assert status in (200, 303, 400, 404, 409, 422, 429), (route.path, value[:5], status)
        asked = URL.build(
            path="/portal/endpoints/hop-thu/replay", query={"since": value, "until": value, "mode": "all"}
        )
        assert (await dev.get(str(asked)))[0] in (400, 422), value[:5]
    raw = await _raw(site, b"GET /portal/ HTTP/1.1\r\nHost: x\r\nCookie: unionhub_portal=\xff\xfe\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 303 ")


async def _raw(site: Site, request: bytes) -> bytes:
    url = URL(site.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n")
    writer.close()
    return head


async def test_pages_show_what_others_wrote_as_text(site: Site) -> None:
    await run(site.hub, "add", partner="x", title="<script>alert(1)</script>\u202e")
    dev = await site.signed_in("x")
    async with dev.http.get(site.url + "/portal/") as answer:
        text = await answer.text()
    assert "<script>" not in text and "&lt;script&gt;" in text and "\u202e" not in text
