"""The console in a real browser: live without reload, nothing from outside, keyboard and narrow screens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from hub.app import HubApp
from hub.contract import Connection, Delivered, Outcome, Refused, Scope, Shipment, UnitOfWork
from hub.model import Draft
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub
from tests.console_site import put, served

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.browser


class Door:
    """A sink whose tries wait until they are let through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.sink = RecordingSink(script=[self._wait])

    async def _wait(self, shipment: Shipment) -> Outcome:
        await self.open.wait()
        return Delivered()


class Watched:
    """A page, and all that it said on its console or asked of the network."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.said: list[str] = []
        self.outside: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda r: None if r.url.startswith(base) else self.outside.append(r.url))


@asynccontextmanager
async def browsing(chromium: str, **options: object) -> AsyncIterator[BrowserContext]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGS)
        try:
            yield await browser.new_context(**options)  # type: ignore[arg-type]
        finally:
            await browser.close()


@asynccontextmanager
async def console(tmp_path: Path, sink: RecordingSink) -> AsyncIterator[tuple[HubApp, str]]:
    registry = registry_of(
        connector_types=[connector("post", Connection(sink=sink))],
        event_types=[plain_event_type("vn.congdoan.thing.made.v1")],
    )
    subscriptions = [{"name": "all", "types": ["vn.congdoan.thing.*"], "to": "post"}]
    async with (
        running_hub(tmp_path, registry, connections={"post": {}}, subscriptions=subscriptions) as hub,
        served(hub) as url,
    ):
        yield hub, url


async def test_a_delivery_changes_on_the_open_page_without_a_reload(tmp_path: Path, chromium: str) -> None:
    door = Door()
    async with console(tmp_path, door.sink) as (hub, url), browsing(chromium) as context:
        watched = Watched(await context.new_page(), url)
        page = watched.page
        await page.goto(url + "/")
        await expect(page.locator("#live")).to_have_text("Đang cập nhật trực tiếp")
        await page.evaluate("window.sameDocument = true")

        await put(hub, "1")
        row = page.locator('[data-live="deliveries"] > tr[data-key]:not([data-key="empty"])')
        await expect(row).to_have_count(1)
        await eventually(lambda: len(door.sink.shipments) == 1)
        await expect(row).to_contain_text("đã nhận việc")
        door.open.set()
        await expect(row).to_contain_text("đã tới nơi")
        await expect(page.locator('[data-live="connections"] .number >> nth=2')).to_have_text("1")

        assert await page.evaluate("window.sameDocument")
        assert (watched.said, watched.outside) == ([], [])
        await page.close()


async def test_a_new_repair_appears_on_top_of_the_open_page(tmp_path: Path, chromium: str) -> None:
    sink = RecordingSink(script=[Refused(reason="gone", scope=Scope.DESTINATION)])
    async with console(tmp_path, sink) as (hub, url), browsing(chromium) as context:
        watched = Watched(await context.new_page(), url)
        page = watched.page
        await page.goto(url + "/?lang=en")
        await expect(page.locator(".headline")).to_have_text("Everything is flowing.")
        await put(hub, "1")
        await expect(page.locator(".headline")).to_have_text("Things that need a person: 1")
        await expect(page.locator(".needs li")).to_contain_text("unionhub connections resume post")
        assert (watched.said, watched.outside) == ([], [])
        await page.close()


async def test_every_page_is_whole_without_javascript_and_on_a_narrow_screen(tmp_path: Path, chromium: str) -> None:
    options = {"java_script_enabled": False, "viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    sink = RecordingSink(script=[Refused(reason="a_rather_long_reason_code_that_nobody_has_told_us_of_before")])
    async with console(tmp_path, sink) as (hub, url), browsing(chromium, **options) as context:
        watched = Watched(await context.new_page(), url)
        page = watched.page
        await put(hub, "1", subject="a-subject-without-any-space-" * 8)
        await put(hub, "2")
        await page.goto(url + "/")
        await expect(page.get_by_text("Trang không tự cập nhật")).to_be_visible()
        await page.locator('[data-live="deliveries"] a >> nth=1').click()
        await expect(page.locator("h1")).to_contain_text("Lượt gửi")
        delivery = page.url
        for address in ("/", "/deliveries", "/events", delivery.removeprefix(url)):
            await page.goto(url + address)
            # without JavaScript of its own the page can still be measured from outside
            box = await page.locator("main").bounding_box()
            assert box is not None and box["width"] <= 360, address
            tables = await page.locator("table, .facts, .answer, .needs").all()
            for table in tables:
                size = await table.bounding_box()
                assert size is not None and size["x"] + size["width"] <= 360, address
        assert (watched.said, watched.outside) == ([], [])
        await page.close()


async def test_the_keyboard_reaches_the_content_and_stays_where_it_is_when_rows_change(
    tmp_path: Path, chromium: str
) -> None:
    door = Door()
    async with console(tmp_path, door.sink) as (hub, url), browsing(chromium) as context:
        page = await context.new_page()
        await put(hub, "1")
        await eventually(lambda: len(door.sink.shipments) == 1)
        await page.goto(url + "/")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        assert await page.locator(".skip").is_visible()
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        link = page.locator('[data-live="deliveries"] a')
        await link.focus()
        address = await link.get_attribute("href")
        door.open.set()
        await expect(page.locator('[data-live="deliveries"] tr')).to_contain_text("đã tới nơi")
        assert await page.evaluate("document.activeElement.getAttribute('href')") == address
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await page.close()


async def test_a_thousand_dead_in_three_groups_are_sent_again_group_by_group_with_one_click(
    tmp_path: Path, chromium: str
) -> None:
    """Without JavaScript, as every page; the form's origin is the browser's own."""
    groups = {"mailbox_full": 500, "moved": 300, "no_such_person": 200}
    script: list[Any] = [Refused(reason=reason) for reason, count in groups.items() for _ in range(count)]
    sink = RecordingSink(script=script, concurrency=100)
    async with console(tmp_path, sink) as (hub, url), browsing(chromium, java_script_enabled=False) as context:
        drafts = [
            Draft(type="vn.congdoan.thing.made.v1", source="/tests", dedupe_key=str(n), data={"id": str(n)})
            for n in range(1000)
        ]
        await hub.commit(UnitOfWork(drafts=drafts))
        await eventually(lambda: _dead(hub, 1000), 30)
        page = await context.new_page()
        await page.goto(url + "/stopped")
        await expect(page.locator("tbody button")).to_have_text(
            ["Gửi lại 500 lượt", "Gửi lại 300 lượt", "Gửi lại 200 lượt"]
        )
        await page.get_by_role("button", name="Gửi lại 300 lượt").click()
        await eventually(lambda: len(sink.shipments) == 1300, 30)
        await page.goto(url + "/stopped")
        await expect(page.locator("tbody button")).to_have_text(["Gửi lại 500 lượt", "Gửi lại 200 lượt"])
        await expect(page.locator(".headline")).to_contain_text("300/300")
        await page.close()


async def _dead(hub: HubApp, count: int) -> bool:
    return await hub.store.read("SELECT count(*) FROM delivery WHERE state = 'dead'") == [(count,)]
