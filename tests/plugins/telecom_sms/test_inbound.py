"""What phones send us: whole whatever the order of its parts, once, and a refusal where it is one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.contract import ASK_AGAIN, Admit, Cancel, Shipment, UnitOfWork
from hub.errors import Busy, Conflict
from plugins.telecom_sms.inbound import Inbox, Meaning, meaning_of
from plugins.telecom_sms.policy import Gate
from plugins.telecom_sms.smpp import pdu, split

from .support import MSISDN, PHONE, Context, MemoryHub, settings, shipment

LONG = "Thưa công đoàn, công ty em nợ lương 2 tháng [10 và 11], xin hỏi phải làm gì? 🙏 " * 5


class Letterbox:
    """An inbox over a ledger in memory."""

    def __init__(self, **changes: Any) -> None:
        self.hub = MemoryHub()
        self.context = Context(self.hub)
        self.settings = settings(2775, **changes)
        self.inbox = Inbox(self.context.value(), self.settings)

    async def hear(self, text: str, source: str = MSISDN, **more: Any) -> None:
        plan = split.plan(text)
        await self.inbox.take(message(plan.user_data(1)[0], plan.data_coding, source=source, **more))

    def received(self) -> list[dict[str, Any]]:
        return [draft.data for draft in self.hub.drafts if draft.type == "vn.congdoan.sms.received.v1"]

    def texts(self) -> list[str]:
        return [data["text"] for data in self.received()]

    def confirmations(self) -> list[str]:
        return [draft.data["text"] for draft in self.hub.drafts if draft.type == "vn.congdoan.sms.requested.v1"]

    def refusals(self) -> list[tuple[str, str, str]]:
        rows = self.hub.db.execute("SELECT purpose, reason, said FROM telecom_sms_optout ORDER BY purpose").fetchall()
        return [tuple(row) for row in rows]

    async def refused(self, gate: Gate, asked: Shipment) -> str:
        """Begins the message as the hub does; why it may not be sent, or ""."""
        while isinstance(answer := await gate.admit(asked), Admit):
            try:
                await self.hub.commit(UnitOfWork(guards=answer.guards))
            except Conflict as conflict:
                if conflict.otherwise == ASK_AGAIN:
                    continue
                return conflict.otherwise
            return ""
        assert isinstance(answer, Cancel)
        return answer.reason

    def parts_kept(self) -> int:
        return int(self.hub.db.execute("SELECT count(*) FROM telecom_sms_part").fetchone()[0])


def message(octets: bytes, coding: int, *, source: str = MSISDN, esm_class: int = 0, **more: Any) -> pdu.Message:
    return pdu.Message(
        source=source, source_ton=1, destination="8088", esm_class=esm_class, data_coding=coding,
        short_message=octets, **more,
    )  # fmt: skip


def parts_of(text: str, reference: int = 7, bits: int = 8, source: str = MSISDN) -> list[pdu.Message]:
    plan = split.plan(text, bits)
    return [
        message(octets, plan.data_coding, source=source, esm_class=pdu.ESM_UDHI) for octets in plan.user_data(reference)
    ]


# -- whole, whatever the order -------------------------------------------------------------------------


@given(order=st.permutations(range(len(split.plan(LONG).pieces))), again=st.sets(st.integers(0, 5)))
async def test_a_long_message_is_joined_in_any_order_and_parts_that_come_again_add_nothing(
    order: list[int], again: set[int]
) -> None:
    box, parts = Letterbox(), parts_of(LONG)
    for index in order:
        await box.inbox.take(parts[index])
        if index in again:
            await box.inbox.take(parts[index])
    assert box.texts() == [LONG]
    assert box.received()[0]["parts"] == len(parts) and box.received()[0]["complete"]
    for part in parts:
        await box.inbox.take(part)
    assert box.texts() == [LONG], "the carrier repeats what we answered too late"
    assert box.parts_kept() == 0 or len(order) > 1


@pytest.mark.parametrize("bits", [8, 16])
async def test_parts_that_come_at_once_become_one_message(bits: int) -> None:
    box = Letterbox()
    await asyncio.gather(*(box.inbox.take(part) for part in parts_of("ă" * 800, 4711, bits)))
    assert box.texts() == ["ă" * 800] and box.parts_kept() == 0


async def test_parts_joined_by_parameters_are_joined_too() -> None:
    box, plan = Letterbox(), split.plan("Chào " * 40)
    for part in reversed(plan.parts(300, "sar")):
        await box.inbox.take(message(part.short_message, plan.data_coding, tlvs=part.tlvs))
    assert box.texts() == ["Chào " * 40]


async def test_messages_of_two_phones_with_one_reference_are_not_mixed() -> None:
    box = Letterbox()
    mine, theirs = parts_of("a" * 300, 9), parts_of("b" * 300, 9, source="84912555124")
    for part in (mine[1], theirs[0], mine[0], theirs[1]):
        await box.inbox.take(part)
    assert sorted(box.texts()) == ["a" * 300, "b" * 300]


async def test_a_reference_used_again_begins_a_new_message_and_the_old_one_is_kept_with_its_gap() -> None:
    box = Letterbox()
    first, second = parts_of("a" * 450, 9), parts_of("b" * 450, 9)
    for part in (first[0], first[2], *second):
        await box.inbox.take(part)
    assert box.texts() == ["a" * 153 + "[...]" + "a" * 144, "b" * 450]
    assert [data["complete"] for data in box.received()] == [False, True]


async def test_parts_whose_others_never_came_are_kept_with_a_gap_after_a_day() -> None:
    box = Letterbox()
    await box.inbox.take(parts_of("a" * 450)[1])
    box.hub.at += timedelta(hours=23)
    await box.hear("khac")
    assert box.texts() == ["khac"]
    box.hub.at += timedelta(hours=2)
    await box.hear("khac nua")
    assert box.texts() == ["khac", "khac nua", "[...]" + "a" * 153 + "[...]"] and box.parts_kept() == 0


@given(octets=st.binary(max_size=140), coding=st.integers(0, 255), esm_class=st.sampled_from([0, 0x40, 0x43]))
async def test_a_forged_message_is_kept_or_held_and_never_raises(octets: bytes, coding: int, esm_class: int) -> None:
    box = Letterbox()
    await box.inbox.take(message(octets, coding, esm_class=esm_class, source="\x00'; DROP--"))
    assert len(box.texts()) + box.parts_kept() == 1
    assert box.refusals() == [] and box.confirmations() == []


# -- once ------------------------------------------------------------------------------------------------


async def test_the_same_message_again_within_minutes_is_one_and_later_it_is_another() -> None:
    box = Letterbox()
    for minutes in (0, 1, 4, 20):
        box.hub.at += timedelta(minutes=minutes)
        await box.hear("1")
    assert len(box.texts()) == 2


async def test_nothing_is_kept_and_the_carrier_has_to_send_it_again_while_the_ledger_is_busy() -> None:
    box = Letterbox()
    box.hub.busy = True
    with pytest.raises(Busy):
        await box.hear("TU CHOI")
    box.hub.busy = False
    await box.hear("TU CHOI")
    assert len(box.texts()) == 1 and len(box.refusals()) == 1


# -- what it means ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("TU CHOI", Meaning("stop")),
        ("Từ chối", Meaning("stop")),
        (" từ  chối. ", Meaning("stop")),
        ("stop!", Meaning("stop")),
        ("HỦY", Meaning("stop")),
        ("huy qc", Meaning("stop", "advertising")),
        ("TU CHOI CSKH", Meaning("stop", "care")),
        ("TỪ CHỐI ĐH", Meaning("stop", "operations")),
        ("SAI", Meaning("wrong_person")),
        ("sai số", Meaning("wrong_person")),
        ("Nhầm số", Meaning("wrong_person")),
        ("Đồng ý", Meaning("start")),
        ("dong y QC", Meaning("start", "advertising")),
        ("Huy đây, mai họp mấy giờ?", Meaning("")),
        ("Sai rồi, họp ở phòng B", Meaning("")),
        ("Em từ chối ca đêm được không", Meaning("")),
        ("", Meaning("")),
        ("🙏", Meaning("")),
    ],
)
def test_only_a_message_of_nothing_but_the_words_is_a_refusal(text: str, meaning: Meaning) -> None:
    assert meaning_of(text, settings(2775)) == meaning


async def test_a_refusal_is_confirmed_once_a_day_and_nothing_more_is_sent() -> None:
    box = Letterbox()
    for words in ("TU CHOI", "Từ chối", "STOP", "từ chối!"):
        await box.hear(words)
    assert box.refusals() == [("*", "opted_out", "SMS: TU CHOI")]
    assert box.confirmations() == [
        "CONGDOAN: da ghi nhan, tu nay khong nhan tin SMS toi so nay. Nhan lai: soan DONG Y."
    ]
    gate = Gate(box.hub, "carrier", box.settings)
    assert await box.refused(gate, shipment("Chào", purpose="care")) == "opted_out"
    box.hub.at += timedelta(days=1)
    await box.hear("TU CHOI")
    assert len(box.confirmations()) == 2


async def test_the_confirmation_itself_may_go_at_night_to_who_refused_and_to_nobody_else() -> None:
    box = Letterbox()
    box.hub.at += timedelta(hours=10)
    await box.hear("TU CHOI")
    gate = Gate(box.hub, "carrier", box.settings)
    (confirmed,) = [draft for draft in box.hub.drafts if draft.purpose]
    asked = shipment(confirmed.data["text"], address=None, data={"to": confirmed.data["to"]}, purpose=confirmed.purpose)
    assert "Admit" in str(await gate.admit(asked))
    other = shipment("Mua ngay", address="0912555124", purpose="answer")
    assert "not_asked_for" in str(await gate.admit(other))
    box.hub.at += timedelta(days=2)
    assert "not_asked_for" in str(await gate.admit(asked))


async def test_a_wrong_person_is_never_written_to_again_unless_they_ask() -> None:
    box = Letterbox()
    await box.hear("Sai số")
    gate = Gate(box.hub, "carrier", box.settings)
    assert await box.refused(gate, shipment("Chào", purpose="operations")) == "wrong_person"
    await box.hear("DONG Y")
    assert await box.refused(gate, shipment("Chào", purpose="operations")) == ""
    assert box.refusals() == []


async def test_a_refusal_takes_back_consent_and_the_words_for_it_give_it() -> None:
    box = Letterbox()
    await box.hear("DONG Y QC")
    gate = Gate(box.hub, "carrier", box.settings)
    advert = shipment("[QC] Uu dai", purpose="advertising")
    assert "Admit" in str(await gate.admit(advert))
    await box.hear("HUY QC")
    assert "opted_out" in str(await gate.admit(advert))
    assert "Admit" in str(await gate.admit(shipment("Chào", purpose="care")))
    assert box.hub.db.execute("SELECT count(*) FROM telecom_sms_consent").fetchone() == (0,)


async def test_who_cannot_be_written_to_cannot_refuse_for_others_and_gets_no_confirmation() -> None:
    box = Letterbox()
    for source in ("VIETTEL", "1900561252", "+12025550123", ""):
        await box.hear("TU CHOI", source=source)
    assert box.refusals() == [] and box.confirmations() == [] and len(box.texts()) == 4


async def test_what_a_phone_sent_is_an_event_for_handlers_and_a_sealed_row_for_officers() -> None:
    box = Letterbox()
    await box.hear("Hỏi lương tháng 13", source=PHONE)
    (data,) = box.received()
    assert data == {
        "connection": "carrier", "from": MSISDN, "to": "8088", "text": "Hỏi lương tháng 13", "keyword": "HOI",
        "meaning": "", "parts": 1, "complete": True,
    }  # fmt: skip
    (draft,) = box.hub.drafts
    assert draft.subject is not None and MSISDN not in draft.subject
    assert box.hub.db.execute("SELECT keyword, subject FROM telecom_sms_inbox").fetchall() == [("HOI", draft.subject)]
    assert box.context.logged == [("message.received", {"parts": 1, "meaning": "", "octets": 18})]
