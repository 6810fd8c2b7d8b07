"""Writes on PostgreSQL: a few connections, each committing the units of many callers as one group.

A unit runs as plain synchronous code in a greenlet, so that both engines share one text of every operation;
each statement it says is awaited on asyncpg. A group needs no savepoint for each unit: one that fails is rolled
back whole and every unit of it is run again alone, once.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import groupby
from typing import Any

import asyncpg
from sqlalchemy.util import await_only, greenlet_spawn

from hub.crashpoint import crashpoint
from hub.errors import Busy, HubError
from hub.log import log
from hub.sql import Statement
from hub.store.ops import claim
from hub.store.ops.commit import together

#: Units in one group at most: bounds the wait of the first one.
GROUP = 256
#: Connections that write. Several, so that one unit that waits for a lock does not hold up all others.
SESSIONS = 4
#: Rows from which COPY beats an INSERT: the pages of a large fan-out.
COPY_FROM = 200
_INTO = re.compile(r"INSERT INTO (?P<table>\w+) \((?P<columns>[^)]+)\)")
#: Until a lost connection is tried again.
RECONNECT_S = 0.5
#: A rollback that takes longer says that the connection is lost.
ROLLBACK_S = 2.0
#: How often a unit is run alone, while it is others that it gets in the way of.
ALONE = 3
#: What a session prepared fits the tables no more, or is gone.
_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.InvalidSQLStatementNameError, asyncpg.OutdatedSchemaCacheError)


class Entangled(Exception):
    """A unit needs a lock that others have, while its group holds some of its own: waiting could be for ever."""


#: Nobody's fault: the same unit run again may well succeed.
_AGAIN = (Entangled, asyncpg.DeadlockDetectedError, asyncpg.SerializationError, *_STALE)
#: Classes of SQLSTATEs that say "not now"; the others (wrong SQL, wrong values, broken constraints) would come again.
_NOT_NOW = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX"})
#: Classes whose messages name tables, columns and constraints, and no values.
_NAMES_ONLY = frozenset({"23", "42", "54"})

_TYPES = {"i": "bigint", "s": "text", "b": "bytea"}
_TALLY = "INSERT INTO tally (destination, state, count)"
_TALLY_ADD = " ON CONFLICT (destination, state) DO UPDATE SET count = tally.count + excluded.count"
#: In the order of their names (by bytes, whatever the database's language), as everybody takes them.
_DUE = (
    "WITH held AS (SELECT d.id, v.at FROM destination d JOIN unnest($1::text[], $2::bigint[]) AS v(id, at) ON v.id ="
    ' d.id ORDER BY d.id COLLATE "C" FOR UPDATE OF d) UPDATE destination SET next_due_at = least(next_due_at, held.at)'
    " FROM held WHERE destination.id = held.id"
)
_HOLD = (
    "SELECT 1 FROM destination WHERE id = ANY($1::text[]) OR connection = ANY($2::text[])"
    ' ORDER BY id COLLATE "C" FOR UPDATE'
)
_LOCK = "SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k"
_TRY_LOCK = "SELECT bool_and(pg_try_advisory_xact_lock(k)) FROM unnest($1::bigint[]) AS k"
_PICK = f"SELECT {', '.join(claim.COLUMNS)} FROM {claim.FROM} WHERE "
#: Locks are taken in this order, whoever takes them.
_LOCK_ORDER = ("configure", "positions", "run", "ref", "delivery", "order")

Op = Callable[["Tx"], Any]
#: What to run, whom to answer, and whether it comes after the others of its group.
Job = tuple[Op, "asyncio.Future[Any]", bool]


@lru_cache(maxsize=1024)
def translated(sql: str) -> str:
    """The same text with PostgreSQL's marks, and with what is meant for it alone."""
    sql = re.sub(r"/\*pg: (.*?) \*/", r"\1", sql)
    if re.search(r"\?\d", sql):
        return re.sub(r"\?(\d+)", r"$\1", sql)
    parts = sql.split("?")
    return parts[0] + "".join(f"${n}{part}" for n, part in enumerate(parts[1:], 1))


class Rows:
    """What one statement answered, all at hand."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], status: str | None) -> None:
        self._rows = rows
        self.rowcount = int(status.rpartition(" ")[2]) if status and status[-1].isdigit() else -1

    def fetchone(self) -> Any:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        return self._rows


class Session:
    """One connection with its prepared statements."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.connection = connection
        self._prepared: dict[str, asyncpg.prepared_stmt.PreparedStatement[Any]] = {}

    async def run(self, sql: str, parameters: Sequence[Any]) -> Rows:
        statement = self._prepared.get(sql)
        if statement is None:
            statement = self._prepared[sql] = await self.connection.prepare(sql)
        rows = await statement.fetch(*parameters)
        return Rows(rows, statement.get_statusmsg())

    async def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """One statement for many rows of values, in one round trip."""
        statement = self._prepared.get(sql)
        if statement is None:
            statement = self._prepared[sql] = await self.connection.prepare(sql)
        await statement.executemany(parameters)

    async def copy(self, table: str, columns: list[str], rows: Sequence[tuple[Any, ...]]) -> None:
        await self.connection.copy_records_to_table(table, records=rows, columns=columns)

    async def roll_back(self, error: BaseException) -> None:
        """Nothing of the transaction stays; where the server cannot be told so, neither does the connection."""
        if isinstance(error, _STALE):
            self._prepared.clear()
        try:
            # The driver's own time-out starts only when what was under way before has been cancelled.
            async with asyncio.timeout(ROLLBACK_S):
                await self.connection.execute("ROLLBACK")
        except Exception:
            self.connection.terminate()

    async def close(self) -> None:
        with suppress(Exception):
            async with asyncio.timeout(ROLLBACK_S):
                await self.connection.close()
        self.connection.terminate()


class Tx:
    """``hub.store.ops.tx.Tx`` on a session, inside a greenlet."""

    __slots__ = ("_alone", "_at_end", "_due", "_locked", "_session", "_used", "tally")
    violation: type[Exception] = asyncpg.IntegrityConstraintViolationError
    concurrent = True

    def __init__(self, session: Session, *, alone: bool = True) -> None:
        """``alone``: one unit is all there is in the transaction."""
        self._session = session
        self._alone = alone
        self._used = False
        self._due: dict[str, int] = {}
        self._at_end: list[tuple[str, str, Callable[[], object]]] = []
        self._locked: set[int] = set()
        self.tally: dict[tuple[str, str], int] = {}

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Rows:
        return self._run(translated(sql), parameters)

    def _run(self, sql: str, parameters: Sequence[Any]) -> Rows:
        self._used = True
        rows: Rows = await_only(self._session.run(sql, parameters))
        return rows

    def run(self, statement: Statement) -> int:
        return self._run(statement.query.postgres, statement.postgres_parameters()).rowcount

    def run_all(self, statements: Sequence[Statement]) -> None:
        for sql, same in groupby(statements, key=lambda statement: statement.query.postgres):
            self._used = True
            await_only(self._session.run_many(sql, [statement.postgres_parameters() for statement in same]))

    def many(
        self,
        head: str,
        rows: Sequence[tuple[Any, ...]],
        types: str,
        tail: str = "",
        lead: tuple[Any, ...] = (),
        *,
        pad: bool = False,
    ) -> int:
        if not rows:
            return 0
        into = _INTO.fullmatch(head)
        if len(rows) >= COPY_FROM and into and not tail:
            await_only(self._session.copy(into["table"], into["columns"].split(", "), rows))
            return len(rows)
        return self._run(_many(head, types, tail, len(lead)), (*lead, *map(list, zip(*rows, strict=True)))).rowcount

    def pick(self, condition: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
        return self.execute(_PICK + condition + " FOR UPDATE OF q SKIP LOCKED", parameters).fetchall()

    def count(self, destination: str, state: str, delta: int) -> None:
        key = (destination, state)
        self.tally[key] = self.tally.get(key, 0) + delta

    def due(self, destination: str, at: int) -> None:
        """Said once before COMMIT: the row is held as shortly as can be, and never left out.

        A claim that saw nothing while this unit was open would else write "nothing is due" over it.
        """
        self._due[destination] = min(at, self._due.get(destination, at))

    def at_end(self, kind: str, name: str, change: Callable[[], object]) -> None:
        self._at_end.append((kind, name, change))

    def lock(self, *keys: tuple[str | bytes | None, ...]) -> None:
        """One unit takes its locks in the order all do; those of a group come as they come, and never wait."""
        ordered = sorted((_LOCK_ORDER.index(str(key[0])), _number(key)) for key in keys)
        numbers = [number for _, number in ordered if number not in self._locked]
        if not numbers:
            return
        may_wait = self._alone or not self._used
        if may_wait:
            self._run(_LOCK, (numbers,))
        elif not self._run(_TRY_LOCK, (numbers,)).fetchone()[0]:
            raise Entangled
        self._locked.update(numbers)

    def fold(self) -> bool:
        """Writes down what concerns destinations, and the counters; answers whether something became due."""
        if self._at_end:
            names = {kind: [name for k, name, _ in self._at_end if k == kind] for kind in ("destination", "connection")}
            self._run(_HOLD, ([*names["destination"], *self._due], names["connection"]))
            for _, _, change in self._at_end:
                change()
        if self._due:
            due = sorted(self._due.items())
            self._run(_DUE, ([name for name, _ in due], [at for _, at in due]))
        if counts := sorted((d, s, n) for (d, s), n in self.tally.items() if n):
            self.many(_TALLY, counts, "ssi", _TALLY_ADD)
        return bool(self._due)


@lru_cache(maxsize=512)
def _many(head: str, types: str, tail: str, lead: int) -> str:
    names = ", ".join(f"column{n}" for n in range(1, len(types) + 1))
    arrays = ", ".join(f"${n}::{_TYPES[kind]}[]" for n, kind in enumerate(types, lead + 1))
    return f"{translated(head)} SELECT * FROM unnest({arrays}) AS v({names}){translated(tail)}"


def _number(key: tuple[str | bytes | None, ...]) -> int:
    """64 bits of a key: two that fall together wait for one another without need, nothing worse."""
    text = b"\0".join(part if isinstance(part, bytes) else (part or "").encode() for part in key)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), signed=True)


class Writer:
    """Runs units on its sessions; ``submit`` is called on the event loop."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection[Any]]],
        on_due: Callable[[Session], Awaitable[None]],
        sessions: int = SESSIONS,
        connect_within_s: float = 5.0,
    ) -> None:
        self._connect = connect
        self._on_due = on_due
        self._count = sessions
        self._connect_within_s = connect_within_s
        self._jobs: deque[Job] = deque()
        self._wake = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"ledger-writer-{n}") for n in range(self._count)]

    async def submit(self, op: Op, *, last: bool = False) -> Any:
        """Runs ``op`` inside a transaction and answers after its COMMIT.

        Args:
            last: it waits for no lock and leaves nothing to fold, but holds rows that others fold into: it runs
                after the others of its group, so that nobody waits while he holds them.
        """
        if self._closing:
            raise Busy("the ledger is closing; nothing was stored")
        future = asyncio.get_running_loop().create_future()
        self._jobs.append((op, future, last))
        self._wake.release()
        return await future

    async def close(self) -> None:
        """Commits what was submitted, then ends the sessions."""
        self._closing = True
        for _ in self._tasks:
            self._wake.release()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self) -> None:
        session: Session | None = None
        try:
            while True:
                await self._wake.acquire()
                if not self._jobs:
                    if self._closing:
                        return
                    continue
                group = [self._jobs.popleft() for _ in range(min(len(self._jobs), GROUP))]
                try:
                    session = await self._session(session)
                    due = await self._group(session, group)
                except Exception as error:  # nothing ran, or nobody knows: everybody hears the same, at once
                    for _, future, _ in group:
                        _tell(future, error)
                    continue
                if due:
                    with suppress(Exception):  # only a hint, and the units are committed
                        await self._on_due(session)
        finally:
            if session is not None:
                await session.close()

    async def _session(self, session: Session | None) -> Session:
        if session is None or session.connection.is_closed():
            async with asyncio.timeout(self._connect_within_s):
                session = Session(await self._connect())
        return session

    async def _group(self, session: Session, group: list[Job]) -> bool:
        """Commits and answers a group; answers whether something became due."""
        try:
            return await self._transaction(session, group)
        except Exception as error:
            if session.connection.is_closed() or (len(group) == 1 and not isinstance(error, _AGAIN)):
                raise
            if not isinstance(error, HubError | Entangled):  # a guard that failed is nobody's trouble
                log("ledger.group_rerun", units=len(group), reason=type(error).__name__)
        dues = [await self._alone(session, job) for job in group]
        return any(dues)

    async def _alone(self, session: Session, job: Job) -> bool:
        for left in reversed(range(ALONE)):
            try:
                return await self._transaction(session, [job])
            except Exception as error:
                if not left or not isinstance(error, _AGAIN):
                    _tell(job[1], error)
                    break
        return False

    async def _transaction(self, session: Session, group: list[Job]) -> bool:
        """Any error leaves nothing behind; one of COMMIT itself leaves the connection closed and the end unknown."""
        connection = session.connection
        try:
            await connection.execute("BEGIN")
            results, due = await greenlet_spawn(_run_group, Tx(session, alone=len(group) == 1), group)
        except BaseException as error:
            await session.roll_back(error)
            raise
        crashpoint("ledger.written")
        try:
            ended = await connection.execute("COMMIT")
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.SerializationError):
            raise  # the server's word: nothing of it stands
        except BaseException:
            connection.terminate()
            raise
        if ended != "COMMIT":  # the server rolls back what had failed, and calls it no error
            raise RuntimeError("a unit of work went on after a statement that failed; nothing was stored")
        crashpoint("ledger.committed")
        for future, result in results:
            _answer(future, result)
        return due


def _run_group(tx: Tx, group: list[Job]) -> tuple[list[tuple[asyncio.Future[Any], Any]], bool]:
    written = together(tx, [op for op, _, _ in group])
    results = [
        (future, written[i] if i in written else op(tx)) for i, (op, future, last) in enumerate(group) if not last
    ]
    due = tx.fold()
    results += [(future, op(tx)) for op, future, last in group if last]
    return results, due


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():  # else its caller was cancelled; the unit is committed all the same
        future.set_result(result)


def _tell(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(told(error))


def told(error: Exception) -> Exception:
    """What a caller hears: no SQL, and no value of a row.

    Trouble of the storage is ``Busy``: the caller may try again. Wrong SQL, wrong values and broken constraints are
    not: trying again would not help.
    """
    clean = _without_values(error)
    state = getattr(error, "sqlstate", None) or ""
    if state[:2] in _NOT_NOW or isinstance(error, (*_STALE, OSError, TimeoutError, EOFError)):
        busy = Busy(f"the ledger cannot be written now ({state or type(error).__name__})")
    elif isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        busy = Busy("the ledger cannot be written now (no connection)")
    else:
        return clean
    busy.__cause__ = clean
    return busy


def _without_values(error: Exception) -> Exception:
    """The driver's errors repeat what was refused: in a detail, or in the message itself."""
    if isinstance(error, asyncpg.PostgresError):
        names_only = (error.sqlstate or "")[:2] in _NAMES_ONLY
        return type(error)(error.args[0] if names_only else f"SQLSTATE {error.sqlstate}")
    if isinstance(error, StopIteration):  # a future refuses it
        return RuntimeError("a unit of work ended in StopIteration")
    return error
