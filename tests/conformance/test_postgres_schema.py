"""What stands in a migrated PostgreSQL database is what the code declares, and every named query fits it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import hub
import plugins
from hub.plugins import load_plugins
from hub.sql import Query
from hub.store import tables
from hub.store.migrate import CORE, Owner
from hub.store.postgres.upgrade import upgrade_postgres
from tests.postgres import Server

pytestmark = pytest.mark.postgres

SCHEMAS = load_plugins().schemas
DECLARED = {"hub": tables.on_postgres(), **{owner: schema.metadata for owner, schema in SCHEMAS.items()}}
OWNERS = [CORE, *(Owner(schema.owner, schema.versions) for schema in SCHEMAS.values())]

#: Everything a table is made of, as the server itself spells it; the partitions themselves left out.
_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
       pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace"""
_TABLES = """
SELECT c.relname, '', pg_get_partkeydef(c.oid), array_to_string(c.reloptions, ',') FROM pg_class c
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace"""
_INDEXES = """
SELECT t.relname, i.relname, replace(pg_get_indexdef(i.oid), 'ON ONLY ', 'ON '), x.indisprimary
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
WHERE NOT i.relispartition AND t.relnamespace = 'public'::regnamespace"""
_CONSTRAINTS = """
SELECT t.relname, n.conname, pg_get_constraintdef(n.oid) FROM pg_constraint n JOIN pg_class t ON t.oid = n.conrelid
WHERE NOT t.relispartition AND n.connamespace = 'public'::regnamespace"""


async def described(dsn: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    connection = await asyncpg.connect(dsn)
    rows = [row for sql in (_TABLES, _COLUMNS, _INDEXES, _CONSTRAINTS) for row in await connection.fetch(sql)]
    await connection.close()
    return {(row[0], row[1]): tuple(row[2:]) for row in rows if not row[0].endswith("_version")}


@pytest.fixture
def second_dsn(postgres_server: Server) -> Iterator[str]:
    name = postgres_server.create_database()
    yield postgres_server.dsn(name)
    postgres_server.drop_database(name)


async def test_the_migrations_end_in_the_declared_tables(empty_postgres_dsn: str, second_dsn: str) -> None:
    assert await upgrade_postgres(empty_postgres_dsn, OWNERS) == [owner.name for owner in OWNERS]
    engine = create_async_engine(second_dsn.replace("postgresql://", "postgresql+asyncpg://"), poolclass=sa.NullPool)
    async with engine.begin() as connection:
        for metadata in DECLARED.values():
            await connection.run_sync(metadata.create_all)
    migrated, declared = await described(empty_postgres_dsn), await described(second_dsn)
    assert migrated.keys() == declared.keys()
    for name, what in declared.items():
        assert migrated[name] == what, name
    assert len(migrated) > 300


async def test_every_column_of_the_core_is_a_64_bit_integer_text_or_bytes(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    rows = await connection.fetch(_COLUMNS)
    await connection.close()
    found = {row[2] for row in rows if row[0] != "hub_version"}
    assert found == {"bigint", "text", "bytea"}


async def test_history_is_divided_by_the_day_in_its_key(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    found = await connection.fetch(
        "SELECT relname, pg_get_partkeydef(oid) FROM pg_class WHERE relkind = 'p' ORDER BY relname"
    )
    defaults = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"
        " AND pg_get_expr(relpartbound, oid) = 'DEFAULT' ORDER BY relname"
    )
    await connection.close()
    assert [tuple(row) for row in found] == [
        ("attempt", "RANGE (delivery_id)"),
        ("content", "RANGE (event_id)"),
        ("delivery", "RANGE (id)"),
        ("event", "RANGE (id)"),
    ]
    assert [row[0] for row in defaults] == ["attempt_default", "content_default", "delivery_default", "event_default"]


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if info.name.startswith(("hub.store.migrations", "hub.demo", "hub.cli")) or "simulator" in info.name:
            continue
        yield importlib.import_module(info.name)


def named_queries() -> dict[str, Query]:
    found: dict[str, Query] = {}
    for package in (hub, plugins):
        for module in modules(package):
            for name, value in vars(module).items():
                for at, one in enumerate(_queries(value)):
                    found[f"{module.__name__}.{name}[{at}]"] = one
    return found


def _queries(value: Any) -> Iterator[Query]:
    if isinstance(value, Query):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _queries(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _queries(one)


async def test_postgresql_understands_every_named_query_and_answers_it_with_plain_values(
    empty_postgres_dsn: str,
) -> None:
    await upgrade_postgres(empty_postgres_dsn, OWNERS)
    connection = await asyncpg.connect(empty_postgres_dsn)
    wrong = []
    queries = named_queries()
    for name, one in queries.items():
        try:
            prepared = await connection.prepare(one.postgres)
        except asyncpg.PostgresError as error:
            wrong.append(f"{name}: {error}")
            continue
        answers = {attribute.type.name for attribute in prepared.get_attributes()}
        wrong += [f"{name}: answers {kind}" for kind in answers - {"int4", "int8", "text", "varchar", "bytea"}]
    await connection.close()
    assert not wrong, "\n".join(wrong)
    assert len(queries) > 30
