"""What was kept long enough goes: a bounded number of rows per transaction.

An event goes with everything that hangs on it, and only when nobody is owed any of it any more; its content may
go earlier. The counters stay as they are: what goes is counted beside them, under ``pruned:STATE``, so that
what is kept and what is gone add up to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hub.store.base import Pruned, PruneStep
from hub.store.ops.tx import Tx

#: Before a state in ``tally``: settled deliveries that are gone. Under destination "" stand the events that are gone.
PRUNED = "pruned:"
#: Events looked at in one transaction.
EVENTS = 100

#: Rows that end by themselves: their key, which of them went past an instant, and the index they are found by.
#: Of a connection's runs the last scheduled and the last asked for (negative slots) stay, whatever their age.
_ENDED_AT: dict[str, tuple[str, str, str]] = {
    "dedupe": ("source, key", "keep_until < ?", "keep_until"),
    "idempotency": ("principal, key", "keep_until < ?", "keep_until"),
    "raw_request": ("id", "keep_until < ?", "keep_until"),
    "receipt": ("id", "delivery_id IS NULL AND received_at < ?", "received_at"),  # parked, and nobody matched it
    "repair": ("id", "cleared_at < ?", "cleared_at"),
    "run": (
        "id",
        "finished_at < ? AND EXISTS (SELECT 1 FROM run n WHERE n.kind = run.kind AND n.object = run.object"
        " AND n.slot > run.slot) AND (slot >= 0 OR EXISTS (SELECT 1 FROM run n WHERE n.kind = run.kind"
        " AND n.object = run.object AND n.slot < run.slot))",
        "finished_at",
    ),
}
#: What is chosen is chosen once: a sub-select that PostgreSQL joins may be run again, and skips what it has locked.
_ENDED = {
    table: (
        f"DELETE FROM {table} WHERE ({key}) IN (/*pg: WITH found AS MATERIALIZED ( */SELECT {key} FROM {table}"
        f" WHERE {ended} ORDER BY {index} LIMIT ? /*pg: FOR UPDATE SKIP LOCKED) SELECT {key} FROM found */)"
    )
    for table, (key, ended, index) in _ENDED_AT.items()
}

#: One without a feed position has not been shown to the readers of the feed yet.
_ENVELOPES = "SELECT id, batch_id FROM event WHERE id IN ({}) AND position IS NOT NULL /*pg: FOR UPDATE SKIP LOCKED */"
_OWED_IN_RANGE = "SELECT 1 FROM queue WHERE id >= ? AND id <= ? LIMIT 1"
_OWED = "SELECT 1 FROM queue WHERE id >= ? AND id <= ? AND event_id = ? LIMIT 1"
_FANNING_OUT = "SELECT 1 FROM batch WHERE id = ? AND state IN ('freezing', 'running')"
_DELIVERIES = "SELECT id FROM delivery WHERE id >= ? AND id <= ? AND event_id = ? ORDER BY id LIMIT ?"
_SUBJECTS = (
    "DELETE FROM batch_subject WHERE batch_id = ?1 AND n IN (SELECT n FROM batch_subject WHERE batch_id = ?1"
    " ORDER BY n LIMIT ?2)"
)
_RECEIPTS = (
    "DELETE FROM receipt WHERE (connection, ref) IN (SELECT connection, ref FROM provider_ref WHERE delivery_id IN ("
)


def prune(tx: Tx, step: PruneStep) -> Pruned:
    """One bounded step; answers what went, and which of the given events have to be asked for again."""
    if step.table == "event":
        return _events(tx, step.events, step.limit)
    if step.table == "content":
        free = _owing_nothing(tx, step.events[:EVENTS])
        # What nobody could read yet says nothing anywhere else: it stays as long as its event.
        gone = tx.many(
            "DELETE FROM content WHERE quarantined <> 1 AND event_id IN (", [(e.id,) for e in free], "b", ")"
        )
        return Pruned({"content": gone}, step.events[EVENTS:])
    return Pruned({step.table: tx.execute(_ENDED[step.table], (step.before, step.limit)).rowcount}, ())


class _Event:
    """An envelope that is locked until COMMIT, with the range its deliveries' ids are in."""

    __slots__ = ("batch_id", "first", "id", "last")

    def __init__(self, id: bytes, batch_id: bytes | None) -> None:
        self.id, self.batch_id = id, batch_id
        self.first, self.last = delivery_range(id)


def delivery_range(event_id: bytes) -> tuple[bytes, bytes]:
    """The lowest and highest id a delivery of the event can have; see ``hub.commit.event_range``."""
    head = event_id[:6] + bytes([0x80 | (event_id[6] & 0x0F)]) + event_id[7:8]
    return head + b"\x00" * 8, head + b"\xff" * 8


def _owing_nothing(tx: Tx, ids: Sequence[bytes]) -> list[_Event]:
    """Those of the events of which nothing is unsettled, and no fan-out will owe more, in the order of their ids.

    Their envelopes are locked before the look: whoever replays a delivery holds its event's envelope too, so a
    replay either is seen here or finds the content gone.
    """
    if not ids:
        return []
    marks, values = _among(ids)
    events = [_Event(*row) for row in tx.execute(_ENVELOPES.format(marks), values).fetchall()]
    events.sort(key=lambda event: event.id)
    if events and tx.execute(_OWED_IN_RANGE, (events[0].first, events[-1].last)).fetchone():
        events = [e for e in events if tx.execute(_OWED, (e.first, e.last, e.id)).fetchone() is None]
    return [e for e in events if e.batch_id is None or tx.execute(_FANNING_OUT, (e.batch_id,)).fetchone() is None]


def _events(tx: Tx, ids: Sequence[bytes], limit: int) -> Pruned:
    """Whole events, one after the other, as long as they fit.

    One with more deliveries than fit into a transaction goes in several, its content first (from then on nothing
    of it can be sent again) and its envelope last (whoever sees a delivery sees its event).
    """
    rows: Counter[str] = Counter()
    free = _owing_nothing(tx, ids[:EVENTS])
    left = [event.id for event in free]
    begun: list[_Event] = []
    done: list[_Event] = []
    deliveries: list[bytes] = []
    room = limit
    for event in free:
        found = [row[0] for row in tx.execute(_DELIVERIES, (event.first, event.last, event.id, room + 1)).fetchall()]
        if len(found) > room and begun:
            break
        begun.append(event)
        deliveries += found[:room]
        is_whole = len(found) <= room
        room -= len(found) + 1
        if is_whole and event.batch_id is not None:
            subjects = tx.execute(_SUBJECTS, (event.batch_id, max(room, 1))).rowcount
            rows["batch_subject"] += subjects
            is_whole = subjects < max(room, 1)
            room -= subjects
        if is_whole:
            done.append(event)
            left.remove(event.id)
        if room <= 0:
            break
    rows["content"] = _delete(tx, "content", "event_id", [event.id for event in begun])
    if deliveries:
        _forget_deliveries(tx, deliveries, rows)
    _forget_batches(tx, [event.batch_id for event in done if event.batch_id is not None], rows)
    rows["event"] = _delete(tx, "event", "id", [event.id for event in done])
    tx.count("", PRUNED + "event", rows["event"])
    return Pruned(+rows, (*left, *ids[EVENTS:]))


def _forget_deliveries(tx: Tx, ids: Sequence[bytes], rows: Counter[str]) -> None:
    marks, values = _among(ids)
    if tx.concurrent:
        refs = tx.execute(f"SELECT connection, ref FROM provider_ref WHERE delivery_id IN ({marks})", values).fetchall()
        _lock_refs(tx, refs)
    rows["receipt"] += tx.many(_RECEIPTS, [(id,) for id in ids], "b", "))")
    rows["provider_ref"] += _delete(tx, "provider_ref", "delivery_id", ids)
    rows["attempt"] += _delete(tx, "attempt", "delivery_id", ids)
    gone = tx.execute(f"DELETE FROM delivery WHERE id IN ({marks}) RETURNING destination, state", values).fetchall()
    for (destination, state), count in Counter((row[0], row[1]) for row in gone).items():
        tx.count(destination, PRUNED + state, count)
    rows["delivery"] += len(gone)


def _lock_refs(tx: Tx, refs: Sequence[Sequence[str]]) -> None:
    """A receipt that is being matched right now is seen and goes too, and changes no delivery that is gone."""
    tx.lock(*{("ref", ref[0], ref[1]) for ref in refs})


def _forget_batches(tx: Tx, ids: Sequence[bytes], rows: Counter[str]) -> None:
    """Batches whose lists of subjects are gone, with the runs that fanned them out."""
    for id in ids:
        rows["run"] += tx.execute("DELETE FROM run WHERE kind = 'fan_out' AND object = ?", (id.hex(),)).rowcount
    rows["batch"] += _delete(tx, "batch", "id", ids)


def _delete(tx: Tx, table: str, key: str, ids: Sequence[bytes]) -> int:
    return tx.many(f"DELETE FROM {table} WHERE {key} IN (", [(id,) for id in ids], "b", ")")


def _among(ids: Sequence[bytes]) -> tuple[str, list[bytes]]:
    """Marks and values for ``IN (...)``, padded so that a few texts serve all counts."""
    size = 1 << (len(ids) - 1).bit_length()
    return ", ".join("?" * size), [*ids, *[ids[-1]] * (size - len(ids))]


# -- whole days, where the engine can drop them ------------------------------------------------------


def forget_beside(tx: Tx, first: bytes, behind: bytes, limit: int) -> Counter[str]:
    """Before a day of events, contents, deliveries and attempts is dropped: what hangs on it in other tables.

    To be called until it answers nothing; ``first`` and ``behind`` bound the day's ids. Afterwards no receipt can
    change a delivery of that day, so what ``COUNT_DAY`` answers stays true.
    """
    rows: Counter[str] = Counter()
    refs = tx.execute(
        "SELECT connection, ref FROM provider_ref WHERE delivery_id >= ? AND delivery_id < ? LIMIT ?",
        (first, behind, limit),
    ).fetchall()
    if refs:
        _lock_refs(tx, refs)
        pairs = [(row[0], row[1]) for row in refs]
        rows["receipt"] = tx.many("DELETE FROM receipt WHERE (connection, ref) IN (", pairs, "ss", ")")
        rows["provider_ref"] = tx.many("DELETE FROM provider_ref WHERE (connection, ref) IN (", pairs, "ss", ")")
        return +rows
    batches = "SELECT id FROM batch WHERE event_id >= ? AND event_id < ? AND state IN ('done', 'stopped') LIMIT 1"
    for (batch_id,) in tx.execute(batches, (first, behind)).fetchall():
        rows["batch_subject"] = tx.execute(_SUBJECTS, (batch_id, limit)).rowcount
        if rows["batch_subject"] < limit:
            _forget_batches(tx, [batch_id], rows)
    return +rows


#: What ``tally`` has to say of a day of ids [?1, ?2) that is dropped: to be written in the transaction that drops it.
COUNT_DAY = (
    f"SELECT destination, '{PRUNED}' || state, count(*) FROM delivery WHERE id >= ?1 AND id < ?2"
    f" GROUP BY destination, state UNION ALL SELECT '', '{PRUNED}event', count(*) FROM event WHERE id >= ?1 AND id < ?2"
)


# -- what would go, counted ------------------------------------------------------------------------

#: Rows that ended before an instant.
ENDED_TO_GO = {table: f"SELECT count(*) FROM {table} WHERE {ended}" for table, (_, ended, _) in _ENDED_AT.items()}
_OWED_EVENTS = (
    "SELECT event_id FROM queue WHERE id < ? UNION SELECT event_id FROM batch WHERE state IN ('freezing', 'running')"
)
_TO_GO = f"id < ? AND position IS NOT NULL AND id NOT IN ({_OWED_EVENTS})"
_OF_EVENTS = f"event_id IN (SELECT id FROM event WHERE {_TO_GO})"
_OF_DELIVERIES = f"delivery_id IN (SELECT id FROM delivery WHERE {_OF_EVENTS})"
#: Events below an id (given twice) with all that hangs on them.
EVENTS_TO_GO = {
    table: f"SELECT count(*) FROM {source} WHERE {condition}"
    for table, source, condition in (
        ("event", "event", _TO_GO),
        ("content", "content", _OF_EVENTS),
        ("delivery", "delivery", _OF_EVENTS),
        ("attempt", "attempt", _OF_DELIVERIES),
        ("provider_ref", "provider_ref", _OF_DELIVERIES),
        ("receipt", "receipt", _OF_DELIVERIES),
        ("batch", "batch", _OF_EVENTS),
        ("run", "batch", _OF_EVENTS),  # each was fanned out by one
        ("batch_subject", "batch_subject", f"batch_id IN (SELECT id FROM batch WHERE {_OF_EVENTS})"),
    )
}
#: Contents of given events, but not of those that owe something below an id.
CONTENTS_TO_GO = f"SELECT count(*) FROM content WHERE event_id IN ({{}}) AND event_id NOT IN ({_OWED_EVENTS})"
