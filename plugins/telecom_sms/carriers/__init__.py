"""Carriers behind one interface: who takes a text to a phone, by SMPP, by HTTP or by SOAP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hub.contract import DestinationSpec, Outcome, Shipment


class Carrier(Protocol):
    """An account at a carrier. Everything about law, consent and repeats was decided before it is asked."""

    #: True only where the carrier itself recognises a repeat by our request id.
    resend_is_safe: bool

    def destinations(self) -> Sequence[DestinationSpec]:
        """The paced streams of this account."""

    async def send(self, shipment: Shipment, msisdn: str, text: str) -> Outcome:
        """One try of one message; ``msisdn`` is 84 and nine digits, ``text`` what the phone is to show."""
