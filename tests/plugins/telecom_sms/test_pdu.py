"""PDUs against bytes written by hand, against smpplib, and against noise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smpplib import smpp as oracle

from plugins.telecom_sms.smpp import pdu

# The bind of SMPP 3.4 section 3.2.3 (system_id SMPP3TEST, password secret08, system_type SUBMIT1).
SPECIFICATION_BIND = bytes.fromhex(
    "0000002F000000020000000000000001534D5050335445535400736563726574303800535542 4D495431 00 00 01 01 00"
)

SUBMIT = pdu.Message(
    source="CONGDOAN",
    source_ton=5,
    destination="84912555123",
    destination_ton=1,
    destination_npi=1,
    registered_delivery=1,
    data_coding=8,
    short_message="Chào".encode("utf-16-be"),
)
SUBMIT_HEX = (
    "00"  # service_type
    "0500 434F4E47444F414E00"  # source: TON 5, NPI 0, CONGDOAN
    "0101 383439313235353531323300"  # destination: TON 1, NPI 1, 84912555123
    "00 00 00"  # esm_class, protocol_id, priority
    "00 00"  # schedule, validity
    "01 00 08 00"  # receipt wanted, do not replace, UCS-2, no canned message
    "08 00430068 00E0006F"  # 8 octets: Chào
)


class Numbers:
    """What smpplib wants of a client when it writes a PDU."""

    sequence = 1

    def next_sequence(self) -> int:
        return 1


def oracle_bytes(command: str, **fields: Any) -> bytes:
    generated: bytes = oracle.make_pdu(command, client=Numbers(), **fields).generate()
    return generated


def one(data: bytes) -> pdu.Pdu:
    (found,) = pdu.Framer().feed(data)
    return found


def test_a_submit_is_these_bytes() -> None:
    assert SUBMIT.encode() == bytes.fromhex(SUBMIT_HEX)


def test_an_enquire_link_is_sixteen_octets() -> None:
    assert pdu.encode(pdu.ENQUIRE_LINK, 1) == bytes.fromhex("00000010 00000015 00000000 00000001")


def test_the_bind_begins_like_the_specifications_example() -> None:
    body = pdu.bind_body("SMPP3TEST", "secret08", system_type="SUBMIT1")
    assert one(SPECIFICATION_BIND).command == pdu.BIND_TRANSMITTER
    assert one(SPECIFICATION_BIND).body[:-4] == body[:-4]


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (pdu.BIND_TRANSCEIVER, "bind_transceiver"),
        (pdu.BIND_RECEIVER, "bind_receiver"),
        (pdu.BIND_TRANSMITTER, "bind_transmitter"),
    ],
)
def test_smpplib_writes_the_same_bind(ours: int, name: str) -> None:
    theirs = oracle_bytes(name, system_id="demo", password="secret", system_type="cp", interface_version=0x34)
    assert one(theirs).command == ours
    assert one(theirs).body == pdu.bind_body("demo", "secret", system_type="cp")


def test_smpplib_writes_the_same_submit() -> None:
    theirs = oracle_bytes(
        "submit_sm", source_addr="CONGDOAN", source_addr_ton=5, source_addr_npi=0, destination_addr="84912555123",
        dest_addr_ton=1, dest_addr_npi=1, registered_delivery=1, data_coding=8, esm_class=0x40,
        short_message=b"\x05\x00\x03\x07\x02\x01\x00a",
    )  # fmt: skip
    ours = pdu.Message(
        source="CONGDOAN", source_ton=5, destination="84912555123", destination_ton=1, destination_npi=1,
        registered_delivery=1, data_coding=8, esm_class=0x40, short_message=b"\x05\x00\x03\x07\x02\x01\x00a",
    )  # fmt: skip
    assert one(theirs).body == ours.encode()


def test_smpplib_reads_our_submit() -> None:
    read = oracle.parse_pdu(pdu.encode(pdu.SUBMIT_SM, 7, SUBMIT.encode()), client=Numbers())
    assert (read.sequence, read.source_addr, read.destination_addr) == (7, b"CONGDOAN", b"84912555123")
    assert (read.data_coding, read.short_message) == (8, "Chào".encode("utf-16-be"))


@pytest.mark.parametrize(("command", "name"), [(pdu.ENQUIRE_LINK, "enquire_link"), (pdu.UNBIND, "unbind")])
def test_smpplib_writes_the_same_bare_pdus(command: int, name: str) -> None:
    assert oracle_bytes(name) == pdu.encode(command, 1)


@given(
    source=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
    octets=st.binary(max_size=254),
    coding=st.integers(0, 255),
    tlvs=st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=300), max_size=4),
)
def test_a_message_reads_back_as_it_was(source: str, octets: bytes, coding: int, tlvs: dict[int, bytes]) -> None:
    message = pdu.Message(source=source, destination="84912555123", data_coding=coding, short_message=octets, tlvs=tlvs)
    assert pdu.Message.decode(message.encode()) == message


@given(st.lists(st.binary(max_size=60), max_size=5), st.integers(1, 7))
def test_a_stream_is_cut_at_the_same_places_however_it_arrives(bodies: list[bytes], step: int) -> None:
    stream = b"".join(pdu.encode(pdu.DELIVER_SM, number, body) for number, body in enumerate(bodies))
    framer = pdu.Framer()
    found = [piece for at in range(0, len(stream), step) for piece in framer.feed(stream[at : at + step])]
    assert [piece.body for piece in found] == bodies


@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_pdu_errors(noise: bytes) -> None:
    for read in (lambda: list(pdu.Framer().feed(noise)), lambda: pdu.Message.decode(noise)):
        try:
            read()
        except pdu.PduError as error:
            assert error.status


@pytest.mark.parametrize("length", [0, 15, pdu.MAX_PDU_BYTES + 1, 0xFFFFFFFF])
def test_a_length_no_pdu_has_is_refused_at_once(length: int) -> None:
    with pytest.raises(pdu.PduError):
        list(pdu.Framer().feed(length.to_bytes(4, "big") + bytes(12)))


@pytest.mark.parametrize(("value", "most"), [("toolong", 7), ("ký", 10), ("a\0b", 10)])
def test_what_is_no_c_string_is_refused_without_showing_it(value: str, most: int) -> None:
    with pytest.raises(ValueError, match="C-octet") as raised:
        pdu.c_string(value, most)
    assert value not in str(raised.value)


def test_a_parameter_that_is_cut_off_is_left_out() -> None:
    whole = pdu.encode_tlvs({0x001E: b"42\0"})
    assert pdu.Reader(whole + b"\x04\x27\x00\x05\x02").tlvs() == {0x001E: b"42\0"}
