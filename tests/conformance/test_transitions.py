"""Every line of the table of transitions, brought about in the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from hub.model import TRANSITIONS, State, Transition
from hub.sql import query
from hub.store.base import Job, Unit
from tests.conformance.conftest import check_moves
from tests.ledger import UNRESOLVED_S, Desk

S = State
KEY = b"key-of-order-123"
Scene = Callable[[Desk], Awaitable[object]]


async def _line(desk: Desk, **more: object) -> tuple[bytes, bytes]:
    return await desk.owe_one(order_key=KEY), await desk.owe_one(order_key=KEY, **more)


async def _promoted(desk: Desk) -> None:
    await _line(desk)
    await desk.settle(await desk.claim_one(), S.DELIVERED)


async def _expired_waiting(desk: Desk) -> None:
    await _line(desk, expires_at=desk.now)
    await desk.sweep()


async def _expired_pending(desk: Desk) -> None:
    await desk.owe("a", expires_at=desk.now)
    await desk.sweep()


def _settled(state: State, *, started: bool) -> Scene:
    async def scene(desk: Desk) -> None:
        await desk.owe("a")
        job = await desk.claim_one()
        if started:
            await desk.store.start(job.id, job.lease_no, b"sha", [])
        await desk.settle(job, state, "r", refs=("r1",), of_parts=1)

    return scene


def _after(first: State, *then: str) -> Scene:
    async def scene(desk: Desk) -> None:
        await _settled(first, started=True)(desk)
        for step in then:
            [(id,)] = await desk.store.read("SELECT id FROM queue UNION SELECT id FROM delivery")
            if step in ("delivered", "failed"):
                await desk.receipt("r1", step)
            elif step == "sweep":
                desk.clock.advance(UNRESOLVED_S)
                await desk.sweep()
            else:
                await desk.store.resolve(id, step.removeprefix("say_"), "why", desk.now)

    return scene


async def _held_death_resent(desk: Desk) -> None:
    id = await desk.owe_one(order_key=KEY, on_dead_hold=1)
    await desk.settle(await desk.claim_one(), S.DEAD, "refused")
    await desk.store.resolve(id, "resend", "why", desk.now)


async def _diverted(desk: Desk) -> Job:
    """Where its key is held by another."""
    await desk.owe("b", order_key=KEY)
    await desk.owe("a", order_key=KEY)
    return await desk.claim_one(capacity={"a": 1})


async def _diverted_by_its_sink(desk: Desk) -> None:
    await desk.settle(await _diverted(desk), S.PENDING, divert_to="b")


async def _diverted_while_it_waited(desk: Desk) -> None:
    job = await _diverted(desk)
    await desk.retry_later(job)
    await desk.store.divert([job.id], "a", "b", desk.now)


SCENES: dict[tuple[State, State], Scene] = {
    (S.WAITING, S.PENDING): _promoted,
    (S.WAITING, S.DEAD): _expired_waiting,
    (S.PENDING, S.LEASED): _promoted,
    (S.PENDING, S.WAITING): _diverted_while_it_waited,
    (S.LEASED, S.WAITING): _diverted_by_its_sink,
    (S.PENDING, S.DEAD): _expired_pending,
    **{(S.LEASED, s): _settled(s, started=False) for s in (
        S.PENDING, S.ACCEPTED, S.DELIVERED, S.DEAD, S.CANCELLED, S.UNKNOWN
    )},
    (S.LEASED, S.SENDING): _settled(S.PENDING, started=True),
    **{(S.SENDING, s): _settled(s, started=True) for s in (S.PENDING, S.ACCEPTED, S.DELIVERED, S.DEAD, S.UNKNOWN)},
    (S.ACCEPTED, S.DELIVERED): _after(S.ACCEPTED, "delivered"),
    (S.ACCEPTED, S.DEAD): _after(S.ACCEPTED, "failed"),
    (S.ACCEPTED, S.UNKNOWN): _after(S.ACCEPTED, "sweep"),
    (S.UNKNOWN, S.DELIVERED): _after(S.UNKNOWN, "delivered"),
    (S.UNKNOWN, S.DEAD): _after(S.UNKNOWN, "sweep"),
    (S.UNKNOWN, S.PENDING): _after(S.UNKNOWN, "say_resend"),
    (S.DEAD, S.DELIVERED): _after(S.UNKNOWN, "sweep", "delivered"),
    (S.DEAD, S.PENDING): _held_death_resent,
}  # fmt: skip
#: Stopping a batch and cancelling by hand have no command yet; the table already allows them.
NOT_YET = {(S.WAITING, S.CANCELLED), (S.PENDING, S.CANCELLED)}


@pytest.mark.parametrize(
    "transition",
    [t for t in TRANSITIONS if (t.source, t.target) not in NOT_YET],
    ids=lambda t: f"{t.source.value}-{t.target.value}",
)
async def test_every_transition_of_the_table_happens(desk: Desk, transition: Transition) -> None:
    """The fixture checks that nothing outside the table happens, here and in every other test."""
    await SCENES[transition.source, transition.target](desk)
    moves = await desk.store.read("SELECT old, new FROM moves")
    assert (transition.source, transition.target) in moves


def test_every_transition_has_a_scene() -> None:
    assert set(SCENES) | NOT_YET == {(t.source, t.target) for t in TRANSITIONS}


async def test_a_move_outside_the_table_is_noticed(desk: Desk) -> None:
    await desk.owe("a")
    await desk.settle(await desk.claim_one(), S.DELIVERED)
    forge = query(text("UPDATE delivery SET state = :state"))
    await desk.store.commit(Unit(statements=[forge(state="dead")]))
    with pytest.raises(AssertionError, match="not in the table"):
        await check_moves(desk.store)
    await desk.store.commit(Unit(statements=[forge(state="delivered"), query(text("DELETE FROM moves"))()]))
