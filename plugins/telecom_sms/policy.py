"""Whether a message may leave now: asked at every try, at the moment of sending, never earlier.

Every refusal has a reason of its own. What is refused for good is cancelled; what is only too early is held, and no
try is spent. What two senders could decide at the same moment is decided by guards that commit with the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from hub.contract import ASK_AGAIN, Admission, Admit, Cancel, Guard, Hold, Hub, Shipment, UnitOfWork
from hub.model import from_us, to_us

from . import tables
from .known import Known, gathered
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
#: Messages that were let through without a look and not begun yet; more are forgotten, which costs them a look.
_HOPED_MOST: Final = 10_000
_NO_LIMIT: Final = 2**31 - 1
#: Blocks of 10,000 numbers: 84, and five of nine digits.
_PREFIX_DIGITS: Final = 7


class _Hours(NamedTuple):
    """What the calendar says of a class in one minute."""

    minute: int
    rule: ClassRule
    #: When messages of the class may go again; None when they may now.
    opens: datetime | None


@dataclass(slots=True)
class _Asked:
    """One message at the gate."""

    shipment: Shipment
    number: Number
    phone_hash: bytes
    text: str
    purpose: str
    rule: ClassRule
    opens: datetime | None
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
        self._calendar: dict[str, _Hours] = {}
        #: Phone -> deliveries let through just now.
        self._starting: dict[bytes, dict[bytes, datetime]] = {}
        #: Deliveries let through without a look whose start is not committed, as far as anybody knows here.
        self._hoped: set[bytes] = set()
        #: Campaigns with a budget: of these each message has to be looked at.
        self._budgeted: set[bytes] = set()

    def number(self, shipment: Shipment) -> Number | Refusal | None:
        """The phone: the recipient's address, or the one the event itself names when it has no recipient."""
        address: Any = shipment.address
        if address is None and not shipment.recipient:
            address = shipment.event.data.get("to")
        return self._read(address) if isinstance(address, str) else None

    def _read(self, address: str) -> Number | Refusal:
        return read_number(address, self._settings.countries)

    async def judge(self, shipment: Shipment) -> Admission:
        """What ``admit`` will say as far as one can know now: for whoever only hands the message on."""
        return await self.admit(shipment, look=True)

    async def admit(self, shipment: Shipment, *, look: bool = False) -> Admission:
        """``look``: whatever is known counts, not only what the start finds out by itself."""
        number = self.number(shipment)
        if number is None:
            return Cancel("no_address")
        if not isinstance(number, Number):
            return Cancel(number)
        now = self._hub.now()
        purpose = shipment.purpose or self._settings.default_purpose
        text = shipment.body.decode()
        hours = self._hours_of(purpose, now)
        if hours is None:
            return Cancel("class_unknown")
        size = measure(text, self._settings.joining_bits, hours.rule.added_units)
        phone_hash = self._hub.keyed_hash("phone", number.msisdn)
        asked = _Asked(shipment, number, phone_hash, text, purpose, hours.rule, hours.opens, size, now)
        refusal = self._never(asked)
        if refusal:
            return Cancel(refusal)
        if not look and self._may_hope(asked):
            return self._hoped_for(asked)
        known = await self._known(asked)
        refusal = _refused(asked, known)
        if refusal:
            return Cancel(refusal)
        held = self._too_early(asked, known) or await self._over_budget(asked, known)
        return held or self._admitted(asked, known)

    def _hours_of(self, purpose: str, now: datetime) -> _Hours | None:
        """None for a class without a rule. Rules and hours begin and end with a minute."""
        minute = to_us(now) // 60_000_000
        known = self._calendar.get(purpose)
        if known is not None and known.minute == minute:
            return known
        rule = self._settings.rule(purpose, now)
        if rule is None:
            return None
        known = self._calendar[purpose] = _Hours(minute, rule, opens_at(rule, now, self._settings.quiet_margin_min))
        return known

    # -- never -------------------------------------------------------------------------------------

    def _never(self, asked: _Asked) -> str:
        """What the message itself or its number forbids; "" when nothing does."""
        settings, rule = self._settings, asked.rule
        if settings.only_to and asked.number.msisdn not in self._only_to:
            return "not_on_list"
        return text_refusal(settings, rule, asked.text, asked.size, asked.now)

    # -- most messages -----------------------------------------------------------------------------

    def _may_hope(self, asked: _Asked) -> bool:
        """Whether the start itself can judge: mostly nothing speaks against a message, and a look costs as much as it.

        Whatever does makes a guard fail, and ``admit`` is asked again, which then looks.
        """
        rule, delivery = asked.rule, asked.shipment.id
        if delivery in self._hoped:
            self._hoped.discard(delivery)
            return False
        if asked.campaign in self._budgeted:
            return False
        if asked.purpose == ANSWER or rule.consent or rule.do_not_call or self._just_started(asked):
            return False
        return not self._settings.quiet_hours or asked.opens is None

    def _hoped_for(self, asked: _Asked) -> Admit:
        if len(self._hoped) > _HOPED_MOST:
            self._hoped.clear()
        self._hoped.add(asked.shipment.id)
        per_hour, per_day, now = self._settings.per_number_hour, asked.rule.per_day, to_us(asked.now)
        clear = tables.CLEAR(
            phone_hash=asked.phone_hash,
            network=asked.number.network,
            purpose=asked.purpose,
            campaign=asked.campaign,
            now=now,
            delivery_id=asked.shipment.id,
            since_hour=now - 3_600_000_000,
            most_hour=_NO_LIMIT if per_hour is None else per_hour,
            since_day=now - 86_400_000_000,
            most_day=_NO_LIMIT if per_day is None else per_day,
        )
        return Admit(
            [*self._touched(asked), Guard(clear, otherwise=ASK_AGAIN), *self._claimed(asked, asked.number.network)]
        )

    def begun(self, shipment: Shipment) -> None:
        """Its start is committed: what it was admitted by has held."""
        self._hoped.discard(shipment.id)

    async def _known(self, asked: _Asked) -> Known:
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
        return gathered(rows)

    # -- not now -----------------------------------------------------------------------------------

    def _too_early(self, asked: _Asked, known: Known) -> Hold | None:
        now = asked.now
        if known.paused_at is not None:
            # The longer it lasts the less often it is asked about; it goes on at the latest after ten minutes.
            return Hold(now + min(max(now - known.paused_at, _PAUSE_LEAST), _PAUSE_MOST), "batch_paused")
        if known.send_at is not None and known.send_at > now:
            return Hold(known.send_at, "scheduled")
        overridden = known.override and asked.rule.override
        if self._settings.quiet_hours and asked.opens is not None and not overridden:
            return Hold(asked.opens, "quiet_hours")
        return self._over_limit(asked, known)

    async def _over_budget(self, asked: _Asked, known: Known) -> Hold | None:
        """The first message that does not fit any more pauses its campaign, until a person gives it more."""
        if known.budget is None:
            return None
        self._budgeted.add(asked.campaign)
        dong = self._dong(asked, known.network or asked.number.network)
        if known.spent - known.own_dong + dong <= known.budget:
            return None
        stop = tables.STOP_AT_BUDGET(
            campaign=asked.campaign, phone_hash=asked.phone_hash, delivery_id=asked.shipment.id, dong=dong,
            now=to_us(asked.now),
        )  # fmt: skip
        await self._hub.commit(UnitOfWork(statements=[stop]))
        return Hold(asked.now + _PAUSE_LEAST, "budget_spent")

    def _dong(self, asked: _Asked, network: str) -> int:
        price = self._settings.price(network, asked.purpose, asked.now)
        return 0 if price is None else price.dong * asked.size.segments

    async def free_of_charge(self, shipment: Shipment, number: Number) -> None:
        """The carrier took nothing of it: neither the bill nor the budget has it."""
        key = {
            "campaign": campaign_of(shipment.batch_id, shipment.event.id),
            "phone_hash": self._hub.keyed_hash("phone", number.msisdn), "delivery_id": shipment.id,
        }  # fmt: skip
        await self._hub.commit(UnitOfWork(statements=[tables.UNSPEND(**key), tables.UNCHARGE(**key)]))

    def _over_limit(self, asked: _Asked, known: Known) -> Hold | None:
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

    def _admitted(self, asked: _Asked, known: Known) -> Admit:
        guards = self._touched(asked)
        if asked.purpose != ANSWER:
            free = tables.NOT_OPTED_OUT(phone_hash=asked.phone_hash, purpose=asked.purpose)
            guards.append(Guard(free, otherwise="opted_out"))
        network = known.network or asked.number.network
        if known.budget is not None:
            key = {
                "campaign": asked.campaign, "phone_hash": asked.phone_hash, "delivery_id": asked.shipment.id,
            }  # fmt: skip
            guards.append(Guard(tables.SPEND(**key, dong=self._dong(asked, network)), otherwise=ASK_AGAIN))
        guards += self._claimed(asked, network)
        for most, window, purpose, _ in self._limits(asked):
            values = {"phone_hash": asked.phone_hash, "since": to_us(asked.now - window), "most": most}
            within = tables.WITHIN(**values) if purpose is None else tables.WITHIN_PURPOSE(**values, purpose=purpose)
            guards.append(Guard(within, otherwise=ASK_AGAIN))
        return Admit(guards)

    def _touched(self, asked: _Asked) -> list[Guard]:
        """First of all: whatever concerns this phone waits its turn until COMMIT."""
        if len(self._starting) > 10_000:
            self._starting.clear()
        self._starting.setdefault(asked.phone_hash, {})[asked.shipment.id] = asked.now
        return [Guard(tables.TOUCH_PHONE(phone_hash=asked.phone_hash, now=to_us(asked.now)))]

    def _claimed(self, asked: _Asked, network: str) -> list[Guard]:
        """The phone becomes this delivery's in its campaign, and what it costs is written down."""
        key = {
            "campaign": asked.campaign, "phone_hash": asked.phone_hash, "delivery_id": asked.shipment.id,
        }  # fmt: skip
        guards = []
        if self._settings.per_prefix_hour is not None:
            counted = tables.COUNT_PREFIX(
                **key, prefix=asked.prefix, hour=asked.hour, most=self._settings.per_prefix_hour
            )  # fmt: skip
            guards.append(Guard(counted, otherwise=ASK_AGAIN))
        claim = tables.CLAIM_PHONE(
            **key,
            admitted_at=to_us(asked.now),
            purpose=asked.purpose,
            connection=self._connection,
            network=network,
            unit=asked.shipment.event.scope,
            segments=asked.size.segments,
            dong=self._dong(asked, network),
        )
        return [*guards, Guard(claim, otherwise="same_recipient")]


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


def _refused(asked: _Asked, known: Known) -> str:
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
