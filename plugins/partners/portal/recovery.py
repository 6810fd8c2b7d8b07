"""Sending again in the portal: one delivery, what failed, or a range; counted first, then asked, then done."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import orjson

from hub.contract import Guard, PageResponse, UnitOfWork
from hub.errors import Conflict, InputError, NotFound
from hub.model import new_id, to_us
from plugins.partners import portal_tables as own
from plugins.partners.portal.account import grants_of
from plugins.partners.portal.endpoints import destination_of, the_delivery, the_endpoint
from plugins.partners.portal.render import View, see
from plugins.partners.replays import Mode, Wanted, bound, count, estimate_s
from plugins.partners.settings import ZONE

SPEEDS = (1, 5, 20, 100)
LONGEST = timedelta(days=90)


async def resend(view: View) -> PageResponse:
    """One settled delivery once more; asked first."""
    row = await the_endpoint(view)
    found = await the_delivery(view, row[1])
    back = f"/portal/endpoints/{row[1]}"
    if view.request.form.get("sure") != "1":
        return view.page("resend.html", name=row[1], delivery=view.request.params["delivery"], state=found[2])
    event = UUID(bytes=bytes(found[1]))
    owed = await view.hub.resend(event, destination_of(view, row[1]), before=view.hub.now())
    if owed is None:
        text = (
            "lượt này còn đang chờ gửi nên không gửi lại / this delivery is still to be sent, so it was not sent again"
        )
        raise InputError(text, problem="not-settled", status=409)
    return see(f"{back}/deliveries/{owed}")


async def replay(view: View) -> PageResponse:
    """How many events a replay would send, and how long it would take; the number is said back to start it."""
    row = await the_endpoint(view)
    mode, since, until, per_s = _asked(view, view.request.query)
    total = await count(view.hub, await _wanted(view, row, mode), bound(since), bound(until), to_us(view.hub.now()))
    return view.page(
        "replay.html", name=row[1], mode=mode, since=since, until=until, per_s=per_s, total=total,
        takes=estimate_s(total, per_s),
    )  # fmt: skip


async def start(view: View) -> PageResponse:
    row = await the_endpoint(view)
    mode, since, until, per_s = _asked(view, view.request.form)
    now = to_us(view.hub.now())
    total = await count(view.hub, await _wanted(view, row, mode), bound(since), bound(until), now)
    if view.request.form.get("expect") != str(total) or not total:
        text = (
            f"bây giờ có {total} sự kiện; chưa gửi gì, xem lại rồi xác nhận"
            f" / there are {total} events now; nothing was sent, look again and confirm"
        )
        raise InputError(text, problem="conflict", status=409)
    add = own.ADD_REPLAY(
        id=new_id().bytes, partner=view.partner, endpoint=row[1], mode=mode, after=bound(since), until=bound(until),
        per_s=per_s, total=total, now=now,
    )  # fmt: skip
    await view.hub.commit(UnitOfWork(statements=[add]))
    return see(f"/portal/endpoints/{row[1]}")


async def stop(view: View) -> PageResponse:
    row = await the_endpoint(view)
    try:
        id = UUID(view.request.params["replay"]).bytes
    except ValueError:
        raise NotFound from None
    ended = own.STOP_REPLAY(id=id, partner=view.partner, endpoint=row[1])
    try:
        await view.hub.commit(UnitOfWork(guards=[Guard(ended, otherwise="not_found")]))
    except Conflict:
        raise NotFound from None
    return see(f"/portal/endpoints/{row[1]}")


async def _wanted(view: View, row: tuple[Any, ...], mode: Mode) -> Wanted:
    return Wanted(destination_of(view, row[1]), orjson.loads(row[3]), await grants_of(view), mode)


def _asked(view: View, given: Any) -> tuple[Mode, datetime, datetime, int]:
    """What the form says. Times without a zone are Vietnamese. Raises: InputError (422)."""
    mode: Any = given.get("mode") or "failed"
    now = view.hub.now()
    try:
        since = _instant(given.get("since")) or now - timedelta(days=1)
        until = min(_instant(given.get("until")) or now, now)
        per_s = int(given.get("per_s") or 5)
    except (ValueError, OverflowError):
        mode, since, until, per_s = "", now, now, 0
    if mode not in get_args(Mode) or per_s not in SPEEDS or not timedelta() < until - since <= LONGEST:
        text = (
            "chọn khoảng thời gian tối đa 90 ngày, kết thúc sau khi bắt đầu"
            " / choose a range of at most 90 days that ends after it begins"
        )
        raise InputError(text, status=422)
    return mode, since, until, per_s


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    at = datetime.fromisoformat(text)
    if at.year < 2000:
        raise ValueError
    return at if at.tzinfo is not None else at.replace(tzinfo=ZONE)
