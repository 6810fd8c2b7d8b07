"""Two carriers behind one choice, through a running hub: shares, failover, what never moves, budgets, pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hub import views
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.control import run_command
from hub.errors import InputError
from hub.model import new_id, to_us
from hub.plugins import Registry, load_plugins
from hub.testing import StandingClock, eventually, plain_event_type, registry_of, running_hub
from plugins.telecom_sms import tables, upkeep
from plugins.telecom_sms.rules import Price
from plugins.telecom_sms.simulator.smsc import Smsc
from tests.engines import ON_BOTH

from .conftest import Carrier
from .support import KEY
from .test_flow import ANNOUNCED, People, announce, outcome

REQUESTED, TO_MEMBERS = "vn.congdoan.sms.requested.v1", "vn.congdoan.sms.announced.v1"
PHONES = [f"09625550{n:02}" for n in range(60)]


@pytest.fixture(scope="module")
def installed() -> Registry:
    return load_plugins()


@pytest.fixture
async def other() -> AsyncIterator[Carrier]:
    other = Carrier()
    # Another carrier gives other ids.
    other.smsc = Smsc(other.smsc._journal, bytes(reversed(KEY)), {"demo": "demo"})
    other.smsc.behaviour.receipt_delay_ms = 0
    other.port = await other.smsc.start()
    yield other
    await other.smsc.stop()


@asynccontextmanager
async def two_carriers(
    folder: Path, installed: Registry, one: Carrier, other: Carrier, *, database_url: str = "", **changes: Any
) -> AsyncIterator[HubApp]:
    """``a`` and ``b`` behind ``sms``, with short times. ``changes``: of the choice; ``sms``: of both carriers."""
    secret = folder / "config" / "smsc"
    secret.parent.mkdir(exist_ok=True)
    secret.touch(mode=0o600)
    secret.write_text("demo")
    account = {
        "host": "127.0.0.1", "system_id": "demo", "password": {"file": "smsc"}, "sender": "CONGDOAN",
        "response_timeout_s": 1.0, "quiet_hours": False, "per_number_hour": None,
        "prices": [Price(dong=25_000, since=date(2026, 1, 1), source="hop dong").model_dump(mode="json")],
        **changes.pop("sms", {}),
    }  # fmt: skip
    rules = changes.pop("rules", [{"name": "all", "carriers": [{"connection": "a"}, {"connection": "b"}]}])
    people = People(60)
    async with running_hub(
        folder,
        registry_of(installed, event_types=[plain_event_type(ANNOUNCED, thin=("text",))], directory=lambda hub: people),
        connections={
            "sms": {
                "type": "sms_routes",
                "settings": {"rules": rules, "slow_after_s": 0.5, "suspect_s": 0.2, "judged_least": 1000, **changes},
            },
            "a": {"type": "telecom_sms", "settings": {**account, "port": one.port}},
            "b": {"type": "telecom_sms", "settings": {**account, "port": other.port}},
        },
        subscriptions=[
            {"name": "campaign", "types": [ANNOUNCED], "to_each": {"phone": "sms"}},
            {"name": "sms", "types": [REQUESTED], "to": "sms", "fields": ["to", "text"]},
            {"name": "members", "types": [TO_MEMBERS], "to_each": {"phone": "sms"}, "fields": ["text"]},
        ],
        settings={
            "retry": {"schedule_s": [30.0] * 20},
            "worker": {"attempt_deadline_s": 4, "lease_s": 10},
            "database_url": database_url,
        },
    ) as hub:
        yield hub


async def command(hub: HubApp, which: str, /, **params: Any) -> Any:
    return await run_command(hub, which, params, lambda progress: None)


async def where(hub: HubApp) -> Counter[str]:
    rows = await views.deliveries(hub.store, limit=500)
    return Counter(f"{row['destination']} {row['state']}" for row in rows)


@ON_BOTH
async def test_messages_are_shared_out_and_each_phone_gets_one(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier, database_url: str
) -> None:
    # None is slow, which a busy machine makes a carrier look at half a second: nothing is taken back from one.
    unhurried = {"slow_after_s": 60.0}
    async with two_carriers(tmp_path, installed, carrier, other, database_url=database_url, **unhurried) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await outcome(hub, delivered=60, cancelled_same_recipient=1)
        counted = await where(hub)
        assert counted["a delivered"] == len(carrier.taken()) > 10
        assert counted["b delivered"] == len(other.taken()) == 60 - len(carrier.taken())
        assert {line["weights"]["all"] for line in await routes_of(hub)} == {1}
        # What found both carriers full waited in the rule's lane first; each was given to a carrier once.
        lines = await hub.store.read(
            "SELECT outcome, count(*) FROM attempt WHERE reason <> 'to:sms/all' GROUP BY outcome ORDER BY 1"
        )
        assert [tuple(line) for line in lines] == [("accepted", 60), ("diverted", 61)]
        batch = (await hub.store.read("SELECT id FROM batch"))[0][0]
        progress = await hub.batch(UUID(bytes=batch))
        assert progress is not None and sum(progress["counts"].values()) == progress["total"] == 61


async def routes_of(hub: HubApp) -> list[Any]:
    return [route for line in (await command(hub, "sms carriers"))["carriers"] for route in line["routes"]]


async def test_what_waits_at_a_carrier_that_is_down_goes_through_the_other(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier
) -> None:
    carrier.smsc.change({"down": True})
    async with two_carriers(tmp_path, installed, carrier, other) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await outcome(hub, delivered=60, cancelled_same_recipient=1)
        assert (await where(hub))["b delivered"] == 60 == len(other.taken()) and not carrier.taken()
        a, b = await routes_of(hub)
        assert (a["fit"], a["reason"], b["fit"]) == (False, "slow", True)


async def test_a_carrier_that_is_not_there_is_named_and_the_others_are_used(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier
) -> None:
    rules = [{"name": "all", "carriers": [{"connection": "gone", "weight": 9}, {"connection": "b"}]}]
    async with two_carriers(tmp_path, installed, carrier, other, rules=rules) as hub:
        check = hub.connections["sms"].check
        assert check is not None and [(step.step, step.ok) async for step in check()] == [("gone", False), ("b", True)]
        await command(hub, "sms send", name="mot", to=PHONES[0], text="Chuc mung", purpose="care", via="b")
        await eventually(lambda: len(other.taken()) == 1)


async def test_a_message_a_carrier_cannot_take_now_is_tried_at_the_other_at_once(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier
) -> None:
    carrier.smsc.change({"error_share": 1.0, "error_status": 0x45})
    async with two_carriers(tmp_path, installed, carrier, other) as hub:
        await announce(hub, "Chúc mừng năm mới")
        await outcome(hub, delivered=60, cancelled_same_recipient=1)
        assert len(other.taken()) == 60 and (await where(hub))["b delivered"] == 60
        billed = (await command(hub, "sms costs"))["costs"]
        assert {line["connection"]: line["messages"] for line in billed} == {"b": 60}, (
            "nobody pays the one that refused"
        )


async def test_what_may_have_arrived_never_moves(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier
) -> None:
    carrier.smsc.change({"lose_share": 1.0, "receipt_lose_share": 1.0})
    async with two_carriers(tmp_path, installed, carrier, other) as hub:
        await announce(hub, "Chúc mừng năm mới")

        async def all_ended() -> bool:
            counted = await where(hub)
            return counted["a unknown"] + counted["b delivered"] == 60

        await eventually(all_ended, 20, 0.05)
        counted = await where(hub)
        assert counted["a unknown"] == len(carrier.taken()) > 0
        assert len(other.taken()) == counted["b delivered"] == 60 - counted["a unknown"], "nothing twice"


async def test_an_urgent_message_overtakes_what_waits_for_room(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier
) -> None:
    rules = [{"name": "all", "carriers": [{"connection": "a"}]}]
    many = ", ".join(f"0962556{n:03}" for n in range(160))
    order = {"purpose": "operations", "via": "a"}
    async with two_carriers(
        tmp_path, installed, carrier, other, rules=rules, ahead_s=0.5, sms={"rate_per_s": 40}
    ) as hub:
        await command(hub, "sms send", name="tet", to=many, text="Chuc mung", **order)
        await eventually(lambda: len(carrier.taken()) > 3, 10)
        await command(hub, "sms send", name="gap", to=PHONES[0], text="Gap", urgent="bao lu", **order)

        async def arrived() -> bool:
            return bool(await hub.store.read("SELECT 1 FROM delivery WHERE priority = 0 AND state = 'delivered'"))

        await eventually(arrived, 20)
        assert len(carrier.taken()) < 120, "with many still behind it"
        waiting = await where(hub)
        assert waiting["sms/all pending"] + waiting["sms/all leased"] > 0, "and some not even at the carrier"


async def test_what_a_sending_says_of_itself_chooses_its_rule(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier
) -> None:
    rules = [
        {"name": "fund", "senders": ["QUY-*"], "carriers": [{"connection": "b"}]},
        {"name": "tet", "tags": ["tet"], "carriers": [{"connection": "b"}]},
        {"name": "rest", "carriers": [{"connection": "a"}]},
    ]
    async with two_carriers(tmp_path, installed, carrier, other, rules=rules) as hub:
        order = {"text": "Chuc mung", "purpose": "care", "via": "a"}
        await command(hub, "sms send", name="mot", to=PHONES[0], **order)
        await command(hub, "sms send", name="hai", to=PHONES[1], sender="QUY-TN", **order)
        await command(hub, "sms send", name="ba", to=PHONES[2], tag="tet", **order)
        await command(hub, "sms send", name="tet", to=PHONES[3], **order)  # a sending's name is its tag
        await command(hub, "sms send", name="bon", to=PHONES[4], tag="khac", sender="CD", **order)
        await outcome(hub, delivered=5)
        assert await where(hub) == {"a delivered": 2, "b delivered": 3}
        with pytest.raises(InputError, match="other content"):
            await command(hub, "sms send", name="mot", to=PHONES[0], sender="QUY-TN", **order)
        assert (await command(hub, "sms send", name="hai", to=PHONES[1], sender="QUY-TN", **order))["sent"]
        assert sum((await where(hub)).values()) == 5, "the same again changes nothing"
        await command(hub, "sms send", name="sau", members=True, tag="tet", **order)
        await outcome(hub, delivered=65, cancelled_same_recipient=1)
        counted = await where(hub)
        assert (counted["a delivered"], counted["b delivered"]) == (2, 63)


@ON_BOTH
async def test_a_campaign_pauses_at_its_budget_and_its_rows_add_up_to_the_carriers_invoice(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier, database_url: str
) -> None:
    """F15: 1,000,000 đ at 25,000 đ a segment is 40 messages, over both carriers together; refusals cost nothing."""
    async with two_carriers(tmp_path, installed, carrier, other, database_url=database_url) as hub:
        carrier.smsc.change({"error_share": 0.3, "error_status": 0x45})
        order = {"text": "Chuc mung", "purpose": "care", "via": "a"}
        await command(hub, "sms send", name="tet", to=", ".join(PHONES), budget=1_000_000, **order)

        async def stopped() -> bool:
            shown = await command(hub, "sms show", name="tet")
            return bool(shown["paused_by"] == "budget" and shown["progress"]["counts"].get("delivered") == 40)

        await eventually(stopped, 20, 0.05)
        shown = await command(hub, "sms show", name="tet")
        invoice = 25_000 * (len(carrier.taken()) + len(other.taken()))
        assert (shown["spent"], sum(cost["dong"] for cost in shown["costs"]), invoice) == (1_000_000,) * 3
        by_carrier = {cost["connection"]: cost["segments"] for cost in shown["costs"]}
        assert by_carrier == {"a": len(carrier.taken()), "b": len(other.taken())}
        with pytest.raises(InputError, match="already"):
            await command(hub, "sms budget", name="tet", dong=10_000)
        carrier.smsc.change({"error_share": 0.0})
        assert (await command(hub, "sms budget", name="tet", dong=1_100_000))["paused_by"] == ""

        async def went_on() -> bool:
            return len(carrier.taken()) + len(other.taken()) == 44

        await eventually(went_on, 20, 0.05)


@ON_BOTH
async def test_a_stop_that_comes_after_money_was_given_back_pauses_nothing(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier, database_url: str
) -> None:
    """Between the look that found the budget spent and the stop, a refusal may make room: nobody would go on then."""
    async with two_carriers(tmp_path, installed, carrier, other, database_url=database_url) as hub:
        await command(hub, "sms send", name="tet", to=PHONES[0], text="x", purpose="care", via="a", budget=50_000)

        async def spent() -> bool:
            return bool((await command(hub, "sms show", name="tet"))["spent"] == 25_000)

        await eventually(spent, 20, 0.05)
        campaign = (await hub.fetch(tables.BATCH(name="tet")))[0][0]
        for dong, paused_by in ((25_000, ""), (25_001, "budget")):
            late = {"campaign": campaign, "phone_hash": b"another", "delivery_id": new_id().bytes, "dong": dong}
            await hub.commit(UnitOfWork(statements=[tables.STOP_AT_BUDGET(now=to_us(hub.now()), **late)]))
            assert (await command(hub, "sms show", name="tet"))["paused_by"] == paused_by


async def test_without_a_price_a_budget_is_refused(
    tmp_path: Path, installed: Registry, carrier: Carrier, other: Carrier
) -> None:
    async with two_carriers(tmp_path, installed, carrier, other, sms={"prices": []}) as hub:
        with pytest.raises(InputError, match="prices"):
            await command(
                hub, "sms send", name="tet", to=PHONES[0], text="x", purpose="care", via="a", budget=1_000
            )  # fmt: skip
        assert not carrier.taken() and not other.taken()


@ON_BOTH
async def test_what_was_kept_long_enough_goes_in_bounded_steps_and_refusals_stay(
    tmp_path: Path, installed: Registry, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ROWS", 3)
    clock = StandingClock()
    async with running_hub(
        tmp_path, installed, connections={}, clock=clock, start=False, settings={"database_url": database_url}
    ) as hub:
        now = to_us(clock())
        refused = hub.keyed_hash("phone", "84962555999")
        said = {"purpose": "*", "reason": "opted_out", "said": "STOP", "since": now, "phone": b"sealed"}
        await hub.commit(
            unit(tables.OPT_OUT(phone_hash=refused, **said), tables.HEAR(body_hash=b"h" * 16, now=now, after=0))
        )
        for n in range(8):
            phone = hub.keyed_hash("phone", f"8496255500{n}")
            rows = sent_row(phone, now), tables.TOUCH_PHONE(phone_hash=phone, now=now)
            await hub.commit(unit(*rows, tables.COUNT_ON(sender="CD", phone_hash=phone, reference=1, seen=None)))
        assert await upkeep.is_due(hub) and not await upkeep.is_due(hub)
        await upkeep.prune(hub)
        assert await count(hub, "sent") == await count(hub, "phone") == 8
        clock.advance(401 * 86_400)
        assert await upkeep.is_due(hub)
        assert (await upkeep.prune(hub))["sent"] == 2, "three rows a step, and what is left in the last one"
        gone = [await count(hub, name) for name in ("sent", "phone", "counter", "heard", "optout")]
        assert gone == [0, 0, 0, 0, 1]


def unit(*statements: Any) -> Any:
    from hub.contract import UnitOfWork

    return UnitOfWork(statements=statements)


def sent_row(phone: bytes, now: int) -> Any:
    return tables.CLAIM_PHONE(
        campaign=b"c" * 16, phone_hash=phone, delivery_id=phone, admitted_at=now, purpose="care", connection="a",
        network="viettel", unit="", segments=1, dong=300,
    )  # fmt: skip


async def count(hub: HubApp, name: str) -> int:
    return int((await hub.store.read(f"SELECT count(*) FROM telecom_sms_{name}"))[0][0])
