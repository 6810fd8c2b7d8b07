"""What one HTTP carrier is asked and how its answers read: values only, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from ..codes import Meaning, Verdict


@dataclass(frozen=True, slots=True)
class Sms:
    """One message to one phone."""

    #: Derived from the delivery's id, so the same at every try: 40 characters 0-9a-f.
    request_id: str
    #: The same as a positive number of 63 bits, for carriers that take numbers only.
    number: int
    phone: str
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One POST."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json; charset=utf-8"})


@dataclass(frozen=True, slots=True)
class Said:
    """What the carrier answered, and under which id it will report; "" when it gave none."""

    meaning: Meaning
    ref: str = ""
    #: The access token is not good any more: one renewal is worth a try.
    token_refused: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A receipt: delivered | failed | interim."""

    ref: str
    state: str
    reason: str = ""
    #: The phone as the carrier writes it and the network it is in now, where the carrier tells.
    phone: str = ""
    network: str = ""


class Dialect(Protocol):
    """One carrier's account. ``read...`` answer None for what is not this carrier's way to answer."""

    #: Receipts name our request id, so that one settles a message whose answer was lost.
    reports_by_request_id: bool

    def call(self, sms: Sms, token: str) -> Call: ...
    def read(self, answer: bytes) -> Said | None: ...
    def report(self, fields: Mapping[str, Any]) -> Report | None: ...

    def login(self) -> Call | None:
        """How to get a token; None where none is needed."""

    def read_login(self, answer: bytes) -> tuple[str, float] | None:
        """Token and seconds of its life."""

    def probe(self) -> Call | None:
        """A call that sends nothing and tells whether the account is good; None where there is none."""


class Plain:
    """The parts of a dialect that most carriers do not have."""

    reports_by_request_id = False

    def report(self, fields: Mapping[str, Any]) -> Report | None:
        return None

    def login(self) -> Call | None:
        return None

    def read_login(self, answer: bytes) -> tuple[str, float] | None:
        return None

    def probe(self) -> Call | None:
        return None


def json_object(answer: bytes) -> Mapping[str, Any] | None:
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def text_of(value: object) -> str:
    """A code or an id, which carriers write as text or as a number; "" for anything else."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def meaning_in(table: Mapping[str, Meaning], code: str, overruled: Mapping[str, Verdict]) -> Meaning:
    """A code nobody listed is tried again by the ledger's schedule, which has an end."""
    known = table.get(code)
    verdict = overruled.get(code)
    if verdict is not None:
        return Meaning(verdict, known.reason if known else f"code_{code[:20]}")
    return known or Meaning(Verdict.LATER, f"code_{code[:20] or 'missing'}")
