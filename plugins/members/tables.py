"""The plugin's tables: hashes to find a person by, a sealed profile to know them by, and the queries over both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam as given
from sqlalchemy.dialects import postgresql

from hub.contract import Schema
from hub.sql import Query, query

#: Look-ups by a list go in chunks of this many, padded: raw drivers cannot expand a list.
CHUNK = 50

metadata = sa.MetaData()

unit = sa.Table(
    "members_unit",
    metadata,
    sa.Column("code", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

member = sa.Table(
    "members_member",
    metadata,
    # The opaque id of events and deliveries; nothing about the person can be read from it.
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("citizen_hash", sa.LargeBinary),
    sa.Column("phone_hash", sa.LargeBinary),
    sa.Column("person_hash", sa.LargeBinary, nullable=False),
    sa.Column("unit_code", sa.Text, nullable=False),
    sa.Column("has_app", sa.BigInteger, nullable=False),
    sa.Column("has_phone", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("profile", sa.LargeBinary, nullable=False),
    # Of the row last taken: an unchanged row writes nothing and needs no decryption.
    sa.Column("row_hash", sa.LargeBinary, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
    sa.Index("members_member_citizen", "citizen_hash", unique=True),
    sa.Index("members_member_phone", "phone_hash"),
    sa.Index("members_member_person", "person_hash"),
    sa.Index("members_member_unit", "unit_code", "status", "subject"),
)
# Without a citizen number, name and birth date are what one person is told from another by.
sa.Index(
    "members_member_nameless",
    member.c.person_hash,
    unique=True,
    sqlite_where=member.c.citizen_hash.is_(None),
    postgresql_where=member.c.citizen_hash.is_(None),
)

SCHEMA = Schema(owner="members", metadata=metadata, versions=Path(__file__).parent / "migrations" / "versions")

_MATCHED = (
    member.c.subject, member.c.citizen_hash, member.c.person_hash, member.c.unit_code, member.c.has_app,
    member.c.status, member.c.version, member.c.profile, member.c.row_hash,
)  # fmt: skip


def _any_of(column: sa.Column[bytes] | sa.Column[str]) -> sa.ColumnElement[bool]:
    return column.in_([given(f"any_{i}") for i in range(CHUNK)])


def _page(statement: sa.Select[tuple[object, ...]]) -> Query:
    # SQLite's LIMIT comes with an OFFSET whose literal 0 would need a type processor.
    return query(statement.order_by(member.c.subject).limit(given("page_size")).offset(given("skip")))


UNITS = query(sa.select(unit.c.code, unit.c.name).order_by(unit.c.code))
ADD_UNIT = query(
    postgresql.insert(unit)
    .values(code=given("code"), name=given("name"), created_at=given("created_at"))
    .on_conflict_do_nothing()
)

BY_CITIZEN = query(sa.select(*_MATCHED).where(_any_of(member.c.citizen_hash)))
BY_PERSON = query(sa.select(*_MATCHED).where(_any_of(member.c.person_hash)))

_WRITTEN = (
    "citizen_hash", "phone_hash", "person_hash", "unit_code", "has_app", "has_phone", "status", "version", "profile",
    "row_hash", "changed_at",
)  # fmt: skip
#: As a guard: 0 rows when somebody else added the same person first.
ADD_MEMBER = query(
    postgresql.insert(member).values({c: given(c) for c in ("subject", *_WRITTEN)}).on_conflict_do_nothing()
)
#: As a guard: 0 rows when the member has moved on from ``at_version``.
CHANGE_MEMBER = query(
    sa.update(member)
    .where(member.c.subject == given("of_subject"), member.c.version == given("at_version"))
    .values({c: given(f"new_{c}") for c in _WRITTEN})
)
SET_ROW_HASH = query(
    sa.update(member)
    .where(member.c.subject == given("of_subject"), member.c.version == given("at_version"))
    .values(row_hash=given("new_row_hash"))
)

_SHOWN = (
    member.c.subject, member.c.unit_code, member.c.has_app, member.c.status, member.c.version, member.c.profile,
)  # fmt: skip
SHOW = query(
    sa.select(*_SHOWN)
    .where(
        sa.or_(
            member.c.subject == given("subject"),
            member.c.phone_hash == given("phone_hash"),
            member.c.citizen_hash == given("citizen_hash"),
        )
    )
    .order_by(member.c.subject)
)
LIST = _page(sa.select(*_SHOWN).where(member.c.subject > given("after")))
LIST_OF_UNIT = _page(
    sa.select(*_SHOWN).where(member.c.unit_code == given("unit_code"), member.c.subject > given("after"))
)

_ACTIVE_AFTER = (member.c.status == given("status"), member.c.subject > given("after"))
RECIPIENTS = _page(sa.select(member.c.subject).where(*_ACTIVE_AFTER))
RECIPIENTS_OF_UNIT = _page(sa.select(member.c.subject).where(member.c.unit_code == given("unit_code"), *_ACTIVE_AFTER))
PROFILES = query(
    sa.select(member.c.subject, member.c.has_app, member.c.has_phone, member.c.profile).where(_any_of(member.c.subject))
)
STATUS = query(sa.select(member.c.status).where(member.c.subject == given("subject")))

COVERAGE = query(
    sa.select(
        member.c.unit_code,
        member.c.status,
        sa.func.count().label("members"),
        # A sum of 64-bit integers is a decimal number to PostgreSQL.
        sa.cast(sa.func.sum(member.c.has_app), sa.BigInteger).label("with_app"),
        sa.cast(sa.func.sum(member.c.has_phone), sa.BigInteger).label("with_phone"),
    )
    .group_by(member.c.unit_code, member.c.status)
    .order_by(member.c.unit_code, member.c.status)
)


def padded(values: Sequence[str] | Sequence[bytes]) -> dict[str, Any]:
    """At most ``CHUNK`` values as the parameters of an any-of query, the last repeated to fill it."""
    return {f"any_{i}": values[min(i, len(values) - 1)] for i in range(CHUNK)}
