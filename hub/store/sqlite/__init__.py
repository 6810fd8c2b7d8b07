"""The ledger on SQLite: WAL, ``synchronous=FULL``, one writer thread with group commit, reader threads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hub.clock import Clock, system_clock
from hub.contract import Guard
from hub.errors import ConfigError
from hub.model import new_id, to_us
from hub.sql import Statement
from hub.store import migrate
from hub.store.base import (
    BreakerPolicy,
    Claim,
    ClaimRequest,
    CommitReport,
    ConnectionRow,
    DestinationRow,
    RunRow,
    Settlement,
    Unit,
)
from hub.store.ops import commit as commit_ops
from hub.store.ops import operate as operate_ops
from hub.store.ops import settle as settle_ops
from hub.store.sqlite import claim as claim_ops
from hub.store.sqlite.lock import Marker, ProcessLock
from hub.store.sqlite.writer import Tx, Writer

READERS = 3
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


class SqliteStore:
    """Implements ``hub.store.base.Store`` on one file; refuses a second process."""

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
        assert synchronous in SYNCHRONOUS
        self.path = path
        self._owners = (migrate.CORE, *owners)
        self._breaker = breaker
        self._unresolved_after_s = unresolved_after_s
        self._fingerprint = key_fingerprint
        self._synchronous = synchronous
        self._clock = clock
        self._lock = ProcessLock(path.with_name(path.name + ".lock"))
        self._marker = Marker(path)
        self._writer = Writer(self._connect_writer, self._after_commit)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-reader")
        self._local = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []
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

    def _check_identity(self, tx: Tx) -> None:
        """A foreign key file or a copied database is found before anything is sent."""
        known = dict(tx.execute("SELECT key, value FROM installation").fetchall())
        fingerprint = known.get("key_fingerprint")
        if fingerprint is not None and fingerprint != self._fingerprint:
            raise ConfigError(
                "hub.key không phải khóa của cơ sở dữ liệu này: chép lại tệp khóa từ nơi có cơ sở dữ liệu"
                " / hub.key is not the key of this database: copy the key file from where the database came"
            )
        sequence, hold = tx.execute("SELECT sequence, hold FROM ledger").fetchone()
        if "id" not in known:
            known["id"] = new_id().bytes
            tx.execute("INSERT INTO installation (key, value) VALUES ('id', ?)", (known["id"],))
        if fingerprint is None and self._fingerprint:
            tx.execute("INSERT INTO installation (key, value) VALUES ('key_fingerprint', ?)", (self._fingerprint,))
        self._installation = known["id"].hex()
        reason = self._marker.hold_reason(self._installation, sequence)
        if hold is None and reason is not None:
            tx.execute("UPDATE ledger SET hold = ?", (reason,))

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

    async def commit(self, unit: Unit) -> CommitReport:
        report: CommitReport = await self._writer.submit(lambda tx: commit_ops.commit_unit(tx, unit, self._breaker))
        return report

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
            self._local.db = db
            self._reader_connections.append(db)
        return list(db.execute(sql, parameters).fetchall())

    # -- deliveries --------------------------------------------------------------------------------

    async def claim(self, request: ClaimRequest) -> Claim:
        result: Claim = await self._writer.submit(lambda tx: claim_ops.claim(tx, request, self._breaker))
        return result

    async def start(self, delivery_id: bytes, lease_no: int, body_sha256: bytes, guards: Sequence[Guard]) -> bool:
        def op(tx: Tx) -> bool:
            commit_ops.run_guards(tx, guards)
            return bool(
                tx.execute(
                    "UPDATE queue SET state = 'sending', body_sha256 = ? WHERE id = ? AND lease_no = ?"
                    " AND state = 'leased'",
                    (body_sha256, delivery_id, lease_no),
                ).rowcount
            )

        return bool(await self._writer.submit(op))

    async def settle(self, settlements: Sequence[Settlement], now: int) -> list[bool]:
        result: list[bool] = await self._writer.submit(
            lambda tx: settle_ops.settle_all(tx, settlements, now, self._breaker)
        )
        return result

    async def record_refs(self, connection: str, delivery_id: bytes, refs: Sequence[str], of_parts: int) -> None:
        now = self._now()
        await self._writer.submit(lambda tx: settle_ops.keep_refs(tx, connection, delivery_id, refs, of_parts, now))

    async def take_over(self, boot: bytes, now: int) -> int:
        return int(await self._writer.submit(lambda tx: operate_ops.take_over(tx, boot, now, self._unresolved_after_s)))

    async def sweep(self, now: int) -> int:
        return int(await self._writer.submit(lambda tx: operate_ops.sweep(tx, now, self._unresolved_after_s)))

    async def replay(self, delivery_id: bytes, new_id: bytes, now: int) -> bytes | None:
        result: bytes | None = await self._writer.submit(lambda tx: operate_ops.replay(tx, delivery_id, new_id, now))
        return result

    async def resolve(self, delivery_id: bytes, verdict: str, reason: str, now: int) -> bool:
        return bool(await self._writer.submit(lambda tx: operate_ops.resolve(tx, delivery_id, verdict, reason, now)))

    # -- configuration, keys, runs -----------------------------------------------------------------

    async def configure(self, connections: Sequence[ConnectionRow], destinations: Sequence[DestinationRow]) -> None:
        now = self._now()
        await self._writer.submit(lambda tx: operate_ops.configure(tx, connections, destinations, now))

    async def keep_projections(self, projections: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        kept: dict[bytes, bytes] = await self._writer.submit(lambda tx: operate_ops.keep_projections(tx, projections))
        return kept

    async def subject_keys(self, subjects: Sequence[str]) -> dict[str, bytes]:
        marks = ", ".join("?" * len(subjects))
        rows = await self.read(
            f"SELECT subject, wrapped FROM subject_key WHERE wrapped IS NOT NULL AND subject IN ({marks})",
            tuple(subjects),
        )
        return dict(rows)

    async def due_run(self, kind: str, object: str, slot: int, now: int) -> bool:
        run_id = new_id().bytes
        return bool(await self._writer.submit(lambda tx: operate_ops.due_run(tx, run_id, kind, object, slot, now)))

    async def claim_run(self, owner: bytes, now: int) -> RunRow | None:
        run: RunRow | None = await self._writer.submit(lambda tx: operate_ops.claim_run(tx, owner, now))
        return run

    async def finish_run(self, run_id: bytes, state: str, reason: str, now: int) -> None:
        await self._writer.submit(lambda tx: operate_ops.finish_run(tx, run_id, state, reason, now))

    async def pause(self, kind: str, name: str, by: str | None, reason: str, now: int) -> bool:
        def op(tx: Tx) -> bool:
            found = settle_ops.pause(tx, kind, name, by, reason, now)
            if by is None:
                operate_ops.clear_repair(tx, f"{kind}_paused", name, now)
            return found

        return bool(await self._writer.submit(op))

    async def open_repair(self, kind: str, object: str, detail: str, now: int) -> None:
        await self._writer.submit(lambda tx: settle_ops.open_repair(tx, kind, object, detail, now))

    async def clear_repair(self, kind: str, object: str, now: int) -> None:
        await self._writer.submit(lambda tx: operate_ops.clear_repair(tx, kind, object, now))

    async def ping(self) -> None:
        await self._writer.submit(lambda tx: None)

    async def hold(self, reason: str | None) -> None:
        await self._writer.submit(lambda tx: tx.execute("UPDATE ledger SET hold = ?", (reason,)).rowcount)

    async def held(self) -> str | None:
        rows = await self.read("SELECT hold FROM ledger")
        reason: str | None = rows[0][0]
        return reason

    def _now(self) -> int:
        return to_us(self._clock())
