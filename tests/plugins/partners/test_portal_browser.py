"""The portal in a real browser, JavaScript off: from the link to a verified event, and nothing from outside."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.e2e.test_console_browser import Watched, browsing
from tests.plugins.partners.test_portal import TYPE, link, open_site

pytestmark = pytest.mark.browser


async def test_a_developer_gets_from_the_link_to_a_verified_event(tmp_path: Path, chromium: str) -> None:
    async with open_site(tmp_path) as site, browsing(chromium, java_script_enabled=False) as context:
        watched = Watched(await context.new_page(), site.url)
        page = watched.page
        await page.goto(f"{site.url}/portal/sign-in?t={await link(site)}")
        await page.get_by_role("button", name="Đăng nhập").click()
        await expect(page.get_by_role("heading", name="Đơn vị so-noi-vu")).to_be_visible()
        await page.get_by_role("button", name="Mở hộp thư kiểm tra").click()
        await page.get_by_label("Loại sự kiện").select_option(TYPE)
        await page.get_by_role("button", name="Gửi thử một sự kiện").click()
        await expect(page.get_by_role("status")).to_contain_text("204")
        await page.get_by_role("link", name="Hộp thư kiểm tra").click()
        await expect(page.get_by_text("chữ ký đúng", exact=False).first).to_be_visible()
        await page.set_viewport_size({"width": 360, "height": 800})
        wide = await page.locator("body").bounding_box()
        assert wide is not None and wide["width"] <= 360
        await page.get_by_role("button", name="Đăng xuất").click()
        await page.goto(f"{site.url}/portal/")
        await expect(page).to_have_url(f"{site.url}/portal/sign-in")
        assert watched.outside == []
        # Without a script there is nothing to say, and no rule of the policy was broken.
        assert watched.said == []
