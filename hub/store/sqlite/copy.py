"""Copies of an SQLite ledger: out of one that is being written, and back into place, on hold.

Out: ``VACUUM INTO`` on a connection of its own, from one snapshot. The writer goes on meanwhile; the WAL cannot be
reused before the end, so it grows by what is written in these seconds (3 to 11 s for 0.6 GB) and no longer:
packing and sealing, which take three times as long, read the copy. The backup API in steps begins anew at each
commit of another connection, so beside a busy hub it never ends; at one go it takes half the time, but copies
free pages with it, where erased keys and pruned rows may still stand.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hub.errors import ConfigError, InputError
from hub.store import migrate
from hub.store.aside import RESERVE_BYTES, aside, full, room_for, sync_folder, told_of
from hub.store.backup import CHUNK, Step

PAYLOAD = "sqlite"
#: What a restored ledger says when asked why nothing is sent.
RESTORED = "restored"
#: Steps of SQLite's machine between two looks at the progress: some hundred rows, however large.
_LOOK_EVERY = 500
#: Whatever belongs to a database file: its marker, and what SQLite would read as a part of it.
_BESIDE = ("-wal", "-journal", "-shm", ".marker")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a ledger says of itself."""

    installation: str
    sequence: int
    hold: str | None
    #: Fingerprint of its hub key.
    hub_key: str
    #: Version of the tables by owner.
    schemas: dict[str, str]


def facts_of(db: sqlite3.Connection) -> Facts:
    """Raises: sqlite3.Error when it is no ledger."""
    known = dict(db.execute("SELECT key, value FROM installation").fetchall())
    sequence, hold = db.execute("SELECT sequence, hold FROM ledger").fetchone()
    versioned = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%\\_version' ESCAPE '\\'"
        " AND sql LIKE '%version_num%' ORDER BY name"
    ).fetchall()
    schemas = {
        name.removesuffix("_version"): db.execute(f'SELECT version_num FROM "{name}"').fetchone()[0]
        for (name,) in versioned
    }
    return Facts(known.get("id", b"").hex(), sequence, hold, known.get("key_fingerprint", b"").hex(), schemas)


def open_to_read(database: Path) -> sqlite3.Connection:
    """Beside the hub that writes it, or alone."""
    db = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    db.execute("PRAGMA busy_timeout = 5000")
    return db


# -- out -------------------------------------------------------------------------------------------


@contextmanager
def copied(database: Path, step: Step) -> Iterator[tuple[Iterator[bytes], int, Facts]]:
    """The ledger as it is now: blocks, how many bytes in all, and what it says of itself.

    The copy lies beside the ledger, never where the archive goes, and has no name any more once it is read.
    Raises: Busy when the disk has no room for it; what ``step`` raises.
    """
    with closing(open_to_read(database)) as db, aside(database) as (path, file):
        (pages,), (free,), (page_bytes,) = (
            db.execute(f"PRAGMA {asked}").fetchone() for asked in ("page_count", "freelist_count", "page_size")
        )
        expected = (pages - free) * page_bytes
        room_for(expected + RESERVE_BYTES, path.parent)
        with watched(db, lambda: step("copy", path.stat().st_size, expected)), _told_when_full(path):
            db.execute("VACUUM INTO ?", (str(path),))
        with closing(open_to_read(path)) as copy:
            facts = facts_of(copy)
        path.unlink()  # a process killed from here on leaves nothing behind
        yield iter(lambda: file.read(CHUNK), b""), os.fstat(file.fileno()).st_size, facts


@contextmanager
def watched(db: sqlite3.Connection, look: Callable[[], None]) -> Iterator[None]:
    """Lets ``look`` see long statements pass, and stop them by raising."""
    raised: list[BaseException] = []

    def handler() -> int:
        try:
            look()
        except BaseException as error:  # it would be swallowed on its way through SQLite
            raised.append(error)
        return bool(raised)

    db.set_progress_handler(handler, _LOOK_EVERY)
    try:
        yield
    except sqlite3.OperationalError:
        if raised:
            raise raised[0] from None
        raise
    finally:
        db.set_progress_handler(None, 0)


@contextmanager
def _told_when_full(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        # A quota, or a limit of this process, is an I/O error to SQLite.
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise full(path) from None
        raise


# -- back ------------------------------------------------------------------------------------------


def occupied(database: Path) -> list[Path]:
    """Files with something in them that SQLite would take for this database or a part of it."""
    files = [database, *(_beside(database, part) for part in _BESIDE[:2])]
    return [file for file in files if file.exists() and file.stat().st_size]


def put_in_place(
    blocks: Iterable[bytes],
    database: Path,
    owners: Sequence[migrate.Owner],
    now: datetime,
    *,
    replace: bool,
    step: Step,
    mend: Callable[[sqlite3.Connection], None] = lambda db: None,
) -> Path | None:
    """Makes a ledger of the blocks, on hold and after ``mend``, under the lock of its place.

    Nothing has the ledger's name before all of it was read and found whole. With ``replace`` what was there is
    kept under a name that is answered. Raises: InputError when the file is broken, ConfigError when it is not for
    this place, Busy on a full disk.
    """
    if occupied(database) and not replace:
        raise ConfigError(
            f"đã có dữ liệu ở {occupied(database)[0]}, không ghi đè. Thêm --replace để cất nó sang tên khác, hoặc"
            f" --into THƯ-MỤC / there is a ledger in {occupied(database)[0]} and it was not overwritten. Add"
            " --replace to keep it under another name, or --into FOLDER"
        )
    with aside(database) as (path, file):
        for block in blocks:
            file.write(block)
        file.flush()
        with _told_when_full(path):
            _make_held(path, owners, step, mend)
        os.fsync(file.fileno())
        kept = _set_aside(database, now)
        path.rename(database)
        sync_folder(database.parent)
    return kept


def _make_held(
    path: Path, owners: Sequence[migrate.Owner], step: Step, mend: Callable[[sqlite3.Connection], None]
) -> None:
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            with watched(db, lambda: step("check", 0, 0)):
                wrong = [said for (said,) in db.execute("PRAGMA integrity_check(1)") if said != "ok"]
            if wrong:
                raise sqlite3.DatabaseError(wrong[0])
            migrate.pending(db, owners)
            mend(db)
            db.execute("UPDATE ledger SET hold = ?", (RESTORED,))
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise InputError(
            f"bản sao lưu mở được nhưng sổ cái bên trong hỏng ({error}); không có gì thay đổi. Dùng bản khác"
            f" / the backup opens, but the ledger in it is broken ({error}); nothing was changed. Use another one"
        ) from None


def _set_aside(database: Path, now: datetime) -> Path | None:
    """Keeps what is there under another name, with everything SQLite needs to open it."""
    kept = database.with_name(f"{database.name}.replaced-{now:%Y%m%dT%H%M%SZ}")
    there = [part for part in _BESIDE if _beside(database, part).exists()]
    if not database.exists() and not there:
        return None
    with told_of(kept):
        with suppress(FileNotFoundError):
            # Two names until the new one takes the first: without any file there the next start would make an
            # empty ledger. Should we die in between, what is left has no marker or is behind it: it is held.
            os.link(database, kept)
        for part in there:
            _beside(database, part).rename(_beside(kept, part))
    return kept


def _beside(database: Path, part: str) -> Path:
    return database.with_name(database.name + part)
