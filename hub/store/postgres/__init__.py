"""The ledger on PostgreSQL: several processes share it, each with a few writing and reading connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

try:
    import asyncpg
except ModuleNotFoundError as missing:
    from hub.errors import ConfigError

    raise ConfigError(
        "thiếu trình điều khiển PostgreSQL: hãy cài bằng lệnh pip install 'unionhub[postgres]' / the driver for"
        " PostgreSQL is not installed: pip install 'unionhub[postgres]'"
    ) from missing

from hub.errors import Busy
from hub.log import log
from hub.sql import Statement
from hub.store import migrate
from hub.store.base import BreakerPolicy
from hub.store.ledger import Ledger
from hub.store.lock import ProcessLock
from hub.store.ops import nodes as node_ops
from hub.store.ops import operate as operate_ops
from hub.store.ops import prune as prune_ops
from hub.store.ops.claim import ClaimTx
from hub.store.postgres import partitions
from hub.store.postgres.connect import connect
from hub.store.postgres.upgrade import upgrade_postgres
from hub.store.postgres.writer import RECONNECT_S, Session, Writer, told, translated

READERS = 3
#: Rows beside a day that go in one transaction.
PRUNED_AT_ONCE = 500
CHANNEL = "unionhub"
#: Those of this role alone: others' it may not end. Waits a moment for each to be gone.
_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE application_name = ANY(?::text[])"
    " AND usename = current_user AND datname = current_database() AND pid <> pg_backend_pid()"
)
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
#: A hint to other nodes this often at most: a NOTIFY makes commits queue up behind one lock.
HINT_EVERY_S = 0.05
#: No statement of the hub runs longer; nobody waits longer for a lock; no transaction is left open longer.
SETTINGS = {
    "statement_timeout": "15s",
    "lock_timeout": "10s",
    # What a node that was stopped holds, the others wait for.
    "idle_in_transaction_session_timeout": "5s",
    # And what it does not read any more, or a node whose machine is gone.
    "tcp_user_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
}
#: Signs of life wait for nothing that work waits for: a process that could not say it lives would lose its work.
LIFE_SETTINGS = SETTINGS | {
    "statement_timeout": "2s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "2s",
}
#: When the server says nothing at all any more.
COMMAND_TIMEOUT_S, LIFE_TIMEOUT_S, CONNECT_TIMEOUT_S, CLOSE_WITHIN_S = 20.0, 3.0, 5.0, 3.0


class PostgresStore(Ledger):
    """Implements ``hub.store.base.Store`` on one database; any number of processes may share it."""

    shared = True

    def __init__(
        self,
        url: str,
        *,
        owners: Sequence[migrate.Owner] = (),
        breaker: BreakerPolicy = BreakerPolicy(10, 5.0, 3600.0),
        unresolved_after_s: float = 7 * 86400.0,
        key_fingerprint: bytes = b"",
        lock_file: Path | None = None,
    ) -> None:
        """``lock_file``: held while open, so that one process at a time works with an installation's folder."""
        super().__init__(breaker, unresolved_after_s)
        self.url = url
        self._lock = ProcessLock(lock_file) if lock_file is not None else None
        self._owners = (migrate.CORE, *owners)
        self._fingerprint = key_fingerprint
        self._writer = Writer(self._connect, self._tell_others)
        self._life = Writer(self._connect_for_life, self._tell_others, sessions=1, connect_within_s=LIFE_TIMEOUT_S)
        self._readers: asyncpg.Pool[Any] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._hinted = 0.0

    # -- life --------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._lock is not None:
            self._lock.acquire()
        try:
            await upgrade_postgres(self.url, self._owners)
            self._readers = await asyncpg.create_pool(
                self.url,
                min_size=1,
                max_size=READERS,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings=self._named(SETTINGS) | {"default_transaction_read_only": "on"},
                init=_integers,
            )
            self._writer.start()
            self._life.start()
            await self.submit(self._check_identity)
            connection = await self._connect()
            await self._make_days(connection)
            await connection.close()
        except BaseException:
            await self.close()
            raise
        self._listener = asyncio.create_task(self._listen(), name="ledger-listener")

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        with suppress(TimeoutError):  # a server that says nothing must not hold up a stop
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await asyncio.gather(self._writer.close(), self._life.close())
        if self._readers is not None:
            try:
                async with asyncio.timeout(2.0):
                    await self._readers.close()
            except TimeoutError:
                self._readers.terminate()
        if self._lock is not None:
            self._lock.release()

    async def _connect(self) -> asyncpg.Connection[Any]:
        settings = self._named(SETTINGS)
        return await asyncpg.connect(self.url, command_timeout=COMMAND_TIMEOUT_S, server_settings=settings)

    async def _connect_for_life(self) -> asyncpg.Connection[Any]:
        settings = self._named(LIFE_SETTINGS)
        return await asyncpg.connect(self.url, command_timeout=LIFE_TIMEOUT_S, server_settings=settings)

    def _named(self, settings: dict[str, str]) -> dict[str, str]:
        return settings | {"application_name": _session_name(self.boot)}

    def _check_identity(self, tx: ClaimTx) -> None:
        """The server's own identity and the database's number: a dump read into another place has others."""
        row = tx.execute(
            "SELECT (SELECT system_identifier FROM pg_control_system()), oid FROM pg_database"
            " WHERE datname = current_database()"
        ).fetchone()
        place = f"{row[0]}/{row[1]}".encode()

        def suspect(installation: str, sequence: int, known: Mapping[str, bytes]) -> str | None:
            return "another_identity" if known.get("place", place) != place else None

        operate_ops.check_identity(tx, self._fingerprint, suspect)
        # The hold is written: from now on this is the place, and a release lasts.
        tx.execute(
            "INSERT INTO installation (key, value) VALUES ('place', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (place,),
        )

    # -- units and reads ---------------------------------------------------------------------------

    async def submit(self, op: Callable[[ClaimTx], Any], *, last: bool = False) -> Any:
        return await self._writer.submit(op, last=last)

    async def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        return await self._fetch(statement.query.postgres, statement.postgres_parameters())

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self._fetch(translated(sql), parameters)

    async def _fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._readers is None:
            raise Busy("the ledger is not open")
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):  # for a free connection too
                return [tuple(row) for row in await self._readers.fetch(sql, *parameters)]
        except Exception as error:
            raise told(error) from None

    # -- history -----------------------------------------------------------------------------------

    async def drop_days(self, before: int) -> Mapping[str, int]:
        """Whole days whose every delivery has settled; makes the coming days' partitions on the way."""
        connection = await connect(self.url, settings=SETTINGS, command_timeout=COMMAND_TIMEOUT_S)
        rows: Counter[str] = Counter()
        try:
            await self._make_days(connection)
            for day in await partitions.droppable(connection, before):
                first, behind = (partitions.first_key(day + timedelta(n)) for n in (0, 1))
                while gone := await self.submit(partial(_forget_beside, first, behind)):
                    rows.update(gone)
                if await partitions.drop(connection, day):
                    rows["day"] += 1
        finally:
            await connection.close()
        return rows

    async def _make_days(self, connection: asyncpg.Connection[Any]) -> None:
        made = await partitions.ensure(connection, await self.now())
        for name, reason in made.left.items():
            log("history.day_not_made", partition=name, reason=reason)

    # -- other processes ---------------------------------------------------------------------------

    async def now(self) -> int:
        return int(await self._life.submit(lambda tx: tx.execute(_NOW).fetchone()[0]))

    async def beat(self, boot: bytes, name: str, now: int, until: int) -> int:
        return int(await self._life.submit(lambda tx: node_ops.beat(tx, boot, name, now, until)))

    async def leave(self, boot: bytes) -> None:
        await self._life.submit(lambda tx: node_ops.leave(tx, boot))

    async def hold_lease(self, name: str, owner: bytes, now: int, until: int) -> bool:
        return bool(await self._life.submit(lambda tx: node_ops.hold_lease(tx, name, owner, now, until)))

    async def drop_lease(self, name: str, owner: bytes) -> None:
        await self._life.submit(lambda tx: node_ops.drop_lease(tx, name, owner))

    async def place_events(self, limit: int) -> int:
        return int(await self.submit(lambda tx: node_ops.place_events(tx, limit)))

    async def take_over(self, boot: bytes, now: int) -> int:
        await self._end_sessions_of_lapsed(boot, now)

        def op(tx: ClaimTx) -> int:
            node_ops.forget_lapsed(tx, boot, now)
            return operate_ops.take_over(tx, boot, now, self._unresolved_after_s)

        return int(await self.submit(op))

    async def _end_sessions_of_lapsed(self, boot: bytes, now: int) -> None:
        """What a stopped process has locked stays so: between two messages of one query no time-out counts."""
        lapsed = await self.read("SELECT boot FROM node WHERE lease_until <= ? AND boot <> ?", (now, boot))
        if lapsed:
            await self.read(_END_SESSIONS, ([_session_name(each) for (each,) in lapsed],))

    async def snapshot_age_s(self) -> float:
        """Of every session of this database that this role may see, the hub's or not."""
        ((age,),) = await self.read(
            "SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity"
            " WHERE backend_xmin IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        return float(age)

    async def _tell_others(self, session: Session) -> None:
        if monotonic() - self._hinted < HINT_EVERY_S:
            return
        self._hinted = monotonic()
        with suppress(Exception):  # only a hint: everybody looks by themselves now and then
            await session.connection.execute(f"NOTIFY {CHANNEL}")

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except Exception as error:  # a named edge: without hints the poll finds what is due
                log("ledger.hints_lost", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_S)

    async def _listen_once(self) -> None:
        connection = await self._connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, lambda *_: self.on_hint())
            await lost.wait()
        finally:
            connection.terminate()


def _forget_beside(first: bytes, behind: bytes, tx: ClaimTx) -> Counter[str]:
    return prune_ops.forget_beside(tx, first, behind, PRUNED_AT_ONCE)


def _session_name(boot: bytes) -> str:
    return f"unionhub {boot.hex()}".rstrip()


async def _integers(connection: asyncpg.Connection[Any]) -> None:
    """Sums come as ``numeric``: the ledger's are whole numbers."""
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")
