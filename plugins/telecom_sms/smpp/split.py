"""One text into the user data of one or more short messages, and the header that joins them again.

Source: 3GPP TS 23.040 section 9.2.3.24 (user data header), 23.038 (alphabets); data_coding: SMPP 3.4 section 5.2.19.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from . import gsm, pdu

GSM7: Final = 0x00
UCS2: Final = 0x08
#: Octets of user data in one short message; as packed septets that is 160.
_OCTETS: Final = 140
#: Texts whose plan is kept: a notice is cut once, not once for each of its readers.
_KEPT: Final = 256


class Limits(NamedTuple):
    """Units (septets, or UTF-16 code units) that fit one message alone, or one part of several."""

    single: int
    part: int


def limits(data_coding: int, reference_bits: int) -> Limits:
    """A header is 6 octets with an 8-bit reference, 7 with a 16-bit one: 153 or 152 septets, 67 or 66 UCS-2 units."""
    room = _OCTETS - (6 if reference_bits == 8 else 7)
    return Limits(160, room * 8 // 7) if data_coding == GSM7 else Limits(70, room // 2)


def units(character: str, data_coding: int) -> int:
    """What one code point costs: an escape pair or a surrogate pair costs two and is never cut."""
    if data_coding == GSM7:
        return len(gsm.SEPTETS[character])
    return 2 if ord(character) > 0xFFFF else 1


def _has_pairs(text: str, data_coding: int) -> bool:
    """Whether some character costs two; few texts have one, and the others need no look at each letter."""
    if data_coding == GSM7:
        return not gsm.SINGLE.issuperset(text)
    return bool(text) and max(text) > "\uffff"


def total_units(text: str, data_coding: int) -> int:
    """Septets or UTF-16 code units of the whole text, without headers."""
    if not _has_pairs(text, data_coding):
        return len(text)
    return sum(units(character, data_coding) for character in text)


def choose_coding(text: str) -> int:
    return GSM7 if gsm.fits(text) else UCS2


def cut(text: str, data_coding: int, reference_bits: int) -> list[str]:
    """``text`` in the fewest pieces that fit, cut between code points; one empty piece for an empty text."""
    single, part = limits(data_coding, reference_bits)
    if total_units(text, data_coding) <= single:
        return [text]
    if not _has_pairs(text, data_coding):
        return [text[start : start + part] for start in range(0, len(text), part)]
    costs = [units(character, data_coding) for character in text]
    pieces: list[str] = []
    start = used = 0
    for index, cost in enumerate(costs):
        if used + cost > part:
            pieces.append(text[start:index])
            start, used = index, 0
        used += cost
    return [*pieces, text[start:]]


def to_octets(text: str, data_coding: int) -> bytes:
    return gsm.encode(text) if data_coding == GSM7 else text.encode("utf-16-be")


class Part(NamedTuple):
    """What is peculiar to one submit_sm of a text."""

    short_message: bytes
    esm_class: int = 0
    tlvs: Mapping[int, bytes] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """How a text goes over the air: its pieces without headers, in order."""

    data_coding: int
    reference_bits: int
    pieces: tuple[str, ...]
    #: The same as they are written.
    octets: tuple[bytes, ...]

    def user_data(self, reference: int) -> list[bytes]:
        """Octets of every part, with the joining header when there are several."""
        octets = self.octets
        if len(octets) == 1:
            return list(octets)
        total = len(octets)
        if self.reference_bits == 8:
            return [bytes((5, 0, 3, reference & 0xFF, total, no)) + part for no, part in enumerate(octets, 1)]
        high, low = (reference >> 8) & 0xFF, reference & 0xFF
        return [bytes((6, 8, 4, high, low, total, no)) + part for no, part in enumerate(octets, 1)]

    def parts(self, reference: int, how: Literal["udh", "sar", "payload"]) -> list[Part]:
        """One submit_sm each: headers of ours, sar_* for the carrier to make them, or one payload for it to cut.

        Source: SMPP 3.4 sections 5.3.2.22 to 5.3.2.24 (sar_*), 5.3.2.32 (message_payload).
        """
        if len(self.pieces) == 1:
            return [Part(self.octets[0])]
        if how == "udh":
            return [Part(octets, pdu.ESM_UDHI) for octets in self.user_data(reference)]
        octets = self.octets
        if how == "payload":
            return [Part(b"", 0, {pdu.TAG_MESSAGE_PAYLOAD: b"".join(octets)})]
        same = {
            pdu.TAG_SAR_MSG_REF_NUM: reference.to_bytes(2, "big"),
            pdu.TAG_SAR_TOTAL_SEGMENTS: bytes((len(octets),)),
        }
        return [Part(part, 0, {**same, pdu.TAG_SAR_SEGMENT_SEQNUM: bytes((no,))}) for no, part in enumerate(octets, 1)]


@lru_cache(maxsize=_KEPT)
def plan(text: str, reference_bits: int = 8) -> Plan:
    """Raises ``ValueError`` on a text of more than 255 parts, which no header can number."""
    data_coding = choose_coding(text)
    pieces = tuple(cut(text, data_coding, reference_bits))
    if len(pieces) > 255:
        raise ValueError("more than 255 parts")
    return Plan(data_coding, reference_bits, pieces, tuple([to_octets(piece, data_coding) for piece in pieces]))


class Concat(NamedTuple):
    """Which part of which long message a short message is. Parts sort by number, not by text."""

    reference: int
    total: int
    part: int


def read_header(user_data: bytes) -> tuple[Concat | None, bytes]:
    """Joining information (8- or 16-bit reference) and the data behind the header; never raises.

    A header that lies about its length leaves the data as it came.
    """
    if not user_data or 1 + user_data[0] > len(user_data):
        return None, user_data
    header, rest = user_data[1 : 1 + user_data[0]], user_data[1 + user_data[0] :]
    at = 0
    while at + 2 <= len(header):
        kind, length = header[at], header[at + 1]
        value = header[at + 2 : at + 2 + length]
        at += 2 + length
        if kind == 0x00 and len(value) == 3:
            concat = Concat(value[0], value[1], value[2])
        elif kind == 0x08 and len(value) == 4:
            concat = Concat(value[0] << 8 | value[1], value[2], value[3])
        else:
            continue
        return (concat if 1 <= concat.part <= concat.total else None), rest
    return None, rest


def read_part(message: pdu.Message) -> tuple[Concat | None, bytes]:
    """Which part of what an inbound message is, by its header or by sar_* parameters, and its bare octets."""
    if message.esm_class & pdu.ESM_UDHI:
        return read_header(message.octets)
    tags = (pdu.TAG_SAR_MSG_REF_NUM, pdu.TAG_SAR_TOTAL_SEGMENTS, pdu.TAG_SAR_SEGMENT_SEQNUM)
    reference, total, part = (int.from_bytes(message.tlvs.get(tag, b"")[:2], "big") for tag in tags)
    if 1 <= part <= total and total > 1:
        return Concat(reference, total, part), message.octets
    return None, message.octets


def to_text(octets: bytes, data_coding: int) -> str:
    """Text of user data without its header, for showing and joining; never raises."""
    if data_coding & 0x0C == UCS2:
        return octets.decode("utf-16-be", "replace")
    if data_coding in (1, 3):
        return octets.decode("latin-1")
    return gsm.decode(octets)
