"""The hub's database as somebody from outside reads it: no code of the hub's store, whether the hub runs or not."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]

#: Everything a database may hold besides the server's own.
_RELATIONS = (
    "SELECT c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' ORDER BY c.relname"
)
#: As the server calls them: tables, with their partitions.
_TABLES = ("r",)


@dataclass(frozen=True, slots=True)
class Outside:
    """Committed rows of an SQLite file or, with a ``url``, of a PostgreSQL database."""

    file: Path
    url: str = ""

    def query(self, sql: str, *parameters: Any) -> list[Row]:
        if self.url:
            return asyncio.run(_fetch(self.url, sql, parameters))
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True, timeout=5)) as db:
            return db.execute(sql, parameters).fetchall()

    def is_empty(self) -> bool:
        """Whether a PostgreSQL database holds nothing of anybody's.

        Raises: ConfigError when it cannot be asked.
        """
        return not self.query(_RELATIONS)

    def tables(self) -> Iterator[tuple[str, list[Row]]]:
        """Every row of every table of a PostgreSQL database; of a file rather read the bytes."""
        for name, kind in self.query(_RELATIONS):
            if kind in _TABLES:
                yield name, self.query(f'SELECT * FROM "{name}"')  # noqa: S608 - a name the server told


class Window:
    """The same for who looks again and again: over one connection, until ``close``."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._runner = asyncio.Runner()
        self._connection: Any = None

    def query(self, sql: str, *parameters: Any) -> list[Row]:
        if not self._outside.url:
            return self._outside.query(sql, *parameters)
        return self._runner.run(self._ask(sql, parameters))

    async def _ask(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await _connect(self._outside.url)
        return await _rows(self._connection, sql, parameters)

    def close(self) -> None:
        if self._connection is not None:
            self._runner.run(self._connection.close())
        self._runner.close()


async def _fetch(url: str, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
    connection = await _connect(url)
    try:
        return await _rows(connection, sql, parameters)
    finally:
        await connection.close()


async def _connect(url: str) -> Any:
    # At first use, since the driver is an extra. Of the hub's it is only how to get in, and what to say if not.
    from hub.store.postgres.connect import connect

    return await connect(url)


async def _rows(connection: Any, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
    numbers = count(1)
    rows = await connection.fetch(re.sub(r"\?", lambda _: f"${next(numbers)}", sql), *parameters)
    # Sums of whole numbers come as decimal ones.
    return [tuple(int(value) if isinstance(value, Decimal) else value for value in row) for row in rows]
