"""``unionhub sms optouts|optout|optin|consent|do-not-call|inbox``: what was agreed with people."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from hub.contract import Command, Hub, Report, Rest, Statement, UnitOfWork
from hub.errors import InputError
from hub.model import Json, to_us

from . import tables
from .inbound import opt_out
from .numbers import Number, masked, read_number
from .recipients import of_file
from .shown import time_of

_PAGE = 200


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Phone(_Params):
    phone: str = Field(
        min_length=6, max_length=30, description="The phone.", json_schema_extra={"argument": True}
    )  # fmt: skip


class OptOutParams(_Phone):
    purpose: Literal["*", "care", "operations", "advertising"] = Field("*", description="Class refused; * is all.")
    reason: str = Field(min_length=3, max_length=100, description="Who says so and how; it is kept.")
    wrong_person: bool = Field(False, description="The number belongs to somebody else.")


class OptInParams(_Phone):
    reason: str = Field(min_length=3, max_length=100, description="How the person asked for it; it is logged.")


class ConsentParams(_Params):
    file: Path = Field(
        description="List of people, CSV (UTF-8) or Excel, with a column of phones.",
        json_schema_extra={"argument": True},
    )
    evidence: str = Field(min_length=3, max_length=200, description="Where their consent is: form, date, wording.")
    purpose: Literal["care", "operations", "advertising"] = Field("advertising", description="What they agreed to.")


class DoNotCallParams(_Params):
    file: Path = Field(
        description="The newest list, CSV or Excel; it replaces the one before.", json_schema_extra={"argument": True}
    )


class InboxParams(_Params):
    limit: int = Field(50, ge=1, le=500, description="How many at most.")


class Nothing(_Params):
    """No parameters."""


def _number(phone: str) -> Number:
    number = read_number(phone)
    if not isinstance(number, Number):
        raise InputError(f"không phải số di động: {number} / not a mobile number: {number}", problem="phone-invalid")
    return number


async def optouts(hub: Hub, p: InboxParams, report: Report) -> Json:
    rows = await hub.fetch(tables.OPTED_OUT(limit=p.limit))
    phones = await hub.unseal([("phone-" + row[0].hex(), row[5]) for row in rows])
    return {
        "optouts": [
            {
                "phone": None if phone is None else masked(phone.decode()), "purpose": row[1], "reason": row[2],
                "said": row[3], "since": time_of(row[4]),
            }
            for row, phone in zip(rows, phones, strict=True)
        ]
    }  # fmt: skip


async def add_optout(hub: Hub, p: OptOutParams, report: Report) -> Json:
    number, now = _number(p.phone), hub.now()
    reason = "wrong_person" if p.wrong_person else "opted_out"
    touch = tables.TOUCH_PHONE(phone_hash=hub.keyed_hash("phone", number.msisdn), now=to_us(now))
    words = f"{hub.principal.name}: {p.reason}"
    refused = opt_out(hub, number.msisdn, "*" if p.wrong_person else p.purpose, reason, words, now)
    await hub.commit(UnitOfWork(statements=[touch, *refused]))
    return {"phone": masked(number.msisdn), "purpose": p.purpose, "reason": reason}


async def take_back(hub: Hub, p: OptInParams, report: Report) -> Json:
    """Only on the person's own word: a refusal binds."""
    number = _number(p.phone)
    phone_hash = hub.keyed_hash("phone", number.msisdn)
    given = tables.CONSENT(
        phone_hash=phone_hash, purpose="care", evidence=f"{hub.principal.name}: {p.reason}", since=to_us(hub.now())
    )  # fmt: skip
    await hub.commit(UnitOfWork(statements=[tables.OPT_IN(phone_hash=phone_hash), given]))
    return {"phone": masked(number.msisdn), "opted_out": False}


async def add_consents(hub: Hub, p: ConsentParams, report: Report) -> Json:
    people = of_file(p.file, ("VN",)).whole()
    since = to_us(hub.now())
    statements = [
        tables.CONSENT(
            phone_hash=hub.keyed_hash("phone", person.number.msisdn), purpose=p.purpose, evidence=p.evidence,
            since=since,
        )
        for person in people.people
    ]  # fmt: skip
    await _commit(hub, statements, report)
    return {"consents": len(people.people), "problems": [problem.as_json() for problem in people.problems]}


async def import_do_not_call(hub: Hub, p: DoNotCallParams, report: Report) -> Json:
    """A list with an unreadable row is refused as a whole: a number that is missed is a number that is fined."""
    people = of_file(p.file, ("VN",)).whole()
    problems = [problem.as_json() for problem in people.problems]
    if problems or not people.people:
        return {"listed": 0, "problems": problems, "failed": True}
    at = to_us(hub.now())
    listed = [
        tables.LIST_DO_NOT_CALL(phone_hash=hub.keyed_hash("phone", person.number.msisdn), listed_at=at)
        for person in people.people
    ]
    await _commit(hub, listed, report)
    await hub.commit(UnitOfWork(statements=[tables.UNLIST_DO_NOT_CALL(listed_at=at)]))
    return {"listed": len(listed), "problems": []}


async def _commit(hub: Hub, statements: list[Statement], report: Report) -> None:
    for start in range(0, len(statements), _PAGE):
        await hub.commit(UnitOfWork(statements=statements[start : start + _PAGE]))
        report({"phase": "write", "done": min(start + _PAGE, len(statements)), "total": len(statements)})


async def inbox(hub: Hub, p: InboxParams, report: Report) -> Json:
    """What phones wrote, newest first; the number masked, the words as they were written."""
    before = to_us(hub.now() + timedelta(minutes=1))
    rows = await hub.fetch(tables.INBOX(before=before, limit=p.limit))
    bodies = await hub.unseal([(row[6], row[7]) for row in rows])
    answer = []
    for row, body in zip(rows, bodies, strict=True):
        said = {} if body is None else orjson.loads(body)
        answer.append(
            {
                "event_id": str(UUID(bytes=row[0])), "connection": row[1], "to": row[2], "keyword": row[3],
                "meaning": row[4], "received_at": time_of(row[5]), "from": masked(said["from"]) if said else None,
                "text": said.get("text"),
            }
        )  # fmt: skip
    return {"messages": answer}


def _command(name: str, params: type[BaseModel], run: Any, vi: str, en: str, **more: Any) -> Command:
    return Command(group="sms", name=name, params=params, run=run, help_vi=vi, help_en=en, **more)


PEOPLE = (
    _command(
        "optouts", InboxParams, optouts, "Ai đã từ chối nhận, từ khi nào, bằng lời nào",
        "Who refused, since when, in which words", writes=False,
        rest=Rest(method="GET", path="/sms/optouts", scope="sms:read"),
    ),
    _command(
        "optout", OptOutParams, add_optout, "Ghi một người từ chối nhận", "Record that somebody refuses",
        rest=Rest(method="POST", path="/sms/optouts", scope="sms:send"),
    ),
    _command(
        "optin", OptInParams, take_back, "Ghi một người muốn nhận lại", "Record that somebody wants messages again",
        rest=Rest(method="POST", path="/sms/optins", scope="sms:send"),
    ),
    _command("consent", ConsentParams, add_consents, "Ghi sự đồng ý của một danh sách", "Record the consent of a list"),
    _command(
        "do-not-call", DoNotCallParams, import_do_not_call, "Nạp danh sách không quảng cáo, thay cho danh sách cũ",
        "Import the Do-Not-Call list in place of the old one",
    ),
    _command(
        "inbox", InboxParams, inbox, "Tin nhắn đến, mới nhất trước", "Messages from phones, newest first",
        writes=False, rest=Rest(method="GET", path="/sms/inbox", scope="sms:inbox"),
    ),
)  # fmt: skip
