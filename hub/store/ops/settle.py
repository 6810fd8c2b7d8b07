"""What ends tries: settlements, receipts, and what either frees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

from hub.crashpoint import crashpoint
from hub.model import HOLDS_KEY, REVERSIBLE_DEATHS, State
from hub.store.base import BreakerPolicy, Settlement
from hub.store.ops.divert import STAYS_FOR, hand_over
from hub.store.ops.tx import Tx

SECOND = 1_000_000
NEVER = 2**62
#: Crashes that a delivery may be part of: the first in company, then three alone.
POISON = 4

_COPIED = (
    "id, event_id, destination, recipient, generation, batch_id, subscription, projection, purpose, priority, weight,"
    " order_key, on_dead_hold, expires_at, crashes, lease_no, created_at, scope_id, key_hash"
)
_TO_HISTORY = (
    f"INSERT INTO delivery ({_COPIED}, state, reason, tries, body_sha256, settled_at)"
    f" SELECT {_COPIED}, ?, ?, tries + ?, coalesce(body_sha256, ?), ? FROM queue WHERE id = ? AND lease_no = ?"
)
_ALL_TO_HISTORY = (
    f"INSERT INTO delivery ({_COPIED}, state, reason, tries, body_sha256, settled_at)"
    f" SELECT {', '.join('q.' + c for c in _COPIED.split(', '))}, 'delivered', '', q.tries + 1,"
    " coalesce(q.body_sha256, s.column3), s.column4 FROM ("
)
#: The joined order is forced: the few settled rows look the queue up, never the other way round.
_OF_LEASED = (
    ") s CROSS JOIN queue q WHERE q.id = s.column1 AND q.lease_no = s.column2 AND q.state IN ('leased', 'sending')"
    # What is copied is deleted next: nobody may take it over in between.
    " /*pg: FOR UPDATE OF q */"
)
_OURS = " AND lease_no = ? AND state IN ('leased', 'sending')"
_BACK = (
    "UPDATE queue SET state = ?, reason = ?, due_at = ?, tries = tries + ?,"
    " crashes = CASE WHEN ? = 1 THEN 0 ELSE crashes END, lease_owner = NULL, lease_until = NULL,"
    " body_sha256 = coalesce(body_sha256, ?) WHERE id = ?" + _OURS
)
_ALL_ACCEPTED = (
    "UPDATE queue SET state = 'accepted', reason = '', due_at = s.column3, tries = tries + 1, crashes = 0,"
    " lease_owner = NULL, lease_until = NULL, body_sha256 = coalesce(body_sha256, s.column4) FROM ("
)
_LEASED_OF_QUEUE = (
    ") s WHERE queue.id = s.column1 AND queue.lease_no = s.column2 AND queue.state IN ('leased', 'sending')"
)
_ATTEMPT = (
    "INSERT INTO attempt (delivery_id, lease_no, destination, started_at, finished_at, outcome, reason, status,"
    " connect_us, first_byte_us, total_us, answer) SELECT * FROM ("
)
_UNLESS_PADDING = ") s WHERE column1 IS NOT NULL"
_PROMOTE = (
    "UPDATE queue SET state = 'pending', due_at = CASE WHEN due_at > ?1 THEN due_at ELSE ?1 END"
    " WHERE seq = (SELECT seq FROM queue WHERE destination = ?2 AND order_key = ?3 AND order_key IS NOT NULL"
    " AND state = 'waiting' ORDER BY seq LIMIT 1)"
    # An accepted one that became unknown holds the key again, beside the head that it let pass.
    " AND NOT EXISTS (SELECT 1 FROM queue h WHERE h.destination = ?2 AND h.order_key = ?3 AND h.order_key IS NOT NULL"
    " AND h.seq < queue.seq AND h.state <> 'accepted')"
)
_REF = "INSERT INTO provider_ref (connection, ref, delivery_id, of_parts, state, updated_at)"
_REF_KNOWN = (
    " ON CONFLICT (connection, ref) DO UPDATE SET of_parts = CASE WHEN excluded.of_parts > provider_ref.of_parts"
    " THEN excluded.of_parts ELSE provider_ref.of_parts END"
)
#: References asked about in one statement.
_PAIRS = 64
_OF_PAIRS = " FROM (VALUES " + ", ".join(["(?, ?)"] * _PAIRS) + ") s CROSS JOIN "
#: References whose receipt came before them, and those that were known and have one already.
_PARKED = f"SELECT r.connection, r.ref{_OF_PAIRS}receipt r WHERE r.connection = s.column1 AND r.ref = s.column2" + (
    " AND r.delivery_id IS NULL"
)
_REPORTED = (
    f"SELECT p.connection, p.ref{_OF_PAIRS}provider_ref p WHERE p.connection = s.column1 AND p.ref = s.column2"
    + (" AND p.state <> 'awaited'")
)
_SUPERSEDE = "UPDATE provider_ref SET state = 'superseded' WHERE state IN ('awaited', 'failed') AND delivery_id IN ("
_FINAL = (State.DELIVERED, State.DEAD, State.CANCELLED)


def settle_all(tx: Tx, settlements: Sequence[Settlement], now: int, breaker: BreakerPolicy) -> list[bool]:
    """Applies a batch; the common case (all delivered, no follower) takes three statements."""
    _lock(tx, settlements)
    plain = [s for s in settlements if s.state is State.DELIVERED]
    if plain:
        moved = tx.many(
            _ALL_TO_HISTORY, [(s.id, s.lease_no, s.body_sha256, now) for s in plain], "bibi", _OF_LEASED, pad=True
        )
        if moved != len(plain):
            plain = [s for s in {(s.id, s.lease_no): s for s in plain}.values() if _is_moved(tx, s)]
        tx.many("DELETE FROM queue WHERE id IN (", [(s.id,) for s in plain], "b", ")", pad=True)
        for destination, count in Counter([s.destination for s in plain]).items():
            tx.count(destination, "open", -count)
            tx.count(destination, "delivered", count)
        for s in plain:
            if s.order_key is not None:
                promote(tx, s.destination, s.order_key, now)
    if len(plain) == len(settlements):
        ok = [True] * len(settlements)
    else:
        together = [s for s in settlements if s.state is State.ACCEPTED and _is_common(s)]
        done = {id(s) for s in plain}.union(map(id, _accept_all(tx, together, now)))
        apart = {id(s) for s in settlements if s.state is not State.DELIVERED}.difference(map(id, together))
        ok = [id(s) in done or (id(s) in apart and _settle_one(tx, s, now)) for s in settlements]
    settled = [s for s, good in zip(settlements, ok, strict=True) if good]
    _attempts(tx, settled)
    _come_again(tx, [s for s in settled if s.state is State.PENDING and not s.divert_to])
    _health(tx, settled, now, breaker)
    return ok


def _lock(tx: Tx, settlements: Sequence[Settlement]) -> None:
    tx.lock(
        *{("ref", s.connection, ref) for s in settlements for ref in s.refs},
        *{("delivery", s.id) for s in settlements if s.refs or s.state in (State.ACCEPTED, State.UNKNOWN)},
        *{("order", s.destination, s.order_key) for s in settlements if s.order_key is not None},
        *{("order", s.divert_to, s.order_key) for s in settlements if s.order_key is not None and s.divert_to},
    )


def _is_moved(tx: Tx, s: Settlement) -> bool:
    """Whether this batch moved it: an attempt that is on record already was settled before."""
    row = tx.execute(
        "SELECT 1 FROM delivery d WHERE d.id = ? AND d.state = 'delivered' AND d.lease_no = ? AND NOT EXISTS"
        " (SELECT 1 FROM attempt a WHERE a.delivery_id = d.id AND a.lease_no = d.lease_no)",
        (s.id, s.lease_no),
    ).fetchone()
    return row is not None


def _is_common(s: Settlement) -> bool:
    """An accepted one of which nothing has to be said but its references."""
    return bool(s.refs and s.spends_try and s.attempt and not (s.reason or s.not_before_us or s.pause))


def _accept_all(tx: Tx, settlements: Sequence[Settlement], now: int) -> list[Settlement]:
    """Accepts them together; answers those that were still ours."""
    if not settlements:
        return []
    rows = [(s.id, s.lease_no, s.due_us, s.body_sha256) for s in settlements]
    ours = list(settlements)
    if tx.many(_ALL_ACCEPTED, rows, "biib", _LEASED_OF_QUEUE, pad=True) != len(ours):
        ours = [s for s in {(s.id, s.lease_no): s for s in ours}.values() if _is_accepted(tx, s)]
    for destination, count in Counter([s.destination for s in ours]).items():
        tx.count(destination, "open", -count)
        tx.count(destination, State.ACCEPTED, count)
    for s in ours:
        if s.order_key is not None:
            promote(tx, s.destination, s.order_key, now)
    refs = {(s.connection, ref): (s.id, s.of_parts or len(s.refs)) for s in reversed(ours) for ref in s.refs}
    tx.many(_REF, [(*pair, *of, "awaited", now) for pair, of in refs.items()], "ssbisi", _REF_KNOWN)
    pairs = list(refs)
    early: set[tuple[str, str]] = set()
    for start in range(0, len(pairs), _PAIRS):
        chunk = pairs[start : start + _PAIRS]
        values = [text for pair in chunk for text in pair] + [None] * (2 * (_PAIRS - len(chunk)))
        for sql in (_PARKED, _REPORTED):
            early.update((connection, ref) for connection, ref in tx.execute(sql, values).fetchall())
    for s in ours:
        if early and any((s.connection, ref) in early for ref in s.refs):
            keep_refs(tx, s.connection, s.id, s.refs, s.of_parts or len(s.refs), now)
    return ours


def _is_accepted(tx: Tx, s: Settlement) -> bool:
    """Whether this batch accepted it; see ``_is_moved``."""
    row = tx.execute(
        "SELECT 1 FROM queue q WHERE q.id = ? AND q.state = 'accepted' AND q.lease_no = ? AND NOT EXISTS"
        " (SELECT 1 FROM attempt a WHERE a.delivery_id = q.id AND a.lease_no = q.lease_no)",
        (s.id, s.lease_no),
    ).fetchone()
    return row is not None


def _settle_one(tx: Tx, s: Settlement, at: int) -> bool:
    if s.divert_to:
        if hand_over(tx, s):
            if s.order_key is not None:
                promote(tx, s.destination, s.order_key, at)
            return True
        # An earlier try from here may have arrived: it stays with whoever may have it.
        s.divert_to, s.reason, s.due_us, s.attempt = "", "may_have_left", at + STAYS_FOR, None
    spent = int(s.spends_try)
    if s.state in _FINAL and not _holds(s):
        moved = tx.execute(
            _TO_HISTORY + " AND state IN ('leased', 'sending') /*pg: FOR UPDATE */",
            (s.state, s.reason, spent, s.body_sha256, at, s.id, s.lease_no),
        ).rowcount
        if not moved:
            return False
        tx.execute("DELETE FROM queue WHERE id = ?", (s.id,))
    else:
        due = NEVER if s.state is State.DEAD else s.due_us
        tried = int(s.attempt is not None)
        moved = tx.execute(_BACK, (s.state, s.reason, due, spent, tried, s.body_sha256, s.id, s.lease_no)).rowcount
        if not moved:
            return False
    if s.state is not State.PENDING:
        tx.count(s.destination, "open", -1)
        tx.count(s.destination, s.state, 1)
    if s.order_key is not None and s.state not in HOLDS_KEY and not _holds(s):
        promote(tx, s.destination, s.order_key, at)
    if s.refs:
        keep_refs(tx, s.connection, s.id, s.refs, s.of_parts or len(s.refs), at)
    elif s.state in (State.ACCEPTED, State.UNKNOWN):
        weigh_receipts(tx, s.id, at)
    if s.not_before_us:
        name = s.connection if s.not_before_for == "connection" else s.destination
        tx.at_end(s.not_before_for, name, partial(_wait, tx, s.not_before_for, name, s.not_before_us))
    if s.pause:
        name = s.destination if s.pause == "destination" else s.connection
        tx.at_end(s.pause, name, partial(pause, tx, s.pause, name, "hub", s.reason, at))
    return True


def _wait(tx: Tx, kind: str, name: str, until: int) -> None:
    which = "connection" if kind == "connection" else "id"
    tx.execute(
        f"UPDATE destination SET not_before = ? WHERE {which} = ? AND not_before < ?",
        (until, name, until),
    )


def _holds(s: Settlement) -> bool:
    """Whether it keeps its key although it is dead: the subscription wants a person to look first."""
    return s.state is State.DEAD and bool(s.on_dead_hold) and s.order_key is not None


def _attempts(tx: Tx, settlements: Iterable[Settlement]) -> None:
    rows = [(s.id, s.lease_no, s.destination, *s.attempt) for s in settlements if s.attempt is not None]
    tx.many(_ATTEMPT, rows, "bisiissiiiib", _UNLESS_PADDING, pad=True)


def _come_again(tx: Tx, pending: Sequence[Settlement]) -> None:
    """What a batch put back, together: in an outage that is all of it."""
    tx.many(_SUPERSEDE, [(s.id,) for s in pending if s.attempt is not None], "b", ")", pad=True)
    due: dict[str, int] = {}
    for s in pending:
        due[s.destination] = min(s.due_us, due.get(s.destination, NEVER))
    for destination, at in due.items():
        tx.due(destination, at)


def promote(tx: Tx, destination: str, order_key: bytes, now: int) -> None:
    """The key is free: the next in line becomes pending."""
    if tx.execute(_PROMOTE, (now, destination, order_key)).rowcount:
        tx.due(destination, now)


def _health(tx: Tx, settlements: Sequence[Settlement], now: int, breaker: BreakerPolicy) -> None:
    """One word per destination and batch: any success closes its breaker, else failures add up.

    While it is open only its probe counts: tries that were under way when it opened say nothing new.
    """
    good = {s.destination for s in settlements if s.health < 0}
    bad = Counter(s.destination for s in settlements if s.health > 0 and s.destination not in good)
    probed = {s.destination for s in settlements if s.health > 0 and s.probe}
    for destination in sorted(good):  # mostly there is nothing to close, and no row to hold
        if tx.execute("SELECT 1 FROM destination WHERE id = ? AND failures > 0", (destination,)).fetchone():
            tx.at_end("destination", destination, partial(_close_breaker, tx, destination, now, breaker))
    for destination, count in sorted(bad.items()):
        word = partial(_count_failures, tx, destination, count, destination in probed, now, breaker)
        tx.at_end("destination", destination, word)
    for destination in sorted({s.destination for s in settlements if s.probe and s.health == 0} - good):
        tx.at_end("destination", destination, partial(_let_another_ask, tx, destination))


def _close_breaker(tx: Tx, destination: str, now: int, breaker: BreakerPolicy) -> None:
    row = tx.execute("SELECT failures FROM destination WHERE id = ?", (destination,)).fetchone()
    tx.execute("UPDATE destination SET failures = 0, breaker_until = 0 WHERE id = ?", (destination,))
    if row is not None and row[0] >= breaker.failures:  # the outage is over: what was held is due now, in its order
        _all_due(tx, destination, now)


def _count_failures(tx: Tx, destination: str, count: int, probed: bool, now: int, breaker: BreakerPolicy) -> None:
    row = tx.execute("SELECT failures FROM destination WHERE id = ?", (destination,)).fetchone()
    if row is None or (row[0] >= breaker.failures and not probed):
        return
    failures = row[0] + 1 if row[0] >= breaker.failures else min(row[0] + count, breaker.failures)
    tx.execute("UPDATE destination SET failures = ? WHERE id = ?", (failures, destination))
    if failures >= breaker.failures:
        wait = min(breaker.first_s * 2 ** min(failures - breaker.failures, 30), breaker.max_s)
        tx.execute("UPDATE destination SET breaker_until = ? WHERE id = ?", (now + int(wait * SECOND), destination))


def _let_another_ask(tx: Tx, destination: str) -> None:
    """The probe was not sent after all: the next one may go."""
    tx.execute("UPDATE destination SET breaker_until = 0 WHERE id = ?", (destination,))


def _all_due(tx: Tx, destination: str, now: int) -> None:
    """What waited goes by when it was owed, failed probes too: before those that came during the outage."""
    tx.execute(
        "UPDATE queue SET due_at = CASE WHEN created_at < ? THEN created_at ELSE ? END"
        " WHERE destination = ? AND state = 'pending' AND (due_at > created_at OR due_at > ?)",
        (now, now, destination, now),
    )
    _notice(tx, "id", destination)


def _due_in_order(tx: Tx, which: str, name: str, now: int) -> None:
    """After a pause: what was put back goes by when it was owed; what waits for its next try waits on."""
    tx.execute(
        "UPDATE queue SET due_at = created_at WHERE destination IN (SELECT id FROM destination WHERE"
        f" {which} = ?) AND state = 'pending' AND due_at <= ? AND due_at > created_at",
        (name, now),
    )
    _notice(tx, which, name)


def _notice(tx: Tx, which: str, name: str) -> None:
    earliest = tx.execute(
        "SELECT destination, min(due_at) FROM queue WHERE destination IN (SELECT id FROM destination WHERE"
        f" {which} = ?) AND state = 'pending' AND crashes = 0 GROUP BY destination",
        (name,),
    )
    for destination, at in earliest.fetchall():
        tx.due(destination, at)


def pause(tx: Tx, kind: str, name: str, by: str | None, reason: str, now: int) -> bool:
    """Pauses or resumes; one row moves, never the deliveries behind it. The first pause keeps its reason."""
    table, key = ("destination", "id") if kind == "destination" else ("connection", "name")
    if by is None:
        found = tx.execute(f"UPDATE {table} SET paused_by = NULL, paused_reason = '' WHERE {key} = ?", (name,)).rowcount
        if found:
            _due_in_order(tx, "id" if kind == "destination" else "connection", name, now)
        return bool(found)
    found = tx.execute(
        f"UPDATE {table} SET paused_by = ?, paused_reason = ? WHERE {key} = ? AND paused_by IS NULL", (by, reason, name)
    ).rowcount
    if found and by == "hub":
        open_repair(tx, f"{kind}_paused", name, reason, now)
    return bool(found) or tx.execute(f"SELECT 1 FROM {table} WHERE {key} = ?", (name,)).fetchone() is not None


def open_repair(tx: Tx, kind: str, object: str, detail: str, now: int) -> None:
    tx.execute(
        "INSERT INTO repair (kind, object, detail, opened_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (kind, object) WHERE cleared_at IS NULL DO NOTHING",
        (kind, object, detail, now),
    )


# -- receipts --------------------------------------------------------------------------------------


def keep_refs(tx: Tx, connection: str, delivery_id: bytes, refs: Sequence[str], of_parts: int, now: int) -> None:
    """Stores references and applies the receipts that came before them."""
    tx.lock(*{("ref", connection, ref) for ref in refs}, ("delivery", delivery_id))
    for ref in refs:
        tx.many(_REF, [(connection, ref, delivery_id, of_parts, "awaited", now)], "ssbisi", _REF_KNOWN)
    for ref in refs:
        parked = tx.execute(
            "SELECT id, state, reason FROM receipt WHERE connection = ? AND ref = ? AND delivery_id IS NULL"
            " ORDER BY received_at",
            (connection, ref),
        ).fetchall()
        for receipt_id, state, reason in parked:
            tx.execute("UPDATE receipt SET delivery_id = ? WHERE id = ?", (delivery_id, receipt_id))
            _move_part(tx, connection, ref, state, reason, now)
    weigh_receipts(tx, delivery_id, now)  # once all are known: their order must not matter


def apply_receipt(tx: Tx, connection: str, ref: str, state: str, reason: str, now: int, delivery_id: bytes) -> None:
    if _move_part(tx, connection, ref, state, reason, now):
        weigh_receipts(tx, delivery_id, now)


def _move_part(tx: Tx, connection: str, ref: str, state: str, reason: str, now: int) -> bool:
    """A part moves forward only: awaited to failed or delivered, failed to delivered, never back."""
    if state == "interim":
        return False
    moved = tx.execute(
        "UPDATE provider_ref SET state = ?, reason = ?, updated_at = ? WHERE connection = ? AND ref = ?"
        " AND (state = 'awaited' OR (state IN ('failed', 'superseded') AND ? = 'delivered'))",
        (state, reason, now, connection, ref, state),
    ).rowcount
    return bool(moved)


def supersede_refs(tx: Tx, delivery_id: bytes) -> None:
    """It is sent again under new references: the old ones can still prove an arrival, but nobody waits for them."""
    tx.many(_SUPERSEDE, [(delivery_id,)], "b", ")")


def weigh_receipts(tx: Tx, delivery_id: bytes, now: int) -> None:
    """A delivery is as good as its worst part, once every part has reported."""
    tx.lock(("delivery", delivery_id))
    parts = tx.execute(
        "SELECT state, reason, of_parts FROM provider_ref WHERE delivery_id = ? AND state <> 'superseded'",
        (delivery_id,),
    ).fetchall()
    states = {state for state, _, _ in parts}
    of_parts = max((n for _, _, n in parts), default=0)
    if not parts or "awaited" in states:
        return
    if states == {"delivered"}:
        if not of_parts or len(parts) < of_parts:
            return  # parts that were never answered: receipts cannot prove them
        verdict, reason = State.DELIVERED, ""
    else:
        verdict, reason = State.DEAD, "receipt:" + next(r for s, r, _ in parts if s == "failed")
    ended = finish_open(tx, delivery_id, (State.ACCEPTED, State.UNKNOWN), verdict, reason, now)
    if ended:
        crashpoint("receipt.matched")
    elif verdict is State.DELIVERED:
        _revive(tx, delivery_id, now)


def _revive(tx: Tx, delivery_id: bytes, now: int) -> None:
    """A late receipt turns a death of waiting into a delivery; nothing leaves ``delivered``."""
    held = tx.execute("SELECT reason FROM queue WHERE id = ? AND state = 'dead'", (delivery_id,)).fetchone()
    if held is not None and held[0] in REVERSIBLE_DEATHS:
        finish_open(tx, delivery_id, (State.DEAD,), State.DELIVERED, "late_receipt", now)
    row = tx.execute(
        "SELECT destination, reason FROM delivery WHERE id = ? AND state = 'dead'", (delivery_id,)
    ).fetchone()
    if row is not None and row[1] in REVERSIBLE_DEATHS:
        late = "UPDATE delivery SET state = 'delivered', reason = 'late_receipt' WHERE id = ? AND state = 'dead'"
        revived = tx.execute(late, (delivery_id,)).rowcount
        tx.count(row[0], "dead", -revived)
        tx.count(row[0], "delivered", revived)


def lock_order_of(tx: Tx, deliveries: Iterable[bytes], *more: tuple[str | bytes | None, ...]) -> None:
    """Locks the ordering keys of queued deliveries: before their rows, as whoever settles does.

    Args:
        more: keys that are locked with them.
    """
    if not tx.concurrent:
        return
    keys = set(more)
    for delivery_id in deliveries:
        row = tx.execute("SELECT destination, order_key FROM queue WHERE id = ?", (delivery_id,)).fetchone()
        if row is not None and row[1] is not None:
            keys.add(("order", row[0], row[1]))
    tx.lock(*keys)


def finish_open(
    tx: Tx,
    delivery_id: bytes,
    sources: tuple[State, ...],
    verdict: State,
    reason: str,
    now: int,
    *,
    by_person: bool = False,
) -> bool:
    """Ends an unleased delivery that is in one of ``sources``; frees its key, unless a death has to hold it."""
    lock_order_of(tx, [delivery_id])
    row = tx.execute(
        "SELECT state, destination, order_key, lease_no, on_dead_hold FROM queue WHERE id = ? /*pg: FOR UPDATE */",
        (delivery_id,),
    ).fetchone()
    if row is None or row[0] not in sources:
        return False
    state, destination, order_key, lease_no, on_dead_hold = row
    tx.count(destination, "open" if state in ("waiting", "pending") else state, -1)
    tx.count(destination, verdict, 1)
    had_key = order_key is not None and state not in ("waiting", "accepted")
    if had_key and on_dead_hold and verdict is State.DEAD and not by_person:
        tx.execute("UPDATE queue SET state = 'dead', reason = ?, due_at = ? WHERE id = ?", (reason, NEVER, delivery_id))
        return True
    tx.execute(_TO_HISTORY, (verdict, reason, 0, None, now, delivery_id, lease_no))
    tx.execute("DELETE FROM queue WHERE id = ?", (delivery_id,))
    if had_key:
        promote(tx, destination, order_key, now)
    return True
