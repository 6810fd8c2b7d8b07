"""What a partner says later: early, late, twice, in any order, for one part or many."""

from __future__ import annotations

import itertools

import pytest

from hub.model import State
from hub.retry import SECOND
from tests.ledger import UNRESOLVED_S, Desk


async def accepted(desk: Desk, *refs: str, **more: float) -> bytes:
    id = await desk.owe_one()
    assert await desk.accept(await desk.claim_one(), *refs, **more)
    return id


async def test_a_receipt_ends_an_accepted_delivery(desk: Desk) -> None:
    good, bad = await accepted(desk, "r1"), await accepted(desk, "r2")
    await desk.receipt("r1", "delivered")
    await desk.receipt("r2", "failed", "bad_number")
    assert await desk.state(good) == "delivered"
    assert await desk.state(bad) == "dead(receipt:bad_number)"


async def test_a_receipt_that_came_first_is_parked_and_matched(desk: Desk) -> None:
    await desk.receipt("r1", "delivered")
    assert await desk.store.read("SELECT delivery_id FROM receipt") == [(None,)]
    id = await accepted(desk, "r1")
    assert await desk.state(id) == "delivered"
    assert await desk.store.read("SELECT delivery_id FROM receipt") == [(id,)]


async def test_a_receipt_during_the_try_waits_for_its_end(desk: Desk) -> None:
    id = await desk.owe_one()
    job = await desk.claim_one()
    await desk.store.record_refs("a", id, ["r1"], 1)
    await desk.receipt("r1", "delivered")
    assert await desk.state(id) == "leased"
    await desk.accept(job, "r1")
    assert await desk.state(id) == "delivered"


async def test_the_same_receipt_twice_is_one(desk: Desk) -> None:
    id = await accepted(desk, "r1")
    for _ in range(3):
        await desk.receipt("r1", "delivered")
    assert await desk.state(id) == "delivered"
    assert await desk.store.read("SELECT count(*) FROM receipt") == [(1,)]


async def test_an_interim_receipt_is_kept_and_moves_nothing(desk: Desk) -> None:
    id = await accepted(desk, "r1")
    await desk.receipt("r1", "interim")
    assert await desk.state(id) == "accepted"
    await desk.receipt("r1", "delivered")
    assert await desk.state(id) == "delivered"
    assert await desk.store.read("SELECT count(*) FROM receipt") == [(2,)]


async def test_nothing_leaves_delivered(desk: Desk) -> None:
    id = await accepted(desk, "r1")
    await desk.receipt("r1", "delivered")
    for state, reason in (("failed", "late"), ("interim", ""), ("delivered", "again")):
        await desk.receipt("r1", state, reason)
    desk.clock.advance(UNRESOLVED_S * 2)
    await desk.sweep()
    await desk.crash()
    assert not await desk.store.resolve(id, "failed", "no", desk.now)
    assert not await desk.store.resolve(id, "resend", "no", desk.now)
    assert await desk.state(id) == "delivered"


async def test_a_receipt_of_another_connection_is_another_reference(desk: Desk) -> None:
    id = await accepted(desk, "r1")
    await desk.receipt("r1", "delivered", connection="b")
    assert await desk.state(id) == "accepted"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("delivered", "delivered", "delivered"), "delivered"),
        (("delivered", "failed", "delivered"), "dead(receipt:why)"),
        (("failed", "failed", "failed"), "dead(receipt:why)"),
        (("delivered", "delivered", "interim"), "accepted"),
        (("delivered", "failed", "interim"), "accepted"),
    ],
)
async def test_a_delivery_is_as_good_as_its_worst_part_in_any_order(
    desk: Desk, parts: tuple[str, ...], expected: str
) -> None:
    """Once every part has reported. The receipts may also come before the parts are known."""
    for n, order in enumerate(itertools.permutations(range(3))):
        refs = [f"{n}-{i}" for i in range(3)]
        early = order[: n % 3]
        for i in early:
            await desk.receipt(refs[i], parts[i], "why" if parts[i] == "failed" else "")
        id = await accepted(desk, *refs)
        for i in order[len(early) :]:
            await desk.receipt(refs[i], parts[i], "why" if parts[i] == "failed" else "")
        assert await desk.state(id) == expected, order


async def test_a_part_that_failed_and_then_arrived_has_arrived(desk: Desk) -> None:
    """Reports come out of order: a success is never taken back by an older failure."""
    id = await accepted(desk, "r1", "r2")
    await desk.receipt("r1", "failed", "expired")
    await desk.receipt("r1", "delivered")
    await desk.receipt("r1", "failed", "expired_again")
    await desk.receipt("r2", "delivered")
    assert await desk.state(id) == "delivered"


async def test_parts_that_were_never_answered_keep_it_unknown(desk: Desk) -> None:
    id = await desk.owe_one()
    await desk.lose_track(await desk.claim_one(), "partly_sent", refs=("r1", "r2"), of_parts=3)
    await desk.receipt("r1", "delivered")
    await desk.receipt("r2", "delivered")
    assert await desk.state(id) == "unknown(partly_sent)"


async def test_an_unknown_one_whose_every_part_reports_is_delivered(desk: Desk) -> None:
    id = await desk.owe_one()
    await desk.lose_track(await desk.claim_one(), refs=("r1", "r2"), of_parts=2)
    await desk.receipt("r2", "delivered")
    await desk.receipt("r1", "delivered")
    assert await desk.state(id) == "delivered"


async def test_parked_receipts_of_one_part_are_weighed_together_whatever_their_order(desk: Desk) -> None:
    for n, order in enumerate(itertools.permutations(["failed", "interim", "delivered"])):
        for state in order:
            await desk.receipt(f"r{n}", state, "why" if state == "failed" else "")
        assert await desk.state(await accepted(desk, f"r{n}")) == "delivered", order


async def test_references_of_a_try_that_was_sent_again_are_not_waited_for(desk: Desk) -> None:
    id = await desk.owe_one()
    await desk.lose_track(await desk.claim_one(), refs=("old",), of_parts=1)
    await desk.store.resolve(id, "resend", "they did not get it", desk.now)
    await desk.accept(await desk.claim_one(), "new-1", "new-2")
    await desk.receipt("old", "failed", "expired")
    await desk.receipt("new-1", "delivered")
    assert await desk.state(id) == "accepted"
    await desk.receipt("new-2", "delivered")
    assert await desk.state(id) == "delivered"


# -- time that runs out ------------------------------------------------------------------------------


async def test_no_receipt_in_time_is_unknown_then_dead_then_delivered_by_a_late_one(desk: Desk) -> None:
    id = await accepted(desk, "r1", within_s=100)
    desk.clock.advance(99)
    assert await desk.sweep() == 0
    desk.clock.advance(1)
    assert await desk.sweep() == 1
    assert await desk.state(id) == "unknown(no_receipt)"
    desk.clock.advance(UNRESOLVED_S - 1)
    assert await desk.sweep() == 0
    desk.clock.advance(1)
    assert await desk.sweep() == 1
    assert await desk.state(id) == "dead(unresolved)"
    await desk.receipt("r1", "delivered")
    assert await desk.state(id) == "delivered(late_receipt)"
    await desk.receipt("r1", "failed")
    assert await desk.state(id) == "delivered(late_receipt)"


async def test_a_late_failure_ends_what_had_no_receipt(desk: Desk) -> None:
    id = await accepted(desk, "r1", within_s=1)
    desk.clock.advance(1)
    await desk.sweep()
    await desk.receipt("r1", "failed", "bad_number")
    assert await desk.state(id) == "dead(receipt:bad_number)"


async def test_an_expired_one_that_had_arrived_after_all_is_delivered(desk: Desk) -> None:
    id = await desk.owe_one(expires_at=desk.now + 10 * SECOND)
    await desk.retry_later(await desk.claim_one(), after_s=5, refs=("r1",), of_parts=1)
    desk.clock.advance(10)
    await desk.sweep()
    assert await desk.state(id) == "dead(expired)"
    await desk.receipt("r1", "delivered")
    assert await desk.state(id) == "delivered(late_receipt)"


@pytest.mark.parametrize("reason", ["refused", "tries_spent:busy", "receipt:bad_number"])
async def test_other_deaths_stay(desk: Desk, reason: str) -> None:
    id = await desk.owe_one()
    await desk.settle(await desk.claim_one(), State.DEAD, reason, refs=("r1",), of_parts=1)
    await desk.receipt("r1", "delivered")
    assert await desk.state(id) == f"dead({reason})"


@pytest.mark.parametrize("trouble", ["paused", "breaker", "not_before", "held", "connection"])
async def test_expiry_is_swept_whatever_the_state_of_the_destination(desk: Desk, trouble: str) -> None:
    id = await desk.owe_one(expires_at=desk.now + 10 * SECOND)
    if trouble == "paused":
        await desk.store.pause("destination", "a", "operator", "", desk.now)
    elif trouble == "connection":
        await desk.store.pause("connection", "a", "operator", "", desk.now)
    elif trouble == "held":
        await desk.store.hold("restored")
    else:
        far = {"not_before_us": desk.now + 3600 * SECOND} if trouble == "not_before" else {"health": 1}
        for _ in range(3):
            await desk.owe("a")
            jobs = await desk.claim()
            for job in jobs:
                await desk.retry_later(job, after_s=3600, **far)
    desk.clock.advance(10)
    assert await desk.sweep() == 1
    assert await desk.state(id) == "dead(expired)"


async def test_what_is_on_its_way_is_not_swept(desk: Desk) -> None:
    leased = await desk.owe_one(expires_at=desk.now + SECOND)
    started = await desk.owe_one(expires_at=desk.now + SECOND)
    await desk.claim()
    assert await desk.store.start(started, 1, b"sha", [])
    desk.clock.advance(5)
    assert await desk.sweep() == 0
    assert await desk.state(leased) == "leased" and await desk.state(started) == "sending"


async def test_a_sweep_takes_a_bounded_bite_and_comes_again(desk: Desk) -> None:
    from hub.store.base import Unit
    from tests.ledger import fact

    drafts = [fact(f"k{i}", desk.now, ["a"], expires_at=desk.now + 1) for i in range(1200)]
    await desk.store.commit(Unit(drafts=drafts))
    desk.clock.advance(1)
    assert [await desk.sweep() for _ in range(4)] == [500, 500, 200, 0]
