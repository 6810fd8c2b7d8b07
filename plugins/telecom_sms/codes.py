"""What a carrier's codes mean for a delivery.

Source: SMPP 3.4 issue 1.2, section 5.1.3 (command_status), section 5.2.28 and appendix B (message states). Which of
them are worth another try: Kannel's user guide and NowSMS's published retry table, read in 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """What to do with a short message that was answered."""

    TAKEN = "taken"
    #: The carrier has it from a try before, whose answer was lost.
    ALREADY = "already"
    #: The carrier is busy: the same part may go again in a moment.
    AGAIN_SOON = "again_soon"
    #: Not now: the whole message goes back to the queue, if no part of it was taken.
    LATER = "later"
    #: This message will never go.
    REFUSED = "refused"
    #: No message will ever reach this number.
    BAD_NUMBER = "bad_number"
    #: Nothing will go until a person has changed something.
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Meaning:
    verdict: Verdict
    reason: str


_V = Verdict
_MEANINGS: Final[dict[int, Meaning]] = {
    0x00: Meaning(_V.TAKEN, "ok"),
    0x01: Meaning(_V.REFUSED, "message_length_invalid"),
    0x02: Meaning(_V.REFUSED, "command_length_invalid"),
    0x03: Meaning(_V.STOP, "command_unknown_to_carrier"),
    0x04: Meaning(_V.LATER, "not_bound"),
    0x05: Meaning(_V.LATER, "already_bound"),
    0x06: Meaning(_V.REFUSED, "priority_invalid"),
    0x07: Meaning(_V.STOP, "registered_delivery_invalid"),
    0x08: Meaning(_V.AGAIN_SOON, "carrier_system_error"),
    0x0A: Meaning(_V.STOP, "sender_refused"),
    0x0B: Meaning(_V.BAD_NUMBER, "number_invalid"),
    0x0D: Meaning(_V.LATER, "bind_failed"),
    0x0E: Meaning(_V.STOP, "password_refused"),
    0x0F: Meaning(_V.STOP, "system_id_refused"),
    0x14: Meaning(_V.AGAIN_SOON, "carrier_queue_full"),
    0x15: Meaning(_V.STOP, "service_type_invalid"),
    0x43: Meaning(_V.REFUSED, "esm_class_invalid"),
    0x45: Meaning(_V.LATER, "submit_failed"),
    0x48: Meaning(_V.STOP, "sender_ton_invalid"),
    0x49: Meaning(_V.STOP, "sender_npi_invalid"),
    0x50: Meaning(_V.REFUSED, "number_ton_invalid"),
    0x51: Meaning(_V.REFUSED, "number_npi_invalid"),
    0x53: Meaning(_V.STOP, "system_type_invalid"),
    0x58: Meaning(_V.AGAIN_SOON, "throttled"),
    0x61: Meaning(_V.REFUSED, "schedule_invalid"),
    0x62: Meaning(_V.REFUSED, "validity_invalid"),
    0x64: Meaning(_V.LATER, "receiver_temporary_error"),
    0x65: Meaning(_V.REFUSED, "receiver_permanent_error"),
    0x66: Meaning(_V.REFUSED, "receiver_rejected"),
    0xC0: Meaning(_V.REFUSED, "optional_part_invalid"),
    0xC1: Meaning(_V.REFUSED, "optional_parameter_not_allowed"),
    0xC2: Meaning(_V.REFUSED, "parameter_length_invalid"),
    0xC3: Meaning(_V.REFUSED, "optional_parameter_missing"),
    0xC4: Meaning(_V.REFUSED, "optional_parameter_invalid"),
    0xFE: Meaning(_V.REFUSED, "delivery_failure"),
    0xFF: Meaning(_V.LATER, "unknown_error"),
}
THROTTLED: Final = 0x58


def meaning_of(status: int) -> Meaning:
    """A code nobody listed (vendor ranges included) is tried again by the ledger's schedule, which has an end."""
    return _MEANINGS.get(status) or Meaning(Verdict.LATER, f"status_0x{status:08x}")


#: Message state of a receipt -> state and reason in the ledger. UNKNOWN settles nothing: a better one may follow.
RECEIPT_STATES: Final[dict[str, tuple[str, str]]] = {
    "DELIVRD": ("delivered", ""),
    "EXPIRED": ("failed", "expired_at_carrier"),
    "UNDELIV": ("failed", "undeliverable"),
    "REJECTD": ("failed", "rejected_by_carrier"),
    "DELETED": ("failed", "deleted_at_carrier"),
    "ACCEPTD": ("interim", "accepted_by_carrier"),
    "ENROUTE": ("interim", "on_its_way"),
    "UNKNOWN": ("interim", "state_unknown_to_carrier"),
}
