"""From a commit to the end of a delivery, through the shipped worker, on a clock that stands."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from hub import views, worker
from hub.app import HubApp
from hub.contract import (
    Accepted,
    Admission,
    Admit,
    Cancel,
    Connection,
    Delivered,
    Guard,
    Hold,
    Outcome,
    Refused,
    RetryLater,
    Scope,
    Shipment,
    UnitOfWork,
    Unknown,
)
from hub.errors import InputError
from hub.model import Event, Receipt, to_us
from hub.sql import query
from hub.testing import RecordingSink, StandingClock, eventually
from tests.flow.conftest import (
    ON_BOTH,
    PERSONAL,
    SCHEDULE,
    Blocked,
    Site,
    check_books,
    emit,
    later,
    reach,
    states,
    subscription,
)

pytestmark = ON_BOTH
BUSY = RetryLater(reason="busy")


async def shipped(sink: RecordingSink, count: int) -> list[Shipment]:
    await eventually(lambda: len(sink.shipments) >= count)
    assert len(sink.shipments) == count
    return sink.shipments


async def test_an_event_reaches_each_subscriber_once_with_its_own_fields(site: Site) -> None:
    thin, more, other = site.sink("thin"), site.sink("more", subscribe={"fields": ["secret"]}), site.sink("other")
    site.subscriptions[2]["types"] = ["vn.congdoan.person.*"]
    async with site.running() as hub:
        [event] = await emit(hub)
        await reach(hub, ["delivered"] * 2)
        assert [str(s.event.id) for s in (*thin.shipments, *more.shipments)] == [event] * 2
        assert thin.shipments[0].event.data == {"id": "0", "n": 0}
        assert more.shipments[0].event.data == {"id": "0", "n": 0, "secret": "s"}
        assert other.shipments == []
        assert thin.shipments[0].event.source == hub.config.hub.source + "/test"


async def test_two_subscriptions_to_one_destination_owe_it_once(site: Site) -> None:
    sink = site.sink("alpha", subscribe={"fields": ["secret"]})
    site.subscriptions.append(subscription("again", to="alpha", types=["vn.congdoan.thing.*"]))
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["delivered"])
        assert [s.event.data["secret"] for s in sink.shipments] == ["s"]


async def test_a_backlog_drains_without_anybody_looking_now_and_then(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "POLL_S", 3600.0)
    sink = site.sink("alpha", concurrency=20)

    async def in_some_turns(shipment: Shipment) -> Outcome:
        for _ in range(shipment.event.data["n"] % 50):  # so that tries end one by one
            await asyncio.sleep(0)
        return Delivered()

    sink.script = [in_some_turns] * 2500
    async with site.running(start=False) as hub:
        await emit(hub, 2500)
        await hub.start()
        await shipped(sink, 2500)


# -- retries -----------------------------------------------------------------------------------------


async def test_the_schedule_is_kept_to_and_every_try_sends_the_same_bytes(
    hub: HubApp, alpha: RecordingSink, clock: StandingClock
) -> None:
    alpha.script = [BUSY, BUSY, RetryLater(reason="timeout", ambiguous=True)]
    await emit(hub)
    for n, wait in enumerate(SCHEDULE, 1):
        await reach(hub, ["pending(busy)" if n < 3 else "pending(timeout)"])
        [row] = await views.deliveries(hub.store)
        assert row["due_at"] == views.show_time(to_us(clock() + timedelta(seconds=wait)))
        later(hub, clock, wait - 0.001)
        assert (await hub.store.read("SELECT next_due_at FROM destination WHERE id = 'alpha'"))[0][0] > to_us(clock())
        assert len(alpha.shipments) == n
        later(hub, clock, 0.001)
        await shipped(alpha, n + 1)
    await reach(hub, ["delivered"])
    assert len({(s.delivery_id, s.event.id, s.body) for s in alpha.shipments}) == 1
    assert [s.try_no for s in alpha.shipments] == [1, 2, 3, 4]
    found = await views.delivery(hub.store, alpha.shipments[0].delivery_id.bytes)
    assert found is not None
    assert [a["outcome"] for a in found["attempts"]] == ["retry_later", "retry_later", "ambiguous", "delivered"]


async def test_after_the_last_wait_it_is_a_dead_letter_and_can_be_replayed(
    hub: HubApp, alpha: RecordingSink, clock: StandingClock
) -> None:
    alpha.script = [BUSY] * 4
    await emit(hub)
    for n, wait in enumerate(SCHEDULE, 1):
        await shipped(alpha, n)
        await reach(hub, ["pending(busy)"])
        later(hub, clock, wait)
    await reach(hub, ["dead(tries_spent:busy)"])
    [dead] = await views.deliveries(hub.store)
    from hub.commands import COMMANDS

    replay = next(c for c in COMMANDS if (c.group, c.name) == ("deliveries", "replay"))
    await replay.run(hub, replay.params(id=dead["id"]), lambda said: None)
    await reach(hub, ["dead(tries_spent:busy)", "delivered"])
    assert alpha.shipments[-1].body == alpha.shipments[0].body
    assert alpha.shipments[-1].delivery_id != alpha.shipments[0].delivery_id


async def test_what_the_partner_asks_for_holds_the_whole_destination(
    hub: HubApp, alpha: RecordingSink, clock: StandingClock
) -> None:
    alpha.script = [RetryLater(reason="throttled", after=timedelta(seconds=60), scope=Scope.DESTINATION)]
    await emit(hub)
    await reach(hub, ["pending(throttled)"])
    await emit(hub, 3)
    later(hub, clock, 59)
    assert (await states(hub)).count("pending") == 3 and len(alpha.shipments) == 1
    later(hub, clock, 1)
    await reach(hub, ["delivered"] * 4)


async def test_what_was_claimed_behind_a_pause_is_given_back_unsent(site: Site, clock: StandingClock) -> None:
    sink = site.sink("alpha", concurrency=1)
    sink.script = [Refused(reason="gone", scope=Scope.DESTINATION)]
    async with site.running() as hub:
        await emit(hub, 2)
        await reach(hub, ["pending(gone)", "pending(stopped)"])
        assert len(sink.shipments) == 1
        assert [r["kind"] for r in await views.repairs(hub.store)] == ["destination_paused"]
        await hub.store.pause("destination", "alpha", None, "", to_us(clock()))
        later(hub, clock, 0)
        await reach(hub, ["delivered"] * 2)
        assert await views.repairs(hub.store) == []


# -- what a try may end in ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "safe", "expected"),
    [
        (Delivered(), True, "delivered"),
        (Delivered(), False, "delivered"),
        (Accepted(refs=("r1",), receipt_within=timedelta(hours=1)), False, "accepted"),
        (Refused(reason="bad_number"), False, "dead(bad_number)"),
        (Refused(reason="bad_number", scope=Scope.RECIPIENT), True, "dead(bad_number)"),
        (Unknown(reason="no_answer"), False, "unknown(no_answer)"),
        (RetryLater(reason="timeout", ambiguous=True), False, "unknown(timeout)"),
        (RetryLater(reason="timeout", ambiguous=True), True, "pending(timeout)"),
        (BUSY, False, "pending(busy)"),
    ],
)
async def test_an_outcome_becomes_a_state(site: Site, outcome: Outcome, safe: bool, expected: str) -> None:
    sink = site.sink("alpha", resend_is_safe=safe)
    sink.script = [outcome]
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, [expected])
        assert len(sink.shipments) == 1


@pytest.mark.parametrize(("safe", "expected"), [(True, "leased"), (False, "sending")])
async def test_sending_is_on_disk_before_the_first_byte_where_a_resend_is_unsafe(
    site: Site, safe: bool, expected: str
) -> None:
    sink = site.sink("alpha", resend_is_safe=safe)
    seen: list[str] = []

    async def look(shipment: Shipment) -> Outcome:
        seen.extend(state for (state,) in await hub.store.read("SELECT state FROM queue"))
        return Delivered()

    sink.script = [look]
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["delivered"])
    assert seen == [expected]


async def test_a_receipt_ends_what_was_accepted_in_its_connections_name(site: Site) -> None:
    sink = site.sink("alpha", resend_is_safe=False)

    async def accept(shipment: Shipment) -> Outcome:
        await shipment.record_refs(["r1"], of_parts=2)
        await hub.commit(UnitOfWork(receipts=[Receipt(ref="r2", state="delivered")]), connection="alpha")
        return Accepted(refs=("r1", "r2"), receipt_within=timedelta(hours=1))

    sink.script = [accept]
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["accepted"])
        await hub.commit(UnitOfWork(receipts=[Receipt(ref="r1", state="delivered")]), connection="another")
        assert await states(hub) == ["accepted"]
        await hub.commit(UnitOfWork(receipts=[Receipt(ref="r1", state="delivered")]), connection="alpha")
        assert await states(hub) == ["delivered"]


async def test_a_receipt_of_an_unheard_of_kind_is_refused(hub: HubApp) -> None:
    with pytest.raises(Exception, match="a receipt is one of"):
        await hub.commit(UnitOfWork(receipts=[Receipt(ref="r1", state="perhaps")]), connection="alpha")


# -- admission, expiry, grants -----------------------------------------------------------------------

ONCE = query(text("INSERT INTO once (campaign) VALUES (:campaign)"))
CREATE = query(text("CREATE TABLE once (campaign TEXT PRIMARY KEY)"))


@pytest.mark.parametrize("where", ["source", "subject", "scope", "purpose"])
async def test_a_text_that_one_engine_cannot_hold_is_refused_on_both(hub: HubApp, where: str) -> None:
    with pytest.raises(InputError, match="NUL"):
        await emit(hub, **{where: "a\0b"})
    assert await hub.store.read("SELECT count(*) FROM event") == [(0,)]


@pytest.mark.parametrize("safe", [True, False])
async def test_the_guards_of_admission_let_one_through_and_cancel_the_others(site: Site, safe: bool) -> None:
    sink = site.sink("alpha", resend_is_safe=safe)
    guard = Guard(ONCE(campaign="tet"), otherwise="same_recipient")
    sink.admit_with = lambda shipment: Admit([guard])
    async with site.running() as hub:
        await hub.commit(UnitOfWork(statements=[CREATE()]))
        await emit(hub, 5)
        await reach(hub, ["delivered"] + ["cancelled(same_recipient)"] * 4)
        assert len(sink.shipments) == 1


async def test_what_is_held_until_later_spends_no_try(hub: HubApp, alpha: RecordingSink, clock: StandingClock) -> None:
    answers: list[Admission] = [Hold(clock() + timedelta(hours=8), "quiet_hours"), Admit()]
    alpha.admit_with = lambda shipment: answers.pop(0)
    await emit(hub)
    await reach(hub, ["pending(quiet_hours)"])
    later(hub, clock, 8 * 3600)
    await reach(hub, ["delivered"])
    assert [s.try_no for s in alpha.shipments] == [1]


async def test_what_need_not_be_sent_is_cancelled_with_its_reason(hub: HubApp, alpha: RecordingSink) -> None:
    alpha.admit_with = lambda shipment: Cancel("opted_out")
    await emit(hub)
    await reach(hub, ["cancelled(opted_out)"])
    assert alpha.shipments == []


async def test_expiry_is_looked_at_again_before_the_first_byte(site: Site, clock: StandingClock) -> None:
    """It was claimed in time, then waited behind a slow one."""
    sink = site.sink("alpha", concurrency=1)
    slow = Blocked(Delivered())
    sink.script = [slow]
    async with site.running() as hub:
        await emit(hub)
        await eventually(lambda: slow.waiting)
        await emit(hub, expires_at=clock() + timedelta(seconds=5))
        await reach(hub, ["leased", "leased"])
        clock.advance(5)
        slow.let_go.set()
        await reach(hub, ["delivered", "dead(expired)"])
        assert len(sink.shipments) == 1


async def test_what_expires_while_its_destination_is_paused_is_dead_and_never_sent(
    hub: HubApp, alpha: RecordingSink, clock: StandingClock
) -> None:
    await hub.store.pause("connection", "alpha", "operator", "", to_us(clock()))
    await emit(hub, 3, expires_at=clock() + timedelta(seconds=5))
    clock.advance(5)
    await reach(hub, ["dead(expired)"] * 3)
    assert alpha.shipments == []


class Restless(RecordingSink):
    """Its body depends on more than the event, which a sink's must not."""

    def render(self, event: Event) -> bytes:
        return b"%d" % len(self.shipments)


async def test_a_body_that_would_differ_from_the_first_try_is_never_sent(site: Site, clock: StandingClock) -> None:
    site.sink("alpha")
    sink = Restless(script=[BUSY])
    site.parts["alpha"] = Connection(sink=sink)
    async with site.running() as hub:
        await emit(hub)
        await reach(hub, ["pending(busy)"])
        later(hub, clock, SCHEDULE[0])
        await reach(hub, ["dead(body_changed)"])
        assert len(sink.shipments) == 1


async def test_a_grant_that_ended_cancels_what_was_owed_under_it(site: Site, clock: StandingClock) -> None:
    sink = site.sink("alpha", subscribe={"fields": ["secret"]})
    async with site.running() as hub:
        await hub.store.pause("connection", "alpha", "operator", "", to_us(clock()))
        await emit(hub, 2)
    site.subscriptions[0]["fields"] = []
    async with site.running() as hub:
        await hub.store.pause("connection", "alpha", None, "", to_us(clock()))
        await emit(hub)
        await reach(hub, ["cancelled(grant_ended)"] * 2 + ["delivered"])
        assert [s.event.data for s in sink.shipments] == [{"id": "0", "n": 0}]
        await check_books(hub.store)


async def test_more_in_a_subscription_leaves_older_deliveries_as_they_were_pinned(
    site: Site, clock: StandingClock
) -> None:
    sink = site.sink("alpha")
    async with site.running() as hub:
        await hub.store.pause("connection", "alpha", "operator", "", to_us(clock()))
        await emit(hub)
    site.subscriptions[0]["fields"] = ["secret"]
    async with site.running() as hub:
        await hub.store.pause("connection", "alpha", None, "", to_us(clock()))
        later(hub, clock, 0)
        await reach(hub, ["delivered"])
        assert sink.shipments[0].event.data == {"id": "0", "n": 0}


async def test_an_erased_person_is_not_sent_about(site: Site, clock: StandingClock) -> None:
    sink = site.sink("alpha")
    async with site.running() as hub:
        await hub.store.pause("connection", "alpha", "operator", "", to_us(clock()))
        await emit(hub, type=PERSONAL, subject="m-1")
        await emit(hub, type=PERSONAL, subject="m-2")
        erase = query(text("UPDATE subject_key SET wrapped = NULL, erased_at = 1 WHERE subject = 'm-1'"))
        await hub.commit(UnitOfWork(statements=[erase()]))
        content = await hub.store.read("SELECT body FROM content")
        assert all(b'"id"' not in body for (body,) in content), "personal content is sealed"
    async with site.running() as hub:
        await hub.store.pause("connection", "alpha", None, "", to_us(clock()))
        later(hub, clock, 0)
        await reach(hub, ["cancelled(erased)", "delivered"])
        assert [s.event.subject for s in sink.shipments] == ["m-2"]
