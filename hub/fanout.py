"""One event, many recipients: a run that freezes the audience, then owes it page by page.

Each recipient gets one delivery, on the first channel in the event's order on which the Directory has an
address now; else a counted line ``unreachable``. Addresses are read again when sending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from hub.clock import Clock
from hub.commit import Committer, event_range, key_hash, queue_row
from hub.contract import Directory, Guard, UnitOfWork
from hub.errors import Conflict
from hub.model import Json, to_us
from hub.routing import Route
from hub.sql import Statement, query
from hub.store.base import QueueRow, RunRow, Store

#: Deliveries in one transaction at most.
PAGE = 500

_BATCH = query(
    text(
        "SELECT b.state, b.audience, b.event_id, e.type, e.scope_id FROM batch b JOIN event e ON e.id = b.event_id"
        " WHERE b.id = :id"
    )
)
_FORGET = query(text("DELETE FROM batch_subject WHERE batch_id = :id"))
_SUBJECT = query(text("INSERT INTO batch_subject (batch_id, n, subject) VALUES (:id, :n, :subject)"))
_FROZEN = query(text("UPDATE batch SET state = 'running', total = :total WHERE id = :id AND state = 'freezing'"))
_PAGE = query(text("SELECT n, subject FROM batch_subject WHERE batch_id = :id AND n >= :after ORDER BY n LIMIT :limit"))
_MADE = query(
    text(
        "UPDATE batch SET made = made + :made, unreachable = unreachable + :unreachable"
        " WHERE id = :id AND state = 'running'"
    )
)
_CURSOR = query(
    text(
        "UPDATE run SET cursor = :new, pages = pages + 1, items = items + :items"
        " WHERE id = :id AND state = 'running' AND lease_owner = :owner AND coalesce(cursor, '0') = :old"
    )
)
_OURS = query(text("UPDATE run SET pages = pages WHERE id = :id AND state = 'running' AND lease_owner = :owner"))
_STATE = query(text("SELECT state FROM batch WHERE id = :id"))
_BY_ID = query(text("SELECT id, event_id, audience FROM batch WHERE id = :id"))
_BY_EVENT = query(text("SELECT id, event_id, audience FROM batch WHERE event_id = :id"))
_DONE = query(text("UPDATE batch SET state = 'done' WHERE id = :id AND state = 'running'"))


class FanOut:
    def __init__(self, committer: Committer, store: Store, directory: Directory, clock: Clock) -> None:
        self._committer = committer
        self._store = store
        self._directory = directory
        self._clock = clock

    async def run(self, run: RunRow) -> int:
        """Owes the rest of the batch; answers the deliveries made. A crash repeats no page: the cursor guards."""
        batch_id = bytes.fromhex(run.object)
        try:
            return await self._run(run, batch_id)
        except Conflict:
            if (await self._store.fetch(_STATE(id=batch_id)))[0][0] != "stopped":
                raise
            return 0  # a person stopped it: what was made is being cancelled, nothing is missing

    async def _run(self, run: RunRow, batch_id: bytes) -> int:
        state, audience_raw, event_id, event_type, scope = (await self._store.fetch(_BATCH(id=batch_id)))[0]
        audience: Json = orjson.loads(audience_raw)
        if state == "freezing":
            ours = Guard(_OURS(id=run.id, owner=run.owner), otherwise="run_lost")
            await self._freeze(batch_id, audience["selector"], ours)
        elif state != "running":
            return 0
        routes = [r for r in self._committer.router.routes(event_type) if r.subscription.to_each]
        made, cursor = 0, int(run.cursor or 0)
        while page := await self._store.fetch(_PAGE(id=batch_id, after=cursor, limit=PAGE)):
            subjects = [subject for _, subject in page]
            rows = await self._owed(subjects, audience, routes, event_id, batch_id, scope)
            reached = {row.recipient for row in rows}
            following = page[-1][0] + 1
            guards = [
                Guard(
                    _CURSOR(new=str(following), old=str(cursor), items=len(rows), id=run.id, owner=run.owner),
                    otherwise="cursor",
                ),
                Guard(
                    _MADE(made=len(rows), unreachable=len(subjects) - len(reached), id=batch_id), otherwise="stopped"
                ),
            ]
            await self._committer.commit(UnitOfWork(guards=guards), deliveries=rows)
            made += len(rows)
            cursor = following
        await self._committer.commit(UnitOfWork(statements=[_DONE(id=batch_id)]))
        return made

    async def _freeze(self, batch_id: bytes, selector: Json, ours: Guard) -> None:
        """Writes the list once; a crash half-way starts it anew, since nobody was owed anything yet."""
        await self._committer.commit(UnitOfWork(guards=[ours], statements=[_FORGET(id=batch_id)]))
        total = 0
        async for subjects in self._directory.recipients(selector):
            frozen: list[Statement] = [
                _SUBJECT(id=batch_id, n=total + i, subject=subject) for i, subject in enumerate(subjects)
            ]
            await self._committer.commit(UnitOfWork(guards=[ours], statements=frozen))
            total += len(frozen)
        await self._committer.commit(UnitOfWork(guards=[ours, Guard(_FROZEN(id=batch_id, total=total))]))

    async def _owed(
        self,
        subjects: Sequence[str],
        audience: Json,
        routes: Sequence[Route],
        event_id: bytes,
        batch_id: bytes,
        scope: str,
    ) -> list[QueueRow]:
        now = to_us(self._clock())
        channels = await self._first_channels(subjects, audience["channels"], routes)
        rows: list[QueueRow] = []
        for subject in subjects:
            owed: set[str] = set()
            for route, channel in channels.get(subject, ()):
                destination = route.subscription.to_each[channel]
                if destination in owed:  # two subscriptions, one destination: owed once, as the first one says
                    continue
                owed.add(destination)
                rows.append(
                    queue_row(
                        route.subscription,
                        route.projection.id,
                        event_id,
                        destination,
                        subject,
                        now,
                        key_hash(subject),
                        priority=audience["priority"],
                        expires_at=audience["expires_at"],
                        scope=scope,
                        purpose=audience["purpose"],
                        batch_id=batch_id,
                    )
                )
        return rows

    async def _first_channels(
        self, subjects: Sequence[str], order: Sequence[str], routes: Sequence[Route]
    ) -> Mapping[str, list[tuple[Route, str]]]:
        """Per subject and subscription: the first channel with an address, that the subscription serves."""
        chosen: dict[str, list[tuple[Route, str]]] = {}
        for route in routes:
            left = list(subjects)
            for channel in order:
                if channel not in route.subscription.to_each or not left:
                    continue
                found = await self._directory.addresses(left, channel)
                for subject in left:
                    if subject in found:
                        chosen.setdefault(subject, []).append((route, channel))
                left = [s for s in left if s not in found]
        return chosen


async def stop_batch(store: Store, id: bytes, clock: Clock, known: Stopped | None = None) -> bytes | None:
    """Stops a batch, named by its own id or its event's, and cancels what waits; answers its id, None without one.

    What was under way ends as it ends. Nothing more of it is begun: here from the first commit on, on other nodes
    ``Stopped.FRESH_S`` later at most.

    Args:
        known: what this process asks before it begins a delivery.
    """
    rows = await _batch_of(store, id)
    if not rows or not await store.stop_batch(rows[0][0]):
        return None
    if known is not None:
        known.forget(rows[0][0])
    batch_id: bytes
    batch_id, first_event, audience = (await store.fetch(_BY_ID(id=rows[0][0])))[0]  # as it is once stopped
    last_event = bytes.fromhex(orjson.loads(audience).get("last_event", first_event.hex()))
    following: bytes | None = event_range(first_event)[0]
    last = event_range(last_event)[1]
    while following is not None:
        following = await store.cancel_stopped(batch_id, following, last, to_us(clock()))
    return batch_id


async def _batch_of(store: Store, id: bytes) -> list[tuple[Any, ...]]:
    """By its id, as a sending asks for itself; only who names its event makes the table be gone through."""
    return await store.fetch(_BY_ID(id=id)) or await store.fetch(_BY_EVENT(id=id))


#: Of a batch's deliveries, read in one statement so that none is counted twice or missed while it moves.
_COUNTS = (
    "SELECT 'batch', state, audience, total, unreachable FROM batch WHERE id = ?1 UNION ALL"
    " SELECT state, CASE WHEN state = 'unknown' THEN reason ELSE '' END, NULL, count(*), 0 FROM queue"
    " WHERE id >= ?2 AND id <= ?3 AND batch_id = ?1 AND generation = 0 GROUP BY 1, 2 UNION ALL"
    " SELECT state, reason, NULL, count(*), 0 FROM delivery"
    " WHERE id >= ?2 AND id <= ?3 AND batch_id = ?1 AND generation = 0 GROUP BY 1, 2"
)


async def batch_progress(store: Store, id: bytes) -> Json | None:
    """See ``hub.contract.Hub.batch``. A person whom two channels reach counts once for each."""
    rows = await _batch_of(store, id)
    if not rows:
        return None
    batch_id, first_event, audience = rows[0]
    last_event = bytes.fromhex(orjson.loads(audience).get("last_event", first_event.hex()))
    counted = await store.read(_COUNTS, (batch_id, event_range(first_event)[0], event_range(last_event)[1]))
    _, state, _, total, unreachable = next(row for row in counted if row[0] == "batch")
    counts: dict[str, int] = {}
    reasons: dict[str, dict[str, int]] = {}
    for delivery_state, reason, _, count, _ in counted:
        if delivery_state == "batch":
            continue
        counts[delivery_state] = counts.get(delivery_state, 0) + count
        if reason:
            reasons.setdefault(delivery_state, {})[reason] = count
    return {
        "id": str(UUID(bytes=batch_id)),
        "event_id": str(UUID(bytes=first_event)),
        "state": state,
        "total": total,
        "unreachable": unreachable,
        "unmade": max(0, total - unreachable - sum(counts.values())),
        "counts": counts,
        "reasons": reasons,
    }


class Stopped:
    """Which batches are stopped, asked of the ledger at most every ``FRESH_S`` a batch."""

    FRESH_S = 0.5

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[bytes, tuple[float, bool]] = {}

    def forget(self, batch_id: bytes) -> None:
        """It was changed: the next one asks again."""
        self._known.pop(batch_id, None)

    async def __call__(self, batch_id: bytes) -> bool:
        known = self._known.get(batch_id)
        if known is not None and known[0] > monotonic():
            return known[1]
        rows = await self._store.fetch(_STATE(id=batch_id))
        stopped = bool(rows) and rows[0][0] == "stopped"
        if len(self._known) >= 1000:
            self._known.clear()
        self._known[batch_id] = (monotonic() + self.FRESH_S, stopped)
        return stopped
