"""Pages of an invented plugin: whom they let in, who asks, and what the hub puts around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import aiohttp

from hub.contract import Hub, PageRequest, PageResponse, PageRoute, Principal
from hub.testing import registry_of, running_hub
from tests.console_site import served

TOKEN = "the-consoles-token"


async def _tell(hub: Hub, request: PageRequest) -> PageResponse:
    who = hub.principal
    scopes = ["all"] if who.scopes is None else sorted(who.scopes)
    said = f"{who.name} {who.owner} {scopes} {dict(request.params)} {dict(request.form)}"
    stray = {"X-Stray": "no", "Content-Security-Policy": "default-src *", "Set-Cookie": "a=b"}
    return PageResponse(body=said.encode(), headers=stray)


async def _by_cookie(hub: Hub, request: PageRequest) -> Principal | None:
    assert hub.principal.name == "nobody"
    name = request.cookies.get("who")
    return Principal(name="guest", owner=f"guest:{name}", scopes=frozenset({"things:read"})) if name else None


@asynccontextmanager
async def pages(folder: Path, *routes: PageRoute) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    made = MappingProxyType({f"{route.method} {route.path}": route for route in routes})
    async with (
        running_hub(folder, replace(registry_of(), pages=made), connections={}) as hub,
        served(hub, TOKEN) as url,
        aiohttp.ClientSession() as http,
    ):
        yield url, http


def page(path: str, method: str = "GET", *, public: bool = True, most: int = 1000) -> PageRoute:
    who = _by_cookie if public else None
    return PageRoute(method=method, path=path, handle=_tell, who=who, max_body_bytes=most)  # type: ignore[arg-type]


async def test_a_public_page_runs_for_nobody_or_for_whom_the_plugin_found(tmp_path: Path) -> None:
    async with pages(tmp_path, page("/own/{name}")) as (url, http):
        async with http.get(f"{url}/own/x", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert (await answer.text()).startswith("nobody nobody []"), "the console's token means nothing here"
            assert "X-Stray" not in answer.headers and answer.headers["Set-Cookie"] == "a=b"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        async with http.get(f"{url}/own/x", cookies={"who": "an"}) as answer:
            assert (await answer.text()).startswith("guest guest:an ['things:read'] {'name': 'x'}")


async def test_a_page_for_people_here_stays_behind_the_consoles_rule_and_closes_its_segment(tmp_path: Path) -> None:
    async with pages(tmp_path, page("/mixed/a"), page("/mixed/b", public=False)) as (url, http):
        for path in ("/mixed/a", "/mixed/b"):
            async with http.get(url + path) as answer:
                assert answer.status == 401, path
        async with http.get(f"{url}/mixed/b", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert (await answer.text()).startswith("operator  ['all']")


async def test_a_form_is_read_strictly_and_only_from_our_own_pages(tmp_path: Path) -> None:
    async with pages(tmp_path, page("/own/form", "POST")) as (url, http):

        async def post(body: bytes, media: str = "application/x-www-form-urlencoded", **headers: str) -> int:
            sent = {"Content-Type": media, **headers}
            async with http.post(f"{url}/own/form", data=body, headers=sent) as answer:
                return answer.status

        assert await post("tên=Hòa".encode("ascii", "xmlcharrefreplace")) == 200
        assert await post(b"a=%C3%AA") == 200
        assert [await post(body) for body in (b"a=%ff", b"a=%00", b"\xff=1", b"a=1&" * 201)] == [400] * 4
        assert await post(b"a=" + b"x" * 1000) == 413
        assert await post(b"{}", "application/json") == await post(b"a=1", "text/plain") == 415
        assert await post(b"a=1", Origin="https://evil.example") == 403
        assert await post(b"a=1", Origin="null") == 403
        assert await post(b"a=1", **{"Sec-Fetch-Site": "cross-site"}) == 403
