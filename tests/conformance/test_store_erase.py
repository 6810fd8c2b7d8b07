"""A destroyed key: gone once, written down once, and whatever waits for it cancelled in its order."""

from __future__ import annotations

from sqlalchemy import text

from hub.contract import Guard
from hub.model import State
from hub.sql import query
from hub.store.base import Unit
from hub.store.ops.erase import key_id
from tests.ledger import Desk

_KEEP = query(text("INSERT INTO subject_key (subject, wrapped, created_at) VALUES (:subject, :wrapped, 1)"))
_LISTED = "SELECT key_id, subject, erased_at, erased_by, reason FROM erasure"


async def test_a_key_is_destroyed_once_and_what_is_known_of_it_opens_nothing(desk: Desk) -> None:
    for subject in ("a", "b"):
        await desk.store.commit(Unit(guards=[Guard(_KEEP(subject=subject, wrapped=subject.encode() * 60))]))
    destroyed = await desk.store.erase("a", "operator", "why", desk.now)
    assert destroyed == key_id(b"a" * 60)
    assert await desk.store.erase("a", "operator", "again", desk.now + 1) is None
    assert await desk.store.erase("nobody", "operator", "why", desk.now) is None
    assert await desk.store.read(_LISTED) == [(destroyed, "a", desk.now, "operator", "why")]
    assert await desk.store.subject_keys(["a", "b"]) == {"b": b"b" * 60}


async def test_what_waits_is_cancelled_and_what_is_under_way_is_left_to_its_try(desk: Desk) -> None:
    key = b"key-of-order-123"
    under_way = await desk.owe_one(order_key=key)
    job = await desk.claim_one()
    waiting, behind = await desk.owe_one(order_key=key), await desk.owe_one(order_key=key)
    assert await desk.store.cancel_erased([under_way, waiting], desk.now) == 1
    assert await desk.store.cancel_erased([], desk.now) == 0
    row = await desk.row(waiting)
    assert (row["state"], row["reason"]) == ("cancelled", "erased")
    assert await desk.state(under_way) == "leased" and await desk.state(behind) == "waiting"
    await desk.settle(job, State.DELIVERED)
    assert (await desk.claim_one()).id == behind
