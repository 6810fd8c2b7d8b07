"""``unionhub partners ...``: agencies, what they may see, and where it is sent; the same over ``/api/v1/partners``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import orjson
from pydantic import BaseModel

from hub.contract import Command, Hub, Report, Rest, Sealed, UnitOfWork
from hub.contract import Guard as RowGuard
from hub.errors import Conflict, InputError, NotFound
from hub.model import Json, new_id, to_us
from hub.signing import new_private_key, new_secret, parse_private_key, public_key
from plugins.partners import doctor, exam, tables, trial
from plugins.partners import params as p
from plugins.partners.access import checked, commit, endpoint_row, file_of, sending, the_guard, the_partner, visible
from plugins.partners.grants import Grant, matches
from plugins.partners.managed import read_grant, subject_of
from plugins.partners.settings import PartnerSettings, midnight

# -- partners --------------------------------------------------------------------------------------


async def add(hub: Hub, given: p.AddParams, report: Report) -> Json:
    if given.partner in hub.settings_of(PartnerSettings):
        raise _taken()
    contact = Sealed(subject_of(given.partner), given.contact.encode()) if given.contact else None
    insert = tables.ADD_PARTNER(name=given.partner, title=given.title, contact=contact, now=to_us(hub.now()))
    try:
        await hub.commit(UnitOfWork(guards=[RowGuard(insert, otherwise="exists")], statements=[tables.CHANGE()]))
    except Conflict:
        raise _taken() from None
    return await _shown(hub, given.partner)


def _taken() -> InputError:
    text = "tên này đã có; chưa có gì thay đổi / this name is taken; nothing was changed"
    return InputError(text, problem="conflict", status=409)


async def list_partners(hub: Hub, given: p.ListParams, report: Report) -> Json:
    """Those of files and those of the API, by name."""
    found = {name: _line(name, "", file_of(name)) for name in hub.settings_of(PartnerSettings)}
    found |= {row[0]: _line(row[0], row[1], None) for row in await hub.fetch(tables.PARTNERS())}
    names = sorted(name for name in found if name > given.after and visible(hub, name))
    page = names[: given.limit]
    return {"partners": [found[name] for name in page], "next": page[-1] if len(names) > len(page) else None}


def _line(name: str, title: str, file: str | None) -> Json:
    return {"partner": name, "title": title, "managed_by": "api" if file is None else "file", "file": file}


async def show(hub: Hub, given: p.OfPartner, report: Report) -> Json:
    """A partner with its grants and endpoints; no secret is in it."""
    own = hub.settings_of(PartnerSettings).get(given.partner)
    if own is not None and visible(hub, given.partner):
        return {
            **_line(given.partner, "", file_of(given.partner)),
            "contact": own.contact or None,
            "grants": [_shown_grant(hub, each.grant()) for each in own.grants],
            "endpoints": [{"endpoint": "", "url": own.url, "mode": own.content_mode, "filter": own.filter}],
        }
    await the_partner(hub, given.partner)
    return await _shown(hub, given.partner)


async def _shown(hub: Hub, name: str) -> Json:
    row = await the_partner(hub, name)
    (contact,) = await hub.unseal([(subject_of(name), row[2])])
    grants = [_shown_grant(hub, read_grant(each)) for each in await hub.fetch(tables.GRANTS_OF(partner=name))]
    now = to_us(hub.now())
    endpoints = [
        {
            "endpoint": each[1],
            "url": each[2],
            "types": orjson.loads(each[3]),
            **orjson.loads(each[4]),
            "signs": [kind for kind, value in (("v1", each[5]), ("v1a", each[6])) if value is not None],
            "old_key_signs_too": each[9] > now,
        }
        for each in await hub.fetch(tables.ENDPOINTS_OF(partner=name))
    ]
    return {
        **_line(name, row[1], None),
        "contact": None if contact is None else contact.decode(),
        "grants": grants,
        "endpoints": endpoints,
    }


# -- grants ----------------------------------------------------------------------------------------


def _shown_grant(hub: Hub, grant: Grant) -> Json:
    return {
        "grant": grant.id,
        "types": list(grant.types),
        "fields": list(grant.fields),
        "purpose": grant.purpose,
        "legal_basis": grant.legal_basis,
        "begins_at": grant.begins_at.isoformat(),
        "ends_at": None if grant.ends_at is None else grant.ends_at.isoformat(),
        "holds": grant.holds(hub.now()),
    }


async def give(hub: Hub, given: p.GrantParams, report: Report) -> Json:
    await the_partner(hub, given.partner)
    begins_at = hub.now() if given.begins is None else midnight(given.begins)
    ends_at = None if given.ends is None else midnight(given.ends) + timedelta(days=1)
    if ends_at is not None and ends_at <= max(begins_at, hub.now()):
        raise InputError("quyền kết thúc trước khi bắt đầu / the grant ends before it begins", status=422)
    for pattern in given.types:
        if not any(matches(pattern, name) for name in hub.event_types):
            text = f"không có loại sự kiện {pattern} / there is no event type {pattern}"
            raise InputError(text, problem="event-type-unknown", status=422, at="types")
    id = new_id()
    statement = tables.ADD_GRANT(
        id=id.bytes,
        partner=given.partner,
        types=orjson.dumps(given.types),
        fields=orjson.dumps(sorted(set(given.fields))),
        purpose=given.purpose,
        legal_basis=given.legal_basis,
        begins_at=to_us(begins_at),
        ends_at=None if ends_at is None else to_us(ends_at),
    )
    await commit(hub, given.partner, statement)
    return {"grant": id.hex, **await _shown(hub, given.partner)}


async def end_grant(hub: Hub, given: p.EndGrantParams, report: Report) -> Json:
    await the_partner(hub, given.partner)
    try:
        id = bytes.fromhex(given.grant)
    except ValueError:
        raise NotFound("không có quyền này / there is no such grant") from None
    await commit(hub, given.partner, touch=tables.END_GRANT(id=id, partner=given.partner, at=to_us(hub.now())))
    return await _shown(hub, given.partner)


# -- endpoints -------------------------------------------------------------------------------------


def _fresh_key(partner: str, asymmetric: bool) -> tuple[Sealed | None, Sealed | None, Json]:
    """Secret and private key as they are stored, one of them None; and what the partner is shown, once."""
    if asymmetric:
        private = new_private_key()
        return (
            None,
            Sealed(subject_of(partner), private.encode()),
            {"public_key": public_key(parse_private_key(private))},
        )
    secret = new_secret()
    return Sealed(subject_of(partner), secret.encode()), None, {"secret": secret}


async def add_endpoint(hub: Hub, given: p.EndpointParams, report: Report) -> Json:
    await the_partner(hub, given.partner)
    if sending(hub) is None:
        raise InputError(
            'chưa có kết nối loại "partners": thêm connections/doi-tac.toml với type = "partners" rồi khởi động'
            ' / there is no connection of type "partners": add connections/doi-tac.toml with that type and start',
            status=409,
        )
    url = await checked(the_guard(hub), given.url)
    own = p.EndpointSettings(**{name: getattr(given, name) for name in p.EndpointSettings.model_fields})
    secret, private, shown = _fresh_key(given.partner, given.asymmetric)
    insert = tables.ADD_ENDPOINT(
        partner=given.partner,
        name=given.endpoint,
        url=str(url),
        types=orjson.dumps(given.types),
        settings=own.model_dump_json().encode(),
        secret=secret,
        private_key=private,
        now=to_us(hub.now()),
    )
    guards = [RowGuard(tables.STILL_THERE(name=given.partner)), RowGuard(insert, otherwise="exists")]
    try:
        await hub.commit(UnitOfWork(guards=guards, statements=[tables.CHANGE()]))
    except Conflict as conflict:
        if conflict.otherwise != "exists":
            raise
        raise _taken() from None
    return {"endpoint": given.endpoint, **shown, "shown_once": True}


async def change_endpoint(hub: Hub, given: p.ChangeParams, report: Report) -> Json:
    await the_partner(hub, given.partner)
    row = await endpoint_row(hub, given.partner, given.endpoint)
    url = row[2] if given.url is None else str(await checked(the_guard(hub), given.url))
    asked = {name: value for name in p.EndpointSettings.model_fields if (value := getattr(given, name)) is not None}
    own = p.EndpointSettings.model_validate({**orjson.loads(row[4]), **asked})
    change = tables.CHANGE_ENDPOINT(
        partner=given.partner,
        name=given.endpoint,
        url=url,
        types=row[3] if given.types is None else orjson.dumps(given.types),
        settings=own.model_dump_json().encode(),
    )
    await commit(hub, given.partner, touch=change)
    return await _shown(hub, given.partner)


async def remove_endpoint(hub: Hub, given: p.OfEndpoint, report: Report) -> Json:
    await the_partner(hub, given.partner)
    await commit(hub, given.partner, touch=tables.REMOVE_ENDPOINT(partner=given.partner, name=given.endpoint))
    return await _shown(hub, given.partner)


async def rotate(hub: Hub, given: p.RotateParams, report: Report) -> Json:
    """A new key of the same kind; the old one signs beside it for the hours given."""
    await the_partner(hub, given.partner)
    row = await endpoint_row(hub, given.partner, given.endpoint)
    secret, private, shown = _fresh_key(given.partner, asymmetric=row[5] is None)
    until = hub.now() + timedelta(hours=given.overlap_hours)
    change = tables.ROTATE(
        partner=given.partner, name=given.endpoint, secret=secret, private_key=private, until=to_us(until)
    )
    await commit(hub, given.partner, touch=change)
    return {"endpoint": given.endpoint, **shown, "shown_once": True, "old_key_signs_until": until.isoformat()}


# -- the table of contents -------------------------------------------------------------------------

_AT = "/partners/{partner}"
_ENDPOINT = _AT + "/endpoints/{endpoint}"


def _command(
    name: str,
    vi: str,
    en: str,
    params: type[BaseModel],
    run: Any,
    method: Literal["GET", "POST", "PATCH", "DELETE"] | None = None,
    path: str = "",
    *,
    status: int = 200,
    writes: bool = True,
    officer: bool = False,
    render: Any = None,
) -> Command:
    """``officer``: not for a partner's own key, which else does this for its own partner alone."""
    scope = "partners:write" if writes else "partners:read"
    rest = None
    if method is not None:
        rest = Rest(method=method, path=path, scope=scope, status=status, narrows=not officer)
    return Command(
        group="partners",
        name=name,
        help_vi=vi,
        help_en=en,
        params=params,
        run=run,
        writes=writes,
        rest=rest,
        render=render,
    )


COMMANDS = (
    _command(
        "add",
        "Thêm một đơn vị đối tác.",
        "Add a partner.",
        p.AddParams,
        add,
        "POST",
        "/partners",
        status=201,
        officer=True,
    ),
    _command(
        "list",
        "Liệt kê đơn vị đối tác.",
        "List partners.",
        p.ListParams,
        list_partners,
        "GET",
        "/partners",
        writes=False,
    ),
    _command(
        "show",
        "Xem một đơn vị: quyền và địa chỉ nhận.",
        "Show a partner, its grants and endpoints.",
        p.OfPartner,
        show,
        "GET",
        _AT,
        writes=False,
    ),
    _command(
        "grant",
        "Cho đơn vị xem một số trường dữ liệu, có mục đích, căn cứ, thời hạn.",
        "Let a partner see some fields, with purpose, legal basis and end.",
        p.GrantParams,
        give,
        "POST",
        _AT + "/grants",
        status=201,
        officer=True,
    ),
    _command(
        "end-grant",
        "Chấm dứt một quyền ngay; lượt gửi còn nợ theo quyền đó bị hủy.",
        "End a grant now; what is still owed under it is cancelled.",
        p.EndGrantParams,
        end_grant,
        "POST",
        _AT + "/grants/{grant}/end",
        officer=True,
    ),
    _command(
        "endpoint",
        "Thêm một địa chỉ nhận; khóa ký chỉ hiện một lần.",
        "Add an endpoint; its key is shown once.",
        p.EndpointParams,
        add_endpoint,
        "POST",
        _AT + "/endpoints",
        status=201,
    ),
    _command(
        "change-endpoint",
        "Sửa một địa chỉ nhận.",
        "Change an endpoint.",
        p.ChangeParams,
        change_endpoint,
        "PATCH",
        _ENDPOINT,
    ),
    _command(
        "remove-endpoint",
        "Bỏ một địa chỉ nhận; lượt gửi còn nợ bị hủy.",
        "Remove an endpoint; what is still owed to it is cancelled.",
        p.OfEndpoint,
        remove_endpoint,
        "DELETE",
        _ENDPOINT,
    ),
    _command(
        "rotate",
        "Đổi khóa ký; khóa cũ còn ký song song một thời gian.",
        "Change the key; the old one signs beside it for a while.",
        p.RotateParams,
        rotate,
        "POST",
        _ENDPOINT + "/rotate",
    ),
    _command(
        "try-filter",
        "Thử bộ lọc trên 20 sự kiện gần nhất.",
        "Try a filter on the last 20 events.",
        p.FilterParams,
        trial.try_filter,
        "POST",
        _AT + "/try-filter",
        writes=False,
    ),
    _command(
        "event",
        "Xem một sự kiện như đơn vị được xem.",
        "Show an event as the partner may see it.",
        p.EventParams,
        trial.show_event,
        "GET",
        _AT + "/events/{event}",
        writes=False,
    ),
    _command(
        "test",
        "Gửi thử một sự kiện đánh dấu test tới địa chỉ nhận.",
        "Send an event marked test to an endpoint.",
        p.TestParams,
        trial.send_test,
        "POST",
        _ENDPOINT + "/test",
    ),
    _command(
        "exam",
        "Kiểm tra một phần mềm nhận: tám bài, đạt hay không và vì sao.",
        "Examine a receiver: eight tasks, pass or fail and why.",
        p.ExamParams,
        exam.examine,
        writes=False,
        render=exam.render,
    ),
    _command(
        "doctor",
        "Tìm vì sao chữ ký không khớp.",
        "Find out why a signature does not fit.",
        p.DoctorParams,
        doctor.run,
        writes=False,
    ),
)
