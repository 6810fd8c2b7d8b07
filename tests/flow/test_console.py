"""The console's pages, their words, and what tells open pages that something changed."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest

from hub import views
from hub.app import HubApp
from hub.contract import Accepted, Connection, Outcome, Refused, RetryLater, Scope, Unknown
from hub.model import Json, to_us
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub
from hub.web import console, live, texts
from tests.console_site import put, served
from tests.flow.conftest import ON_BOTH, placed

SVG = "http://www.w3.org/2000/svg"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@asynccontextmanager
async def console_of(
    tmp_path: Path, *script: Outcome, resend_is_safe: bool = True, token: str = "", database_url: str = ""
) -> AsyncIterator[tuple[HubApp, str, RecordingSink]]:
    """A running hub with one connection ``post``, its address, and the sink behind it."""
    sink = RecordingSink(script=list(script), resend_is_safe=resend_is_safe)
    registry = registry_of(
        connector_types=[connector("post", Connection(sink=sink))],
        event_types=[
            plain_event_type("vn.congdoan.thing.made.v1"),
            plain_event_type("vn.congdoan.person.changed.v1", personal=True),
        ],
    )
    subscriptions = [{"name": "all", "types": ["vn.congdoan.*"], "to": "post"}]
    async with (
        running_hub(
            tmp_path, registry, connections={"post": {}}, subscriptions=subscriptions,
            settings={"retry": {"schedule_s": [3600]}, "database_url": database_url},
        ) as hub,
        served(hub, token) as url,
    ):  # fmt: skip
        yield hub, url, sink


async def text_of(url: str, status: int = 200, **headers: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        assert answer.status == status
        return await answer.text()


async def settled_as(hub: HubApp, state: str, reason: str | None = None) -> Json:
    """The delivery, once there is one in this state."""

    async def found() -> list[Json]:
        return await views.deliveries(hub.store, state=state, reason=reason)

    rows: list[Json] = await eventually(found)
    return rows[0]


# -- pages -----------------------------------------------------------------------------------------


@ON_BOTH
async def test_the_first_page_says_that_everything_flows(tmp_path: Path, database_url: str) -> None:
    async with console_of(tmp_path, database_url=database_url) as (hub, url, _):
        event = await put(hub, "1", subject="thing-1")
        delivery = await settled_as(hub, "delivered")
        page = await text_of(url + "/")
    assert "Mọi thứ đang thông suốt." in page
    assert "đang chạy" in page and "đã tới nơi" in page
    assert f'href="/deliveries/{delivery["id"]}"' in page
    assert f'href="/deliveries?event={event}"' in page
    assert "24 giờ qua: 1 lượt tới nơi" in page


async def test_a_repair_stands_above_the_connections_and_says_what_why_and_what_to_do(tmp_path: Path) -> None:
    async with console_of(tmp_path, Refused(reason="gone", scope=Scope.DESTINATION)) as (hub, url, _):
        await put(hub, "1")
        await eventually(lambda: views.repairs(hub.store))
        page = await text_of(url + "/")
    needs, connections = page.index('data-key="repair:'), page.index('data-live="connections"')
    assert needs < connections
    repair = page[needs:connections]
    assert "Đã tạm dừng gửi tới post." in repair
    assert "Bên nhận báo không nhận nữa (HTTP 410). Các lượt gửi được giữ lại, chưa lượt nào mất." in repair
    assert "Hỏi đơn vị đối tác còn nhận không." in repair
    assert "unionhub connections resume post" in repair
    assert 'href="/deliveries?state=open&amp;destination=post"' in repair
    assert "Việc cần xử lý: 1" in page


async def test_a_repair_of_a_kind_nobody_told_us_of_shows_its_code_and_its_own_words(tmp_path: Path) -> None:
    async with console_of(tmp_path) as (hub, url, _):
        await hub.store.open_repair("odd_kind", "post", "Hết giấy in. / Out of paper.", to_us(hub.now()))
        vi, en = await text_of(url + "/"), await text_of(url + "/", Cookie="unionhub_lang=en")
    assert "Cần xử lý ở post." in vi and "Hết giấy in." in vi and "odd_kind" in vi
    assert "Out of paper." in en and "Hết giấy in." not in en


@ON_BOTH
async def test_unknown_outcomes_and_a_hold_need_a_person_too(tmp_path: Path, database_url: str) -> None:
    async with console_of(tmp_path, Unknown(reason="no_answer"), resend_is_safe=False, database_url=database_url) as (
        hub,
        url,
        _,
    ):
        await put(hub, "1")
        delivery = await settled_as(hub, "unknown")
        await hub.store.hold("behind_marker")
        page = await text_of(url + "/")
        detail = await text_of(f"{url}/deliveries/{delivery['id']}")
    assert "Đang giữ: chưa gửi gì." in page and "unionhub release" in page
    assert "Số lượt gửi không rõ kết quả: 1." in page and 'href="/deliveries?state=unknown"' in page
    assert f"unionhub deliveries resolve {delivery['id']}" in detail


@ON_BOTH
async def test_a_delivery_shows_its_attempts_receipts_and_event(tmp_path: Path, database_url: str) -> None:
    accepted = Accepted(refs=("ref-77",), receipt_within=timedelta(hours=1))
    async with console_of(tmp_path, accepted, database_url=database_url) as (hub, url, _):
        event = await put(hub, "1", subject="thing-1")
        delivery = await settled_as(hub, "accepted")
        page = await text_of(f"{url}/deliveries/{delivery['id']}")
    for part in ("bên nhận đã tiếp nhận", "ref-77", "đang đợi báo nhận", event, "thing-1", "vn.congdoan.thing.made.v1"):
        assert part in page


async def test_a_paused_destination_is_named_as_the_reason_why_a_delivery_waits(tmp_path: Path) -> None:
    async with console_of(tmp_path) as (hub, url, _):
        await hub.store.pause("destination", "post", "operator", "", to_us(hub.now()))
        await put(hub, "1")
        delivery = await settled_as(hub, "pending")
        page = await text_of(f"{url}/deliveries/{delivery['id']}")
    assert "Điểm đến đang tạm dừng, chưa gửi." in page


@ON_BOTH
async def test_lists_are_filtered_by_state_destination_and_day_and_wrong_filters_are_named(
    tmp_path: Path, database_url: str
) -> None:
    async with console_of(tmp_path, RetryLater(reason="http_503"), database_url=database_url) as (hub, url, _):
        await put(hub, "1")
        pending = await settled_as(hub, "pending", "http_503")
        await put(hub, "2")
        delivered = await settled_as(hub, "delivered")
        today = hub.now().astimezone(texts.ZONE).date()
        rows = {
            query: set(re.findall(r'data-key="([0-9a-f-]{36})"', await text_of(f"{url}/deliveries?{query}")))
            for query in (
                "state=delivered&destination=&day=", "state=open", "destination=post", "destination=other",
                f"day={today}", f"day={today - timedelta(days=2)}", "reason=http_503", f"event={delivered['event_id']}",
            )
        }  # fmt: skip
        wrong = await text_of(url + "/deliveries?day=yesterday")
    both = {pending["id"], delivered["id"]}
    assert list(rows.values()) == [
        {delivered["id"]}, {pending["id"]}, both, set(), both, set(), {pending["id"]}, {delivered["id"]}
    ]  # fmt: skip
    (said,) = re.findall(r'role="alert">(.*)</p>', wrong)
    assert "Bộ lọc không đúng: &#39;day&#39;" in said and "yesterday" not in said


@ON_BOTH
async def test_older_pages_carry_on_where_the_first_one_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(console, "PAGE", 3)
    async with console_of(tmp_path, database_url=database_url) as (hub, url, _):
        for i in range(8):
            await put(hub, str(i))
        await placed(hub)
        for path in ("/deliveries?destination=post", "/events"):
            seen, sizes, address = set(), [], path
            while address:
                page = await text_of(url + address)
                rows = re.findall(r'data-key="([0-9a-f-]{36})"', page)
                seen |= set(rows)
                sizes.append(len(rows))
                found = re.search(r'href="([^"]+)" rel="next"', page)
                address = found[1].replace("&amp;", "&") if found else ""
            assert (sizes, len(seen)) == ([3, 3, 2], 8)


async def test_the_language_is_switched_and_the_page_kept(tmp_path: Path) -> None:
    async with (
        console_of(tmp_path) as (_, url, _),
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
    ):
        async with http.get(url + "/deliveries?state=dead") as answer:
            page = await answer.text()
        assert '<html lang="vi">' in page and "Lượt gửi" in page
        (switch,) = re.findall(r'href="([^"]*lang=en)"', page)
        async with http.get(url + switch.replace("&amp;", "&")) as answer:
            assert answer.url.path_qs == "/deliveries?state=dead"
            page = await answer.text()
        assert '<html lang="en">' in page and "given up" in page and "Lượt gửi" not in page
        async with http.get(url + "/?lang=xx") as answer:
            assert '<html lang="en">' in await answer.text()


async def test_nothing_from_outside_reaches_a_page_as_markup(tmp_path: Path) -> None:
    script: list[Outcome] = [RetryLater(reason=HOSTILE), Accepted(refs=(HOSTILE,), receipt_within=timedelta(hours=1))]
    async with console_of(tmp_path, *script) as (hub, url, _):
        await put(hub, "1", subject=HOSTILE)
        first = await settled_as(hub, "pending", HOSTILE)
        await put(hub, "2", subject="\u202egnp.exe")
        second = await settled_as(hub, "accepted")
        await hub.store.open_repair(HOSTILE, HOSTILE, HOSTILE, to_us(hub.now()))
        await hub.store.pause("connection", "post", "operator", HOSTILE, to_us(hub.now()))
        pages = [
            await text_of(url + path)
            for path in (
                "/",
                "/events",
                "/deliveries",
                f"/deliveries/{first['id']}",
                f"/deliveries/{second['id']}",
                "/deliveries?" + urlencode({"reason": HOSTILE}),
                "/events?" + urlencode({HOSTILE: HOSTILE}),
            )
        ]
    for page in pages:
        assert "<img" not in page and "<script>" not in page
        assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in pages[0] and "&lt;script&gt;alert(1)" in pages[3]
    assert "[U+202E]gnp.exe" in pages[1]


async def test_pages_need_nothing_from_outside_and_no_inline_code(tmp_path: Path) -> None:
    async with console_of(tmp_path, RetryLater(reason="dns")) as (hub, url, _):
        await put(hub, "1")
        delivery = await settled_as(hub, "pending", "dns")
        async with aiohttp.ClientSession() as http:
            for path in ("/", "/events", "/deliveries", f"/deliveries/{delivery['id']}"):
                async with http.get(url + path) as answer:
                    page = await answer.text()
                    assert answer.headers["Content-Security-Policy"] == console.POLICY
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    assert answer.headers["Referrer-Policy"] == "no-referrer"
                    assert answer.headers["Cache-Control"] == "no-store"
                assert not re.search(
                    r"""\s(style|on\w+)=|<style|javascript:|(src|href|action)=["'](https?:)?//""", page
                )
                assert not re.search(r"<script(?! src=)", page)
                for asset in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
                    async with http.get(url + asset) as answer:
                        assert answer.status == 200 and "immutable" in answer.headers["Cache-Control"]
                        assert set(re.findall(r"https?://[^\"' )]*|@import|url\(", await answer.text())) <= {SVG}


async def test_a_persons_id_is_shortened_and_a_things_id_is_whole(tmp_path: Path) -> None:
    async with console_of(tmp_path) as (hub, url, _):
        await put(hub, "1", type="vn.congdoan.person.changed.v1", subject="0192f3c4-77aa-7bbb")
        await put(hub, "2", subject="12/QD-LDLD-2026")
        page = await text_of(url + "/events")
    assert "0192f3c4…" in page and "0192f3c4-77aa" not in page
    assert "12/QD-LDLD-2026" in page
    assert (console.short("short"), console.short("0192f3c4-77aa")) == ("short", "0192f3c4…")


async def test_long_numbers_in_a_persons_own_words_are_not_shown(tmp_path: Path) -> None:
    async with console_of(tmp_path, Unknown(reason="no_answer"), resend_is_safe=False) as (hub, url, _):
        await put(hub, "1")
        delivery = await settled_as(hub, "unknown")
        id = views.parse_id(delivery["id"])
        assert await hub.store.resolve(id, "delivered", "gọi 0912 555 123, đã có", to_us(hub.now()))
        page = await text_of(f"{url}/deliveries/{delivery['id']}")
    assert "người vận hành xử lý: gọi ***, đã có" in page and "555" not in page


@pytest.mark.parametrize("path", ["/deliveries/0192f3c4-77aa-7bbb-8ccc-000000000001", "/deliveries/xyz"])
async def test_a_delivery_that_is_not_there_is_a_page_that_says_so(tmp_path: Path, path: str) -> None:
    async with console_of(tmp_path) as (_, url, _):
        assert "Không có lượt gửi mang mã này." in await text_of(url + path, status=404)
        await text_of(url + "/static/nothing.css", status=404)


@ON_BOTH
async def test_the_csv_is_for_a_spreadsheet_and_carries_no_formula(tmp_path: Path, database_url: str) -> None:
    async with console_of(tmp_path, RetryLater(reason="=HYPERLINK(1)"), database_url=database_url) as (hub, url, _):
        await put(hub, "1")
        delivery = await settled_as(hub, "pending", "=HYPERLINK(1)")
        async with aiohttp.ClientSession() as http, http.get(url + "/deliveries.csv?state=pending") as answer:
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
            body = await answer.read()
        await text_of(url + "/deliveries.csv?colour=red", status=400)
    assert body.startswith(b"\xef\xbb\xbf")
    (row,) = csv.DictReader(io.StringIO(body.decode("utf-8-sig")))
    assert (row["id"], row["reason"], row["state_text"]) == (delivery["id"], "'=HYPERLINK(1)", "chờ gửi")


async def test_pages_and_the_live_stream_ask_for_the_token_when_there_is_one(tmp_path: Path) -> None:
    async with console_of(tmp_path, token="a-secret-token") as (_, url, _):
        for path in ("/", "/deliveries", "/live", "/api/v1/repairs"):
            await text_of(url + path, status=401)
        assert "Tổng quan" in await text_of(url + "/", Authorization="Bearer a-secret-token")


@ON_BOTH
async def test_the_days_counts_look_at_the_last_day_only(tmp_path: Path, database_url: str) -> None:
    async with console_of(tmp_path, Refused(reason="no"), database_url=database_url) as (hub, _, _):
        await put(hub, "1")
        await settled_as(hub, "dead")
        await put(hub, "2")
        await settled_as(hub, "delivered")
        now = to_us(hub.now())
        hours = (await views.day_counts(hub.store, now))["post"]
        assert (len(hours), hours[-1]) == (views.DAY_HOURS, [1, 1])
        assert await views.day_counts(hub.store, now + 25 * 3_600_000_000) == {}


# -- live ------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A page's stream, once the hub counts it among those to be told."""
    async with aiohttp.ClientSession() as http, http.get(url + "/live") as stream:
        assert await stream.content.readline() == b"retry: 2000\n"
        yield stream


async def signal(stream: aiohttp.ClientResponse) -> str:
    """The data of the next signal; comments and the retry line are passed over."""
    async with asyncio.timeout(10):
        async for line in stream.content:
            if line.startswith(b"data: "):
                return line[6:].decode().strip()
    raise AssertionError("the stream ended")


@ON_BOTH
async def test_a_commit_reaches_open_pages(tmp_path: Path, database_url: str) -> None:
    async with console_of(tmp_path, database_url=database_url) as (hub, url, _), opened(url) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        await put(hub, "1")
        await signal(stream)


async def test_a_burst_of_changes_is_few_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SPACING_S", 0.5)
    async with console_of(tmp_path) as (hub, url, _), opened(url) as stream:
        for _ in range(200):
            hub.on_change()
            await asyncio.sleep(0)  # lets the stream write, if it would
        signals = [int(await signal(stream))]
        while signals[-1] < 200:
            signals.append(int(await signal(stream)))
        assert len(signals) < 10


@ON_BOTH
async def test_a_repair_opened_behind_our_back_reaches_open_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(live, "LOOK_S", 0.01)
    async with console_of(tmp_path, database_url=database_url) as (hub, url, _), opened(url) as stream:
        await hub.store.open_repair("poison", "00" * 16, "", to_us(hub.now()))
        assert await signal(stream)


async def test_a_stop_does_not_wait_for_open_pages(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        running = AsyncExitStack()
        _, url, _ = await running.enter_async_context(console_of(tmp_path))
        stream = await stack.enter_async_context(http.get(url + "/live"))
        await stream.content.readline()
        # a page that is waited for would cost aiohttp's own minute
        async with asyncio.timeout(10):
            await running.aclose()
        assert await stream.content.read() == b"\n"


async def test_readers_of_the_live_stream_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "READERS", 1)
    async with console_of(tmp_path) as (_, url, _), opened(url):
        await text_of(url + "/live", status=503)
