"""Failures over days: who is told and when, what switches an endpoint off, and that an outage kills nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from hub import views
from hub.app import HubApp
from hub.contract import Delivered, Refused, RetryLater, Scope, UnitOfWork
from hub.model import Draft, Json, from_us, new_id
from hub.plugins import load_plugins
from hub.testing import StandingClock, eventually, plain_event_type, registry_of, running_hub
from plugins.partners.connector import PartnerSink
from plugins.partners.health import DISABLE_AFTER, HALF_WAY
from tests.engines import ON_BOTH
from tests.plugins.partners.conftest import SECRET, Clock, Open, event, receiver, ship
from tests.plugins.partners.test_guard import Listener, listening
from tests.plugins.partners.test_managed import run
from tests.plugins.partners.test_portal import open_site

TYPE = "vn.congdoan.partners-test.made.v1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def answer(status: int, *headers: str) -> bytes:
    lines = "".join(f"{each}\r\n" for each in headers)
    return f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n{lines}\r\n".encode()


# -- one endpoint, try by try --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "header", "outcome"),
    [
        (500, "webhook-stop: message", ("stopped_by_partner", Scope.DELIVERY)),
        (400, "Webhook-Stop:  Endpoint ", ("stopped_by_partner", Scope.DESTINATION)),
        (503, "webhook-stop: endpoint", ("stopped_by_partner", Scope.DESTINATION)),
        (410, "X-A: b", ("gone", Scope.DESTINATION)),
    ],
)
async def test_a_partner_can_say_stop(
    open_partner: Open, clock: Clock, status: int, header: str, outcome: tuple[str, Scope]
) -> None:
    async with listening(Listener(answer(status, header)), "127.0.0.1") as partner:
        found = await ship(open_partner(f"http://127.0.0.1:{partner.port}/"), event())
    assert isinstance(found, Refused)
    assert (found.reason, found.scope) == outcome
    switched_off = outcome[1] is Scope.DESTINATION
    assert clock.told() == ([("disabled", outcome[0])] if switched_off else [])


@pytest.mark.parametrize("header", ["webhook-stop: please", "webhook-stop:", "X-Stop: message"])
async def test_another_word_is_no_stop(open_partner: Open, header: str) -> None:
    async with listening(Listener(answer(500, header)), "127.0.0.1") as partner:
        found = await ship(open_partner(f"http://127.0.0.1:{partner.port}/"), event())
    assert isinstance(found, RetryLater) and found.reason == "http_500"


async def test_a_success_counts_whatever_header_comes_with_it(open_partner: Open) -> None:
    async with listening(Listener(answer(204, "webhook-stop: endpoint")), "127.0.0.1") as partner:
        assert isinstance(await ship(open_partner(f"http://127.0.0.1:{partner.port}/"), event()), Delivered)


@pytest.mark.parametrize(
    ("value", "held_s"),
    [("120", 120), ("Mon, 23 Nov 2126 07:00:00 GMT", 86_400), ("86400", 86_400), ("1000000000", 86_400)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_every_form_of_retry_after_holds_the_endpoint_for_a_day_at_most(
    open_partner: Open, status: int, value: str, held_s: int
) -> None:
    async with listening(Listener(answer(status, f"Retry-After: {value}")), "127.0.0.1") as partner:
        found = await ship(open_partner(f"http://127.0.0.1:{partner.port}/"), event())
    assert isinstance(found, RetryLater) and found.scope is Scope.DESTINATION
    assert found.after == timedelta(seconds=held_s)


async def test_the_owner_is_told_at_first_half_way_and_when_it_is_switched_off(
    open_partner: Open, clock: Clock
) -> None:
    async with listening(Listener(answer(500)), "127.0.0.1") as partner:
        connection = open_partner(f"http://127.0.0.1:{partner.port}/")
        told = []
        for hours in range(0, 5 * 24 + 1, 4):
            outcome = await ship(connection, event())
            told.append((hours, *clock.told()))
            clock.units.clear()
            clock.moment += timedelta(hours=4)
        assert [each for each in told if len(each) > 1] == [
            (0, ("failing", "first")),
            (HALF_WAY / timedelta(hours=1), ("failing", "half_way")),
            (DISABLE_AFTER / timedelta(hours=1), ("disabled", "failing_too_long")),
        ]
        assert isinstance(outcome, Refused) and outcome.scope is Scope.DESTINATION
        # Resumed by a person and still failing: its days are counted from there.
        assert isinstance(await ship(connection, event()), RetryLater)


async def test_a_success_is_told_and_begins_the_count_anew(open_partner: Open, clock: Clock) -> None:
    async with listening(Listener(answer(500)), "127.0.0.1") as partner:
        connection = open_partner(f"http://127.0.0.1:{partner.port}/")
        await ship(connection, event())
        clock.moment += timedelta(days=4)
        partner.answer = answer(200)
        await ship(connection, event())
        await ship(connection, event())
        assert clock.told() == [("failing", "first"), ("recovered", "")]
        partner.answer = answer(500)
        clock.moment += timedelta(days=4)
        assert isinstance(await ship(connection, event()), RetryLater)


async def test_nobody_is_switched_off_without_the_warning_half_way(open_partner: Open, clock: Clock) -> None:
    """A failure, days without an event, a failure: that is no outage of five days."""
    async with listening(Listener(answer(500)), "127.0.0.1") as partner:
        connection = open_partner(f"http://127.0.0.1:{partner.port}/")
        await ship(connection, event())
        clock.moment += timedelta(days=9)
        for _ in range(2):
            assert isinstance(await ship(connection, event()), RetryLater)
        assert clock.told() == [("failing", "first"), ("failing", "half_way")]
        clock.moment += DISABLE_AFTER - HALF_WAY
        assert isinstance(await ship(connection, event()), Refused)


async def test_a_success_while_the_failure_is_written_down_takes_it_back(open_partner: Open, clock: Clock) -> None:
    connection = open_partner("https://nhan.example.vn/")
    sink = connection.sink
    assert isinstance(sink, PartnerSink)
    written, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(unit: UnitOfWork) -> None:
        written.set()
        await go_on.wait()
        clock.units.append(unit)

    clock.commit = slowly  # type: ignore[method-assign]  # the ledger takes its time
    telling = asyncio.create_task(sink.health.failed("a", "http_500", clock.now()))
    await written.wait()
    await sink.health.worked("a")
    go_on.set()
    await telling
    assert clock.told() == [("failing", "first"), ("recovered", "")]
    assert not sink.health.failing


async def test_one_that_fails_now_and_then_is_told_of_once_an_hour(open_partner: Open, clock: Clock) -> None:
    async with listening(Listener(answer(500)), "127.0.0.1") as partner:
        connection = open_partner(f"http://127.0.0.1:{partner.port}/")
        for _ in range(10):
            for each in (500, 200):
                partner.answer = answer(each)
                await ship(connection, event())
            clock.moment += timedelta(minutes=2)
        assert clock.told() == [("failing", "first"), ("recovered", "")]
        partner.answer = answer(500)
        for _ in range(2):  # this one lasts
            await ship(connection, event())
            clock.moment += timedelta(minutes=1)
        assert clock.told()[2:] == [("failing", "first")]


async def test_a_slower_pace_that_is_asked_for_is_no_failure(open_partner: Open, clock: Clock) -> None:
    async with listening(Listener(answer(429, "Retry-After: 60")), "127.0.0.1") as partner:
        await ship(open_partner(f"http://127.0.0.1:{partner.port}/"), event())
    assert clock.told() == []


# -- the whole hub on a clock that is moved ------------------------------------------------------------


@asynccontextmanager
async def hub_on(
    clock: StandingClock,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    personal: bool = False,
    partner: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> AsyncIterator[HubApp]:
    monkeypatch.setenv("PARTNER_TEST_SECRET", SECRET)
    given = {"url": url, "secret": {"env": "PARTNER_TEST_SECRET"}, "allow_networks": ["127.0.0.0/8"], **partner}
    async with running_hub(
        folder,
        registry_of(load_plugins(allowed={"partners"}), event_types=[plain_event_type(TYPE, personal=personal)]),
        connections={"a": {"type": "partner", "settings": given}},
        subscriptions=[{"name": "a", "types": [TYPE], "to": "a"}],
        settings=settings,
        clock=clock,
    ) as hub:
        yield hub


async def emit(hub: HubApp, count: int = 1) -> None:
    for n in range(count):
        draft = Draft(type=TYPE, source="/test", dedupe_key=str(new_id()), data={"id": str(n), "n": n})
        await hub.commit(UnitOfWork(drafts=[draft]))


async def wait_s(hub: HubApp, clock: StandingClock) -> float:
    """Seconds until the endpoint is asked again."""
    [(due, closed)] = await hub.store.read("SELECT next_due_at, breaker_until FROM destination WHERE id = 'a'")
    return (from_us(max(due, closed)) - clock()).total_seconds()


async def tries(hub: HubApp) -> int:
    [(count,)] = await hub.store.read("SELECT count(*) FROM attempt WHERE destination = 'a'")
    return int(count)


def later(hub: HubApp, clock: StandingClock, seconds: float) -> None:
    clock.advance(seconds)
    assert hub.worker is not None
    hub.worker.wake()


def tried(hub: HubApp, count: int) -> Callable[[], Any]:
    async def condition() -> bool:
        return await tries(hub) == count

    return condition


async def test_the_shipped_schedule_is_kept_to_within_its_jitter_and_then_it_is_a_dead_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h; a breaker that never opens keeps out of it."""
    clock, minute, hour = StandingClock(), 60, 3600
    waits = [5, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour]
    async with (
        listening(Listener(answer(500)), "127.0.0.1") as partner,
        hub_on(clock, tmp_path, monkeypatch, f"http://127.0.0.1:{partner.port}/", breaker={"failures": 100}) as hub,
    ):
        await emit(hub)
        for n, expected in enumerate(waits, 1):
            await eventually(tried(hub, n))
            found = await wait_s(hub, clock)
            assert 0.8 * expected <= found <= 1.2 * expected
            later(hub, clock, found - 0.01)
            assert await wait_s(hub, clock) > 0
            later(hub, clock, 0.01)
        await eventually(tried(hub, 10))

        async def dead() -> Json | None:
            [row] = await views.deliveries(hub.store, destination="a")
            return row if row["state"] == "dead" else None

        assert (await eventually(dead))["reason"] == "tries_spent:http_500"
        assert len(set(map(message_id, partner.heads))) == 1
        assert len(set(map(timestamp, partner.heads))) == 10


def message_id(head: bytes) -> bytes:
    return header(head, b"webhook-id")


def timestamp(head: bytes) -> bytes:
    return header(head, b"webhook-timestamp")


def header(head: bytes, name: bytes) -> bytes:
    return next(line for line in head.split(b"\r\n") if line.startswith(name + b":"))


async def test_five_days_of_outage_kill_nothing_and_end_in_a_switched_off_endpoint_that_a_person_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StandingClock()
    async with (
        listening(Listener(answer(500)), "127.0.0.1") as partner,
        hub_on(
            clock, tmp_path, monkeypatch, f"http://127.0.0.1:{partner.port}/",
            breaker={"failures": 1, "first_s": 5, "max_s": 3600}, retry={"schedule_s": [1], "jitter": 0},
        ) as hub,
    ):  # fmt: skip
        await emit(hub, 3)
        count, longest = 0, 0.0

        async def paused() -> str:
            [(reason,)] = await hub.store.read("SELECT paused_reason FROM destination WHERE id = 'a'")
            return str(reason)

        async def asked_again() -> bool:
            return await tries(hub) > count or bool(await paused())

        while not await paused():
            await eventually(asked_again)
            count = await tries(hub)
            wait = await wait_s(hub, clock)
            longest = max(longest, wait)
            # Probes come at most an hour apart; a day has too many of them for a test, so most are slept over.
            later(hub, clock, max(wait, 0) if wait < 3600 else 6 * 3600)
        assert longest == pytest.approx(3600, abs=5)
        assert await paused() == "failing_too_long"
        rows = await views.deliveries(hub.store, destination="a")
        assert {row["state"] for row in rows} == {"pending"}
        [(spent,)] = await hub.store.read("SELECT sum(tries) FROM queue WHERE destination = 'a'")
        assert spent <= 3, "probes spend no try"
        kinds = [row[0] for row in await hub.store.read("SELECT type FROM event WHERE type LIKE '%endpoint%'")]
        assert [kind.split(".")[3] for kind in kinds] == ["failing", "failing", "disabled"]

        partner.answer = OK
        partner.heads.clear()
        assert await hub.store.pause("destination", "a", None, "", 0)
        later(hub, clock, 7200)

        async def all_delivered() -> bool:
            return {row["state"] for row in await views.deliveries(hub.store, destination="a")} == {"delivered"}

        await eventually(all_delivered)


async def test_what_was_answered_is_shown_masked_and_lies_in_the_ledger_sealed_with_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = b"Canary-7731 is not in our list, phone 0900000001; Authorization: Bearer canary-token-7731"
    head = b"HTTP/1.1 422 X\r\nContent-Length: %d\r\nConnection: close\r\nSet-Cookie: canary-cookie-7731\r\n\r\n"
    async with (
        listening(Listener(head % len(said) + said), "127.0.0.1") as partner,
        hub_on(StandingClock(), tmp_path, monkeypatch, f"http://127.0.0.1:{partner.port}/", personal=True) as hub,
    ):
        draft = Draft(type=TYPE, source="/test", subject="m-1", dedupe_key="1", data={"id": "1", "n": 1})
        await hub.commit(UnitOfWork(drafts=[draft]))
        await eventually(tried(hub, 1))
        [row] = await views.deliveries(hub.store, destination="a")
        id = UUID(row["id"])
        [attempt] = await hub.attempts(id)
        assert attempt["answer"] == "Canary-7731 is not in our list, phone ***; Authorization: ***"
        assert (attempt["status"], attempt["dns_ms"], attempt["tls_ms"]) == (422, None, None)
        assert 0 < attempt["connect_ms"] <= attempt["first_byte_ms"] <= attempt["total_ms"]
        closed = await views.delivery(hub.store, id.bytes)
        assert closed is not None and closed["attempts"][0]["answer"] is None
        files = [file.read_bytes() for file in (tmp_path / "var").glob("*.db*")]
        assert files and not any(b"anary" in each or b"0900000001" in each for each in files)


@ON_BOTH
async def test_what_comes_during_a_pause_of_ten_minutes_is_sent_in_order_once_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    clock, seen = StandingClock(), list[str]()
    async with (
        receiver(seen) as url,
        # One at a time: of several under way at once the network makes an order of its own.
        hub_on(clock, tmp_path, monkeypatch, url, partner={"concurrency": 1}, database_url=database_url) as hub,
    ):
        assert await hub.store.pause("destination", "a", "operator", "", 0)
        owed: list[str] = []
        for minute in range(10):
            drafts = [
                Draft(type=TYPE, source="/test", dedupe_key=f"{minute}-{n}", data={"id": "", "n": n}) for n in range(50)
            ]
            owed += [str(each) for each in (await hub.commit(UnitOfWork(drafts=drafts))).events]
            clock.advance(60)
        assert seen == []
        assert await hub.store.pause("destination", "a", None, "", 0)
        later(hub, clock, 0)

        async def all_arrived() -> bool:
            rows = await hub.store.read("SELECT count(*) FROM delivery WHERE state = 'delivered'")
            return bool(rows[0][0] == 500)

        await eventually(all_arrived, 60)
        assert seen == owed


async def test_nine_endpoints_are_done_while_the_tenth_has_not_answered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By cause, not by time: what hangs holds its own tries and connections and nobody else's."""
    hung: list[asyncio.StreamWriter] = []
    seen: list[str] = []

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung.append(writer)

    async with receiver(seen) as url, open_site(tmp_path) as site, await asyncio.start_server(hang, "127.0.0.1") as bad:
        port = bad.sockets[0].getsockname()[1]
        for n in range(9):
            await run(site.hub, "endpoint", partner="so-noi-vu", endpoint=f"e-{n}", url=url)
        slow = f"http://127.0.0.1:{port}/"
        await run(site.hub, "endpoint", partner="so-noi-vu", endpoint="slow", url=slow, timeout_s=60)

        async def routed() -> bool:
            return len(site.hub.router.subscriptions) == 10

        await eventually(routed, 30)
        events = [await site.publish(f"u-{n}") for n in range(20)]
        await eventually(lambda: len(seen) >= 9 * len(events), 60)
        assert Counter(seen) == dict.fromkeys(events, 9)
        await eventually(lambda: len(hung) == 10, 30)
        states = [row["state"] for row in await views.deliveries(site.hub.store, destination="doi-tac/so-noi-vu.slow")]
        assert len(states) == 20 and "delivered" not in states
        for writer in hung:
            writer.close()
