"""Order per key: one head at a time, whoever waits is promoted by the transaction that frees the key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from hub.model import State
from hub.retry import SECOND
from hub.store.base import Job, Unit
from tests.ledger import UNRESOLVED_S, Desk, fact

KEY = b"key-of-order-123"


async def line(desk: Desk, count: int = 3, **more: object) -> list[bytes]:
    return [await desk.owe_one(order_key=KEY, **more) for _ in range(count)]


async def states(desk: Desk, ids: list[bytes]) -> list[str]:
    return [await desk.state(id) for id in ids]


async def test_only_the_head_of_a_key_is_pending(desk: Desk) -> None:
    ids = await line(desk)
    assert await states(desk, ids) == ["pending", "waiting", "waiting"]
    assert (await desk.claim_one()).id == ids[0]
    assert await desk.claim() == []


async def test_a_whole_line_within_one_unit_has_one_head(desk: Desk) -> None:
    drafts = [fact(f"u{i}", desk.now, ["a", "b"], order_key=KEY) for i in range(3)]
    await desk.store.commit(Unit(drafts=drafts))
    heads = {(j.destination, j.event_id) for j in await desk.claim()}
    assert heads == {("a", drafts[0].event[0]), ("b", drafts[0].event[0])}


async def test_keys_and_destinations_do_not_wait_for_one_another(desk: Desk) -> None:
    await desk.owe("a", "b", order_key=KEY)
    await desk.owe("a", order_key=b"another-key-4567")
    await desk.owe("a")
    assert len(await desk.claim()) == 4


Release = Callable[[Desk, Job], Awaitable[object]]


async def deliver(desk: Desk, job: Job) -> None:
    assert await desk.settle(job, State.DELIVERED)


async def die(desk: Desk, job: Job) -> None:
    assert await desk.settle(job, State.DEAD, "refused")


async def cancel(desk: Desk, job: Job) -> None:
    assert await desk.settle(job, State.CANCELLED, "grant_ended", attempt=None)


async def accept(desk: Desk, job: Job) -> None:
    assert await desk.accept(job, "r1")


async def settle_in_a_unit(desk: Desk, job: Job) -> None:
    from tests.ledger import settlement

    await desk.store.commit(Unit(settlement=settlement(job, State.DELIVERED)))


async def deliver_after_sending(desk: Desk, job: Job) -> None:
    assert await desk.store.start(job.id, job.lease_no, b"sha", [])
    await deliver(desk, job)


async def resolve_delivered(desk: Desk, job: Job) -> None:
    await desk.lose_track(job)
    assert await desk.store.resolve(job.id, "delivered", "saw it", desk.now)


async def resolve_failed(desk: Desk, job: Job) -> None:
    await desk.lose_track(job)
    assert await desk.store.resolve(job.id, "failed", "phoned", desk.now)


async def late_receipt(desk: Desk, job: Job) -> None:
    await desk.lose_track(job, refs=("r1",), of_parts=1)
    await desk.receipt("r1", "delivered")


async def expire(desk: Desk, job: Job) -> None:
    await desk.retry_later(job, after_s=3600)
    desk.clock.advance(1800)
    assert await desk.sweep() == 1


async def stay_unresolved(desk: Desk, job: Job) -> None:
    await desk.lose_track(job)
    desk.clock.advance(UNRESOLVED_S)
    assert await desk.sweep() == 1


async def poison(desk: Desk, job: Job) -> None:
    for _ in range(3):
        await desk.crash()
        await desk.claim_one()
    await desk.crash()


RELEASES = [
    deliver, die, cancel, accept, settle_in_a_unit, deliver_after_sending, resolve_delivered, resolve_failed,
    late_receipt, expire, stay_unresolved, poison,
]  # fmt: skip


@pytest.mark.parametrize("release", RELEASES, ids=lambda f: f.__name__)
async def test_what_frees_the_key_promotes_exactly_the_next_one(desk: Desk, release: Release) -> None:
    only_head_expires = {"expires_at": desk.now + 900 * SECOND} if release is expire else {}
    [head] = await line(desk, 1, **only_head_expires)
    ids = await line(desk, 2)
    job = await desk.claim_one()
    assert job.id == head
    await release(desk, job)
    assert await states(desk, ids) == ["pending", "waiting"]
    assert (await desk.claim_one()).id == ids[0]


async def retry(desk: Desk, job: Job) -> None:
    await desk.retry_later(job, after_s=60)


async def lose_track(desk: Desk, job: Job) -> None:
    await desk.lose_track(job)


async def send(desk: Desk, job: Job) -> None:
    assert await desk.store.start(job.id, job.lease_no, b"sha", [])


async def crash(desk: Desk, job: Job) -> None:
    await desk.crash()


async def crash_while_sending(desk: Desk, job: Job) -> None:
    await send(desk, job)
    await desk.crash()


@pytest.mark.parametrize("keep", [retry, lose_track, send, crash, crash_while_sending], ids=lambda f: f.__name__)
async def test_what_keeps_the_key_lets_nobody_pass(desk: Desk, keep: Release) -> None:
    ids = await line(desk)
    await keep(desk, await desk.claim_one())
    assert (await states(desk, ids))[1:] == ["waiting", "waiting"]
    await desk.owe_one(order_key=KEY)
    assert all(job.id == ids[0] for job in await desk.claim())


async def test_a_line_of_fifty_leaves_in_the_order_it_came(desk: Desk) -> None:
    ids = await line(desk, 50)
    left = []
    for i in range(50):
        job = await desk.claim_one()
        left.append(job.id)
        if i % 3 == 0:
            await desk.retry_later(job)
            job = await desk.claim_one()
        await (deliver if i % 2 else die)(desk, job)
    assert left == ids


async def test_one_that_expires_while_waiting_leaves_the_line_and_nobody_is_stranded(desk: Desk) -> None:
    [head] = await line(desk, 1)
    [short] = await line(desk, 1, expires_at=desk.now + SECOND)
    [last] = await line(desk, 1)
    job = await desk.claim_one()
    desk.clock.advance(2)
    assert await desk.sweep() == 1
    assert await states(desk, [head, short, last]) == ["leased", "dead(expired)", "waiting"]
    await deliver(desk, job)
    assert await desk.state(last) == "pending"


async def test_an_accepted_one_that_became_unknown_holds_the_key_beside_the_head_it_let_pass(desk: Desk) -> None:
    """Otherwise two deliveries of one key would be on their way together."""
    one, two, three = await line(desk)
    await desk.accept(await desk.claim_one(), "r1", within_s=10)
    assert await states(desk, [two, three]) == ["pending", "waiting"]
    desk.clock.advance(10)
    await desk.sweep()
    assert await states(desk, [one, two, three]) == ["unknown(no_receipt)", "pending", "waiting"]
    await deliver(desk, await desk.claim_one())
    assert await desk.state(three) == "waiting", "the unknown one holds the key"
    await desk.receipt("r1", "delivered")
    assert await states(desk, [one, two, three]) == ["delivered", "delivered", "pending"]


async def test_the_unknown_one_that_ends_first_does_not_start_a_second_head(desk: Desk) -> None:
    one, two, three = await line(desk)
    await desk.accept(await desk.claim_one(), "r1", within_s=10)
    desk.clock.advance(10)
    await desk.sweep()
    await desk.receipt("r1", "failed", "bad_number")
    assert await states(desk, [one, two, three]) == ["dead(receipt:bad_number)", "pending", "waiting"]
    assert len(await desk.claim()) == 1


# -- on_dead = hold ----------------------------------------------------------------------------------


@pytest.mark.parametrize("release", [die, expire, stay_unresolved, poison], ids=lambda f: f.__name__)
async def test_with_hold_a_death_keeps_the_key_until_a_person_has_looked(desk: Desk, release: Release) -> None:
    more = {"expires_at": desk.now + 900 * SECOND} if release is expire else {}
    [head] = await line(desk, 1, on_dead_hold=1, **more)
    [follower] = await line(desk, 1, on_dead_hold=1)
    await release(desk, await desk.claim_one())
    assert (await desk.state(head)).startswith("dead(")
    assert await desk.state(follower) == "waiting"
    desk.clock.advance(UNRESOLVED_S)
    await desk.sweep()
    assert await desk.claim() == []
    assert await desk.store.resolve(head, "failed", "told the unit", desk.now)
    assert await desk.state(head) == "dead(resolved:told the unit)"
    assert (await desk.claim_one()).id == follower


async def test_a_held_death_may_be_sent_again_past_its_expiry_and_keeps_its_place(desk: Desk) -> None:
    [head] = await line(desk, 1, on_dead_hold=1, expires_at=desk.now + 900 * SECOND)
    [follower] = await line(desk, 1, on_dead_hold=1)
    await expire(desk, await desk.claim_one())
    assert await desk.store.resolve(head, "resend", "still wanted", desk.now)
    await desk.sweep()
    job = await desk.claim_one()
    assert job.id == head and job.expires_at is None
    await deliver(desk, job)
    assert await desk.state(follower) == "pending"


async def test_a_held_death_of_waiting_is_still_turned_by_its_late_receipt(desk: Desk) -> None:
    [head] = await line(desk, 1, on_dead_hold=1)
    [follower] = await line(desk, 1, on_dead_hold=1)
    await desk.lose_track(await desk.claim_one(), refs=("r1",), of_parts=1)
    desk.clock.advance(UNRESOLVED_S)
    await desk.sweep()
    assert await desk.state(head) == "dead(unresolved)"
    await desk.receipt("r1", "delivered")
    assert await desk.state(head) == "delivered(late_receipt)"
    assert await desk.state(follower) == "pending"


async def test_hold_without_a_key_holds_nobody(desk: Desk) -> None:
    id = await desk.owe_one(on_dead_hold=1)
    await die(desk, await desk.claim_one())
    assert await desk.state(id) == "dead(refused)"
    assert await desk.store.read("SELECT count(*) FROM queue") == [(0,)]
