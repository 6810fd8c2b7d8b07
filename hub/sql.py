"""SQL as values: a query is compiled once at import for both engines and bound by name at each use.

``query(select(...))`` takes a SQLAlchemy Core statement whose parameters are plain ``bindparam`` of
int, str or bytes. Anything that needs work at execution time (expanding ``in_()``, type processors) is
refused here, because raw drivers would run it wrongly or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement

Value = int | str | bytes | None

_SQLITE = sqlite.dialect(paramstyle="qmark")
_POSTGRES = postgresql.asyncpg.dialect()


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One statement as text for each engine, with the names of its parameters in order."""

    sqlite: str
    sqlite_names: tuple[str, ...]
    postgres: str
    postgres_names: tuple[str, ...]

    def __call__(self, **values: Any) -> Statement:
        """This query with its values, ready for a unit of work or a fetch."""
        return Statement(self, values)


@dataclass(frozen=True, slots=True)
class Statement:
    query: Query
    values: Mapping[str, Any]

    def sqlite_parameters(self) -> tuple[Any, ...]:
        values = self.values
        return tuple([values[name] for name in self.query.sqlite_names])

    def postgres_parameters(self) -> tuple[Any, ...]:
        values = self.values
        return tuple([values[name] for name in self.query.postgres_names])


def query(statement: ClauseElement) -> Query:
    """Compiles ``statement`` for SQLite and PostgreSQL; raises ``TypeError`` on anything not ready to run."""
    texts: list[tuple[str, tuple[str, ...]]] = []
    for dialect in (_SQLITE, _POSTGRES):
        compiled: Any = statement.compile(dialect=dialect)
        if "POSTCOMPILE" in compiled.string:
            raise TypeError(f"expands when run, and a raw driver cannot: {compiled.string}")
        if compiled._bind_processors:
            raise TypeError(f"needs a type processor, and a raw driver has none: {sorted(compiled._bind_processors)}")
        literals = {k: v for k, v in compiled.params.items() if v is not None}
        if literals:
            raise TypeError(f"carries literal values {sorted(literals)}: name them with bindparam()")
        texts.append((compiled.string, tuple(compiled.positiontup or ())))
    (lite, lite_names), (pg, pg_names) = texts
    return Query(lite, lite_names, pg, pg_names)
