"""The marker of the last commit beside an SQLite file.

It tells a copied or restored file from the one that was written last: such a file must not send.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import orjson

#: Seconds between marker writes while the ledger changes.
MARKER_EVERY_S = 10.0


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
