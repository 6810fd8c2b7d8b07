"""A list of people to be written to: read from CSV or Excel, every row judged before anything is sent."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from hub.errors import InputError

from .numbers import Number, read_number
from .text import folded, normalise

_FILE_MOST: Final = 20_000_000
_UNPACKED_MOST: Final = 300_000_000
ROWS_MOST: Final = 100_000
#: Rows that are objects at once, and messages in one transaction.
PAGE: Final = 200
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
    """People and problems of a list, or of a page of it."""

    people: list[Recipient] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    #: Rows whose phone an earlier row had: nobody gets it twice.
    duplicates: int = 0
    rows: int = 0

    def networks(self) -> Counter[str]:
        return Counter(person.number.network for person in self.people)


#: Number of the row, its phone, and its other cells by the names of their columns.
Row = tuple[int, str, Mapping[str, str]]


class Listed:
    """A list that is gone through a page at a time, as often as one likes: a long one is never held as objects."""

    def __init__(self, rows: Callable[[], Iterable[Row]], countries: Sequence[str]) -> None:
        self._rows = rows
        self._countries = countries

    def pages(self) -> Iterator[Recipients]:
        """In the order of the list, at most ``PAGE`` rows each. Raises: InputError (``file-*``)."""
        # Numbers take a third of the memory of their digits.
        seen: set[int] = set()
        page = Recipients()
        for count, (row, address, values) in enumerate(self._rows(), 1):
            if count > ROWS_MOST:
                raise _refusal("file-too-long", f"quá {ROWS_MOST} dòng", f"more than {ROWS_MOST} rows")
            page.rows += 1
            number = _number(address, self._countries)
            if not isinstance(number, Number):
                page.problems.append(Problem(row, number))
            elif int(number.msisdn) in seen:
                page.duplicates += 1
            else:
                seen.add(int(number.msisdn))
                page.people.append(Recipient(row, number, values))
            if page.rows == PAGE:
                yield page
                page = Recipients()
        if page.rows:
            yield page

    def whole(self) -> Recipients:
        """For short lists."""
        found = Recipients()
        for page in self.pages():
            found.people += page.people
            found.problems += page.problems
            found.duplicates += page.duplicates
            found.rows += page.rows
        return found


def of_numbers(numbers: Sequence[str], values: Mapping[str, str], countries: Sequence[str]) -> Listed:
    """Numbers somebody typed, all with the same values."""
    return Listed(lambda: ((n, address, values) for n, address in enumerate(numbers, 1)), countries)


def of_file(path: Path, countries: Sequence[str]) -> Listed:
    """Raises: InputError (``file-*``) when the file as a whole cannot be used."""
    return of_table(read_table(path), countries)


def of_table(table: Callable[[], Iterable[Sequence[Any]]], countries: Sequence[str]) -> Listed:
    """``table`` gives the cells row by row, from the first one on each time it is called."""
    header, names = _header(table())
    phone_column = next(i for i, name in enumerate(names) if name in _PHONE_NAMES)

    def rows() -> Iterator[Row]:
        for at, cells in enumerate(islice(table(), header + 1, None), header + 2):
            texts = [_text(cell) for cell in cells]
            if not any(texts):
                continue
            values = {name: text for name, text in zip(names, texts, strict=False) if name and name not in _PHONE_NAMES}
            yield at, texts[phone_column] if phone_column < len(texts) else "", values

    return Listed(rows, countries)


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


def _header(table: Iterable[Sequence[Any]]) -> tuple[int, list[str]]:
    """The first of the upper rows that names a phone; lists begin with titles."""
    for at, cells in enumerate(islice(table, _HEADER_ROWS)):
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


def read_table(path: Path) -> Callable[[], Iterator[Sequence[Any]]]:
    """The cells of a CSV file or of the first sheet of a workbook, row by row; only the file's bytes are kept."""
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


def _workbook(raw: bytes) -> Callable[[], Iterator[Sequence[Any]]]:
    from python_calamine import load_workbook

    broken = _refusal("file-broken", "tệp Excel hỏng", "the workbook is broken")

    with _no_panic(broken), zipfile.ZipFile(io.BytesIO(raw)) as packed:
        if sum(entry.file_size for entry in packed.infolist()) > _UNPACKED_MOST:
            raise _refusal("file-too-big", "tệp mở ra quá lớn", "it unpacks to too much")

    def rows() -> Iterator[Sequence[Any]]:
        with _no_panic(broken):
            # From the sheet's first row on, empty or not: row numbers are those a person sees.
            yield from load_workbook(io.BytesIO(raw)).get_sheet_by_index(0).iter_rows()

    return rows


@contextmanager
def _no_panic(broken: InputError) -> Iterator[None]:
    from python_calamine import CalamineError

    try:
        yield
    except (CalamineError, zipfile.BadZipFile, OSError, ValueError, IndexError):
        raise broken from None
    except BaseException as error:
        # A panic of the native reader is no Exception; anything else (Ctrl-C) goes on its way.
        if type(error).__name__ == "PanicException":
            raise broken from None
        raise


def _comma_separated(raw: bytes) -> Callable[[], Iterator[Sequence[Any]]]:
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"

    def text() -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(raw), encoding=encoding, newline="")

    try:
        for _ in text():
            pass
    except UnicodeDecodeError:
        raise _refusal(
            "file-encoding", "tệp CSV phải là UTF-8; hãy lưu lại từ Excel dạng .xlsx", "a CSV file has to be UTF-8"
        ) from None
    separator = max(";,\t", key=text().readline().count)

    def rows() -> Iterator[Sequence[Any]]:
        try:
            yield from csv.reader(text(), delimiter=separator)
        except csv.Error:
            raise _refusal("file-broken", "tệp CSV hỏng", "the CSV file is broken") from None

    return rows
