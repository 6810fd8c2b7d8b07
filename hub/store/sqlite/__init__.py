"""The ledger on SQLite: WAL, ``synchronous=FULL``, one writer thread with group commit, reader threads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

from hub.clock import Clock, system_clock
from hub.model import to_us
from hub.sql import Statement
from hub.store import migrate
from hub.store.base import BreakerPolicy
from hub.store.ledger import Ledger
from hub.store.lock import ProcessLock
from hub.store.ops import nodes as node_ops
from hub.store.ops import operate as operate_ops
from hub.store.ops.claim import ClaimTx
from hub.store.ops.settle import NEVER
from hub.store.sqlite.lock import Marker
from hub.store.sqlite.writer import Writer

READERS = 3
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


class SqliteStore(Ledger):
    """Implements ``hub.store.base.Store`` on one file; refuses a second process."""

    shared = False

    def __init__(
        self,
        path: Path,
        *,
        owners: Sequence[migrate.Owner] = (),
        breaker: BreakerPolicy = BreakerPolicy(10, 5.0, 3600.0),
        unresolved_after_s: float = 7 * 86400.0,
        key_fingerprint: bytes = b"",
        synchronous: str = "FULL",
        clock: Clock = system_clock,
    ) -> None:
        super().__init__(breaker, unresolved_after_s)
        assert synchronous in SYNCHRONOUS
        self.path = path
        self._owners = (migrate.CORE, *owners)
        self._fingerprint = key_fingerprint
        self._synchronous = synchronous
        self._clock = clock
        self._lock = ProcessLock(path.with_name(path.name + ".lock"))
        self._marker = Marker(path)
        self._writer = Writer(self._connect_writer, self._after_commit)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-reader")
        self._local = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []
        #: Since when each reader thread has had a statement open, on the monotonic clock.
        self._reading: dict[int, float] = {}
        self._installation = ""
        self._opened = False

    # -- life --------------------------------------------------------------------------------------

    async def open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            await asyncio.to_thread(migrate.upgrade_sqlite, self.path, self._owners)
            await self._writer.start()
            await self._writer.submit(self._check_identity)
            self._opened = True
        except BaseException:
            await self._writer.close()
            self._lock.release()
            raise

    async def close(self) -> None:
        await self._writer.close()
        self._readers.shutdown(wait=True)
        for db in self._reader_connections:
            db.close()
        if self._opened:
            self._write_marker(force=True)
            self._opened = False
        self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=512)
        db.execute("PRAGMA busy_timeout = 5000")
        db.execute("PRAGMA cache_size = -16000")
        return db

    def _connect_writer(self) -> sqlite3.Connection:
        db = self._connect()
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA journal_size_limit = 67108864")
        return db

    def _check_identity(self, tx: ClaimTx) -> None:
        def suspect(installation: str, sequence: int, known: Mapping[str, bytes]) -> str | None:
            return self._marker.hold_reason(installation, sequence)

        self._installation = operate_ops.check_identity(tx, self._fingerprint, suspect)

    def _after_commit(self) -> None:
        self._write_marker()

    def _write_marker(self, force: bool = False) -> None:
        if self._installation and (force or self._marker.is_due()):
            db = sqlite3.connect(self.path)
            try:
                sequence = db.execute("SELECT sequence FROM ledger").fetchone()[0]
            finally:
                db.close()
            self._marker.write(self._installation, sequence)

    # -- units and reads ---------------------------------------------------------------------------

    async def submit(self, op: Callable[[ClaimTx], Any], *, last: bool = False) -> Any:
        return await self._writer.submit(op)

    async def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return await self.read(statement.query.sqlite, statement.sqlite_parameters())

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Committed rows of one SQL text, on a reader thread: the event loop never waits for the disk."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, sql, parameters)

    def _read(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        db = getattr(self._local, "db", None)
        if db is None:
            db = self._connect()
            db.execute("PRAGMA query_only = ON")
            db.execute("PRAGMA cache_size = -2000")  # the writer's pages count, and the system keeps the rest
            self._local.db = db
            self._reader_connections.append(db)
        me = threading.get_ident()
        self._reading[me] = monotonic()
        try:
            return list(db.execute(sql, parameters).fetchall())
        finally:
            del self._reading[me]

    async def snapshot_age_s(self) -> float:
        """Of this process: a read's snapshot lasts as long as its statement."""
        now = monotonic()
        return max((now - began for began in list(self._reading.values())), default=0.0)

    # -- one process -------------------------------------------------------------------------------

    async def now(self) -> int:
        return to_us(self._clock())

    async def beat(self, boot: bytes, name: str, now: int, until: int) -> int:
        """There is one process: its lock says that it lives."""
        return NEVER

    async def leave(self, boot: bytes) -> None:
        await self.submit(lambda tx: node_ops.leave(tx, boot))

    async def hold_lease(self, name: str, owner: bytes, now: int, until: int) -> bool:
        return True

    async def drop_lease(self, name: str, owner: bytes) -> None:
        """Nobody else could have it."""

    async def place_events(self, limit: int) -> int:
        """The row id is the position: one writer inserts in the order of its commits."""
        return 0

    async def take_over(self, boot: bytes, now: int) -> int:
        def op(tx: ClaimTx) -> int:
            node_ops.forget_others(tx, boot)
            return operate_ops.take_over(tx, boot, now, self._unresolved_after_s)

        return int(await self.submit(op))
