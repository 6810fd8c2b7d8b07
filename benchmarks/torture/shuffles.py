"""Receipts in any order: before their reference is known, twice, contradicting, beside a settlement that comes late.

Whatever the order, the ledger ends in the state of the model that the conformance suite is held against.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hub.model import State
from hub.store.base import Job, Store
from hub.store.sqlite import SqliteStore
from hub.testing import StandingClock
from tests.conformance.ledger_model import Model, Owed
from tests.ledger import BREAKER, UNRESOLVED_S, Desk, check_books

#: Deliveries that are shuffled together.
BATCH = 50
_FAR = 10**15


class Move(NamedTuple):
    """``end``: the try ends accepted (or unknown, by ``said``); ``late``: what a former lease wants to say."""

    kind: Literal["end", "record", "receipt", "late"]
    delivery: int
    ref: str = ""
    said: str = ""


@dataclass(frozen=True)
class _Parts:
    refs: tuple[str, ...]


def _moves(delivery: int, parts: _Parts, dice: random.Random) -> list[Move]:
    moves = [Move("end", delivery, said=dice.choice(["accepted", "accepted", "unknown"]))]
    moves += [Move("late", delivery, said=dice.choice(["delivered", "dead", "accepted"]))] * dice.randint(0, 1)
    for ref in parts.refs:
        moves += [Move("record", delivery, ref)] * dice.randint(0, 1)
        for _ in range(dice.randint(1, 3)):
            moves.append(Move("receipt", delivery, ref, dice.choice(["delivered", "delivered", "failed", "interim"])))
    return moves


async def shuffle(folder: Path, count: int, seed: int) -> list[str]:
    """``count`` deliveries, each with its moves in an order of its own; answers what ended otherwise than it must."""
    dice = random.Random(seed)
    clock = StandingClock()
    store = SqliteStore(
        folder / "shuffles.db", breaker=BREAKER, unresolved_after_s=UNRESOLVED_S, key_fingerprint=b"fingerprint",
        synchronous="OFF", clock=clock,
    )  # fmt: skip
    await store.open()
    wrong: list[str] = []
    try:
        desk = Desk(store, clock)
        await desk.configure("a")
        for first in range(0, count, BATCH):
            wrong += await _batch(desk, dice, min(BATCH, count - first), f"{seed}-{first}")
        try:
            await check_books(store)
        except AssertionError as error:
            wrong.append(f"the books do not balance: {error}")
    finally:
        await store.close()
    return wrong


async def _batch(desk: Desk, dice: random.Random, count: int, name: str) -> list[str]:
    ids = [await desk.owe_one() for _ in range(count)]
    former = {job.id: job for job in await desk.claim(capacity={"a": count})}
    await desk.store.free_jobs(desk.boot, set())  # as after a claim whose answer was lost
    jobs = {job.id: job for job in await desk.claim(capacity={"a": count})}
    model = Model(lambda: desk.now)
    parts = [_Parts(tuple(f"{name}-{n}-{part}" for part in range(dice.randint(1, 3)))) for n in range(count)]
    moves: list[Move] = []
    for n, id in enumerate(ids):
        owed = Owed(n, "a", None, False, 1, desk.now, None)
        model.add(id, owed)
        owed.state = State.LEASED
        moves += _moves(n, parts[n], dice)
    dice.shuffle(moves)
    for move in moves:
        desk.clock.advance(0.001)
        id = ids[move.delivery]
        await _make(desk, model, model.owed[id], move, parts[move.delivery].refs, former[id], jobs[id])
    return await _differences(desk.store, model, ids)


async def _make(desk: Desk, model: Model, owed: Owed, move: Move, refs: Sequence[str], former: Job, job: Job) -> None:
    if move.kind == "end":
        if move.said == "accepted":
            await desk.accept(job, *refs)
            model.move(owed, State.ACCEPTED)
            model.know(owed, list(refs), len(refs))
        else:
            await desk.lose_track(job, "no_answer")
            model.move(owed, State.UNKNOWN, "no_answer")
            model.weigh(owed)
    elif move.kind == "record":
        await desk.store.record_refs("a", job.id, [move.ref], len(refs))
        model.know(owed, [move.ref], len(refs))
    elif move.kind == "receipt":
        key = f"{move.ref}/{move.said}/{desk.now}".encode()
        await desk.receipt(move.ref, move.said, "why" if move.said == "failed" else "", key=key)
        model.receipt(move.ref, move.said)
    else:
        await desk.settle(former, State(move.said), "late", due_us=_FAR)


async def _differences(store: Store, model: Model, ids: Sequence[bytes]) -> list[str]:
    rows = await store.read(
        "SELECT id, state, reason FROM queue UNION ALL SELECT id, state, reason FROM delivery",
    )
    found: dict[bytes, list[tuple[str, str]]] = {}
    for id, state, reason in rows:
        found.setdefault(id, []).append((state, reason))
    wrong = []
    for id in ids:
        owed = model.owed[id]
        expected = (owed.state.value, owed.reason)
        if found.get(id) != [expected]:
            wrong.append(f"{id.hex()}: {found.get(id)} where the model says {expected}")
    return wrong
