"""Faults reproduced in the SMPP libraries of Python; each has a test, so that ours does not grow them."""

from __future__ import annotations

import asyncio

from plugins.telecom_sms.simulator.journal import taken_id
from plugins.telecom_sms.smpp import pdu, receipt, split
from plugins.telecom_sms.smpp.link import Endpoint, open_bound
from plugins.telecom_sms.smpp.session import Answer, NoAnswer, NotSent, Session, Timing

from .conftest import Carrier
from .support import KEY, MSISDN, until


class Received:
    """Keeps what was delivered."""

    def __init__(self) -> None:
        self.messages: list[pdu.Message] = []

    async def __call__(self, message: pdu.Message) -> None:
        self.messages.append(message)


async def bind(carrier: Carrier, received: Received, window: int = 10) -> Session:
    timing = Timing(window=window, response_timeout_s=2.0)
    endpoint = Endpoint(host="127.0.0.1", port=carrier.port, system_id="demo", password=lambda: "demo", timing=timing)
    return await open_bound(endpoint, received)


async def send(session: Session, text: str, reference: int = 1) -> list[str]:
    """Message ids of the parts, in order."""
    plan = split.plan(text)
    ids = []
    for data in plan.user_data(reference):
        esm_class = pdu.ESM_UDHI if len(plan.pieces) > 1 else 0
        message = pdu.Message(
            source="X",
            destination=MSISDN,
            esm_class=esm_class,
            registered_delivery=1,
            data_coding=plan.data_coding,
            short_message=data,
        )
        answer = await session.submit(message)
        assert isinstance(answer, Answer) and answer.status == 0
        ids.append(answer.message_id)
    return ids


async def test_1_a_receipt_in_an_unusual_format_is_no_outage(carrier: Carrier) -> None:
    """aiosmpplib: 12-digit dates or a text in err drop the session, and the receipt comes again for ever."""
    carrier.smsc.change({"receipt_style": "mixed", "undeliv_share": 0.0})
    received = Received()
    session = await bind(carrier, received)
    ids = [(await send(session, f"tin {number}"))[0] for number in range(20)]
    await until(lambda: carrier.count("receipts_acked") == 20)
    reports = [receipt.parse(message) for message in received.messages]
    policy = receipt.ID_POLICIES["as_is"]
    assert sorted(policy.reference_of(report) for report in reports) == sorted(ids)
    assert {report.state for report in reports} == {"DELIVRD"}
    assert carrier.count("connections") == 1
    await session.close()


async def test_2_a_plain_message_with_sar_parameters_kills_nothing(carrier: Carrier) -> None:
    """aiosmpplib: UnboundLocalError takes the sender task, and with it the client."""
    received = Received()
    session = await bind(carrier, received)
    sar = {0x020C: b"\x00\x07", 0x020E: b"\x02", 0x020F: b"\x01"}
    (peer,) = carrier.smsc.peers
    peer.deliver(pdu.Message(source=MSISDN, destination="X", short_message=b"xin chao", tlvs=sar).encode())
    await until(lambda: received.messages)
    assert (received.messages[0].esm_class, received.messages[0].tlvs[0x020C]) == (0, b"\x00\x07")
    assert await send(session, "still here")
    await session.close()


async def test_3_extension_characters_count_two_and_are_never_cut(carrier: Carrier) -> None:
    """aiosmpplib counts characters: struct.error on 200 brackets, 160 euro signs refused. smpplib cuts the pair."""
    session = await bind(carrier, Received())
    for text, parts in (("[" * 200, 3), ("€" * 160, 3), ("🎉" * 100, 4)):
        assert len(await send(session, text)) == parts
        assert carrier.taken()[-parts:] == [taken_id(KEY, MSISDN, text, part) for part in range(1, parts + 1)]
    await session.close()


def test_4_a_hundred_vietnamese_letters_are_two_messages_that_fit() -> None:
    """aiosmpplib: one short_message of 200 octets, which relies on the carrier to cut it."""
    parts = split.plan("ạ" * 100).user_data(1)
    assert [len(part) for part in parts] == [140, 72]


def test_5_long_inbound_parts_are_read_with_both_references_and_sort_by_number() -> None:
    """aiosmpplib: 16-bit references are lost, ten or more parts joined as 1, 10, 11, 2."""
    text = "Em muốn hỏi về đoàn phí năm nay. " * 24
    for bits in (8, 16):
        plan = split.plan(text, bits)
        assert len(plan.pieces) > 10
        read = [split.read_header(data) for data in reversed(plan.user_data(0x1234))]
        assert {concat.reference for concat, _ in read if concat} == {0x34 if bits == 8 else 0x1234}
        joined = b"".join(rest for _, rest in sorted(read, key=lambda part: part[0] or (0, 0, 0)))
        assert split.to_text(joined, plan.data_coding) == text


async def test_6_early_receipts_and_other_notations_find_their_message(carrier: Carrier) -> None:
    """aiosmpplib delivers them without a message: receipt first, hexadecimal id, parameters only."""
    cases: list[tuple[str, dict[str, object]]] = [
        ("as_is", {"early_receipt_share": 1.0}),
        ("hex_to_dec", {"id_style": "hex_then_dec"}),
        ("dec_to_hex", {"id_style": "dec_then_hex"}),
        ("as_is", {"id_style": "same", "receipt_style": "parameters"}),
    ]
    for name, behaviour in cases:
        carrier.smsc.change(behaviour)
        received, policy = Received(), receipt.ID_POLICIES[name]
        session = await bind(carrier, received)
        (message_id,) = await send(session, "chao")
        await until(lambda: carrier.count("receipts_pending") == 0)
        (message,) = received.messages
        assert policy.reference_of(receipt.parse(message)) == policy.answered(message_id)
        await session.close()


async def test_7_messages_that_await_a_receipt_cost_the_session_nothing(carrier: Carrier) -> None:
    """aiosmpplib scans every pending receipt at each send: 4,798 -> 483 messages/s. Ours keeps none."""
    carrier.smsc.change({"receipt_delay_ms": 3_600_000})
    session = await bind(carrier, Received())
    await asyncio.gather(*(send(session, "chao") for _ in range(500)))
    assert carrier.count("receipts_pending") == 500
    assert session.unanswered == 0
    await session.close()


async def test_8_a_drop_puts_the_window_in_doubt_and_not_the_queue(carrier: Carrier) -> None:
    """aiosmpplib has no window: 30 of 30 written, 11 taken, all 30 in doubt."""
    carrier.smsc.change({"withhold": True})
    session = await bind(carrier, Received(), window=10)
    message = pdu.Message(source="X", destination=MSISDN, short_message=b"chao")
    queue = [asyncio.create_task(session.submit(message)) for _ in range(30)]
    await until(lambda: carrier.count("taken") == 10)
    carrier.smsc.drop()
    replies = await asyncio.gather(*queue)
    assert (replies.count(NoAnswer()), replies.count(NotSent("not_bound"))) == (10, 20)
    assert len(carrier.taken()) == 10
    await session.close()


def test_a_backtick_is_not_a_section_sign_and_neither_costs_more_than_it_must() -> None:
    """smpplib writes the backtick as 0x5f, the section sign, and a real section sign as UCS-2."""
    (backtick,), (section,) = split.plan("`").user_data(1), split.plan("§").user_data(1)
    assert (split.plan("`").data_coding, backtick) == (split.UCS2, b"\x00\x60")
    assert (split.plan("§").data_coding, section) == (split.GSM7, b"\x5f")
