"""A worker's journey through a running hub: a notice, a reply, a refusal, silence; and an officer's day beside it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hub.app import HubApp, asked_by
from hub.contract import Handler, Principal, UnitOfWork
from hub.control import run_command
from hub.errors import InputError
from hub.model import Event, Json
from hub.plugins import Registry, load_plugins
from hub.testing import eventually, registry_of, running_hub
from plugins.telecom_sms.rules import Price
from plugins.telecom_sms.simulator.journal import taken_id
from plugins.telecom_sms.smpp import pdu, split
from tests.console_site import served
from tests.engines import ON_BOTH

from .conftest import Carrier
from .support import KEY, MSISDN, PHONE
from .test_flow import People

REQUESTED = "vn.congdoan.sms.requested.v1"
ANNOUNCED = "vn.congdoan.sms.announced.v1"
RECEIVED = "vn.congdoan.sms.received.v1"
NOTICE = "Cong doan moi anh chi hop luc 8h ngay 05/12."


@pytest.fixture(scope="module")
def installed() -> Registry:
    return load_plugins()


class Heard:
    """A handler of some other plugin that is told what phones wrote."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def handle(self, event: Event, hub: Any) -> UnitOfWork:
        self.events.append(event)
        return UnitOfWork()


@asynccontextmanager
async def office(
    folder: Path, installed: Registry, carrier: Carrier, heard: Heard | None = None, database_url: str = "", **sms: Any
) -> AsyncIterator[HubApp]:
    """A hub with one SMS connection, subscribed as the how-to says."""
    secret = folder / "config" / "smsc"
    secret.parent.mkdir(exist_ok=True)
    secret.touch(mode=0o600)
    secret.write_text("demo")
    people = People(5)
    handler = Handler("replies", (heard or Heard()).handle)
    settings = {
        "host": "127.0.0.1", "port": carrier.port, "system_id": "demo", "password": {"file": "smsc"},
        "sender": "CONGDOAN", "response_timeout_s": 1.0, "quiet_hours": False,
        "prices": [Price(dong=300, since=date(2026, 1, 1), source="hop dong").model_dump(mode="json")], **sms,
    }  # fmt: skip
    async with running_hub(
        folder,
        registry_of(installed, handlers=[handler], directory=lambda hub: people),
        connections={"sms": {"type": "telecom_sms", "settings": settings}},
        subscriptions=[
            {"name": "sms", "types": [REQUESTED], "to": "sms", "fields": ["to", "text"]},
            {"name": "members", "types": [ANNOUNCED], "to_each": {"phone": "sms"}, "fields": ["text"]},
            {"name": "replies", "types": [RECEIVED], "to": "handler:replies", "fields": ["from", "text"]},
        ],
        settings={
            "retry": {"schedule_s": [0.05] * 20},
            "worker": {"attempt_deadline_s": 4, "lease_s": 10},
            "database_url": database_url,
        },
    ) as hub:
        await eventually(lambda: carrier.smsc.peers)
        yield hub


async def do(hub: HubApp, command: str, **params: Any) -> Json:
    return await run_command(hub, f"sms {command}", params, lambda progress: None)


async def stands(hub: HubApp, name: str, **counts: int) -> Json:
    """Waits until the sending stands so; its counts add up at every look."""
    seen: Json = {}

    async def look() -> bool:
        nonlocal seen
        seen = (await do(hub, "show", name=name))["progress"]
        assert seen["total"] == seen["unreachable"] + seen["unmade"] + sum(seen["counts"].values())
        return bool(seen["counts"] == counts)

    try:
        await eventually(look, 20, 0.05)
    except AssertionError:
        raise AssertionError(seen) from None
    return seen


def taken(carrier: Carrier, text: str, phone: str = MSISDN) -> int:
    return carrier.taken().count(taken_id(KEY, phone, text, 1))


async def write_to_the_union(carrier: Carrier, text: str, reference: int = 1) -> None:
    """What a phone does when its owner presses send: parts in any order, each until it is answered."""
    (peer,) = carrier.smsc.peers
    plan = split.plan(text)
    parts = plan.user_data(reference)
    for octets in reversed(parts):
        peer.deliver(
            pdu.Message(
                source=MSISDN, source_ton=1, destination="8088", data_coding=plan.data_coding, short_message=octets,
                esm_class=pdu.ESM_UDHI if len(parts) > 1 else 0,
            ).encode()
        )  # fmt: skip
    await eventually(lambda: not peer.unanswered)


@ON_BOTH
async def test_a_worker_gets_a_notice_asks_refuses_is_confirmed_once_and_hears_nothing_more(
    tmp_path: Path, installed: Registry, carrier: Carrier, database_url: str
) -> None:
    heard = Heard()
    async with office(tmp_path, installed, carrier, heard, database_url) as hub:
        await do(hub, "send", name="hop", text=NOTICE, purpose="operations", to=PHONE)
        await stands(hub, "hop", delivered=1)

        question = "Em hỏi: công ty nợ lương hai tháng thì công đoàn giúp được gì ạ? " * 3
        await write_to_the_union(carrier, question)
        await eventually(lambda: len(heard.events) == 1)
        assert heard.events[0].data["text"] == question and heard.events[0].data["from"] == MSISDN

        for words in ("Từ chối", "TU CHOI", "stop"):
            await write_to_the_union(carrier, words)
        confirmation = hub.config.connections["sms"].settings.stop_answer  # type: ignore[attr-defined]
        confirmation = confirmation.replace("{sender}", "CONGDOAN").replace("{what}", "SMS")
        await eventually(lambda: taken(carrier, confirmation) == 1)

        await do(hub, "send", name="qua-tet", text="Moi anh chi nhan qua Tet.", purpose="care", to=PHONE)
        seen = await stands(hub, "qua-tet", cancelled=1)
        assert seen["reasons"] == {"cancelled": {"opted_out": 1}}
        await eventually(lambda: len(heard.events) == 4)
        (line,) = (await do(hub, "optouts"))["optouts"]
        assert (line["phone"], line["said"]) == ("0912***123", "SMS: STOP")
        messages = (await do(hub, "inbox"))["messages"]
        assert Counter(m["meaning"] for m in messages) == {"stop": 3, "": 1}
        assert {m["text"] for m in messages} >= {question, "Từ chối"}
    assert taken(carrier, NOTICE) == 1 and len(carrier.taken()) == 2, "the notice and one confirmation, nothing else"


@ON_BOTH
async def test_members_are_reached_through_the_directory_and_the_bill_is_the_segments_sent(
    tmp_path: Path, installed: Registry, carrier: Carrier, database_url: str
) -> None:
    text = "Công đoàn mời anh chị dự hội nghị người lao động và nhận quà vào 8 giờ sáng."
    async with office(tmp_path, installed, carrier, database_url=database_url) as hub:
        shown = await do(hub, "send", name="hoi-nghi", text=text, purpose="care", members=True, dry_run=True)
        assert not shown["sent"] and shown["preview"]["as_written"]["segments"] == 2
        await do(hub, "send", name="hoi-nghi", text=text, purpose="care", members=True)
        seen = await stands(hub, "hoi-nghi", delivered=5, cancelled=1)
        assert seen["reasons"] == {"cancelled": {"same_recipient": 1}}
        costs = await do(hub, "costs", name="hoi-nghi")
        assert (costs["messages"], costs["segments"], costs["dong"]) == (5, 10, 3000)
        assert costs["segments"] == len(carrier.taken())
        assert (await do(hub, "costs"))["dong"] == 3000


async def test_a_stopped_sending_is_silent_within_two_seconds_and_its_totals_add_up(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    numbers = ",".join(f"0912{n:06}" for n in range(800))
    async with office(tmp_path, installed, carrier, rate_per_s=50.0) as hub:
        await do(hub, "send", name="dai", text="Chao", purpose="care", to=numbers)
        await eventually(lambda: len(carrier.taken()) >= 20)
        began = time.monotonic()
        await do(hub, "stop", name="dai")
        assert time.monotonic() - began < 2
        await asyncio.sleep(max(0.0, 2 - (time.monotonic() - began)))
        sent = len(carrier.taken())

        async def all_over() -> bool:
            counts = (await do(hub, "show", name="dai"))["progress"]["counts"]
            return set(counts) <= {"delivered", "cancelled"}

        await eventually(all_over, 20, 0.05)
        seen = await stands(hub, "dai", delivered=sent, cancelled=800 - sent)
        assert seen["state"] == "stopped" and seen["reasons"] == {"cancelled": {"batch_stopped": 800 - sent}}
        await do(hub, "send", name="sau", text="Chao", purpose="care", to="0962555001")
        await stands(hub, "sau", delivered=1)
    assert len(carrier.taken()) == sent + 1 and 20 <= sent < 400


async def test_a_scheduled_sending_that_is_stopped_before_its_time_reaches_nobody(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    async with office(tmp_path, installed, carrier) as hub:
        at = (hub.now() + timedelta(hours=1)).isoformat()
        await do(hub, "send", name="hen", text="Chao", purpose="care", to=f"{PHONE},0912555124", at=at)

        async def held() -> bool:
            return await hub.store.read("SELECT count(*) FROM queue WHERE reason = 'scheduled'") == [(2,)]

        await eventually(held)
        await do(hub, "stop", name="hen")
        await stands(hub, "hen", cancelled=2)
    assert carrier.taken() == []


async def test_a_paused_sending_holds_what_is_left_until_it_goes_on(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    numbers = ",".join(f"0912{n:06}" for n in range(30))
    async with office(tmp_path, installed, carrier, rate_per_s=20.0) as hub:
        await do(hub, "send", name="nghi", text="Chao", purpose="care", to=numbers)
        await eventually(lambda: len(carrier.taken()) >= 3)
        await do(hub, "pause", name="nghi")

        async def all_held() -> bool:
            rows = await hub.store.read("SELECT count(*) FROM queue WHERE reason <> 'batch_paused'")
            return bool(rows == [(0,)])

        await eventually(all_held, 20, 0.05)
        assert len(carrier.taken()) < 30
        await do(hub, "resume", name="nghi")
        await stands(hub, "nghi", delivered=30)
    assert len(carrier.taken()) == len(set(carrier.taken())) == 30


async def test_a_test_key_is_answered_as_ever_and_reaches_no_phone(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    async with office(tmp_path, installed, carrier) as hub:
        with asked_by(Principal(name="khoa-thu", scopes=frozenset({"sms:send"}), test=True)):
            answer = await do(hub, "send", name="thu", text="Chao", purpose="care", to=PHONE)
            announced = await do(hub, "send", name="thu-moi", text="Chao", purpose="care", members=True)
        assert answer["sent"] and announced["sent"]
        seen = await stands(hub, "thu", cancelled=1)
        assert seen["reasons"] == {"cancelled": {"simulated": 1}}
        await stands(hub, "thu-moi", cancelled=6)
    assert carrier.taken() == []


async def test_a_configuration_that_sends_nowhere_is_told_at_once(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    settings = {"host": "127.0.0.1", "system_id": "demo", "password": {"file": "smsc"}, "sender": "CONGDOAN"}
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "smsc").touch(mode=0o600)
    (tmp_path / "config" / "smsc").write_text("demo")
    sms = {"type": "telecom_sms", "settings": settings}
    async with running_hub(tmp_path, installed, connections={"sms": sms}, start=False) as hub:
        with pytest.raises(InputError, match=r"subscriptions\.toml") as refused:
            await do(hub, "send", name="a", text="Chao", purpose="care", to=PHONE)
        assert refused.value.problem == "no-subscription"


async def test_one_number_a_hundred_times_gets_what_the_limit_says(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    async with office(tmp_path, installed, carrier) as hub:
        for n in range(100):
            await do(hub, "send", name=f"lan-{n}", text=f"Lan {n}", purpose="care", to=PHONE)

        async def held() -> bool:
            rows = await hub.store.read(
                "SELECT count(*) FROM queue WHERE reason = 'number_limit' AND state = 'pending'"
            )
            return bool(rows == [(95,)])

        await eventually(held, 20, 0.05)
        await eventually(lambda: len(carrier.taken()) == 5)
    assert len(carrier.taken()) == 5


async def test_the_same_is_asked_over_http_once_however_often_it_is_repeated(
    tmp_path: Path, installed: Registry, carrier: Carrier
) -> None:
    async with office(tmp_path, installed, carrier) as hub, served(hub) as url, aiohttp.ClientSession() as http:

        async def ask(method: str, path: str, status: int, key: str = "", **body: Any) -> Json:
            headers = {"Idempotency-Key": key} if key else {}
            async with http.request(
                method, f"{url}/api/v1/sms{path}", json=body or None, headers=headers
            ) as answer:  # fmt: skip
                found: Json = await answer.json(content_type=None)
                assert answer.status == status, found
                return found

        asked = {"name": "qua-http", "text": NOTICE, "purpose": "operations", "to": PHONE}
        shown = await ask("POST", "/preview", 200, text=NOTICE, purpose="operations", to=PHONE)
        assert shown["as_written"]["dong"] == 300
        answers = [await ask("POST", "/sendings", 202, "khoa-1", **asked) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2] and answers[0]["sent"]
        refused = await ask("POST", "/sendings", 409, "khoa-2", **(asked | {"text": "Khac"}))
        assert refused["type"] == "/problems/name-taken"
        long = await ask("POST", "/sendings", 422, "khoa-3", **(asked | {"name": "dai", "text": "x" * 10_000}))
        assert long["type"] == "/problems/sms-too-long"
        await stands(hub, "qua-http", delivered=1)
        assert (await ask("GET", "/sendings/qua-http", 200))["progress"]["counts"] == {"delivered": 1}
        for path in ("/sendings", "/optouts", "/inbox", "/carriers", "/templates", "/costs"):
            await ask("GET", path, 200)
    assert len(carrier.taken()) == 1
