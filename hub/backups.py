"""Backups as an operator keeps them: taken beside the running hub, verified, counted, brought back on hold.

All of it works on files and needs no open ledger, so that it works when the hub does not. Only ``back_up``,
which the schedule runs, belongs to the event loop; the rest blocks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic

from hub import __version__, erasure
from hub.clock import Clock
from hub.errors import Busy, ConfigError, HubError, InputError
from hub.log import log
from hub.model import to_us
from hub.security.keys import HubKey
from hub.settings import Configuration
from hub.store import migrate
from hub.store.aside import RESERVE_BYTES, room_for, told_of
from hub.store.backup import Archive, BackupKey, Header, Step, Summary, keep, new_archive, seal
from hub.store.base import Store
from hub.store.lock import ProcessLock
from hub.store.move import move
from hub.store.place import place
from hub.store.sqlite import check, copy

ENDING = ".backup"
#: What the schedule took, and may remove: names say when, so the last of them is the newest.
_SCHEDULED = "unionhub-auto-"
_STILL_TO_SEND = "SELECT count(*) FROM queue WHERE state IN ('waiting', 'pending', 'leased')"
#: A repair that could not be written down is tried again so much later.
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Taken:
    path: Path
    header: Header
    summary: Summary
    file_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Restored:
    database: Path
    header: Header
    summary: Summary
    #: Deliveries that go out after the release.
    owed: int
    #: Where the ledger that was there before is kept.
    replaced: Path | None
    #: People who were erased after the backup, and are again.
    erased_again: int


@contextmanager
def as_file(config: Configuration, owners: Sequence[migrate.Owner], step: Step) -> Iterator[Path]:
    """The ledger as an SQLite file: its own, or on PostgreSQL a copy of one moment, gone afterwards.

    Raises: ConfigError when there is no ledger.
    """
    if not config.is_postgres:
        if not copy.occupied(config.database):
            raise ConfigError(f"chưa có sổ cái ở {config.database} / there is no ledger at {config.database} yet")
        yield config.database
        return
    from hub.store.postgres.export import export  # asyncpg is an extra

    with told_of(config.var_dir), TemporaryDirectory(prefix="copy-", dir=config.var_dir) as folder:
        file = Path(folder) / config.database.name
        asyncio.run(export(config.hub.database_url, file, owners, lambda rows: step("copy", 0, 0)))
        yield file


def backup_key(config: Configuration, given: Path | None) -> BackupKey:
    """The key named on the command line, else the configured one."""
    named = config.hub.backup.key_file
    if given is None and not named:
        raise ConfigError(
            "chưa có khóa sao lưu: tạo bằng unionhub db backup-key TỆP rồi ghi key_file ở [backup] trong hub.toml, hoặc"
            " thêm --key TỆP / there is no backup key: make one with unionhub db backup-key FILE and name it as"
            " key_file in [backup] of hub.toml, or add --key FILE"
        )
    return BackupKey.load(given or config.folder / named, config.var_dir / "hub.key")


# -- taking ----------------------------------------------------------------------------------------


def take(
    config: Configuration, now: datetime, step: Step, *, to: Path | None = None, key_file: Path | None = None,
    prefix: str = "unionhub-", owners: Sequence[migrate.Owner] = (),
) -> Taken:  # fmt: skip
    """One backup of the ledger as it is now, read back before it gets its name.

    Args:
        owners: of the tables; needed on PostgreSQL.
    """
    key, started = backup_key(config, key_file), monotonic()
    with as_file(config, owners, step) as database:
        return _take(config, database, key, started, now, step, to, prefix)


def _take(
    config: Configuration, database: Path, key: BackupKey, started: float, now: datetime, step: Step, to: Path | None,
    prefix: str,
) -> Taken:  # fmt: skip
    path = to or _folder(config) / f"{prefix}{now:%Y%m%dT%H%M%SZ}{ENDING}"
    with new_archive(path) as (partial, file):
        shares_disk = path.parent.stat().st_dev == database.stat().st_dev

        def watched(stage: str, done: int, total: int) -> None:
            step(stage, done, total)
            if stage == "write" and shares_disk:
                room_for(RESERVE_BYTES, path.parent)

        with copy.copied(database, step) as (blocks, payload_bytes, facts):
            header = Header(
                payload=copy.PAYLOAD,
                payload_bytes=payload_bytes,
                installation=facts.installation,
                sequence=facts.sequence,
                schemas=facts.schemas,
                hub_key=facts.hub_key,
                backup_key=key.fingerprint,
                hub_version=__version__,
                created_at=now.isoformat(timespec="seconds"),
            )
            summary = seal(file, header, blocks, key, watched)
        _read_back(partial, key, step)
        _keep_erased(config, database, path.parent)
        keep(partial, path)
        return Taken(path, header, summary, path.stat().st_size, monotonic() - started)


def _keep_erased(config: Configuration, database: Path, folder: Path) -> None:
    """Before an archive has its name: whoever copies it finds the list beside it."""
    key_file = config.var_dir / "hub.key"
    if key_file.exists():  # without it nothing in the archive can be opened anyway
        key = HubKey.load(key_file, may_create=False)
        erasure.keep(folder, erasure.erased_in(database) | erasure.known([config.var_dir], key), key)


def _read_back(partial: Path, key: BackupKey, step: Step) -> None:
    try:
        Archive.open(partial).verify(key, step)
    except InputError:
        raise HubError(
            f"bản sao lưu vừa viết vào {partial.parent} đọc lại không đúng nên đã bị bỏ: xem lại ổ đĩa ấy, rồi sao lưu"
            f" sang chỗ khác / what was just written to {partial.parent} cannot be read back and was not kept: look at"
            " that disk and back up to another place"
        ) from None


def _folder(config: Configuration) -> Path:
    folder = config.folder.parent / config.hub.backup.folder
    with told_of(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def prune(folder: Path, installation: str, count: int) -> int:
    """Removes what the schedule of this installation took before its last ``count`` backups."""
    ours = []
    for path in sorted(folder.glob(f"{_SCHEDULED}*{ENDING}")):
        with suppress(HubError):  # what cannot be read was perhaps not ours
            if Archive.open(path).header.installation == installation:
                ours.append(path)
    for path in ours[:-count]:
        path.unlink(missing_ok=True)
    return len(ours[:-count])


# -- bringing back, verifying ----------------------------------------------------------------------


def restore(
    config: Configuration, owners: Sequence[migrate.Owner], file: Path, now: datetime, step: Step, *,
    into: Path | None = None, replace: bool = False, key_file: Path | None = None,
) -> Restored:  # fmt: skip
    """Puts a backup in the ledger's place (or into the data folder ``into``), on hold, when all of it is right."""
    if config.is_postgres and into is None:
        return _restore_to_postgres(config, owners, file, now, step, replace=replace, key_file=key_file)
    var_dir, database = (into, into / "unionhub.db") if into else (config.var_dir, config.database)
    archive = _usable(file, owners)
    key = backup_key(config, key_file)
    archive.check_key(key)
    hub_key = _check_hub_key(archive.header, var_dir / "hub.key")
    lists = {file.parent, var_dir, config.var_dir, config.folder.parent / config.hub.backup.folder}
    erased = erasure.known(lists, hub_key)
    lock = ProcessLock(database.with_name(database.name + ".lock"))
    with told_of(lock.path):
        lock.acquire()
    try:
        room_for(archive.header.payload_bytes, database.parent)
        reading = archive.read(key, step, "restore")
        again = 0

        def mend(db: sqlite3.Connection) -> None:
            nonlocal again
            again = erasure.erase_again(db, erased, to_us(now))

        if copy.occupied(database):  # what this ledger erased counts, even if no list names it
            with suppress(sqlite3.Error):
                erased |= erasure.erased_in(database)
        replaced = copy.put_in_place(reading, database, owners, now, replace=replace, step=step, mend=mend)
        for folder in {var_dir, config.var_dir}:
            if folder.is_dir():
                erasure.keep(folder, erased, hub_key)
        with closing(copy.open_to_read(database)) as db:
            (owed,) = db.execute(_STILL_TO_SEND).fetchone()
        return Restored(database, archive.header, reading.summary, owed, replaced, again)
    finally:
        lock.release()


def _restore_to_postgres(
    config: Configuration, owners: Sequence[migrate.Owner], file: Path, now: datetime, step: Step, *,
    replace: bool, key_file: Path | None,
) -> Restored:  # fmt: skip
    """Through a file beside the key, which then moves into the configured database: that must be empty."""
    if replace:
        raise ConfigError(
            "trên PostgreSQL không có --replace: tạo một cơ sở dữ liệu trống rồi đặt UNIONHUB_DATABASE_URL theo đó"
            " / there is no --replace on PostgreSQL: make an empty database and point UNIONHUB_DATABASE_URL there"
        )
    with told_of(config.var_dir), TemporaryDirectory(prefix="restore-", dir=config.var_dir) as folder:
        aside = Path(folder)
        shutil.copyfile(config.var_dir / "hub.key", aside / "hub.key")
        restored = restore(config, owners, file, now, step, into=aside, key_file=key_file)
        fingerprint = bytes.fromhex(restored.header.hub_key)

        def moved(stage: str, table: str, done: int, total: int) -> None:
            step("restore", 0, 0)

        url = config.hub.database_url
        asyncio.run(move(restored.database, config.lock_file, url, owners, fingerprint, moved, hold=copy.RESTORED))
        return dataclasses.replace(restored, database=Path(place(url)))


def verify(
    config: Configuration, owners: Sequence[migrate.Owner], file: Path, step: Step, *, key_file: Path | None = None
) -> tuple[Header, Summary]:
    """Reads a whole backup and keeps nothing. Raises: InputError or ConfigError when it could not be restored."""
    archive = _usable(file, owners)
    return archive.header, archive.verify(backup_key(config, key_file), step)


def findings(config: Configuration, owners: Sequence[migrate.Owner], step: Step) -> Iterator[check.Finding]:
    """What there is to say of the ledger in place."""
    with as_file(config, owners, step) as database:
        named = {owner.name: owner for owner in owners}
        yield from check.findings(database, config.var_dir / "hub.key", named, step, is_copy=config.is_postgres)


def named_ledger(config: Configuration) -> str:
    """Where the ledger is, without secrets."""
    return place(config.hub.database_url) if config.is_postgres else str(config.database)


def _usable(file: Path, owners: Sequence[migrate.Owner]) -> Archive:
    """An archive that this hub could read as far as its header says."""
    archive = Archive.open(file)
    if archive.header.payload != copy.PAYLOAD:
        raise InputError(
            f"{file} là bản sao của một sổ cái kiểu '{archive.header.payload}', không phải SQLite"
            f" / {file} is the backup of a ledger of the kind '{archive.header.payload}', not of SQLite"
        )
    for owner in owners:
        migrate.is_behind(owner, archive.header.schemas.get(owner.name))
    return archive


def _check_hub_key(header: Header, path: Path) -> HubKey:
    with told_of(path):
        key = HubKey.load(path, may_create=False)
        found = key.fingerprint.hex()
    if found != header.hub_key:
        raise ConfigError(
            f"{path} không phải khóa hub của bản sao lưu này (dấu {header.hub_key}, tệp này {found}): chép đúng tệp"
            f" hub.key vào đó rồi làm lại / {path} is not the hub key of this backup (fingerprint {header.hub_key},"
            f" this file has {found}): copy the right hub.key there, then try again"
        )
    return key


# -- by schedule -----------------------------------------------------------------------------------


class _Stopped(Exception):
    """The hub stops."""


async def back_up(config: Configuration, store: Store, clock: Clock, owners: Sequence[migrate.Owner] = ()) -> int:
    """A scheduled run: one backup more, the oldest removed; one repair opened when it failed, cleared when not."""
    stop = Event()

    def step(stage: str, done: int, total: int) -> None:
        if stop.is_set():
            raise _Stopped

    def work() -> tuple[Taken, int]:
        taken = take(config, clock(), step, prefix=_SCHEDULED, owners=owners)
        return taken, prune(taken.path.parent, taken.header.installation, config.hub.backup.keep)

    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        taken, removed = await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(thread, return_exceptions=True)
        raise
    except (HubError, OSError, sqlite3.Error) as error:
        reason = error.code if isinstance(error, HubError) else type(error).__name__
        log("backup.finished", state="failed", reason=reason)
        await _open_repair(store, clock, str(error))
        raise
    await store.clear_repair("backup_failed", "ledger", to_us(clock()))
    log(
        "backup.finished",
        state="done",
        reason="",
        sequence=taken.header.sequence,
        ledger_bytes=taken.summary.bytes,
        file_bytes=taken.file_bytes,
        total_s=round(taken.seconds, 1),
        removed=removed,
    )
    return 1


async def _open_repair(store: Store, clock: Clock, why: str) -> None:
    """Until it is written: what keeps a backup from being taken may keep the ledger from being written too."""
    while True:
        try:
            await store.open_repair("backup_failed", "ledger", why, to_us(clock()))
            return
        except Busy:
            await asyncio.sleep(_AGAIN_S)
