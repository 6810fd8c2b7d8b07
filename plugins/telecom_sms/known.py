"""What the tables say of one phone and one campaign, in one look."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hub.model import from_us


@dataclass(slots=True)
class Known:
    """What the tables say of one phone and one campaign."""

    optouts: dict[str, str] = field(default_factory=dict)
    refused_at: datetime | None = None
    consents: set[str] = field(default_factory=set)
    do_not_call: bool = False
    network: str = ""
    override: bool = False
    test: bool = False
    paused_at: datetime | None = None
    send_at: datetime | None = None
    #: Class and instant of what this phone was sent in the last day.
    sent: list[tuple[str, datetime]] = field(default_factory=list)
    prefix_count: int = 0
    #: Đồng the campaign may cost, what it has cost, and what of it is this delivery's from an earlier try.
    budget: int | None = None
    spent: int = 0
    own_dong: int = 0


def gathered(rows: list[tuple[Any, ...]]) -> Known:
    known = Known()
    for kind, purpose, word, number in rows:
        if kind == "optout":
            known.optouts[purpose] = word
            known.refused_at = max(from_us(number), known.refused_at or from_us(number))
        elif kind == "consent":
            known.consents.add(purpose)
        elif kind == "do_not_call":
            known.do_not_call = True
        elif kind == "network":
            known.network = word
        elif kind == "override":
            known.override = True
        elif kind == "test":
            known.test = True
        elif kind == "paused":
            known.paused_at = from_us(number)
        elif kind == "send_at":
            known.send_at = from_us(number)
        elif kind == "sent":
            known.sent.append((purpose, from_us(number)))
        elif kind == "prefix":
            known.prefix_count = number
        elif kind == "budget":
            known.budget = number
        elif kind == "spent":
            known.spent = number
        elif kind == "own":
            known.own_dong = number
    return known
