"""One process works with an installation's folder: an advisory lock on a file that names the holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hub.errors import AlreadyRunning


class ProcessLock:
    """Held for as long as the ledger is open; names the process that holds it.

    SQLite's own exclusive mode would shut readers out, so the lock is ``flock`` on a file of its own.
    """

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
