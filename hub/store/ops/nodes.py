"""Who works on the ledger: a row per running process, and leases on what one of them does at a time.

A process is alive until its row's lease ends, by the ledger's clock. On SQLite there is one, and the lock on
the file says that all others are dead.
"""

from __future__ import annotations

from hub.store.ops.tx import Tx


def beat(tx: Tx, boot: bytes, name: str, now: int, until: int) -> None:
    """Renews the process's row, or writes it again where others found it lapsed."""
    tx.execute(
        "INSERT INTO node (boot, name, started_at, lease_until) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (boot) DO UPDATE SET lease_until = excluded.lease_until",
        (boot, name, now, until),
    )


def leave(tx: Tx, boot: bytes) -> None:
    tx.execute("DELETE FROM node WHERE boot = ?", (boot,))
    tx.execute("DELETE FROM lease WHERE owner = ?", (boot,))


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

    A reader by position misses nothing: what commits later is placed later.
    """
    tx.lock(("positions", ""))
    return tx.execute(
        "UPDATE event SET position = placed.position FROM (SELECT fresh.id, (SELECT coalesce(max(position), 0)"
        " FROM event) + row_number() OVER (ORDER BY fresh.id) AS position FROM (SELECT id FROM event"
        " WHERE position IS NULL ORDER BY id LIMIT ?) fresh) placed WHERE event.id = placed.id",
        (limit,),
    ).rowcount
