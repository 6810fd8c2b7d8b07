"""From sheets to people: skips what is no row of data, follows sections, and makes one person of several rows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from plugins.members import repair
from plugins.members.codes import refusal
from plugins.members.header import Layout, find_layout, label_key
from plugins.members.repair import Cell
from plugins.members.schema import Person, Problem, Unit, read_row, unit_code, unit_named
from plugins.members.workbook import Sheet, column_letters, open_workbook

_SUBTOTAL = re.compile(r"^(cộng|tổng)(\s*(số|cộng|đơn vị|cđcs|toàn|danh sách|trang|\d|:|\()|[\s.:]*$)", re.I)
_SECTION = re.compile(r"^(cđcs|công đoàn|cđ\b|nghiệp đoàn|đơn vị|đvcđ)", re.I)
_ORDINAL = re.compile(r"^(?:[IVX]{1,5}|[A-H]|\d{1,3})\s*[.)/-]\s*", re.I)
_SIGNATURE = re.compile(
    r"^(người lập|lập biểu|tm\s*\.|t/m|ban chấp hành|xác nhận|chủ tịch|thủ trưởng|kế toán|ký, ghi|\(ký)"
    r"|ngày\s*\d{0,2}\s*[.…]*\s*tháng",
    re.I,
)
#: Fields that only a row about a person has.
_TELLING = ("citizen_number", "phone", "birth_date", "birth_date_male", "birth_date_female", "card_number")


@dataclass(slots=True)
class Table:
    """One sheet that held a list, with what the report needs to show its rows again."""

    sheet: Sheet
    layout: Layout
    #: Row number of the section heading each bad row stood under, where there is one.
    section_of: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Reading:
    """What a file says. ``problems`` keep rows out, ``notes`` do not; each person is there once."""

    people: list[Person] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    rows: int = 0
    duplicates: int = 0
    tables: list[Table] = field(default_factory=list)
    #: Sheet name -> hidden | no_header | empty.
    skipped_sheets: dict[str, str] = field(default_factory=dict)
    unread_columns: list[str] = field(default_factory=list)

    @property
    def bad_rows(self) -> int:
        return len({(p.sheet, p.row) for p in self.problems})


def read_list(path: Path, today: date, unit: str | None = None) -> Reading:
    """Reads a member list. ``unit``: code for rows that name no unit themselves. Raises: InputError."""
    return read_sheets(open_workbook(path), today, unit)


def read_sheets(sheets: list[Sheet], today: date, unit: str | None = None) -> Reading:
    reading = Reading()
    found: list[Person] = []
    given = Unit(unit_code(unit), "") if unit else None
    for sheet in sheets:
        layout = None if sheet.hidden else find_layout(sheet)
        if layout is None:
            empty = not any(repair.text_of(c) for row in sheet.rows for c in row)
            reading.skipped_sheets[sheet.name] = "hidden" if sheet.hidden else "empty" if empty else "no_header"
            continue
        table = Table(sheet, layout)
        reading.tables.append(table)
        reading.unread_columns += [u for u in layout.unread if u not in reading.unread_columns]
        found += _read_table(table, _unit_above(table) or given, today, reading)
    if not reading.tables:
        raise refusal("header-not-found")
    _one_each(_with_codes(found, reading), reading)
    reading.problems.sort()
    reading.notes.sort()
    return reading


def _unit_above(table: Table) -> Unit | None:
    """The unit a title block names: "Đơn vị: CĐCS ... - Mã CĐCS: CDCS-12"."""
    for row in table.sheet.rows[: table.layout.header_row]:
        for cell in row:
            text = repair.text_of(cell)
            if re.match(r"(tên )?(đơn vị|cđcs|công đoàn cơ sở)[^:]*:", text, re.I):
                unit = unit_named(text)
                if unit.code or unit.name:
                    return unit
    return None


def _read_table(table: Table, unit: Unit | None, today: date, reading: Reading) -> list[Person]:
    layout, name = table.layout, table.sheet.name
    header = {label_key(c) for c in table.sheet.rows[layout.header_row]} - {""}
    found: list[Person] = []
    section: int | None = None
    closing = False
    for index, cells in enumerate(table.sheet.rows[layout.first_row :], layout.first_row):
        texts = [t for c in cells if (t := repair.text_of(c))]
        if not texts or _is_numbering(texts) or len(header.intersection(map(repair.key, texts))) >= 3:
            continue
        if not _tells_of_a_person(cells, layout):
            # Only what opens a row can close the list: "Chủ tịch" further right is somebody's position.
            closing = closing or bool(_SIGNATURE.search(texts[0]))
            if closing or any(_SUBTOTAL.match(_ORDINAL.sub("", t)) for t in texts):
                continue
            if len(texts) <= 2 and (heading := next((t for t in texts if _is_section(t)), None)):
                unit, section = unit_named(heading), index
                continue
        closing = False
        reading.rows += 1
        result = read_row(name, index + 1, cells, layout, unit, today)
        reading.problems += result.problems
        reading.notes += result.notes
        if result.person is not None:
            found.append(result.person)
        if section is not None:
            table.section_of[index + 1] = section
    return found


def _tells_of_a_person(cells: list[Cell], layout: Layout) -> bool:
    """A running number beside a name, or a name beside anything only a person has."""

    def text(index: int | None) -> str:
        return repair.text_of(cells[index]) if index is not None and index < len(cells) else ""

    number = text(layout.columns.get("number"))
    name = " ".join(filter(None, map(text, layout.name_columns)))
    if number.isdigit() and not _is_section(name):
        return True
    first = next(filter(None, map(repair.text_of, cells)), "")
    if _SIGNATURE.search(first) or any(_SUBTOTAL.match(t) for t in (number, name)):
        return False
    return any(c.isdigit() for f in _TELLING for c in text(layout.columns.get(f)))


def _is_section(text: str) -> bool:
    return bool(_SECTION.match(_ORDINAL.sub("", text)))


def _is_numbering(texts: list[str]) -> bool:
    """The row "(1) (2) (3)" or "A B 1 2" under a header."""
    return len(texts) >= 3 and all(re.fullmatch(r"\(?(\d{1,2}|[A-D])\)?", t) for t in texts)


def _with_codes(people: list[Person], reading: Reading) -> list[Person]:
    """Gives units named without a code the code the same name has elsewhere in the file, else one made of the name."""
    names: dict[str, str] = {}
    for unit in sorted({p.unit for p in people if p.unit.code}, key=lambda u: (u.code, u.name)):
        reading.units[unit.code] = reading.units.get(unit.code) or unit.name
        names.setdefault(repair.key(unit.name), unit.code)
    done = []
    for person in people:
        if not person.unit.code:
            code = names.get(repair.key(person.unit.name)) or repair.key(person.unit.name)[:32].upper()
            reading.units[code] = reading.units.get(code) or person.unit.name
            person = person.with_unit(Unit(code, person.unit.name))
        done.append(person)
    return done


def _one_each(people: list[Person], reading: Reading) -> None:
    """One person per citizen number, else per name and birth date; independent of the order of rows."""
    numbered: dict[str, list[Person]] = defaultdict(list)
    unnumbered: dict[str, list[Person]] = defaultdict(list)
    for person in people:
        group = numbered[person.citizen_number] if person.citizen_number else unnumbered[person.person_key()]
        group.append(person)
    for number, rows in list(numbered.items()):
        if len({repair.name_key(p.full_name) for p in rows}) > 1:
            reading.problems += [_about(p, "citizen_number_reused", reading) for p in rows]
            del numbered[number]
    holders: dict[str, list[list[Person]]] = defaultdict(list)
    for rows in numbered.values():
        for person_key in {p.person_key() for p in rows}:
            holders[person_key].append(rows)
    for person_key, rows in list(unnumbered.items()):
        owners = holders.get(person_key, [])
        if len(owners) == 1:
            owners[0].extend(rows)
        elif owners:
            reading.problems += [_about(p, "person_ambiguous", reading) for p in rows]
        if owners:
            del unnumbered[person_key]
    shared = Counter(k for k, owners in holders.items() for _ in owners)
    for rows in [*numbered.values(), *unnumbered.values()]:
        reading.people.append(_fullest(rows, reading, shared))
    reading.people.sort(key=lambda p: (p.sheet, p.row))


def _fullest(rows: list[Person], reading: Reading, shared: Counter[str]) -> Person:
    best = max(rows, key=lambda p: (len(p.values()), p.canonical()))
    reading.duplicates += len(rows) - 1
    if len({p.canonical() for p in rows}) > 1:
        reading.notes.append(_about(best, "duplicate_differs", reading))
    return replace(best, has_namesake=True) if shared[best.person_key()] > 1 else best


def _about(person: Person, code: str, reading: Reading) -> Problem:
    """A problem found by comparing rows, pointing at the cell to look at."""
    layout = next(t.layout for t in reading.tables if t.sheet.name == person.sheet)
    column = layout.column("citizen_number") if code == "citizen_number_reused" else layout.name_columns[0]
    return Problem(person.sheet, person.row, column_letters(column), code, layout.labels[column])
