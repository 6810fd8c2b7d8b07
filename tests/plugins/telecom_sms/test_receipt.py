"""Receipts in every shape carriers send them."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.telecom_sms.codes import RECEIPT_STATES
from plugins.telecom_sms.smpp import pdu, receipt
from plugins.telecom_sms.smpp.receipt import ID_POLICIES, DeliveryReport


def read(text: bytes = b"", tlvs: dict[int, bytes] | None = None, data_coding: int = 0) -> DeliveryReport:
    return receipt.parse(pdu.Message(esm_class=4, short_message=text, tlvs=tlvs or {}, data_coding=data_coding))


PLAIN = (
    b"id:0123456789 sub:001 dlvrd:001 submit date:2611230705 done date:2611230706 stat:DELIVRD err:000 text:Cong doan"
)


def test_the_specifications_own_format() -> None:
    assert read(PLAIN) == DeliveryReport("0123456789", "", "DELIVRD", "000", "2611230706")


def test_fields_may_stand_in_any_order() -> None:
    fields = [
        b"id:77", b"sub:001", b"dlvrd:001", b"submit date:2611230705", b"done date:261123070659", b"stat:UNDELIV",
        b"err:069", b"text:abc",
    ]  # fmt: skip
    expected = DeliveryReport("77", "", "UNDELIV", "069", "261123070659")
    orders = itertools.permutations(fields)
    for order in random.Random(7).sample(list(itertools.islice(orders, 0, 40320, 17)), 400):
        assert read(b" ".join(order)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"id:9 stat:DELIVRD done date:yesterday err:E_ABS", DeliveryReport("9", "", "DELIVRD", "E_ABS", "")),
        (b"ID:9 Stat:delivrd Done_Date:2611230706", DeliveryReport("9", "", "DELIVRD", "", "2611230706")),
        (b"id: 9 stat: EXPIRED err: 5", DeliveryReport("9", "", "EXPIRED", "5", "")),
        (b"id:9 stat:DELIVERED", DeliveryReport("9", "", "DELIVRD", "", "")),
        (b"id:9 stat: err:000", DeliveryReport("9", "", "UNKNOWN", "000", "")),
        (b"id: stat:DELIVRD", DeliveryReport("", "", "DELIVRD", "", "")),
        (b"id:9 stat:WHATEVER", DeliveryReport("9", "", "UNKNOWN", "", "")),
        (b"id:\xff\xfe9", DeliveryReport("\\xff\\xfe9", "", "UNKNOWN", "", "")),
        (b"", DeliveryReport("", "", "UNKNOWN", "", "")),
    ],
)
def test_odd_texts_are_read_as_far_as_they_go(text: bytes, expected: DeliveryReport) -> None:
    assert read(text) == expected


def test_the_quoted_message_cannot_overrule_the_receipt() -> None:
    quoted = b"id:9 sub:001 stat:UNDELIV err:001 text:id:1 stat:DELIVRD"
    assert read(quoted) == DeliveryReport("9", "", "UNDELIV", "001", "")


def test_parameters_alone_are_enough_and_come_first() -> None:
    tlvs = {pdu.TAG_RECEIPTED_MESSAGE_ID: b"A1\0", pdu.TAG_MESSAGE_STATE: b"\x02"}
    assert read(tlvs=tlvs) == DeliveryReport("", "A1", "DELIVRD", "", "")
    assert read(b"id:161 stat:ENROUTE", tlvs) == DeliveryReport("161", "A1", "DELIVRD", "", "")


def test_a_receipt_in_ucs2_or_in_the_payload_is_read() -> None:
    assert read(PLAIN.decode().encode("utf-16-be"), data_coding=8).text_id == "0123456789"
    assert read(tlvs={pdu.TAG_MESSAGE_PAYLOAD: PLAIN}).state == "DELIVRD"


@given(st.binary(max_size=300), st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=40), max_size=4))
def test_nothing_a_peer_sends_makes_it_raise(text: bytes, tlvs: dict[int, bytes]) -> None:
    tags = {pdu.TAG_RECEIPTED_MESSAGE_ID: text[:20], pdu.TAG_MESSAGE_STATE: text[:1]} | tlvs
    for coding, esm_class in ((0, 4), (8, 0x44)):
        report = receipt.parse(
            pdu.Message(esm_class=esm_class, data_coding=coding, short_message=text[:254], tlvs=tags)
        )
        assert report.state in RECEIPT_STATES
        for policy in ID_POLICIES.values():
            assert isinstance(policy.reference_of(report), str)


def test_a_phone_cannot_forge_a_receipt_by_its_text() -> None:
    assert not receipt.is_receipt(pdu.Message(esm_class=0, short_message=PLAIN))
    assert not receipt.is_receipt(pdu.Message(esm_class=0x40, short_message=PLAIN))
    assert receipt.is_receipt(pdu.Message(esm_class=4))
    assert receipt.is_receipt(pdu.Message(esm_class=0, tlvs={pdu.TAG_RECEIPTED_MESSAGE_ID: b"1\0"}))


@pytest.mark.parametrize(
    ("policy", "answered", "receipted"),
    [
        ("as_is", "00AbC", "00AbC"),
        ("hex_to_dec", "1A2F", "0000006703"),
        ("hex_to_dec", "0x-odd", "0x-odd"),
        ("dec_to_hex", "6703", "00001A2F"),
        ("casefold", "AbCd", "aBcD"),
        ("strip_zeros", "0000123", "123"),
        ("strip_zeros", "0", "000"),
    ],
)
def test_an_id_policy_brings_both_notations_together(policy: str, answered: str, receipted: str) -> None:
    chosen = ID_POLICIES[policy]
    stored = chosen.answered(answered)
    assert chosen.reference_of(read(b"id:%s stat:DELIVRD" % receipted.encode())) == stored
    # The parameter repeats the answer's own notation, whatever the text does.
    by_parameter = read(b"id:1", {pdu.TAG_RECEIPTED_MESSAGE_ID: answered.encode() + b"\0"})
    assert chosen.reference_of(by_parameter) == stored
