"""Whether a message may leave now: asked at every try, at the moment of sending, never earlier.

Every refusal has a reason of its own. What is refused for good is cancelled; what is only too early is held, and no
try is spent. What two senders could decide at the same moment is decided by guards that commit with the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from hub.contract import Admission, Admit, Cancel, Guard, Hold, Hub, Shipment
from hub.model import from_us, to_us

from . import tables
from .numbers import Number, Refusal, read_number
from .rules import ANSWER, ZONE, ClassRule
from .settings import SendingSettings
from .templates import fits_registered
from .text import Size, measure

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
#: For so long a message that was let through counts although the ledger may not show it yet.
_STARTING: Final = timedelta(seconds=2)
_PAUSE_LEAST: Final = timedelta(seconds=1)
_PAUSE_MOST: Final = timedelta(minutes=10)
#: Blocks of 10,000 numbers: 84, and five of nine digits.
_PREFIX_DIGITS: Final = 7


@dataclass(slots=True)
class _Known:
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """One message at the gate."""

    shipment: Shipment
    number: Number
    phone_hash: bytes
    text: str
    purpose: str
    rule: ClassRule
    size: Size
    now: datetime

    @property
    def campaign(self) -> bytes:
        return (self.shipment.batch_id or self.shipment.event.id).bytes

    @property
    def prefix(self) -> str:
        return self.number.msisdn[:_PREFIX_DIGITS]

    @property
    def hour(self) -> int:
        return to_us(self.now) // 3_600_000_000


def campaign_of(batch_id: UUID | None, event_id: UUID) -> bytes:
    """What one SMS per phone is counted over, and what an override is given for."""
    return (batch_id or event_id).bytes


class Gate:
    """Asks law, contract and the people themselves about one connection's messages."""

    def __init__(self, hub: Hub, connection: str, settings: SendingSettings) -> None:
        self._hub = hub
        self._connection = connection
        self._settings = settings
        self._only_to = {n.msisdn for n in map(self._read, settings.only_to) if isinstance(n, Number)}
        #: Phone -> deliveries let through just now.
        self._starting: dict[bytes, dict[bytes, datetime]] = {}

    def number(self, shipment: Shipment) -> Number | Refusal | None:
        """The phone: the recipient's address, or the one the event itself names when it has no recipient."""
        address: Any = shipment.address
        if address is None and not shipment.recipient:
            address = shipment.event.data.get("to")
        return self._read(address) if isinstance(address, str) else None

    def _read(self, address: str) -> Number | Refusal:
        return read_number(address, self._settings.countries)

    async def admit(self, shipment: Shipment) -> Admission:
        number = self.number(shipment)
        if number is None:
            return Cancel("no_address")
        if not isinstance(number, Number):
            return Cancel(number)
        now = self._hub.now()
        purpose = shipment.purpose or self._settings.default_purpose
        text = shipment.body.decode()
        rule = self._settings.rule(purpose, now)
        if rule is None:
            return Cancel("class_unknown")
        size = measure(text, self._settings.joining_bits, rule.added_units)
        asked = _Asked(
            shipment, number, self._hub.keyed_hash("phone", number.msisdn), text, purpose, rule, size, now
        )  # fmt: skip
        refusal = self._never(asked)
        if refusal:
            return Cancel(refusal)
        known = await self._known(asked)
        refusal = _refused(asked, known)
        if refusal:
            return Cancel(refusal)
        return self._too_early(asked, known) or self._admitted(asked, known)

    # -- never -------------------------------------------------------------------------------------

    def _never(self, asked: _Asked) -> str:
        """What the message itself or its number forbids; "" when nothing does."""
        settings, rule = self._settings, asked.rule
        if settings.only_to and asked.number.msisdn not in self._only_to:
            return "not_on_list"
        return text_refusal(settings, rule, asked.text, asked.size, asked.now)

    async def _known(self, asked: _Asked) -> _Known:
        rows = await self._hub.fetch(
            tables.KNOWN(
                phone_hash=asked.phone_hash,
                campaign=asked.campaign,
                delivery_id=asked.shipment.id,
                since=to_us(asked.now - _DAY),
                prefix=asked.prefix,
                hour=asked.hour,
            )
        )
        return _gathered(rows)

    # -- not now -----------------------------------------------------------------------------------

    def _too_early(self, asked: _Asked, known: _Known) -> Hold | None:
        now = asked.now
        if known.paused_at is not None:
            # The longer it lasts the less often it is asked about; it goes on at the latest after ten minutes.
            return Hold(now + min(max(now - known.paused_at, _PAUSE_LEAST), _PAUSE_MOST), "batch_paused")
        if known.send_at is not None and known.send_at > now:
            return Hold(known.send_at, "scheduled")
        if self._settings.quiet_hours and not (known.override and asked.rule.override):
            until = opens_at(asked.rule, now, self._settings.quiet_margin_min)
            if until is not None:
                return Hold(until, "quiet_hours")
        return self._over_limit(asked, known)

    def _over_limit(self, asked: _Asked, known: _Known) -> Hold | None:
        for most, window, purpose, reason in self._limits(asked):
            begun = [at for p, at in known.sent if at > asked.now - window and purpose in (p, None)]
            if len(begun) >= most:
                return Hold(sorted(begun)[-most] + window, reason)
            if len(begun) + self._just_started(asked) >= most:
                return Hold(asked.now + _STARTING, reason)
        most_of_prefix = self._settings.per_prefix_hour
        if most_of_prefix is not None and known.prefix_count >= most_of_prefix:
            return Hold(from_us((asked.hour + 1) * 3_600_000_000), "prefix_limit")
        return None

    def _limits(self, asked: _Asked) -> Iterator[tuple[int, timedelta, str | None, str]]:
        if self._settings.per_number_hour is not None:
            yield self._settings.per_number_hour, _HOUR, None, "number_limit"
        if asked.rule.per_day is not None:
            yield asked.rule.per_day, _DAY, asked.purpose, "daily_limit"

    def _just_started(self, asked: _Asked) -> int:
        """Others to the same phone that were let through a moment ago; the ledger may not show them yet."""
        others = self._starting.get(asked.phone_hash, {})
        for delivery, at in list(others.items()):
            if at <= asked.now - _STARTING:
                del others[delivery]
        return len(others) - (asked.shipment.id in others)

    # -- now ---------------------------------------------------------------------------------------

    def _admitted(self, asked: _Asked, known: _Known) -> Admit:
        if len(self._starting) > 10_000:
            self._starting.clear()
        self._starting.setdefault(asked.phone_hash, {})[asked.shipment.id] = asked.now
        network = known.network or asked.number.network
        price = self._settings.price(network, asked.purpose, asked.now)
        key = {
            "campaign": asked.campaign, "phone_hash": asked.phone_hash, "delivery_id": asked.shipment.id,
        }  # fmt: skip
        guards = [Guard(tables.TOUCH_PHONE(phone_hash=asked.phone_hash, now=to_us(asked.now)))]
        if asked.purpose != ANSWER:
            free = tables.NOT_OPTED_OUT(phone_hash=asked.phone_hash, purpose=asked.purpose)
            guards.append(Guard(free, otherwise="opted_out"))
        if self._settings.per_prefix_hour is not None:
            counted = tables.COUNT_PREFIX(
                **key, prefix=asked.prefix, hour=asked.hour, most=self._settings.per_prefix_hour
            )  # fmt: skip
            guards.append(Guard(counted, otherwise="prefix_limit"))
        claim = tables.CLAIM_PHONE(
            **key,
            admitted_at=to_us(asked.now),
            purpose=asked.purpose,
            connection=self._connection,
            network=network,
            unit=asked.shipment.event.scope,
            segments=asked.size.segments,
            dong=0 if price is None else price.dong * asked.size.segments,
        )
        guards.append(Guard(claim, otherwise="same_recipient"))
        for most, window, purpose, reason in self._limits(asked):
            values = {"phone_hash": asked.phone_hash, "since": to_us(asked.now - window), "most": most}
            within = tables.WITHIN(**values) if purpose is None else tables.WITHIN_PURPOSE(**values, purpose=purpose)
            guards.append(Guard(within, otherwise=reason))
        return Admit(guards)


def text_refusal(settings: SendingSettings, rule: ClassRule, text: str, size: Size, now: datetime) -> str:
    """Why a text of a class cannot go out over this connection, whoever gets it; "" when it can."""
    if not text.strip():
        return "text_missing"
    if rule.label and not text.startswith(rule.label):
        return "label_missing"
    if rule.brandname and settings.sender.lstrip("+").isdigit():
        return "brandname_required"
    if size.segments > min(rule.max_segments, settings.max_segments):
        return "sms_too_long"
    if not fits_registered(settings, rule.purpose, text, now):
        return "template_not_registered"
    return ""


def opens_at(rule: ClassRule, now: datetime, margin_min: int) -> datetime | None:
    """When messages of the class may go again; None when they may now."""
    local = now.astimezone(ZONE)
    opens = local.replace(hour=rule.hours_from.hour, minute=rule.hours_from.minute, second=0, microsecond=0)
    closes = local.replace(hour=rule.hours_to.hour, minute=rule.hours_to.minute, second=0, microsecond=0)
    if local < opens:
        return opens
    return None if local < closes - timedelta(minutes=margin_min) else opens + _DAY


def _refused(asked: _Asked, known: _Known) -> str:
    """What the person, a list or a test key says; "" when nobody objects."""
    if asked.purpose == ANSWER:
        # The one message that goes to somebody who refused: that it was heard.
        asked_for = known.refused_at is not None and asked.now - known.refused_at < _DAY
        return "" if asked_for else "not_asked_for"
    refusal = known.optouts.get("*") or known.optouts.get(asked.purpose)
    if refusal:
        return refusal
    if asked.rule.do_not_call and known.do_not_call:
        return "do_not_call"
    if asked.rule.consent and asked.purpose not in known.consents:
        return "no_consent"
    return "simulated" if known.test else ""


def _gathered(rows: list[tuple[Any, ...]]) -> _Known:
    known = _Known()
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
    return known
