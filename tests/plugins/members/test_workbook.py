"""Files nobody vouches for: refused with the reason and what to do, or read."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import xlsxwriter
from openpyxl import Workbook

from hub.errors import InputError
from plugins.members import workbook
from plugins.members.workbook import column_letters, open_workbook

from .conftest import Maker

SHEET = "xl/worksheets/sheet1.xml"


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        open_workbook(path)
    vietnamese, _, english = str(caught.value).partition("\n")
    assert "Chưa có gì được ghi." in vietnamese
    assert "Nothing was changed." in english
    return caught.value


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "nhỏ.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        book.add_worksheet("A").write(2, 1, "x")
    return path


def rebuilt(
    source: Path, target: Path, change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    """The archive of ``source`` with other parts."""
    with zipfile.ZipFile(source) as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return target


def test_a_sheet_is_a_rectangle_from_a1(small: Path) -> None:
    (sheet,) = open_workbook(small)
    assert sheet.rows == [["", ""], ["", ""], ["", "x"]]


def test_a_workbook_of_another_writer_reads_too(tmp_path: Path) -> None:
    book = Workbook()
    assert book.active is not None
    book.active.append(["Họ và tên", 1.5, None, True])
    book.create_sheet("ẩn").sheet_state = "hidden"
    book.save(tmp_path / "o.xlsx")
    sheets = open_workbook(tmp_path / "o.xlsx")
    assert sheets[0].rows == [["Họ và tên", 1.5, "", True]]
    assert [s.hidden for s in sheets] == [False, True]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "file-not-excel"), (b"<html><table><tr><td>STT</td></tr></table></html>", "file-not-excel"),
        (b"STT,H\xe1\xbb\x8d t\xc3\xaan\n", "file-not-excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "file-old-excel"),
        (b"PK\x03\x04" + bytes(100), "file-broken"),
    ],
)  # fmt: skip
def test_what_is_no_workbook_is_refused_by_its_first_bytes(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "danh sách.xlsx"
    path.write_bytes(content)
    assert refused(path).problem == problem


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "không có.xlsx").problem == "file-missing"
    assert refused(tmp_path).problem == "file-missing"


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "to.xlsx"
    with path.open("wb") as file:
        file.truncate(workbook.MAX_FILE_BYTES + 1)
    error = refused(path)
    assert (error.problem, error.http_status) == ("file-too-big", 413)
    assert "20 MB" in str(error)


def test_a_truncated_file_is_refused_wherever_it_was_cut(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    dice = random.Random(2)
    for length in dice.sample(range(4, len(whole) - 1), 40):
        path = tmp_path / "cắt.xlsx"
        path.write_bytes(whole[:length])
        assert refused(path).problem in {"file-broken", "file-not-excel"}


def test_flipped_bytes_give_a_refusal_or_a_reading_and_nothing_else(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    dice = random.Random(3)
    path = tmp_path / "hỏng.xlsx"
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(dice.randint(1, 6)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        path.write_bytes(broken)
        with suppress(InputError):
            open_workbook(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(small: Path, tmp_path: Path) -> None:
    path = rebuilt(small, tmp_path / "bom.xlsx", lambda p: p.update({"xl/bomb.xml": bytes(60 * 1024 * 1024)}))
    assert path.stat().st_size < 100_000
    assert refused(path).problem == "archive-unsafe"


def test_too_many_entries_are_refused(small: Path, tmp_path: Path) -> None:
    def many(parts: dict[str, bytes]) -> None:
        parts.update({f"xl/media/{i}.png": b"" for i in range(workbook.MAX_ENTRIES)})

    assert refused(rebuilt(small, tmp_path / "nhiều.xlsx", many)).problem == "archive-unsafe"


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/etc/passwd", "xl\\..\\x", "C:/x", "xl/../../x"])
def test_names_that_leave_the_archive_are_refused(small: Path, tmp_path: Path, name: str) -> None:
    path = rebuilt(small, tmp_path / "trượt.xlsx", lambda p: p.update({name: b"x"}))
    assert refused(path).problem == "archive-unsafe"


def test_a_link_and_two_entries_of_one_name_are_refused(small: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("xl/link")
    link.external_attr = 0o120777 << 16
    for extra in (link, zipfile.ZipInfo("XL/Workbook.xml")):
        path = tmp_path / "x.xlsx"
        path.write_bytes(small.read_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(extra, "/etc/passwd")
        assert refused(path).problem == "archive-unsafe"


def _central_directory_with(raw: bytes, change: Callable[[bytearray, int], None]) -> bytes:
    """``raw`` with ``change`` applied to the directory record of the first sheet."""
    changed = bytearray(raw)
    at = changed.find(b"PK\x01\x02")
    while at >= 0:
        length = struct.unpack_from("<H", changed, at + 28)[0]
        if changed[at + 46 : at + 46 + length] == SHEET.encode():
            change(changed, at)
            return bytes(changed)
        at = changed.find(b"PK\x01\x02", at + 4)
    raise AssertionError("no such entry")


@pytest.mark.parametrize(
    ("what", "problem"),
    [("encrypted", "archive-unsafe"), ("crc", "file-broken"), ("size", "file-broken"), ("overlap", "archive-unsafe")],
)
def test_a_lying_directory_is_refused(small: Path, tmp_path: Path, what: str, problem: str) -> None:
    def lie(raw: bytearray, at: int) -> None:
        if what == "encrypted":
            struct.pack_into("<H", raw, at + 8, struct.unpack_from("<H", raw, at + 8)[0] | 1)
        elif what == "crc":
            struct.pack_into("<I", raw, at + 16, 12345)
        elif what == "size":
            struct.pack_into("<I", raw, at + 24, 10)
        else:
            struct.pack_into("<I", raw, at + 42, 0)

    path = tmp_path / "dối.xlsx"
    path.write_bytes(_central_directory_with(small.read_bytes(), lie))
    assert refused(path).problem == problem


def test_one_cell_in_the_far_corner_is_refused_and_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "góc.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        sheet.write(0, 0, "x")
        sheet.write(1_048_575, 16_383, "x")
    assert refused(path).problem == "sheet-too-big"


def test_formats_left_far_below_the_list_are_no_reason_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "định dạng.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        sheet.write(0, 0, "x")
        sheet.write_blank(1_048_575, 16_383, None, book.add_format({"bold": True}))
    assert open_workbook(path)[0].rows == [["x"]]


def test_one_long_text_named_by_every_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dài.xlsx"
    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet()
        for row in range(4_000):
            for column in range(2):
                sheet.write_string(row, column, "a" * 32_000)
    assert path.stat().st_size < 200_000
    assert refused(path).problem == "archive-unsafe"


@pytest.mark.parametrize(
    "doctype", [b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', b'<!DOCTYPE x [<!ENTITY a "lol">]>']
)
def test_a_document_type_inside_a_part_is_refused(small: Path, tmp_path: Path, doctype: bytes) -> None:
    def declare(parts: dict[str, bytes]) -> None:
        head, _, rest = parts[SHEET].partition(b"?>")
        parts[SHEET] = head + b"?>" + doctype + rest

    assert refused(rebuilt(small, tmp_path / "dtd.xlsx", declare)).problem == "archive-unsafe"


def test_broken_xml_inside_is_refused(small: Path, tmp_path: Path) -> None:
    path = rebuilt(small, tmp_path / "xml.xlsx", lambda p: p.update({SHEET: p[SHEET][:-30]}))
    assert refused(path).problem == "file-broken"


def test_an_archive_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    (tmp_path / "văn bản.xlsx").write_bytes(buffer.getvalue())
    assert refused(tmp_path / "văn bản.xlsx").problem == "file-not-excel"


def test_the_sample_lists_are_read(made: Maker) -> None:
    assert len(open_workbook(made(7).path)) == 6


def test_columns_are_named_as_excel_does() -> None:
    assert [column_letters(i) for i in (0, 25, 26, 701, 702, 16383)] == ["A", "Z", "AA", "ZZ", "AAA", "XFD"]
