"""The sink of every carrier: what the hub owes a phone, asked for permission, then handed to the carrier."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hub.contract import (
    Admission,
    Connection,
    ConnectionContext,
    DestinationSpec,
    Outcome,
    Refused,
    RetryLater,
    Scope,
    Shipment,
)
from hub.errors import HubError
from hub.model import Event

from .carriers import Carrier
from .carriers.binds import tls_context
from .carriers.smpp import SmppCarrier
from .numbers import Number
from .policy import Gate
from .settings import SendingSettings, SmsSettings
from .text import measure, normalise
from .upkeep import kept_up


def open_connection(ctx: ConnectionContext, settings: SmsSettings) -> Connection:
    """An SMPP account. Raises ``ConfigError`` for a missing secret or unreadable roots."""
    ctx.secret(settings.password)
    if settings.tls:
        tls_context(settings)
    carrier = SmppCarrier(ctx, settings)
    return Connection(
        sink=SmsSink(ctx, settings, carrier),
        run=kept_up(ctx, carrier.run),
        sessions=settings.sessions,
        check=carrier.check,
        close=carrier.close,
    )


def text_of(event: Event, text_field: str) -> bytes:
    """The text as it is sent, in UTF-8; empty when the event has none."""
    value: Any = event.data
    for name in text_field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return normalise(value)[0].encode() if isinstance(value, str) else b""


class SmsSink:
    """Sends one SMS per phone and campaign, and never again what may have arrived."""

    def __init__(self, ctx: ConnectionContext, settings: SendingSettings, carrier: Carrier) -> None:
        self._gate = Gate(ctx.hub, ctx.name, settings)
        self._settings = settings
        self._carrier = carrier
        self.resend_is_safe = carrier.resend_is_safe

    def destinations(self) -> Sequence[DestinationSpec]:
        return self._carrier.destinations()

    def render(self, event: Event) -> bytes:
        """The text as it is sent, in UTF-8; empty when the event has none, which ``admit`` then cancels."""
        return text_of(event, self._settings.text_field)

    async def admit(self, shipment: Shipment) -> Admission:
        return await self._gate.admit(shipment)

    async def send(self, shipment: Shipment) -> Outcome:
        self._gate.begun(shipment)
        number = self._gate.number(shipment)
        if not isinstance(number, Number):
            return Refused(reason="address_invalid", scope=Scope.RECIPIENT)
        text = shipment.body.decode()
        if measure(text, self._settings.joining_bits, 0).segments > self._settings.max_segments:
            return Refused(reason="sms_too_long")
        outcome = await self._carrier.send(shipment, number.msisdn, text)
        if isinstance(outcome, Refused) or (isinstance(outcome, RetryLater) and not outcome.ambiguous):
            with suppress(HubError):  # a busy ledger: the message stays counted as paid for, which stops too early
                await self._gate.free_of_charge(shipment, number)
        return outcome
