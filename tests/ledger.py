"""What tests of the ledger are made of: facts, moves of a worker's hand, and a recount of the books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.commit import delivery_id
from hub.model import State, new_id, to_us
from hub.retry import SECOND
from hub.store.base import (
    AttemptRow,
    BreakerPolicy,
    Claim,
    ClaimRequest,
    CommitReport,
    ConnectionRow,
    DestinationRow,
    DraftRows,
    Job,
    QueueRow,
    ReceiptRow,
    Settlement,
    Store,
    Unit,
)
from hub.store.ops.prune import PRUNED
from hub.testing import StandingClock

BREAKER = BreakerPolicy(failures=3, first_s=5.0, max_s=60.0)
UNRESOLVED_S = 7 * 86400.0
LEASE_S = 60
#: Settled deliveries and those of the queue under one name.
ALL = (
    "SELECT id, event_id, destination, state, reason, tries, crashes, lease_no, generation, order_key, due_at, batch_id"
    " FROM queue UNION ALL SELECT id, event_id, destination, state, reason, tries, crashes, lease_no, generation,"
    " order_key, NULL, batch_id FROM delivery"
)


def owed(event_id: bytes, destination: str, at: int, **more: Any) -> QueueRow:
    """A delivery as it is first owed; ``more`` overrides its columns."""
    row: dict[str, Any] = {
        "event_id": event_id, "destination": destination, "recipient": "", "generation": 0, "batch_id": None,
        "subscription": "s", "projection": b"p", "purpose": "", "priority": 1, "order_key": None, "on_dead_hold": 0,
        "expires_at": None, "created_at": at, "due_at": at, "scope_id": "", "key_hash": 0, **more,
    }  # fmt: skip
    return QueueRow(id=delivery_id(event_id, destination, row["recipient"], row["generation"]), **row)


def fact(
    key: str,
    at: int,
    destinations: Sequence[str] = (),
    *,
    content: bytes = b"{}",
    event_id: bytes | None = None,
    **more: Any,
) -> DraftRows:
    """A draft ready to be written; the same key with another content is another fact under a used name."""
    event_id = event_id or new_id().bytes
    return DraftRows(
        event=(event_id, "//test", "vn.congdoan.thing.happened.v1", None, at, at, event_id, None, "", 0),
        content=(event_id, None, 0, content),
        dedupe=("//test", key.encode(), content, event_id, at + SECOND),
        deliveries=[owed(event_id, destination, at, **more) for destination in destinations],
    )


def settlement(job: Job, state: State, reason: str = "", **more: Any) -> Settlement:
    """What a worker would say of a claimed job; by default with an attempt on record."""
    at = more.pop("at", job.claimed_at)
    given: dict[str, Any] = {
        "connection": job.destination.split("/")[0],
        "due_us": at,
        "spends_try": True,
        "attempt": AttemptRow(at, at, state.value, reason),
        "probe": job.breaker_open,
        "order_key": job.order_key,
        "on_dead_hold": job.on_dead_hold,
        **more,
    }
    return Settlement(
        id=job.id, lease_no=job.lease_no, destination=job.destination, state=state, reason=reason, **given
    )


@dataclass(slots=True)
class Desk:
    """A store with a clock that stands, and the moves a worker makes on it."""

    store: Store
    clock: StandingClock
    boot: bytes = b"boot-1".ljust(16)
    keys: int = 0
    destinations: list[str] = field(default_factory=list)

    @property
    def now(self) -> int:
        return to_us(self.clock())

    async def configure(self, *destinations: str, rates: Mapping[str, int] | None = None) -> None:
        """Destinations ``connection`` or ``connection/name``; ``rates``: spacing in microseconds."""
        self.destinations = list(destinations)
        connections = {d.split("/")[0] for d in destinations}
        await self.store.configure(
            [ConnectionRow(c, "test") for c in sorted(connections)],
            [DestinationRow(d, d.split("/")[0], (rates or {}).get(d, 0)) for d in destinations],
        )

    async def owe(self, *destinations: str, **more: Any) -> list[bytes]:
        """One new event owed to these destinations; answers the deliveries' ids."""
        self.keys += 1
        draft = fact(f"k{self.keys}", self.now, destinations, **more)
        await self.store.commit(Unit(drafts=[draft]))
        return [row.id for row in draft.deliveries]

    async def owe_one(self, destination: str = "a", **more: Any) -> bytes:
        return (await self.owe(destination, **more))[0]

    async def commit(self, *drafts: DraftRows) -> CommitReport:
        return await self.store.commit(Unit(drafts=drafts))

    async def look(self, *, limit: int = 100, capacity: Mapping[str, int] | None = None, suspect: bool = True) -> Claim:
        request = ClaimRequest(
            now=self.now,
            owner=self.boot,
            lease_until=self.now + LEASE_S * SECOND,
            limit=limit,
            capacity=dict.fromkeys(self.destinations, 100) if capacity is None else capacity,
            suspect=suspect,
        )
        return await self.store.claim(request)

    async def claim(self, **more: Any) -> list[Job]:
        return (await self.look(**more)).jobs

    async def claim_one(self, **more: Any) -> Job:
        jobs = await self.claim(**more)
        assert len(jobs) == 1, jobs
        return jobs[0]

    async def settle(self, job: Job, state: State, reason: str = "", **more: Any) -> bool:
        said = settlement(job, state, reason, at=more.pop("at", self.now), **more)
        return (await self.store.settle([said], self.now))[0]

    async def retry_later(self, job: Job, after_s: float = 0, reason: str = "busy", **more: Any) -> bool:
        return await self.settle(job, State.PENDING, reason, due_us=self.now + int(after_s * SECOND), **more)

    async def accept(self, job: Job, *refs: str, within_s: float = 3600, **more: Any) -> bool:
        due = self.now + int(within_s * SECOND)
        return await self.settle(job, State.ACCEPTED, refs=refs, of_parts=len(refs), due_us=due, **more)

    async def lose_track(self, job: Job, reason: str = "no_answer", **more: Any) -> bool:
        due = self.now + int(UNRESOLVED_S * SECOND)
        return await self.settle(job, State.UNKNOWN, reason, due_us=due, **more)

    async def receipt(self, ref: str, state: str, reason: str = "", connection: str = "a", key: bytes = b"") -> None:
        id = key or f"{connection}/{ref}/{state}/{reason}".encode()
        await self.store.commit(Unit(receipts=[ReceiptRow(id, connection, ref, state, reason, self.now)]))

    async def crash(self) -> int:
        """Another boot finds what this one left behind."""
        self.boot = new_id().bytes
        return await self.store.take_over(self.boot, self.now)

    async def sweep(self) -> int:
        return await self.store.sweep(self.now)

    async def row(self, id: bytes) -> dict[str, Any]:
        names = [column.strip() for column in ALL.partition(" FROM ")[0].removeprefix("SELECT ").split(",")]
        rows = await self.store.read(f"SELECT * FROM ({ALL}) AS everything WHERE id = ?", (id,))
        assert len(rows) == 1, "a delivery is in the queue or in the history, never in both or neither"
        return dict(zip(names, rows[0], strict=True))

    async def state(self, id: bytes) -> str:
        """``state`` or ``state(reason)``."""
        row = await self.row(id)
        return f"{row['state']}({row['reason']})" if row["reason"] else row["state"]

    async def attempts(self, id: bytes) -> list[str]:
        rows = await self.store.read("SELECT outcome FROM attempt WHERE delivery_id = ? ORDER BY lease_no", (id,))
        return [outcome for (outcome,) in rows]

    async def repairs(self) -> list[tuple[str, str]]:
        rows = await self.store.read("SELECT kind, object FROM repair WHERE cleared_at IS NULL ORDER BY id")
        return [(kind, object) for kind, object in rows]


OPEN = (State.WAITING, State.PENDING, State.LEASED, State.SENDING)


async def check_books(store: Store) -> None:
    """What must hold after any sequence of moves: counters, positions, and a head for whoever waits."""
    counted: dict[tuple[str, str], int] = {}
    for id, destination, state in await store.read(f"SELECT id, destination, state FROM ({ALL}) AS everything"):
        assert id is not None
        key = (destination, "open" if state in OPEN else state)
        counted[key] = counted.get(key, 0) + 1
    tallied = {(d, s): n for d, s, n in await store.read("SELECT destination, state, count FROM tally") if n}
    pruned = {(d, s.removeprefix(PRUNED)): tallied.pop((d, s)) for d, s in list(tallied) if s.startswith(PRUNED)}
    pruned_events = pruned.pop(("", "event"), 0)
    for key, count in pruned.items():
        counted[key] = counted.get(key, 0) + count
    assert tallied == counted, "the counters are a recount of what is kept and what was pruned"
    twice = await store.read("SELECT count(*) FROM queue JOIN delivery ON delivery.id = queue.id")
    assert twice == [(0,)], "no delivery is both owed and settled"
    stranded = await store.read(
        "SELECT count(*) FROM queue w WHERE w.state = 'waiting' AND NOT EXISTS (SELECT 1 FROM queue h"
        " WHERE h.destination = w.destination AND h.order_key = w.order_key"
        " AND h.state IN ('pending', 'leased', 'sending', 'unknown', 'dead'))"
    )
    assert stranded == [(0,)], "nobody waits without a head"
    late = await store.read(
        "SELECT count(*) FROM queue q JOIN destination d ON d.id = q.destination WHERE q.state = 'pending'"
        " AND q.crashes = 0 AND q.due_at < d.next_due_at"
    )
    assert late == [(0,)], "a destination knows of its earliest delivery"
    positions = [p for (p,) in await store.read("SELECT position FROM event ORDER BY position")]
    given_out = range(1, len(positions) + pruned_events + 1)
    assert len(set(positions)) == len(positions), "no feed position is given twice"
    assert set(positions) <= set(given_out), "feed positions have no gap but for what was pruned"
