"""Who works on a ledger: signs of life, what one does at a time, and what is freed when a process is gone.

On SQLite there is one process, and the lock on the file says that all others are dead.
"""

from __future__ import annotations

import asyncio

from hub.model import State
from hub.retry import SECOND
from hub.store.base import Store
from hub.store.ops.settle import NEVER
from tests.ledger import Desk

LEASE = 30 * SECOND
OTHER = b"boot-2".ljust(16)


async def beat(desk: Desk, boot: bytes, until: int | None = None) -> int:
    return await desk.store.beat(boot, "node", desk.now, desk.now + LEASE if until is None else until)


# -- signs of life -----------------------------------------------------------------------------------


async def test_the_ledgers_clock_goes_on(desk: Desk) -> None:
    """The server's where there is one; else this machine's, which stands in a test."""
    before = await desk.store.now()
    if desk.store.shared:
        await desk.store.read("SELECT pg_sleep(0.002)")
        [(told,)] = await desk.store.read("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        assert before < told <= await desk.store.now()
    else:
        assert before == desk.now
        desk.clock.advance(1)
        assert await desk.store.now() == desk.now


async def test_a_sign_of_life_says_when_to_look_for_the_next_dead(desk: Desk) -> None:
    assert await beat(desk, desk.boot) == NEVER
    first_end = desk.now + LEASE
    await beat(desk, OTHER, first_end + SECOND)
    await desk.store.hold_lease("leader", b"boot-3", desk.now, first_end + 2 * SECOND)
    ends = [await beat(desk, boot) for boot in (desk.boot, OTHER, b"boot-3")]
    shared = [first_end + SECOND, first_end, first_end]
    assert ends == (shared if desk.store.shared else [NEVER] * 3)


async def test_a_clock_that_was_set_back_keeps_no_dead_process_alive(desk: Desk) -> None:
    await beat(desk, OTHER)
    desk.boot = OTHER
    await desk.store.hold_lease("leader", OTHER, desk.now, desk.now + LEASE)
    id = await desk.owe_one()
    await desk.claim_one()
    desk.clock.advance(-7200)
    me = b"boot-3"
    await beat(desk, me)
    desk.clock.advance(LEASE / SECOND)
    await beat(desk, me)
    assert await desk.store.take_over(me, desk.now) == 1
    assert await desk.state(id) == "pending(crashed)"
    assert await desk.store.hold_lease("leader", me, desk.now, desk.now + LEASE)


async def test_who_leaves_in_order_holds_nothing_and_is_not_waited_for(desk: Desk) -> None:
    await beat(desk, desk.boot)
    await desk.store.hold_lease("leader", desk.boot, desk.now, desk.now + LEASE)
    await desk.store.due_run("pull", "a", 1, desk.now)
    run = await desk.store.claim_run(desk.boot, desk.now)
    await desk.owe("a")
    await desk.claim_one()
    await desk.store.leave(desk.boot)
    assert await desk.store.hold_lease("leader", OTHER, desk.now, desk.now + LEASE)
    again = await desk.store.claim_run(OTHER, desk.now)
    assert run is not None and again is not None and again.id == run.id and again.owner == OTHER
    assert await desk.store.take_over(OTHER, desk.now) == 1


async def test_a_process_that_lives_keeps_what_it_has_unless_there_can_be_one_only(desk: Desk) -> None:
    await beat(desk, desk.boot)
    await desk.owe("a")
    await desk.claim_one()
    await desk.store.due_run("pull", "a", 1, desk.now)
    assert await desk.store.claim_run(desk.boot, desk.now) is not None
    desk.clock.advance(LEASE / SECOND - 1)
    freed = await desk.store.take_over(OTHER, desk.now)
    run = await desk.store.claim_run(OTHER, desk.now)
    assert (freed, run is None) == ((0, True) if desk.store.shared else (1, False))
    desk.clock.advance(1)
    assert freed + await desk.store.take_over(OTHER, desk.now) == 1
    assert (run is None) is (await desk.store.claim_run(OTHER, desk.now) is not None)


async def test_a_process_that_was_given_up_and_is_back_is_refused_what_it_had(desk: Desk) -> None:
    """Stopped past its lease: its rows are somebody else's, what it claims from now on is its own."""
    await beat(desk, desk.boot)
    id = await desk.owe_one()
    job = await desk.claim_one()
    await desk.store.due_run("pull", "a", 1, desk.now)
    run = await desk.store.claim_run(desk.boot, desk.now)
    desk.clock.advance(LEASE / SECOND)
    assert await desk.store.take_over(OTHER, desk.now) == 1
    await beat(desk, desk.boot)
    assert not await desk.store.start(id, job.lease_no, b"sha", [])
    assert not await desk.settle(job, State.DELIVERED)
    assert run is not None and not await desk.store.finish_run(run, "done", "", desk.now)
    again = await desk.claim_one()
    assert again.lease_no == job.lease_no + 1
    assert await desk.settle(again, State.DELIVERED)


# -- what one does at a time -------------------------------------------------------------------------


async def test_one_process_has_a_lease_until_it_ends_or_is_given_back(desk: Desk) -> None:
    hold = desk.store.hold_lease
    assert await hold("leader", desk.boot, desk.now, desk.now + LEASE)
    alone = not desk.store.shared
    assert await hold("leader", OTHER, desk.now, desk.now + LEASE) is alone
    assert await hold("session:a:0", OTHER, desk.now, desk.now + LEASE), "another name is another thing"
    desk.clock.advance(20)
    assert await hold("leader", desk.boot, desk.now, desk.now + LEASE), "renewed"
    desk.clock.advance(20)
    assert await hold("leader", OTHER, desk.now, desk.now + LEASE) is alone
    desk.clock.advance(10)
    assert await hold("leader", OTHER, desk.now, desk.now + LEASE), "it has ended"
    assert await hold("leader", desk.boot, desk.now, desk.now + LEASE) is alone
    await desk.store.drop_lease("leader", desk.boot)
    assert await hold("leader", desk.boot, desk.now, desk.now + LEASE) is alone, "nobody gives back another's"
    await desk.store.drop_lease("leader", OTHER)
    assert await hold("leader", desk.boot, desk.now, desk.now + LEASE)


# -- answers that were lost --------------------------------------------------------------------------


async def test_what_a_process_was_given_without_hearing_of_it_is_freed(desk: Desk) -> None:
    """Nothing of it has begun, so it is no crash; what is being sent, and what others have, stays."""
    ids = [await desk.owe_one(order_key=b"key" if n == 0 else None) for n in range(4)]
    jobs = {job.id: job for job in await desk.claim(limit=3)}
    sending = next(id for id in jobs if id != ids[0])
    assert await desk.store.start(sending, 1, b"sha", [])
    mine, desk.boot = desk.boot, OTHER
    await desk.claim()
    lost = set(jobs) - {sending, ids[0]}
    assert await desk.store.free_jobs(mine, {ids[0]}) == len(lost) == 1
    assert await desk.store.free_jobs(mine, {ids[0]}) == 0
    assert sorted([await desk.state(id) for id in ids]) == ["leased", "leased", "pending", "sending"]
    [again] = await desk.claim(suspect=False)
    assert again.id in lost and (again.lease_no, again.crashes, again.tries) == (2, 0, 0)
    assert not await desk.settle(jobs[again.id], State.DELIVERED), "if it was heard of after all, it is too late"


async def test_runs_a_process_does_not_know_of_are_due_again(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        assert await desk.store.due_run("pull", name, 1, desk.now)
    mine = [await desk.store.claim_run(desk.boot, desk.now) for _ in range(2)]
    theirs = await desk.store.claim_run(OTHER, desk.now)
    assert theirs is not None and all(mine)
    known = {run.id for run in mine[:1] if run}
    assert await desk.store.free_runs(desk.boot, known) == 1
    again = await desk.store.claim_run(OTHER, desk.now)
    assert again is not None and mine[1] is not None and again.id == mine[1].id
    assert await desk.store.claim_run(OTHER, desk.now) is None
    assert not await desk.store.finish_run(mine[1], "done", "", desk.now)
    assert await desk.store.finish_run(again, "done", "", desk.now)


# -- is it well --------------------------------------------------------------------------------------


async def test_a_ledger_that_can_be_written_answers_a_ping(store: Store) -> None:
    await store.ping()
    assert await store.read("SELECT count(*) FROM event") == [(0,)]


async def test_the_oldest_snapshot_is_as_old_as_the_read_that_lasts(store: Store) -> None:
    slow = asyncio.create_task(
        store.read(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) SELECT max(i) FROM n"
        )
    )
    seen = 0.0
    while not slow.done():
        seen = max(seen, await store.snapshot_age_s())
        await asyncio.sleep(0.001)
    assert await slow == [(2_000_000,)] and seen > 0


async def test_no_day_is_dropped_before_there_was_any(desk: Desk) -> None:
    """The rules of retention have a file of their own."""
    await desk.owe("a")
    assert await desk.store.drop_days(0) == {}
    assert len(await desk.claim()) == 1
