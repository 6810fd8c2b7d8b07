"""The connection that chooses between carriers: a message stays with it until the carrier that takes it has room.

Subscriptions name it; each message becomes owed to one carrier's connection, as late as can be. Where all are busy
it waits here, in a lane per rule, so that one rule's full carriers keep nobody else waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from hub.contract import (
    Admission,
    Admit,
    Cancel,
    CheckStep,
    Connection,
    ConnectionContext,
    DestinationSpec,
    Divert,
    Guard,
    Hold,
    Outcome,
    RetryLater,
    Scope,
    Shipment,
    UnitOfWork,
)
from hub.errors import Conflict, HubError
from hub.model import EPOCH, Event

from . import tables
from .connector import text_of
from .fleet import Fleet, Verdict
from .numbers import Number
from .policy import Gate
from .routes import RouteRule, RoutesSettings, Traits, rule_for
from .settings import HttpSettings, SendingSettings, SmsSettings

#: How old a look may be by which messages are placed; so long rests what found every carrier full.
LOOK_S: Final = 0.25
#: How often it is looked whether something had better go elsewhere, without a message that asks.
WATCH_S: Final = 1.0
#: Messages that leave an unfit carrier in one transaction.
MOVED_AT_ONCE: Final = 200
_CONCURRENCY: Final = 50


def open_routes(ctx: ConnectionContext, settings: RoutesSettings) -> Connection:
    router = Routes(ctx, settings)
    return Connection(sink=router, run=router.run, check=router.check)


class Routes:
    """Sends nothing itself: every admission holds, cancels, or hands over to a carrier's connection."""

    #: Nothing leaves from here, so nothing that a crash cuts off can have arrived.
    resend_is_safe = False

    def __init__(self, ctx: ConnectionContext, settings: RoutesSettings) -> None:
        self._ctx = ctx
        self._hub = ctx.hub
        self._settings = settings
        self._rooms = {rule.name: f"{ctx.name}/{rule.name}" for rule in settings.rules}
        self._by_network = any(rule.networks for rule in settings.rules)
        self._gates: dict[str, tuple[SendingSettings, Gate]] = {}
        self._fleet: Fleet | None = None
        self._looking = asyncio.Lock()

    def destinations(self) -> Sequence[DestinationSpec]:
        rooms = [DestinationSpec(name=rule.name, concurrency=_CONCURRENCY) for rule in self._settings.rules]
        return [DestinationSpec(concurrency=_CONCURRENCY), *rooms]

    def render(self, event: Event) -> bytes:
        return text_of(event, self._settings.text_field)

    async def send(self, shipment: Shipment) -> Outcome:
        """Never asked: what is not held or cancelled is handed over."""
        return RetryLater(reason="no_carrier", scope=Scope.DESTINATION)

    async def check(self) -> AsyncIterator[CheckStep]:
        """Whether the carriers of the rules are there; each of them has a check of its own."""
        known = self._accounts()
        for name in self._settings.carriers():
            said = "có / there" if name in known else "không có kết nối SMS tên này / no SMS connection of this name"
            yield CheckStep(name, name in known, said)

    # -- one message -------------------------------------------------------------------------------

    async def admit(self, shipment: Shipment) -> Admission:
        fleet = await self._look()
        room = shipment.destination
        if room != self._ctx.name:
            rule = next(r for r in self._settings.rules if self._rooms[r.name] == room)
        else:
            found = await self._rule(shipment)
            if not isinstance(found, RouteRule):
                return found
            rule, room = found, self._rooms[found.name]
        candidates = fleet.candidates(rule, shipment.id, shipment.try_no)
        free = [name for name in candidates if fleet.has_room(name)]
        if shipment.destination != room and (not free or fleet.waiting(room)):
            return Divert(room)  # who waits longer goes first
        if not free:
            wait = timedelta(seconds=LOOK_S if candidates else WATCH_S)
            return Hold(self._hub.now() + wait, "carriers_full" if candidates else "no_carrier", Scope.DESTINATION)
        return await self._placed(fleet, free, shipment)

    async def _placed(self, fleet: Fleet, free: Sequence[str], shipment: Shipment) -> Admission:
        """With the first that may have it: what one carrier's contract forbids another's may allow."""
        refusal: Cancel | None = None
        for name in free:
            judged = await self._gate(name).judge(shipment)
            if isinstance(judged, Admit):
                fleet.place(name)
                return Divert(name)
            if isinstance(judged, Hold):
                return judged
            assert isinstance(judged, Cancel)
            refusal = refusal or judged
        assert refusal is not None
        return refusal

    async def _rule(self, shipment: Shipment) -> RouteRule | Cancel:
        carriers = self._accounts()
        if not carriers:
            return self._settings.rules[-1]
        name, settings = next(iter(carriers.items()))
        number = self._gate(name).number(shipment)
        if number is None:
            return Cancel("no_address")
        if not isinstance(number, Number):
            return Cancel(number)
        network = number.network
        if self._by_network:
            known = await self._hub.fetch(tables.NETWORK_OF(phone_hash=self._hub.keyed_hash("phone", number.msisdn)))
            network = next((word for (word,) in known if word), network)
        data = shipment.event.data
        tag = data.get("tag") or data.get("batch")
        return rule_for(
            self._settings.rules,
            Traits(
                purpose=shipment.purpose or settings.default_purpose,
                network=network,
                msisdn=number.msisdn,
                sender=str(data.get("sender") or ""),
                tag=str(tag or ""),
            ),
        )

    def _accounts(self) -> dict[str, SendingSettings]:
        """The carriers of the rules that exist, in the order of the rules."""
        known = self._hub.settings_of(SendingSettings)
        return {name: known[name] for name in self._settings.carriers() if name in known}

    def _gate(self, name: str) -> Gate:
        settings = self._hub.settings_of(SendingSettings)[name]
        kept = self._gates.get(name)
        if kept is None or kept[0] is not settings:
            kept = self._gates[name] = settings, Gate(self._hub, name, settings)
        return kept[1]

    # -- the carriers ------------------------------------------------------------------------------

    async def _look(self, age_s: float = LOOK_S) -> Fleet:
        """The fleet as it was seen at most so long ago."""
        async with self._looking:
            at = _seconds(self._hub.now())
            accounts = self._accounts()
            if self._fleet is None or self._fleet.carriers.keys() != accounts.keys():
                self._fleet = Fleet(self._settings, {name: _busy_at(s) for name, s in accounts.items()})
            elif 0 <= at - self._fleet.looked_at < age_s:
                return self._fleet
            fleet = self._fleet
            # A carrier that another choice leads to as well is judged for each.
            rows = await self._hub.fetch(tables.CARRIERS(route=self._ctx.name))
            fleet.recall({row[0]: Verdict(row[1], row[2] / 1e6, row[3] / 1e6) for row in rows})
            seen = await self._hub.standings([*fleet.carriers, *self._rooms.values()])
            for name, verdict in fleet.see(at, seen).items():
                await self._say(name, verdict)
            return fleet

    async def _say(self, name: str, verdict: Verdict) -> None:
        """Of several nodes that find the same at once, one says it."""
        kept = tables.JUDGE(
            route=self._ctx.name,
            connection=name,
            reason=verdict.reason,
            since=int(verdict.since * 1e6),
            until=int(verdict.until * 1e6),
        )
        try:
            await self._hub.commit(UnitOfWork(guards=[Guard(kept)]))
        except Conflict:
            return
        if verdict.reason:
            self._ctx.log("carrier.unfit", carrier=name, reason=verdict.reason)
        else:
            self._ctx.log("carrier.fit", carrier=name)

    async def run(self) -> None:
        """Looks whether or not messages come, and brings back what waits where it had better not."""
        while True:
            with suppress(HubError):  # the ledger is busy: a second later it is looked again
                await self._bring_back(await self._look())
            await asyncio.sleep(WATCH_S)

    async def _bring_back(self, fleet: Fleet) -> None:
        for name in fleet.unfit():
            while await self._hub.divert(name, self._ctx.name, limit=MOVED_AT_ONCE) == MOVED_AT_ONCE:
                pass
        for name in fleet.carriers:
            if fleet.waiting(name) and (others := self._settings.others_of(name)):
                await self._hub.divert(name, self._ctx.name, limit=MOVED_AT_ONCE, tried=others)


def _busy_at(settings: SendingSettings) -> int:
    """Twice what is under way at once keeps the account busy whatever its rate."""
    at_once: Any = 10
    if isinstance(settings, SmsSettings):
        at_once = settings.window * settings.binds
    elif isinstance(settings, HttpSettings):
        at_once = settings.concurrency
    return 2 * int(at_once)


def _seconds(now: datetime) -> float:
    return (now - EPOCH).total_seconds()
