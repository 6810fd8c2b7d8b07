"""Finds the header of a member list, wherever it starts and however it is worded, in one row or two."""

from __future__ import annotations

import re
from dataclasses import dataclass

from plugins.members.repair import Cell, key, text_of
from plugins.members.workbook import Sheet

#: Our field -> the ways offices write it, as ``repair.key`` folds them.
ALIASES: dict[str, str] = {
    "number": "stt tt sott sothutu no",
    "full_name": "hovaten hoten hotendoanvien hovatendoanvien tendoanvien hovatenkhaisinh hotenkhaisinh "
    "hovatennguoilaodong hotennguoilaodong hovatencnvcld hovatencongdoanvien",
    "family_name": "ho hodem hovatendem holot hovalot hotendem hovachulot",
    "given_name": "ten",
    "birth_date": "ngaysinh ngaythangnamsinh namsinh sinhngay ntns ngaynamsinh ngaythangsinh sinhnam",
    "sex": "gioitinh phai gt",
    "male_mark": "nam",
    "female_mark": "nu",
    "citizen_number": "cccd socccd cmnd socmnd cmndcccd cccdcmnd socmndcccd socccdcmnd sodinhdanh sodinhdanhcanhan "
    "socancuoc socancuoccongdan cancuoccongdan cancuoc sothecancuoc madinhdanh cccdmadinhdanh socccdsodinhdanh",
    "phone": "sodienthoai dienthoai sdt dt sodt dtdd didong dienthoaididong sodienthoaididong sodienthoailienhe "
    "dienthoailienhe sdtlienhe sodidong tel phone sodtdd",
    "card_number": "sothe sothedoanvien sothedv mathe mathedoanvien sothecongdoan sothedoanviencongdoan",
    "position": "chucvu chucdanh nghenghiep vitricongviec chucvucongviec congviec chucvuchuyenmon chucvuchucdanh",
    "union_position": "chucvucongdoan chucvucd",
    "union_group": "tocongdoan tocd to bophan phongban topb tobophan congdoanbophan",
    "joined_on": "ngayvaocongdoan ngaygianhap ngayketnap ngayvaocd ngayketnapcongdoan ngaygianhapcongdoan "
    "namvaocongdoan namketnap",
    "unit_code": "madonvi macdcs macongdoancoso madv macongdoan macd",
    "unit_name": "donvi tendonvi cdcs tencdcs congdoancoso tencongdoancoso donvicongtac tencongdoan donvicongdoan",
    "has_app": "caiapp dacaiapp caidatapp dacaidatapp caiungdung dacaiungdung app caicthainguyen dacaicthainguyen "
    "caiappcthainguyen dacaiappcthainguyen caidatcthainguyen caidatappcthainguyen cthainguyen",
    "status": "tinhtrang trangthai tinhtrangsinhhoat tinhtrangdoanvien",
}
_FIELD_OF = {alias: field for field, aliases in ALIASES.items() for alias in aliases.split()}

#: (field of the upper label, lower label) of a merged two-row header: under "Ngày sinh" stand "Nam" and "Nữ".
_GROUPED = {
    ("birth_date", "nam"): "birth_date_male",
    ("birth_date", "nu"): "birth_date_female",
    ("sex", "nam"): "male_mark",
    ("sex", "nu"): "female_mark",
    ("citizen_number", "so"): "citizen_number",
    ("phone", "so"): "phone",
    ("full_name", "ho"): "family_name",
    ("full_name", "ten"): "given_name",
}
_ROWS_SEARCHED = 40
_NAMES = frozenset({"full_name", "family_name"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a sheet keeps what. Indices count from 0; ``first_row`` is the first row after the header."""

    columns: dict[str, int]
    header_row: int
    first_row: int
    #: Columns whose texts joined make the name: a merged "Họ và tên" may cover two.
    name_columns: tuple[int, ...]
    labels: tuple[str, ...]
    #: Labels nobody read.
    unread: tuple[str, ...]

    def has(self, *fields: str) -> bool:
        return any(f in self.columns for f in fields)

    def column(self, *fields: str) -> int:
        """The first of these columns that exists, else the name's: where to point a person to."""
        return next((self.columns[f] for f in fields if f in self.columns), self.name_columns[0])


def label_key(cell: Cell) -> str:
    """A label without what stands in brackets: "Số CCCD (12 số)" -> "socccd"."""
    return key(re.sub(r"\([^)]*\)?", "", text_of(cell)))


def find_layout(sheet: Sheet) -> Layout | None:
    """The first row that names a person and at least two more of our columns; None if there is none."""
    for index, row in enumerate(sheet.rows[:_ROWS_SEARCHED]):
        if sum(1 for c in row if label_key(c) in _FIELD_OF) < 2:
            continue
        below = sheet.rows[index + 1] if index + 1 < len(sheet.rows) else []
        two_rows = _is_second_row(row, below)
        columns, labels = _columns(row, below if two_rows else [])
        if len(columns.keys() - {"number"}) >= 3 and _NAMES & columns.keys():
            return _layout(columns, labels, index, index + (2 if two_rows else 1))
    return None


def _is_second_row(row: list[Cell], below: list[Cell]) -> bool:
    """Only labels under a merged cell: the number column is empty, and so is the name unless it is split."""
    texts = [text_of(c) for c in below]
    if not any(texts) or any(isinstance(c, int | float) for c in below):
        return False
    for upper, lower in zip(row, texts, strict=False):
        field = _FIELD_OF.get(label_key(upper))
        if lower and (field == "number" or (field == "full_name" and ("full_name", key(lower)) not in _GROUPED)):
            return False
    return any(key(t) in _FIELD_OF or key(t) in {"nam", "nu", "so", "ngaycap", "noicap"} for t in texts)


def _columns(row: list[Cell], below: list[Cell]) -> tuple[dict[str, int], list[str]]:
    columns: dict[str, int] = {}
    labels: list[str] = []
    group = ""
    for index, cell in enumerate(row):
        upper = text_of(cell)
        lower = text_of(below[index]) if index < len(below) else ""
        # A merged label stands in its first cell only and reaches right as long as the row below has labels.
        group = upper or (group if lower else "")
        labels.append(" ".join(filter(None, (upper or (group if lower else ""), lower))))
        field = _field(group, lower)
        if field is not None and field not in columns:
            columns[field] = index
    return columns, labels


def _field(upper: str, lower: str) -> str | None:
    top, bottom = label_key(upper), label_key(lower)
    field = _FIELD_OF.get(top)
    if not bottom:
        return field
    return _GROUPED.get((field or "", bottom)) or _FIELD_OF.get(bottom) or _FIELD_OF.get(top + bottom)


def _layout(columns: dict[str, int], labels: list[str], header_row: int, first_row: int) -> Layout:
    if "family_name" in columns and "given_name" in columns:
        names = [columns["family_name"], columns["given_name"]]
    else:
        start = columns.get("full_name", columns.get("family_name", 0))
        names = [start]
        while names[-1] + 1 < len(labels) and not labels[names[-1] + 1]:
            names.append(names[-1] + 1)
    read = {*columns.values(), *names}
    unread = tuple(label for i, label in enumerate(labels) if label and i not in read)
    return Layout(columns, header_row, first_row, tuple(names), tuple(labels), unread)
