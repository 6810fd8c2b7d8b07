"""The group rules of the one SQLite writer, under trouble that is real wherever SQLite can be made to have it."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.errors import Busy
from hub.store.base import Unit
from hub.store.sqlite import SqliteStore
from hub.store.sqlite.writer import GROUP, Op, Tx, Writer
from hub.testing import StandingClock, eventually
from tests.ledger import Desk, check_books, fact


class Fragile(sqlite3.Connection):
    """Fails or waits at COMMIT when told to; counts what it was asked."""

    fail_commits = 0
    commits = 0
    before_commit: Callable[[], object] = staticmethod(lambda: None)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self.before_commit()
            if self.fail_commits:
                self.fail_commits -= 1
                raise sqlite3.OperationalError("disk I/O error")
            self.commits += 1
        return super().execute(sql, *parameters)


class Rig:
    """A writer over its own connection, with a table to write to."""

    def __init__(self, path: Path, *, begin_within_s: float = 5.0) -> None:
        self.path = path
        self.db: Fragile
        self.runs: dict[str, int] = {}
        self.after_commit: Callable[[], object] = lambda: None
        self.writer = Writer(self._connect, lambda: self.after_commit() and None, begin_within_s)

    def _connect(self) -> sqlite3.Connection:
        self.db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, factory=Fragile)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA busy_timeout = 20")
        self.db.execute("CREATE TABLE IF NOT EXISTS probe (name TEXT PRIMARY KEY, filler BLOB)")
        return self.db

    def put(self, name: str, size: int = 0) -> Op:
        def op(tx: Tx) -> str:
            self.runs[name] = self.runs.get(name, 0) + 1
            tx.execute("INSERT INTO probe VALUES (?, zeroblob(?))", (name, size))
            tx.count("a", "open", 1)
            return name

        return op

    async def together(self, *ops: Op) -> list[Any]:
        """Runs them as one group: the writer is kept busy until all are submitted."""
        gate = threading.Event()
        first = asyncio.create_task(self.writer.submit(lambda tx: gate.wait(5)))
        await asyncio.sleep(0.02)
        rest = [asyncio.create_task(self.writer.submit(op)) for op in ops]
        await asyncio.sleep(0)
        gate.set()
        async with asyncio.timeout(10):  # a writer that died answers nobody
            await first
            return await asyncio.gather(*rest, return_exceptions=True)

    def names(self) -> set[str]:
        """What another connection sees."""
        with sqlite3.connect(self.path) as db:
            found = {name for (name,) in db.execute("SELECT name FROM probe")}
            tally = db.execute("SELECT sum(count) FROM tally").fetchone()[0]
        db.close()
        assert (tally or 0) == len(found), "what is undone is not counted"
        return found


@pytest.fixture
async def rig(tmp_path: Path, empty_sqlite: Path) -> AsyncIterator[Rig]:
    path = tmp_path / "writer.db"
    shutil.copy(empty_sqlite, path)
    rig = Rig(path, begin_within_s=0.2)
    await rig.writer.start()
    yield rig
    await rig.writer.close()


def refuse(tx: Tx) -> None:
    tx.execute("INSERT INTO probe VALUES ('refused', NULL)")
    tx.count("a", "open", 1)
    raise ValueError("no")


async def test_many_callers_share_one_commit(rig: Rig) -> None:
    before = rig.db.commits
    results = await rig.together(*(rig.put(f"n{i}") for i in range(GROUP)))
    assert results == [f"n{i}" for i in range(GROUP)]
    assert rig.db.commits == before + 2, "the one that kept it busy, and the group"


async def test_a_caller_is_answered_only_after_the_commit(rig: Rig) -> None:
    reached, released = threading.Event(), threading.Event()
    rig.db.before_commit = lambda: (reached.set(), released.wait(5))
    task = asyncio.create_task(rig.writer.submit(rig.put("x")))
    await eventually(reached.is_set)
    await asyncio.sleep(0.05)
    assert not task.done() and rig.names() == set()
    released.set()
    assert await task == "x" and rig.names() == {"x"}


async def test_a_unit_that_fails_fails_alone(rig: Rig) -> None:
    results = await rig.together(rig.put("a"), refuse, rig.put("b"), rig.put("a"), rig.put("c"))
    assert [type(r).__name__ for r in results] == ["str", "ValueError", "str", "IntegrityError", "str"]
    assert rig.names() == {"a", "b", "c"}
    assert set(rig.runs.values()) == {1, 2}, "nobody was run again but the name used twice"


async def test_when_commit_fails_every_unit_is_run_again_alone_once(rig: Rig) -> None:
    rig.db.before_commit = fail_once(rig, at_commit=2)
    results = await rig.together(rig.put("a"), refuse, rig.put("b"))
    assert results[0] == "a" and isinstance(results[1], ValueError) and results[2] == "b"
    assert rig.runs == {"a": 2, "b": 2}
    assert rig.names() == {"a", "b"}


def fail_once(rig: Rig, at_commit: int) -> Callable[[], None]:
    seen = 0

    def before() -> None:
        nonlocal seen
        seen += 1
        if seen == at_commit:
            rig.db.fail_commits = 1

    return before


async def test_what_cannot_be_committed_alone_either_is_told_busy_and_not_stored(rig: Rig) -> None:
    await rig.writer.submit(rig.put("before"))
    rig.db.fail_commits = 10**6
    results = await asyncio.gather(*(rig.writer.submit(rig.put(f"n{i}")) for i in range(5)), return_exceptions=True)
    assert {type(r) for r in results} == {Busy}
    assert max(rig.runs.values()) == 2
    assert rig.names() == {"before"}
    rig.db.fail_commits = 0
    assert await rig.writer.submit(rig.put("after")) == "after"
    assert rig.names() == {"before", "after"}


async def test_an_interrupted_transaction_is_gone_and_the_others_are_run_again(rig: Rig) -> None:
    """SQLite itself rolls the whole transaction back, savepoints included."""

    def interrupted(tx: Tx) -> None:
        rig.db.set_progress_handler(lambda: 1, 1)
        try:
            tx.execute("INSERT INTO probe SELECT 'x' || value, NULL FROM json_each('[1, 2, 3]')")
        finally:
            rig.db.set_progress_handler(None, 1)

    results = await rig.together(rig.put("a"), interrupted, rig.put("b"))
    assert results[0] == "a" and isinstance(results[1], Busy) and results[2] == "b"
    assert rig.runs["a"] == 2
    assert rig.names() == {"a", "b"}


async def test_a_group_that_cannot_begin_is_told_at_once_not_one_after_another(rig: Rig) -> None:
    """Somebody else holds the file (a backup): 256 callers must not wait five seconds each in turn."""
    other = sqlite3.connect(rig.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    results = await asyncio.gather(*(rig.writer.submit(rig.put(f"n{i}")) for i in range(40)), return_exceptions=True)
    assert {type(r) for r in results} == {Busy} and rig.runs == {}
    other.execute("COMMIT")
    other.close()
    assert await rig.writer.submit(rig.put("after")) == "after"


async def test_a_caller_that_went_away_takes_nobody_along(rig: Rig) -> None:
    gate = threading.Event()
    first = asyncio.create_task(rig.writer.submit(lambda tx: gate.wait(5)))
    gone = asyncio.create_task(rig.writer.submit(rig.put("gone")))
    stays = asyncio.create_task(rig.writer.submit(rig.put("stays")))
    await asyncio.sleep(0.02)
    gone.cancel()
    gate.set()
    assert await stays == "stays" and await first
    assert rig.names() == {"gone", "stays"}


async def test_trouble_after_the_commit_is_nobodys_failure(rig: Rig) -> None:
    """The marker beside the file cannot be written, say: the commit stands, and the writer goes on."""

    def broken() -> None:
        raise OSError("no space left")

    rig.after_commit = broken
    assert await rig.together(rig.put("a"), rig.put("b")) == ["a", "b"]
    assert await rig.writer.submit(rig.put("c")) == "c"


async def test_even_a_stop_iteration_reaches_its_caller_and_only_him(rig: Rig) -> None:
    def exhausted(tx: Tx) -> None:
        next(iter(()))

    results = await rig.together(rig.put("a"), exhausted, rig.put("b"))
    assert results[0] == "a" and isinstance(results[1], RuntimeError) and results[2] == "b"


# -- a full disk -------------------------------------------------------------------------------------


class Reachable(SqliteStore):
    """Lets a test turn the knobs of the writer's own connection."""

    db: sqlite3.Connection

    def _connect_writer(self) -> sqlite3.Connection:
        self.db = super()._connect_writer()
        return self.db


@pytest.fixture
async def full(tmp_path: Path, empty_sqlite: Path, clock: StandingClock) -> AsyncIterator[Desk]:
    path = tmp_path / "unionhub.db"
    shutil.copy(empty_sqlite, path)
    store = Reachable(path, synchronous="OFF", clock=clock)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a")
    yield desk
    await check_books(store)
    await store.close()


@contextmanager
def page_limit(desk: Desk) -> Iterator[None]:
    """SQLite refuses to grow the file: SQLITE_FULL."""
    db = desk.store.db  # type: ignore[attr-defined]
    used = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {used + 8}")
    yield
    db.execute("PRAGMA max_page_count = 4294967294")


@contextmanager
def file_size_limit(desk: Desk) -> Iterator[None]:
    """The kernel refuses to grow any file of this process: EFBIG, an I/O error to SQLite."""
    wal = desk.store.path.with_name(desk.store.path.name + "-wal")  # type: ignore[attr-defined]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + 150_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("no_space", [page_limit, file_size_limit], ids=["pages", "file-size"])
async def test_on_a_full_disk_nothing_acknowledged_is_lost_and_it_resumes_alone(
    full: Desk, no_space: Callable[[Desk], Any]
) -> None:
    acknowledged: set[bytes] = set()
    refused: list[BaseException] = []

    async def commit(n: int) -> None:
        draft = fact(f"k{n}", full.now, ["a"], content=bytes(3000))
        try:
            await full.store.commit(Unit(drafts=[draft]))
        except Busy as busy:
            refused.append(busy)
        else:
            acknowledged.add(draft.event[0])

    await commit(-1)
    with no_space(full):
        await asyncio.gather(*(commit(n) for n in range(150)))
        for n in range(200, 210):
            await commit(n)
    assert refused, "there was room after all"
    stored = {id for (id,) in await full.store.read("SELECT id FROM event")}
    assert stored == acknowledged
    before = len(acknowledged)
    await asyncio.gather(*(commit(n) for n in range(1000, 1020)))
    assert len(acknowledged) == before + 20
    assert {j.event_id for j in await full.claim(limit=1000, capacity={"a": 1000})} == acknowledged
