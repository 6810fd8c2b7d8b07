"""Brings a PostgreSQL database to the schema of this hub and its plugins, once, however many nodes start together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from hub.errors import Busy, ConfigError
from hub.store.migrate import Owner, is_behind, run_scripts
from hub.store.place import place
from hub.store.postgres import partitions
from hub.store.postgres.connect import connect, explained, missing_right

#: Advisory locks are a database's own; this one says "unionhub".
UPGRADE_LOCK = int.from_bytes(b"unionhub")
#: Another node may be rebuilding an index of a large table.
WAIT_S = 1800.0
#: A waiting ALTER TABLE holds up everybody behind it, so it gives up soon; the next start tries again.
SETTINGS = {
    "application_name": "unionhub-upgrade",
    "lock_timeout": "10s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}


async def upgrade_postgres(url: str, owners: Sequence[Owner]) -> list[str]:
    """Upgrades what is behind, each owner in one transaction; answers whom this process upgraded.

    Raises: ConfigError when a schema is newer than this code, or somebody has to change server, database or rights;
        Busy when trying again may help.
    """
    connection = await connect(url, settings=SETTINGS)
    where = place(url)
    try:
        # Most starts end here, without alembic and SQLAlchemy's engine.
        if not await pending(connection, owners):
            return []
        if not await connection.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
            raise ConfigError(missing_right(where))
        return await _upgrade(connection, owners)
    except Exception as error:
        if (known := explained(error, where)) is None:
            raise
        raise known from error
    finally:
        await connection.close()


async def pending(connection: asyncpg.Connection[Any], owners: Sequence[Owner]) -> list[Owner]:
    """Owners whose tables are behind.

    Raises: ConfigError when a schema is newer than this code.
    """
    behind = []
    for owner in owners:
        table = f"{owner.name}_version"
        exists = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table)
        current = await connection.fetchval(f"SELECT version_num FROM {table}") if exists else None
        if is_behind(owner, current):
            behind.append(owner)
    return behind


async def _upgrade(connection: asyncpg.Connection[Any], owners: Sequence[Owner]) -> list[str]:
    await connection.execute("SET lock_timeout = 0")
    try:
        await connection.fetchval("SELECT pg_advisory_lock($1)", UPGRADE_LOCK, timeout=WAIT_S)
    except TimeoutError as error:
        raise Busy("một nút khác đang nâng cấp cơ sở dữ liệu / another node is still upgrading the database") from error
    await connection.execute(f"SET lock_timeout = '{SETTINGS['lock_timeout']}'")
    behind = await pending(connection, owners)  # another node may have done it while we waited
    if behind:
        await _run(connection, behind)
    return [owner.name for owner in behind]


async def _run(connection: asyncpg.Connection[Any], owners: Sequence[Owner]) -> None:
    from sqlalchemy import NullPool
    from sqlalchemy.ext.asyncio import create_async_engine

    async def given() -> asyncpg.Connection[Any]:
        return connection

    engine = create_async_engine("postgresql+asyncpg://", async_creator=given, poolclass=NullPool)
    async with engine.connect() as alembics:
        for owner in owners:
            async with alembics.begin():
                await alembics.run_sync(run_scripts, owner)
        now_us = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        await partitions.ensure(connection, now_us)
