"""A partner's developer with only curl and a browser, JavaScript off: from the link to a server that lost nothing."""

from __future__ import annotations

import json
import re
import shutil
import socket
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from hub.model import State
from hub.testing import eventually
from tests.e2e.test_console_browser import Watched, browsing
from tests.plugins.partners.test_kit import KITS, Server, examined, serving
from tests.plugins.partners.test_portal import TYPE, Site, link, open_site
from tests.plugins.partners.test_rest import key_of

pytestmark = [pytest.mark.browser, pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")]
TO = "doi-tac/so-noi-vu.chinh"


async def curl(*arguments: str) -> str:
    process = await create_subprocess_exec("curl", "-sS", *arguments, stdout=PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def sees_a_verified_event(page: Page) -> None:
    await page.get_by_role("button", name="Mở hộp thư kiểm tra").click()
    await page.get_by_label("Loại sự kiện").select_option(TYPE)
    await page.get_by_role("button", name="Gửi thử một sự kiện").click()
    await expect(page.get_by_role("status")).to_contain_text("204")
    await page.get_by_role("link", name="Hộp thư kiểm tra").click()
    await expect(page.get_by_text("chữ ký đúng", exact=False).first).to_be_visible()
    await page.set_viewport_size({"width": 360, "height": 800})
    wide = await page.locator("body").bounding_box()
    assert wide is not None and wide["width"] <= 360


async def adds_a_server(page: Page, site: Site, port: int) -> str:
    """Answers the secret, which is shown once."""
    await page.goto(f"{site.url}/portal/new-endpoint")
    await page.get_by_label("Tên").fill("chinh")
    await page.get_by_label("URL").fill(f"http://127.0.0.1:{port}/hook")
    await page.get_by_role("button", name="Thêm").click()
    secret = await page.locator("#secret").inner_text()

    async def routed() -> bool:
        return any(each.to == TO for each in site.hub.router.subscriptions)

    await eventually(routed, 30)
    return secret


async def settled(site: Site, state: State, count: int) -> bool:
    rows = await site.hub.store.read("SELECT id FROM delivery WHERE destination = ? AND state = ?", (TO, state))
    return len(rows) == count


async def recovers(page: Page, site: Site, count: int) -> None:
    await page.goto(f"{site.url}/portal/endpoints/chinh")
    await page.get_by_label("Sự kiện mỗi giây").select_option("100")
    await page.get_by_role("button", name="Đếm trước").click()
    await expect(page.get_by_role("heading", name=f"Gửi lại {count} sự kiện")).to_be_visible()
    await page.get_by_role("button", name="Xác nhận gửi").click()


async def until_done(server: Server, events: set[str]) -> None:
    """The receiver says of each once that it is new; what the exam sent is passed over."""
    done: list[str] = []
    while not events <= set(done):
        done.append(await server.done())
    assert len(done) == len(set(done))


async def test_a_developer_sees_a_verified_event_passes_the_exam_loses_the_server_and_recovers_everything(
    tmp_path: Path, chromium: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with open_site(tmp_path) as site, browsing(chromium, java_script_enabled=False) as context:
        watched = Watched(await context.new_page(), site.url)
        page = watched.page
        await page.goto(f"{site.url}/portal/sign-in?t={await link(site)}")
        await page.get_by_role("button", name="Đăng nhập").click()
        await expect(page.get_by_role("heading", name="Đơn vị so-noi-vu")).to_be_visible()
        await sees_a_verified_event(page)
        secret = await adds_a_server(page, site, port)

        async with serving(KITS["python"], tmp_path, secret, port=port) as server:
            unsigned = await curl("-i", "-X", "POST", str(server.url), "-d", "{}")
            assert re.match("HTTP/1.[01] 401 ", unsigned)
            assert not (await examined(server.url, secret, tmp_path))["failed"]
            first = await site.publish("U-first")
            await until_done(server, {first})
            # It is stopped only when its answer has come: else it would get this one again, as it should.
            await eventually(lambda: settled(site, State.DELIVERED, 1), 30)

        lost = [await site.publish(f"U-lost-{n}") for n in range(3)]
        await eventually(lambda: settled(site, State.DEAD, len(lost)), 30)
        async with serving(KITS["python"], tmp_path, secret, port=port) as server:
            await recovers(page, site, len(lost))
            await until_done(server, set(lost))
        await page.goto(f"{site.url}/portal/endpoints/chinh")
        await expect(page.get_by_text("3/3")).to_be_visible()

        key = await key_of(site.hub, "so-noi-vu", "events:read")
        fed = json.loads(await curl("-H", f"Authorization: Bearer {key}", f"{site.url}/api/v1/events?after=0"))
        assert [each["id"] for each in fed["events"] if each["type"] == TYPE] == [first, *lost]

        await page.get_by_role("button", name="Đăng xuất").click()
        await page.goto(f"{site.url}/portal/")
        await expect(page).to_have_url(f"{site.url}/portal/sign-in")
        assert watched.outside == []
        # Without a script there is nothing to say, and no rule of the policy was broken.
        assert watched.said == []
