"""The report: the office's own rows with the reason, harmless to open, ready to be corrected and imported."""

from __future__ import annotations

import zipfile
from datetime import date
from pathlib import Path

import openpyxl
import pytest

from plugins.members.reading import read_list, read_sheets
from plugins.members.repair import Cell
from plugins.members.report import REASON_LABEL, ROW_LABEL, write_report
from plugins.members.workbook import Sheet

from .conftest import TODAY, Maker

HEADER: list[Cell] = ["STT", "Họ và tên", "Ngày sinh", "SĐT", "Mã đơn vị", "Ghi chú"]


def test_every_bad_row_is_there_with_its_reason_and_its_row_number(made: Maker, tmp_path: Path) -> None:
    reading = read_list(made(7).path, TODAY)
    out = tmp_path / "loi.xlsx"
    assert write_report(out, reading) == reading.bad_rows == made(7).expected["bad_rows"]
    rows: set[tuple[str, int]] = set()
    for sheet in openpyxl.load_workbook(out).worksheets:
        labels = [(c.row, c.column) for row in sheet.iter_rows() for c in row if c.value == ROW_LABEL]
        ((header, column),) = labels
        for row in sheet.iter_rows(min_row=header + 1, values_only=True):
            if isinstance(number := row[column - 1], int | float):
                rows.add((sheet.title, int(number)))
                assert str(row[column - 2]).endswith((".", "0."))
    assert rows == {(p.sheet, p.row) for p in reading.problems}


def test_the_report_itself_reads_as_a_list_with_the_same_reasons(made: Maker, tmp_path: Path) -> None:
    reading = read_list(made(7).path, TODAY)
    write_report(tmp_path / "loi.xlsx", reading)
    again = read_list(tmp_path / "loi.xlsx", TODAY)
    assert again.rows == again.bad_rows == reading.bad_rows
    assert sorted(p.code for p in again.problems) == sorted(p.code for p in reading.problems)
    assert again.units.keys() <= reading.units.keys()


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://127.0.0.1/","x")',
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "＝1+1",
        "＋1",
        "－1",
        "＠x",
        "=cmd|' /C calc'!A0",
    ],
)
def test_a_cell_that_could_compute_is_written_as_a_plain_text(tmp_path: Path, text: str) -> None:
    row: list[Cell] = [1, "Lê Thị Hoa", "31/02/1985", "", "U-1", text]
    out = tmp_path / "loi.xlsx"
    assert write_report(out, read_sheets([Sheet("DS", False, [HEADER, row])], TODAY)) == 1
    cell = openpyxl.load_workbook(out)["DS"]["F2"]
    assert (cell.data_type, cell.quotePrefix) == ("s", True)
    # Excel's own way to write a carriage return into XML.
    assert str(cell.value).replace("_x000D_", "\r") == text
    with zipfile.ZipFile(out) as archive:
        xml = archive.read("xl/worksheets/sheet1.xml")
        assert "xl/externalLinks" not in "".join(archive.namelist())
    assert b"<f>" not in xml
    assert b"<hyperlink" not in xml
    assert b't="inlineStr"' in xml


def test_numbers_and_dates_stay_what_they_were(tmp_path: Path) -> None:
    row: list[Cell] = [1, "Lê Thị Hoa", date(2020, 3, 5), 912555123.0, "U-1", ""]
    out = tmp_path / "loi.xlsx"
    write_report(out, read_sheets([Sheet("DS", False, [HEADER, row])], TODAY))
    sheet = openpyxl.load_workbook(out)["DS"]
    assert [sheet["C2"].value, sheet["D2"].value, sheet["G1"].value] == ["05/03/2020", 912555123, REASON_LABEL]


def test_only_its_owner_may_read_the_report(tmp_path: Path) -> None:
    out = tmp_path / "mới" / "loi.xlsx"
    write_report(out, read_sheets([Sheet("DS", False, [HEADER])], TODAY))
    assert out.stat().st_mode & 0o777 == 0o600
