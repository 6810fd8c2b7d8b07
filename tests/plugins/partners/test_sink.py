"""The sink against partners in another process, who check with libraries that are not ours."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from hub.contract import Delivered, DestinationSpec, Refused, RetryLater, Scope
from hub.errors import ConfigError
from plugins.partners.connector import PartnerSink
from tests.plugins.partners.conftest import Clock, Open, Simulator, event, ship


async def test_an_event_is_taken_once_with_a_signature_and_a_body_that_hold(
    simulator: Simulator, open_partner: Open
) -> None:
    one = event(unit="CDCS-01", changed=["địa_chỉ"])
    outcome = await ship(open_partner(simulator.url("so-noi-vu")), one)
    assert isinstance(outcome, Delivered)
    assert outcome.exchange is not None
    assert (outcome.exchange.status, outcome.exchange.answer) == (200, b"ok")
    (line,) = simulator.lines()
    assert (line["id"], line["verdict"], line["answered"]) == (f"{one.id}@so-noi-vu", "taken", True)


async def test_a_second_try_has_the_same_id_and_bytes_and_is_counted_as_a_repeat(
    simulator: Simulator, open_partner: Open, clock: Clock
) -> None:
    connection, one = open_partner(simulator.url("so-noi-vu")), event()
    await ship(connection, one)
    clock.moment += timedelta(seconds=5)
    assert isinstance(await ship(connection, one), Delivered)
    state = (await simulator.state())["endpoints"]["so-noi-vu"]
    assert (state["taken"], state["repeats"], state["changed_bodies"]) == (1, 1, 0)
    assert [line.get("repeat", False) for line in simulator.lines()] == [False, True]


async def test_the_timestamp_is_of_the_try_and_not_of_the_event(
    simulator: Simulator, open_partner: Open, clock: Clock
) -> None:
    connection, one = open_partner(simulator.url("so-noi-vu")), event()
    clock.moment -= timedelta(minutes=10)
    assert (await ship(connection, one)).reason == "http_401"
    clock.moment += timedelta(minutes=10)
    assert isinstance(await ship(connection, one), Delivered)


async def test_both_keys_sign_while_a_partner_changes_over(simulator: Simulator, open_partner: Open) -> None:
    both = {"secret": {"env": "NEW_SECRET"}, "previous_secret": {"env": "SECRET"}}
    for name in ("new-key", "still-the-old-key"):
        assert isinstance(await ship(open_partner(simulator.url(name), **both), event()), Delivered)


async def test_a_partner_with_another_key_refuses_and_we_try_again_later(
    simulator: Simulator, open_partner: Open
) -> None:
    outcome = await ship(open_partner(simulator.url("new-key")), event())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.scope, outcome.ambiguous) == ("http_401", Scope.DELIVERY, False)


async def test_410_switches_the_destination_off(simulator: Simulator, open_partner: Open) -> None:
    await simulator.put(endpoints={"so-noi-vu": {"status": 410}})
    outcome = await ship(open_partner(simulator.url("so-noi-vu")), event())
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.scope) == ("gone", Scope.DESTINATION)


async def test_503_with_retry_after_holds_the_destination(simulator: Simulator, open_partner: Open) -> None:
    await simulator.put(endpoints={"so-noi-vu": {"status": 503, "retry_after": 3}})
    outcome = await ship(open_partner(simulator.url("so-noi-vu")), event())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.scope, outcome.after) == ("http_503", Scope.DESTINATION, timedelta(seconds=3))


async def test_a_partner_that_is_down_is_tried_again_as_ambiguous(simulator: Simulator, open_partner: Open) -> None:
    await simulator.put(endpoints={"so-noi-vu": {"down": True}})
    connection = open_partner(simulator.url("so-noi-vu"))
    outcome = await ship(connection, event())
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.ambiguous) == ("disconnected", True)
    await simulator.put(endpoints={"so-noi-vu": {"down": False}})
    assert isinstance(await ship(connection, event()), Delivered)


async def test_a_slow_partner_is_left_at_the_deadline_and_delays_nobody(
    simulator: Simulator, open_partner: Open
) -> None:
    await simulator.put(endpoints={"slow": {"withhold": True}})
    slow = asyncio.create_task(ship(open_partner(simulator.url("slow"), timeout_s=0.5), event()))
    await simulator.until(lambda state: state["taken"] == 1)
    assert isinstance(await ship(open_partner(simulator.url("quick")), event()), Delivered)
    outcome = await slow
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.ambiguous) == ("timeout", True)


async def test_the_deadline_of_the_shipment_wins_when_it_is_shorter(simulator: Simulator, open_partner: Open) -> None:
    await simulator.put(withhold=True)
    outcome = await ship(open_partner(simulator.url("slow"), timeout_s=60), event(), deadline_s=0.1)
    assert outcome.reason == "timeout"
    assert outcome.exchange.total_ms < 30_000


async def test_connections_are_kept_and_are_no_more_than_the_concurrency(
    simulator: Simulator, open_partner: Open
) -> None:
    connection = open_partner(simulator.url("so-noi-vu"), concurrency=2)
    outcomes = await asyncio.gather(*[ship(connection, event()) for _ in range(20)])
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert isinstance(connection.sink, PartnerSink)
    # What earlier tests left open goes away by itself; more than two of ours would stay.
    await simulator.until(lambda state: state["connections"] == 2)


async def test_a_destination_is_paced_as_configured(open_partner: Open) -> None:
    sink = open_partner("https://nhan.example.vn/", rate_per_s=5, concurrency=3).sink
    assert sink is not None
    assert sink.destinations() == [DestinationSpec(concurrency=3, rate_per_s=5)]
    assert sink.resend_is_safe


async def test_check_reaches_the_partner_without_a_request(simulator: Simulator, open_partner: Open) -> None:
    check = open_partner(simulator.url("so-noi-vu")).check
    assert check is not None
    assert [(step.step, step.ok) async for step in check()] == [("dns", True), ("tcp", True)]
    assert simulator.lines() == []


def test_a_short_secret_is_refused_when_the_connection_opens(open_partner: Open) -> None:
    with pytest.raises(ConfigError, match="at least 24 bytes"):
        open_partner("https://nhan.example.vn/", secret={"env": "SHORT"})
