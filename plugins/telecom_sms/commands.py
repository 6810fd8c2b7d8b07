"""``unionhub sms ...``: look before sending, send, and follow what became of it. Each answers over HTTP too."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID
from weakref import WeakKeyDictionary

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from hub.contract import Command, Hub, Report, Rest, UnitOfWork
from hub.errors import InputError
from hub.model import Json, to_us

from . import sending, tables
from .cost_commands import COSTS, can_be_counted, cost_of, row_of
from .people_commands import PEOPLE
from .preview import preview
from .recipients import Listed, of_file, of_numbers
from .route_commands import ROUTES
from .shown import render_preview, render_sending, render_sent, time_of
from .template_commands import TEMPLATES
from .templates import fields_of

#: A configuration that leads messages somewhere is believed for so long to go on doing so: a look at each sending would
#: cost as much as taking it.
_BELIEVED = timedelta(seconds=30)
_LEADS_UNTIL: WeakKeyDictionary[Hub, datetime] = WeakKeyDictionary()
_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
Class = Literal["care", "operations", "advertising"]


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _argument(description: str, **more: Any) -> Any:
    return Field(description=description, json_schema_extra={"argument": True}, **more)


class _Worded(_Params):
    """What is written, and as what."""

    text: str | None = Field(None, max_length=10_000, description="The text.")
    template: str | None = Field(None, max_length=80, description="Or a template: name, or name@version.")
    purpose: Class = Field(description="care (chăm sóc), operations (điều hành) or advertising (quảng cáo).")
    via: str | None = Field(None, description="Connection whose rules and prices count; by default the first.")


class PreviewParams(_Worded):
    values: str = Field("", max_length=4000, description="Values of a template: name=value; name=value.")
    to: str = Field("", max_length=200_000, description="Phones, parted by commas, for the cost in all.")


class _Sent(_Worded):
    name: str = _argument("Name of the sending; asking again with the same content changes nothing.", pattern=_NAME)
    plain: bool = Field(False, description="Without diacritics, as the preview shows it.")
    at: AwareDatetime | None = Field(None, description="Not before this time (RFC 3339, 2026-12-01T08:00:00+07:00).")
    expires_hours: int = Field(24, ge=1, le=720, description="Not sent any more after so many hours.")
    urgent: str = Field("", max_length=200, description="Reason for sending in quiet hours too; it is kept.")
    skip_bad: bool = Field(False, description="Send the good rows although others are bad.")
    budget: int | None = Field(None, ge=1, description="Đồng it may cost: it pauses before it would cost more.")
    sender: str = Field("", max_length=64, description="For the rules of sms_routes: the sender they look for.")
    tag: str = Field("", max_length=64, description="For the rules of sms_routes: the tag; by default the name.")
    dry_run: bool = Field(False, description="Show what would be sent and cost; send nothing.")


class SendParams(_Sent):
    to: str = Field("", max_length=2_000_000, description="Phones, parted by commas.")
    values: str = Field("", max_length=4000, description="Values of a template: name=value; name=value.")
    members: bool = Field(False, description="To all members the directory has a phone of.")
    unit: str = Field("", max_length=64, description="With --members only those of this unit; the cost is its.")


class SendFileParams(_Sent):
    file: Path = _argument("List of people, CSV (UTF-8) or Excel, with a column of phones.")
    unit: str = Field("", max_length=64, description="Unit the cost is counted for.")


class NameParams(_Params):
    name: str = _argument("Name of the sending.", pattern=_NAME)


class UrgentParams(NameParams):
    reason: str = Field(min_length=3, max_length=200, description="Why it may ring in quiet hours; it is kept.")


class BudgetParams(NameParams):
    dong: int = _argument("Đồng it may cost in all, what it cost so far with it.", ge=1)


class LimitParams(_Params):
    limit: int = Field(50, ge=1, le=1000, description="How many at most.")


# -- looking and sending ---------------------------------------------------------------------------


async def show_preview(hub: Hub, p: PreviewParams, report: Report) -> Json:
    via, settings = sending.account(hub, p.via)
    now = hub.now()
    rule = sending.rule_of(settings, p.purpose, now)
    wording = await sending.wording_of(hub, p.text, p.template)
    values = _values(p.values)
    recipients = of_numbers(_phones(p.to), values, settings.countries).whole()
    text = sending.Sending(name="", settings=settings, rule=rule, wording=wording)
    shown = preview(_filled(text, values), settings, rule, now, recipients.networks())
    return {
        "via": via, "template": wording.pinned, "fields": list(fields_of(wording.body)), **shown,
        "duplicates": recipients.duplicates, "problems": [problem.as_json() for problem in recipients.problems],
    }  # fmt: skip


def _filled(text: sending.Sending, values: dict[str, str]) -> str:
    gaps = fields_of(text.wording.body)
    missing = [name for name in gaps if not values.get(name)]
    if missing:
        raise InputError(f"mẫu tin còn thiếu / the template lacks: {', '.join(missing)}", problem="field-missing")
    return text.wording.body if not gaps else text.text_for(values)


async def send(hub: Hub, p: SendParams, report: Report) -> Json:
    via, settings = sending.account(hub, p.via)
    if p.members:
        return await _announce(hub, p, via, settings)
    numbers = _phones(p.to)
    if not numbers:
        raise InputError("chưa có người nhận: --to hoặc --members / nobody to send to", problem="no-recipients")
    listed = of_numbers(numbers, _values(p.values), settings.countries)
    answer = await _send(hub, p, via, settings, listed, report)
    if answer.get("failed"):
        raise _refused(answer)
    return answer


def _refused(answer: Json) -> InputError:
    """Few numbers, few words: whoever asks over HTTP must not take a list of problems for a success."""
    if answer.get("nowhere"):
        return InputError(render_sent(answer, "vi"), problem="no-subscription", status=409)
    rows = "; ".join(f"#{p['row']} {p['code']} {p['vi']} / {p['en']}" for p in answer["problems"][:10])
    return InputError(
        f"chưa gửi gì, {answer['bad_rows']} người nhận chưa đúng / nothing was sent, {answer['bad_rows']} recipients"
        f" are not right: {rows}",
        problem="recipients-bad",
        status=422,
    )


async def send_file(hub: Hub, p: SendFileParams, report: Report) -> Json:
    via, settings = sending.account(hub, p.via)
    report({"phase": "read", "done": 0, "total": 0})
    return await _send(hub, p, via, settings, of_file(p.file, settings.countries), report)


async def _send(
    hub: Hub, p: SendParams | SendFileParams, via: str, settings: Any, listed: Listed, report: Report
) -> Json:
    wanted = await _wanted(hub, p, settings)
    if not fields_of(wanted.wording.body):
        sending.check_text(wanted, hub.now())  # the same for everybody: one reason, not one a row
    judged = await sending.judge(wanted, listed, hub.now())
    answer: Json = {
        "name": p.name,
        "via": via,
        "purpose": p.purpose,
        "template": wanted.wording.pinned,
        "rows": judged.rows,
        "messages": judged.messages,
        "duplicates": judged.duplicates,
        "bad_rows": judged.bad_rows,
        "problems": [problem.as_json() for problem in judged.problems],
        "segments": judged.segments,
        "dong": judged.dong,
        "encodings": dict(judged.encodings),
        "example": judged.example,
        "batch": None,
        "sent": False,
    }
    if not judged.messages or (judged.bad_rows and not p.skip_bad):
        return {**answer, "failed": True}
    can_be_counted(p.budget, judged.dong)
    if p.dry_run:
        return answer
    batch = await sending.send(hub, wanted, listed, judged, report)
    return await _owed(hub, {**answer, "batch": str(batch), "sent": True}, batch)


async def _announce(hub: Hub, p: SendParams, via: str, settings: Any) -> Json:
    wanted = await _wanted(hub, p, settings)
    if fields_of(wanted.wording.body):
        raise InputError(
            "mẫu tin có chỗ trống cần danh sách riêng: dùng sms send-file / a template with gaps needs a list",
            problem="wording",
        )
    shown = sending.checked_text(wanted, hub.now())
    can_be_counted(p.budget, shown["without_diacritics" if p.plain else "as_written"]["dong"])
    answer: Json = {"name": p.name, "via": via, "purpose": p.purpose, "preview": shown, "batch": None, "sent": False}
    if p.dry_run:
        return answer
    batch = await sending.announce(hub, wanted, {"unit": p.unit} if p.unit else {})
    return {**answer, "batch": str(batch), "sent": True}


async def _owed(hub: Hub, answer: Json, batch: UUID) -> Json:
    """Tells when the configuration sends such messages nowhere: they would be kept and never leave."""
    now = hub.now()
    if _LEADS_UNTIL.get(hub, now) > now:
        return answer
    progress = await hub.batch(batch)
    if progress is not None and progress["total"] and not progress["counts"]:
        return {**answer, "failed": True, "sent": False, "nowhere": True}
    _LEADS_UNTIL[hub] = now + _BELIEVED
    return answer


async def _wanted(hub: Hub, p: SendParams | SendFileParams, settings: Any) -> sending.Sending:
    now = hub.now()
    wording = await sending.wording_of(hub, p.text, p.template)
    at, expires_at = sending.times(now, p.at, p.expires_hours)
    rule = sending.rule_of(settings, p.purpose, now)
    if p.urgent and not rule.override:
        raise InputError(
            f"tin {p.purpose} không được gửi trong giờ yên lặng / {p.purpose} never goes in quiet hours",
            problem="no-override",
            status=422,
        )
    return sending.Sending(
        name=p.name, settings=settings, rule=rule, wording=wording, plain=p.plain, unit=p.unit, send_at=at,
        expires_at=expires_at, urgent=p.urgent, budget=p.budget, routing=_routing(p),
    )  # fmt: skip


def _routing(p: _Sent) -> dict[str, str]:
    return {name: word for name, word in (("sender", p.sender), ("tag", p.tag)) if word}


def _phones(text: str) -> list[str]:
    return [piece.strip() for piece in text.replace("\n", ",").replace(";", ",").split(",") if piece.strip()]


def _values(text: str) -> dict[str, str]:
    pairs = [piece.partition("=") for piece in text.split(";") if piece.strip()]
    return {name.strip(): value.strip() for name, _, value in pairs}


# -- what became of it -----------------------------------------------------------------------------


async def show(hub: Hub, p: NameParams, report: Report) -> Json:
    """A sending with its counts (they add up to ``total``) and what it cost so far."""
    row = await row_of(hub, p.name)
    progress = await hub.batch(UUID(bytes=row[0]))
    costs = await hub.fetch(tables.COSTS_OF_BATCH(campaign=row[0]))
    urgent = [
        {"reason": reason, "asked_by": who, "given_at": time_of(at)}
        for reason, who, at in await hub.fetch(tables.OVERRIDE_OF(campaign=row[0]))
    ]
    return {**_described(row), "progress": progress, "costs": [cost_of(each) for each in costs], "urgent": urgent}


def _described(row: tuple[Any, ...]) -> Json:
    return {
        "name": row[1],
        "batch": str(UUID(bytes=row[0])),
        "purpose": row[2],
        "template": row[3],
        "asked_by": row[4],
        "test": bool(row[5]),
        "paused_at": None if row[6] is None else time_of(row[6]),
        "send_at": time_of(row[7]) if row[7] else None,
        "created_at": time_of(row[8]),
        "budget": row[10],
        "spent": None if row[10] is None else int(row[11]),
        "paused_by": row[12],
    }


async def batches(hub: Hub, p: LimitParams, report: Report) -> Json:
    return {"sendings": [_described(row) for row in await hub.fetch(tables.BATCHES(limit=p.limit))]}


async def pause(hub: Hub, p: NameParams, report: Report) -> Json:
    await row_of(hub, p.name)
    await hub.commit(UnitOfWork(statements=[tables.PAUSE_BATCH(name=p.name, paused_at=to_us(hub.now()))]))
    return await show(hub, p, report)


async def resume(hub: Hub, p: NameParams, report: Report) -> Json:
    """What was held is taken up within ten minutes."""
    await row_of(hub, p.name)
    await hub.commit(UnitOfWork(statements=[tables.RESUME_BATCH(name=p.name)]))
    return await show(hub, p, report)


async def stop(hub: Hub, p: NameParams, report: Report) -> Json:
    row = await row_of(hub, p.name)
    await hub.stop_batch(UUID(bytes=row[0]))
    return await show(hub, p, report)


async def set_urgent(hub: Hub, p: UrgentParams, report: Report) -> Json:
    row = await row_of(hub, p.name)
    given = sending.override(UUID(bytes=row[0]), p.reason, hub.principal.name, hub.now())
    await hub.commit(UnitOfWork(statements=[given]))
    return await show(hub, NameParams(name=p.name), report)


# -- costs ---------------------------------------------------------------------------


async def set_budget(hub: Hub, p: BudgetParams, report: Report) -> Json:
    """What the old one stopped goes on within ten minutes."""
    row = await row_of(hub, p.name)
    spent = sum(int(cost[6]) for cost in await hub.fetch(tables.COSTS_OF_BATCH(campaign=row[0])))
    if p.dong < spent:
        raise InputError(
            f"đợt này đã tốn {spent} đ; hạn mức không đổi / it has cost {spent} already; nothing was changed",
            problem="already-spent",
            status=422,
        )
    await hub.commit(UnitOfWork(statements=[tables.SET_BUDGET(name=p.name, budget=p.dong)]))
    return await show(hub, NameParams(name=p.name), report)


def _command(name: str, params: type[BaseModel], run: Any, vi: str, en: str, **more: Any) -> Command:
    return Command(group="sms", name=name, params=params, run=run, help_vi=vi, help_en=en, **more)


COMMANDS = (
    _command(
        "preview", PreviewParams, show_preview, "Xem trước: số tin tính cước, mã hóa, giá, có dấu và không dấu",
        "Look before sending: segments, encoding, price, with and without diacritics",
        writes=False, render=render_preview, rest=Rest(method="POST", path="/sms/preview", scope="sms:read"),
    ),
    _command(
        "send", SendParams, send, "Gửi tin tới các số hoặc tới đoàn viên", "Send to phones or to members",
        render=render_sent,
        rest=Rest(method="POST", path="/sms/sendings", scope="sms:send", status=202, takes_test_keys=True),
    ),
    _command(
        "send-file", SendFileParams, send_file, "Gửi tin theo danh sách CSV hoặc Excel; có dòng sai thì chưa gửi gì",
        "Send to a list, CSV or Excel; nothing is sent while a row is bad", render=render_sent,
    ),
    _command(
        "list", LimitParams, batches, "Các đợt gửi tin, mới nhất trước", "Sendings, newest first", writes=False,
        rest=Rest(method="GET", path="/sms/sendings", scope="sms:read"),
    ),
    _command(
        "show", NameParams, show, "Một đợt gửi tin đã tới đâu và tốn bao nhiêu", "How far a sending is, and its cost",
        writes=False, render=render_sending, rest=Rest(method="GET", path="/sms/sendings/{name}", scope="sms:read"),
    ),
    _command(
        "pause", NameParams, pause, "Tạm dừng một đợt gửi tin", "Pause a sending", render=render_sending,
        rest=Rest(method="POST", path="/sms/sendings/{name}/pause", scope="sms:send"),
    ),
    _command(
        "resume", NameParams, resume, "Cho đợt gửi tin chạy tiếp (trong vòng 10 phút)", "Resume it, within 10 minutes",
        render=render_sending, rest=Rest(method="POST", path="/sms/sendings/{name}/resume", scope="sms:send"),
    ),
    _command(
        "stop", NameParams, stop, "Dừng hẳn một đợt gửi tin: tin chưa gửi bị hủy",
        "Stop a sending for good: what was not sent is cancelled", render=render_sending,
        rest=Rest(method="POST", path="/sms/sendings/{name}/stop", scope="sms:send"),
    ),
    _command(
        "urgent", UrgentParams, set_urgent, "Cho một đợt được gửi trong giờ yên lặng, có lưu lý do",
        "Let a sending go in quiet hours; the reason is kept", render=render_sending,
        rest=Rest(method="POST", path="/sms/sendings/{name}/urgent", scope="sms:override"),
    ),
    _command(
        "budget", BudgetParams, set_budget, "Đặt hạn mức chi phí cho một đợt; đợt dừng vì hết hạn mức thì chạy tiếp",
        "Set what a sending may cost; one that was stopped by its budget goes on", render=render_sending,
        rest=Rest(method="POST", path="/sms/sendings/{name}/budget", scope="sms:send"),
    ),
    *TEMPLATES,
    *PEOPLE,
    *ROUTES,
    *COSTS,
)  # fmt: skip
