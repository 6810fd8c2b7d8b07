"""What each death of a hub cut off, read while nobody lives: the witness of whatever the ledger calls poison.

The ledger counts crashes by itself, in the life after. Here the same is seen from outside: which leases stood when
the process was gone. A count that no death explains is the ledger's mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from hub.store.ops.settle import POISON
from hub.store.sqlite.copy import open_to_read
from hub.testing import eventually

#: The server drops the sessions of a killed process within this.
GONE_S = 30.0
#: What had begun to be sent becomes unknown, never poison.
_LEASED = "SELECT id, lease_no, crashes FROM queue WHERE state = 'leased'"
_SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)


class CutOff(NamedTuple):
    """One lease that a death ended."""

    #: Which death, from 1.
    death: int
    #: Crashes that the ledger had counted of it until then; from 1 on it is a suspect.
    crashes: int


class Deaths:
    """One installation's: ``look`` after each kill, before the next life."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._file = folder / "var" / "unionhub.db"
        self._database_url = database_url
        self._count = 0
        #: By delivery and lease number.
        self.cut_off: dict[tuple[bytes, int], CutOff] = {}

    async def look(self) -> None:
        """Raises AssertionError when sessions of the dead process stay with the server."""
        self._saw(await (self._of_server() if self._database_url else self._of_file()))

    def _saw(self, leased: Iterable[Sequence[Any]]) -> None:
        self._count += 1
        for id, lease_no, crashes in leased:
            # On PostgreSQL a lease outlasts its owner, and maybe the next one: it belongs to the first death.
            self.cut_off.setdefault((bytes(id), lease_no), CutOff(self._count, crashes))

    async def _of_file(self) -> list[Any]:
        if not self._file.exists():  # killed at its very start
            return []
        with closing(open_to_read(self._file)) as db:
            there = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'queue'").fetchone()
            return db.execute(_LEASED).fetchall() if there else []

    async def _of_server(self) -> list[Any]:
        import asyncpg

        connection = await asyncpg.connect(self._database_url)

        async def gone() -> bool:
            return bool(await connection.fetchval(_SESSIONS) == 0)

        try:
            await eventually(gone, GONE_S, 0.005)  # a commit that was on its way counts
            there = await connection.fetchval("SELECT to_regclass('queue') IS NOT NULL")
            return list(await connection.fetch(_LEASED)) if there else []
        finally:
            await connection.close()

    def doubts(self, delivery: bytes, crashes: int, lease_no: int, lost: Sequence[tuple[int, str, str]]) -> str:
        """Why this ``dead(poison)`` is none, in words; "" when it crashed ``POISON`` times, all but the first alone.

        Args:
            crashes, lease_no: what its row says.
            lost: its attempts on record, (lease_no, outcome, reason) in the order of their leases.
        """
        if crashes != POISON:
            return f"poison after {crashes} crashes"
        last = lost[-POISON:]
        if [each[1:] for each in last] != [("lost", "crashed")] * POISON:
            return f"poison, its last attempts: {', '.join(f'{o} ({r})' for _, o, r in last) or 'none'}"
        if last[-1][0] != lease_no:
            return f"poison at lease {lease_no}, its last crash was at lease {last[-1][0]}"
        seen = [self.cut_off.get((delivery, number)) for number, *_ in last]
        if None in seen:
            unseen = [number for (number, *_), each in zip(last, seen, strict=True) if each is None]
            return f"poison, but no kill met its leases {unseen}"
        met = [each for each in seen if each is not None]
        if [each.crashes for each in met] != list(range(POISON)):
            return f"poison, but at its deaths it had crashed {[each.crashes for each in met]} times"
        if company := [each.death for each in met[1:] if self._suspects_at(each.death) != 1]:
            return f"poison, but not the only suspect at deaths {company}"
        return ""

    def _suspects_at(self, death: int) -> int:
        return sum(each.death == death and each.crashes > 0 for each in self.cut_off.values())
