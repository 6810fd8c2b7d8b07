"""Who is served next: fairness, capacity, priorities, due times, pauses, breakers and send instants."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.model import State, new_id
from hub.retry import SECOND
from hub.store.base import Job, Unit
from tests.ledger import BREAKER, LEASE_S, Desk, fact, owed, settlement

SPACING_10 = int(1_000_000 / (0.97 * 10))


async def many(desk: Desk, destination: str, count: int, **more: object) -> None:
    events = [fact(f"{destination}-{new_id()}", desk.now, [destination], **more) for _ in range(count)]
    await desk.store.commit(Unit(drafts=events))


def destinations(jobs: Sequence[Job]) -> list[str]:
    return [job.destination for job in jobs]


async def test_a_claim_leases_a_row_once_and_numbers_its_lease(desk: Desk) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    assert (job.id, job.lease_no, job.tries, job.crashes) == (id, 1, 0, 0)
    assert await desk.claim() == []
    assert await desk.state(id) == "leased"
    await desk.retry_later(job)
    assert (await desk.claim_one()).lease_no == 2


async def test_a_job_carries_its_event(desk: Desk) -> None:
    draft = fact("k", desk.now, ["a"], content=b'{"n":1}', recipient="m-1", purpose="news")
    await desk.commit(draft)
    job = await desk.claim_one()
    assert (job.event_id, job.content, job.sealed_for) == (draft.event[0], b'{"n":1}', None)
    assert (job.recipient, job.purpose, job.event_type) == ("m-1", "news", draft.event[2])
    assert (job.claimed_at, job.send_at, job.breaker_open) == (desk.now, 0, False)


async def test_rows_claimed_together_keep_their_bytes_apart(desk: Desk) -> None:
    every = bytes(range(256)) * 64
    pairs = [(b"", None), (b"\0\xff\xc3", b"key"), (every, b"\0"), (every + b"\0", None), (b'"\\,]', b"\xff\xff")]
    drafts = [fact(str(i), desk.now, ["a"], content=body, order_key=key) for i, (body, key) in enumerate(pairs)]
    await desk.store.commit(Unit(drafts=drafts))
    jobs = {job.event_id: job for job in await desk.claim()}
    for draft in drafts:
        job, row = jobs[draft.event[0]], draft.deliveries[0]
        assert (job.id, job.content, job.order_key, job.projection) == (
            row.id,
            draft.content[3],
            row.order_key,
            row.projection,
        )
        assert (job.correlation_id, job.batch_id, job.body_sha256) == (draft.event[6], None, None)


async def test_only_what_this_process_has_room_for_is_taken(desk: Desk) -> None:
    await many(desk, "a", 5)
    await many(desk, "b", 5)
    jobs = await desk.claim(capacity={"a": 2, "c": 9})
    assert destinations(jobs) == ["a", "a"]
    assert len(await desk.claim(limit=3)) == 3


async def test_a_backlog_at_one_destination_keeps_nobody_else_from_his_turn(desk: Desk) -> None:
    """With room for four, the backlog of a is served first once; then whoever was served longest ago."""
    await many(desk, "a", 50)
    await many(desk, "b", 3)
    await many(desk, "c", 3)
    served: list[str] = []
    for _ in range(4):
        desk.clock.advance(1)
        served += destinations(await desk.claim(limit=4, capacity={"a": 2, "b": 2, "c": 2}))
    assert served.count("b") == 3 and served.count("c") == 3
    first_eight = served[:8]
    assert {"a", "b", "c"} == set(first_eight)


async def test_the_longest_unserved_destination_goes_first(desk: Desk) -> None:
    order = []
    for destination in ("a", "b", "c"):
        await many(desk, destination, 3)
    for _ in range(6):
        desk.clock.advance(1)
        order += destinations(await desk.claim(limit=1))
    assert sorted(order[:3]) == ["a", "b", "c"]
    assert order[3:] == order[:3]


async def test_a_class_is_emptied_before_the_next_is_touched(desk: Desk) -> None:
    priorities = {await desk.owe_one(priority=priority): priority for priority in (2, 0, 1, 2, 0, 1)}
    claimed = [job.id for _ in range(3) for job in await desk.claim(limit=2)]
    assert [priorities[id] for id in claimed] == [0, 0, 1, 1, 2, 2]


async def test_an_urgent_one_is_claimed_next_while_thousands_wait(desk: Desk) -> None:
    """F16: it is found by its priority, not by its age; the thousands behind it are not looked at."""
    await many(desk, "a", 3000, priority=2)
    desk.clock.advance(60)
    first = await desk.claim(capacity={"a": 5})
    urgent = await desk.owe_one(priority=0)
    (job,) = await desk.claim(capacity={"a": 1})
    assert job.id == urgent and urgent not in {job.id for job in first}


async def test_within_a_class_the_earliest_due_goes_first(desk: Desk) -> None:
    ids = {}
    for ago in (1, 3, 2):
        ids[ago] = await desk.owe_one(due_at=desk.now - ago * SECOND)
    assert [j.id for j in await desk.claim()] == [ids[3], ids[2], ids[1]]


async def test_nothing_is_taken_before_it_is_due_and_the_claim_says_when(desk: Desk) -> None:
    await desk.owe("a", due_at=desk.now + 7 * SECOND)
    looked = await desk.look()
    assert looked.jobs == [] and looked.next_at == desk.now + 7 * SECOND
    desk.clock.advance(7)
    assert len(await desk.claim()) == 1
    assert (await desk.look()).next_at == 2**62


async def test_a_destination_without_room_is_no_reason_to_look_again(desk: Desk) -> None:
    """Else a worker with one slow destination asks the ledger fifty times a second."""
    await many(desk, "a", 5)
    assert (await desk.look(capacity={"a": 2})).next_at == 2**62
    assert (await desk.look(capacity={"b": 2})).next_at == 2**62


async def test_not_before_holds_a_whole_destination_and_nothing_else(desk: Desk) -> None:
    await many(desk, "a", 3)
    await many(desk, "b", 1)
    job = next(j for j in await desk.claim(limit=2, capacity={"a": 1, "b": 1}) if j.destination == "a")
    until = desk.now + 30 * SECOND
    await desk.retry_later(job, spends_try=False, not_before_us=until)
    assert await desk.claim() == []
    assert (await desk.look()).next_at == until
    desk.clock.advance(30)
    assert destinations(await desk.claim()) == ["a"] * 3


async def test_an_earlier_not_before_does_not_shorten_a_later_one(desk: Desk) -> None:
    await many(desk, "a", 2)
    one, two = await desk.claim()
    await desk.retry_later(one, spends_try=False, not_before_us=desk.now + 60 * SECOND)
    await desk.retry_later(two, spends_try=False, not_before_us=desk.now + 5 * SECOND)
    desk.clock.advance(30)
    assert await desk.claim() == []


async def test_a_pause_asked_for_the_connection_holds_all_its_destinations(desk: Desk) -> None:
    await desk.configure("p/one", "p/two", "q")
    for destination in ("p/one", "p/two", "q"):
        await desk.owe(destination)
    jobs = {j.destination: j for j in await desk.claim(capacity={"p/one": 1})}
    until = desk.now + 30 * SECOND
    await desk.retry_later(
        jobs["p/one"], spends_try=False, connection="p", not_before_us=until, not_before_for="connection"
    )
    assert destinations(await desk.claim()) == ["q"]
    desk.clock.advance(30)
    assert sorted(destinations(await desk.claim())) == ["p/one", "p/two"]


@pytest.mark.parametrize(("kind", "name"), [("destination", "p/one"), ("connection", "p")])
async def test_a_pause_is_one_row_and_resuming_gives_everything_back(desk: Desk, kind: str, name: str) -> None:
    await desk.configure("p/one", "p/two")
    await many(desk, "p/one", 4)
    assert await desk.store.pause(kind, name, "operator", "maintenance", desk.now)
    assert await desk.claim() == []
    await desk.owe("p/one")
    assert await desk.claim() == []
    assert (await desk.look()).next_at == 2**62
    assert await desk.store.pause(kind, name, None, "", desk.now)
    assert len(await desk.claim()) == 5
    assert not await desk.store.pause(kind, "nobody", "operator", "", desk.now)


async def test_the_first_pause_keeps_its_reason_and_the_hubs_own_opens_one_repair(desk: Desk) -> None:
    for by, reason in (("hub", "gone"), ("operator", "later")):
        assert await desk.store.pause("destination", "a", by, reason, desk.now)
    rows = await desk.store.read("SELECT paused_by, paused_reason FROM destination WHERE id = 'a'")
    assert rows == [("hub", "gone")]
    assert await desk.repairs() == [("destination_paused", "a")]
    await desk.store.pause("destination", "a", None, "", desk.now)
    assert await desk.repairs() == []


async def test_a_refusal_of_the_whole_destination_pauses_it_and_puts_the_delivery_back(desk: Desk) -> None:
    id = await desk.owe_one()
    await desk.settle(await desk.claim_one(), State.PENDING, "gone", spends_try=False, pause="destination")
    assert await desk.state(id) == "pending(gone)" and (await desk.row(id))["tries"] == 0
    assert await desk.claim() == []
    assert await desk.repairs() == [("destination_paused", "a")]


async def test_a_held_ledger_gives_nothing_to_anybody(desk: Desk) -> None:
    await many(desk, "a", 2)
    await desk.store.hold("restored")
    assert await desk.store.held() == "restored"
    assert await desk.claim() == []
    await desk.store.hold(None)
    assert await desk.store.held() is None
    assert len(await desk.claim()) == 2


# -- the breaker -------------------------------------------------------------------------------------


async def fail(desk: Desk, count: int, **more: object) -> None:
    """That many tries of a fail in one batch."""
    await many(desk, "a", count)
    due = desk.now + 1000 * SECOND
    said = [settlement(job, State.PENDING, "down", due_us=due, health=1) for job in await desk.claim()]
    assert all(await desk.store.settle(said, desk.now))


async def breaker(desk: Desk) -> tuple[int, float]:
    """Failures on record, and for how many seconds the breaker stays open."""
    [(failures, until)] = await desk.store.read("SELECT failures, breaker_until FROM destination WHERE id = 'a'")
    return failures, (until - desk.now) / SECOND if until else 0.0


async def test_a_breaker_opens_at_its_threshold_and_one_success_before_clears_the_count(desk: Desk) -> None:
    await fail(desk, BREAKER.failures - 1)
    assert await breaker(desk) == (2, 0)
    id = await desk.owe_one()
    await desk.settle(await desk.claim_one(), State.DELIVERED, health=-1)
    assert await desk.state(id) == "delivered" and (await breaker(desk))[0] == 0
    await fail(desk, BREAKER.failures)
    assert await breaker(desk) == (3, 5.0)


async def test_many_failures_at_once_open_the_breaker_for_its_first_pause_only(desk: Desk) -> None:
    """Twenty tries in flight when a partner goes down are one outage, not twenty steps of the pause."""
    await fail(desk, 20)
    assert await breaker(desk) == (BREAKER.failures, BREAKER.first_s)


async def test_tries_that_were_under_way_when_it_opened_do_not_prolong_it(desk: Desk) -> None:
    await many(desk, "a", 6)
    jobs = await desk.claim()
    for job in jobs[:3]:
        await desk.retry_later(job, after_s=1000, health=1)
    desk.clock.advance(1)
    for job in jobs[3:]:
        await desk.retry_later(job, after_s=1000, health=1)
    assert await breaker(desk) == (3, 4.0)


async def test_an_open_breaker_lets_one_probe_through_and_each_failed_one_doubles_the_pause(desk: Desk) -> None:
    await fail(desk, 3)
    await many(desk, "a", 5)
    pauses = []
    for _ in range(6):
        opened = (await breaker(desk))[1]
        pauses.append(opened)
        desk.clock.advance(opened - 0.001)
        assert await desk.claim() == []
        desk.clock.advance(0.001)
        probe = await desk.claim_one()
        assert probe.breaker_open
        assert await desk.claim() == [], "one probe at a time"
        await desk.retry_later(probe, spends_try=False, health=1)
    assert pauses == [5, 10, 20, 40, 60, 60]


async def test_a_probe_that_arrives_makes_everything_due_at_once_in_its_order(desk: Desk) -> None:
    await fail(desk, 3)
    held = [id for (id,) in await desk.store.read("SELECT id FROM queue ORDER BY seq")]
    extra = await desk.owe_one(priority=0)
    desk.clock.advance(5)
    probe = await desk.claim_one()
    assert probe.id == extra
    await desk.settle(probe, State.DELIVERED, health=-1)
    assert await breaker(desk) == (0, 0)
    assert [j.id for j in await desk.claim()] == held


async def test_what_was_tried_before_the_outage_goes_before_what_came_during_it(desk: Desk) -> None:
    await fail(desk, 3)
    desk.clock.advance(1)
    await many(desk, "a", 3)
    in_order = [id for (id,) in await desk.store.read("SELECT id FROM queue ORDER BY seq")]
    desk.clock.advance(4)
    probe = await desk.claim_one()
    await desk.settle(probe, State.DELIVERED, health=-1)
    assert [j.id for j in await desk.claim()] == [id for id in in_order if id != probe.id]


async def test_probes_that_failed_go_by_when_they_were_owed_too(desk: Desk) -> None:
    """They went to the back of the line, so that one that can never arrive does not keep the others from asking."""
    await fail(desk, 3)
    await many(desk, "a", 3)
    in_order = [id for (id,) in await desk.store.read("SELECT id FROM queue ORDER BY seq")]
    asked = []
    for _ in range(3):
        desk.clock.advance(60)
        probe = await desk.claim_one()
        asked.append(probe.id)
        desk.clock.advance(1)
        await desk.retry_later(probe, spends_try=False, health=1)
        await desk.owe_one()
    assert len(set(asked)) == 3, "each asks once before one asks again"
    desk.clock.advance(60)
    probe = await desk.claim_one()
    await desk.settle(probe, State.DELIVERED, health=-1)
    late = [id for (id,) in await desk.store.read("SELECT id FROM queue ORDER BY seq")]
    assert late[:5] == [id for id in in_order if id != probe.id]
    assert [j.id for j in await desk.claim()] == late


@pytest.mark.parametrize(("kind", "name"), [("destination", "a"), ("connection", "a")])
async def test_what_a_pause_put_back_goes_before_what_came_during_it(desk: Desk, kind: str, name: str) -> None:
    await many(desk, "a", 3)
    in_order = [id for (id,) in await desk.store.read("SELECT id FROM queue ORDER BY seq")]
    jobs = await desk.claim()
    assert await desk.store.pause(kind, name, "hub", "gone", desk.now)
    for job in jobs[1:]:
        desk.clock.advance(1)
        await desk.owe_one()
        await desk.settle(job, State.PENDING, "gone", due_us=desk.now, spends_try=False)
    later = desk.now + 3600 * SECOND
    await desk.settle(jobs[0], State.PENDING, "http_500", due_us=later)
    in_order += [id for (id,) in await desk.store.read("SELECT id FROM queue ORDER BY seq")][3:]
    desk.clock.advance(60)
    assert await desk.store.pause(kind, name, None, "", desk.now)
    assert [j.id for j in await desk.claim()] == in_order[1:]
    assert await desk.store.read("SELECT due_at FROM queue WHERE id = ?", (in_order[0],)) == [(later,)]


async def test_a_probe_that_was_never_sent_lets_the_next_one_ask(desk: Desk) -> None:
    """A cancelled delivery says nothing of the partner; the others must not wait for its lease to run out."""
    await fail(desk, 3)
    await many(desk, "a", 2)
    desk.clock.advance(5)
    await desk.settle(await desk.claim_one(), State.CANCELLED, "no_address", spends_try=False, attempt=None)
    assert (await desk.claim_one()).breaker_open


async def test_a_lost_probe_holds_the_others_no_longer_than_its_lease(desk: Desk) -> None:
    await fail(desk, 3)
    await many(desk, "a", 2)
    desk.clock.advance(5)
    await desk.claim_one()
    desk.clock.advance(LEASE_S)
    assert len(await desk.claim()) == 1


# -- pace --------------------------------------------------------------------------------------------


def most_in_a_second(instants: Sequence[int]) -> int:
    ordered = sorted(instants)
    return max(sum(start <= i <= start + SECOND for i in ordered) for start in ordered)


async def test_a_pace_of_ten_a_second_is_never_more_than_eleven_in_any_second(desk: Desk) -> None:
    """On a virtual clock: asked at odd moments, two processes, once after a long idle time."""
    await desk.configure("a", rates={"a": SPACING_10})
    await many(desk, "a", 120)
    instants: list[int] = []
    boots = [b"one".ljust(16), b"two".ljust(16)]
    for step in range(400):
        desk.boot = boots[step % 2]
        instants += [j.send_at for j in await desk.claim()]
        desk.clock.advance(30 if step == 25 else 0.037)
    assert len(instants) == len(set(instants)) == 120
    assert most_in_a_second(instants) <= 11
    gaps = [b - a for a, b in zip(sorted(instants), sorted(instants)[1:], strict=False)]
    assert min(gaps) == SPACING_10


@given(steps=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=30), spacing=st.integers(1_000, 4_000_000))
@settings(deadline=None)
def test_instants_never_come_closer_than_the_spacing(steps: list[int], spacing: int) -> None:
    """The arithmetic alone, over any sequence of claims."""
    from hub.store.ops.claim import _first_instant, _instants

    now, following, given_out = 10**15, 0, []
    for step in steps:
        now += step
        room = _instants(now, following, spacing)
        first = _first_instant(now, following, spacing)
        given_out += [first + i * spacing for i in range(room)]
        if room:
            assert given_out[-1] < now + SECOND and given_out[-room] >= now
            following = first + room * spacing
    assert all(b - a >= spacing for a, b in itertools.pairwise(given_out))


async def test_a_missed_instant_is_not_made_up(desk: Desk) -> None:
    await desk.configure("a", rates={"a": SPACING_10})
    await many(desk, "a", 50)
    assert len(await desk.claim()) == 10
    desk.clock.advance(3600)
    assert len(await desk.claim()) == 10


async def test_a_paced_destination_says_when_its_next_instants_are_free(desk: Desk) -> None:
    await desk.configure("a", rates={"a": SPACING_10})
    await many(desk, "a", 50)
    looked = await desk.look()
    wait = (looked.next_at - desk.now) / SECOND
    assert 0.4 < wait < 0.6
    desk.clock.advance(wait)
    assert len(await desk.claim()) in (5, 6)


async def test_a_clock_set_back_does_not_silence_a_paced_destination(desk: Desk) -> None:
    await desk.configure("a", rates={"a": SPACING_10})
    await many(desk, "a", 10)
    await desk.claim()
    desk.clock.advance(-7200)
    await many(desk, "a", 3)
    assert len(await desk.claim()) == 3


async def test_what_was_in_flight_at_a_crash_keeps_to_the_pace_too(desk: Desk) -> None:
    await desk.configure("a", rates={"a": SPACING_10})
    await many(desk, "a", 40)
    instants = [j.send_at for j in await desk.claim()]
    await desk.crash()
    for _ in range(100):
        for job in await desk.claim():
            assert job.send_at
            instants.append(job.send_at)
            await desk.settle(job, State.DELIVERED)
        desk.clock.advance(0.05)
    assert len(instants) == 10 + 40
    assert most_in_a_second(instants) <= 11


async def test_more_than_one_delivery_of_an_event_fits_a_unit(desk: Desk) -> None:
    draft = fact("k", desk.now)
    rows = [owed(draft.event[0], "a", desk.now, recipient=f"m-{i}") for i in range(500)]
    await desk.store.commit(Unit(drafts=[draft], deliveries=rows))
    assert len({j.id for j in await desk.claim(limit=1000, capacity={"a": 1000})}) == 500
