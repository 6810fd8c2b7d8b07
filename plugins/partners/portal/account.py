"""The portal's front: signing in and out, what was granted, and the signature doctor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from hub.contract import EventType, PageResponse
from hub.errors import NotFound
from plugins.partners import commands, tables
from plugins.partners import params as p
from plugins.partners import portal_tables as own_tables
from plugins.partners.access import endpoint_row, sending, the_guard
from plugins.partners.doctor import diagnose
from plugins.partners.grants import Grant, cut
from plugins.partners.inbox import secret_text
from plugins.partners.managed import read_endpoints, read_grant
from plugins.partners.portal.render import View, see
from plugins.partners.portal.sessions import SIGN_IN, TRIES, TRIES_OF_ALL, Pace, cookie, sign_in, sign_out

#: Of the doctor's form: a body pasted whole.
DOCTOR_BYTES = 512 * 1024
_tries = Pace(TRIES, TRIES_OF_ALL)


def quiet(progress: Mapping[str, Any]) -> None:
    """Pages show no progress."""


# -- signing in ------------------------------------------------------------------------------------


async def sign_in_page(view: View) -> PageResponse:
    """A button, not the sign-in itself: what looks at links in mails must not use them up."""
    if view.partner and not view.request.query.get("t"):
        return see("/portal/")
    return view.page("sign_in.html", token=view.request.query.get("t", "")[:200])


async def sign_in_form(view: View) -> PageResponse:
    if not _tries.take(view.request.remote, view.hub.now()):
        vi = "Thử đăng nhập quá nhiều lần. Đợi một phút rồi thử lại; liên kết chưa bị dùng."
        en = "Too many tries to sign in. Wait a minute and try again; the link was not used."
        return view.wrong(429, vi, en, **{"Retry-After": "60"})
    token = await sign_in(view.hub, view.request.form.get("t", "")[:200])
    if token is None:
        return view.wrong(
            403,
            "Liên kết này không dùng được: sai, đã dùng hoặc đã quá 15 phút. Xin cán bộ phụ trách một liên kết mới.",
            "This link cannot be used: it is wrong, used, or older than 15 minutes. Ask the officer for a new one.",
        )
    return see("/portal/", **{"Set-Cookie": cookie(token, view.request.secure)})


async def sign_out_form(view: View) -> PageResponse:
    await sign_out(view.hub, view.request)
    return see(SIGN_IN, **{"Set-Cookie": cookie("", view.request.secure)})


# -- what was granted ------------------------------------------------------------------------------


def not_ended(view: View, grants: Sequence[Grant]) -> list[Grant]:
    now = view.hub.now()
    return [grant for grant in grants if grant.ends_at is None or now < grant.ends_at]


def granted_types(view: View, grants: Sequence[Grant]) -> list[EventType]:
    """Those of the catalogue that a grant covers which holds or will."""
    open_now = not_ended(view, grants)
    return [kind for _, kind in sorted(view.hub.event_types.items()) if any(g.covers(kind.name) for g in open_now)]


async def grants_of(view: View) -> list[Grant]:
    return [read_grant(row) for row in await view.hub.fetch(tables.GRANTS_OF(partner=view.partner))]


async def home(view: View) -> PageResponse:
    shown = await commands.show(view.hub, p.OfPartner(partner=view.partner), quiet)
    standing: dict[str, Any] = {}
    for each in shown["endpoints"]:
        destination = f"{sending(view.hub)}/{view.partner}.{each['endpoint']}"
        rows = await view.hub.fetch(own_tables.STANDING(destination=destination))
        standing[each["endpoint"]] = rows[0] if rows else (None, "", 0, 0, 0)
    return view.page("home.html", shown=shown, standing=standing, types=granted_types(view, await grants_of(view)))


async def event_type(view: View) -> PageResponse:
    grants = await grants_of(view)
    name = view.request.params["type"]
    kind = next((each for each in granted_types(view, grants) if each.name == name), None)
    if kind is None:
        raise NotFound
    own = [grant for grant in not_ended(view, grants) if grant.covers(name)]
    fields = sorted({each for grant in own for each in grant.fields})
    return view.page(
        "type.html",
        kind=kind,
        version=name.rpartition(".v")[2],
        fields=fields,
        grants=own,
        schema=_json(kind.schema),
        example=_json(cut(dict(kind.example), fields)),
    )


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


# -- the signature doctor --------------------------------------------------------------------------


async def doctor_page(view: View) -> PageResponse:
    return await _doctor(view, None)


async def doctor_form(view: View) -> PageResponse:
    form = view.request.form
    secret = form.get("secret", "")
    if form.get("endpoint"):
        row = await endpoint_row(view.hub, view.partner, form["endpoint"])
        opened = await read_endpoints(view.hub, [row], the_guard(view.hub))
        secret = secret_text(opened[0].keys) if opened else ""
    lines = form.get("headers", "")[:16_384].splitlines()
    headers = {name: value for name, _, value in (line.partition(":") for line in lines)}
    # A form writes every line end as CR LF, whatever was pasted.
    body, sent = (form.get(name, "").replace("\r\n", "\n").encode() for name in ("body", "sent"))
    finding = await asyncio.to_thread(
        diagnose, secret, headers, body, view.hub.now(), computed=form.get("computed", "")[:200], sent=sent or None
    )
    return await _doctor(view, finding)


async def _doctor(view: View, finding: Any) -> PageResponse:
    endpoints = [row[1] for row in await view.hub.fetch(tables.ENDPOINTS_OF(partner=view.partner))]
    return view.page("doctor.html", endpoints=endpoints, finding=finding, form=view.request.form)
