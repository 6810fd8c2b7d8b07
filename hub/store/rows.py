"""The tables of an SQLite ledger, as they are copied from one engine to the other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hub.store.migrate import Owner

#: Rows that are copied at once.
PAGE = 2000
#: Who works now is no fact, and what a database says of itself is not copied row by row.
LEFT_OUT = frozenset({"node", "lease", "ledger", "installation"})


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


def tables_of(file: sqlite3.Connection, owners: Sequence[Owner]) -> Iterator[Table]:
    """The tables of a file whose rows move, with their columns and keys."""
    left_out = LEFT_OUT | {f"{owner.name}_version" for owner in owners}
    for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall():
        if name in left_out or name.startswith("sqlite_"):
            continue
        info = file.execute(f"PRAGMA table_info({name})").fetchall()
        key = sorted((pk, column) for _, column, _, _, _, pk in info if pk)
        yield Table(name, tuple(row[1] for row in info), tuple(column for _, column in key))
