"""Whether a message may leave now: law, contract, the person's own word, and limits, each with its own reason."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hub.contract import ASK_AGAIN, Admission, Admit, Cancel, Hold, Shipment, UnitOfWork
from hub.errors import Conflict
from hub.model import new_id, to_us
from hub.sql import Statement
from plugins.telecom_sms import tables
from plugins.telecom_sms.policy import Gate, opens_at
from plugins.telecom_sms.rules import RULES, ClassRule, Price, RegisteredText
from plugins.telecom_sms.settings import SmsSettings

from .support import MSISDN, PHONE, MemoryHub, settings, shipment

HERE = ZoneInfo("Asia/Ho_Chi_Minh")
ADVERT = "[QC] Uu dai cho doan vien"


def local(hour: int, minute: int = 0, day: int = 23) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=HERE).astimezone(UTC)


class Door:
    """A gate over a ledger in memory."""

    def __init__(self, **changes: Any) -> None:
        self.hub = MemoryHub()
        self.settings: SmsSettings = settings(2775, **changes)
        self.gate = Gate(self.hub, "carrier", self.settings)

    @property
    def phone_hash(self) -> bytes:
        return self.hub.keyed_hash("phone", MSISDN)

    async def write(self, *statements: Any) -> None:
        await self.hub.commit(UnitOfWork(statements=statements))

    async def opts_out(self, purpose: str = "*", reason: str = "opted_out") -> None:
        values = {"phone_hash": self.phone_hash, "purpose": purpose, "reason": reason, "said": "STOP", "since": 1}
        await self.write(tables.OPT_OUT(**values, phone=b""))

    async def consents(self) -> None:
        values = {"phone_hash": self.phone_hash, "purpose": "advertising", "evidence": "phieu 12", "since": 1}
        await self.write(tables.CONSENT(**values))

    async def ask(self, text: str = "Chào anh", purpose: str = "care", **more: Any) -> str:
        return await self.ask_about(shipment(text, purpose=purpose, **more))

    async def ask_about(self, asked: Shipment) -> str:
        """What happens to the message: sent, or the reason, with the local time until which it is held."""
        while True:
            answer = await self.gate.admit(asked)
            if isinstance(answer, Cancel):
                return answer.reason
            if isinstance(answer, Hold):
                return f"{answer.reason} {answer.until.astimezone(HERE):%d %H:%M}"
            refused = await self.start(asked, answer)
            if refused != ASK_AGAIN:
                return refused or "sent"

    async def start(self, asked: Shipment, answer: Admission) -> str:
        """Commits what the message was admitted by, as the hub does; answers why that failed, or ""."""
        assert isinstance(answer, Admit)
        try:
            await self.hub.commit(UnitOfWork(guards=answer.guards))
        except Conflict as conflict:
            return conflict.otherwise
        self.gate.begun(asked)
        return ""


# -- classes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purpose", "text", "changes", "answer"),
    [
        ("care", "Chào anh", {}, "sent"),
        ("", "Chào anh", {}, "sent"),
        ("operations", "Mai hop", {}, "sent"),
        ("gossip", "Chào anh", {}, "class_unknown"),
        ("advertising", "Uu dai", {}, "label_missing"),
        ("advertising", "Uu dai [QC]", {}, "label_missing"),
        ("advertising", ADVERT, {"sender": "0912000000"}, "brandname_required"),
        ("advertising", ADVERT, {}, "no_consent"),
        ("advertising", "[QC] " + "a" * 415, {}, "sms_too_long"),
        ("advertising", "[QC] " + "a" * 414, {}, "no_consent"),
        ("care", "a" * 1530, {}, "sent"),
        ("care", "a" * 1531, {}, "sms_too_long"),
        ("care", "x" * 10_000, {}, "sms_too_long"),
    ],
)
async def test_a_class_of_messages_has_its_own_rules(
    purpose: str, text: str, changes: dict[str, Any], answer: str
) -> None:
    assert await Door(**changes).ask(text, purpose) == answer


async def test_what_an_event_does_not_call_anything_is_of_the_connections_class() -> None:
    door = Door(default_purpose="advertising")
    assert await door.ask("Chào anh", "") == "label_missing"


async def test_advertising_needs_consent_and_a_number_that_is_on_no_list() -> None:
    door = Door()
    assert await door.ask(ADVERT, "advertising") == "no_consent"
    await door.consents()
    assert await door.ask(ADVERT, "advertising") == "sent"
    await door.write(tables.LIST_DO_NOT_CALL(phone_hash=door.phone_hash, listed_at=1))
    assert await door.ask(ADVERT, "advertising") == "do_not_call"
    assert await door.ask("Chào anh", "care") == "sent"


# -- the person's own word ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused", "reason", "purpose", "answer"),
    [
        ("*", "opted_out", "care", "opted_out"),
        ("*", "wrong_person", "operations", "wrong_person"),
        ("advertising", "opted_out", "care", "sent"),
        ("care", "opted_out", "care", "opted_out"),
        ("care", "opted_out", "operations", "sent"),
    ],
)
async def test_who_refused_a_class_is_not_written_to(refused: str, reason: str, purpose: str, answer: str) -> None:
    door = Door()
    await door.opts_out(refused, reason)
    assert await door.ask(purpose=purpose) == answer


async def test_a_refusal_between_asking_and_sending_still_counts() -> None:
    door, asked = Door(), shipment("Chào", purpose="care")
    unlooked = await door.gate.admit(asked)
    looked = await door.gate.admit(asked)
    await door.opts_out()
    assert await door.start(asked, unlooked) == ASK_AGAIN
    assert await door.start(asked, looked) == "opted_out"
    assert await door.ask_about(asked) == "opted_out"


async def test_a_message_nothing_speaks_against_costs_no_look_at_the_ledger() -> None:
    door = Door()
    looks = 0
    fetch = door.hub.fetch

    async def counted(statement: Statement) -> list[tuple[Any, ...]]:
        nonlocal looks
        looks += 1
        return await fetch(statement)

    door.hub.fetch = counted  # type: ignore[method-assign]
    assert await door.ask(address="0912555124") == "sent"
    assert looks == 0
    await door.opts_out()
    # What was let through in vain is asked about once more, and then looked at.
    assert await door.ask(address=PHONE) == "opted_out"
    assert looks == 1


# -- hours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("purpose", "at", "answer"),
    [
        ("care", local(6, 59), "quiet_hours 23 07:00"),
        ("care", local(7), "sent"),
        ("care", local(21, 54), "sent"),
        ("care", local(21, 55), "quiet_hours 24 07:00"),
        ("care", local(23), "quiet_hours 24 07:00"),
        ("operations", local(6), "sent"),
        ("operations", local(22, 24), "sent"),
        ("operations", local(22, 25), "quiet_hours 24 06:00"),
        ("care", local(0, 30), "quiet_hours 23 07:00"),
    ],
)
async def test_nothing_rings_at_night(purpose: str, at: datetime, answer: str) -> None:
    door = Door()
    door.hub.at = at
    assert await door.ask(purpose=purpose) == answer


async def test_an_override_lets_one_sending_through_the_night_but_never_advertising() -> None:
    door = Door()
    door.hub.at = local(23)
    await door.consents()
    batch = new_id()
    given = {"campaign": batch.bytes, "reason": "bão số 9", "asked_by": "operator", "given_at": 1}
    await door.write(tables.OVERRIDE(**given))
    assert await door.ask(batch_id=batch) == "sent"
    assert await door.ask(batch_id=new_id()) == "quiet_hours 24 07:00"
    assert await door.ask(ADVERT, "advertising", batch_id=batch) == "quiet_hours 24 07:00"


@given(st.integers(0, 366 * 86_400), st.integers(0, 60))
def test_whatever_the_time_a_held_message_goes_within_a_day_and_within_the_hours(second: int, margin: int) -> None:
    at = local(0) + timedelta(seconds=second)
    for rule in RULES:
        until = opens_at(rule, at, margin)
        assert until is None or at < until <= at + timedelta(days=1)
        assert opens_at(rule, until or at, margin) is None


# -- limits ------------------------------------------------------------------------------------------


async def test_the_fourth_advertisement_of_a_day_waits_until_the_first_is_a_day_old() -> None:
    door = Door()
    await door.consents()
    for hour in (8, 10, 12):
        door.hub.at = local(hour)
        assert await door.ask(ADVERT, "advertising") == "sent"
    door.hub.at = local(14)
    assert await door.ask(ADVERT, "advertising") == "daily_limit 24 08:00"
    assert await door.ask("Chào anh", "care") == "sent"
    door.hub.at = local(8, 1, day=24)
    assert await door.ask(ADVERT, "advertising") == "sent"


async def test_one_number_a_hundred_times_is_five_messages_an_hour() -> None:
    door = Door()
    answers = []
    for n in range(100):
        door.hub.at = local(9) + timedelta(seconds=3 * n)
        answers.append(await door.ask())
    assert answers[:5] == ["sent"] * 5
    assert {answer.split()[0] for answer in answers[5:]} == {"number_limit"}


async def test_those_that_start_at_the_same_moment_count_too() -> None:
    door = Door(per_number_hour=2)
    asked = [await door.gate.admit(shipment("Chào", purpose="care")) for _ in range(4)]
    assert [type(answer) for answer in asked] == [Admit, Admit, Hold, Hold]
    assert isinstance(asked[2], Hold) and asked[2].until - door.hub.at <= timedelta(seconds=2)


async def test_two_nodes_that_start_at_the_same_moment_keep_the_limit() -> None:
    door = Door(per_number_hour=1)
    other = Gate(door.hub, "carrier", door.settings)
    asked = [shipment("Chào", purpose="care") for _ in range(2)]
    first, second = await door.gate.admit(asked[0]), await other.admit(asked[1])
    assert await door.start(asked[0], first) == ""
    assert await door.start(asked[1], second) == ASK_AGAIN
    door.gate = other
    assert (await door.ask_about(asked[1])).split()[0] == "number_limit"


async def test_a_message_that_is_tried_again_is_counted_once() -> None:
    door = Door(per_number_hour=1, per_prefix_hour=1)
    again = shipment("Chào", purpose="care")
    for n in range(5):
        door.hub.at = local(9) + timedelta(seconds=3 * n)
        assert await door.ask_about(again) == "sent"
    assert (await door.ask()).split()[0] == "number_limit"
    assert (await door.ask(address="0912555124")).split()[0] == "prefix_limit"


async def test_a_block_of_numbers_gets_so_many_an_hour() -> None:
    door = Door(per_prefix_hour=10)
    door.hub.at = local(9, 20)
    answers = [await door.ask(address=f"0912555{n:03}") for n in range(15)]
    assert answers == ["sent"] * 10 + ["prefix_limit 23 10:00"] * 5
    assert await door.ask(address="0912666001") == "sent"
    door.hub.at = local(10)
    assert await door.ask(address="0912555999") == "sent"


# -- numbers, lists, batches -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("+12025550123", "country_not_allowed"),
        ("1900561252", "number_premium"),
        ("8788", "number_premium"),
        ("0208 385 5123", "address_invalid"),
        ("0512555123", "address_invalid"),
        ("0162 855 5123", "sent"),
        ("nobody", "address_invalid"),
        (None, "no_address"),
    ],
)
async def test_only_mobile_numbers_of_allowed_countries_are_reached(address: str | None, answer: str) -> None:
    assert await Door().ask(address=address) == answer


async def test_a_country_is_reached_when_the_settings_name_it() -> None:
    assert await Door(countries=("VN", "LA")).ask(address="+8562055512345") == "sent"
    assert await Door(countries=("LA",)).ask(address=PHONE) == "country_not_allowed"


async def test_for_trying_out_only_the_numbers_of_the_list_are_reached() -> None:
    door = Door(only_to=("0912 555 123",))
    assert await door.ask() == "sent"
    assert await door.ask(address="0912555124") == "not_on_list"


async def test_an_event_without_a_recipient_names_its_phone_itself() -> None:
    door = Door()
    assert await door.ask(address=None, data={"to": PHONE}) == "sent"
    assert await door.ask(address=None, data={"to": 5}) == "no_address"
    row = door.hub.db.execute("SELECT phone_hash FROM telecom_sms_sent").fetchall()
    assert row == [(door.phone_hash,)]


async def opened(door: Door, batch: UUID, **changes: Any) -> None:
    values = {
        "id": batch.bytes, "name": "tet", "purpose": "care", "template": "", "asked_by": "operator", "test": 0,
        "send_at": 0, "created_at": 1, "fingerprint": b"",
    }  # fmt: skip
    await door.write(tables.OPEN_BATCH(**{**values, **changes}))


async def test_a_scheduled_batch_waits_for_its_time_and_a_test_batch_reaches_nobody() -> None:
    door, batch = Door(), new_id()
    await opened(door, batch, send_at=to_us(local(18)))
    assert await door.ask(batch_id=batch) == "scheduled 23 18:00"
    door.hub.at = local(18)
    assert await door.ask(batch_id=batch) == "sent"
    await opened(door, other := new_id(), name="thu", test=1)
    assert await door.ask(batch_id=other) == "simulated"


async def test_a_paused_batch_is_asked_about_ever_less_often_but_every_ten_minutes() -> None:
    door, batch = Door(), new_id()
    await opened(door, batch)
    await door.write(tables.PAUSE_BATCH(name="tet", paused_at=to_us(door.hub.at)))
    waits = []
    for minutes in (0, 1, 5, 600):
        door.hub.at += timedelta(minutes=minutes)
        asked = shipment("Chào", purpose="care", batch_id=batch)
        assert await door.start(asked, await door.gate.admit(asked)) == ASK_AGAIN
        answer = await door.gate.admit(asked)
        assert isinstance(answer, Hold) and answer.reason == "batch_paused"
        waits.append((answer.until - door.hub.at).total_seconds())
        if minutes == 5:
            door.hub.at = local(9, day=24) - timedelta(minutes=600)
    assert waits == [1, 60, 360, 600]
    await door.write(tables.RESUME_BATCH(name="tet"))
    assert await door.ask(batch_id=batch) == "sent"


async def test_a_text_has_to_be_one_the_carrier_has_on_file_whatever_its_accents() -> None:
    on_file = RegisteredText(
        purpose="care", text="LDLD Thai Nguyen moi {ten} du {viec}. Lien he 0208.", since=date(2026, 1, 1), source="x"
    )
    door = Door(registered_texts=(on_file,))
    assert await door.ask("LĐLĐ Thái Nguyên mời anh Nam dự hội nghị. Liên hệ 0208.") == "sent"
    assert await door.ask("LDLD Thai Nguyen moi anh Nam.") == "template_not_registered"
    assert await door.ask("Khac han") == "template_not_registered"
    assert await door.ask("Khac han", "operations") == "sent"


# -- figures are dated ---------------------------------------------------------------------------------


async def test_a_rule_counts_from_its_day_on() -> None:
    later = ClassRule(
        purpose="care", since=date(2026, 12, 1), source="x", hours_from=time(8), hours_to=time(20)
    )  # fmt: skip
    now = ClassRule(purpose="care", since=date(2020, 1, 1), source="x", hours_from=time(5), hours_to=time(23))
    door = Door(rules=(later, now))
    door.hub.at = local(5)
    assert await door.ask() == "sent"
    door.hub.at = datetime(2026, 12, 1, 5, tzinfo=HERE).astimezone(UTC)
    assert await door.ask() == "quiet_hours 01 08:00"
    assert await Door(rules=(later,)).ask() == "class_unknown"


async def test_what_a_message_cost_is_kept_with_it() -> None:
    price = {"since": date(2026, 1, 1), "source": "hop dong 7"}
    prices = (Price(dong=300, **price), Price(network="vinaphone", dong=350, **price))
    door = Door(prices=prices)
    await door.ask("ạ" * 71)
    await door.ask("Chao", address="0962555123")
    rows = door.hub.db.execute("SELECT connection, network, purpose, segments, dong FROM telecom_sms_sent").fetchall()
    assert sorted(rows) == [("carrier", "viettel", "care", 1, 300), ("carrier", "vinaphone", "care", 2, 700)]


async def test_a_number_that_moved_costs_what_its_new_network_costs() -> None:
    door = Door(prices=(Price(network="viettel", dong=300, since=date(2026, 1, 1), source="x"),))
    await door.write(tables.TOUCH_PHONE(phone_hash=door.phone_hash, now=1))
    await door.write(tables.MOVED(phone_hash=door.phone_hash, network="viettel"))
    await door.ask()
    assert door.hub.db.execute("SELECT network, dong FROM telecom_sms_sent").fetchall() == [("viettel", 300)]


def test_hours_that_end_before_they_begin_and_networks_nobody_knows_are_refused() -> None:
    with pytest.raises(ValidationError, match="before hours_to"):
        ClassRule(purpose="care", since=date(2026, 1, 1), source="x", hours_from=time(22), hours_to=time(7))
    with pytest.raises(ValidationError, match="network"):
        Price(network="sfone", dong=1, since=date(2026, 1, 1), source="x")


def test_figures_are_read_from_a_file_with_its_strict_types() -> None:
    written = {
        "host": "127.0.0.1", "system_id": "demo", "password": {"file": "x"}, "sender": "CONGDOAN",
        "profile": "mobifone", "countries": ["VN", "LA"],
        "prices": [{"network": "viettel", "dong": 350, "since": "2026-01-01", "source": "x"}],
        "rules": [
            {"purpose": "care", "since": "2026-01-01", "source": "x", "hours_from": "08:00:00", "hours_to": "20:00:00"}
        ],
        "registered_texts": [{"purpose": "care", "text": "a", "since": "2026-01-01", "source": "x"}],
    }  # fmt: skip
    read = SmsSettings.model_validate_json(orjson.dumps(written), strict=True)
    assert read.prices[0].dong == 350 and read.rules[0].hours_to == time(20)
    # What the carrier's profile says stands where the file is silent.
    assert (read.ton, read.npi) == (5, 0)


async def test_no_table_holds_a_phone() -> None:
    door = Door()
    await door.ask()
    tables_there = [name for (name,) in door.hub.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    stored = repr([door.hub.db.execute(f"SELECT * FROM {name}").fetchall() for name in tables_there])
    assert "912555123" not in stored
