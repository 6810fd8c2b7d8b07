"""Erasing a person: the key of what is sealed for them is destroyed, and what is still owed about them cancelled."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hub.model import State
from hub.store.ops.settle import finish_open, lock_order_of
from hub.store.ops.tx import Tx


def key_id(wrapped: bytes) -> bytes:
    """What a destroyed key is known by, in the ledger and beside its backups; it opens nothing."""
    return hashlib.sha256(b"unionhub/erased\0" + wrapped).digest()


def erase(tx: Tx, subject: str, who: str, reason: str, now: int) -> bytes | None:
    """Destroys the subject's key and writes down that it was; answers the key's id, None where there is no key.

    A person who comes again gets a new key, which opens nothing of what was sealed under this one.
    """
    row = tx.execute("SELECT wrapped FROM subject_key WHERE subject = ? /*pg: FOR UPDATE */", (subject,)).fetchone()
    if row is None or row[0] is None:
        return None
    destroyed = key_id(row[0])
    if not tx.concurrent:  # SQLite would leave the bytes in the file; PostgreSQL's go with its next VACUUM
        tx.execute("PRAGMA secure_delete = ON")
    tx.execute("UPDATE subject_key SET wrapped = NULL, erased_at = ? WHERE subject = ?", (now, subject))
    if not tx.concurrent:
        tx.execute("PRAGMA secure_delete = OFF")
    tx.execute(
        "INSERT INTO erasure (key_id, subject, erased_at, erased_by, reason) VALUES (?, ?, ?, ?, ?)",
        (destroyed, subject, now, who, reason),
    )
    return destroyed


def cancel(tx: Tx, deliveries: Sequence[bytes], now: int) -> int:
    """Cancels those of them that wait; what is under way is cancelled at its next try, since nothing opens it."""
    lock_order_of(tx, deliveries)
    waiting = (State.WAITING, State.PENDING)
    return sum(finish_open(tx, each, waiting, State.CANCELLED, "erased", now) for each in deliveries)
