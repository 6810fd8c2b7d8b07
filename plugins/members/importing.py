"""Writes a read list into the hub: pages of people, each page one transaction with its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from hub.contract import Guard, Hub, Report, Sealed, UnitOfWork
from hub.errors import Conflict
from hub.model import Draft, to_us
from hub.sql import Query, Statement
from plugins.members import tables
from plugins.members.events import CREATED, UPDATED
from plugins.members.reading import Reading
from plugins.members.schema import FIELDS, OPEN_FIELDS, Person, Problem, event_data, person_key

#: Behind the base URI of this installation.
SOURCE = "/members"
PAGE_SIZE = 100
#: Somebody else importing the same people is done after a page or two; more than this is no race.
MAX_TRIES = 5


@dataclass(slots=True)
class Counts:
    """What an import did, or in a dry run would do."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    def add(self, other: Counts) -> None:
        self.created += other.created
        self.updated += other.updated
        self.unchanged += other.unchanged


@dataclass(frozen=True, slots=True)
class Keys:
    """The keyed hashes a person is found by."""

    citizen: bytes | None
    person: bytes
    row: bytes

    @classmethod
    def of(cls, hub: Hub, person: Person) -> Keys:
        number = person.citizen_number
        return cls(
            citizen=citizen_hash(hub, number) if number else None,
            person=_person_hash(hub, person.person_key()),
            row=hub.keyed_hash("members.row", person.canonical()),
        )


def citizen_hash(hub: Hub, number: str) -> bytes:
    return hub.keyed_hash("members.citizen", number)


def phone_hash(hub: Hub, e164: str) -> bytes:
    return hub.keyed_hash("members.phone", e164)


def _person_hash(hub: Hub, key: str) -> bytes:
    return hub.keyed_hash("members.person", key)


@dataclass(frozen=True, slots=True)
class Stored:
    """A member as the table has it; the order of fields is that of ``tables.BY_CITIZEN``."""

    subject: str
    citizen: bytes | None
    person: bytes
    unit_code: str
    has_app: int
    status: str
    version: int
    profile: bytes
    row: bytes


@dataclass(slots=True)
class Plan:
    """One page's unit of work in the making, and what it will count as."""

    counts: Counts = field(default_factory=Counts)
    guards: list[Guard] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def unit(self) -> UnitOfWork:
        return UnitOfWork(guards=self.guards, statements=self.statements, drafts=self.drafts)


async def import_reading(hub: Hub, reading: Reading, report: Report, *, dry_run: bool) -> Counts:
    """Makes the hub agree with ``reading``; adds to its problems what only the stored members can tell."""
    counts = Counts()
    known = {str(code) for code, _ in await hub.fetch(tables.UNITS())}
    total = len(reading.people)
    for start in range(0, total, PAGE_SIZE):
        people = reading.people[start : start + PAGE_SIZE]
        units = {p.unit_id: reading.units.get(p.unit_id, "") for p in people if p.unit_id not in known}
        plan = await _page(hub, people, units, dry_run=dry_run)
        known |= units.keys()
        counts.add(plan.counts)
        reading.problems += plan.problems
        report({"phase": "import", "done": start + len(people), "total": total})
    return counts


async def _page(hub: Hub, people: Sequence[Person], units: dict[str, str], *, dry_run: bool) -> Plan:
    """One page as one transaction; on a conflict everything is read again and planned anew."""
    for attempt in range(1, MAX_TRIES + 1):
        plan = await _plan(hub, people)
        now = to_us(hub.now())
        plan.statements += [tables.ADD_UNIT(code=code, name=name, created_at=now) for code, name in units.items()]
        if dry_run or not (plan.guards or plan.statements):
            return plan
        try:
            await hub.commit(plan.unit)
        except Conflict:
            if attempt == MAX_TRIES:
                raise
        else:
            return plan
    raise AssertionError("unreachable: the last try returns or raises")


async def _plan(hub: Hub, people: Sequence[Person]) -> Plan:
    keys = [Keys.of(hub, p) for p in people]
    by_citizen = {s.citizen: s for s in await _stored(hub, tables.BY_CITIZEN, (k.citizen for k in keys))}
    by_person: dict[bytes, list[Stored]] = {}
    for stored in await _stored(hub, tables.BY_PERSON, (k.person for k in keys)):
        by_person.setdefault(stored.person, []).append(stored)
    plan = Plan()
    changed: list[tuple[Person, Keys, Stored]] = []
    taken: set[str] = set()
    for person, key in zip(people, keys, strict=True):
        if key.citizen and (same := by_citizen.get(key.citizen)):
            candidates = [same]
        else:
            candidates = _by_name(person, by_person.get(key.person, []))
        if len(candidates) > 1 or taken.intersection(s.subject for s in candidates):
            plan.problems.append(_problem(person, "person_ambiguous"))
        elif not candidates:
            _create(hub, plan, person, key)
        elif candidates[0].row == key.row:
            plan.counts.unchanged += 1
        else:
            changed.append((person, key, candidates[0]))
        taken.update(s.subject for s in candidates)
    await _change(hub, plan, changed)
    plan.guards.sort(key=_row_of)
    return plan


def _row_of(guard: Guard) -> bytes:
    """Whose row it takes: everybody takes them in this order, or two imports of one list might wait in a circle."""
    values = guard.statement.values
    taken: bytes = values.get("citizen_hash") or values.get("person_hash") or values["of_subject"].encode()
    return taken


def _by_name(person: Person, found: list[Stored]) -> list[Stored]:
    """Members who may be this person judged by name and birth date alone."""
    unnumbered = [s for s in found if s.citizen is None]
    if person.citizen_number is None:
        return unnumbered or found
    return [] if person.has_namesake else unnumbered


async def _stored(hub: Hub, query: Query, hashes: Iterable[bytes | None]) -> list[Stored]:
    wanted = list(dict.fromkeys(h for h in hashes if h is not None))
    found: list[Stored] = []
    for start in range(0, len(wanted), tables.CHUNK):
        found += [Stored(*row) for row in await hub.fetch(query(**tables.padded(wanted[start : start + tables.CHUNK])))]
    return found


def _create(hub: Hub, plan: Plan, person: Person, key: Keys) -> None:
    subject = str(uuid4())
    values: dict[str, Any] = {"has_app": False, "status": "active"} | person.values()
    columns = _columns(hub, subject, 1, values, key)
    plan.guards.append(Guard(tables.ADD_MEMBER(subject=subject, **columns), otherwise="member_exists"))
    plan.drafts.append(_draft(hub, CREATED, subject, 1, values["unit_id"], values))
    plan.counts.created += 1


async def _change(hub: Hub, plan: Plan, changes: list[tuple[Person, Keys, Stored]]) -> None:
    profiles = await hub.unseal([(s.subject, s.profile) for _, _, s in changes])
    for (person, key, stored), profile in zip(changes, profiles, strict=True):
        if profile is None:
            plan.problems.append(_problem(person, "member_erased"))
            continue
        old = opened(profile, stored.unit_code, stored.has_app, stored.status)
        new = {f: v for f, v in person.values().items() if old.get(f) != v}
        if not new:
            values = {"of_subject": stored.subject, "at_version": stored.version, "new_row_hash": key.row}
            plan.guards.append(Guard(tables.SET_ROW_HASH(**values)))
            plan.counts.unchanged += 1
            continue
        version = stored.version + 1
        columns = _columns(hub, stored.subject, version, old | new, key)
        columns["citizen_hash"] = key.citizen or stored.citizen
        values = {f"new_{c}": v for c, v in columns.items()}
        change = tables.CHANGE_MEMBER(of_subject=stored.subject, at_version=stored.version, **values)
        plan.guards.append(Guard(change))
        plan.drafts.append(_draft(hub, UPDATED, stored.subject, version, (old | new)["unit_id"], new))
        plan.counts.updated += 1


def opened(profile: bytes, unit_code: str, has_app: int, status: str) -> dict[str, Any]:
    """A member's values by field, from the sealed and the open part."""
    values: dict[str, Any] = orjson.loads(profile)
    return values | {"unit_id": unit_code, "has_app": bool(has_app), "status": status}


def _columns(hub: Hub, subject: str, version: int, values: dict[str, Any], key: Keys) -> dict[str, Any]:
    sealed = {f: values[f] for f in FIELDS if f in values and f not in OPEN_FIELDS}
    phone = values.get("phone")
    return {
        "citizen_hash": key.citizen,
        "phone_hash": phone_hash(hub, phone) if phone else None,
        "person_hash": _person_hash(hub, person_key(values["full_name"], values.get("birth_date"), values["unit_id"])),
        "unit_code": values["unit_id"],
        "has_app": int(values["has_app"]),
        "has_phone": int(bool(phone)),
        "status": values["status"],
        "version": version,
        "profile": Sealed(subject, orjson.dumps(sealed)),
        "row_hash": key.row,
        "changed_at": to_us(hub.now()),
    }


def _draft(hub: Hub, type_: str, subject: str, version: int, unit_id: str, values: dict[str, Any]) -> Draft:
    return Draft(
        type=type_,
        source=SOURCE,
        dedupe_key=f"{subject}:{version}",
        data=event_data(subject, unit_id, values),
        subject=subject,
        occurred_at=hub.now(),
        scope=unit_id,
        ordering_key=subject,
    )


def _problem(person: Person, code: str) -> Problem:
    return Problem(person.sheet, person.row, person.column, code)
