"""A ledger on SQLite moves into PostgreSQL whole, once, and can never run in both places."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.errors import AlreadyRunning, ConfigError, MoveFailed
from hub.model import State
from hub.store import migrate, move
from hub.store.base import Store
from hub.store.postgres import PostgresStore
from hub.store.postgres.export import export
from hub.store.sqlite import SqliteStore
from hub.testing import StandingClock
from tests.conformance.conftest import check_books
from tests.ledger import Desk
from tests.postgres import Server

pytestmark = pytest.mark.postgres
FINGERPRINT = b"fingerprint"
CORE = [migrate.CORE]


@pytest.fixture
async def source(tmp_path: Path, clock: StandingClock) -> Path:
    """A file with something in every state and in every table that a store fills by itself."""
    path = tmp_path / "unionhub.db"
    store = SqliteStore(path, key_fingerprint=FINGERPRINT, synchronous="OFF", clock=clock)
    await store.open()
    desk = Desk(store, clock)
    await desk.configure("a", "b", rates={"b": 1000})
    for _ in range(30):
        await desk.owe("a", "b", order_key=b"one")
        await desk.owe("a")
    states = [State.DELIVERED, State.DEAD, State.CANCELLED, State.PENDING]
    for i, job in enumerate(await desk.claim()):
        await desk.settle(job, states[i % 4], "because")
    await desk.accept((await desk.claim(limit=1))[0], "ref-1", "ref-2")
    await desk.lose_track((await desk.claim(limit=1))[0])
    await desk.receipt("ref-1", "delivered")
    await desk.receipt("nobody's", "failed", "x")
    await store.open_repair("poison", "00", "détail ệ", desk.now)
    await store.pause("destination", "b", "person", "why", desk.now)
    await store.due_run("pull", "a", 1, desk.now)
    await store.keep_projections({b"p": b"[]"})
    await check_books(store)
    await store.close()
    return path


class Stopped(Exception):
    """Somebody ends the command."""


async def moved(source: Path, dsn: str, **more: Any) -> dict[str, move.Content]:
    given: dict[str, Any] = {"owners": CORE, "fingerprint": FINGERPRINT, "progress": lambda *_: None, **more}
    return await move.move(source, source.with_suffix(".db.lock"), dsn, **given)


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Store]:
    store = PostgresStore(dsn, key_fingerprint=FINGERPRINT)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def rows(path: Path, sql: str) -> list[Any]:
    with sqlite3.connect(path) as db:
        return db.execute(sql).fetchall()


async def test_everything_arrives_and_the_target_sends_nothing_until_released(
    source: Path, postgres_dsn: str, clock: StandingClock
) -> None:
    answer = await moved(source, postgres_dsn)
    assert answer["event"].rows == 60 and answer["queue"].rows > 10 and answer["delivery"].rows > 10
    async with opened(postgres_dsn) as store:
        await check_books(store)
        assert await store.held() == "moved"
        desk = Desk(store, clock, keys=1000, destinations=["a", "b"])
        assert await desk.claim() == []
        await store.hold(None)
        assert {job.destination for job in await desk.claim()} == {"a"}, "a pause moves too"
        # Sequences go on behind what came.
        await desk.owe("a", event_id=b"\xff" * 16)
        await store.place_events(10)
        ((top,),) = await store.read("SELECT max(position) FROM event")
        assert top == 61
        await check_books(store)


async def test_the_source_is_marked_and_refuses_to_run(source: Path, postgres_dsn: str) -> None:
    await moved(source, postgres_dsn)
    with pytest.raises(ConfigError, match="was moved to"):
        await SqliteStore(source, key_fingerprint=FINGERPRINT).open()
    assert await moved(source, postgres_dsn) == {}, "said again, it is done already"


async def test_a_move_that_breaks_off_goes_on_where_it_stopped(
    source: Path, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "PAGE", 7)
    seen: list[tuple[str, int]] = []

    def stop_at(pages: int) -> Any:
        def progress(stage: str, table: str, done: int, total: int) -> None:
            seen.append((f"{stage} {table}", done))
            if len(seen) == pages:
                raise Stopped

        return progress

    stops = 0
    for pages in (1, 3, 9, 20, 30):
        seen.clear()
        with pytest.raises(Stopped):
            await moved(source, postgres_dsn, progress=stop_at(pages))
        stops += 1
        with pytest.raises(ConfigError, match="half moved"):
            async with opened(postgres_dsn):
                pass
    assert stops == 5
    seen.clear()
    await moved(source, postgres_dsn, progress=stop_at(10**6))
    assert all(done > 7 for what, done in seen if what == "copy attempt"), "the first page is not copied twice"
    async with opened(postgres_dsn) as store:
        await check_books(store)
    assert rows(source, "SELECT count(*) FROM installation WHERE key = 'moved_to'") == [(1,)]


async def test_a_server_that_goes_away_is_no_end(
    source: Path, postgres_server: Server, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(move, "PAGE", 7)
    cut = False

    def progress(stage: str, table: str, done: int, total: int) -> None:
        nonlocal cut
        if table == "event" and not cut:
            cut = True
            postgres_server.execute(KILL, database=postgres_dsn.rpartition("/")[2])

    with pytest.raises(MoveFailed, match="goes on"):
        await moved(source, postgres_dsn, progress=progress)
    await moved(source, postgres_dsn)
    async with opened(postgres_dsn) as store:
        await check_books(store)


KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'unionhub-move'"
    " AND datname = current_database()"
)


async def test_rows_that_differ_are_found_and_the_source_stays_usable(
    source: Path, postgres_server: Server, postgres_dsn: str, clock: StandingClock
) -> None:
    def spoil(stage: str, table: str, done: int, total: int) -> None:
        if table == "tally":  # attempts are copied by then
            postgres_server.execute(
                "UPDATE attempt SET reason = 'x' WHERE delivery_id IN (SELECT delivery_id FROM attempt LIMIT 1)",
                database=postgres_dsn.rpartition("/")[2],
            )

    with pytest.raises(MoveFailed, match="attempt differs from the original"):
        await moved(source, postgres_dsn, progress=spoil)
    store = SqliteStore(source, key_fingerprint=FINGERPRINT, clock=clock)
    await store.open()
    await check_books(store)
    await store.close()


async def test_what_cannot_be_moved_is_refused_with_nothing_done(
    source: Path, postgres_dsn: str, tmp_path: Path, clock: StandingClock
) -> None:
    with pytest.raises(ConfigError, match="not the key"):
        await moved(source, postgres_dsn, fingerprint=b"another")
    with pytest.raises(ConfigError, match="no ledger"):
        await moved(tmp_path / "nothing.db", postgres_dsn)
    with pytest.raises(ConfigError, match="/"):
        await moved(source, postgres_dsn.replace("/t_", "/nowhere_"))
    running = SqliteStore(source, key_fingerprint=FINGERPRINT, clock=clock)
    await running.open()
    with pytest.raises(AlreadyRunning):
        await move.move(
            source, source.with_name(source.name + ".lock"), postgres_dsn, CORE, FINGERPRINT, lambda *_: None
        )
    await running.close()
    async with opened(postgres_dsn) as store:
        await Desk(store, clock).configure("x")
        await Desk(store, clock).owe("x")
    with pytest.raises(ConfigError, match="another hub"):
        await moved(source, postgres_dsn)
    assert rows(source, "SELECT count(*) FROM installation WHERE key = 'moved_to'") == [(0,)]


async def test_an_old_copy_of_a_moved_ledger_is_known(source: Path, postgres_dsn: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with sqlite3.connect(source) as db:
        db.execute("VACUUM INTO ?", (str(copy),))
    await moved(source, postgres_dsn)
    with pytest.raises(ConfigError, match="old copy"):
        await moved(copy, postgres_dsn)


async def test_a_ledger_on_postgresql_becomes_a_file_and_the_file_a_ledger_again(
    source: Path, postgres_dsn: str, tmp_path: Path, clock: StandingClock
) -> None:
    """The way of a backup: nothing is lost on the way out, events that were not placed yet included."""
    await moved(source, postgres_dsn)
    async with opened(postgres_dsn) as store:
        await store.hold(None)
        desk = Desk(store, clock, keys=1000, destinations=["a", "b"])
        await desk.owe("a")
        await desk.owe("a")
        copy = tmp_path / "copy.db"
        steps: list[int] = []
        await export(postgres_dsn, copy, CORE, steps.append)
        unplaced = await store.read("SELECT count(*) FROM event WHERE position IS NULL")
        assert unplaced == [(2,)], "nothing is changed by being copied"
    assert rows(copy, "SELECT count(*), max(position) FROM event") == [(62, 62)]
    assert rows(copy, "SELECT key FROM installation ORDER BY key") == [("id",), ("key_fingerprint",)]
    assert steps and steps[-1] > 200
    back = SqliteStore(copy, key_fingerprint=FINGERPRINT, synchronous="OFF", clock=clock)
    await back.open()
    await check_books(back)
    await back.close()
