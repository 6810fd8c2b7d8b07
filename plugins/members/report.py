"""The report an office gets back: its own bad rows, as they were, with the reason beside each.

Sheet names, title block and header stay, so that the corrected report can be imported as it is.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime
from pathlib import Path
from typing import Any

from plugins.members.codes import words_for
from plugins.members.reading import Reading, Table
from plugins.members.repair import Cell, text_of
from plugins.members.schema import Problem

REASON_LABEL = "Lý do cần sửa"
ROW_LABEL = "Dòng trong tệp gốc"
#: First characters that make a spreadsheet compute, with their full-width twins. Source: OWASP, CSV injection.
_ACTIVE = tuple("=+-@\t\r\n＝＋－＠")


def write_report(path: Path, reading: Reading) -> int:
    """Writes the bad rows of ``reading`` to ``path``, readable by its owner only; answers how many rows.

    Every text is written as an inline string, never as a formula or a link.
    """
    import xlsxwriter

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "nan_inf_to_errors": True,
    }
    by_row: dict[tuple[str, int], list[Problem]] = defaultdict(list)
    for problem in reading.problems:
        by_row[problem.sheet, problem.row].append(problem)
    with xlsxwriter.Workbook(str(path), options) as book:
        # Excel keeps a text with this mark a text even after somebody edits the cell.
        quoted = book.add_format({"quote_prefix": True})
        for table in reading.tables:
            rows = sorted(number for sheet, number in by_row if sheet == table.sheet.name)
            if rows:
                _write_table(book.add_worksheet(table.sheet.name), quoted, table, rows, by_row)
        if not by_row:
            book.add_worksheet().write_string(0, 0, "Không có dòng nào cần sửa.")
    return len(by_row)


def _write_table(
    out: Any, quoted: Any, table: Table, rows: list[int], by_row: dict[tuple[str, int], list[Problem]]
) -> None:
    head = table.sheet.rows[: table.layout.first_row]
    width = max(len(row) for row in table.sheet.rows)
    out.set_column(0, width - 1, 16)
    out.set_column(width, width, 60)
    at = 0
    for cells in head:
        _write_row(out, quoted, at, cells)
        at += 1
    out.write_string(at - 1, width, REASON_LABEL)
    out.write_string(at - 1, width + 1, ROW_LABEL)
    section: int | None = None
    for number in rows:
        if table.section_of.get(number) != section:
            section = table.section_of.get(number)
            if section is not None:
                _write_row(out, quoted, at, table.sheet.rows[section])
                at += 1
        _write_row(out, quoted, at, table.sheet.rows[number - 1])
        out.write_string(at, width, _reasons(by_row[table.sheet.name, number]))
        out.write_number(at, width + 1, number)
        at += 1


def _reasons(problems: list[Problem]) -> str:
    return " ".join(f"{p.label or p.column}: {words_for(p.code).vi}" for p in problems)


def _write_row(out: Any, quoted: Any, at: int, cells: list[Cell]) -> None:
    for index, cell in enumerate(cells):
        if isinstance(cell, int | float) and not isinstance(cell, bool):
            out.write_number(at, index, cell)
            continue
        # An untouched text, not the cleaned one: the office must recognise its own row.
        text = cell if isinstance(cell, str) else text_of(cell)
        if isinstance(cell, datetime | date):
            text = cell.strftime("%d/%m/%Y")
        if text:
            out.write_string(at, index, text[:32767], quoted if text.startswith(_ACTIVE) else None)
