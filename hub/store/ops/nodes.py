"""Who works on the ledger: a row per running process, and leases on what one of them does at a time.

A process is alive until its row's lease ends, by the ledger's clock. On SQLite there is one, and the lock on
the file says that all others are dead.
"""

from __future__ import annotations

from collections.abc import Collection

from hub.store.ops.settle import NEVER
from hub.store.ops.tx import Tx

#: The next of other processes' leases to end.
_NEXT_END = (
    "SELECT min(lease_until) FROM (SELECT lease_until FROM node WHERE boot <> ?1 UNION ALL"
    " SELECT lease_until FROM lease WHERE owner <> ?1) others WHERE lease_until > ?2"
)


def beat(tx: Tx, boot: bytes, name: str, now: int, until: int) -> int:
    """Renews the process's row, or writes it again where others found it lapsed; when the next other lease ends."""
    tx.execute(
        "INSERT INTO node (boot, name, started_at, lease_until) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (boot) DO UPDATE SET lease_until = excluded.lease_until",
        (boot, name, now, until),
    )
    # A server's clock that was set back must not keep the dead alive: who lives will renew it in time.
    for table in ("node", "lease"):
        tx.execute(f"UPDATE {table} SET lease_until = ? WHERE lease_until > ?", (until, until + (until - now)))
    ends: int | None = tx.execute(_NEXT_END, (boot, now)).fetchone()[0]
    return NEVER if ends is None else ends


def leave(tx: Tx, boot: bytes) -> None:
    tx.execute("DELETE FROM node WHERE boot = ?", (boot,))
    tx.execute("DELETE FROM lease WHERE owner = ?", (boot,))
    free_runs(tx, boot, ())


def free_jobs(tx: Tx, boot: bytes, known: Collection[bytes]) -> int:
    """Deliveries that a claim of the process leased and whose answer it never heard: nothing of them has begun."""
    freed = 0
    for delivery_id, lease_no, destination, due_at in tx.execute(
        "SELECT id, lease_no, destination, due_at FROM queue WHERE lease_owner = ? AND state = 'leased' ORDER BY id",
        (boot,),
    ).fetchall():
        if (
            delivery_id not in known
            and tx.execute(
                "UPDATE queue SET state = 'pending', lease_owner = NULL, lease_until = NULL"
                " WHERE id = ? AND lease_no = ? AND state = 'leased'",
                (delivery_id, lease_no),
            ).rowcount
        ):
            tx.due(destination, due_at)
            freed += 1
    return freed


def free_runs(tx: Tx, boot: bytes, known: Collection[bytes]) -> int:
    """Runs of the process that it does not work on: they go on from their cursors, here or elsewhere."""
    freed = 0
    for (run_id,) in tx.execute("SELECT id FROM run WHERE lease_owner = ? AND state = 'running'", (boot,)).fetchall():
        if run_id not in known:
            freed += tx.execute(
                "UPDATE run SET state = 'due', lease_owner = NULL WHERE id = ? AND lease_owner = ?"
                " AND state = 'running'",
                (run_id, boot),
            ).rowcount
    return freed


def forget_lapsed(tx: Tx, boot: bytes, now: int) -> None:
    tx.execute("DELETE FROM node WHERE lease_until <= ? AND boot <> ?", (now, boot))


def forget_others(tx: Tx, boot: bytes) -> None:
    tx.execute("DELETE FROM node WHERE boot <> ?", (boot,))
    tx.execute("DELETE FROM lease WHERE owner <> ?", (boot,))


def hold_lease(tx: Tx, name: str, owner: bytes, now: int, until: int) -> bool:
    """Takes or renews a lease; False while another process holds it."""
    return bool(
        tx.execute(
            "INSERT INTO lease (name, owner, lease_until) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET owner = excluded.owner, lease_until = excluded.lease_until"
            " WHERE lease.owner = excluded.owner OR lease.lease_until <= ?",
            (name, owner, until, now),
        ).rowcount
    )


def drop_lease(tx: Tx, name: str, owner: bytes) -> None:
    tx.execute("DELETE FROM lease WHERE name = ? AND owner = ?", (name, owner))


def place_events(tx: Tx, limit: int) -> int:
    """Gives committed events their feed positions, in the order of their ids; the leader alone calls it.

    A reader by position misses nothing: what commits later is placed later. ``ledger.sequence`` is the last
    position given, so that pruning the newest event gives none of them twice.
    """
    tx.lock(("positions", ""))
    placed = tx.execute(
        "UPDATE event SET position = placed.position FROM (SELECT fresh.id, (SELECT sequence FROM ledger)"
        " + row_number() OVER (ORDER BY fresh.id) AS position FROM (SELECT id FROM event WHERE position IS NULL"
        " ORDER BY id LIMIT ?) fresh) placed WHERE event.id = placed.id",
        (limit,),
    ).rowcount
    if placed:
        tx.execute("UPDATE ledger SET sequence = sequence + ?", (placed,))
    return placed
