"""Erasing a person: their data key is destroyed, so that content, plugins' rows and backups can be opened no more.

Envelope, attempts and who asked for it stay. A backup from before still holds the key, wrapped: the ids of destroyed
keys lie beside the backups in a list that only grows, one line a key with a keyed hash that only this installation's
hub key makes, and a restore destroys them again.
"""

from __future__ import annotations

import hmac
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from hub.errors import NotFound
from hub.log import log
from hub.model import Json
from hub.security.keys import HubKey, KeyRing
from hub.store.aside import aside, sync_folder, told_of
from hub.store.base import Store
from hub.store.ops.erase import key_id
from hub.store.sqlite.copy import open_to_read

#: Deliveries cancelled in one transaction.
STEP = 500
WAITS = ("waiting", "pending")
LIST = "erased-keys"
_HEAD = (
    "# Khóa của người đã được xóa: giữ tệp này cùng các bản sao lưu / keys of people erased: keep with the backups\n"
)
_OWED = (
    "SELECT q.id, q.state FROM queue q LEFT JOIN content c ON c.event_id = q.event_id"
    " WHERE q.recipient = ?1 OR c.sealed_for = ?1 ORDER BY q.id"
)

# -- in the ledger ---------------------------------------------------------------------------------


async def found(store: Store, subject: str) -> Json:
    """What there is of a subject, and what is still owed about or to them. Raises: NotFound when nothing was sealed."""
    rows = await store.read("SELECT wrapped IS NOT NULL FROM subject_key WHERE subject = ?", (subject,))
    if not rows:
        raise NotFound(
            "không có dữ liệu nào niêm phong cho mã này; mã có trong: unionhub events list / nothing was sealed for"
            " this id; ids stand in: unionhub events list"
        )
    ((events,),) = await store.read("SELECT count(*) FROM event WHERE subject = ?", (subject,))
    states = Counter(state for _, state in await store.read(_OWED, (subject,)))
    waiting = sum(states[state] for state in WAITS)
    return {
        "subject": subject,
        "erased_before": not rows[0][0],
        "events": events,
        "would_cancel": waiting,
        "under_way": states.total() - waiting,
    }


async def erase(store: Store, ring: KeyRing, subject: str, who: str, reason: str, now: int) -> tuple[bytes | None, int]:
    """Destroys the key, then cancels what waits; the key's id (None: it was gone) and how many were cancelled.

    Called again after it was cut off it ends what it began; what it does not reach is cancelled at its next try.
    """
    destroyed = await store.erase(subject, who, reason, now)
    ring.forget([subject])
    waiting = [id for id, state in await store.read(_OWED, (subject,)) if state in WAITS]
    cancelled = 0
    for start in range(0, len(waiting), STEP):
        cancelled += await store.cancel_erased(waiting[start : start + STEP], now)
    log("subject.erased", subject=subject, who=who, known=destroyed is not None, cancelled=cancelled)
    return destroyed, cancelled


async def listed(store: Store) -> list[tuple[bytes, str, int, str, str]]:
    """Key id, subject, when, who and why; the newest first."""
    return [
        (row[0], row[1], row[2], row[3], row[4])
        for row in await store.read(
            "SELECT key_id, subject, erased_at, erased_by, reason FROM erasure ORDER BY erased_at DESC, key_id"
        )
    ]


# -- beside the backups ----------------------------------------------------------------------------


def known(folders: Iterable[Path], key: HubKey) -> set[bytes]:
    """Ids of the keys that the lists in these folders name; what another installation wrote is passed over.

    Raises: ConfigError for a list that cannot be read.
    """
    return {
        bytes.fromhex(line[:64])
        for folder in folders
        for line in _lines(folder / LIST)
        if hmac.compare_digest(line, _line(key, line[:64]))
    }


def keep(folder: Path, ids: Iterable[bytes], key: HubKey) -> None:
    """Adds to the list in a folder, durably; lines of other installations stay. Raises: ConfigError."""
    path = folder / LIST
    there = _lines(path)
    more = {_line(key, each.hex()) for each in ids} - there
    if not more:
        return
    with aside(path) as (partial, file):
        file.write((_HEAD + "".join(f"{line}\n" for line in sorted(there | more))).encode())
        file.flush()
        os.fsync(file.fileno())
        partial.rename(path)
        sync_folder(folder)


def _lines(path: Path) -> set[str]:
    with told_of(path):
        text = path.read_bytes().decode("ascii", "replace") if path.exists() else ""
    return {line for line in text.splitlines() if _is_hex(line[:64])}


def _is_hex(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _line(key: HubKey, id_hex: str) -> str:
    return f"{id_hex} {key.keyed_hash('erased', id_hex.encode()).hex()}"


# -- in a file of a ledger -------------------------------------------------------------------------


def erased_in(database: Path) -> set[bytes]:
    """What a ledger itself knows; a ledger from before there was such a table knows none."""
    with closing(open_to_read(database)) as db:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'erasure'").fetchone() is None:
            return set()
        return {id for (id,) in db.execute("SELECT key_id FROM erasure")}


def erase_again(db: sqlite3.Connection, ids: set[bytes], now: int) -> int:
    """Destroys those of the keys that a restored ledger has; answers how many."""
    if not ids:
        return 0
    kept = db.execute("SELECT subject, wrapped FROM subject_key WHERE wrapped IS NOT NULL")
    again = [(now, subject) for subject, wrapped in kept if key_id(wrapped) in ids]
    db.execute("PRAGMA secure_delete = ON")
    db.executemany("UPDATE subject_key SET wrapped = NULL, erased_at = ? WHERE subject = ?", again)
    return len(again)
