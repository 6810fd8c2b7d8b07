"""The console's pages: what the ledger holds, in words, all without JavaScript; ``stopped`` alone changes anything."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import Field
from yarl import URL

from hub import views
from hub.app import HubApp
from hub.errors import InputError
from hub.model import Json, State, to_us
from hub.web.live import Live
from hub.web.needs import needs
from hub.web.parameters import Name, Parameters, read
from hub.web.stopped import Stopped
from hub.web.texts import LANGUAGES, ZONE, Language, visible
from hub.wiring import INTERNAL

LANGUAGE_COOKIE = "unionhub_lang"
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STATIC = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: Rows of a list page.
PAGE = 50
CSV_ROWS = 10_000
#: Destinations on the first page; past it only those in trouble are added.
DESTINATIONS = 200
#: The day's counts are read again after this time, or twenty times what reading them took.
DAY_KEPT_S = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ListParameters(Parameters):
    """The filter of the list of deliveries, as its form sends it."""

    state: State | Literal["open"] | None = None
    destination: Name | None = None
    reason: Name | None = None
    event: UUID | None = None
    day: date | None = None
    before: UUID | None = None


class EventsParameters(Parameters):
    before: int | None = Field(None, ge=0, le=views.LAST)


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    content_type: str


def mount(app: web.Application, hub: HubApp) -> None:
    """Adds the console's pages; from then on ``hub.on_change`` tells open pages to look again."""
    console = Console(hub)
    hub.on_change = console.live.poke
    add = app.router.add_get
    add("/", console.page(console.home))
    add("/deliveries", console.page(console.deliveries))
    add("/deliveries.csv", console.page(console.deliveries_csv))
    add("/deliveries/{id}", console.page(console.delivery))
    add("/events", console.page(console.events))
    add("/live", console.live.stream)
    add("/static/{name}", console.static)
    Stopped(hub, console).mount(app)
    app.on_response_prepare.append(_harden)
    app.on_shutdown.append(console.live.close)


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


class Console:
    def __init__(self, hub: HubApp) -> None:
        self._hub = hub
        self.live = Live(hub)
        here = Path(__file__).parent
        self._assets: dict[str, Asset] = {}
        self._urls: dict[str, str] = {}
        for path in sorted((here / "static").iterdir()):
            body = path.read_bytes()
            name = f"{path.stem}.{hashlib.sha256(body).hexdigest()[:12]}{path.suffix}"
            self._assets[name] = Asset(body, _STATIC[path.suffix])
            self._urls[path.name] = f"/static/{name}"
        self._env = Environment(
            loader=FileSystemLoader(here / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            finalize=visible,
        )
        self._env.filters["short"] = short
        self._day: dict[str, list[list[int]]] = {}
        self._day_until = 0.0

    # -- what all pages share ----------------------------------------------------------------------

    def page(self, show: Callable[[web.Request, Language], Awaitable[web.StreamResponse]]) -> Handler:
        """A handler that knows the reader's language; ``?lang=`` changes it and stays on the page."""

        async def handle(request: web.Request) -> web.StreamResponse:
            wanted = request.query.get("lang")
            if wanted is not None:
                return _remember_language(request, wanted)
            code = request.cookies.get(LANGUAGE_COOKIE, "")
            if code not in LANGUAGES:
                code = self._hub.config.hub.lang
            return await show(request, Language(code, self._hub.now()))

        return handle

    def render(self, request: web.Request, language: Language, template: str, /, **values: Any) -> web.Response:
        other = LANGUAGES[1 - LANGUAGES.index(language.code)]
        body = self._env.get_template(template).render(
            l=language,
            say=language.say,
            urls=self._urls,
            path=request.path,
            other=other,
            other_url=str(request.rel_url.update_query(lang=other)),
            event_title=lambda type_: self._event_title(language, type_),
            subject=self._subject,
            source=lambda event: event["source"].removeprefix(self._hub.config.hub.source) or event["source"],
            channel=self._channel,
            url=_url,
            **values,
        )
        return web.Response(text=body, content_type="text/html", charset="utf-8", headers={"Cache-Control": "no-store"})

    async def static(self, request: web.Request) -> web.StreamResponse:
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        return web.Response(
            body=asset.body,
            content_type=asset.content_type,
            charset="utf-8",
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )

    def _event_title(self, language: Language, type_: str) -> str:
        known = self._hub.event_types.get(type_)
        return (language.pick((known.title_vi, known.title_en)) if known else "") or type_

    def _subject(self, event: Json) -> str:
        """Opaque either way, and a person's is not shown whole."""
        known = self._hub.event_types.get(event["type"])
        subject: str = event["subject"] or ""
        return subject if known is not None and not known.personal else short(subject)

    def _channel(self, destination: str) -> str | None:
        config = self._hub.config.connections.get(destination.partition("/")[0])
        kind = self._hub.registry.connector_types.get(config.type) if config else None
        return kind.channel if kind else None

    # -- the first page ----------------------------------------------------------------------------

    async def home(self, request: web.Request, language: Language) -> web.StreamResponse:
        store = self._hub.store
        connections, repairs, held, events, deliveries, day = await asyncio.gather(
            views.connections(store),
            views.repairs(store),
            store.held(),
            views.events(store, limit=8),
            views.deliveries(store, limit=12),
            self._day_counts(),
        )
        totals: dict[str, int] = {}
        for row in connections:
            for state, count in row["counts"].items():
                totals[state] = totals.get(state, 0) + count
        for row in connections:
            await self._describe(row, language, day)
        shown = sorted(connections, key=lambda row: (row["connection"] == INTERNAL, row["connection"]))
        return self.render(
            request, language, "home.html",
            needs=needs(self._hub, language, repairs, connections, totals, held),
            connections=[r for i, r in enumerate(shown) if i < DESTINATIONS or r["state"] != "open"],
            hidden_count=sum(r["state"] == "open" for r in shown[DESTINATIONS:]),
            resting=sum(row["state"] == "breaker_open" for row in connections),
            totals=totals,
            events=events,
            deliveries=deliveries,
        )  # fmt: skip

    async def _describe(self, row: Json, language: Language, day: dict[str, list[list[int]]]) -> None:
        """Adds what the ledger does not know of a connection: its type's name, its roles, its last run."""
        name = row["connection"]
        opened = self._hub.connections.get(name)
        kind = self._hub.registry.connector_types.get(row["type"])
        row["title"] = language.pick((kind.title_vi, kind.title_en)) if kind else row["type"]
        row["roles"] = [] if opened is None else [
            role
            for role, part in (("receives", opened.receiver), ("reads", opened.source), ("sends", opened.sink))
            if part is not None
        ]  # fmt: skip
        if name == INTERNAL:
            row["title"] = language.say("connections.handler")
        row["state"] = _standing(row, language)
        row["run"] = await views.last_run(self._hub.store, name) if opened and opened.source else None
        row["spark"] = sparkline(day.get(row["destination"] or "", []))

    async def _day_counts(self) -> dict[str, list[list[int]]]:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._day_until:
            started = loop.time()
            self._day_until = started + DAY_KEPT_S
            self._day = await views.day_counts(self._hub.store, to_us(self._hub.now()))
            self._day_until = loop.time() + max(DAY_KEPT_S, 20 * (loop.time() - started))
        return self._day

    # -- lists -------------------------------------------------------------------------------------

    async def events(self, request: web.Request, language: Language) -> web.StreamResponse:
        wrong = ""
        try:
            asked = read(EventsParameters, request)
        except InputError as error:
            asked, wrong = EventsParameters(before=None), str(error)
        rows = await views.events(self._hub.store, limit=PAGE + 1, before=asked.before)
        return self.render(
            request, language, "events.html",
            events=rows[:PAGE], wrong=wrong, is_first=asked.before is None,
            # Without a feed position yet, there is nothing to go on from: a moment later there is.
            older=_url("/events", before=last) if len(rows) > PAGE and (last := rows[PAGE - 1]["position"]) else None,
        )  # fmt: skip

    async def deliveries(self, request: web.Request, language: Language) -> web.StreamResponse:
        wrong = ""
        try:
            asked = read(ListParameters, request, empty_is_absent=True)
        except InputError as error:
            asked, wrong = ListParameters(), str(error)
        rows, destinations, event = await asyncio.gather(
            self._rows(asked, PAGE + 1),
            self._hub.store.read("SELECT id FROM destination ORDER BY id LIMIT 1000"),
            _nothing() if asked.event is None else views.event(self._hub.store, asked.event.bytes),
        )
        keep = asked.model_dump(mode="json", exclude_none=True, exclude={"before"})
        return self.render(
            request, language, "deliveries.html",
            deliveries=rows[:PAGE], wrong=wrong, asked=asked, is_filtered=bool(keep), event=event,
            is_first=asked.before is None, first=_url("/deliveries", **keep),
            states=["open", *(s.value for s in State)], destinations=[row[0] for row in destinations],
            older=_url("/deliveries", **keep, before=rows[PAGE - 1]["id"]) if len(rows) > PAGE else None,
            csv=_url("/deliveries.csv", **keep),
        )  # fmt: skip

    async def deliveries_csv(self, request: web.Request, language: Language) -> web.StreamResponse:
        rows = await self._rows(read(ListParameters, request), CSV_ROWS)
        out = io.StringIO()
        write = csv.writer(out).writerow
        columns = ("id", "event_id", "destination", "recipient", "state", "reason", "tries", "created_at", "settled_at")
        write([*columns, "state_text", "reason_text"])
        for row in rows:
            texts = language.state(row["state"], self._channel(row["destination"])), language.reason(row["reason"])
            shown = {**row, "recipient": short(row["recipient"])}
            write([_cell(shown[column]) for column in columns] + [_cell(text) for text in texts])
        return web.Response(
            # the mark at the start tells Excel that this is UTF-8
            body=("\ufeff" + out.getvalue()).encode(),
            content_type="text/csv",
            charset="utf-8",
            headers={"Content-Disposition": 'attachment; filename="deliveries.csv"', "Cache-Control": "no-store"},
        )

    async def _rows(self, asked: ListParameters, limit: int) -> list[Json]:
        arrived = None
        if asked.day is not None:
            start = datetime(asked.day.year, asked.day.month, asked.day.day, tzinfo=ZONE)
            arrived = to_us(start), to_us(start + timedelta(days=1))
        return await views.deliveries(
            self._hub.store,
            state=None if asked.state is None else str(asked.state),
            destination=asked.destination,
            reason=asked.reason,
            event_id=asked.event.bytes if asked.event else None,
            arrived=arrived,
            before=asked.before.bytes if asked.before else None,
            limit=limit,
        )

    # -- one delivery ------------------------------------------------------------------------------

    async def delivery(self, request: web.Request, language: Language) -> web.StreamResponse:
        try:
            found = await views.delivery(self._hub.store, UUID(request.match_info["id"]).bytes, unseal=self._hub.unseal)
        except ValueError:
            found = None
        if found is None:
            response = self.render(request, language, "wrong.html")
            response.set_status(404)
            return response
        held, rows = await asyncio.gather(self._hub.store.held(), views.connections(self._hub.store))
        states = {row["destination"]: _standing(row, language) for row in rows}
        standing = "held" if held else states.get(found["destination"], "open")
        return self.render(request, language, "delivery.html", d=found, event=found.get("event"), standing=standing)


async def _nothing() -> None:
    return None


def _remember_language(request: web.Request, wanted: str) -> web.Response:
    response = web.Response(
        status=303, headers={"Location": str(request.rel_url.without_query_params("lang")), "Cache-Control": "no-store"}
    )
    if wanted in LANGUAGES:
        response.set_cookie(
            LANGUAGE_COOKIE, wanted, max_age=31_536_000, httponly=True, samesite="Lax", secure=request.secure
        )
    return response


def short(id: str) -> str:
    """An opaque id as people see it."""
    return id if len(id) <= 8 else id[:8] + "…"


def _standing(row: Json, language: Language) -> str:
    """The state of a destination; one whose partner asked for a pause is not simply running."""
    not_before = row["not_before"]
    if row["state"] == "open" and not_before and language.parse(not_before) > language.now:
        return "waiting_until"
    state: str = row["state"]
    return state


def _url(path: str, /, **query: Any) -> str:
    return str(URL(path).with_query({k: str(v) for k, v in query.items() if v is not None}))


def _cell(value: object) -> str:
    """As text: what a spreadsheet would take for a formula gets an apostrophe."""
    text = "" if value is None else str(visible(str(value)))
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r", "＝") else text


def sparkline(hours: list[list[int]]) -> Json:
    """Two paths of bars: good above the line, bad below it, so that colour is not needed to tell them apart.

    Units: 5 per hour in x; the line is at y = 24, 24 above and 8 below it.
    """
    most_good = max((good for good, _ in hours), default=0)
    most_bad = max((bad for _, bad in hours), default=0)
    good_path = bad_path = ""
    for i, (good, bad) in enumerate(hours):
        if good:
            good_path += f"M{5 * i} 23.5h4v-{max(1.5, 23 * good / most_good):.1f}h-4z"
        if bad:
            bad_path += f"M{5 * i} 24.5h4v{max(1.5, 7 * bad / most_bad):.1f}h-4z"
    return {
        "good": good_path, "bad": bad_path,
        "good_count": sum(good for good, _ in hours), "bad_count": sum(bad for _, bad in hours),
    }  # fmt: skip
