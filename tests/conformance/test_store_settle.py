"""The end of a try: every outcome, the fence against late ones, crashes and what they leave behind."""

from __future__ import annotations

import pytest

from hub.contract import Guard
from hub.errors import Conflict
from hub.model import State, new_id
from hub.retry import SECOND
from hub.store.base import AttemptRow, Unit
from tests.conformance.test_store_commit import CREATE, put
from tests.ledger import UNRESOLVED_S, Desk, settlement

PLAIN = [
    (State.DELIVERED, ""),
    (State.DEAD, "refused"),
    (State.PENDING, "busy"),
    (State.ACCEPTED, ""),
    (State.UNKNOWN, "no_answer"),
]


async def test_a_start_is_durable_and_belongs_to_its_lease(desk: Desk) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    assert not await desk.store.start(id, job.lease_no + 1, b"sha", [])
    assert await desk.store.start(id, job.lease_no, b"sha", [])
    assert await desk.state(id) == "sending"
    assert not await desk.store.start(id, job.lease_no, b"sha", []), "a started one is not started again"


async def test_the_guards_of_a_start_commit_with_it_or_not_at_all(desk: Desk) -> None:
    await desk.store.commit(Unit(statements=[CREATE()]))
    ids = await desk.owe("a", "b")
    jobs = await desk.claim()
    guard = [Guard(put("campaign and phone"), otherwise="same_recipient")]
    assert await desk.store.start(jobs[0].id, jobs[0].lease_no, b"sha", guard)
    with pytest.raises(Conflict) as caught:
        await desk.store.start(jobs[1].id, jobs[1].lease_no, b"sha", guard)
    assert caught.value.otherwise == "same_recipient"
    assert sorted([await desk.state(id) for id in ids]) == ["leased", "sending"]


@pytest.mark.parametrize(
    ("started", "state", "reason"),
    [(s, *plain) for s in (False, True) for plain in PLAIN] + [(False, State.CANCELLED, "no_address")],
)
async def test_a_settlement_moves_the_row_and_appends_its_attempt(
    desk: Desk, started: bool, state: State, reason: str
) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    if started:
        assert await desk.store.start(id, job.lease_no, b"sha", [])
    assert await desk.settle(job, state, reason, due_us=desk.now + 9 * SECOND, body_sha256=b"sha")
    row = await desk.row(id)
    assert (row["state"], row["reason"], row["tries"], row["lease_no"]) == (state, reason, 1, 1)
    final = state in (State.DELIVERED, State.DEAD, State.CANCELLED)
    assert row["due_at"] == (None if final else desk.now + 9 * SECOND)
    assert await desk.attempts(id) == [state.value]
    columns = "SELECT lease_owner, lease_until FROM queue"
    assert await desk.store.read(columns) == ([] if final else [(None, None)])


async def test_a_whole_batch_is_settled_each_by_its_own_outcome(desk: Desk) -> None:
    for _ in range(30):
        await desk.owe_one()
    jobs = await desk.claim()
    states = [State.DELIVERED, State.DEAD, State.PENDING, State.UNKNOWN, State.CANCELLED]
    said = [settlement(job, states[i % 5], "r" if i % 5 else "") for i, job in enumerate(jobs)]
    assert await desk.store.settle(said, desk.now) == [True] * 30
    assert [(await desk.row(job.id))["state"] for job in jobs] == [states[i % 5] for i in range(30)]


async def test_a_try_that_is_not_spent_is_not_counted(desk: Desk) -> None:
    id = await desk.owe_one()
    for spent in (True, False, True):
        await desk.retry_later(await desk.claim_one(), spends_try=spent)
    assert (await desk.row(id))["tries"] == 2
    assert len(await desk.attempts(id)) == 3


async def test_what_was_seen_on_the_wire_is_kept_with_the_attempt(desk: Desk) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    seen = AttemptRow(desk.now - 5, desk.now, "delivered", "", 200, 1, 2, 3, b"2 bytes")
    await desk.settle(job, State.DELIVERED, attempt=seen)
    sql = (
        "SELECT lease_no, destination, started_at, finished_at, outcome, reason, status, connect_us, first_byte_us,"
        " total_us, answer FROM attempt WHERE delivery_id = ?"
    )
    assert await desk.store.read(sql, (id,)) == [
        (1, "a", desk.now - 5, desk.now, "delivered", "", 200, 1, 2, 3, b"2 bytes")
    ]


async def test_the_body_is_pinned_by_its_first_try(desk: Desk) -> None:
    await desk.owe("a")
    await desk.retry_later(await desk.claim_one(), body_sha256=b"first")
    await desk.retry_later(await desk.claim_one(), body_sha256=b"second")
    assert (await desk.claim_one()).body_sha256 == b"first"


# -- the fence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "reason"), PLAIN)
@pytest.mark.parametrize("reclaimed", [False, True])
async def test_a_settle_after_a_take_over_is_refused(desk: Desk, state: State, reason: str, reclaimed: bool) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    await desk.crash()
    if reclaimed:
        assert (await desk.claim_one()).lease_no == job.lease_no + 1
    before = await desk.row(id)
    assert not await desk.settle(job, state, reason, refs=("r1",), of_parts=1, not_before_us=desk.now * 2, health=1)
    assert await desk.row(id) == before
    assert await desk.attempts(id) == ["lost"]
    assert await desk.store.read("SELECT count(*) FROM provider_ref") == [(0,)]
    assert await desk.store.read("SELECT not_before, failures FROM destination WHERE id = 'a'") == [(0, 0)]


async def test_the_second_of_two_settles_is_refused_in_one_batch_or_two(desk: Desk) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    done = settlement(job, State.DELIVERED)
    await desk.store.settle([done, settlement(job, State.DEAD, "late")], desk.now)
    assert await desk.store.settle([done, settlement(job, State.DELIVERED)], desk.now) == [False, False]
    assert await desk.state(id) == "delivered" and await desk.attempts(id) == ["delivered"]


async def test_an_old_and_a_current_settle_in_one_batch_settle_once(desk: Desk) -> None:
    id = await desk.owe_one()
    old = await desk.claim_one()
    await desk.crash()
    current = await desk.claim_one()
    said = [settlement(current, State.DELIVERED), settlement(old, State.DELIVERED)]
    assert await desk.store.settle(said, desk.now) == [True, False]
    assert await desk.state(id) == "delivered" and await desk.attempts(id) == ["lost", "delivered"]


async def test_refused_settles_leave_the_others_of_their_batch_standing(desk: Desk) -> None:
    ids = [await desk.owe_one() for _ in range(4)]
    jobs = await desk.claim()
    await desk.settle(jobs[1], State.DEAD, "first")
    ok = await desk.store.settle([settlement(j, State.DELIVERED) for j in jobs], desk.now)
    assert ok == [True, False, True, True]
    assert [await desk.state(id) for id in ids] == ["delivered", "dead(first)", "delivered", "delivered"]


async def test_nothing_can_be_settled_that_was_never_claimed(desk: Desk) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    await desk.retry_later(job)
    assert not await desk.settle(job, State.DELIVERED)
    assert await desk.state(id) == "pending(busy)"


# -- crashes -----------------------------------------------------------------------------------------


async def test_a_crash_gives_leased_rows_back_and_makes_started_ones_unknown(desk: Desk) -> None:
    leased, started = await desk.owe_one(), await desk.owe_one()
    await desk.claim()
    assert await desk.store.start(started, 1, b"sha", [])
    assert await desk.crash() == 2
    assert await desk.state(leased) == "pending(crashed)"
    assert await desk.state(started) == "unknown(crashed_while_sending)"
    for id in (leased, started):
        assert await desk.attempts(id) == ["lost"]
        assert (await desk.row(id))["crashes"] == 1 and (await desk.row(id))["tries"] == 0
    assert (await desk.row(started))["due_at"] == desk.now + int(UNRESOLVED_S * SECOND)


async def test_a_process_never_takes_over_its_own_leases(desk: Desk) -> None:
    id = await desk.owe_one()
    await desk.claim_one()
    desk.clock.advance(10**6)
    assert await desk.store.take_over(desk.boot, desk.now) == 0
    assert await desk.state(id) == "leased"
    assert await desk.claim() == []


async def test_rows_of_a_crash_are_taken_one_by_one_and_only_when_asked_for(desk: Desk) -> None:
    old = {await desk.owe_one(), await desk.owe_one("b"), await desk.owe_one("c")}
    await desk.claim()
    await desk.crash()
    fresh = {await desk.owe_one(), await desk.owe_one("b")}
    assert {j.id for j in await desk.claim(suspect=False)} == fresh
    alone = [await desk.claim_one() for _ in range(3)]
    assert {j.id for j in alone} == old and all(j.crashes == 1 for j in alone)


async def test_a_row_of_a_crash_waits_for_a_free_slot_of_its_destination(desk: Desk) -> None:
    """A full lane keeps its suspects, and no suspect of another destination waits behind them."""
    await desk.owe("a")
    await desk.owe("b")
    await desk.claim()
    await desk.crash()
    assert (await desk.claim_one(capacity={"b": 1})).destination == "b"
    assert await desk.claim(capacity={"b": 1}) == []
    assert (await desk.claim_one(capacity={"a": 1})).destination == "a"


async def test_a_row_of_a_crash_is_held_by_pause_not_before_and_breaker(desk: Desk) -> None:
    await desk.owe("a")
    await desk.claim()
    await desk.crash()
    await desk.store.pause("connection", "a", "operator", "", desk.now)
    assert await desk.claim() == []
    await desk.store.pause("connection", "a", None, "", desk.now)
    await desk.owe("a")
    fresh = await desk.claim_one(suspect=False)
    await desk.retry_later(fresh, spends_try=False, not_before_us=desk.now + SECOND)
    assert await desk.claim() == []
    desk.clock.advance(1)
    assert len(await desk.claim()) == 2


async def test_a_finished_try_clears_the_suspicion_one_that_never_began_does_not(desk: Desk) -> None:
    id = await desk.owe_one()
    await desk.claim_one()
    await desk.crash()
    await desk.settle(await desk.claim_one(), State.PENDING, "stopped", spends_try=False, attempt=None)
    assert (await desk.row(id))["crashes"] == 1
    await desk.retry_later(await desk.claim_one())
    assert (await desk.row(id))["crashes"] == 0


async def test_the_third_crash_alone_is_poison_and_opens_a_repair(desk: Desk) -> None:
    id = await desk.owe_one()
    neighbours = [await desk.owe_one() for _ in range(9)]
    await desk.claim()
    await desk.crash()
    assert {await desk.state(n) for n in neighbours} == {"pending(crashed)"}
    for crashes in (1, 2, 3):
        job = await desk.claim_one()
        assert job.id == id and job.crashes == crashes
        await desk.crash()
    assert await desk.state(id) == "dead(poison)"
    assert await desk.attempts(id) == ["lost"] * 4
    assert await desk.repairs() == [("poison", id.hex())]
    for neighbour in neighbours:
        job = await desk.claim_one()
        assert job.id == neighbour and job.crashes == 1
        await desk.settle(job, State.DELIVERED)


async def test_one_poisoned_row_never_takes_a_neighbour_along(desk: Desk) -> None:
    """It kills the process at every try, whoever is in flight beside it; twenty others keep coming."""
    poisoned = await desk.owe_one()
    others = [await desk.owe_one() for _ in range(20)]
    for _ in range(200):
        jobs = await desk.claim()
        if not jobs:
            break
        if any(job.id == poisoned for job in jobs):
            await desk.crash()
            continue
        for job in jobs:
            await desk.settle(job, State.DELIVERED)
        desk.clock.advance(1)
    assert await desk.state(poisoned) == "dead(poison)"
    assert {await desk.state(id) for id in others} == {"delivered"}


async def test_references_recorded_during_the_try_outlive_the_crash(desk: Desk) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    assert await desk.store.start(id, job.lease_no, b"sha", [])
    await desk.store.record_refs("a", id, ["r1"], 2)
    await desk.receipt("r1", "delivered")
    await desk.store.record_refs("a", id, ["r2"], 2)
    await desk.receipt("r2", "delivered")
    assert await desk.state(id) == "sending", "the try is still running"
    await desk.crash()
    assert await desk.state(id) == "delivered"


async def test_half_of_the_parts_prove_nothing_after_a_crash(desk: Desk) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    assert await desk.store.start(id, job.lease_no, b"sha", [])
    await desk.store.record_refs("a", id, ["r1"], 2)
    await desk.receipt("r1", "delivered")
    await desk.crash()
    assert await desk.state(id) == "unknown(crashed_while_sending)"


async def test_runs_of_a_dead_process_are_due_again(desk: Desk) -> None:
    assert await desk.store.due_run("pull", "a", 1, desk.now)
    run = await desk.store.claim_run(desk.boot, desk.now)
    assert run is not None and await desk.store.claim_run(new_id().bytes, desk.now) is None
    await desk.crash()
    again = await desk.store.claim_run(desk.boot, desk.now)
    assert again is not None and again.id == run.id
