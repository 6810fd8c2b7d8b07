"""What tests of retention are made of: ids of past days, and what must never be found in a ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date
from typing import Any, Literal

from sqlalchemy import text

from hub.model import from_us
from hub.retry import SECOND
from hub.sql import query
from hub.store.base import Pruned, PruneStep, Store, Unit
from tests.ledger import Desk

DAY = 86_400 * SECOND
#: Rows without what they belong to, by what is wrong. Empty in any ledger, at any moment.
ORPHANS = {
    "a content without its event": "SELECT event_id FROM content WHERE event_id NOT IN (SELECT id FROM event)",
    "a delivery without its event": "SELECT id FROM delivery WHERE event_id NOT IN (SELECT id FROM event)",
    "an attempt that outlived its delivery": (
        "SELECT delivery_id FROM attempt WHERE delivery_id NOT IN (SELECT id FROM delivery UNION SELECT id FROM queue)"
    ),
    "a reference that outlived its delivery": (
        "SELECT delivery_id FROM provider_ref WHERE delivery_id NOT IN (SELECT id FROM delivery UNION SELECT id"
        " FROM queue)"
    ),
    "a matched receipt without its reference": (
        "SELECT id FROM receipt r WHERE delivery_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM provider_ref p"
        " WHERE p.connection = r.connection AND p.ref = r.ref)"
    ),
    "a batch without its event": "SELECT id FROM batch WHERE event_id NOT IN (SELECT id FROM event)",
    "a subject without its batch": "SELECT n FROM batch_subject WHERE batch_id NOT IN (SELECT id FROM batch)",
    "something owed without its event or content": (
        "SELECT id FROM queue WHERE event_id NOT IN (SELECT e.id FROM event e JOIN content c ON c.event_id = e.id)"
    ),
}
_BATCH = query(
    text(
        "INSERT INTO batch (id, event_id, state, audience, total, created_at)"
        " VALUES (:id, :event_id, :state, :audience, :total, :at)"
    )
)
_OF_EVENT = query(text("UPDATE event SET batch_id = :id WHERE id = :event_id"))
_SUBJECT = query(text("INSERT INTO batch_subject (batch_id, n, subject) VALUES (:id, :n, :subject)"))
_RUN = query(
    text(
        "INSERT INTO run (id, kind, object, slot, state, due_at, finished_at)"
        " VALUES (:id, :kind, :object, :slot, :state, :at, :finished_at)"
    )
)


def id_at(us: int, n: int = 0) -> bytes:
    """The n-th event id of this millisecond."""
    return (us // 1000).to_bytes(6) + (0x7000 | n & 0xFFF).to_bytes(2) + b"\x80" + n.to_bytes(7)


def day_of(us: int) -> date:
    return from_us(us).astimezone(UTC).date()


async def orphans(store: Store) -> list[str]:
    return [wrong for wrong, sql in ORPHANS.items() if await store.read(sql)]


async def number(store: Store, table: str) -> int:
    ((count,),) = await store.read(f"SELECT count(*) FROM {table}")
    return int(count)


async def numbers(store: Store, *tables: str) -> dict[str, int]:
    return {table: await number(store, table) for table in tables}


async def steps(
    store: Store, table: Literal["event", "content"], ids: Sequence[bytes], limit: int = 100
) -> AsyncIterator[Pruned]:
    """Step after step, until nothing of these events is left to be done."""
    while await store.place_events(1000):
        pass
    while ids:
        step = await store.prune(PruneStep(table=table, events=ids, limit=limit))
        ids = step.left
        yield step


async def prune(
    store: Store, table: Literal["event", "content"], ids: Sequence[bytes], limit: int = 100
) -> Counter[str]:
    """All the steps; answers the rows that went."""
    rows = Counter[str]()
    async for step in steps(store, table, ids, limit):
        rows.update(step.rows)
    return +rows


async def campaign(desk: Desk, event_id: bytes, state: str = "done", subjects: int = 3) -> bytes:
    """Makes an event one that is owed to many people; answers the batch."""
    id = event_id[::-1]
    values: dict[str, Any] = {"id": id, "event_id": event_id, "state": state, "audience": b"{}", "total": subjects}
    statements = [_BATCH(**values, at=desk.now), _OF_EVENT(id=id, event_id=event_id)]
    statements += [_SUBJECT(id=id, n=n, subject=f"person-{n}") for n in range(subjects)]
    open_run = state in ("freezing", "running")
    statements.append(
        _RUN(
            id=id, kind="fan_out", object=id.hex(), slot=0, state="due" if open_run else "done", at=desk.now,
            finished_at=None if open_run else desk.now,
        )
    )  # fmt: skip
    await desk.store.commit(Unit(statements=statements))
    return id


async def finished_run(desk: Desk, name: str, slot: int, at: int) -> None:
    id = f"{name}/{slot}".encode()
    run = _RUN(id=id, kind="pull", object=name, slot=slot, state="done", at=at, finished_at=at)
    await desk.store.commit(Unit(statements=[run]))
