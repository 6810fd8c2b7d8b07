"""The sink of every carrier: what the hub owes a phone, asked for permission, then handed to the carrier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.contract import (
    Admission,
    Connection,
    ConnectionContext,
    DestinationSpec,
    Outcome,
    Refused,
    Scope,
    Shipment,
)
from hub.model import Event

from .carriers import Carrier
from .carriers.binds import tls_context
from .carriers.smpp import SmppCarrier
from .numbers import Number
from .policy import Gate
from .settings import SendingSettings, SmsSettings
from .text import measure, normalise


def open_connection(ctx: ConnectionContext, settings: SmsSettings) -> Connection:
    """An SMPP account. Raises ``ConfigError`` for a missing secret or unreadable roots."""
    ctx.secret(settings.password)
    if settings.tls:
        tls_context(settings)
    carrier = SmppCarrier(ctx, settings)
    return Connection(
        sink=SmsSink(ctx, settings, carrier),
        run=carrier.run,
        sessions=settings.sessions,
        check=carrier.check,
        close=carrier.close,
    )


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
        value: Any = event.data
        for name in self._settings.text_field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return normalise(value)[0].encode() if isinstance(value, str) else b""

    async def admit(self, shipment: Shipment) -> Admission:
        return await self._gate.admit(shipment)

    async def send(self, shipment: Shipment) -> Outcome:
        number = self._gate.number(shipment)
        if not isinstance(number, Number):
            return Refused(reason="address_invalid", scope=Scope.RECIPIENT)
        text = shipment.body.decode()
        if measure(text, self._settings.joining_bits).segments > self._settings.max_segments:
            return Refused(reason="sms_too_long")
        return await self._carrier.send(shipment, number.msisdn, text)
