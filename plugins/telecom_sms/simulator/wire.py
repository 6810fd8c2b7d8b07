"""The simulator's own reading of SMPP 3.4: just what an SMSC sees and says.

Source: SMPP 3.4 issue 1.2; 3GPP TS 23.038 (alphabet), 23.040 section 9.2.3.24 (joining header).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

BIND_NAMES: Final = {1: "receiver", 2: "transmitter", 9: "transceiver"}
SUBMIT, DELIVER, UNBIND, ENQUIRE, QUERY, NACK = 0x04, 0x05, 0x06, 0x15, 0x03, 0x80000000
OK, BAD_COMMAND, NOT_BOUND, BOUND_ALREADY, BAD_LENGTH = 0x00, 0x03, 0x04, 0x05, 0x02
BIND_FAILED, QUERY_FAILED = 0x0D, 0x67
#: sar_msg_ref_num, sar_total_segments, sar_segment_seqnum: for those who leave the joining header to the SMSC.
SAR: Final = (0x020C, 0x020E, 0x020F)
BAD_NUMBER, BAD_PASSWORD, BAD_SYSTEM_ID, THROTTLED = 0x0B, 0x0E, 0x0F, 0x58


class Garbage(Exception):
    """These bytes are no PDU."""


def frame(command: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    return struct.pack(">4I", 16 + len(body), command, status, sequence) + body


def read_frames(buffer: bytearray) -> list[tuple[int, int, int, bytes]]:
    """Takes whole PDUs off the front: (command, status, sequence, body)."""
    frames = []
    while len(buffer) >= 16:
        length, command, status, sequence = struct.unpack(">4I", buffer[:16])
        if not 16 <= length <= 100_000:
            raise Garbage
        if len(buffer) < length:
            break
        frames.append((command, status, sequence, bytes(buffer[16:length])))
        del buffer[:length]
    return frames


def strings(body: bytes, count: int) -> list[bytes]:
    """The first ``count`` NUL-terminated strings of a bind."""
    pieces = body.split(b"\0", count)
    if len(pieces) <= count:
        raise Garbage
    return pieces[:count]


@dataclass(frozen=True)
class Submit:
    """What the SMSC needs of a submit_sm."""

    source: bytes
    source_kind: bytes
    phone: bytes
    phone_kind: bytes
    has_header: bool
    wants_receipt: bool
    coding: int
    data: bytes
    parameters: dict[int, bytes] = field(default_factory=dict)


def read_submit(body: bytes) -> Submit:
    try:
        _, rest = body.split(b"\0", 1)
        source_kind, rest = rest[:2], rest[2:]
        source, rest = rest.split(b"\0", 1)
        phone_kind, rest = rest[:2], rest[2:]
        phone, rest = rest.split(b"\0", 1)
        esm_class, rest = rest[0], rest[3:]
        _schedule, _validity, rest = rest.split(b"\0", 2)
        registered, coding, length = rest[0], rest[2], rest[4]
        data, rest = rest[5 : 5 + length], rest[5 + length :]
    except (ValueError, IndexError):
        raise Garbage from None
    if len(data) != length:
        raise Garbage
    has_header, wants_receipt = bool(esm_class & 0x40), bool(registered & 1)
    found = read_parameters(rest)
    return Submit(
        source, source_kind, phone, phone_kind, has_header, wants_receipt, coding, data or found.get(0x0424, b""), found
    )


def read_parameters(rest: bytes) -> dict[int, bytes]:
    found = {}
    while len(rest) >= 4:
        tag, length = struct.unpack(">2H", rest[:4])
        found[tag], rest = rest[4 : 4 + length], rest[4 + length :]
    return found


def read_query(body: bytes) -> bytes:
    """The message id a query_sm asks about."""
    return strings(body, 1)[0]


def query_answer(message_id: bytes, state: int, error: int) -> bytes:
    return message_id + b"\0" + b"\0" + bytes((state, error))


def read_part(submit: Submit) -> tuple[int, int, int, bytes]:
    """(reference, total, part, data without header); (0, 1, 1, data) for a message of its own."""
    data = submit.data
    if 0x020C in submit.parameters:
        reference, total, part = (int.from_bytes(submit.parameters.get(tag, b""), "big") for tag in SAR)
        return reference, total, part, data
    if not submit.has_header or not data:
        return 0, 1, 1, data
    header, rest = data[1 : data[0] + 1], data[data[0] + 1 :]
    if header[:2] == b"\x00\x03" and len(header) == 5:
        return header[2], header[3], header[4], rest
    if header[:2] == b"\x08\x04" and len(header) == 6:
        return header[2] * 256 + header[3], header[4], header[5], rest
    return 0, 1, 1, rest


_GSM = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\0ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_ESCAPED = {10: "\f", 20: "^", 40: "{", 41: "}", 47: "\\", 60: "[", 61: "~", 62: "]", 64: "|", 101: "€"}


def text_of(data: bytes, coding: int) -> str:
    """What the phone would show of the joined parts; a cut escape or surrogate pair shows as U+FFFD."""
    if coding == 8:
        return data.decode("utf-16-be", "replace")
    shown, octets = [], iter(data)
    for octet in octets:
        if octet == 0x1B:
            shown.append(_GSM_ESCAPED.get(next(octets, -1), "\ufffd"))
        else:
            shown.append(_GSM[octet] if octet < 128 else "\ufffd")
    return "".join(shown)


def parameter(tag: int, value: bytes) -> bytes:
    return struct.pack(">2H", tag, len(value)) + value


def deliver(submit: Submit, text: bytes, parameters: bytes = b"") -> bytes:
    """Body of a receipt for ``submit``: from the phone, to its sender."""
    return (
        b"\0" + submit.phone_kind + submit.phone + b"\0" + submit.source_kind + submit.source + b"\0"
        + b"\x04\0\0" + b"\0\0" + b"\0\0\0\0" + bytes((len(text),)) + text + parameters
    )  # fmt: skip


#: message_state numbers of section 5.2.28.
STATE_NUMBERS: Final = {"DELIVRD": 2, "UNDELIV": 5}
RECEIPT_STYLES: Final = ("plain", "seconds", "shuffled", "text_error", "parameters")


def receipt_body(submit: Submit, message_id: str, state: str, stamp: str, style: str) -> bytes:
    """One receipt as different carriers write it; ``stamp`` is YYMMDDhhmmss."""
    minute, error = stamp[:10], "000" if state == "DELIVRD" else "069"
    if style == "parameters":
        tags = parameter(0x001E, message_id.encode() + b"\0") + parameter(0x0427, bytes((STATE_NUMBERS[state],)))
        return deliver(submit, b"", tags)
    if style == "shuffled":
        text = f"stat:{state} err:{error} done date:{minute} id:{message_id} dlvrd:001 sub:001 submit date:{minute}"
    elif style == "seconds":
        text = f"id:{message_id} sub:001 dlvrd:001 submit date:{stamp} done date:{stamp} stat:{state} err:{error} text:"
    else:
        reason = (
            "NOERR" if style == "text_error" and state == "DELIVRD" else "E_ABS" if style == "text_error" else error
        )
        text = (
            f"id:{message_id} sub:001 dlvrd:001 submit date:{minute} done date:{minute} stat:{state} err:{reason} text:"
        )
    return deliver(submit, text.encode())
