"""From what an officer asks for to what the hub owes: judged as a whole first, then one event a phone.

A sending has a name, and is one batch of the ledger: asking for it again with the same content goes on where it
broke off and adds nothing, with another content it is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from hub.contract import Guard, Hub, Report, Statement, UnitOfWork
from hub.errors import Conflict, InputError
from hub.model import Audience, Draft, Json, Priority, new_id, to_us

from . import tables
from .events import ANNOUNCED, REQUESTED
from .inbound import subject_of
from .policy import text_refusal
from .preview import cost, labelled, preview, size_of
from .recipients import Listed, Problem, Recipient
from .rules import ClassRule
from .settings import SendingSettings
from .templates import VALUE_MOST, fields_of, filled, missing_fields
from .text import Size, normalise, without_diacritics

#: Problems in one answer; all are counted.
PROBLEMS_MOST = 1000


@dataclass(frozen=True, slots=True)
class Wording:
    """A text, or one version of a template, pinned."""

    body: str
    template: tuple[str, int] | None = None

    @property
    def pinned(self) -> Json | None:
        return None if self.template is None else {"name": self.template[0], "version": self.template[1]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What somebody wants sent."""

    name: str
    settings: SendingSettings
    rule: ClassRule
    wording: Wording
    plain: bool = False
    unit: str = ""
    send_at: datetime | None = None
    expires_at: datetime | None = None
    #: Why quiet hours are set aside; "" when they are not.
    urgent: str = ""
    #: Đồng it may cost; None for no limit.
    budget: int | None = None
    #: ``sender`` and ``tag``, as far as given, for the rules that choose a carrier.
    routing: Mapping[str, str] = field(default_factory=dict)

    def text_for(self, values: Mapping[str, str]) -> str:
        """The very text one person gets: label and plain typography in, diacritics as the sender chose."""
        text = labelled(normalise(filled(self.wording.body, values))[0], self.rule)
        return without_diacritics(text) if self.plain else text


@dataclass(slots=True)
class Judged:
    """The whole sending, weighed before anything is sent."""

    at: datetime
    messages: int = 0
    #: All are counted, the first ``PROBLEMS_MOST`` named.
    bad_rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    duplicates: int = 0
    rows: int = 0
    segments: int = 0
    dong: int | None = 0
    encodings: Counter[str] = field(default_factory=Counter)
    #: What the first of them gets.
    example: str = ""
    #: Of every phone and text, in their order.
    digest: str = ""


def account(hub: Hub, via: str | None) -> tuple[str, SendingSettings]:
    """The connection a sending is judged by. Raises: InputError."""
    known: Mapping[str, SendingSettings] = hub.settings_of(SendingSettings)
    name = via or next(iter(sorted(known)), "")
    if name not in known:
        raise InputError(
            f"không có kết nối SMS '{name}'; đang có: {', '.join(sorted(known)) or 'không có'}"
            f" / no SMS connection '{name}'",
            problem="no-sms-connection",
            status=409,
        )
    return name, known[name]


def rule_of(settings: SendingSettings, purpose: str, at: datetime) -> ClassRule:
    rule = settings.rule(purpose, at)
    if rule is None:
        raise InputError(
            f"chưa có quy định cho loại tin {purpose} / no rule for {purpose} yet", problem="class-unknown"
        )
    return rule


async def wording_of(hub: Hub, text: str | None, template: str | None) -> Wording:
    """Either a text or a template: ``name`` is its newest version, ``name@3`` the third. Raises: InputError."""
    if (text is None) == (template is None):
        raise InputError("cần đúng một trong hai: text hoặc template / give either text or template", problem="wording")
    if text is not None:
        if fields_of(text):
            raise InputError(
                f"text có chỗ trống {', '.join(fields_of(text))}: hãy lưu thành mẫu tin / make it a template",
                problem="wording",
            )
        return Wording(text)
    name, _, version = str(template).partition("@")
    wanted = tables.TEMPLATE(name=name)
    if version:
        wanted = tables.TEMPLATE_VERSION(name=name, version=int(version) if version.isdigit() else 0)
    rows = await hub.fetch(wanted)
    if not rows:
        raise InputError(f"không có mẫu tin {template} / no template {template}", problem="no-template", status=404)
    return Wording(rows[0][2], (name, rows[0][0]))


async def judge(sending: Sending, listed: Listed, now: datetime) -> Judged:
    judged, digest = Judged(now), hashlib.sha256()
    by_size: Counter[tuple[str, int]] = Counter()
    for page in listed.pages():
        problems = page.problems
        for person in page.people:
            weighed = _weighed(sending, person, now)
            if isinstance(weighed, Problem):
                problems.append(weighed)
                continue
            text, size = weighed
            judged.example = judged.example or text
            judged.messages += 1
            judged.segments += size.segments
            judged.encodings[size.encoding] += 1
            by_size[(person.number.network, size.segments)] += 1
            digest.update(_line(person, text))
        judged.rows += page.rows
        judged.duplicates += page.duplicates
        judged.bad_rows += len(problems)
        judged.problems += sorted(problems)[: PROBLEMS_MOST - len(judged.problems)]
        await asyncio.sleep(0)  # a long list must not hold up everybody else
    for (network, segments), count in by_size.items():
        dong = cost(sending.settings, sending.rule, segments, {network: count}, now)
        judged.dong = None if dong is None or judged.dong is None else judged.dong + dong
    judged.digest = digest.hexdigest()
    return judged


def _line(person: Recipient, text: str) -> bytes:
    return f"{person.number.msisdn}:{text}\n".encode()


def _weighed(sending: Sending, person: Recipient, now: datetime) -> tuple[str, Size] | Problem:
    """What the person gets and how long it is, or why they get nothing."""
    missing = missing_fields(sending.wording.body, person.values)
    if missing:
        return Problem(person.row, "field_missing", ", ".join(missing))
    wanted = fields_of(sending.wording.body)
    if any(len(person.values[name]) > VALUE_MOST for name in wanted):
        return Problem(person.row, "value_too_long")
    text = sending.text_for(person.values)
    size = size_of(text, sending.settings, sending.rule)
    refusal = text_refusal(sending.settings, sending.rule, text, size, now)
    return Problem(person.row, refusal) if refusal else (text, size)


def check_text(sending: Sending, now: datetime) -> None:
    """Of a text that is the same for everybody. Raises: InputError (``sms-too-long`` is 422)."""
    text = sending.text_for({})
    size = size_of(text, sending.settings, sending.rule)
    refusal = text_refusal(sending.settings, sending.rule, text, size, now)
    if refusal:
        raise InputError(
            f"không gửi được nội dung này: {refusal} ({size.segments} tin tính cước); chưa gửi gì"
            f" / this text cannot be sent: {refusal} ({size.segments} segments); nothing was sent",
            problem=refusal.replace("_", "-"),
            status=422,
        )


def checked_text(sending: Sending, now: datetime) -> Json:
    """The preview of such a text. Raises: as ``check_text``."""
    check_text(sending, now)
    return preview(sending.wording.body, sending.settings, sending.rule, now, {})


async def send(hub: Hub, sending: Sending, listed: Listed, judged: Judged, report: Report) -> UUID:
    """Owes every judged message; answers the batch. Raises: InputError (409, the name has other content)."""
    priority = Priority.URGENT if sending.urgent else Priority.NORMAL if judged.messages == 1 else Priority.BULK
    batch: UUID | None = None
    done = 0
    for page in listed.pages():
        weighed = [(person, _weighed(sending, person, judged.at)) for person in page.people]
        good = [(person, found[0]) for person, found in weighed if not isinstance(found, Problem)]
        if not good:
            continue
        drafts_of = partial(_requested, hub, sending, good, priority)
        try:
            if batch is None:
                batch = await _open(hub, sending, judged.digest, drafts_of)
            else:
                await hub.commit(UnitOfWork(drafts=drafts_of(batch)))
        except Conflict as conflict:
            if conflict.otherwise != "batch_stopped":
                raise
            break  # a person stopped it while it was being made
        done += len(good)
        report({"phase": "send", "done": done, "total": judged.messages})
    if batch is None:
        batch = UUID(bytes=(await hub.fetch(tables.BATCH(name=sending.name)))[0][0])
    return batch


async def announce(hub: Hub, sending: Sending, selector: Json) -> UUID:
    """One text to members: the hub reaches each at the phone the directory knows at the moment of sending."""
    text = sending.text_for({})
    digest = hashlib.sha256(f"{sorted(selector.items())}:{text}".encode()).hexdigest()

    def drafts_of(batch: UUID) -> list[Draft]:
        draft = Draft(
            type=ANNOUNCED.name,
            source="/sms",
            dedupe_key=f"{sending.name}:members",
            data={
                "batch": sending.name, "text": text, "purpose": sending.rule.purpose,
                "template": sending.wording.pinned, **sending.routing,
            },
            audience=Audience(selector, ("phone",), sending.rule.purpose),
            batch_id=batch,
            scope=sending.unit,
            priority=Priority.URGENT if sending.urgent else Priority.BULK,
            expires_at=sending.expires_at,
        )  # fmt: skip
        return [draft]

    return await _open(hub, sending, digest, drafts_of)


async def _open(hub: Hub, sending: Sending, digest: str, drafts_of: Callable[[UUID], list[Draft]]) -> UUID:
    """The batch of this name and content, made or found, and its first messages with it in one transaction.

    Raises: InputError (409, the name has other content), Conflict (``batch_stopped``).
    """
    now = hub.now()
    identity = f"{sending.rule.purpose}\n{sending.wording.pinned}\n{digest}"
    if sending.routing:
        identity += f"\n{sorted(sending.routing.items())}"
    fingerprint = hub.keyed_hash("sms-batch", identity)
    batch = new_id()
    opened = tables.OPEN_BATCH(
        id=batch.bytes,
        name=sending.name,
        purpose=sending.rule.purpose,
        template="" if sending.wording.template is None else "@".join(map(str, sending.wording.template)),
        fingerprint=fingerprint,
        asked_by=hub.principal.name,
        test=int(hub.principal.test),
        send_at=0 if sending.send_at is None else to_us(sending.send_at),
        created_at=to_us(now),
    )
    statements: list[Statement] = []
    if sending.urgent:
        statements = [override(batch, sending.urgent, hub.principal.name, now)]
    if sending.budget is not None:
        statements.append(tables.SET_BUDGET(name=sending.name, budget=sending.budget))
    try:
        guards = [Guard(opened, otherwise="name_taken")]
        await hub.commit(UnitOfWork(guards=guards, statements=statements, drafts=drafts_of(batch)))
    except Conflict as conflict:
        if conflict.otherwise != "name_taken":
            raise
        row = (await hub.fetch(tables.BATCH(name=sending.name)))[0]
        if row[9] != fingerprint:
            raise InputError(
                f"đã có đợt tên '{sending.name}' với nội dung khác; chưa gửi gì, hãy đặt tên khác"
                f" / there is a sending '{sending.name}' with other content; nothing was sent, choose another name",
                problem="name-taken",
                status=409,
            ) from None
        batch = UUID(bytes=row[0])
        await hub.commit(UnitOfWork(drafts=drafts_of(batch)))
    return batch


def override(batch: UUID, reason: str, asked_by: str, now: datetime) -> Statement:
    return tables.OVERRIDE(campaign=batch.bytes, reason=reason, asked_by=asked_by, given_at=to_us(now))


def _requested(
    hub: Hub, sending: Sending, people: Sequence[tuple[Recipient, str]], priority: Priority, batch: UUID
) -> list[Draft]:
    return [
        Draft(
            type=REQUESTED.name,
            source="/sms",
            dedupe_key=f"{batch.hex}:{person.number.msisdn}",
            subject=subject_of(hub, person.number.msisdn),
            data={
                "batch": sending.name, "to": person.number.msisdn, "text": text, "purpose": sending.rule.purpose,
                "template": sending.wording.pinned, **sending.routing,
            },
            purpose=sending.rule.purpose,
            batch_id=batch,
            scope=sending.unit,
            priority=priority,
            expires_at=sending.expires_at,
        )
        for person, text in people
    ]  # fmt: skip


def times(now: datetime, at: datetime | None, expires_hours: int) -> tuple[datetime | None, datetime]:
    """When a sending begins, and when what is left of it is not sent any more. Raises: InputError."""
    if at is not None and at <= now - timedelta(minutes=1):
        raise InputError("giờ hẹn đã qua; chưa gửi gì / that time has passed; nothing was sent", problem="time-passed")
    return at, (at or now) + timedelta(hours=expires_hours)
