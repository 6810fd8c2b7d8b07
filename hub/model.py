"""The records of the ledger and the one table of legal state changes.

Whatever comes in becomes an Event; whatever is owed to someone is a Delivery; whatever was tried is an
Attempt. Instants are aware UTC datetimes here and BIGINT microseconds in the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import uuid_utils

Json = dict[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 UTC; refuses a naive datetime, whose zone nobody knows."""
    if moment.tzinfo is None:
        raise ValueError("naive datetime: give it a time zone")
    return (moment - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    return EPOCH + timedelta(0, 0, us)


def new_id() -> UUID:
    """A time-ordered UUIDv7: made by the caller, so that a unit of work can name its rows before it commits."""
    return UUID(bytes=uuid_utils.uuid7().bytes)


class State(StrEnum):
    """Where a delivery is. ``Source:`` the lifecycle printed in docs/reference/states.md."""

    WAITING = "waiting"
    PENDING = "pending"
    LEASED = "leased"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    DEAD = "dead"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


#: States of a delivery that still has something to come: a turn, a try, a receipt or a person.
UNSETTLED = frozenset({State.WAITING, State.PENDING, State.LEASED, State.SENDING, State.ACCEPTED, State.UNKNOWN})
#: States that keep the followers of the same ordering key waiting.
HOLDS_KEY = frozenset({State.PENDING, State.LEASED, State.SENDING, State.UNKNOWN})


class Transition(NamedTuple):
    """One legal change: from, to, and what brings it about."""

    source: State
    target: State
    cause: str


S = State
TRANSITIONS: tuple[Transition, ...] = (
    Transition(S.WAITING, S.PENDING, "the head of its ordering key released the key"),
    Transition(S.WAITING, S.CANCELLED, "batch stopped, or cancelled by a person"),
    Transition(S.WAITING, S.DEAD, "expired before its turn"),
    Transition(S.PENDING, S.LEASED, "claimed by a worker"),
    Transition(S.PENDING, S.WAITING, "diverted to a destination where its ordering key is held"),
    Transition(S.PENDING, S.DEAD, "expired before it was claimed"),
    Transition(S.PENDING, S.CANCELLED, "batch stopped, or cancelled by a person"),
    Transition(S.LEASED, S.PENDING, "retry later, held, diverted, or taken over after a crash"),
    Transition(S.LEASED, S.WAITING, "diverted to a destination where its ordering key is held"),
    Transition(S.LEASED, S.SENDING, "start committed; resend would be unsafe"),
    Transition(S.LEASED, S.ACCEPTED, "accepted; a receipt is awaited"),
    Transition(S.LEASED, S.DELIVERED, "delivered"),
    Transition(S.LEASED, S.DEAD, "refused, tries spent, expired, or poison"),
    Transition(S.LEASED, S.CANCELLED, "may not or need not be sent any more"),
    Transition(S.LEASED, S.UNKNOWN, "bytes left, no answer, resend unsafe"),
    Transition(S.SENDING, S.PENDING, "refused in a way that makes resending safe"),
    Transition(S.SENDING, S.ACCEPTED, "accepted; a receipt is awaited"),
    Transition(S.SENDING, S.DELIVERED, "delivered"),
    Transition(S.SENDING, S.DEAD, "refused, or tries spent"),
    Transition(S.SENDING, S.UNKNOWN, "no answer, or the process died while sending"),
    Transition(S.ACCEPTED, S.DELIVERED, "receipt: delivered"),
    Transition(S.ACCEPTED, S.DEAD, "receipt: failed"),
    Transition(S.ACCEPTED, S.UNKNOWN, "no receipt in its time"),
    Transition(S.UNKNOWN, S.DELIVERED, "late receipt, or resolved by a person"),
    Transition(S.UNKNOWN, S.DEAD, "late receipt, resolved by a person, or unresolved after 7 days"),
    Transition(S.UNKNOWN, S.PENDING, "resolved as resend by a person"),
    Transition(S.DEAD, S.DELIVERED, "late receipt after expired, unresolved or no_receipt; or resolved by a person"),
    Transition(S.DEAD, S.PENDING, "resolved as resend by a person, while it holds its ordering key"),
)
LEGAL: frozenset[tuple[State, State]] = frozenset((t.source, t.target) for t in TRANSITIONS)
#: Reasons of ``dead`` that a late receipt may still turn into ``delivered``.
REVERSIBLE_DEATHS = frozenset({"expired", "unresolved", "no_receipt"})


class Priority(IntEnum):
    """Lower is sent first; a destination empties a class before it touches the next."""

    URGENT = 0
    NORMAL = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom an event addresses, one by one.

    ``selector`` is the Directory's own language (for example ``{"unit": "CDCS-01"}``, ``{}`` for all);
    ``channels`` in order of preference; ``purpose`` is asked of ``may_contact`` at every try.
    """

    selector: Json
    channels: tuple[str, ...]
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A fact somebody reports; it becomes an Event when its unit of work commits.

    ``source`` that begins with "/" is put behind the installation's own URI; what a connection brings is
    always marked with that connection. ``dedupe_key`` is unique per ``source``: a draft that repeats one adds
    nothing. ``subject`` is an opaque id, never a phone or a citizen number: it is written readable on the
    envelope, and the content of a personal event type is sealed under this subject's key. ``ordering_key``
    keeps deliveries of one key in order at each destination.
    """

    type: str
    source: str
    dedupe_key: str
    data: Json
    subject: str | None = None
    occurred_at: datetime | None = None
    scope: str = ""
    ordering_key: str | None = None
    priority: Priority = Priority.NORMAL
    expires_at: datetime | None = None
    audience: Audience | None = None
    #: Why people are written to, for a delivery without an audience; sinks are told.
    purpose: str = ""
    #: The batch its deliveries belong to, so that they are counted and can be stopped together. With an audience
    #: the batch's own id; else the batch is made with the first draft that names it.
    batch_id: UUID | None = None
    correlation_id: UUID | None = None
    #: What "the same content" means for a repeat; by default the data itself.
    same_as: bytes | None = None
    id: UUID = field(default_factory=new_id)


@dataclass(slots=True, kw_only=True)
class Event:
    """A fact as a sink or handler sees it: ``data`` holds only what its subscription may see.

    The facts are immutable; this is a copy of one, made for one try (not frozen, which doubles what it costs).
    """

    id: UUID
    type: str
    source: str
    subject: str | None
    occurred_at: datetime
    data: Json
    scope: str
    correlation_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a partner says later about a reference it gave us; may come before we stored the accept."""

    ref: str
    #: delivered | failed | interim; an interim receipt is kept and moves nothing.
    state: str
    reason: str = ""
    #: Identifies this report, so that the same one twice is one.
    dedupe_key: str = ""
