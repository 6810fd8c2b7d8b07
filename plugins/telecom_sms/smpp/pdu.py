"""PDUs of SMPP 3.4 as values and bytes: framing, binds, messages and optional parameters.

Source: Short Message Peer-to-Peer Protocol Specification v3.4, issue 1.2, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

# Section 5.1.2.1, command_id. An answer is its request with the highest bit set.
GENERIC_NACK: Final = 0x80000000
BIND_RECEIVER: Final = 0x00000001
BIND_TRANSMITTER: Final = 0x00000002
QUERY_SM: Final = 0x00000003
SUBMIT_SM: Final = 0x00000004
DELIVER_SM: Final = 0x00000005
UNBIND: Final = 0x00000006
BIND_TRANSCEIVER: Final = 0x00000009
ENQUIRE_LINK: Final = 0x00000015
ALERT_NOTIFICATION: Final = 0x00000102
RESPONSE: Final = 0x80000000

# Section 5.1.3, the few command_status values this layer itself gives or reads.
ESME_ROK: Final = 0x00000000
ESME_RINVMSGLEN: Final = 0x00000001
ESME_RINVCMDLEN: Final = 0x00000002
ESME_RINVCMDID: Final = 0x00000003
ESME_RX_T_APPN: Final = 0x00000064
ESME_RQUERYFAIL: Final = 0x00000067

# Section 5.3.2, optional parameters.
TAG_RECEIPTED_MESSAGE_ID: Final = 0x001E
TAG_SAR_MSG_REF_NUM: Final = 0x020C
TAG_SAR_TOTAL_SEGMENTS: Final = 0x020E
TAG_SAR_SEGMENT_SEQNUM: Final = 0x020F
TAG_NETWORK_ERROR_CODE: Final = 0x0423
TAG_MESSAGE_PAYLOAD: Final = 0x0424
TAG_MESSAGE_STATE: Final = 0x0427

INTERFACE_VERSION: Final = 0x34
ESM_UDHI: Final = 0x40
_HEADER: Final = struct.Struct(">IIII")
_TLV: Final = struct.Struct(">HH")
#: The largest honest PDU is a message_payload of 64 KiB with its envelope; a longer claim is noise or an attack.
MAX_PDU_BYTES: Final = 70_000


class PduError(Exception):
    """The bytes are not a PDU; ``status`` is what the peer is told."""

    def __init__(self, status: int) -> None:
        super().__init__(f"not a PDU: command_status 0x{status:08X}")
        self.status = status


class Pdu(NamedTuple):
    command: int
    status: int
    sequence: int
    body: bytes


def encode(command: int, sequence: int, body: bytes = b"", status: int = ESME_ROK) -> bytes:
    return _HEADER.pack(16 + len(body), command, status, sequence) + body


class Framer:
    """Cuts a byte stream into PDUs. After ``PduError`` the stream cannot be read any further."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Pdu]:
        """Every PDU complete so far; raises ``PduError`` on a length no PDU can have."""
        buffer = self._buffer
        buffer += data
        offset = 0
        try:
            while len(buffer) - offset >= 16:
                length, command, status, sequence = _HEADER.unpack_from(buffer, offset)
                if not 16 <= length <= MAX_PDU_BYTES:
                    raise PduError(ESME_RINVCMDLEN)
                if len(buffer) - offset < length:
                    return
                body = bytes(buffer[offset + 16 : offset + length])
                offset += length
                yield Pdu(command, status, sequence, body)
        finally:
            del buffer[:offset]


def c_string(value: str, most: int) -> bytes:
    """A C-octet string of at most ``most`` octets with its NUL; raises ``ValueError`` on what cannot be one."""
    if not value.isascii() or len(value) >= most or "\0" in value:
        raise ValueError(f"not a C-octet string of at most {most - 1} characters")
    return value.encode("ascii") + b"\0"


class Reader:
    """Takes fields off a body, in order; raises ``PduError`` when the body ends too early."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def octet(self) -> int:
        return self.octets(1)[0]

    def octets(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._body):
            raise PduError(ESME_RINVCMDLEN)
        taken = self._body[self._at : end]
        self._at = end
        return taken

    def c_string(self) -> str:
        """Up to the next NUL. Odd octets are shown escaped, because a peer's mistake must not stop us."""
        end = self._body.find(b"\0", self._at)
        if end < 0:
            raise PduError(ESME_RINVCMDLEN)
        taken = self._body[self._at : end]
        self._at = end + 1
        return taken.decode("ascii", "backslashreplace")

    def tlvs(self) -> dict[int, bytes]:
        """Optional parameters to the end; a repeated tag keeps its first value, a cut-off last one is left out."""
        found: dict[int, bytes] = {}
        while self._at + 4 <= len(self._body):
            tag, length = _TLV.unpack_from(self._body, self._at)
            if self._at + 4 + length > len(self._body):
                break
            found.setdefault(tag, self._body[self._at + 4 : self._at + 4 + length])
            self._at += 4 + length
        return found


def encode_tlvs(tlvs: Mapping[int, bytes]) -> bytes:
    return b"".join(_TLV.pack(tag, len(value)) + value for tag, value in tlvs.items())


def bind_body(system_id: str, password: str, *, system_type: str = "", address_range: str = "") -> bytes:
    """Body of every bind request. Source: section 4.1. Passwords over 8 octets are common, so 64 are let through."""
    return (
        c_string(system_id, 16)
        + c_string(password, 65)
        + c_string(system_type, 13)
        + bytes((INTERFACE_VERSION, 0, 0))
        + c_string(address_range, 41)
    )


def query_body(message_id: str, *, source: str, source_ton: int, source_npi: int) -> bytes:
    """Body of query_sm; the source must be that of the submit. Source: section 4.8.1."""
    return c_string(message_id, 65) + bytes((source_ton, source_npi)) + c_string(source, 21)


class QueryAnswer(NamedTuple):
    """Body of query_sm_resp; ``state`` is a message_state number. Source: section 4.8.2."""

    message_id: str
    final_date: str
    state: int
    error: int

    @classmethod
    def decode(cls, body: bytes) -> QueryAnswer:
        """Raises ``PduError``."""
        reader = Reader(body)
        return cls(reader.c_string(), reader.c_string(), reader.octet(), reader.octet())


def bare_string(body: bytes) -> str:
    """The leading C-octet string of an answer (message_id, system_id); "" when an error answer has no body."""
    return body.split(b"\0", 1)[0].decode("ascii", "backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Body of submit_sm and deliver_sm, which share one layout. Source: sections 4.4.1 and 4.6.1."""

    source: str = ""
    source_ton: int = 0
    source_npi: int = 0
    destination: str = ""
    destination_ton: int = 0
    destination_npi: int = 0
    service_type: str = ""
    esm_class: int = 0
    protocol_id: int = 0
    priority: int = 0
    schedule: str = ""
    validity: str = ""
    registered_delivery: int = 0
    replace_if_present: int = 0
    data_coding: int = 0
    default_message_id: int = 0
    short_message: bytes = b""
    tlvs: Mapping[int, bytes] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Raises ``ValueError`` when a field does not fit its place on the wire."""
        if len(self.short_message) > 254:
            raise ValueError("short_message holds at most 254 octets")
        return b"".join(
            (
                c_string(self.service_type, 6),
                bytes((self.source_ton, self.source_npi)),
                c_string(self.source, 21),
                bytes((self.destination_ton, self.destination_npi)),
                c_string(self.destination, 21),
                bytes((self.esm_class, self.protocol_id, self.priority)),
                c_string(self.schedule, 17),
                c_string(self.validity, 17),
                bytes((self.registered_delivery, self.replace_if_present, self.data_coding)),
                bytes((self.default_message_id, len(self.short_message))),
                self.short_message,
                encode_tlvs(self.tlvs),
            )
        )

    @classmethod
    def decode(cls, body: bytes) -> Message:
        """Raises ``PduError``; reads addresses and times of any length, because peers send them."""
        reader = Reader(body)
        service_type = reader.c_string()
        source_ton, source_npi, source = reader.octet(), reader.octet(), reader.c_string()
        destination_ton, destination_npi, destination = reader.octet(), reader.octet(), reader.c_string()
        esm_class, protocol_id, priority = reader.octets(3)
        schedule, validity = reader.c_string(), reader.c_string()
        registered, replace, coding, default_id, length = reader.octets(5)
        return cls(
            service_type=service_type, source_ton=source_ton, source_npi=source_npi, source=source,
            destination_ton=destination_ton, destination_npi=destination_npi, destination=destination,
            esm_class=esm_class, protocol_id=protocol_id, priority=priority, schedule=schedule, validity=validity,
            registered_delivery=registered, replace_if_present=replace, data_coding=coding,
            default_message_id=default_id, short_message=reader.octets(length), tlvs=reader.tlvs(),
        )  # fmt: skip

    @property
    def octets(self) -> bytes:
        """The user data, wherever the peer put it (short_message or the message_payload parameter)."""
        return self.short_message or self.tlvs.get(TAG_MESSAGE_PAYLOAD, b"")
