"""One process writes an SQLite hub: an advisory lock beside the file, and the marker of the last commit.

SQLite's own exclusive mode would shut readers out, so the lock is ``flock`` on a file of its own. The
marker tells a copied or restored file from the one that was written last: such a file must not send.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import orjson

from hub.errors import AlreadyRunning

#: Seconds between marker writes while the ledger changes.
MARKER_EVERY_S = 10.0


class ProcessLock:
    """Held for as long as the ledger is open; names the process that holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises ``AlreadyRunning`` with the pid of the holder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 200).decode(errors="replace").split("\n")[0] or "?"
            os.close(fd)
            raise AlreadyRunning(
                f"tiến trình khác (pid {holder}) đang mở {self.path.parent}; dừng nó rồi chạy lại"
                f" / another process (pid {holder}) has {self.path.parent} open; stop it first"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def machine_id() -> str:
    for name in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            return Path(name).read_text().strip()
        except OSError:
            continue
    return os.uname().nodename


class Marker:
    """A small file beside the database: whose it is, which file it was, and how far it had come."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".marker")
        self._written = 0.0

    def identity(self, installation: str) -> dict[str, object]:
        stat = self._database.stat()
        return {"installation": installation, "machine": machine_id(), "device": stat.st_dev, "inode": stat.st_ino}

    def hold_reason(self, installation: str, sequence: int) -> str | None:
        """Why this file must not send until a person releases it, or None."""
        try:
            marker = orjson.loads(self._path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return "no_marker" if sequence > 1 else None
        if any(marker.get(k) != v for k, v in self.identity(installation).items()):
            return "another_identity"
        return "behind_marker" if sequence < int(marker.get("sequence", 0)) else None

    def is_due(self) -> bool:
        return time.monotonic() - self._written >= MARKER_EVERY_S

    def write(self, installation: str, sequence: int) -> None:
        """After COMMIT; rarely enough not to be felt."""
        self._written = time.monotonic()
        temporary = self._path.with_suffix(".marker.new")
        temporary.write_bytes(orjson.dumps({**self.identity(installation), "sequence": sequence}))
        os.replace(temporary, self._path)
