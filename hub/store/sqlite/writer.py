"""The one writer of an SQLite ledger: a thread that commits many callers' units as one group.

A caller is answered only after the group's COMMIT. A unit that fails inside its savepoint fails alone; if
the whole transaction is gone or COMMIT fails, every unit of the group is run again alone, once.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import orjson

from hub.crashpoint import crashpoint
from hub.errors import Busy
from hub.log import log
from hub.sql import Statement
from hub.store.ops import claim
from hub.store.ops.commit import together

#: Units in one group at most: bounds the wait of the first one.
GROUP = 256
#: How long a thread keeps the interpreter lock from another that asks for it. The writer asks after every statement:
#: with Python's own 5 ms a claim of ten would take 50 ms beside a busy event loop, and lanes would run dry.
SWITCH_S = 0.0005

_DUE = "UPDATE destination SET next_due_at = ? WHERE id = ? AND next_due_at > ?"

_BLOB_NAMES = {"q.id", "q.event_id", "q.batch_id", "q.projection", "q.order_key", "q.body_sha256", "e.correlation_id"}
#: Columns of a pick that are blobs: their lengths stand in the JSON, their bytes one after the other beside it.
_BLOBS = tuple(i for i, column in enumerate(claim.COLUMNS) if column in _BLOB_NAMES)
_BODY = claim.COLUMNS.index("c.body")
#: A longer content is read for itself: hundreds at once would take more memory than they save time.
_SHORT = "length(c.body) <= 16384"
_TEXTS = [f"length({column})" if i in _BLOBS else column for i, column in enumerate(claim.COLUMNS)]
_TEXTS[_BODY] = f"iif({_SHORT}, length(c.body), NULL)"
_BYTES = " || ".join([f"coalesce({claim.COLUMNS[i]}, x'')" for i in _BLOBS] + [f"iif({_SHORT}, c.body, x'')"])
_PICK = (
    "SELECT '[' || group_concat(j) || ']', group_concat(b, '') FROM (SELECT"
    f" json_array({', '.join(_TEXTS)}) AS j, {_BYTES} AS b FROM {claim.FROM} WHERE "
)

Op = Callable[["Tx"], Any]
Job = tuple[Op, "asyncio.Future[Any]"]


class Tx:
    """``hub.store.ops.tx.Tx`` on a cursor. ``tally`` is folded into the counters before COMMIT."""

    __slots__ = ("_db", "execute", "tally")
    violation: type[Exception] = sqlite3.IntegrityError
    concurrent = False

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.execute = db.cursor().execute
        self.tally: dict[tuple[str, str], int] = {}

    def run(self, statement: Statement) -> int:
        return int(self.execute(statement.query.sqlite, statement.sqlite_parameters()).rowcount)

    def run_all(self, statements: Sequence[Statement]) -> None:
        for statement in statements:
            self.run(statement)

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
        # Few statements for many rows: each gives the interpreter lock up and waits for it beside a busy loop.
        touched, start, width = 0, 0, len(rows[0]) if rows else 0
        if pad and rows:
            # 100 become 128, 130 become 192: one or two statements, a third of them padding at most.
            short = -len(rows) % (1 << max(len(rows).bit_length() - 2, 0)) if len(rows) > 2 else 0
            rows = [*rows, *[(None,) * width] * short]
        for size in (256, 128, 64, 32, 16, 8, 4, 2, 1):
            while len(rows) - start >= size:
                chunk = rows[start : start + size]
                values = chunk[0] if size == 1 else tuple([value for row in chunk for value in row])
                touched += self.execute(_many(head, tail, width, size), lead + values).rowcount
                start += size
        return touched

    def pick(self, condition: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
        """All rows as one: a step per row would give up the interpreter lock for each of them."""
        self._db.text_factory = bytes
        try:
            text, blobs = self.execute(_PICK + condition + ")", parameters).fetchone()
        finally:
            self._db.text_factory = str
        rows: list[Any] = [] if text is None else orjson.loads(text)
        start = 0
        for row in rows:
            for i in (*_BLOBS, _BODY):
                if row[i] is not None:
                    end = start + row[i]
                    row[i], start = blobs[start:end], end
            if row[_BODY] is None:
                row[_BODY] = self.execute("SELECT body FROM content WHERE event_id = ?", (row[1],)).fetchone()[0]
        return rows

    def count(self, destination: str, state: str, delta: int) -> None:
        key = (destination, state)
        self.tally[key] = self.tally.get(key, 0) + delta

    def due(self, destination: str, at: int) -> None:
        self.execute(_DUE, (at, destination, at))

    def at_end(self, kind: str, name: str, change: Callable[[], object]) -> None:
        change()  # nobody else is there

    def lock(self, *keys: tuple[str | bytes | None, ...]) -> None:
        """There is one writer."""


@lru_cache(maxsize=512)
def _many(head: str, tail: str, width: int, size: int) -> str:
    row = "(" + ", ".join("?" * width) + ")"
    return f"{head} VALUES {', '.join([row] * size)}{tail}"


class Writer:
    """Runs units on its own thread and connection; ``submit`` is called on the event loop."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], after_commit: Callable[[], None], begin_within_s: float = 5.0
    ) -> None:
        self._connect = connect
        self._after_commit = after_commit
        self._begin_within_s = begin_within_s
        self._jobs: deque[Job] = deque()
        self._wake = threading.Semaphore(0)
        self._asleep = True
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opened: asyncio.Future[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()
        await self._opened

    async def submit(self, op: Op) -> Any:
        """Runs ``op`` inside a transaction and answers after its COMMIT."""
        assert self._loop is not None
        if self._closing:
            raise Busy("the ledger is closing; nothing was stored")
        future = self._loop.create_future()
        self._jobs.append((op, future))
        if self._asleep:
            self._asleep = False
            self._wake.release()
        return await future

    async def close(self) -> None:
        """Commits what was submitted, then ends the thread."""
        if self._thread is None or self._closing:
            return
        self._closing = True
        self._wake.release()
        await asyncio.to_thread(self._thread.join)

    # -- on the writer's thread ------------------------------------------------------------------

    def _run(self) -> None:
        assert self._loop is not None and self._opened is not None
        try:
            db = self._connect()
        except BaseException as error:  # told to the caller of start(), who must not wait for ever
            self._loop.call_soon_threadsafe(self._opened.set_exception, error)
            return
        self._loop.call_soon_threadsafe(self._opened.set_result, None)
        jobs = self._jobs
        while True:
            if not jobs:
                if self._closing:
                    break
                self._asleep = True
                if not jobs:  # nobody appended between the look and the flag
                    self._wake.acquire()
                self._asleep = False
                continue
            group = [jobs.popleft() for _ in range(min(len(jobs), GROUP))]
            self._answer(self._group(db, group))
        db.close()

    def _group(self, db: sqlite3.Connection, group: list[Job]) -> list[tuple[asyncio.Future[Any], Any]]:
        try:
            _begin(db, self._begin_within_s)
        except Exception as error:  # nothing ran: everybody hears the same, at once
            return _all_told(group, error)
        try:
            results = self._transaction(db, group)
        except Exception as error:  # the group is gone; each unit gets one more chance alone
            _rollback(db)
            results = _all_told(group, error) if len(group) == 1 else self._one_by_one(db, group)
        try:
            self._after_commit()
        except Exception as error:  # what is committed is committed: its callers must hear of it
            log("ledger.marker_not_written", error=type(error).__name__)
        return results

    def _one_by_one(self, db: sqlite3.Connection, group: list[Job]) -> list[tuple[asyncio.Future[Any], Any]]:
        results: list[tuple[asyncio.Future[Any], Any]] = []
        for i, job in enumerate(group):
            try:
                _begin(db, self._begin_within_s)
            except Exception as error:  # somebody else holds the file: the rest need not wait for it one by one
                return results + _all_told(group[i:], error)
            try:
                results += self._transaction(db, [job])
            except Exception as error:
                _rollback(db)
                results.append((job[1], _told(error)))
        return results

    def _transaction(self, db: sqlite3.Connection, group: list[Job]) -> list[tuple[asyncio.Future[Any], Any]]:
        results: list[tuple[asyncio.Future[Any], Any]] = []
        tx = Tx(db)
        alone = len(group) == 1
        written = together(tx, [op for op, _ in group])
        for i, (op, future) in enumerate(group):
            if i in written:
                results.append((future, written[i]))
                continue
            before = dict(tx.tally)
            if not alone:
                tx.execute("SAVEPOINT unit")
            try:
                result = op(tx)
            except Exception as error:
                if alone or not db.in_transaction:
                    raise
                tx.execute("ROLLBACK TO unit")
                tx.tally = before
                result = _told(error)
            if not alone:
                tx.execute("RELEASE unit")
            results.append((future, result))
        if tx.tally:
            tx.many(
                "INSERT INTO tally (destination, state, count)",
                [(d, s, n) for (d, s), n in tx.tally.items() if n],
                "ssi",
                " ON CONFLICT (destination, state) DO UPDATE SET count = count + excluded.count",
            )
        tx.execute("UPDATE ledger SET sequence = sequence + 1")
        crashpoint("ledger.written")
        db.execute("COMMIT")
        crashpoint("ledger.committed")
        return results

    def _answer(self, results: list[tuple[asyncio.Future[Any], Any]]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(_resolve, results)


class _Failed:
    """An error on its way back to the caller of one unit."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _all_told(group: list[Job], error: BaseException) -> list[tuple[asyncio.Future[Any], Any]]:
    return [(future, _told(error)) for _, future in group]


def _told(error: BaseException) -> _Failed:
    """Storage trouble becomes ``Busy``: the caller may try again, and no SQL or value reaches its answer.

    Wrong SQL is not trouble of the storage: trying again would not help.
    """
    if isinstance(error, StopIteration):  # a future refuses it, and its group would never be answered
        return _Failed(RuntimeError("a unit of work ended in StopIteration"))
    if isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
        busy = Busy(f"the ledger cannot be written now ({getattr(error, 'sqlite_errorname', 'SQLITE_ERROR')})")
        busy.__cause__ = error
        return _Failed(busy)
    return _Failed(error)


def _resolve(results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if future.done():  # its caller was cancelled; the unit is committed all the same
            continue
        if isinstance(result, _Failed):
            future.set_exception(result.error)
        else:
            future.set_result(result)


def _rollback(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        with suppress(sqlite3.Error):  # SQLite itself may have rolled back meanwhile
            db.execute("ROLLBACK")


def _begin(db: sqlite3.Connection, deadline_s: float) -> None:
    """BEGIN IMMEDIATE, tried again while another connection writes (a backup, a checkpoint)."""
    until = time.monotonic() + deadline_s
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
