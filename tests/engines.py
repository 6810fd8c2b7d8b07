"""The same test on either engine: mark it ``ON_BOTH`` and hand ``database_url`` to its hub's settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hub.app import HubApp

#: For tests of what each engine does in its own way; the others run on SQLite alone.
ON_BOTH = pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])


@pytest.fixture
def engine() -> str:
    """``ON_BOTH`` stands over this."""
    return "sqlite"


@pytest.fixture
def database_url(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger of its own for a hub in ``tmp_path``; "" is the file there."""
    if engine == "sqlite":
        return ""
    put_key(tmp_path)
    dsn: str = request.getfixturevalue("postgres_dsn")
    return dsn


def put_key(folder: Path) -> None:
    """For a database that has its tables already: the hub makes a key for an empty one only."""
    (folder / "var").mkdir()
    (folder / "var" / "hub.key").write_bytes(os.urandom(32))
    (folder / "var" / "hub.key").chmod(0o600)


async def tables(hub: HubApp) -> list[str]:
    """Names of all tables; the days of a divided one go by its own name."""
    listed = (
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace ORDER BY relname"
        if hub.config.is_postgres
        else "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    )
    return [name for (name,) in await hub.store.read(listed)]


async def stored_bytes(hub: HubApp) -> bytes:
    """Everything that is stored, as whoever has the disk reads it: the file and what lies beside it, or every row."""
    if not hub.config.is_postgres:
        folder = hub.config.database.parent
        return b"".join(path.read_bytes() for path in folder.glob(hub.config.database.name + "*"))
    rows = [row for name in await tables(hub) for row in await hub.store.read(f'SELECT * FROM "{name}"')]
    values = [value for row in rows for value in row]
    return b"\n".join(v if isinstance(v, bytes) else str(v).encode() for v in values)
