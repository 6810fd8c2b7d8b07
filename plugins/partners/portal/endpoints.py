"""Endpoints in the portal: through the same functions as the commands, always of the partner that is signed in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from hub.contract import Guard, PageResponse, Sealed, UnitOfWork
from hub.errors import Conflict, InputError, NotFound
from hub.model import to_us
from hub.signing import new_secret
from plugins.partners import commands, tables, trial
from plugins.partners import params as p
from plugins.partners import portal_tables as own
from plugins.partners.access import endpoint_row, sending
from plugins.partners.health import DISABLE_AFTER
from plugins.partners.inbox import INBOX, KEEP, KEEP_FOR
from plugins.partners.managed import subject_of
from plugins.partners.portal.account import granted_types, grants_of, quiet
from plugins.partners.portal.render import View, see
from plugins.partners.portal.sessions import Pace

#: Rows of a list of deliveries.
PAGE = 50
_tests = Pace(30, 300)


def destination_of(view: View, endpoint: str) -> str:
    return f"{sending(view.hub)}/{view.partner}.{endpoint}"


async def the_endpoint(view: View) -> tuple[Any, ...]:
    """The row of the endpoint in the path. Raises: NotFound, of another partner's too."""
    return await endpoint_row(view.hub, view.partner, view.request.params["endpoint"])


# -- one endpoint ----------------------------------------------------------------------------------


async def page(view: View, tested: Any = None) -> PageResponse:
    row = await the_endpoint(view)
    destination = destination_of(view, row[1])
    try:
        before = UUID(view.request.query.get("before") or "f" * 32).bytes
    except ValueError:
        raise NotFound from None
    rows = await view.hub.fetch(own.DELIVERIES(destination=destination, before=before, limit=PAGE + 1))
    standing = await view.hub.fetch(own.STANDING(destination=destination))
    outage = await view.hub.fetch(tables.OUTAGE(destination=destination))
    return view.page(
        "endpoint.html",
        failing_since=outage[0][0] if outage else None,
        switched_off_at=outage[0][0] + int(DISABLE_AFTER.total_seconds() * 1_000_000) if outage else None,
        name=row[1],
        url=row[2],
        is_inbox=row[2] == INBOX,
        types=", ".join(orjson.loads(row[3])),
        settings=orjson.loads(row[4]),
        signs="v1" if row[5] is not None else "v1a",
        old_key_signs=row[9] > to_us(view.hub.now()),
        granted=granted_types(view, await grants_of(view)),
        tested=tested,
        deliveries=[_line(view, each, standing) for each in rows[:PAGE]],
        older=UUID(bytes=bytes(rows[PAGE - 1][0])) if len(rows) > PAGE else None,
        standing=standing[0] if standing else None,
        replays=await view.hub.fetch(own.REPLAYS_OF(partner=view.partner, endpoint=row[1])),
        uuid=lambda raw: UUID(bytes=bytes(raw)),
    )


def _line(view: View, row: tuple[Any, ...], standing: list[tuple[Any, ...]]) -> dict[str, Any]:
    id, event, state, reason, tries, created_at, due_at = row[:7]
    return {
        "id": UUID(bytes=bytes(id)),
        "event": UUID(bytes=bytes(event)),
        "state": state,
        "reason": reason,
        "tries": tries,
        "created_at": created_at,
        "next_at": _next_at(state, due_at, standing),
    }


def _next_at(state: str, due_at: int | None, standing: list[tuple[Any, ...]]) -> int | None:
    """When it is tried next, µs: not before its destination is tried again; None where nobody can say."""
    if state != "pending" or due_at is None:
        return None
    paused_by, _, _, breaker_until, not_before = standing[0] if standing else (None, "", 0, 0, 0)
    return None if paused_by else max(due_at, breaker_until, not_before)


async def delivery(view: View) -> PageResponse:
    """A delivery with its attempts: what was sent, what was answered, how long it took, when it is tried next."""
    row = await the_endpoint(view)
    destination = destination_of(view, row[1])
    found = await the_delivery(view, row[1])
    line = _line(view, found, await view.hub.fetch(own.STANDING(destination=destination)))
    sent = await trial.as_sent(view.hub, row, line["event"])
    return view.page(
        "delivery.html",
        name=row[1],
        url=row[2],
        d=line,
        type=found[8],
        again=found[7],
        sent=None if sent is None or isinstance(sent, str) else (sent[0], sent[1].decode()),
        kept_back=sent if isinstance(sent, str) else "",
        attempts=await view.hub.attempts(line["id"]),
    )


async def the_delivery(view: View, endpoint: str) -> tuple[Any, ...]:
    """Raises: NotFound, also for one that goes elsewhere."""
    try:
        id = UUID(view.request.params["delivery"]).bytes
    except ValueError:
        raise NotFound from None
    rows = await view.hub.fetch(own.DELIVERY(destination=destination_of(view, endpoint), id=id))
    if not rows:
        raise NotFound
    return rows[0]


# -- changing --------------------------------------------------------------------------------------


async def new(view: View) -> PageResponse:
    return view.page("new.html")


async def add(view: View) -> PageResponse:
    form = view.request.form
    given: dict[str, Any] = {
        name: form[name] for name in ("endpoint", "url", "types", "mode", "filter") if form.get(name)
    }
    params = p.EndpointParams(partner=view.partner, asymmetric=form.get("asymmetric") == "on", **given)
    return view.page("secret.html", made=await commands.add_endpoint(view.hub, params, quiet))


async def change(view: View) -> PageResponse:
    row = await the_endpoint(view)
    form = view.request.form
    given: dict[str, Any] = {name: form[name] for name in ("url", "types", "mode") if form.get(name)}
    params = p.ChangeParams(partner=view.partner, endpoint=row[1], filter=form.get("filter", ""), **given)
    await commands.change_endpoint(view.hub, params, quiet)
    return see(f"/portal/endpoints/{row[1]}")


async def rotate(view: View) -> PageResponse:
    row = await the_endpoint(view)
    hours: Any = view.request.form.get("hours", "24")
    params = p.RotateParams(partner=view.partner, endpoint=row[1], overlap_hours=hours)
    return view.page("secret.html", made=await commands.rotate(view.hub, params, quiet))


async def remove(view: View) -> PageResponse:
    row = await the_endpoint(view)
    if view.request.form.get("sure") != row[1]:
        text = "ghi lại tên địa chỉ nhận để bỏ; chưa có gì thay đổi / write its name to remove it; nothing was changed"
        raise InputError(text, status=422)
    await commands.remove_endpoint(view.hub, p.OfEndpoint(partner=view.partner, endpoint=row[1]), quiet)
    return see("/portal/")


async def test(view: View) -> PageResponse:
    row = await the_endpoint(view)
    if not _tests.take(view.partner, view.hub.now()):
        vi, en = "Gửi thử quá nhiều. Đợi một phút rồi thử lại.", "Too many tests. Wait a minute and try again."
        return view.wrong(429, vi, en, **{"Retry-After": "60"})
    kind = view.request.form.get("type") or p.TEST_TYPE
    params = p.TestParams(partner=view.partner, endpoint=row[1], type=kind)
    return await page(view, await trial.send_test(view.hub, params, quiet))


# -- the inspector inbox ---------------------------------------------------------------------------


async def add_inbox(view: View) -> PageResponse:
    """An endpoint that leads to the inbox; later it may be given an address of the partner's own."""
    params = p.OfEndpoint(partner=view.partner, endpoint=view.request.form.get("endpoint") or "hop-thu")
    if sending(view.hub) is None:
        raise InputError("cán bộ chưa bật việc gửi / the officer has not switched sending on yet", status=409)
    insert = tables.ADD_ENDPOINT(
        partner=view.partner,
        name=params.endpoint,
        url=INBOX,
        types=orjson.dumps(("vn.congdoan.*",)),
        settings=p.EndpointSettings().model_dump_json().encode(),
        secret=Sealed(subject_of(view.partner), new_secret().encode()),
        private_key=None,
        now=to_us(view.hub.now()),
    )
    guards = [Guard(tables.STILL_THERE(name=view.partner)), Guard(insert, otherwise="exists")]
    try:
        await view.hub.commit(UnitOfWork(guards=guards, statements=[tables.CHANGE()]))
    except Conflict as conflict:
        if conflict.otherwise != "exists":
            raise
        raise InputError("tên này đã có / this name is taken", problem="conflict", status=409) from None
    return see(f"/portal/inbox/{params.endpoint}")


async def inbox(view: View) -> PageResponse:
    row = await the_endpoint(view)
    if row[2] != INBOX:
        raise NotFound
    since = to_us(view.hub.now() - KEEP_FOR)
    rows = await view.hub.fetch(own.RECEIVED_BY(partner=view.partner, endpoint=row[1], since=since))
    opened = await view.hub.unseal([(subject_of(view.partner), content) for *_, content in rows])
    received = [
        {"at": at, "rule": rule, **orjson.loads(content)}
        for (_, at, rule, _), content in zip(rows, opened, strict=True)
        if content is not None
    ]
    return view.page(
        "inbox.html", name=row[1], received=received, keep=KEEP, hours=KEEP_FOR // timedelta(hours=1),
        granted=granted_types(view, await grants_of(view)),
    )  # fmt: skip
