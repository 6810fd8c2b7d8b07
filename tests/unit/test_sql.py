"""A query is text with bound names for both engines, or refused at import."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    literal,
    select,
    text,
)
from sqlalchemy.sql import ClauseElement

from hub.sql import query

metadata = MetaData()
thing = Table(
    "thing",
    metadata,
    Column("id", LargeBinary, primary_key=True),
    Column("n", BigInteger),
    Column("name", Text),
    Column("at", DateTime(timezone=True)),
)


def test_parameters_are_bound_by_name_in_the_order_of_each_engine() -> None:
    find = query(select(thing.c.n).where(thing.c.name == bindparam("name"), thing.c.n > bindparam("low")))
    assert find.sqlite.count("?") == 2 and find.sqlite_names == ("name", "low")
    assert "$1" in find.postgres and find.postgres_names == ("name", "low")
    assert find(low=1, name="x").sqlite_parameters() == ("x", 1)


def test_a_name_used_twice_is_given_once() -> None:
    find = query(text("SELECT :a, :b, :a"))
    db = sqlite3.connect(":memory:")
    statement = find(a=1, b=2)
    assert db.execute(find.sqlite, statement.sqlite_parameters()).fetchall() == [(1, 2, 1)]
    db.close()


def test_a_forgotten_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        query(text("SELECT :a"))().sqlite_parameters()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (select(thing.c.n).where(thing.c.n.in_([1, 2])), "expands"),
        (select(thing.c.n).where(thing.c.n.in_(bindparam("ns", expanding=True))), "expands"),
        (select(thing.c.n).where(thing.c.n == bindparam("n", literal_execute=True)), "expands"),
        (thing.insert().values(id=bindparam("id", type_=Text), at=bindparam("at")), "processor"),
        (select(thing.c.n).where(thing.c.at > bindparam("at", type_=DateTime(timezone=True))), "processor"),
        (select(thing.c.n).where(thing.c.n == 5), "literal"),
        (select(thing.c.n).limit(10), "literal"),
        (select(literal("x")), "literal"),
        (thing.update().values(at=datetime(2026, 1, 1, tzinfo=UTC)), "processor"),
    ],
)
def test_what_a_raw_driver_would_run_wrongly_is_refused(statement: ClauseElement, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        query(statement)
