"""The wire model of a member list (people and problems) and the pure mappings: row -> person -> event data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeVar

from plugins.members import repair
from plugins.members.codes import words_for
from plugins.members.header import Layout
from plugins.members.repair import Cell, Repaired, Unusable
from plugins.members.workbook import column_letters

_T = TypeVar("_T")

#: What a member has, in the order of the event's schema. Names of ``changed`` and keys of ``values``.
FIELDS = (
    "unit_id", "full_name", "birth_date", "sex", "citizen_number", "phone", "card_number", "position",
    "union_position", "union_group", "joined_on", "has_app", "status",
)  # fmt: skip
#: Kept readable in the table because listings and counts need them; the rest is sealed.
OPEN_FIELDS = ("unit_id", "has_app", "status")


@dataclass(frozen=True, slots=True)
class Unit:
    """An đơn vị công đoàn as a list names it; ``code`` is empty where the list gives a name only."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Person:
    """One good row. None says nothing about a field: what is stored stays."""

    sheet: str
    row: int
    #: Letter of the column its name stands in: where to point a person to.
    column: str
    unit: Unit
    full_name: str
    birth_date: str | None = None
    sex: str | None = None
    citizen_number: str | None = None
    phone: str | None = None
    card_number: str | None = None
    position: str | None = None
    union_position: str | None = None
    union_group: str | None = None
    joined_on: str | None = None
    has_app: bool | None = None
    status: str | None = None
    #: Two people with citizen numbers share this name and birth date: it identifies nobody.
    has_namesake: bool = False

    @property
    def unit_id(self) -> str:
        return self.unit.code

    def values(self) -> dict[str, Any]:
        """What the row says, by field."""
        return {f: v for f in FIELDS if (v := getattr(self, f)) is not None}

    def canonical(self) -> str:
        """The same text for the same facts, wherever the row stood."""
        return json.dumps(self.values(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    def person_key(self) -> str:
        return person_key(self.full_name, self.birth_date, self.unit_id)

    def with_unit(self, unit: Unit) -> Person:
        return replace(self, unit=unit)


def person_key(full_name: str, birth_date: str | None, unit_id: str) -> str:
    """Who it is without a citizen number: name and full birth date, else also the unit (years repeat)."""
    name, birth = repair.name_key(full_name), birth_date or ""
    return f"{name}|{birth}" if len(birth) == 10 else f"{name}|{birth}|{unit_id}"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Why a row was not imported, or what was noticed about one that was. Holds no value of the row."""

    sheet: str
    row: int
    column: str
    code: str
    label: str = ""

    def as_json(self) -> dict[str, Any]:
        words = words_for(self.code)
        return {
            "sheet": self.sheet, "row": self.row, "column": self.column, "label": self.label,
            "code": self.code, "vi": words.vi, "en": words.en,
        }  # fmt: skip


@dataclass(slots=True)
class RowResult:
    """A row's person, or the problems that kept it out; notes come with either."""

    person: Person | None
    problems: list[Problem]
    notes: list[Problem]


_CODE_AFTER_WORD = re.compile(
    r"[\s(–-]*\bm[ãa](?: số)?(?: đơn vị| cđcs| công đoàn cơ sở)?\s*[:\-]?\s*([A-ZĐ0-9][A-ZĐ0-9._-]{1,31})\)?", re.I
)
_CODE_IN_BRACKETS = re.compile(r"\(\s*([A-ZĐ]{2,8}-\d{1,6})\s*\)")
_ORDINAL = re.compile(r"^(?:[IVX]{1,5}|[A-H]|\d{1,3})\s*[.)/-]\s*", re.I)
_UNIT_WORD = re.compile(r"^(?:tên )?đơn vị(?: công đoàn)?\s*:\s*", re.I)


def unit_code(text: str) -> str:
    """A unit code as we keep it: capitals, Đ as D, no spaces; empty if it cannot be one."""
    code = text.strip().upper().replace("Đ", "D").replace(" ", "")
    return code if re.fullmatch(r"[A-Z0-9][A-Z0-9._-]{0,31}", code) else ""


def unit_named(text: str) -> Unit:
    """ "II. CĐCS Công ty May (Mã: CDCS-03)" -> its code and name."""
    text = _UNIT_WORD.sub("", _ORDINAL.sub("", repair.text_of(text)))
    match = _CODE_IN_BRACKETS.search(text) or _CODE_AFTER_WORD.search(text)
    code = unit_code(match[1]) if match else ""
    if match:
        text = text[: match.start()] + text[match.end() :]
    return Unit(code, text.strip(" -–:,.;")[:200])


class _Row:
    """Reads one row's fields and collects what is wrong with them."""

    def __init__(self, sheet: str, number: int, cells: list[Cell], layout: Layout) -> None:
        self.sheet, self.number, self.cells, self.layout = sheet, number, cells, layout
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []

    def cell(self, field: str) -> Cell:
        index = self.layout.columns.get(field)
        return self.cells[index] if index is not None and index < len(self.cells) else None

    def text(self, field: str) -> str | None:
        return repair.text_of(self.cell(field))[:200] or None

    def at(self, code: str, *fields: str) -> Problem:
        index = self.layout.column(*fields)
        label = self.layout.labels[index] if index < len(self.layout.labels) else ""
        return Problem(self.sheet, self.number, column_letters(index), code, label)

    def read(self, field: str, reader: Callable[[Cell], _T | None]) -> _T | None:
        """What ``reader`` makes of the field's cell, or None and a problem."""
        try:
            return reader(self.cell(field))
        except Unusable as error:
            self.wrong(error.code, field)
            return None

    def wrong(self, code: str, *fields: str) -> None:
        self.problems.append(self.at(code, *fields))

    def noted(self, found: Repaired, *fields: str) -> str | None:
        if found.note:
            self.notes.append(self.at(found.note, *fields))
        return found.value


def read_row(sheet: str, number: int, cells: list[Cell], layout: Layout, unit: Unit | None, today: date) -> RowResult:
    """A person from one data row, or every reason why not. ``unit`` holds where the row names none itself."""
    row = _Row(sheet, number, cells, layout)
    name = _name(row)
    sex, birth_date = _sex_and_birth(row, today)
    year = int(birth_date[:4]) if birth_date else None
    citizen_number = row.read(
        "citizen_number", lambda cell: row.noted(repair.citizen_number(cell, sex, year), "citizen_number")
    )
    phone = row.read("phone", lambda cell: row.noted(repair.phone(cell), "phone"))
    joined_on = row.read("joined_on", lambda cell: repair.joined_on(cell, today))
    status = row.read("status", repair.status)
    has_app: bool | None = None
    if layout.has("has_app"):
        has_app = row.read("has_app", lambda cell: repair.mark(cell, "app_mark_unclear"))
    own_unit = _unit(row) or unit
    if own_unit is None:
        row.wrong("unit_missing", "unit_code", "unit_name")
    if not row.problems and citizen_number is None and birth_date is None:
        row.wrong("identity_missing")
    if row.problems or own_unit is None:
        return RowResult(None, row.problems, [])
    if citizen_number is not None and sex is None:
        sex = repair.sex_in(citizen_number)
    person = Person(
        sheet=sheet,
        row=number,
        column=column_letters(layout.name_columns[0]),
        unit=own_unit,
        full_name=name,
        birth_date=birth_date,
        sex=sex,
        citizen_number=citizen_number,
        phone=phone,
        card_number=row.text("card_number"),
        position=row.text("position"),
        union_position=row.text("union_position"),
        union_group=row.text("union_group"),
        joined_on=joined_on,
        has_app=has_app,
        status=status,
    )
    return RowResult(person, [], row.notes)


def _name(row: _Row) -> str:
    parts = [repair.text_of(row.cells[i]) for i in row.layout.name_columns if i < len(row.cells)]
    try:
        return repair.full_name(" ".join(filter(None, parts)))
    except Unusable as error:
        row.wrong(error.code)
        return ""


def _sex_and_birth(row: _Row, today: date) -> tuple[str | None, str | None]:
    """Sex and birth date, which share two columns where "Ngày sinh" stands over "Nam" and "Nữ"."""
    sex: str | None = None
    field = "birth_date"
    try:
        sex = repair.sex(row.cell("sex"))
        for mark, named in (("male_mark", "male"), ("female_mark", "female")):
            if row.layout.has(mark) and repair.mark(row.cell(mark), "sex_unclear"):
                sex = named
        if row.layout.has("female_mark") and not row.layout.has("male_mark", "sex") and sex is None:
            sex = "male"
    except Unusable as error:
        row.wrong(error.code, "sex", "male_mark", "female_mark")
    if row.layout.has("birth_date_male", "birth_date_female"):
        male, female = (bool(repair.text_of(row.cell(f))) for f in ("birth_date_male", "birth_date_female"))
        if male and female:
            row.wrong("sex_twice", "birth_date_male")
            return None, None
        field = "birth_date_male" if male else "birth_date_female"
        if male or female:
            sex = "male" if male else "female"
    try:
        return sex, repair.birth_date(row.cell(field), today)
    except Unusable as error:
        row.wrong(error.code, field)
        return sex, None


def _unit(row: _Row) -> Unit | None:
    """The unit the row itself names, by code, name or both."""
    code = unit_code(repair.text_of(row.cell("unit_code")))
    named = unit_named(repair.text_of(row.cell("unit_name")))
    found = Unit(code or named.code, named.name)
    return found if found.code or found.name else None


def event_data(member_id: str, unit_id: str, values: dict[str, Any]) -> dict[str, Any]:
    """Data of a created or updated event: what changed, by name and by value."""
    changed = [f for f in FIELDS if f in values]
    return {"member_id": member_id, "unit_id": unit_id, "changed": changed, "values": {f: values[f] for f in changed}}
