"""Files written aside: nobody ever sees half of one, and what a killed process left is cleared by the next."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hub.errors import Busy, ConfigError

_ENDING = ".unionhub-partial"
#: What SQLite puts beside a file that it writes.
_JOURNALS = ("-journal", "-wal", "-shm")
#: No room: on the disk, in a quota, under a limit of this process.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What is left to a running hub on its own disk, so that it never has to refuse a message for a copy of its ledger.
RESERVE_BYTES = 64 * 1024 * 1024


@contextmanager
def aside(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside ``target`` for this user alone; gone at the end unless it was renamed."""
    with told_of(target):
        for left in target.parent.glob(f"*{_ENDING}"):
            _remove_if_left(left)
        fd, name = tempfile.mkstemp(prefix=f"{target.name}.", suffix=_ENDING, dir=target.parent)
        path = Path(name)
        with os.fdopen(fd, "w+b") as file:
            try:
                with suppress(OSError):  # some network file systems know no locks: there nothing is cleared either
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path, file
            finally:
                _remove(path)


def _remove_if_left(path: Path) -> None:
    """Whoever still writes it holds its lock."""
    with suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)


def _remove(path: Path) -> None:
    for journal in _JOURNALS:
        path.with_name(path.name + journal).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes a rename inside it outlive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot, and need not
            os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Trouble with a file in an operator's words. Raises: Busy on a full disk, ConfigError for the rest."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise full(path) from None
        why = error.strerror or type(error).__name__
        raise ConfigError(
            f"không đọc hoặc ghi được {error.filename or path}: {why}; không có gì thay đổi"
            f" / cannot read or write {error.filename or path}: {why}; nothing was changed"
        ) from None


def room_for(needed_bytes: int, folder: Path) -> None:
    """Raises: Busy when the folder's disk has no room for so many more."""
    with told_of(folder):
        free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise full(folder, needed_bytes)


def full(path: Path, needed_bytes: int = 0) -> Busy:
    """Says how much is free there, and how much it takes."""
    folder = path if path.is_dir() else path.parent
    free = size(shutil.disk_usage(folder).free)
    vi = f", cần khoảng {size(needed_bytes)}" if needed_bytes else ""
    en = f", about {size(needed_bytes)} are needed" if needed_bytes else ""
    return Busy(
        f"hết chỗ trên đĩa của {folder} (còn {free}{vi}); phần viết dở đã được xóa, sổ cái không thay đổi. Dọn đĩa hoặc"
        f" chọn chỗ khác rồi làm lại / no space left on the disk of {folder} ({free} free{en}); what was half written"
        " has been removed, the ledger is as it was. Make room or choose another place, then try again"
    )


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
