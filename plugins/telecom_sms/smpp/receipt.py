"""Delivery receipts as carriers really send them: any order, odd dates, text errors, parameters only. Never raises.

Source: SMPP 3.4 appendix B (receipt text, which the specification itself calls vendor specific), sections 5.2.28
(message_state), 5.3.2.12 (receipted_message_id), 5.2.12 (esm_class), 5.3.2.31 (network_error_code).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from . import pdu

#: message_state, section 5.2.28, by number and by the first letters of the receipt text's ``stat``.
STATE_BY_NUMBER: Final = {
    1: "ENROUTE", 2: "DELIVRD", 3: "EXPIRED", 4: "DELETED", 5: "UNDELIV", 6: "ACCEPTD", 7: "UNKNOWN", 8: "REJECTD",
}  # fmt: skip
_STATE_BY_PREFIX: Final = {state[:5]: state for state in STATE_BY_NUMBER.values()}

_FIELD: Final = re.compile(
    rb"(?i)(?<![a-z])(id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat|err)\s*:\s*([^\s:]++)(?!\s*:)"
)
_TEXT: Final = re.compile(rb"(?i)(?<![a-z])text\s*:")
_DATE: Final = re.compile(r"\d{10}(\d{2})?")


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What a receipt says. ``state`` is one of the eight names of section 5.2.28, UNKNOWN when it says none."""

    #: From the receipt's text, in the carrier's receipt notation.
    text_id: str
    #: From the optional parameter, in the notation of submit_sm_resp; it is the one to trust.
    tlv_id: str
    state: str
    error: str
    #: The done date as sent (10 or 12 digits), "" when it is neither.
    done: str


def is_receipt(message: pdu.Message) -> bool:
    """By esm_class or by a parameter, never by the text: a phone can write any text it likes."""
    return message.esm_class & 0x3C in (0x04, 0x20) or pdu.TAG_RECEIPTED_MESSAGE_ID in message.tlvs


def parse(message: pdu.Message) -> DeliveryReport:
    """Everything that can be read; what cannot is left empty."""
    fields = _fields(_as_ascii(message))
    number = message.tlvs.get(pdu.TAG_MESSAGE_STATE, b"")
    state = STATE_BY_NUMBER.get(number[0]) if len(number) == 1 else None
    done = fields.get("donedate", "")
    return DeliveryReport(
        text_id=fields.get("id", ""),
        tlv_id=pdu.bare_string(message.tlvs.get(pdu.TAG_RECEIPTED_MESSAGE_ID, b"")).strip(),
        state=state or _STATE_BY_PREFIX.get(fields.get("stat", "").upper()[:5], "UNKNOWN"),
        error=fields.get("err", "") or message.tlvs.get(pdu.TAG_NETWORK_ERROR_CODE, b"").hex(),
        done=done if _DATE.fullmatch(done) else "",
    )


def _as_ascii(message: pdu.Message) -> bytes:
    octets = message.octets
    if message.esm_class & pdu.ESM_UDHI and octets:
        octets = octets[1 + octets[0] :]
    return octets.replace(b"\0", b"") if message.data_coding == 8 else octets


def _fields(text: bytes) -> dict[str, str]:
    """First value of each key. The quoted start of the message is looked at last: it may imitate a receipt."""
    quoted = _TEXT.search(text)
    head = text[: quoted.start()] if quoted else text
    found: dict[str, str] = {}
    for part in (head, text[len(head) :]):
        for key, value in _FIELD.findall(part):
            name = re.sub(r"[ _]", "", key.decode("ascii").lower())
            found.setdefault(name, value.decode("ascii", "backslashreplace"))
    return found


def _as_is(text: str) -> str:
    return text


def _decimal(text: str) -> str:
    return text.lstrip("0") or text[-1:]


def _hexadecimal(text: str) -> str:
    return text.lower().lstrip("0") or text[-1:]


def _hex_to_decimal(text: str) -> str:
    return str(int(text, 16)) if re.fullmatch(r"[0-9A-Fa-f]{1,40}", text) else _decimal(text)


def _decimal_to_hex(text: str) -> str:
    return f"{int(text):x}" if re.fullmatch(r"[0-9]{1,48}", text) else _hexadecimal(text)


@dataclass(frozen=True, slots=True)
class IdPolicy:
    """How one carrier writes the same id in its answer and in its receipt, brought to one notation."""

    answered: Callable[[str], str]
    receipted: Callable[[str], str]

    def reference_of(self, report: DeliveryReport) -> str:
        """The reference this report is about, as ``answered`` would have stored it; "" when it names none."""
        return self.answered(report.tlv_id) if report.tlv_id else self.receipted(report.text_id)


ID_POLICIES: Final[dict[str, IdPolicy]] = {
    "as_is": IdPolicy(_as_is, _as_is),
    "hex_to_dec": IdPolicy(_hex_to_decimal, _decimal),
    "dec_to_hex": IdPolicy(_decimal_to_hex, _hexadecimal),
    "casefold": IdPolicy(str.casefold, str.casefold),
    "strip_zeros": IdPolicy(_decimal, _decimal),
}
