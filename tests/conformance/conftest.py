"""One suite for every store: a factory makes it, the rest of the tests knows ``hub.store.base`` alone."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from hub.sql import query
from hub.store import migrate
from hub.store.base import Store, Unit
from hub.store.sqlite import SqliteStore
from hub.testing import StandingClock
from tests.ledger import BREAKER, UNRESOLVED_S, Desk, check_books

Factory = Callable[[], Awaitable[Store]]

#: Writes down every change of state where the engine itself sees it, whichever statement made it.
SQLITE_WITNESSES = (
    "CREATE TABLE moves (old TEXT, new TEXT, id BLOB)",
    "CREATE TRIGGER queue_moves AFTER UPDATE OF state ON queue WHEN old.state <> new.state"
    " BEGIN INSERT INTO moves VALUES (old.state, new.state, new.id); END",
    # The row is still in the queue when its history is written.
    "CREATE TRIGGER settle_moves AFTER INSERT ON delivery"
    " BEGIN INSERT INTO moves SELECT state, new.state, new.id FROM queue WHERE id = new.id AND state <> new.state; END",
    "CREATE TRIGGER history_moves AFTER UPDATE OF state ON delivery WHEN old.state <> new.state"
    " BEGIN INSERT INTO moves VALUES (old.state, new.state, new.id); END",
)


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy: migrating takes a hundred times longer."""
    path = tmp_path_factory.mktemp("ledger") / "empty.db"
    migrate.upgrade_sqlite(path, [migrate.CORE])
    return path


@pytest.fixture(params=["sqlite"])
def make_store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: StandingClock, empty_sqlite: Path
) -> Callable[[], Store]:
    """Makes a store on this test's database, each call another process' view of the same one."""
    assert request.param == "sqlite"
    path = tmp_path / "unionhub.db"
    shutil.copy(empty_sqlite, path)

    def make() -> Store:
        return SqliteStore(
            path,
            breaker=BREAKER,
            unresolved_after_s=UNRESOLVED_S,
            key_fingerprint=b"fingerprint",
            synchronous="OFF",
            clock=clock,
        )

    return make


@pytest.fixture
async def store(make_store: Callable[[], Store]) -> AsyncIterator[Store]:
    store = make_store()
    await store.open()
    await store.commit(Unit(statements=[query(text(witness))() for witness in SQLITE_WITNESSES]))
    yield store
    await check_books(store)
    await check_moves(store)
    await store.close()


async def check_moves(store: Store) -> None:
    from hub.model import LEGAL, State

    moves = {(State(old), State(new)) for old, new in await store.read("SELECT old, new FROM moves")}
    assert moves <= LEGAL, f"not in the table of transitions: {moves - LEGAL}"


@pytest.fixture
async def desk(store: Store, clock: StandingClock) -> Desk:
    """Connections a, b and c with one destination each."""
    desk = Desk(store, clock)
    await desk.configure("a", "b", "c")
    return desk
