"""A batch on both stores: what belongs to it is counted, stopped together, and always adds up."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any
from uuid import UUID

import pytest

from hub.errors import Conflict
from hub.fanout import Stopped, batch_progress, stop_batch
from hub.model import State, new_id
from hub.retry import SECOND
from hub.store.base import BatchRow, DraftRows, Unit
from tests.ledger import Desk, fact

BATCH = new_id().bytes


def message(desk: Desk, batch: bytes = BATCH, **more: Any) -> DraftRows:
    """One message of a batch that has no audience."""
    desk.keys += 1
    draft = fact(f"m{desk.keys}", desk.now, ["a"], batch_id=batch, **more)
    return dataclasses.replace(draft, event=(*draft.event[:7], batch, *draft.event[8:]))


async def progress(desk: Desk, batch: bytes = BATCH) -> tuple[int, dict[str, int]]:
    found = await batch_progress(desk.store, batch)
    assert found is not None
    assert found["total"] == found["unreachable"] + found["unmade"] + sum(found["counts"].values())
    return found["total"], found["counts"]


async def stop(desk: Desk, id: bytes = BATCH) -> bytes | None:
    return await stop_batch(desk.store, id, desk.clock)


async def test_messages_added_to_a_batch_are_counted_once(desk: Desk) -> None:
    first, second = message(desk), message(desk)
    await desk.commit(first, second)
    await desk.commit(first, message(desk))
    await desk.commit(message(desk, new_id().bytes))
    assert await progress(desk) == (3, {"pending": 3})


async def test_a_batchs_counts_add_up_whatever_became_of_its_messages(desk: Desk) -> None:
    for _ in range(6):
        await desk.commit(message(desk))
    jobs = await desk.claim()
    await desk.settle(jobs[0], State.DELIVERED)
    await desk.settle(jobs[1], State.DEAD, "number_invalid")
    await desk.settle(jobs[2], State.CANCELLED, "opted_out")
    await desk.lose_track(jobs[3])
    await desk.accept(jobs[4], "r1")
    found = await batch_progress(desk.store, BATCH)
    assert found is not None
    assert found["counts"] == {"delivered": 1, "dead": 1, "cancelled": 1, "unknown": 1, "accepted": 1, "leased": 1}
    assert found["reasons"] == {
        "dead": {"number_invalid": 1}, "cancelled": {"opted_out": 1}, "unknown": {"no_answer": 1}
    }  # fmt: skip
    assert (await progress(desk))[0] == 6


async def test_a_stopped_batch_cancels_what_waits_and_leaves_what_is_under_way(desk: Desk) -> None:
    key = b"key-of-order-123"
    drafts = [message(desk, order_key=key) for _ in range(3)]
    await desk.commit(*drafts)
    await desk.owe_one(order_key=key)
    job = await desk.claim_one()
    await desk.commit(message(desk), message(desk, due_at=desk.now + 3600 * SECOND))
    assert await stop(desk) == BATCH
    assert await progress(desk) == (5, {"leased": 1, "cancelled": 4})
    assert await desk.claim() == []
    await desk.settle(job, State.DELIVERED)
    assert (await desk.claim_one()).batch_id is None, "another's message behind the same key goes on"


async def test_a_stop_is_several_short_transactions(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.store.ops.operate.SWEEP", 10)
    await desk.commit(*[message(desk) for _ in range(25)])
    others = [await desk.owe_one() for _ in range(3)]
    assert await desk.store.stop_batch(BATCH)
    cancelled, after = [], bytes(16)
    while True:
        following = await desk.store.cancel_stopped(BATCH, after, b"\xff" * 16, desk.now)
        cancelled.append((await progress(desk))[1].get("cancelled", 0))
        if following is None:
            break
        after = following
    assert cancelled == [10, 20, 25]
    assert [await desk.state(id) for id in others] == ["pending"] * 3


async def test_nothing_is_added_to_a_stopped_batch(desk: Desk) -> None:
    await desk.commit(message(desk))
    await stop(desk)
    with pytest.raises(Conflict) as refused:
        await desk.commit(message(desk), message(desk))
    assert refused.value.otherwise == "batch_stopped"
    assert await progress(desk) == (1, {"cancelled": 1})
    assert await stop(desk) == BATCH


async def test_a_batch_that_is_fanned_out_is_stopped_by_its_events_id_too(desk: Desk) -> None:
    draft = fact("campaign", desk.now)
    batch = BatchRow(new_id().bytes, draft.event[0], b"{}", new_id().bytes, desk.now)
    await desk.commit(DraftRows(draft.event, draft.content, draft.dedupe, (), batch))
    made = fact("campaign-page", desk.now, ["a"], event_id=draft.event[0], batch_id=batch.id, recipient="m-1")
    await desk.store.commit(Unit(deliveries=made.deliveries))
    assert await stop(desk, draft.event[0]) == batch.id
    assert (await batch_progress(desk.store, batch.id)) == (await batch_progress(desk.store, draft.event[0]))
    assert await desk.state(made.deliveries[0].id) == "cancelled(batch_stopped)"


async def test_a_batch_nobody_knows_is_not_stopped(desk: Desk) -> None:
    await desk.owe_one()
    assert await stop(desk, new_id().bytes) is None
    assert not await desk.store.stop_batch(new_id().bytes)
    assert await batch_progress(desk.store, new_id().bytes) is None
    assert not await Stopped(desk.store)(new_id().bytes)


async def test_messages_are_added_from_many_sides_while_somebody_stops_the_batch(desk: Desk) -> None:
    await desk.commit(message(desk))
    adding = [desk.commit(message(desk)) for _ in range(30)]
    answers = await asyncio.gather(*adding, stop(desk), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Conflict)]
    await stop(desk)
    total, counts = await progress(desk)
    assert total == 31 - len(refused) == counts["cancelled"]
    assert await Stopped(desk.store)(BATCH)
    assert str(UUID(bytes=BATCH)) == (await batch_progress(desk.store, BATCH) or {})["id"]
