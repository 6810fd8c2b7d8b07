"""Whether an SQLite ledger is whole and its books balance; reads, also beside the hub that writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from hub.errors import ConfigError
from hub.security.keys import HubKey
from hub.store import migrate
from hub.store.backup import Step
from hub.store.ops.books import BOOKS
from hub.store.sqlite.copy import Facts, facts_of, open_to_read, watched
from hub.store.sqlite.lock import Marker

#: Findings of one kind that are named; the rest is counted by whoever mends it.
SHOWN = 5


class Finding(NamedTuple):
    """One thing that was looked at; ``detail`` is a code, a number or an id."""

    check: str
    ok: bool
    detail: str


def findings(
    database: Path, key_file: Path, owners: Mapping[str, migrate.Owner], step: Step, *, is_copy: bool = False
) -> Iterator[Finding]:
    """Every check, in the order a person would ask. A file that cannot be read ends them.

    ``is_copy``: of a ledger elsewhere; its place says nothing then.
    """
    try:
        with closing(open_to_read(database)) as db:
            with watched(db, lambda: step("check", 0, 0)):
                broken = [said for (said,) in db.execute(f"PRAGMA integrity_check({SHOWN})") if said != "ok"]
            yield Finding("file", not broken, "; ".join(broken))
            facts = facts_of(db)
            yield Finding("ledger", True, f"installation={facts.installation} sequence={facts.sequence}")
            yield from _books(db, step)
    except sqlite3.DatabaseError as error:
        yield Finding("file", False, str(error))
        return
    yield from _schemas(facts, owners)
    yield _key(facts, key_file)
    yield Finding("hold", True, f"held {facts.hold}" if facts.hold else "") if is_copy else _marker(facts, database)


def _books(db: sqlite3.Connection, step: Step) -> Iterator[Finding]:
    for name, sql in BOOKS.items():
        with watched(db, lambda: step("books", 0, 0)):
            wrong = db.execute(f"{sql} LIMIT {SHOWN}").fetchall()
        yield Finding(f"books.{name}", not wrong, "; ".join(" ".join(map(_shown, row)) for row in wrong))


def _schemas(facts: Facts, owners: Mapping[str, migrate.Owner]) -> Iterator[Finding]:
    for name, version in facts.schemas.items():
        detail = version
        try:
            if name not in owners:  # a plugin that is not installed: its tables stay as they are
                detail = f"{version} plugin_missing"
            elif migrate.is_behind(owners[name], version):
                detail = f"{version} older"  # the next start brings it up
            yield Finding(f"schema.{name}", True, detail)
        except ConfigError:
            yield Finding(f"schema.{name}", False, f"{version} newer")


def _key(facts: Facts, key_file: Path) -> Finding:
    try:
        fits = HubKey.load(key_file, may_create=False).fingerprint.hex() == facts.hub_key
        return Finding("key", fits, facts.hub_key if fits else "foreign")
    except (ConfigError, OSError):
        return Finding("key", False, "missing")


def _marker(facts: Facts, database: Path) -> Finding:
    """On hold already, a ledger may be anywhere; else the next start would hold it."""
    reason = Marker(database).hold_reason(facts.installation, facts.sequence)
    if facts.hold is not None:
        return Finding("hold", True, f"held {facts.hold}")
    return Finding("hold", reason is None, reason or "")


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
