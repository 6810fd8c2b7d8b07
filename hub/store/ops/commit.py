"""What brings facts in: units of work, receipts, runs' pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hub.contract import Guard
from hub.errors import Busy, Conflict, IdempotencyConflict
from hub.store.base import BatchRow, BreakerPolicy, CommitReport, DraftRows, KeyRow, QueueRow, ReceiptRow, Unit
from hub.store.ops.divert import KEY_HELD
from hub.store.ops.settle import apply_receipt, lock_order_of, settle_all
from hub.store.ops.tx import Tx

_EVENT = (
    "INSERT INTO event (id, source, type, subject, occurred_at, received_at, correlation_id, batch_id, scope_id,"
    " key_hash)"
)
_CONTENT = "INSERT INTO content (event_id, sealed_for, quarantined, body)"
_DEDUPE = "INSERT INTO dedupe (source, key, content_hash, event_id, keep_until)"
_UNLESS_KNOWN = " ON CONFLICT (source, key) DO NOTHING"
_KEY = "INSERT INTO subject_key (subject, wrapped, created_at)"
#: Passes again for the same wrapped key; another one means that somebody else made the key first. Where the key was
#: destroyed, whoever comes again begins anew: it opens nothing of what was sealed before.
_UNLESS_ANOTHER = (
    " ON CONFLICT (subject) DO UPDATE SET wrapped = excluded.wrapped"
    " WHERE subject_key.wrapped = excluded.wrapped OR subject_key.wrapped IS NULL"
)
_QUEUE_COLUMNS = (
    "id, event_id, destination, recipient, generation, batch_id, subscription, projection, purpose, priority,"
    " order_key, on_dead_hold, expires_at, created_at, due_at, scope_id, key_hash"
)
_QUEUE = f"INSERT INTO queue ({_QUEUE_COLUMNS}, state)"
_DELIVERY_OF = "SELECT delivery_id FROM provider_ref WHERE connection = ? AND ref = ?"


def commit_unit(tx: Tx, unit: Unit, breaker: BreakerPolicy) -> CommitReport:
    if tx.concurrent and (len(unit.receipts) > 1 or unit.settlement is not None):
        _lock(tx, unit)
    if unit.keys and not _keep_keys(tx, unit.keys):
        raise Conflict("somebody made this key first", otherwise="key_race")
    run_guards(tx, unit.guards)
    tx.run_all(unit.statements)
    report = _drafts(tx, unit.drafts) if unit.drafts else CommitReport(())
    if unit.deliveries:
        enqueue(tx, unit.deliveries)
    for receipt in unit.receipts:
        take_receipt(tx, receipt)
    settlement = unit.settlement
    if settlement is not None:
        at = settlement.attempt.finished_at if settlement.attempt else settlement.due_us
        if not settle_all(tx, [settlement], at, breaker)[0]:
            raise Conflict("the lease was lost", otherwise="late")
    return report


def _lock(tx: Tx, unit: Unit) -> None:
    """All that its parts would lock one after the other, at once and in everybody's order."""
    settlement = unit.settlement
    refs = {("ref", r.connection, r.ref) for r in unit.receipts}
    deliveries = set()
    if settlement is not None:
        refs |= {("ref", settlement.connection, ref) for ref in settlement.refs}
        deliveries.add(settlement.id)
    tx.lock(*refs)
    for r in unit.receipts:
        row = tx.execute(_DELIVERY_OF, (r.connection, r.ref)).fetchone()
        if row is not None:
            deliveries.add(row[0])
    tx.lock(*{("delivery", id) for id in deliveries})
    owed = (*unit.deliveries, *(row for draft in unit.drafts for row in draft.deliveries))
    lock_order_of(tx, deliveries, *{("order", r.destination, r.order_key) for r in owed if r.order_key is not None})


def run_guards(tx: Tx, guards: Sequence[Guard]) -> None:
    for guard in guards:
        try:
            touched = tx.run(guard.statement)
        except tx.violation:
            touched = -1
        if touched != guard.rows:
            raise Conflict(f"guard failed: {guard.otherwise}", otherwise=guard.otherwise)


def _drafts(tx: Tx, drafts: Sequence[DraftRows]) -> CommitReport:
    fresh = drafts
    events = [(d.event[0], False) for d in drafts]
    new = tx.many(_DEDUPE, [d.dedupe for d in drafts], "sbbbi", _UNLESS_KNOWN)
    if new != len(drafts):
        fresh = []
        for i, draft in enumerate(drafts):
            source, key, content_hash, event_id, _ = draft.dedupe
            kept = tx.execute(
                "SELECT event_id, content_hash FROM dedupe WHERE source = ? AND key = ?", (source, key)
            ).fetchone()
            if kept is None:
                raise Busy("the key was forgotten just now; nothing was stored")
            known = kept[0] != event_id or tx.execute("SELECT 1 FROM event WHERE id = ?", (event_id,)).fetchone()
            if not known:
                fresh.append(draft)
            elif kept[1] == content_hash:
                events[i] = (kept[0], True)
            else:
                raise IdempotencyConflict
    if not fresh:
        return CommitReport(events)
    if not _add(tx, fresh):
        raise Conflict("somebody made this key first", otherwise="key_race")
    for draft in fresh:
        if draft.batch is not None:
            _batch(tx, draft.batch)
    _count_in_batches(tx, fresh)
    return CommitReport(events)


def _add(tx: Tx, drafts: Sequence[DraftRows]) -> bool:
    """New events and what they owe; False, and nothing of it, when somebody made one of their keys first."""
    if not _keep_keys(tx, [key for d in drafts for key in d.keys]):
        return False
    tx.many(_EVENT, [d.event for d in drafts], "bsssiibbsi")
    tx.many(_CONTENT, [d.content for d in drafts], "bsib")
    enqueue(tx, [row for d in drafts for row in d.deliveries])
    return True


def _keep_keys(tx: Tx, keys: Sequence[KeyRow]) -> bool:
    # In one order, since others may keep the same ones; each once, as PostgreSQL wants it.
    rows = [row for _, row in sorted({row[0]: row for row in keys}.items())]
    return not rows or tx.many(_KEY, rows, "sbi", _UNLESS_ANOTHER) == len(rows)


class JustDrafts:
    """The commit of a unit that brings drafts and nothing else, as most that come over HTTP do."""

    __slots__ = ("unit",)

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    @staticmethod
    def is_all(unit: Unit) -> bool:
        more = unit.keys or unit.guards or unit.statements or unit.deliveries or unit.receipts or unit.settlement
        return not more and all(d.batch is None and d.event[7] is None for d in unit.drafts)

    def __call__(self, tx: Tx) -> CommitReport:
        return _drafts(tx, self.unit.drafts)


def together(tx: Tx, ops: Sequence[object]) -> dict[int, CommitReport]:
    """Writes the units of nothing but drafts as if they were one; reports by their place among ``ops``.

    A statement for each unit costs more than its rows. None is written here unless all of them are new: the caller
    runs each for itself, as any other.
    """
    mine = {i: op.unit.drafts for i, op in enumerate(ops) if isinstance(op, JustDrafts)}
    if len(mine) < 2:
        return {}
    drafts = [draft for each in mine.values() for draft in each]
    tx.execute("SAVEPOINT together")
    new = tx.many(_DEDUPE, [d.dedupe for d in drafts], "sbbbi", _UNLESS_KNOWN) == len(drafts) and _add(tx, drafts)
    if not new:
        tx.execute("ROLLBACK TO SAVEPOINT together")
    tx.execute("RELEASE SAVEPOINT together")
    return {i: CommitReport([(d.event[0], False) for d in each]) for i, each in mine.items()} if new else {}


def _batch(tx: Tx, batch: BatchRow) -> None:
    tx.execute(
        "INSERT INTO batch (id, event_id, state, audience, created_at) VALUES (?, ?, 'freezing', ?, ?)",
        (batch.id, batch.event_id, batch.audience, batch.created_at),
    )
    tx.execute(
        "INSERT INTO run (id, kind, object, slot, state, due_at) VALUES (?, 'fan_out', ?, 0, 'due', ?)",
        (batch.run_id, batch.id.hex(), batch.created_at),
    )


def _count_in_batches(tx: Tx, drafts: Sequence[DraftRows]) -> None:
    """Batches without an audience: whoever sends adds to them event by event, until somebody stops them.

    Raises: Conflict (``batch_stopped``).
    """
    by_batch: dict[bytes, list[DraftRows]] = {}
    for draft in drafts:
        batch_id = draft.event[7]
        if batch_id is not None and draft.batch is None:
            by_batch.setdefault(batch_id, []).append(draft)
    for batch_id, mine in sorted(by_batch.items()):
        ids = [d.event[0] for d in mine]
        added = tx.execute(
            "INSERT INTO batch (id, event_id, state, audience, total, made, created_at)"
            " VALUES (?, ?, 'done', ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET total = batch.total + excluded.total,"
            " made = batch.made + excluded.made, audience = excluded.audience WHERE batch.state = 'done'",
            (
                batch_id, min(ids), b'{"last_event":"%s"}' % max(ids).hex().encode(), len(ids),
                sum(len(d.deliveries) for d in mine), mine[0].event[5],
            ),
        ).rowcount  # fmt: skip
        if not added:
            raise Conflict("the batch was stopped: nothing was added", otherwise="batch_stopped")


def enqueue(tx: Tx, rows: Sequence[QueueRow]) -> None:
    """New deliveries: the head of each ordering key is pending, the rest wait behind it."""
    if not rows:
        return
    tx.lock(*{("order", r.destination, r.order_key) for r in rows if r.order_key is not None})
    values = []
    heads: set[tuple[bytes, str]] = set()
    due: dict[str, int] = {}
    for r in rows:
        state = "pending"
        if r.order_key is not None:
            key = (r.order_key, r.destination)
            if key in heads or tx.execute(KEY_HELD, key).fetchone():
                state = "waiting"
            heads.add(key)
        if state == "pending" and r.due_at < due.get(r.destination, 2**62):
            due[r.destination] = r.due_at
        values.append((*r, state))
    for destination, count in Counter([r.destination for r in rows]).items():
        tx.count(destination, "open", count)
    tx.many(_QUEUE, values, "bbssibsbsibiiiisis")
    for destination, at in due.items():
        tx.due(destination, at)


def take_receipt(tx: Tx, r: ReceiptRow) -> None:
    """Keeps the receipt; parks it where its reference is not known yet."""
    tx.lock(("ref", r.connection, r.ref))
    known = tx.execute(_DELIVERY_OF, (r.connection, r.ref)).fetchone()
    delivery_id = known[0] if known else None
    kept = tx.execute(
        "INSERT INTO receipt (id, connection, ref, state, reason, received_at, delivery_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        (r.id, r.connection, r.ref, r.state, r.reason, r.received_at, delivery_id),
    ).rowcount
    if kept and delivery_id is not None:
        apply_receipt(tx, r.connection, r.ref, r.state, r.reason, r.received_at, delivery_id)
