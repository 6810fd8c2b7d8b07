"""One suite for every store: a factory makes it, the rest of the tests knows ``hub.store.base`` alone."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from hub.sql import query
from hub.store import migrate
from hub.store.base import Store, Unit
from hub.store.sqlite import SqliteStore
from hub.testing import StandingClock
from tests.conftest import migrated
from tests.ledger import BREAKER, UNRESOLVED_S, Desk, check_books
from tests.postgres import Server

#: Makes a store that is not open yet; keywords stand over the fixture's.
Factory = Callable[..., Store]

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
POSTGRES_WITNESSES = (
    "CREATE TABLE moves (old TEXT, new TEXT, id BYTEA)",
    "CREATE FUNCTION queue_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF old.state <> new.state THEN"
    " INSERT INTO moves VALUES (old.state, new.state, new.id); END IF; RETURN NULL; END $$",
    "CREATE TRIGGER queue_moves AFTER UPDATE ON queue FOR EACH ROW EXECUTE FUNCTION queue_move()",
    "CREATE FUNCTION settle_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO moves SELECT state,"
    " new.state, new.id FROM queue WHERE id = new.id AND state <> new.state; RETURN NULL; END $$",
    "CREATE TRIGGER settle_moves AFTER INSERT ON delivery FOR EACH ROW EXECUTE FUNCTION settle_move()",
    "CREATE TRIGGER history_moves AFTER UPDATE ON delivery FOR EACH ROW EXECUTE FUNCTION queue_move()",
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


_TABLES = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid()"
)
_EMPTIED = (
    "api_key", "attempt", "batch", "batch_subject", "connection", "content", "dedupe", "delivery", "destination",
    "erasure", "event", "idempotency", "installation", "lease", "moves", "node", "projection", "provider_ref", "queue",
    "raw_request", "receipt", "repair", "run", "subject_key", "tally",
)  # fmt: skip
_AS_NEW = (
    "UPDATE ledger SET sequence = 0, hold = NULL",
    "SELECT setval(pg_get_serial_sequence('queue', 'seq'), 1, false),"
    " setval(pg_get_serial_sequence('repair', 'id'), 1, false)",
)


@dataclass(frozen=True)
class UsedDatabase:
    """One database for all tests of a process: copying one and dropping it costs half a second a test."""

    server: Server
    name: str
    tables: frozenset[str]

    def emptied(self) -> str:
        """Its address; whoever was connected is gone, and so is every row and every table that a test made."""
        self.server.execute(_OTHERS, database=self.name)
        self.clear()
        return self.server.dsn(self.name)

    def clear(self) -> None:
        """Truncating its many files would cost ten times as much as deleting a few rows."""
        there = self.server.execute(_TABLES, database=self.name)
        made = [f"DROP TABLE {row[0]} CASCADE" for row in there if row[0] not in self.tables]
        self.server.execute(*made, *(f"DELETE FROM {table}" for table in _EMPTIED), *_AS_NEW, database=self.name)


@pytest.fixture(scope="session")
def used_database(postgres_server: Server) -> Iterator[UsedDatabase]:
    """With the witnesses."""
    name = postgres_server.create_database(postgres_server.template("migrated", migrated))
    postgres_server.execute(*POSTGRES_WITNESSES, database=name, user="hub")
    # Two units that lock each other out wait that long; a second by default.
    postgres_server.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    tables = frozenset(row[0] for row in postgres_server.execute(_TABLES, database=name))
    yield UsedDatabase(postgres_server, name, tables)
    postgres_server.drop_database(name)


@pytest.fixture
def ledger_dsn(used_database: UsedDatabase) -> str:
    """An empty ledger with the witnesses."""
    return used_database.emptied()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def make_store(request: pytest.FixtureRequest, tmp_path: Path, clock: StandingClock, empty_sqlite: Path) -> Factory:
    """Makes a store on this test's database, each call another process' view of the same one."""
    made: dict[str, Any] = {"breaker": BREAKER, "unresolved_after_s": UNRESOLVED_S, "key_fingerprint": b"fingerprint"}
    if request.param == "postgres":
        from hub.store.postgres import PostgresStore

        dsn: str = request.getfixturevalue("ledger_dsn")
        return lambda **more: PostgresStore(dsn, **{**made, "lock_file": tmp_path / "unionhub.lock", **more})
    path = tmp_path / "unionhub.db"
    shutil.copy(empty_sqlite, path)
    return lambda **more: SqliteStore(path, **{**made, "synchronous": "OFF", "clock": clock, **more})


@pytest.fixture
async def store(make_store: Factory) -> AsyncIterator[Store]:
    store = make_store()
    await store.open()
    if not store.shared:
        await store.commit(Unit(statements=[query(text(witness))() for witness in SQLITE_WITNESSES]))
    yield store
    while await store.place_events(1000):
        pass
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
