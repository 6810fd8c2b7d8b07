"""The whole way through a running hub: announcement, fan-out, SMS, receipt, and what goes wrong in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub import views
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.model import Audience, Draft, Json
from hub.plugins import Registry, load_plugins
from hub.testing import eventually, plain_event_type, registry_of, running_hub
from plugins.telecom_sms.simulator.journal import taken_id
from tests.engines import ON_BOTH

from .conftest import Carrier
from .support import KEY

ANNOUNCED = "vn.congdoan.test-campaign.announced.v1"
LONG = "Công đoàn tỉnh mời anh chị đoàn viên dự hội nghị người lao động. " * 4


class People:
    """A Directory of as many people as asked for; two of them share a phone."""

    def __init__(self, count: int) -> None:
        self.phones = {f"m{number:04}": f"+8491255{number:04}" for number in range(count)}
        self.phones[f"m{count:04}"] = self.phones["m0000"]

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        yield sorted(self.phones)

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        return {subject: self.phones[subject] for subject in subjects if channel == "phone"}

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        return None


@pytest.fixture(scope="module")
def installed() -> Registry:
    return load_plugins()


@asynccontextmanager
async def hub_with(
    folder: Path,
    installed: Registry,
    carrier: Carrier,
    people: People,
    password: str = "demo",
    database_url: str = "",
    **sms: Any,
) -> AsyncIterator[HubApp]:
    secret = folder / "config" / "smsc"
    secret.parent.mkdir(exist_ok=True)
    secret.touch(mode=0o600)
    secret.write_text(password)
    registry = registry_of(
        installed, event_types=[plain_event_type(ANNOUNCED, thin=("text",))], directory=lambda hub: people
    )
    settings = {
        "host": "127.0.0.1", "port": carrier.port, "system_id": "demo", "password": {"file": "smsc"},
        "sender": "CONGDOAN", "response_timeout_s": 1.0, "quiet_hours": False, **sms,
    }  # fmt: skip
    async with running_hub(
        folder,
        registry,
        connections={"sms": {"type": "telecom_sms", "settings": settings}},
        subscriptions=[{"name": "campaign", "types": [ANNOUNCED], "to_each": {"phone": "sms"}}],
        settings={
            "retry": {"schedule_s": [0.05] * 20},
            "worker": {"attempt_deadline_s": 4, "lease_s": 10},
            "breaker": {"first_s": 0.2, "max_s": 1.0},
            "database_url": database_url,
        },
    ) as hub:
        yield hub


async def announce(hub: HubApp, text: str, key: str = "tet") -> None:
    await hub.commit(
        UnitOfWork(
            drafts=[
                Draft(
                    type=ANNOUNCED, source="/campaigns", dedupe_key=key, data={"text": text},
                    audience=Audience({}, ("phone",), "care"),
                )
            ]
        )
    )  # fmt: skip


async def outcome(hub: HubApp, **expected: int) -> None:
    """Waits until the deliveries stand so, counted by state and reason; shows the last count when they never do."""
    seen: Counter[str] = Counter()

    async def stands() -> bool:
        nonlocal seen
        rows = await views.deliveries(hub.store, limit=500)
        seen = Counter(f"{row['state']}_{row['reason']}" if row["reason"] else row["state"] for row in rows)
        return dict(seen) == expected

    try:
        await eventually(stands, 20, 0.05)
    except AssertionError:
        raise AssertionError(dict(seen)) from None


@ON_BOTH
async def test_everybody_gets_one_sms_and_its_receipt_settles_it(
    tmp_path: Path, installed: Registry, carrier: Carrier, database_url: str
) -> None:
    people = People(60)
    carrier.smsc.change({"early_receipt_share": 0.3, "receipt_style": "mixed"})
    async with hub_with(tmp_path, installed, carrier, people, database_url=database_url) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await outcome(hub, delivered=60, cancelled_same_recipient=1)
    expected = {taken_id(KEY, phone[1:], "Chúc mừng năm mới", 1) for phone in people.phones.values()}
    assert sorted(carrier.taken()) == sorted(expected)
    assert carrier.count("unbinds") == 1


@ON_BOTH
async def test_a_long_text_is_as_well_off_as_its_worst_part(
    tmp_path: Path, installed: Registry, carrier: Carrier, database_url: str
) -> None:
    carrier.smsc.change({"undeliv_share": 0.5})
    people = People(12)
    async with hub_with(tmp_path, installed, carrier, people, database_url=database_url) as hub:
        await announce(hub, LONG)

        async def settled() -> bool:
            return len(await views.deliveries(hub.store)) == 13 and not await views.unsettled(hub.store)

        await eventually(settled, 20)
        rows = await views.deliveries(hub.store)
        seen = Counter(row["state"] for row in rows)
        assert seen["delivered"] + seen["dead"] == 12 and seen["cancelled"] == 1
        assert 0 < seen["dead"] < 12
        assert {row["reason"] for row in rows if row["state"] == "dead"} == {"receipt:undeliverable_err_069"}
    assert len(carrier.taken()) == len(set(carrier.taken())) == 12 * 4


async def test_lost_answers_become_unknown_and_are_never_sent_again(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    carrier.smsc.change({"lose_share": 0.25})
    people = People(30)
    async with hub_with(tmp_path, installed, carrier, people, response_timeout_s=1.5) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await eventually(lambda: carrier.count("taken") == 30, 20)
        lost = carrier.count("lost")
        assert 0 < lost < 30
        await outcome(hub, delivered=30 - lost, unknown_no_answer=lost, cancelled_same_recipient=1)
    assert len(set(carrier.taken())) == len(carrier.taken()) == 30


@ON_BOTH
async def test_an_answer_after_its_time_lets_the_receipt_settle_the_unknown(
    tmp_path: Path, installed: Registry, carrier: Carrier, database_url: str
) -> None:
    carrier.smsc.change({"withhold": True, "receipt_delay_ms": 0})
    async with hub_with(
        tmp_path, installed, carrier, People(8), response_timeout_s=0.3, database_url=database_url
    ) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await outcome(hub, unknown_no_answer=8, cancelled_same_recipient=1)
        carrier.smsc.change({"withhold": False})
        await outcome(hub, delivered=8, cancelled_same_recipient=1)
    assert len(set(carrier.taken())) == len(carrier.taken()) == 8


async def test_a_carrier_that_is_away_costs_no_try_and_loses_nothing(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    carrier.smsc.change({"down": True})
    async with hub_with(tmp_path, installed, carrier, People(20)) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await eventually(lambda: carrier.count("connections") >= 2, 20)
        carrier.smsc.change({"down": False})
        await outcome(hub, delivered=20, cancelled_same_recipient=1)
        rows = await views.deliveries(hub.store)
        assert {row["tries"] for row in rows if row["state"] == "delivered"} == {1}


async def test_a_throttling_carrier_fails_nothing_and_gets_nothing_twice(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    carrier.smsc.change({"rate_per_s": 20.0})
    async with hub_with(tmp_path, installed, carrier, People(50)) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await outcome(hub, delivered=50, cancelled_same_recipient=1)
    assert len(set(carrier.taken())) == len(carrier.taken()) == 50


async def test_a_wrong_password_pauses_the_connection_and_keeps_every_message(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    async with hub_with(tmp_path, installed, carrier, People(5), password="wrong") as hub:
        await announce(hub, "Chúc mừng năm mới")
        await eventually(lambda: repairs(hub), 20)
        await eventually(lambda: paused(hub), 20)
        assert "login_refused" in {repair["kind"] for repair in await views.repairs(hub.store)}
        assert not await views.deliveries(hub.store, state="dead")
    assert carrier.taken() == []


async def repairs(hub: HubApp) -> list[Json]:
    return await views.repairs(hub.store)


async def paused(hub: HubApp) -> bool:
    rows = await hub.store.read("SELECT paused_by FROM connection WHERE name = 'sms'")
    return rows[0][0] is not None


@ON_BOTH
async def test_a_stop_lets_what_is_under_way_finish(
    tmp_path: Path, installed: Registry, carrier: Carrier, database_url: str
) -> None:
    carrier.smsc.change({"slow_ms": 300, "receipt_delay_ms": 60_000})
    people = People(40)
    async with hub_with(tmp_path, installed, carrier, people, database_url=database_url) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await eventually(lambda: carrier.count("in_flight") >= 10, 20)
        await asyncio.wait_for(hub.stop(), 10)
    async with hub_with(tmp_path, installed, carrier, people, database_url=database_url) as hub:
        await outcome(hub, accepted=40, cancelled_same_recipient=1)
    assert len(set(carrier.taken())) == len(carrier.taken()) == 40


async def test_a_text_of_more_than_ten_segments_is_cancelled_for_everybody(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    async with hub_with(tmp_path, installed, carrier, People(3)) as hub:
        await announce(hub, "ạ" * 671)
        await outcome(hub, cancelled_sms_too_long=4)
    assert carrier.taken() == []
