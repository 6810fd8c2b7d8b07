"""What happens beside the hot path: take-over, sweeps, configuration, runs, a person's word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hub.errors import ConfigError, InputError
from hub.model import State, new_id
from hub.store.base import ConnectionRow, DestinationRow, QueueRow, RunRow
from hub.store.ops.commit import enqueue
from hub.store.ops.settle import (
    NEVER,
    POISON,
    SECOND,
    finish_open,
    lock_order_of,
    open_repair,
    pause,
    supersede_refs,
    weigh_receipts,
)
from hub.store.ops.tx import Tx

#: Rows one sweep may settle in one transaction.
SWEEP = 500
#: Until a fan-out that broke off is gone on with.
FAN_OUT_PAUSE = 30 * SECOND


def take_over(tx: Tx, boot: bytes, now: int, unresolved_after_s: float) -> int:
    """Every lease of another process that is not among the nodes; answers how many deliveries were freed."""
    gone = "<> ? AND lease_owner NOT IN (SELECT boot FROM node)"
    rows = tx.execute(
        "SELECT id, lease_no, destination, state, crashes FROM queue"
        f" WHERE state IN ('leased', 'sending') AND lease_owner {gone}",
        (boot,),
    ).fetchall()
    tx.lock(*{("delivery", row[0]) for row in rows})
    lock_order_of(tx, (row[0] for row in rows))
    freed = 0
    for delivery_id, lease_no, destination, state, crashes in rows:
        reason = "crashed_while_sending" if state == "sending" else "crashed"
        poison = state == "leased" and crashes + 1 >= POISON
        to = State.UNKNOWN if state == "sending" else State.PENDING
        due = now + int(unresolved_after_s * SECOND) if state == "sending" else now
        moved = tx.execute(
            "UPDATE queue SET state = ?, reason = ?, due_at = ?, crashes = crashes + 1, lease_owner = NULL,"
            " lease_until = NULL WHERE id = ? AND lease_no = ? AND state = ?",
            (to, "" if poison else reason, due, delivery_id, lease_no, state),
        ).rowcount
        if not moved:  # its process lived a little longer than its lease
            continue
        freed += 1
        tx.execute(
            "INSERT INTO attempt (delivery_id, lease_no, destination, started_at, finished_at, outcome, reason)"
            " VALUES (?, ?, ?, ?, ?, 'lost', ?)",
            (delivery_id, lease_no, destination, now, now, reason),
        )
        if to is State.UNKNOWN:
            tx.count(destination, "open", -1)
            tx.count(destination, "unknown", 1)
            weigh_receipts(tx, delivery_id, now)
        elif poison:
            finish_open(tx, delivery_id, (State.PENDING,), State.DEAD, "poison", now)
            open_repair(tx, "poison", delivery_id.hex(), "crashed the hub three times alone", now)
    tx.execute(
        f"UPDATE run SET state = 'due', lease_owner = NULL WHERE state = 'running' AND lease_owner {gone}", (boot,)
    )
    return freed


def sweep(tx: Tx, now: int, unresolved_after_s: float) -> int:
    """What ran out, whatever the state of its destination; at most ``SWEEP`` rows of each kind."""
    expired = tx.execute(
        "SELECT id FROM queue WHERE expires_at <= ? AND expires_at IS NOT NULL AND state IN ('waiting', 'pending')"
        " ORDER BY expires_at, seq LIMIT ?",
        (now, SWEEP),
    ).fetchall()
    timed = tx.execute(
        "SELECT id, state, destination FROM queue WHERE state IN ('accepted', 'unknown') AND due_at <= ?"
        " ORDER BY due_at, seq LIMIT ?",
        (now, SWEEP),
    ).fetchall()
    tx.lock(*{("delivery", row[0]) for row in timed})
    lock_order_of(tx, (row[0] for row in (*expired, *timed)))
    for (delivery_id,) in expired:
        finish_open(tx, delivery_id, (State.WAITING, State.PENDING), State.DEAD, "expired", now)
    for delivery_id, state, destination in timed:
        if state == "unknown":
            finish_open(tx, delivery_id, (State.UNKNOWN,), State.DEAD, "unresolved", now)
            continue
        due = now + int(unresolved_after_s * SECOND)
        moved = tx.execute(
            "UPDATE queue SET state = 'unknown', reason = 'no_receipt', due_at = ? WHERE id = ? AND state = 'accepted'",
            (due, delivery_id),
        ).rowcount
        if moved:  # else its receipt came while we waited for it
            tx.count(destination, "accepted", -1)
            tx.count(destination, "unknown", 1)
    return len(expired) + len(timed)


def stop_batch(tx: Tx, batch_id: bytes) -> bool:
    """From here on nothing is made for it or begun; False when there is no such batch."""
    return bool(tx.execute("UPDATE batch SET state = 'stopped' WHERE id = ?", (batch_id,)).rowcount)


def cancel_stopped(tx: Tx, batch_id: bytes, first: bytes, last: bytes, now: int) -> bytes | None:
    """Cancels up to ``SWEEP`` deliveries of a stopped batch that wait, with ids from ``first`` to ``last``.

    Answers where to go on, None at the end. What is under way is left to whoever has it.
    """
    rows = tx.execute(
        "SELECT id FROM queue WHERE id >= ? AND id <= ? AND batch_id = ? AND state IN ('waiting', 'pending')"
        " ORDER BY id LIMIT ?",
        (first, last, batch_id, SWEEP),
    ).fetchall()
    lock_order_of(tx, (row[0] for row in rows))
    for (delivery_id,) in rows:
        finish_open(tx, delivery_id, (State.WAITING, State.PENDING), State.CANCELLED, "batch_stopped", now)
    return rows[-1][0] if len(rows) == SWEEP else None


def configure(tx: Tx, connections: Sequence[ConnectionRow], destinations: Sequence[DestinationRow], now: int) -> None:
    """Files own their rows: a name without a file is paused with a repair, nothing is deleted."""
    tx.lock(("configure", ""))
    for c in connections:
        tx.execute(
            "INSERT INTO connection (name, type, managed_by) VALUES (?, ?, 'file')"
            " ON CONFLICT (name) DO UPDATE SET type = excluded.type",
            (c.name, c.type),
        )
        tx.execute(
            "UPDATE connection SET paused_by = NULL, paused_reason = '' WHERE name = ? AND paused_by = 'file'",
            (c.name,),
        )
        clear_repair(tx, "connection_file_gone", c.name, now)
    # All at once and in everybody's order: units that make something due wait for these rows too.
    tx.execute('SELECT id FROM destination ORDER BY id /*pg: COLLATE "C" FOR UPDATE */').fetchall()
    for d in destinations:
        tx.execute(
            "INSERT INTO destination (id, connection, spacing_us) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET spacing_us = excluded.spacing_us",
            (d.id, d.connection, d.spacing_us),
        )
        tx.execute(
            "UPDATE destination SET paused_by = NULL, paused_reason = '' WHERE id = ? AND paused_by = 'file'", (d.id,)
        )
        clear_repair(tx, "destination_file_gone", d.id, now)
    known = {c.name for c in connections}
    for (name,) in tx.execute("SELECT name FROM connection WHERE managed_by = 'file' AND paused_by IS NULL").fetchall():
        if name not in known:
            tx.execute("UPDATE connection SET paused_by = 'file', paused_reason = 'file_gone' WHERE name = ?", (name,))
            open_repair(tx, "connection_file_gone", name, "its configuration file is gone", now)
    still = {d.id for d in destinations}
    for name, owner in tx.execute("SELECT id, connection FROM destination WHERE paused_by IS NULL").fetchall():
        if name not in still and owner in known:
            pause(tx, "destination", name, "file", "file_gone", now)
            open_repair(tx, "destination_file_gone", name, "its configuration is gone", now)
    # Not held, not paused, but its next due time may date from before a stop: look again.
    tx.execute(
        "UPDATE destination SET next_due_at = coalesce((SELECT min(due_at) FROM queue q WHERE q.destination ="
        " destination.id AND q.state = 'pending'), ?)",
        (NEVER,),
    )


def keep_projections(tx: Tx, projections: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    tx.many("INSERT INTO projection (id, fields)", sorted(projections.items()), "bb", " ON CONFLICT (id) DO NOTHING")
    return dict(tx.execute("SELECT id, fields FROM projection").fetchall())


def due_run(tx: Tx, run_id: bytes, kind: str, object: str, slot: int, now: int) -> bool:
    """One run per slot; none beside an open run of the same object."""
    tx.lock(("run", kind, object))
    return bool(
        tx.execute(
            "INSERT INTO run (id, kind, object, slot, state, due_at) SELECT ?, ?, ?, ?, 'due', ? WHERE NOT EXISTS"
            " (SELECT 1 FROM run WHERE kind = ? AND object = ? AND state IN ('due', 'running'))"
            " ON CONFLICT (kind, object, slot) DO NOTHING",
            (run_id, kind, object, slot, now, kind, object),
        ).rowcount
    )


def claim_run(tx: Tx, owner: bytes, now: int) -> RunRow | None:
    row = tx.execute(
        "UPDATE run SET state = 'running', lease_owner = ?, started_at = coalesce(started_at, ?) WHERE id ="
        " (SELECT id FROM run WHERE state = 'due' AND due_at <= ? ORDER BY due_at LIMIT 1"
        " /*pg: FOR UPDATE SKIP LOCKED */) RETURNING id, kind, object, slot, cursor, lease_owner",
        (owner, now, now),
    ).fetchone()
    return None if row is None else RunRow(*row)


def finish_run(tx: Tx, run: RunRow, state: str, reason: str, now: int) -> bool:
    """A failed fan-out is due again: no schedule would make another run for the rest of its recipients."""
    ours = " WHERE id = ? AND lease_owner = ? AND state = 'running'"
    if run.kind == "fan_out" and state == "failed":
        again = tx.execute(
            "UPDATE run SET state = 'due', reason = ?, due_at = ?, lease_owner = NULL" + ours,
            (reason, now + FAN_OUT_PAUSE, run.id, run.owner),
        ).rowcount
        if again:
            open_repair(tx, "fan_out_failed", run.object, reason, now)
        return bool(again)
    done = tx.execute(
        "UPDATE run SET state = ?, reason = ?, finished_at = ?, lease_owner = NULL" + ours,
        (state, reason, now, run.id, run.owner),
    ).rowcount
    if done and run.kind == "fan_out":
        clear_repair(tx, "fan_out_failed", run.object, now)
    return bool(done)


def clear_repair(tx: Tx, kind: str, object: str, now: int) -> None:
    tx.execute(
        "UPDATE repair SET cleared_at = ? WHERE kind = ? AND object = ? AND cleared_at IS NULL", (now, kind, object)
    )


_REPLAYED = (
    "SELECT id, event_id, destination, recipient, generation, batch_id, subscription, projection, purpose, priority,"
    " order_key, on_dead_hold, NULL, created_at, 0, scope_id, key_hash FROM delivery WHERE id = ?"
)


_IS_OWED = "SELECT 1 FROM queue WHERE id = ?1 UNION ALL SELECT 1 FROM delivery WHERE id = ?1"
#: Locked, so that it is not pruned while it becomes owed again.
_CONTENT_IS_KEPT = (
    "SELECT 1 FROM event e JOIN content c ON c.event_id = e.id WHERE e.id = ? /*pg: FOR KEY SHARE OF e, c */"
)


def replay(tx: Tx, delivery_id: bytes, new_id: bytes, now: int) -> bytes | None:
    """A new generation of a settled delivery, without the old expiry: a person asked for it.

    Raises: InputError when the event's content is gone.
    """
    tx.lock(("delivery", delivery_id))
    row = tx.execute(_REPLAYED, (delivery_id,)).fetchone()
    if row is None or tx.execute(_IS_OWED, (new_id,)).fetchone() is not None:  # another person asked just now
        return None
    if tx.execute(_CONTENT_IS_KEPT, (row[1],)).fetchone() is None:
        raise InputError(
            "nội dung sự kiện này đã hết thời hạn lưu nên không gửi lại được; không có gì được gửi, lượt gửi và các lần"
            " thử vẫn xem được / the content of this event was kept long enough and is gone: it cannot be sent again;"
            " nothing was sent, the delivery and its attempts can still be looked at",
            problem="content-gone",
            status=410,
        )
    generation = tx.execute(
        "SELECT max(generation) FROM (SELECT generation FROM delivery WHERE event_id = ?1 AND destination = ?2"
        " AND recipient = ?3 UNION ALL SELECT generation FROM queue WHERE event_id = ?1 AND destination = ?2"
        " AND recipient = ?3) s",
        (row[1], row[2], row[3]),
    ).fetchone()[0]
    fields = list(row)
    fields[0], fields[4], fields[13], fields[14] = new_id, generation + 1, now, now
    enqueue(tx, [QueueRow(*fields)])
    return new_id


def resolve(tx: Tx, delivery_id: bytes, verdict: str, reason: str, now: int) -> bool:
    """delivered | failed end it; resend owes the same delivery again, on a person's word and past its expiry."""
    sources = (State.UNKNOWN, State.DEAD)  # dead only while it holds its key
    if verdict in ("delivered", "failed"):
        target = State.DELIVERED if verdict == "delivered" else State.DEAD
        return finish_open(tx, delivery_id, sources, target, "resolved:" + reason, now, by_person=True)
    tx.lock(("delivery", delivery_id))
    row = tx.execute("SELECT state, destination FROM queue WHERE id = ? /*pg: FOR UPDATE */", (delivery_id,)).fetchone()
    if row is None or row[0] not in sources:
        return False
    tx.execute(
        "UPDATE queue SET state = 'pending', reason = ?, due_at = ?, expires_at = NULL, crashes = 0 WHERE id = ?",
        ("resolved:" + reason, now, delivery_id),
    )
    tx.due(row[1], now)
    tx.count(row[1], row[0], -1)
    tx.count(row[1], "open", 1)
    supersede_refs(tx, delivery_id)
    return True


def check_identity(tx: Tx, fingerprint: bytes, suspect: Callable[[str, int, Mapping[str, bytes]], str | None]) -> str:
    """A foreign key file or a copied database is found before anything is sent; answers the installation's id.

    Args:
        suspect: from the installation's id, the ledger's sequence and what is known of the installation to the
            reason why this database must not send, or None.

    Raises: ConfigError when the key is not the one of this database.
    """
    tx.lock(("configure", ""))  # of two nodes that start together, each with a key of its own, one is refused
    known: dict[str, bytes] = dict(tx.execute("SELECT key, value FROM installation").fetchall())
    if moved_to := known.get("moved_to"):
        raise ConfigError(
            f"sổ cái này đã chuyển sang {moved_to.decode()}: đặt UNIONHUB_DATABASE_URL theo đó"
            f" / this ledger was moved to {moved_to.decode()}: point UNIONHUB_DATABASE_URL there"
        )
    if "moving" in known:
        raise ConfigError(
            "sổ cái này chưa chuyển xong: chạy lại unionhub db move"
            " / this ledger is only half moved: run unionhub db move again"
        )
    kept = known.get("key_fingerprint")
    if kept is not None and kept != fingerprint:
        raise ConfigError(
            "hub.key không phải khóa của cơ sở dữ liệu này: chép lại tệp khóa từ nơi có cơ sở dữ liệu"
            " / hub.key is not the key of this database: copy the key file from where the database came"
        )
    sequence, hold = tx.execute("SELECT sequence, hold FROM ledger").fetchone()
    remember(tx, {"id": known.setdefault("id", new_id().bytes)})
    if kept is None and fingerprint:
        remember(tx, {"key_fingerprint": fingerprint})
    installation = known["id"].hex()
    reason = suspect(installation, sequence, known)
    if hold is None and reason is not None:
        tx.execute("UPDATE ledger SET hold = ?", (reason,))
    return installation


def remember(tx: Tx, facts: Mapping[str, bytes]) -> None:
    """Keeps facts about the installation that are not known yet."""
    tx.many("INSERT INTO installation (key, value)", sorted(facts.items()), "sb", " ON CONFLICT (key) DO NOTHING")
