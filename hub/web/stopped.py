"""The console's page of what stopped: counted by reason, and a group sent again with one click, watched and stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from hub.app import HubApp
from hub.dead_letters import Again, stopped
from hub.errors import InputError, NotFound
from hub.log import log
from hub.model import Json
from hub.web.access import PRINCIPAL
from hub.web.pages import read_form
from hub.web.texts import Language

PATH = "/stopped"
_FORM_MAX = 4096
#: What went wrong with a click, told on the page that follows it.
_TOLD = ("changed", "busy")
Show = Callable[[web.Request, Language], Awaitable[web.StreamResponse]]


class Pages(Protocol):
    """What the console gives each of its pages."""

    def page(self, show: Show) -> Callable[[web.Request], Awaitable[web.StreamResponse]]: ...

    def render(self, request: web.Request, language: Language, template: str, /, **values: Any) -> web.Response: ...


class Stopped:
    def __init__(self, hub: HubApp, pages: Pages) -> None:
        self._hub = hub
        self._pages = pages
        self._again = Again(hub)

    def mount(self, app: web.Application) -> None:
        app.router.add_get(PATH, self._pages.page(self._show))
        app.router.add_post(PATH + "/replay", self._replay)
        app.router.add_post(PATH + "/stop", self._stop)
        app.on_shutdown.append(self._close)

    async def _show(self, request: web.Request, language: Language) -> web.StreamResponse:
        sending = self._again.sending
        told = request.query.get("told", "")
        response = self._pages.render(
            request, language, "stopped.html",
            groups=_by_reason(await stopped(self._hub)),
            sending=sending,
            is_running=sending is not None and sending.ended is None,
            told=told if told in _TOLD else "",
        )  # fmt: skip
        # A form of a page that gives no origin would be refused as another site's.
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        form = await read_form(self._hub, request, _FORM_MAX)
        reason, destination, expect = form.get("reason", ""), form.get("destination", ""), form.get("expect", "")
        if not (reason and expect.isascii() and expect.isdecimal()):
            raise InputError("reason, expect", problem="request-malformed", status=400)
        told = ""
        try:
            await self._again.start(reason, destination or None, int(expect))
        except NotFound:
            told = "changed"
        except InputError as error:
            told = "busy" if error.problem == "busy" else "changed"
        return _back(request, "replay_stopped", told)

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        await read_form(self._hub, request, _FORM_MAX)
        self._again.stop()
        return _back(request, "stop_replay", "")

    async def _close(self, app: web.Application) -> None:
        await self._again.close()


def _back(request: web.Request, what: str, told: str) -> web.Response:
    log("api.answered", who=request[PRINCIPAL].name, operation=what, status=409 if told else 303)
    return web.Response(status=303, headers={"Location": PATH + (f"?told={told}" if told else "")})


def _by_reason(rows: list[Json]) -> list[Json]:
    """One group per reason, the largest first, each with its destinations."""
    groups: dict[str, Json] = {}
    for row in rows:
        group = groups.setdefault(row["reason"], {"reason": row["reason"], "count": 0, "destinations": []})
        group["count"] += row["count"]
        group["destinations"].append(row)
    return sorted(groups.values(), key=lambda group: (-group["count"], group["reason"]))
