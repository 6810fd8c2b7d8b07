"""What moves to another destination: only what has surely not left, once, with a line in its history."""

from __future__ import annotations

import pytest

from hub.model import State
from hub.retry import SECOND
from hub.store.base import AttemptRow, Job
from tests.ledger import Desk, fact

KEY = b"key-of-order-123"


async def divert(desk: Desk, job: Job, to: str = "b", **more: object) -> bool:
    line = AttemptRow(desk.now, desk.now, "diverted", f"to:{to}")
    return await desk.settle(job, State.PENDING, spends_try=False, attempt=line, divert_to=to, **more)


async def bulk(desk: Desk, *ids: bytes, **more: bool) -> int:
    return await desk.store.divert(ids, "a", "b", desk.now, **more)


async def test_a_diverted_delivery_is_due_at_its_new_destination_under_its_own_id(desk: Desk) -> None:
    id = await desk.owe_one("a")
    assert await divert(desk, await desk.claim_one())
    row = await desk.row(id)
    assert (row["destination"], row["state"], row["tries"]) == ("b", "pending", 0)
    again = await desk.claim_one(capacity={"b": 1})
    assert (again.id, again.destination, again.lease_no) == (id, "b", 2)
    assert await desk.settle(again, State.DELIVERED)
    assert await desk.attempts(id) == ["diverted", "delivered"]


async def test_a_lease_that_was_lost_diverts_nothing(desk: Desk) -> None:
    id = await desk.owe_one("a")
    job = await desk.claim_one()
    await desk.crash()
    assert not await divert(desk, job)
    again = await desk.claim_one()
    assert not await divert(desk, job, lost_may_have_left=False), "somebody else has it now"
    assert (await desk.row(id))["destination"] == "a" and await desk.attempts(id) == ["lost"]
    assert await divert(desk, again, lost_may_have_left=False)


async def test_a_batch_of_settlements_diverts_some_and_delivers_others(desk: Desk) -> None:
    ids = [await desk.owe_one("a") for _ in range(3)]
    jobs = await desk.claim()
    assert await divert(desk, jobs[0]) and await desk.settle(jobs[1], State.DELIVERED) and await divert(desk, jobs[2])
    assert [(await desk.row(id))["destination"] for id in ids] == ["b", "a", "b"]


async def test_what_may_have_arrived_stays_where_it_was_tried(desk: Desk) -> None:
    id = await desk.owe_one("a")
    job = await desk.claim_one()
    unheard = AttemptRow(desk.now, desk.now, "ambiguous", "timeout")
    assert await desk.settle(job, State.PENDING, "timeout", attempt=unheard)
    assert await bulk(desk, id) == 0
    assert await divert(desk, await desk.claim_one())
    row = await desk.row(id)
    assert (row["destination"], row["reason"], row["due_at"]) == ("a", "may_have_left", desk.now + 60 * SECOND)
    assert await desk.attempts(id) == ["ambiguous"]


@pytest.mark.parametrize("may_have_left", [True, False])
async def test_a_try_cut_off_before_its_start_was_committed_keeps_it_only_where_it_may_have_left(
    desk: Desk, may_have_left: bool
) -> None:
    id = await desk.owe_one("a")
    await desk.claim_one()
    await desk.crash()
    assert await bulk(desk, id, lost_may_have_left=may_have_left) == (0 if may_have_left else 1)
    assert await desk.state(id) == ("pending(crashed)" if may_have_left else "pending(diverted)")


async def test_nothing_moves_that_is_under_way_or_was_taken(desk: Desk) -> None:
    ids = [await desk.owe_one("a") for _ in range(5)]
    leased, sending, accepted, unknown, delivered = await desk.claim()
    await desk.store.start(sending.id, sending.lease_no, b"sha", [])
    await desk.accept(accepted, "r1")
    await desk.lose_track(unknown)
    await desk.settle(delivered, State.DELIVERED)
    assert leased.id == ids[0] and await bulk(desk, *ids) == 0
    assert {(await desk.row(id))["destination"] for id in ids} == {"a"}


async def test_what_waits_moves_together_and_each_gets_its_line(desk: Desk) -> None:
    ids = [await desk.owe_one("a") for _ in range(3)]
    await desk.retry_later(await desk.claim_one(limit=1), after_s=1000)
    assert await bulk(desk, *ids) == 3 and await bulk(desk, *ids) == 0
    assert [j.id for j in await desk.claim(capacity={"b": 9})] == ids
    assert [await desk.attempts(id) for id in ids] == [["pending", "diverted"], ["diverted"], ["diverted"]]


async def test_a_diverted_head_lets_its_follower_go_and_waits_its_turn_where_it_comes(desk: Desk) -> None:
    drafts = [fact(f"u{i}", desk.now, ["a"], order_key=KEY) for i in range(2)]
    await desk.commit(*drafts, fact("there", desk.now, ["b"], order_key=KEY))
    first, second = (d.deliveries[0].id for d in drafts)
    jobs = {j.destination: j for j in await desk.claim()}
    assert jobs["a"].id == first and await divert(desk, jobs["a"])
    assert (await desk.state(first), await desk.state(second)) == ("waiting", "pending")
    assert await bulk(desk, second) == 1 and await desk.state(second) == "waiting(diverted)"
    await desk.settle(jobs["b"], State.DELIVERED)
    for id in (first, second):
        job = await desk.claim_one()
        assert job.id == id and await desk.settle(job, State.DELIVERED)


async def test_a_body_is_pinned_anew_where_it_goes(desk: Desk) -> None:
    id = await desk.owe_one("a")
    await desk.retry_later(await desk.claim_one(), body_sha256=b"sha")
    assert await bulk(desk, id) == 1
    assert (await desk.claim_one()).body_sha256 is None
