"""What phones send us: joined in the ledger, kept once, understood as a refusal where it is one, told to handlers.

Everything that follows from a message (event, inbox, refusal, confirmation) is one unit of work, so that the carrier
is answered when all of it is true, or told to send the message again when none of it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from hub.contract import ConnectionContext, Guard, Hub, Sealed, Statement, UnitOfWork
from hub.errors import Conflict
from hub.model import Draft, Priority, new_id, to_us

from . import tables
from .events import RECEIVED, REQUESTED
from .numbers import Number, read_number
from .rules import ANSWER, ZONE, RulesSettings
from .settings import SendingSettings
from .smpp import pdu, split
from .text import folded, normalise

#: A long message whose parts do not all come within a day is kept with a gap.
_PARTS_FOR: Final = timedelta(days=1)
_GAP: Final = "[...]"
_CLASS_WORDS: Final = {"QC": "advertising", "CSKH": "care", "DH": "operations"}
_WHAT: Final = {"*": "SMS", "advertising": "quang cao", "care": "cham soc", "operations": "dieu hanh"}


class Meaning(NamedTuple):
    """What a reply is about: "" for an ordinary message; ``purpose`` "*" is every class."""

    kind: str
    purpose: str = "*"


def meaning_of(text: str, rules: RulesSettings) -> Meaning:
    """Only a message of nothing but the words counts: "Huy" is a name, too, and "sai" a word."""
    words = folded(text)
    for word, purpose in ((words, "*"), *_of_a_class(words)):
        for kind, known in (
            ("stop", rules.stop_words), ("wrong_person", rules.wrong_person_words), ("start", rules.start_words)
        ):  # fmt: skip
            if word in {folded(each) for each in known}:
                return Meaning(kind, "*" if kind == "wrong_person" else purpose)
    return Meaning("")


def _of_a_class(words: str) -> list[tuple[str, str]]:
    head, _, last = words.rpartition(" ")
    return [(head, _CLASS_WORDS[last])] if last in _CLASS_WORDS else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One whole message, however the carrier brought it."""

    connection: str
    #: As the carrier wrote them.
    source: str
    sent_to: str
    text: str
    at: datetime
    parts: int = 1
    complete: bool = True


def phone_of(source: str) -> str:
    """Digits with the country's code where the source is a phone we could write to, else the source as it came."""
    number = read_number(source)
    return number.msisdn if isinstance(number, Number) else source[:21]


def subject_of(hub: Hub, phone: str) -> str:
    """Under whose key a phone's rows and events are sealed."""
    return "phone-" + hub.keyed_hash("phone", phone).hex()


def unit_for(hub: Hub, settings: SendingSettings, heard: Heard, dedupe_key: str = "") -> UnitOfWork:
    """Everything that follows from one message.

    Args:
        dedupe_key: the carrier's own id of it; without one, ``once`` tells a repeat.
    """
    phone = phone_of(heard.source)
    text = normalise(heard.text)[0]
    meaning = meaning_of(text, settings) if read_is_phone(heard.source) else Meaning("")
    event_id, subject = new_id(), subject_of(hub, phone)
    data = {
        "connection": heard.connection, "from": phone, "to": heard.sent_to[:21], "text": text,
        "keyword": folded(text).partition(" ")[0][:20], "meaning": meaning.kind, "parts": heard.parts,
        "complete": heard.complete,
    }  # fmt: skip
    received = Draft(
        type=RECEIVED.name,
        source=f"/connections/{heard.connection}",
        dedupe_key=dedupe_key or event_id.hex,
        subject=subject,
        data=data,
        occurred_at=heard.at,
        id=event_id,
    )
    kept = tables.KEEP_INBOX(
        id=event_id.bytes, connection=heard.connection, sent_to=data["to"], keyword=data["keyword"],
        meaning=meaning.kind, received_at=to_us(heard.at), subject=subject,
        body=Sealed(subject, orjson.dumps({"from": phone, "text": text})),
    )  # fmt: skip
    statements, confirmed = said(hub, settings, phone, meaning, text, heard.at)
    return UnitOfWork(statements=[kept, *statements], drafts=[received, *confirmed])


def read_is_phone(source: str) -> bool:
    return isinstance(read_number(source), Number)


def said(
    hub: Hub, rules: SendingSettings, phone: str, meaning: Meaning, words: str, at: datetime
) -> tuple[list[Statement], list[Draft]]:
    """What a refusal (or taking it back) changes, and the one confirmation a day that the law asks for."""
    phone_hash = hub.keyed_hash("phone", phone)
    touch = tables.TOUCH_PHONE(phone_hash=phone_hash, now=to_us(at))
    if meaning.kind == "start":
        consent = {"phone_hash": phone_hash, "purpose": "advertising", "evidence": f"SMS: {folded(words)[:60]}"}
        given = [tables.CONSENT(**consent, since=to_us(at))] if meaning.purpose == "advertising" else []
        return [touch, tables.OPT_IN(phone_hash=phone_hash), *given], []
    if meaning.kind not in ("stop", "wrong_person"):
        return [], []
    reason = "opted_out" if meaning.kind == "stop" else "wrong_person"
    statements = [touch, *opt_out(hub, phone, meaning.purpose, reason, f"SMS: {folded(words)[:60]}", at)]
    if not rules.stop_answer:
        return statements, []
    answer = rules.stop_answer.replace("{sender}", rules.sender).replace("{what}", _WHAT[meaning.purpose])
    return statements, [_answer(hub, phone, answer, meaning, at)]


def opt_out(hub: Hub, phone: str, purpose: str, reason: str, words: str, at: datetime) -> list[Statement]:
    phone_hash = hub.keyed_hash("phone", phone)
    refused = tables.OPT_OUT(
        phone_hash=phone_hash, purpose=purpose, reason=reason, said=words, since=to_us(at),
        phone=Sealed(subject_of(hub, phone), phone.encode()),
    )  # fmt: skip
    if purpose == "*":
        return [refused, tables.NO_CONSENT_AT_ALL(phone_hash=phone_hash)]
    return [refused, tables.NO_CONSENT(phone_hash=phone_hash, purpose=purpose)]


def _answer(hub: Hub, phone: str, text: str, meaning: Meaning, at: datetime) -> Draft:
    """Once a day for each phone and class, however often the word is sent."""
    day = at.astimezone(ZONE).date().isoformat()
    key = f"confirmed:{hub.keyed_hash('phone', phone).hex()}:{meaning.kind}:{meaning.purpose}:{day}"
    return Draft(
        type=REQUESTED.name,
        source="/sms",
        dedupe_key=key,
        same_as=key.encode(),
        subject=subject_of(hub, phone),
        data={"batch": "", "to": phone, "text": normalise(text)[0], "purpose": ANSWER, "template": None},
        purpose=ANSWER,
        priority=Priority.URGENT,
        expires_at=at + timedelta(days=1),
    )


class Inbox:
    """Takes the deliver_sm of one connection that are no receipts; the carrier is answered when ``take`` returns."""

    def __init__(self, ctx: ConnectionContext, settings: SendingSettings) -> None:
        self._ctx = ctx
        self._hub = ctx.hub
        self._settings = settings
        self._looked_at: datetime | None = None

    async def take(self, message: pdu.Message) -> None:
        """Raises ``Busy`` when nothing was kept: the carrier has to send it again."""
        concat, octets = split.read_part(message)
        if concat is None or concat.total == 1:
            text = split.to_text(octets, message.data_coding)
            heard = Heard(
                connection=self._ctx.name, source=message.source, sent_to=message.destination, text=text,
                at=self._hub.now(),
            )  # fmt: skip
            await self._keep(heard, self._once(message, octets))
        else:
            await self._join(message, concat, octets)
        await self._give_up_on_old_parts()

    async def _keep(self, heard: Heard, *guards: Guard) -> None:
        unit = unit_for(self._hub, self._settings, heard)
        whole = UnitOfWork(guards=guards, statements=unit.statements, drafts=unit.drafts)
        try:
            await self._hub.commit(whole)
        except Conflict as conflict:
            if conflict.otherwise not in ("repeated", "joined"):
                raise
            return
        self._ctx.log(
            "message.received", parts=heard.parts, meaning=str(whole.drafts[0].data["meaning"]), octets=len(heard.text)
        )  # fmt: skip

    def _once(self, message: pdu.Message, octets: bytes, *more: int) -> Guard:
        """Fails with ``repeated`` on what was heard just before: the carrier did not get our answer."""
        now = self._hub.now()
        words = (self._ctx.name, message.source, message.destination, octets.hex(), *map(str, more))
        return Guard(
            tables.HEAR(
                body_hash=self._hub.keyed_hash("sms-heard", "|".join(words)),
                now=to_us(now),
                after=to_us(now - timedelta(seconds=self._settings.inbound_repeat_s)),
            ),
            otherwise="repeated",
        )

    # -- long messages -----------------------------------------------------------------------------

    async def _join(self, message: pdu.Message, concat: split.Concat, octets: bytes) -> None:
        phone = phone_of(message.source)
        key = {
            "connection": self._ctx.name,
            "phone_hash": self._hub.keyed_hash("phone", phone),
            "reference": concat.reference,
            "of_parts": concat.total,
        }
        subject, now = subject_of(self._hub, phone), self._hub.now()
        body_hash = self._hub.keyed_hash("sms-part", octets.hex())
        held = {row[0]: row for row in await self._hub.fetch(tables.PARTS(**key))}
        if concat.part in held and held[concat.part][1] != body_hash:
            # Another message under a reference that was not finished: references are few, phones start anew.
            await self._finish(key, message, list(held.values()), subject)
        stored = tables.KEEP_PART(
            **key, part=concat.part, body_hash=body_hash, now=to_us(now),
            body=Sealed(subject, orjson.dumps(_as_json(message, octets))),
        )  # fmt: skip
        try:
            once = self._once(message, octets, concat.reference, concat.total, concat.part)
            await self._hub.commit(UnitOfWork(guards=[once], statements=[stored]))
        except Conflict as conflict:
            if conflict.otherwise != "repeated":
                raise
        rows = await self._hub.fetch(tables.PARTS(**key))
        if len(rows) == concat.total:
            await self._finish(key, message, rows, subject)

    async def _finish(self, key: dict[str, Any], message: pdu.Message, rows: list[Any], subject: str) -> None:
        """The parts, whole or with gaps, become one message; whoever drops the rows first is the one who does it."""
        opened = await self._hub.unseal([(subject, row[2]) for row in rows])
        parts = {row[0]: orjson.loads(body) for row, body in zip(rows, opened, strict=True) if body is not None}
        heard = Heard(
            connection=self._ctx.name, source=message.source, sent_to=message.destination, at=self._hub.now(),
            text=_joined(parts, key["of_parts"]), parts=key["of_parts"], complete=len(parts) == key["of_parts"],
        )  # fmt: skip
        await self._keep(heard, Guard(tables.DROP_PARTS(**key), rows=len(rows), otherwise="joined"))

    async def _give_up_on_old_parts(self) -> None:
        """Looked for at most once a minute, and whenever something comes in: there is nothing to be late for."""
        now = self._hub.now()
        if self._looked_at is not None and now - self._looked_at < timedelta(minutes=1):
            return
        self._looked_at = now
        before = to_us(now - _PARTS_FOR)
        await self._hub.commit(UnitOfWork(statements=[tables.FORGET_HEARD(before=before)]))
        for connection, phone_hash, reference, of_parts in await self._hub.fetch(
            tables.STALE_PARTS(before=before, connection=self._ctx.name)
        ):
            key = {
                "connection": connection, "phone_hash": phone_hash, "reference": reference, "of_parts": of_parts
            }  # fmt: skip
            rows = await self._hub.fetch(tables.PARTS(**key))
            subject = "phone-" + phone_hash.hex()
            opened = [body for body in await self._hub.unseal([(subject, row[2]) for row in rows]) if body is not None]
            if not opened:  # the person was erased: nothing is left to be kept
                await self._hub.commit(UnitOfWork(statements=[tables.DROP_PARTS(**key)]))
                continue
            first = orjson.loads(opened[0])
            await self._finish(key, pdu.Message(source=first["from"], destination=first["to"]), rows, subject)


def _as_json(message: pdu.Message, octets: bytes) -> dict[str, Any]:
    return {
        "from": message.source, "to": message.destination, "coding": message.data_coding, "octets": octets.hex()
    }  # fmt: skip


def _joined(parts: dict[int, dict[str, Any]], of_parts: int) -> str:
    """Octets first, letters then: a letter may be cut in two. A gap is shown."""
    text, run, coding = "", b"", 0
    for number in range(1, of_parts + 1):
        part = parts.get(number)
        if part is None or (run and part["coding"] != coding):
            text += split.to_text(run, coding)
            run = b""
        if part is None:
            text += "" if text.endswith(_GAP) else _GAP
            continue
        coding = part["coding"]
        run += bytes.fromhex(part["octets"])
    return text + split.to_text(run, coding)
