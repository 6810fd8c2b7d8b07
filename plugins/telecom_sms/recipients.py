"""A list of people to be written to: read from CSV or Excel, every row judged before anything is sent."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from hub.errors import InputError

from .numbers import Number, read_number
from .text import folded, normalise

_FILE_MOST: Final = 20_000_000
_UNPACKED_MOST: Final = 300_000_000
ROWS_MOST: Final = 100_000
_HEADER_ROWS: Final = 20
_PHONE_NAMES: Final = frozenset(
    {
        "sdt", "so_dt", "so_dien_thoai", "dien_thoai", "so_di_dong", "di_dong", "dtdd", "phone", "phone_number",
        "mobile", "msisdn", "to",
    }
)  # fmt: skip
_MEANS: Final[dict[str, tuple[str, str]]] = {
    "phone_missing": ("không có số điện thoại", "no phone"),
    "address_invalid": ("không phải số di động Việt Nam", "not a Vietnamese mobile number"),
    "number_premium": ("số dịch vụ tính phí", "a premium number"),
    "country_not_allowed": ("số của nước không được gửi tới", "a country that is not reached"),
    "two_numbers": ("có hai số trong một ô", "two numbers in one cell"),
    "field_missing": ("thiếu giá trị cho mẫu tin", "a value of the template is missing"),
    "value_too_long": ("giá trị quá dài", "a value is too long"),
    "sms_too_long": ("tin quá dài", "the text is too long"),
    "label_missing": ("thiếu nhãn đầu tin", "the label is missing"),
    "text_missing": ("không có nội dung", "there is no text"),
    "brandname_required": ("loại tin này cần tên định danh", "this class needs a brandname"),
    "template_not_registered": ("khác mẫu đã đăng ký với nhà mạng", "not a text the carrier has on file"),
}


class Problem(NamedTuple):
    """Why a row cannot be sent; its number as the spreadsheet shows it. Never the number or name itself."""

    row: int
    code: str
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        vi, en = _MEANS[self.code]
        more = f": {self.detail}" if self.detail else ""
        return {"row": self.row, "code": self.code, "vi": vi + more, "en": en + more}


@dataclass(frozen=True, slots=True)
class Recipient:
    """One person's phone, and what fills the gaps of a template for them."""

    row: int
    number: Number
    values: Mapping[str, str]


@dataclass(slots=True)
class Recipients:
    people: list[Recipient] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    #: Rows whose phone an earlier row had: nobody gets it twice.
    duplicates: int = 0
    rows: int = 0

    def networks(self) -> Counter[str]:
        return Counter(person.number.network for person in self.people)


def of_numbers(numbers: Iterable[str], values: Mapping[str, str], countries: Sequence[str]) -> Recipients:
    """Numbers somebody typed, all with the same values."""
    return _judged(((n, address, values) for n, address in enumerate(numbers, 1)), countries)


def of_file(path: Path, countries: Sequence[str]) -> Recipients:
    """Raises: InputError (``file-*``) when the file as a whole cannot be used."""
    return of_table(read_table(path), countries)


def of_table(table: Sequence[Sequence[Any]], countries: Sequence[str]) -> Recipients:
    header, names = _header(table)
    phone_column = next(i for i, name in enumerate(names) if name in _PHONE_NAMES)

    def rows() -> Iterable[tuple[int, str, Mapping[str, str]]]:
        for at, cells in enumerate(table[header + 1 :], header + 2):
            texts = [_text(cell) for cell in cells]
            if not any(texts):
                continue
            values = {name: text for name, text in zip(names, texts, strict=False) if name and name not in _PHONE_NAMES}
            yield at, texts[phone_column] if phone_column < len(texts) else "", values

    return _judged(rows(), countries)


def _judged(rows: Iterable[tuple[int, str, Mapping[str, str]]], countries: Sequence[str]) -> Recipients:
    found = Recipients()
    seen: set[str] = set()
    for row, address, values in rows:
        found.rows += 1
        if found.rows > ROWS_MOST:
            raise _refusal("file-too-long", f"quá {ROWS_MOST} dòng", f"more than {ROWS_MOST} rows")
        number = _number(address, countries)
        if not isinstance(number, Number):
            found.problems.append(Problem(row, number))
        elif number.msisdn in seen:
            found.duplicates += 1
        else:
            seen.add(number.msisdn)
            found.people.append(Recipient(row, number, values))
    return found


def _number(address: str, countries: Sequence[str]) -> Number | str:
    text = address.strip()
    if not text:
        return "phone_missing"
    pieces = [piece for piece in re.split(r"[/;,\n]| - | và | hoặc ", text) if sum(c.isdigit() for c in piece) >= 9]
    if len(pieces) > 1:
        return "two_numbers"
    # Excel took the number for a number: its first zero is gone.
    bare = re.sub(r"[ .\-]", "", text)
    return read_number("0" + bare if re.fullmatch(r"[35789][0-9]{8}|1[0-9]{9}", bare) else text, countries)


def _text(cell: Any) -> str:
    if cell is None or isinstance(cell, bool):
        return ""
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else str(cell)
    return normalise(str(cell))[0].strip()


def _header(table: Sequence[Sequence[Any]]) -> tuple[int, list[str]]:
    """The first of the upper rows that names a phone; lists begin with titles."""
    for at, cells in enumerate(table[:_HEADER_ROWS]):
        names = [folded(_text(cell)).lower().replace(" ", "_") for cell in cells]
        if any(name in _PHONE_NAMES for name in names):
            return at, names
    raise _refusal(
        "file-no-phone-column",
        "không thấy cột số điện thoại (ví dụ: Số điện thoại, SĐT)",
        "no column with phones was found (for example: phone)",
    )


def _refusal(problem: str, vi: str, en: str) -> InputError:
    return InputError(f"Không dùng được danh sách: {vi}; chưa gửi gì / cannot use the list: {en}; nothing was sent",
                      problem=problem)  # fmt: skip


# -- files -----------------------------------------------------------------------------------------


def read_table(path: Path) -> list[list[Any]]:
    """The cells of a CSV file or of the first sheet of a workbook."""
    try:
        if path.stat().st_size > _FILE_MOST:
            raise _refusal("file-too-big", "tệp lớn hơn 20 MB", "the file is larger than 20 MB")
        raw = path.read_bytes()
    except OSError as error:
        raise _refusal("file-missing", f"không đọc được tệp ({error.strerror})", f"no such file ({error.strerror})")\
            from None  # fmt: skip
    if raw.startswith(b"PK"):
        return _workbook(raw)
    return _comma_separated(raw)


def _workbook(raw: bytes) -> list[list[Any]]:
    from python_calamine import CalamineError, load_workbook

    broken = _refusal("file-broken", "tệp Excel hỏng", "the workbook is broken")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > _UNPACKED_MOST:
                raise _refusal("file-too-big", "tệp mở ra quá lớn", "it unpacks to too much")
        book = load_workbook(io.BytesIO(raw))
        return book.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except (CalamineError, zipfile.BadZipFile, OSError, ValueError, IndexError):
        raise broken from None
    except BaseException as error:
        # A panic of the native reader is no Exception; anything else (Ctrl-C) goes on its way.
        if type(error).__name__ == "PanicException":
            raise broken from None
        raise


def _comma_separated(raw: bytes) -> list[list[Any]]:
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise _refusal(
            "file-encoding", "tệp CSV phải là UTF-8; hãy lưu lại từ Excel dạng .xlsx", "a CSV file has to be UTF-8"
        ) from None
    head = text.partition("\n")[0]
    separator = max(";,\t", key=head.count)
    try:
        return [list(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator)]
    except csv.Error:
        raise _refusal("file-broken", "tệp CSV hỏng", "the CSV file is broken") from None
