"""Lays invented people out as an Excel list and says what a reader must find in it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import xlsxwriter

from plugins.members.simulator.people import UNIT_NAMES, Inventor, Line, Spoiler, Typist, national

#: No surname or given name of the others.
CANARY = "Sầm Thị Hoàng Yến Phượng"
CODES = [f"CDCS-{n:02}" for n in range(1, 13)]
NAMES = dict(zip(CODES, UNIT_NAMES, strict=True))


@dataclass
class Part:
    """One sheet to write: which units, how it is laid out, which columns it has."""

    name: str
    layout: str
    units: list[str]
    columns: list[tuple[str, str]]
    lines: dict[str, list[Line]] = field(default_factory=dict)


#: (field, label) per layout; a label with "|" has its second half in a second header row.
SECTIONS = [
    ("number", "STT"), ("name", "Họ và tên"), ("birth_male", "Ngày sinh|Nam"), ("birth_female", "|Nữ"),
    ("citizen", "Số CCCD (12 số)"), ("phone", "Số điện thoại"), ("job", "Chức vụ"), ("card", "Số thẻ đoàn viên"),
    ("app", "Cài app"), ("remark", "Ghi chú"),
]  # fmt: skip
UNIT_COLUMNS = [
    ("number", "TT"), ("unit_code", "Mã CĐCS"), ("unit_name", "Tên CĐCS"), ("name", "HỌ VÀ TÊN\n(khai sinh)"),
    ("sex", "Giới tính"), ("birth", "Ngày, tháng, năm sinh"), ("citizen", "CMND/CCCD"), ("phone", "ĐTDĐ"),
    ("status", "Tình trạng"), ("app", "Đã cài app C-ThaiNguyen"),
]  # fmt: skip
ONE_UNIT = [
    ("number", "Số TT"), ("name", "Họ và tên"), ("given", ""), ("sex", "Giới tính"), ("birth", "Ngày sinh"),
    ("phone", "Điện thoại liên hệ"), ("citizen", "Số định danh cá nhân"), ("app", "Cài app"), ("job", "Nghề nghiệp"),
]  # fmt: skip


def invent(seed: int) -> list[Part]:
    """All sheets with their lines, in the order the office typed them."""
    parts = [
        Part("KCN Sông Công", "sections", CODES[:4], SECTIONS),
        Part("Phổ Yên", "unit_columns", CODES[4:8], UNIT_COLUMNS),
        Part("TP Thái Nguyên", "sections", CODES[8:11], SECTIONS),
        Part("Đại Từ", "one_unit", CODES[11:], ONE_UNIT),
    ]
    inventor = Inventor(seed)
    typist = Typist(inventor.dice)
    dice = inventor.dice
    good = _good_lines(inventor, typist, dice)
    for line in dice.sample(good, 12):
        # The same person once more, typed anew: as a rule the office pasted a list twice.
        copy = typist.line(line.truth, line)
        copy.is_copy = True
        line.editable = False
        good.append(copy)
    for line in dice.sample([x for x in good if x.truth.citizen_number and len(x.truth.birth_date or "") == 10], 3):
        if not line.is_copy and line.editable:
            copy = typist.line(line.truth, line)
            copy.cells |= {"job": "", "citizen": ""}
            line.notes.append(("name", "duplicate_differs"))
            copy.is_copy, line.editable = True, False
            good.append(copy)
    _plant(good)
    bad = Spoiler(inventor, typist).lines(CODES, [*CODES[:1], *CODES[9:10]], CODES[5:7])
    for part in parts:
        for unit in part.units:
            lines = [x for x in [*good, *bad] if x.truth.unit == unit]
            dice.shuffle(lines)
            part.lines[unit] = lines
    return parts


def _plant(good: list[Line]) -> None:
    """Gives one person an SMS will be sent to a name nobody else has: whoever searches logs knows what to look for."""
    line = next(
        x for x in good if x.editable and not x.notes and not x.truth.has_app and x.truth.status == "active"
        and x.truth.citizen_number and len(x.truth.birth_date or "") == 10
    )  # fmt: skip
    line.truth.full_name = line.cells["name"] = CANARY
    line.editable = False


def _good_lines(inventor: Inventor, typist: Typist, dice: random.Random) -> list[Line]:
    people = [inventor.person(unit) for unit in CODES for _ in range(dice.randint(88, 108))]
    with_phone = [p for p in people if p.phone]
    shared: set[int] = set()
    for _ in range(25):
        # Husband and wife, or a parent who only has the child's phone.
        one, other = dice.sample(with_phone, 2)
        other.phone = one.phone
        shared |= {id(one), id(other)}
    for person in dice.sample([p for p in people if p.unit in CODES[4:8]], 6):
        person.status = "left"
    lines = []
    for person in people:
        line = typist.line(person)
        line.editable = person.phone is not None and id(person) not in shared
        lines.append(line)
    for line in dice.sample([x for x in lines if x.editable], 8):
        phone = line.truth.phone or ""
        line.cells["phone"] = f"{national(phone)} / 02083 555 {dice.randrange(1000):03}"
        line.notes.append(("phone", "phone_two_numbers"))
    for line in dice.sample([x for x in lines if x.truth.citizen_number], 3):
        truth = line.truth
        truth.citizen_number = inventor.citizen_number(truth.sex, int((truth.birth_date or "")[:4]), "099")
        line.cells["citizen"] = truth.citizen_number
        line.notes.append(("citizen", "citizen_number_province"))
        line.editable = False
    return lines


def edit(parts: list[Part], number: int, seed: int) -> None:
    """Types another phone into the ``number``-th line that nothing else depends on: one cell of one good row."""
    lines = [x for part in parts for unit in part.units for x in part.lines[unit] if x.editable and not x.notes]
    line = lines[number % len(lines)]
    dice = random.Random(f"edit {seed} {number}")
    taken = {x.truth.phone for part in parts for unit in part.units for x in part.lines[unit]}
    while line.truth.phone in taken:
        line.truth.phone = f"+8497{dice.randrange(10)}555{dice.randrange(1000):03}"
    line.cells["phone"] = national(line.truth.phone or "")


def shuffle(parts: list[Part], seed: int) -> None:
    """Another order of sheets, of units within a sheet and of rows within a unit."""
    dice = random.Random(f"shuffle {seed}")
    dice.shuffle(parts)
    for part in parts:
        dice.shuffle(part.units)
        for lines in part.lines.values():
            dice.shuffle(lines)


class Writer:
    """Writes the sheets and remembers in which row each line came to stand."""

    def __init__(self, path: Path) -> None:
        # Texts stay texts: some of these cells look like formulas on purpose.
        self.book = xlsxwriter.Workbook(str(path), {"strings_to_formulas": False, "strings_to_urls": False})
        self.book.set_properties({"created": datetime(2026, 11, 5, tzinfo=UTC)})
        self.bold = self.book.add_format({"bold": True, "align": "center", "text_wrap": True})
        self.dated = self.book.add_format({"num_format": "dd/mm/yyyy"})
        self.rows: dict[int, tuple[str, int]] = {}

    def part(self, part: Part) -> None:
        sheet = self.book.add_worksheet(part.name)
        last = len(part.columns) - 1
        sheet.merge_range(0, 0, 0, 3, "LIÊN ĐOÀN LAO ĐỘNG TỈNH THÁI NGUYÊN", self.bold)
        sheet.merge_range(0, 4, 0, last, "CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM", self.bold)
        sheet.merge_range(1, 4, 1, last, "Độc lập - Tự do - Hạnh phúc", self.bold)
        sheet.merge_range(3, 0, 3, last, "DANH SÁCH ĐOÀN VIÊN CÔNG ĐOÀN", self.bold)
        if part.layout == "one_unit":
            code = part.units[0]
            sheet.write(4, 0, f"Đơn vị: CĐCS {NAMES[code]} - Mã CĐCS: {code}")
        sheet.write(5, 0, "(Tính đến ngày 30/10/2026)")
        row = self._header(sheet, part, 7)
        running = count = 0
        for index, unit in enumerate(part.units):
            if part.layout == "sections":
                heading = f"{('I', 'II', 'III', 'IV')[index]}. CĐCS {NAMES[unit]} ({unit})"
                sheet.merge_range(row, 0, row, last, heading, self.bold)
                row, running = row + 1, 0
            for line in part.lines[unit]:
                running += 1
                self._line(sheet, part, row, running, line)
                row, count = row + 1, count + 1
            if part.layout == "sections":
                sheet.write(row, 1, f"Cộng CĐCS {NAMES[unit]}: {len(part.lines[unit])} đoàn viên", self.bold)
                sheet.write_number(row, last - 1, sum(x.truth.has_app for x in part.lines[unit]))
                row += 1
        sheet.write(row, 0, f"Tổng cộng: {count} đoàn viên", self.bold)
        self._signatures(sheet, row + 2, last)
        # Formats far below the list, as left behind by a "fill down".
        sheet.write_blank(row + 5000, 1, None, self.bold)

    def _header(self, sheet: Any, part: Part, row: int) -> int:
        two = any("|" in label for _, label in part.columns)
        for column, (name, label) in enumerate(part.columns):
            upper, _, lower = label.partition("|")
            if name == "birth_male" or (part.layout == "one_unit" and name == "name"):
                sheet.merge_range(row, column, row, column + 1, upper, self.bold)
            elif two and not lower:
                sheet.merge_range(row, column, row + 1, column, upper, self.bold)
            elif upper:
                sheet.write(row, column, upper, self.bold)
            if lower:
                sheet.write(row + 1, column, lower, self.bold)
        if not two:
            return row + 1
        for column in range(len(part.columns)):
            sheet.write(row + 2, column, f"({column + 1})", self.bold)
        return row + 3

    def _line(self, sheet: Any, part: Part, row: int, number: int, line: Line) -> None:
        cells = {
            "number": number,
            "unit_code": line.truth.unit,
            "unit_name": f"CĐCS {NAMES[line.truth.unit]}",
        } | line.cells
        male = line.truth.sex == "male"
        cells["birth_male"] = cells["birth"] if male or cells.get("both_sexes") else ""
        cells["birth_female"] = cells["birth"] if not male or cells.get("both_sexes") else ""
        if part.layout == "one_unit":
            cells["name"], _, cells["given"] = str(cells["name"]).strip().rpartition(" ")
        # What somebody types into a remark must come back as a text, never run.
        cells["remark"] = '=HYPERLINK("http://127.0.0.1/","x")' if line.reasons else ""
        for column, (name, _) in enumerate(part.columns):
            value = cells.get(name, "")
            if isinstance(value, date):
                sheet.write_datetime(row, column, value, self.dated)
            elif isinstance(value, int):
                sheet.write_number(row, column, value)
            elif value:
                sheet.write_string(row, column, value)
        self.rows[id(line)] = (part.name, row + 1)

    def _signatures(self, sheet: Any, row: int, last: int) -> None:
        sheet.write(row, last - 3, "Thái Nguyên, ngày 05 tháng 11 năm 2026")
        sheet.write(row + 1, 1, "NGƯỜI LẬP BIỂU", self.bold)
        sheet.write(row + 1, last - 3, "TM. BAN CHẤP HÀNH", self.bold)
        sheet.write(row + 2, 1, "(Ký, ghi rõ họ tên)")
        sheet.write(row + 2, last - 3, "CHỦ TỊCH")
        sheet.write(row + 6, 1, "Lý Thị Mẫu")
        sheet.write(row + 6, last - 3, "Ma Văn Mẫu")

    def extras(self, parts: list[Part]) -> None:
        """A sheet of instructions, and a hidden one with last year's list."""
        guide = self.book.add_worksheet("Hướng dẫn")
        guide.write(0, 0, "Hướng dẫn ghi danh sách")
        guide.write(1, 0, "Ngày sinh ghi ngày/tháng/năm. Số CCCD ghi đủ 12 số.")
        old = self.book.add_worksheet("DS 2024 (cũ)")
        old.hide()
        for column, label in enumerate(("STT", "Họ và tên", "Ngày sinh", "Số CCCD", "Số điện thoại")):
            old.write(0, column, label)
        for index, line in enumerate(parts[0].lines[parts[0].units[0]][:20], 1):
            old.write_row(index, 0, [index, f"{line.truth.full_name} cũ", "01/01/1970", "", "0912555000"])


def expected(parts: list[Part], rows: dict[int, tuple[str, int]], seed: int) -> dict[str, Any]:
    """What a reader must find in the file, members included."""
    lines = [(part, x) for part in parts for unit in part.units for x in part.lines[unit]]

    def found(part: Part, line: Line, name: str, code: str) -> dict[str, Any]:
        sheet, row = rows[id(line)]
        fields = [f for f, _ in part.columns]
        if name == "birth" and "birth" not in fields:
            name = f"birth_{line.truth.sex}"
        return {"sheet": sheet, "row": row, "column": chr(65 + fields.index(name)), "code": code}

    errors = [found(part, x, *reason) for part, x in lines for reason in x.reasons]
    notes = [found(part, x, *note) for part, x in lines if not x.is_copy for note in x.notes]
    good = [x.truth for _, x in lines if not x.reasons and not x.is_copy]
    active = [t for t in good if t.status == "active"]
    per_unit = {
        code: {
            "name": f"CĐCS {NAMES[code]}",
            "members": sum(t.unit == code for t in active),
            "with_app": sum(t.unit == code and t.has_app for t in active),
            "with_phone": sum(t.unit == code and t.phone is not None for t in active),
            "left": sum(t.unit == code and t.status == "left" for t in good),
        }
        for code in CODES
    }
    order = ("sheet", "row", "column", "code")
    planted = next(t for t in good if t.full_name == CANARY)
    return {
        "seed": seed,
        "rows": len(lines),
        "created": len(good),
        "duplicates": sum(x.is_copy for _, x in lines),
        "bad_rows": sum(bool(x.reasons) for _, x in lines),
        "errors": sorted(errors, key=lambda e: tuple(e[k] for k in order)),
        "notes": sorted(notes, key=lambda e: tuple(e[k] for k in order)),
        "error_codes": dict(sorted(Counter(e["code"] for e in errors).items())),
        "units": per_unit,
        "members_with_app": sum(t.has_app for t in active),
        "members_with_phone": sum(t.phone is not None for t in active),
        "members_left": sum(t.status == "left" for t in good),
        "canaries": {
            "name": planted.full_name,
            "phone": planted.phone,
            "citizen_number": planted.citizen_number,
        },
        "distinct_phones": len({t.phone for t in active if t.phone}),
        "members": sorted((asdict(t) for t in good), key=lambda t: (t["full_name"], t["birth_date"], t["unit"])),
    }


def generate(seed: int, out: Path, *, shuffled: bool = False, edited: int | None = None) -> dict[str, Any]:
    """Writes the list to ``out`` and answers the expected result."""
    parts = invent(seed)
    if edited is not None:
        edit(parts, edited, seed)
    if shuffled:
        shuffle(parts, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(out)
    for part in parts:
        writer.part(part)
    writer.extras(parts)
    writer.book.close()
    return expected(parts, writer.rows, seed)
