"""Pages of plugins: plain values in, plain values out. Size, form, origin, headers and who asks are settled here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from hub.app import HubApp, asked_by
from hub.contract import OPERATOR, PageRequest, PageResponse, PageRoute, Principal
from hub.errors import InputError
from hub.log import log
from hub.plugins import path_segment
from hub.web import body
from hub.web.access import refuse_other_sites

#: Whoever has not signed in: sees nothing of anybody, whatever a page forgets to ask.
NOBODY = Principal(name="nobody", scopes=frozenset(), sees=frozenset(), owner="nobody")
FORM = "application/x-www-form-urlencoded"
FIELDS_MAX = 200
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: What a plugin may say beside its body.
_MAY_SAY = ("Location", "Set-Cookie", "Cache-Control", "Retry-After", "Content-Disposition")
_REFUSED = (401, 403, 429)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def mount(app: web.Application, hub: HubApp) -> tuple[str, ...]:
    """Adds the pages; answers the paths below which plugins let their own readers in."""
    routes = hub.registry.pages.values()
    for route in routes:
        app.router.add_route(route.method, route.path, _handler(hub, route))
    open_here = {path_segment(route) for route in routes if route.who is not None}
    closed = {path_segment(route) for route in routes if route.who is None}
    # One page for people here closes the whole segment: a rule by path must not open it by mistake.
    return tuple(f"/{segment}/" for segment in sorted(open_here - closed))


def _handler(hub: HubApp, route: PageRoute) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        asked = await _read(hub, route, request)
        who = OPERATOR if route.who is None else (await _asked_by_nobody(hub, route, asked) or NOBODY)
        with asked_by(who):
            answer = await route.handle(hub, asked)
        if answer.status in _REFUSED:
            # The route's path: the one that was asked for may hold anything.
            log("page.refused", path=route.path, who=who.owner or who.name, status=answer.status)
        return _made(answer)

    return handle


async def _asked_by_nobody(hub: HubApp, route: PageRoute, asked: PageRequest) -> Principal | None:
    assert route.who is not None
    with asked_by(NOBODY):
        return await route.who(hub, asked)


async def _read(hub: HubApp, route: PageRoute, request: web.Request) -> PageRequest:
    """Raises: InputError 403 from another site, 413, 415, 400."""
    form = await read_form(hub, request, route.max_body_bytes) if route.method == "POST" else {}
    params, query = dict(request.match_info), dict(request.query.items())
    # What no column of text holds, and no page shows.
    if any(_is_broken(value) for value in (*params.values(), *query.values(), *form.values())):
        raise InputError(problem="request-malformed", status=400)
    return PageRequest(
        method=request.method,
        path=request.path,
        params=params,
        query=query,
        form=form,
        cookies={name: value for name, value in request.cookies.items() if not _is_broken(value)},
        headers={name.lower(): value for name, value in request.headers.items()},
        remote=request.remote or "",
        secure=request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https",
    )


async def read_form(hub: HubApp, request: web.Request, max_body_bytes: int) -> dict[str, str]:
    """What a page of ours sent. Raises: InputError 403 from another site, 413, 415, 400."""
    refuse_other_sites(request)
    if request.content_type != FORM or hdrs.CONTENT_ENCODING in request.headers:
        raise InputError(problem="media-type-unsupported", status=415)
    raw = await body.read(request, max_body_bytes, hub.config.hub.http.body_deadline_s)
    try:
        pairs = parse_qsl(raw.decode("ascii"), True, encoding="utf-8", errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError:
        raise InputError("not a form", problem="request-malformed", status=400) from None
    return dict(pairs)


def _is_broken(text: str) -> bool:
    return "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text))


def _made(answer: PageResponse) -> web.Response:
    headers = {hdrs.CACHE_CONTROL: "no-store", **{n: v for n, v in answer.headers.items() if n in _MAY_SAY}, **_HEADERS}
    return web.Response(
        body=answer.body, status=answer.status, headers=headers, content_type=answer.media, charset="utf-8"
    )
