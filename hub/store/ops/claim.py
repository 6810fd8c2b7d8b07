"""What leases deliveries: due destinations first, then a few of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from hub.store.base import BreakerPolicy, Claim, ClaimRequest, Job
from hub.store.ops.settle import NEVER, SECOND
from hub.store.ops.tx import Tx

#: So much a claim may be behind the one before it: it waited for its turn, or its node's clock is a little slow.
#: The instants given out meanwhile are not its own; only a clock further behind has been set back.
BEHIND = 60 * SECOND

_OPEN = (
    " FROM destination d JOIN connection c ON c.name = d.connection WHERE d.paused_by IS NULL AND c.paused_by IS NULL"
)
_DUE_DESTINATIONS = (
    "SELECT d.id, d.failures, d.next_send_at, d.spacing_us" + _OPEN + " AND d.next_due_at <= ?"
    " AND d.not_before <= ? AND d.breaker_until <= ? ORDER BY d.last_served_at"
)
#: The same for one of them, once nobody else can serve it.
_HELD = (
    "SELECT d.failures, d.next_send_at, d.spacing_us" + _OPEN + " AND d.next_due_at <= ? AND d.not_before <= ?"
    " AND d.breaker_until <= ? AND d.id = ? FOR UPDATE OF d SKIP LOCKED"
)
#: When a destination that is not due now will be; those without work are at NEVER. A paced one is asked when
#: half a second's worth of instants is free.
_NEXT = (
    "SELECT d.id, d.next_due_at, d.not_before, d.breaker_until,"
    " CASE WHEN d.spacing_us > 0 THEN d.next_send_at - 500000 ELSE 0 END" + _OPEN + " AND d.next_due_at < ?"
)
#: Where something waits that was in flight at a crash, the longest due first.
_SUSPECT_DESTINATIONS = (
    "SELECT d.id, d.failures, d.next_send_at, d.spacing_us" + _OPEN + " AND d.not_before <= ? AND d.breaker_until <= ?"
    " AND d.id IN (SELECT destination FROM queue WHERE state = 'pending' AND crashes > 0 AND due_at <= ?)"
    " ORDER BY (SELECT min(due_at) FROM queue q WHERE q.destination = d.id AND state = 'pending' AND crashes > 0)"
)
#: Columns of ``Job`` in its order, then the queue's row number.
COLUMNS = (
    "q.id", "q.event_id", "q.destination", "q.recipient", "q.batch_id", "q.subscription", "q.projection", "q.purpose",
    "q.order_key", "q.on_dead_hold", "q.expires_at", "q.tries", "q.crashes", "q.lease_no + 1", "q.body_sha256",
    "q.created_at", "q.due_at", "e.source", "e.type", "e.subject", "e.occurred_at", "e.correlation_id", "e.scope_id",
    "c.sealed_for", "c.body", "q.seq",
)  # fmt: skip
#: Where a pick looks, under these names.
FROM = "queue q JOIN event e ON e.id = q.event_id JOIN content c ON c.event_id = q.event_id"
_PICK = (
    "q.destination = ? AND q.priority = ? AND q.due_at <= ? AND q.state = 'pending' AND q.crashes = 0"
    " ORDER BY q.due_at LIMIT ?"
)
_PICK_SUSPECT = (
    "q.destination = ? AND q.state = 'pending' AND q.crashes > 0 AND q.due_at <= ? ORDER BY q.due_at, q.seq LIMIT 1"
)
_LEASE = "UPDATE queue SET state = 'leased', lease_no = lease_no + 1, lease_owner = ?, lease_until = ? WHERE seq IN ("
_EARLIEST = (
    "SELECT min(at) FROM (SELECT min(due_at) AS at FROM queue WHERE destination = ?1 AND priority = 0"
    " AND state = 'pending' AND crashes = 0 UNION ALL SELECT min(due_at) FROM queue WHERE destination = ?1"
    " AND priority = 1 AND state = 'pending' AND crashes = 0 UNION ALL SELECT min(due_at) FROM queue"
    " WHERE destination = ?1 AND priority = 2 AND state = 'pending' AND crashes = 0) s"
)
_SERVED = (
    "UPDATE destination SET last_served_at = ?, next_send_at = ?, breaker_until = ?, next_due_at = coalesce(?,"
    " next_due_at) WHERE id = ?"
)


class ClaimTx(Tx, Protocol):
    def pick(self, condition: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
        """Rows of ``COLUMNS`` of ``FROM`` where the condition holds; no other unit leases them meanwhile."""
        ...


def claim(tx: ClaimTx, request: ClaimRequest, breaker: BreakerPolicy) -> Claim:
    """Leases up to ``limit`` deliveries; a paced destination gives at most a second's worth."""
    if tx.execute("SELECT hold FROM ledger").fetchone()[0] is not None:
        return Claim()
    result = Claim()
    now = request.now
    left = dict(request.capacity)
    if request.suspect:
        _suspect(tx, request, result, left, breaker)
    passed_over = False
    for name, failures, next_send_at, spacing in tx.execute(_DUE_DESTINATIONS, (now, now, now)).fetchall():
        room = min(left.get(name, 0), request.limit - len(result.jobs))
        if room <= 0:
            continue
        if tx.concurrent:
            held = tx.execute(_HELD, (now, now, now, name)).fetchone()
            if held is None:
                passed_over = True
                continue
            failures, next_send_at, spacing = held
        if spacing:
            room = min(room, _instants(now, next_send_at, spacing))
        probing = failures >= breaker.failures
        if probing:  # one oldest delivery asks whether the partner is back
            room = min(room, 1)
        rows: list[Sequence[Any]] = []
        for priority in (0, 1, 2):
            if len(rows) < room:
                rows += tx.pick(_PICK, (name, priority, now, room - len(rows)))
        left[name] -= len(rows)
        served = _take(tx, request, result, rows, next_send_at, spacing, probing)
        earliest = tx.execute(_EARLIEST, (name,)).fetchone()[0]
        tx.execute(_SERVED, (*served, NEVER if earliest is None else earliest, name))
        if len(result.jobs) >= request.limit:
            break
    if passed_over:  # another node is at it: soon asked again
        result.next_at = now
        return result
    # A destination without a free slot is asked again when it has one, not by the clock.
    upcoming = tx.execute(_NEXT, (NEVER,)).fetchall()
    result.next_at = min((max(at) for name, *at in upcoming if left.get(name, 0) > 0), default=NEVER)
    return result


def _suspect(tx: ClaimTx, request: ClaimRequest, result: Claim, left: dict[str, int], breaker: BreakerPolicy) -> None:
    """One delivery that was in flight at a crash, at the pace and within the slots of its destination."""
    now = request.now
    for name, failures, next_send_at, spacing in tx.execute(_SUSPECT_DESTINATIONS, (now, now, now)).fetchall():
        if left.get(name, 0) <= 0 or (spacing and not _instants(now, next_send_at, spacing)):
            continue
        if tx.concurrent:
            held = tx.execute(_HELD, (NEVER, now, now, name)).fetchone()
            if held is None:
                continue
            failures, next_send_at, spacing = held
            if spacing and not _instants(now, next_send_at, spacing):
                continue
        rows = tx.pick(_PICK_SUSPECT, (name, now))
        left[name] -= len(rows)
        served = _take(tx, request, result, rows, next_send_at, spacing, failures >= breaker.failures)
        tx.execute(_SERVED, (*served, None, name))
        return


def _first_instant(now: int, next_send_at: int, spacing: int) -> int:
    """An instant that was missed is not made up; one that only a clock set back can explain is not waited for."""
    return now if next_send_at > now + SECOND + spacing + BEHIND else max(now, next_send_at)


def _instants(now: int, next_send_at: int, spacing: int) -> int:
    """Send instants left within the coming second."""
    first = _first_instant(now, next_send_at, spacing)
    return max(0, (now + SECOND - first + spacing - 1) // spacing)


def _take(
    tx: Tx,
    request: ClaimRequest,
    result: Claim,
    rows: list[Sequence[Any]],
    next_send_at: int,
    spacing: int,
    probing: bool,
) -> tuple[int, int, int]:
    """Leases the rows; answers what the destination remembers: served at, next instant, breaker until."""
    if not rows:
        return request.now, next_send_at, 0
    first = _first_instant(request.now, next_send_at, spacing)
    tx.many(_LEASE, [(row[-1],) for row in rows], "i", ")", lead=(request.owner, request.lease_until), pad=True)
    for i, row in enumerate(rows):
        job = Job(*row[:-1])
        job.breaker_open = probing
        job.claimed_at = request.now
        if spacing:
            job.send_at = first + i * spacing
        result.jobs.append(job)
    following = first + spacing * len(rows) if spacing else next_send_at
    return request.now, following, request.lease_until if probing else 0
