"""query_sm, and the three ways in which a long text can go: golden bytes, smpplib's word, and the simulator's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smpplib import smpp as oracle

from hub.contract import Accepted
from plugins.telecom_sms.simulator import wire
from plugins.telecom_sms.simulator.journal import taken_id
from plugins.telecom_sms.smpp import pdu, split

from .conftest import Carrier
from .support import KEY, MSISDN, ScriptedPeer, shipment, until
from .test_connector import EIGHT_PARTS, opened, opened_to
from .test_pdu import Numbers, oracle_bytes
from .test_split import ANY_TEXT, GSM_TEXT

QUERY = bytes.fromhex(
    "0000002A 00000003 00000000 00000001"
    "313233616200"  # message_id: 123ab
    "0500 434F4E47444F414E2D5448414900"  # source: TON 5, NPI 0, CONGDOAN-THAI
)


# -- query_sm ----------------------------------------------------------------------------------------


def test_a_query_is_these_bytes_and_smpplib_writes_the_same() -> None:
    body = pdu.query_body("123ab", source="CONGDOAN-THAI", source_ton=5, source_npi=0)
    written = pdu.encode(pdu.QUERY_SM, 1, body)
    assert written[4:] == QUERY[4:] and len(written) == int.from_bytes(written[:4], "big")
    theirs = oracle_bytes(
        "query_sm", message_id="123ab", source_addr="CONGDOAN-THAI", source_addr_ton=5, source_addr_npi=0
    )
    assert theirs == written


def test_the_answer_to_a_query_is_read_and_half_an_answer_is_an_error() -> None:
    body = b"77\x00261123070509000+\x00\x02\x00"
    assert pdu.QueryAnswer.decode(body) == ("77", "261123070509000+", 2, 0)
    for end in range(len(body) - 1):
        with pytest.raises(pdu.PduError):
            pdu.QueryAnswer.decode(body[:end])


async def test_a_receipt_that_is_lost_is_asked_for(carrier: Carrier) -> None:
    carrier.smsc.change({"receipt_lose_share": 1.0, "id_style": "hex_then_dec"})
    async with opened(carrier.port, query_after_s=0.2, receipt_ids="hex_to_dec") as running:
        outcome = await running.sink.send(shipment(EIGHT_PARTS))
        await until(lambda: len(running.hub.receipts) == 8)
    assert isinstance(outcome, Accepted)
    assert {receipt.ref for receipt in running.hub.receipts} == set(outcome.refs)
    assert {receipt.state for receipt in running.hub.receipts} == {"delivered"}
    assert carrier.count("queries") == 8


async def test_what_was_reported_is_not_asked_about_and_nothing_is_asked_by_default(carrier: Carrier) -> None:
    async with opened(carrier.port, query_after_s=0.2) as running:
        await running.sink.send(shipment("Chào"))
        await until(lambda: running.hub.receipts)
        carrier.smsc.change({"receipt_lose_share": 1.0})
        await running.sink.send(shipment("Chào hai"))
        await until(lambda: len(running.hub.receipts) == 2)
        assert carrier.count("queries") == 1
    async with opened(carrier.port) as running:
        await running.sink.send(shipment("Chào ba"))
        assert carrier.count("queries") == 1


async def test_a_carrier_that_does_not_know_is_asked_once_and_one_that_cannot_say_yet_again() -> None:
    asked: list[bytes] = []

    async def script(peer: ScriptedPeer) -> None:
        await peer.answer_submit("a1")
        await peer.answer_submit("b2")
        while True:
            command, _, sequence, body = await peer.read()
            if command != wire.QUERY:
                peer.say(command | 0x80000000, 0, sequence)
                continue
            asked.append(body.split(b"\0")[0])
            if asked[-1] == b"b2":
                peer.say(command | 0x80000000, wire.QUERY_FAILED, sequence)
            else:
                enroute_then_failed = 1 if asked.count(b"a1") == 1 else 5
                peer.say(command | 0x80000000, 0, sequence, b"a1\0\0" + bytes((enroute_then_failed, 69)))

    async with opened_to(script, query_after_s=0.1) as running:
        await running.sink.send(shipment("ạ" * 100))
        await until(lambda: running.hub.receipts)
    (receipt,) = running.hub.receipts
    assert (receipt.ref, receipt.state, receipt.reason) == ("a1", "failed", "undeliverable_err_069")
    assert (asked.count(b"a1"), asked.count(b"b2")) == (2, 1)


# -- long texts --------------------------------------------------------------------------------------


def joined(submits: list[wire.Submit]) -> str:
    read = sorted(wire.read_part(submit) for submit in reversed(submits))
    assert {part[1] for part in read} == {len(read)} and [part[2] for part in read] == list(range(1, len(read) + 1))
    return wire.text_of(b"".join(part[3] for part in read), submits[0].coding)


@pytest.mark.parametrize("how", ["udh", "sar", "payload"])
@given(text=st.one_of(GSM_TEXT, ANY_TEXT), reference=st.integers(0, 0xFFFF))
def test_split_then_read_on_the_other_side_is_the_text(how: Any, text: str, reference: int) -> None:
    plan = split.plan(text, 16)
    messages = [
        pdu.Message(
            destination=MSISDN, data_coding=plan.data_coding, short_message=part.short_message,
            esm_class=part.esm_class, tlvs=part.tlvs,
        )
        for part in plan.parts(reference, how)
    ]  # fmt: skip
    assert joined([wire.read_submit(message.encode()) for message in messages]) == text
    # Our own reading of the same, as for inbound messages, in any order.
    read = sorted((split.read_part(message) for message in reversed(messages)), key=lambda part: part[0] or (0, 0, 0))
    assert split.to_text(b"".join(octets for _, octets in read), plan.data_coding) == text


def test_sar_parameters_are_these_bytes_and_smpplib_writes_the_same() -> None:
    first = split.plan("ạ" * 100).parts(0x1234, "sar")[0]
    ours = pdu.Message(destination=MSISDN, data_coding=8, short_message=first.short_message, tlvs=first.tlvs).encode()
    assert ours.endswith(bytes.fromhex("020C 0002 1234  020E 0001 02  020F 0001 01"))
    theirs = oracle_bytes(
        "submit_sm", destination_addr=MSISDN, data_coding=8, short_message=first.short_message,
        sar_msg_ref_num=0x1234, sar_total_segments=2, sar_segment_seqnum=1,
    )  # fmt: skip
    assert theirs[16:] == ours


def test_smpplib_reads_a_payload() -> None:
    (only,) = split.plan("ạ" * 100).parts(1, "payload")
    message = pdu.Message(destination=MSISDN, data_coding=8, short_message=only.short_message, tlvs=only.tlvs)
    read = oracle.parse_pdu(pdu.encode(pdu.SUBMIT_SM, 7, message.encode()), client=Numbers())
    assert (read.sm_length, read.message_payload) == (0, ("ạ" * 100).encode("utf-16-be"))


@pytest.mark.parametrize(("how", "submits"), [("udh", 8), ("sar", 8), ("payload", 1)])
async def test_the_carrier_joins_a_long_text_however_it_wants_it(carrier: Carrier, how: str, submits: int) -> None:
    async with opened(carrier.port, long_messages=how) as running:
        outcome = await running.sink.send(shipment(EIGHT_PARTS))
    assert isinstance(outcome, Accepted) and len(outcome.refs) == submits
    assert carrier.taken() == [taken_id(KEY, MSISDN, EIGHT_PARTS, part) for part in range(1, submits + 1)]


def test_a_short_text_has_neither_header_nor_parameters() -> None:
    for how in ("udh", "sar", "payload"):
        (part,) = split.plan("Chào").parts(7, how)  # type: ignore[arg-type]
        assert part == split.Part(b"Ch\x7fo", 0, {})


# -- several binds, and a carrier that stands still ---------------------------------------------------


async def test_several_binds_share_the_work_and_a_long_text_stays_on_one(carrier: Carrier) -> None:
    async with opened(carrier.port, binds=3, window=2) as running:
        await until(lambda: carrier.count("bound") == 3)
        (destination,) = running.sink.destinations()
        assert destination.concurrency == 6
        parts: dict[str, set[int]] = {}
        taken_by = carrier.smsc.submit

        def noted(peer: Any, sequence: int, submit: wire.Submit) -> None:
            parts.setdefault(submit.phone.decode(), set()).add(id(peer))
            taken_by(peer, sequence, submit)

        carrier.smsc.submit = noted  # type: ignore[method-assign]
        await asyncio.gather(
            *(running.sink.send(shipment(EIGHT_PARTS, address=f"09125551{number:02}")) for number in range(12))
        )
    assert all(len(peers) == 1 for peers in parts.values())
    assert len(set.union(*parts.values())) == 3
    assert len(carrier.taken()) == len(set(carrier.taken())) == 12 * 8


async def test_one_bind_that_is_refused_leaves_the_others_sending(carrier: Carrier) -> None:
    carrier.smsc.change({"bind_limit": 1})
    async with opened(carrier.port, binds=2) as running:
        await until(lambda: carrier.count("binds_refused") >= 1 and carrier.count("bound") == 1)
        assert isinstance(await running.sink.send(shipment("Chào")), Accepted)


async def test_bound_and_nothing_answered_is_a_repair_that_the_next_answer_clears(carrier: Carrier) -> None:
    carrier.smsc.change({"lose_share": 1.0})
    async with opened(carrier.port, stall_after_s=0.2, response_timeout_s=0.6) as running:
        await running.sink.send(shipment("Chào"))
        await until(lambda: "carrier_stalled" in running.context.repairs)
        stalled = [fields for name, fields in running.context.logged if name == "carrier.stalled"]
        assert len(stalled) == 1 and stalled[0]["bound"] is True
        carrier.smsc.change({"lose_share": 0.0})
        assert isinstance(await running.sink.send(shipment("Chào hai")), Accepted)
        await until(lambda: "carrier_stalled" not in running.context.repairs)
        assert "carrier.moving" in [name for name, _ in running.context.logged]


async def test_a_carrier_without_work_is_not_stalled(carrier: Carrier) -> None:
    async with opened(carrier.port, stall_after_s=0.05) as running:
        assert isinstance(await running.sink.send(shipment("Chào")), Accepted)
        await until(lambda: running.hub.receipts)
        # As long as the watch takes to look several times: link checks go by meanwhile.
        for number in range(3):
            assert isinstance(await running.sink.send(shipment(f"Chào {number}")), Accepted)
        assert running.context.repairs == {}
        assert "carrier.stalled" not in [name for name, _ in running.context.logged]
