"""Copies of a ledger: one moment of it, taken beside its writer; put back whole and on hold, or not at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hub.errors import Busy, ConfigError, HubError, InputError
from hub.model import State
from hub.security.keys import HubKey
from hub.sql import query
from hub.store import migrate
from hub.store.base import Unit
from hub.store.ops.books import BOOKS
from hub.store.sqlite import SqliteStore, check, copy
from hub.store.sqlite.lock import Marker
from hub.testing import StandingClock
from tests.conformance.conftest import Factory
from tests.ledger import BREAKER, UNRESOLVED_S, Desk, check_books, fact

NOW = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
OWNERS = [migrate.CORE]
#: More than the blocks and pages in which anything is read.
PADDING = query(
    text(
        "INSERT INTO content (event_id, body) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n"
        " WHERE x < 8000) SELECT randomblob(16), randomblob(300) FROM n"
    )
)


def idle(stage: str, done: int, total: int) -> None: ...


class Stop(Exception):
    """What a step raises to end the work."""


class Place:
    """A data folder: ledger, key, and the stores opened on them."""

    def __init__(self, folder: Path, clock: StandingClock) -> None:
        self.folder = folder
        self.database = folder / "unionhub.db"
        self.clock = clock
        folder.mkdir()
        self.key = HubKey.load(folder / "hub.key", may_create=True)

    async def open(self) -> Desk:
        store = SqliteStore(
            self.database, breaker=BREAKER, unresolved_after_s=UNRESOLVED_S, key_fingerprint=self.key.fingerprint,
            synchronous="OFF", clock=self.clock,
        )  # fmt: skip
        await store.open()
        return Desk(store, self.clock)

    def beside(self, part: str) -> Path:
        return self.database.with_name(self.database.name + part)

    def names(self) -> set[str]:
        """Of what is in the folder, without its key and lock."""
        return {p.name for p in self.folder.iterdir()} - {"hub.key", "unionhub.db.lock"}


@pytest.fixture
def here(tmp_path: Path, clock: StandingClock, empty_sqlite: Path) -> Place:
    place = Place(tmp_path / "here", clock)
    shutil.copy(empty_sqlite, place.database)
    return place


@pytest.fixture
def there(tmp_path: Path, clock: StandingClock, here: Place) -> Place:
    """An empty folder with the same key."""
    place = Place(tmp_path / "there", clock)
    shutil.copy(here.folder / "hub.key", place.folder / "hub.key")
    place.key = here.key
    return place


@pytest.fixture
async def desk(here: Place) -> AsyncIterator[Desk]:
    """Deliveries in every way of being unfinished, and some finished ones."""
    desk = await here.open()
    await desk.configure("a", "b")
    await desk.owe("a", "b")
    await desk.settle(await desk.claim_one(capacity={"a": 1}), State.DELIVERED)
    await desk.owe("a", order_key=b"one")
    await desk.owe("a", order_key=b"one")
    await desk.accept((await desk.claim(capacity={"b": 1}))[0], "ref-1")
    await desk.lose_track((await desk.claim(capacity={"a": 1}))[0])
    await desk.owe("a", "b")
    await desk.claim(limit=1)
    await desk.store.commit(Unit(statements=[PADDING()]))
    yield desk
    await desk.store.close()


def copy_of(place: Place, step: Any = idle) -> tuple[bytes, copy.Facts]:
    with copy.copied(place.database, step) as (blocks, size, facts):
        data = b"".join(blocks)
        assert len(data) == size
    return data, facts


def put(data: bytes, place: Place, **more: Any) -> Path | None:
    given: dict[str, Any] = {"owners": OWNERS, "now": NOW, "replace": False, "step": idle, **more}
    return copy.put_in_place(blocks_of(data), place.database, **given)


def blocks_of(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    yield from (data[at : at + size] for at in range(0, len(data), size))


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that stands in a ledger, by table."""
    with closing(sqlite3.connect(path)) as db:
        tables = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in tables}


# -- out -------------------------------------------------------------------------------------------


async def test_a_copy_holds_every_row_and_leaves_nothing_beside_the_ledger(
    here: Place, desk: Desk, tmp_path: Path
) -> None:
    before = here.names()
    data, facts = copy_of(here)
    (tmp_path / "copy.db").write_bytes(data)
    assert here.names() == before
    assert rows(tmp_path / "copy.db") == rows(here.database)
    [(sequence,)] = await desk.store.read("SELECT sequence FROM ledger")
    assert (facts.sequence, facts.hold, facts.hub_key) == (sequence, None, here.key.fingerprint.hex())
    assert facts.schemas == {"hub": migrate._head_names(migrate.CORE)[-1]}


async def test_the_writer_goes_on_while_a_copy_is_taken_and_the_copy_is_one_moment(
    here: Place, there: Place, desk: Desk
) -> None:
    """The copying is stopped in its middle until more has been committed, claimed and settled."""
    reached, go_on = threading.Event(), threading.Event()

    def step(stage: str, done: int, total: int) -> None:
        reached.set()
        assert go_on.wait(30)

    copying = asyncio.create_task(asyncio.to_thread(copy_of, here, step))
    await asyncio.to_thread(reached.wait, 30)
    [(before,)] = await desk.store.read("SELECT sequence FROM ledger")
    for _ in range(20):
        await desk.owe("a", "b")
        for job in await desk.claim():
            await desk.settle(job, State.DELIVERED)
    [(after,)] = await desk.store.read("SELECT sequence FROM ledger")
    assert after > before + 20 and not copying.done()
    go_on.set()
    data, facts = await copying
    assert before <= facts.sequence < after, "it is the moment at which it began"
    put(data, there)
    other = await there.open()
    assert await other.store.read("SELECT count(*) FROM event") == [(4,)]
    await check_books(other.store)
    await other.store.close()


async def test_packing_a_copy_keeps_no_snapshot_of_the_ledger(here: Place, desk: Desk) -> None:
    """What is slow reads the copy: meanwhile the log of what was written can be taken in and used again."""
    with copy.copied(here.database, idle) as (blocks, _, _):
        next(blocks)
        await desk.owe("a")
        assert await desk.store.read("PRAGMA wal_checkpoint(TRUNCATE)") == [(0, 0, 0)]
        assert here.database.with_name("unionhub.db-wal").stat().st_size == 0
        assert [name for name in here.names() if "partial" in name] == [], "nothing stays should we be killed here"


async def test_what_was_deleted_still_stands_in_the_file_but_not_in_a_copy(here: Place, desk: Desk) -> None:
    gone = b"kept for its time and then pruned "
    with closing(sqlite3.connect(here.database, isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = OFF")  # some builds of SQLite overwrite what they free, others do not
        db.execute("INSERT INTO content (event_id, body) VALUES (x'00', ?)", (gone * 1000,))
        db.execute("DELETE FROM content WHERE event_id = x'00'")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert gone in here.database.read_bytes(), "else this shows nothing"
    assert gone not in copy_of(here)[0]


async def test_a_copy_can_be_stopped_on_the_way_and_leaves_nothing(here: Place, desk: Desk) -> None:
    before = here.names()

    def step(stage: str, done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        copy_of(here, step)
    assert here.names() == before
    await desk.owe("a")


async def test_a_ledger_left_by_a_kill_is_copied_with_what_only_its_log_holds(
    here: Place, there: Place, desk: Desk
) -> None:
    await desk.owe("a")
    for part in ("", "-wal"):
        shutil.copy(f"{here.database}{part}", f"{there.database}{part}")
    assert there.database.with_name("unionhub.db-wal").stat().st_size
    data, _ = copy_of(there)
    assert data == copy_of(here)[0]


# -- back ------------------------------------------------------------------------------------------


async def test_a_restored_ledger_holds_every_row_and_sends_nothing_until_released(
    here: Place, there: Place, desk: Desk
) -> None:
    data, _ = copy_of(here)
    assert put(data, there) is None
    assert there.names() == {"unionhub.db"}, "no marker: only a hub that runs there writes one"
    expected, found = rows(here.database), rows(there.database)
    assert found.pop("ledger")[0][-1] == "restored" and expected.pop("ledger")
    assert found == expected
    for _ in range(2):  # a restart releases nobody
        other = await there.open()
        other.destinations = ["a", "b"]
        assert await other.store.held() == "restored"
        other.clock.advance(3600)
        await other.crash()
        assert await other.claim() == []
        await other.store.close()
    other = await there.open()
    other.destinations = ["a", "b"]
    await other.owe("a")  # takes in all the same
    await other.store.hold(None)
    assert await other.claim()
    await check_books(other.store)
    await other.store.close()
    again = await there.open()
    assert await again.store.held() is None, "released is released"
    await again.store.close()


async def test_what_is_there_is_kept_whole_under_another_name(here: Place, there: Place, desk: Desk) -> None:
    data, _ = copy_of(here)
    old = await there.open()
    await old.configure("a")
    owed = await old.owe_one("a")
    await old.store.close()
    with pytest.raises(ConfigError, match="--replace"):
        put(data, there)
    kept = put(data, there, replace=True)
    assert kept is not None and kept.name == "unionhub.db.replaced-20261123T070000Z"
    assert kept.with_name(kept.name + ".marker").exists() and not there.beside(".marker").exists()
    assert [row[1] for row in rows(kept)["queue"]] == [owed]
    assert rows(there.database)["event"] == rows(here.database)["event"]


async def test_a_log_left_behind_is_never_read_into_the_restored_ledger(here: Place, there: Place, desk: Desk) -> None:
    """SQLite would take in whatever lies under the name of its log."""
    data, _ = copy_of(here)
    put(data, there)
    with closing(sqlite3.connect(there.database, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("INSERT INTO repair (kind, object, detail, opened_at) VALUES ('ghost', '', '', 0)")
        log = there.beside("-wal").read_bytes()
        index = there.beside("-shm").read_bytes()
    there.database.unlink()  # somebody cleared away the ledger, and only that
    there.beside("-wal").write_bytes(log)
    there.beside("-shm").write_bytes(index)
    with pytest.raises(ConfigError, match=r"unionhub\.db-wal"):
        put(data, there)
    kept = put(data, there, replace=True)
    assert kept is not None and kept.with_name(f"{kept.name}-wal").read_bytes() == log
    assert there.names() == {"unionhub.db", f"{kept.name}-wal", f"{kept.name}-shm"}
    assert rows(there.database)["repair"] == rows(here.database)["repair"]


@pytest.mark.parametrize("broken_off_at", ["first block", "second block", "last block", "the check"])
async def test_a_restore_that_is_broken_off_changes_nothing(
    here: Place, there: Place, desk: Desk, broken_off_at: str
) -> None:
    data, _ = copy_of(here)
    old = await there.open()
    await old.store.close()
    before = {name: (there.folder / name).read_bytes() for name in there.names()}

    def blocks() -> Iterator[bytes]:
        if broken_off_at != "first block":
            yield data[:100_000]
        if broken_off_at in ("last block", "the check"):
            yield data[100_000:]
        if broken_off_at != "the check":
            raise Stop

    def step(stage: str, done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        copy.put_in_place(blocks(), there.database, OWNERS, NOW, replace=True, step=step)
    assert {name: (there.folder / name).read_bytes() for name in there.names()} == before


BROKEN: dict[str, tuple[type[HubError], str]] = {
    "a page of rubbish": (InputError, "broken"),
    "no database": (InputError, "broken"),
    "another database": (InputError, "broken"),
    "cut short": (InputError, "broken"),
    "a newer schema": (ConfigError, "newer"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_file_that_is_not_whole_or_not_for_this_hub_is_not_put_in_place(
    here: Place, there: Place, desk: Desk, tmp_path: Path, case: str
) -> None:
    data, _ = copy_of(here)
    if case == "a page of rubbish":
        data = data[:40960] + os.urandom(4096) + data[45056:]
    elif case == "no database":
        data = os.urandom(20_000)
    elif case == "cut short":
        data = data[: len(data) // 2]
    else:
        path = tmp_path / "made.db"
        if case == "a newer schema":
            path.write_bytes(data)
        newer = case == "a newer schema"
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE hub_version SET version_num = '9999'" if newer else "CREATE TABLE other (x)")
        data = path.read_bytes()
    kind, word = BROKEN[case]
    with pytest.raises(kind, match=word):
        put(data, there)
    assert there.names() == set()


async def test_a_full_disk_is_told_and_nothing_is_put_in_place(here: Place, there: Place, desk: Desk) -> None:
    import resource

    data, _ = copy_of(here)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    names = here.names()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) // 2, before[1]))
    try:
        with pytest.raises(Busy, match="no space left"):
            put(data, there)
        with pytest.raises(Busy, match="no space left"):
            copy_of(here)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert there.names() == set() and here.names() == names


# -- checking --------------------------------------------------------------------------------------


def wrong(place: Place) -> dict[str, str]:
    """What the check finds wrong, by name."""
    owners = {owner.name: owner for owner in OWNERS}
    found = list(check.findings(place.database, place.folder / "hub.key", owners, idle))
    assert len({f.check for f in found}) == len(found)
    return {f.check: f.detail for f in found if not f.ok}


async def test_a_ledger_is_right_while_it_is_written_and_when_it_is_closed(here: Place, desk: Desk) -> None:
    assert wrong(here) == {}
    await desk.store.close()
    assert wrong(here) == {}


#: What is done to a ledger, and the checks that must find it.
SPOILED = {
    "UPDATE tally SET count = count + 1 WHERE destination = 'a'": {"books.counters"},
    "DELETE FROM tally": {"books.counters"},
    "INSERT INTO tally VALUES ('a', 'pruned:delivered', 2)": {"books.counters"},
    "DELETE FROM queue WHERE state IN ('pending', 'leased', 'unknown', 'dead')": {
        "books.counters", "books.waiting_without_head",
    },
    "UPDATE destination SET next_due_at = 1 << 62": {"books.due_unnoticed"},
    "INSERT INTO delivery SELECT id, event_id, destination, recipient, generation, batch_id, subscription, projection,"
    " purpose, state, reason, priority, weight, order_key, on_dead_hold, expires_at, tries, crashes, lease_no,"
    " body_sha256, created_at, scope_id, key_hash, 0 FROM queue LIMIT 1": {"books.counters", "books.owed_and_settled"},
    "UPDATE hub_version SET version_num = '9999'": {"schema.hub"},
    "UPDATE installation SET value = x'0102030405060708' WHERE key = 'key_fingerprint'": {"key"},
    "UPDATE installation SET value = randomblob(16) WHERE key = 'id'": {"hold"},
    "UPDATE ledger SET sequence = 2": {"hold"},
}  # fmt: skip


@pytest.mark.parametrize("statement", SPOILED)
async def test_a_check_finds_what_is_wrong_and_nothing_else(here: Place, desk: Desk, statement: str) -> None:
    await desk.store.close()
    with closing(sqlite3.connect(here.database, isolation_level=None)) as db:
        assert db.execute(statement).rowcount
    assert wrong(here).keys() == SPOILED[statement]


async def test_a_check_finds_a_missing_key_a_missing_marker_and_a_broken_file(here: Place, desk: Desk) -> None:
    await desk.store.close()
    (here.folder / "hub.key").unlink()
    here.beside(".marker").unlink()
    assert wrong(here) == {"key": "missing", "hold": "no_marker"}
    with here.database.open("r+b") as file:
        file.seek(40960)
        file.write(os.urandom(4096))
    assert "file" in wrong(here)
    here.database.write_bytes(os.urandom(8192))
    assert wrong(here) == {"file": "file is not a database"}


async def test_a_check_finds_what_only_a_look_at_every_page_finds(here: Place, desk: Desk) -> None:
    await desk.store.close()
    with closing(sqlite3.connect(here.database, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("DELETE FROM sqlite_master WHERE name = 'receipt_ref'")  # its pages stay, and belong to nobody
    assert wrong(here).keys() == {"file"}


async def test_a_check_changes_nothing(here: Place, desk: Desk) -> None:
    await desk.store.close()
    marker = here.beside(".marker")
    before = here.database.read_bytes(), marker.read_bytes()
    assert wrong(here) == {}
    assert (here.database.read_bytes(), marker.read_bytes()) == before
    assert Marker(here.database).hold_reason("another", 1) == "another_identity"


async def test_the_books_are_the_same_queries_on_either_engine(make_store: Factory, clock: StandingClock) -> None:
    store = make_store()
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a", "b")
    await desk.owe("a", "b")
    for _ in range(4):
        await desk.owe("a", order_key=b"one")
    await desk.commit(fact("again", desk.now, ["b"]))
    for job in await desk.claim(limit=2):
        await desk.settle(job, State.DELIVERED)
    pruned = r"INSERT INTO tally VALUES ('', 'pruned\:event', 3), ('c', 'delivered', 2), ('c', 'pruned\:delivered', 2)"
    await store.commit(Unit(statements=[query(text(pruned))()]))
    for name, sql in BOOKS.items():
        assert await store.read(sql) == [], name
    await store.commit(Unit(statements=[query(text("UPDATE tally SET count = count + 1"))()]))
    assert await store.read(BOOKS["counters"])
    await store.commit(Unit(statements=[query(text("UPDATE destination SET next_due_at = 4611686018427387904"))()]))
    assert await store.read(BOOKS["due_unnoticed"])
    await store.commit(Unit(statements=[query(text("DELETE FROM queue WHERE state <> 'waiting'"))()]))
    assert await store.read(BOOKS["waiting_without_head"])
    await store.close()
