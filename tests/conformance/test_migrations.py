"""Migrations on both engines: to the newest schema once, owner by owner, nothing half done, never backwards."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
import sqlalchemy as sa

from hub.errors import ConfigError, HubError
from hub.store import migrate, tables
from hub.store.migrate import CORE, Owner


class Database(Protocol):
    async def upgrade(self, owners: Sequence[Owner]) -> list[str]: ...

    async def run(self, sql: str) -> list[Any]: ...

    async def tables(self) -> set[str]: ...


@dataclass
class SqliteFile:
    path: Path

    async def upgrade(self, owners: Sequence[Owner]) -> list[str]:
        return await asyncio.to_thread(migrate.upgrade_sqlite, self.path, owners)

    async def run(self, sql: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            return db.execute(sql).fetchall()

    async def tables(self) -> set[str]:
        return {name for (name,) in await self.run("SELECT name FROM sqlite_master WHERE type = 'table'")}


@dataclass
class PostgresDatabase:
    dsn: str

    async def upgrade(self, owners: Sequence[Owner]) -> list[str]:
        from hub.store.postgres.upgrade import upgrade_postgres

        return await upgrade_postgres(self.dsn, owners)

    async def run(self, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def tables(self) -> set[str]:
        rows = await self.run(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        return {name for (name,) in rows}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty one."""
    if request.param == "sqlite":
        return SqliteFile(tmp_path / "unionhub.db")
    return PostgresDatabase(request.getfixturevalue("empty_postgres_dsn"))


@dataclass
class Scripts:
    """A plugin's folder of migrations, written as a test goes along."""

    folder: Path
    name: str = "shop"

    @property
    def owner(self) -> Owner:
        return Owner(self.name, self.folder)

    def write(self, number: int, *statements: str, then: str = "pass") -> None:
        down = repr(f"{number - 1:04}") if number > 1 else None
        lines = [f"    op.execute({statement!r})\n" for statement in statements]
        text = (
            f"from alembic import op\nrevision = '{number:04}'\ndown_revision = {down}\n"
            f"def upgrade():\n{''.join(lines)}    {then}\n"
        )
        # Another name each time: Python would run the compiled old text within the same second.
        for old in self.folder.glob(f"{number:04}_*"):
            old.unlink()
        (self.folder / f"{number:04}_{len(text)}.py").write_text(text)


@pytest.fixture
def shop(tmp_path: Path) -> Scripts:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Scripts(folder)


def schema(path: Path) -> dict[str, str]:
    """Names and texts of all objects, white space and quotes folded."""
    db = sqlite3.connect(path)
    rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    db.close()
    return {
        name: "".join(sql.split()).replace('"', "").replace("CREATEINDEXIFNOTEXISTS", "CREATEINDEX")
        for name, sql in rows
        if not name.endswith("_version") and not name.startswith("sqlite_")
    }


def test_the_migration_history_ends_in_the_declared_tables(tmp_path: Path) -> None:
    migrate.upgrade_sqlite(tmp_path / "migrated.db", [migrate.CORE])
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    tables.metadata.create_all(engine)
    engine.dispose()
    migrated, declared = schema(tmp_path / "migrated.db"), schema(tmp_path / "declared.db")
    assert migrated.keys() == declared.keys()
    for name, sql in declared.items():
        assert migrated[name] == sql, name


async def test_an_empty_database_comes_to_the_newest_schema_and_the_second_upgrade_finds_nothing_to_do(
    database: Database, shop: Scripts
) -> None:
    shop.write(1, "CREATE TABLE shop_order (id BIGINT PRIMARY KEY)")
    assert await database.upgrade([CORE, shop.owner]) == ["hub", "shop"]
    assert {"event", "queue", "node", "lease", "shop_order", "hub_version", "shop_version"} <= await database.tables()
    assert await database.run("SELECT id, sequence, hold FROM ledger") == [(1, 0, None)]
    assert await database.upgrade([CORE, shop.owner]) == []


async def test_only_the_owner_whose_tables_are_behind_is_upgraded_and_its_rows_stay(
    database: Database, shop: Scripts
) -> None:
    shop.write(1, "CREATE TABLE shop_order (id BIGINT PRIMARY KEY)", "INSERT INTO shop_order VALUES (7)")
    await database.upgrade([CORE, shop.owner])
    shop.write(2, "ALTER TABLE shop_order ADD COLUMN paid BIGINT")
    assert await database.upgrade([CORE, shop.owner]) == ["shop"]
    assert await database.run("SELECT id, paid FROM shop_order") == [(7, None)]
    assert await database.run("SELECT version_num FROM shop_version") == [("0002",)]


async def test_a_ledger_of_the_release_before_is_upgraded_with_its_rows(database: Database, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "0001_ledger.py").write_text((CORE.versions / "0001_ledger.py").read_text())
    await database.upgrade([Owner("hub", before)])
    assert "node" not in await database.tables()
    await database.run("INSERT INTO tally (destination, state, count) VALUES ('a', 'pending', 3)")
    assert await database.upgrade([CORE]) == ["hub"]
    assert "node" in await database.tables()
    assert await database.run("SELECT destination, state, count FROM tally") == [("a", "pending", 3)]


@pytest.mark.parametrize("newer", ["hub", "shop"])
async def test_older_code_refuses_a_newer_schema_and_changes_nothing(
    database: Database, shop: Scripts, newer: str
) -> None:
    shop.write(1, "CREATE TABLE shop_order (id BIGINT PRIMARY KEY)")
    await database.upgrade([CORE, shop.owner])
    await database.run(f"UPDATE {newer}_version SET version_num = '9999'")
    shop.write(2, "CREATE TABLE shop_item (id BIGINT PRIMARY KEY)")
    with pytest.raises(
        ConfigError, match=rf"'{newer}' have version 9999, newer than this hub knows .*install the newer"
    ):
        await database.upgrade([CORE, shop.owner])
    assert "shop_item" not in await database.tables()


async def test_an_upgrade_that_breaks_off_leaves_its_owner_as_it_was_and_can_be_run_again(
    database: Database, shop: Scripts
) -> None:
    shop.write(1, "CREATE TABLE shop_order (id BIGINT PRIMARY KEY)")
    shop.write(2, "CREATE TABLE shop_item (id BIGINT PRIMARY KEY)", then="raise RuntimeError('power cut')")
    with pytest.raises(RuntimeError, match="power cut"):
        await database.upgrade([CORE, shop.owner])
    there = await database.tables()
    assert "event" in there, "the owner before it is done"
    assert not {name for name in there if name.startswith("shop_")}
    shop.write(2, "CREATE TABLE shop_item (id BIGINT PRIMARY KEY)")
    assert await database.upgrade([CORE, shop.owner]) == ["shop"]
    assert {"shop_order", "shop_item"} <= await database.tables()


@pytest.mark.postgres
async def test_a_connection_lost_in_the_middle_of_an_upgrade_is_told_and_leaves_nothing_half_done(
    empty_postgres_dsn: str, shop: Scripts
) -> None:
    database = PostgresDatabase(empty_postgres_dsn)
    shop.write(1, "CREATE TABLE shop_order (id BIGINT PRIMARY KEY)", "SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(HubError, match="cannot be reached"):
        await database.upgrade([CORE, shop.owner])
    assert "shop_order" not in await database.tables()
    shop.write(1, "CREATE TABLE shop_order (id BIGINT PRIMARY KEY)")
    assert await database.upgrade([CORE, shop.owner]) == ["shop"]


@pytest.mark.postgres
async def test_nodes_that_start_together_upgrade_once(empty_postgres_dsn: str, shop: Scripts) -> None:
    database = PostgresDatabase(empty_postgres_dsn)
    shop.write(1, "CREATE TABLE shop_order (id BIGINT PRIMARY KEY)", "INSERT INTO shop_order VALUES (1)")
    answers = await asyncio.gather(*(database.upgrade([CORE, shop.owner]) for _ in range(4)))
    assert sorted(answers) == [[], [], [], ["hub", "shop"]]
    assert await database.run("SELECT id FROM shop_order") == [(1,)]
    assert len(await database.run("SELECT 1 FROM ledger")) == 1


@pytest.mark.postgres
async def test_a_table_in_use_makes_the_upgrade_give_up_and_wait_for_the_next_start(
    empty_postgres_dsn: str, shop: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub.store.postgres import upgrade

    monkeypatch.setitem(upgrade.SETTINGS, "lock_timeout", "50ms")
    database = PostgresDatabase(empty_postgres_dsn)
    shop.write(1, "CREATE TABLE shop_order (id BIGINT PRIMARY KEY)")
    await database.upgrade([CORE, shop.owner])
    shop.write(2, "ALTER TABLE shop_order ADD COLUMN paid BIGINT")
    reader = await asyncpg.connect(empty_postgres_dsn)
    async with reader.transaction():
        await reader.fetch("SELECT * FROM shop_order")
        with pytest.raises(HubError, match="the tables are in use, nothing was changed") as told:
            await database.upgrade([CORE, shop.owner])
        assert told.value.may_retry
    await reader.close()
    assert await database.upgrade([CORE, shop.owner]) == ["shop"]


@pytest.mark.postgres
def test_a_start_with_nothing_to_upgrade_does_not_load_the_migration_tools(postgres_dsn: str) -> None:
    code = (
        "import asyncio, sys\nfrom hub.store.migrate import CORE\n"
        "from hub.store.postgres.upgrade import upgrade_postgres\n"
        f"assert asyncio.run(upgrade_postgres({postgres_dsn!r}, [CORE])) == []\n"
        "assert not {'alembic', 'sqlalchemy.ext.asyncio'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_missing_driver_is_said_with_the_extra_that_brings_it() -> None:
    code = "import sys\nsys.modules['asyncpg'] = None\nimport hub.store.postgres"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert re.search(
        r"ConfigError: .* / the driver for PostgreSQL is not installed: .*unionhub\[postgres\]", done.stderr
    )
