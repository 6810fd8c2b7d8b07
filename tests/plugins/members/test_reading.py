"""A list becomes the people in it, in whatever order and shape the office typed them."""

from __future__ import annotations

from typing import Any

import pytest

from hub.errors import InputError
from plugins.members.codes import REFUSALS, ROW_NOTES, ROW_REASONS
from plugins.members.header import find_layout
from plugins.members.reading import Reading, read_list, read_sheets
from plugins.members.repair import Cell
from plugins.members.schema import Unit, unit_named
from plugins.members.workbook import Sheet

from .conftest import TODAY, Maker

SEEDS = (1, 7)
HEADER: list[Cell] = ["STT", "Họ và tên", "Ngày sinh", "Giới tính", "Số CCCD", "SĐT", "Mã đơn vị", "Cài app"]


def sheet(*rows: list[Cell], name: str = "DS", hidden: bool = False) -> Sheet:
    return Sheet(name, hidden, list(rows))


def read(*rows: list[Cell], unit: str | None = None) -> Reading:
    return read_sheets([sheet(HEADER, *rows)], TODAY, unit)


def codes(reading: Reading) -> list[str]:
    return [p.code for p in reading.problems]


def plain(reading: Reading) -> list[dict[str, Any]]:
    """The people as the simulator lists them."""
    people = [
        {
            "unit": p.unit_id, "full_name": p.full_name, "birth_date": p.birth_date, "sex": p.sex,
            "citizen_number": p.citizen_number, "phone": p.phone, "has_app": bool(p.has_app),
            "status": p.status or "active",
        }
        for p in reading.people
    ]  # fmt: skip
    return sorted(people, key=lambda t: (t["full_name"], t["birth_date"], t["unit"]))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_reader_finds_exactly_what_the_simulator_wrote(made: Maker, seed: int, shuffled: bool) -> None:
    path, expected = (m := made(seed, shuffled)).path, m.expected
    reading = read_list(path, TODAY)
    found = [{"sheet": p.sheet, "row": p.row, "column": p.column, "code": p.code} for p in reading.problems]
    noted = [{"sheet": p.sheet, "row": p.row, "column": p.column, "code": p.code} for p in reading.notes]
    assert found == expected["errors"]
    assert noted == expected["notes"]
    assert (reading.rows, reading.duplicates, reading.bad_rows) == (
        expected["rows"], expected["duplicates"], expected["bad_rows"],
    )  # fmt: skip
    assert plain(reading) == expected["members"]
    assert reading.units == {code: unit["name"] for code, unit in expected["units"].items()}
    assert reading.skipped_sheets == {"Hướng dẫn": "no_header", "DS 2024 (cũ)": "hidden"}
    assert reading.unread_columns == ["Ghi chú"]


def test_another_order_of_rows_gives_the_same_facts(made: Maker) -> None:
    first, other = read_list(made(7).path, TODAY), read_list(made(7, True).path, TODAY)
    assert sorted(p.canonical() for p in first.people) == sorted(p.canonical() for p in other.people)


def test_one_edited_cell_changes_one_person(made: Maker) -> None:
    before = {p.canonical() for p in read_list(made(7).path, TODAY).people}
    after = {p.canonical() for p in read_list(made(7, False, 3).path, TODAY).people}
    assert len(before - after) == len(after - before) == 1


def test_every_row_reason_has_a_vietnamese_and_an_english_text() -> None:
    for words in [*ROW_REASONS.values(), *ROW_NOTES.values(), *REFUSALS.values()]:
        assert not words.vi.isascii()
        assert words.en
    assert not ROW_REASONS.keys() & ROW_NOTES.keys()


@pytest.mark.parametrize(
    ("header", "below", "columns"),
    [
        (
            ["TT", "Họ tên đoàn viên", "Ngày sinh", "ĐTDĐ"],
            [1, "A", "", ""],
            {"number": 0, "full_name": 1, "birth_date": 2, "phone": 3},
        ),
        (
            ["STT", "Họ và tên", "Ngày sinh", "", "CCCD", "", "Số ĐT"],
            ["", "", "Nam", "Nữ", "Số", "Ngày cấp", ""],
            {"number": 0, "full_name": 1, "birth_date_male": 2, "birth_date_female": 3, "citizen_number": 4}
            | {"phone": 6},
        ),
        (
            ["STT", "Họ đệm", "Tên", "Nữ", "Số định danh cá nhân (12 số)"],
            [1, "Lê Thị", "Hoa", "x", ""],
            {"number": 0, "family_name": 1, "given_name": 2, "female_mark": 3, "citizen_number": 4},
        ),
        (
            ["Ho\u0323 va\u0300 te\u0302n", "NĂM SINH", "Điện thoại\nliên hệ"],
            [],
            {"full_name": 0, "birth_date": 1, "phone": 2},
        ),
    ],
)  # fmt: skip
def test_a_header_is_found_however_it_is_worded(header: list[Cell], below: list[Cell], columns: dict[str, int]) -> None:
    title: list[Cell] = ["DANH SÁCH ĐOÀN VIÊN", "", "", ""]
    layout = find_layout(sheet(title, [], header, below))
    assert layout is not None
    assert layout.columns == columns
    assert layout.header_row == 2


def test_a_file_without_a_member_list_is_refused_and_says_which_columns_it_needs() -> None:
    dues = sheet(["STT", "Nội dung", "Số tiền"], [1, "Thu đoàn phí", 1200000])
    with pytest.raises(InputError) as refused:
        read_sheets([dues, sheet(HEADER, hidden=True)], TODAY)
    assert refused.value.problem == "header-not-found"
    assert "Họ và tên" in str(refused.value)
    assert "Nothing was changed" in str(refused.value)


def test_rows_that_are_not_about_a_person_are_skipped_and_nobody_below_them_is_lost() -> None:
    reading = read(
        ["(1)", "(2)", "(3)", "(4)", "(5)", "(6)", "(7)", "(8)"],
        [1, "Tống Văn Cộng", "05/03/1985", "Nam", "", "0912555001", "U-1", ""],
        ["", "Cộng trang 1", "", "", "", "", "", 12],
        HEADER,
        ["", "Cộng Văn Tổng", "06/03/1985", "Nam", "", "0912555002", "U-1", "x"],
        ["Tổng cộng: 2 đoàn viên"],
        ["", "", "", "", "Thái Nguyên, ngày 05 tháng 11 năm 2026"],
        ["", "NGƯỜI LẬP BIỂU", "", "", "", "CHỦ TỊCH"],
        ["", "Lý Thị Mẫu"],
        # The office went on below the signatures.
        [3, "Ma Thị Sau", "07/03/1985", "Nữ", "", "", "U-1", ""],
    )
    assert codes(reading) == []
    assert [p.full_name for p in reading.people] == ["Tống Văn Cộng", "Cộng Văn Tổng", "Ma Thị Sau"]


def test_a_chairwoman_without_a_running_number_does_not_end_the_list() -> None:
    header: list[Cell] = ["STT", "Họ và tên", "Chức vụ", "Số CCCD", "Mã CĐCS"]
    reading = read_sheets(
        [sheet(header, ["", "Lê Thị Hoa", "Chủ tịch CĐCS", "", "U-1"], [2, "Ma Văn An", "", "019085001234", "U-1"])],
        TODAY,
    )
    assert codes(reading) == ["identity_missing"]
    assert [p.full_name for p in reading.people] == ["Ma Văn An"]


def test_the_unit_comes_from_the_row_the_section_the_title_or_the_option_in_this_order() -> None:
    header: list[Cell] = ["STT", "Họ và tên", "Ngày sinh", "Mã CĐCS"]
    rows: list[list[Cell]] = [[1, "Lê Thị Hoa", "05/03/1985", ""], [2, "Lê Thị Huệ", "05/03/1985", "cđcs-09"]]
    title: list[Cell] = ["Đơn vị: CĐCS Công ty May - Mã CĐCS: CDCS-12"]
    section: list[Cell] = ["II. CĐCS Nhà máy Cơ khí (CDCS-03)"]

    def units(*sheets: Sheet) -> list[str]:
        return sorted(p.unit_id for p in read_sheets(list(sheets), TODAY, "CDCS-01").people)

    assert units(sheet(header, *rows)) == ["CDCS-01", "CDCS-09"]
    assert units(sheet(title, header, *rows)) == ["CDCS-09", "CDCS-12"]
    assert units(sheet(title, header, section, *rows)) == ["CDCS-03", "CDCS-09"]
    assert codes(read_sheets([sheet(header, *rows)], TODAY)) == ["unit_missing"]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("I. CĐCS Công ty CP May (CDCS-01)", Unit("CDCS-01", "CĐCS Công ty CP May")),
        ("Đơn vị: CĐCS Trường Mầm non - Mã CĐCS: CDCS-12", Unit("CDCS-12", "CĐCS Trường Mầm non")),
        ("Nghiệp đoàn Vận tải, mã số: NĐ.7", Unit("ND.7", "Nghiệp đoàn Vận tải")),
        ("CĐCS Công ty TNHH An Mã", Unit("", "CĐCS Công ty TNHH An Mã")),
    ],
)
def test_a_unit_is_read_from_its_heading(text: str, unit: Unit) -> None:
    assert unit_named(text) == unit


def test_a_unit_named_without_a_code_takes_the_code_its_name_has_elsewhere_in_the_file() -> None:
    header: list[Cell] = ["STT", "Họ và tên", "Ngày sinh", "Mã CĐCS", "Tên CĐCS"]
    reading = read_sheets(
        [
            sheet(
                header,
                [1, "Lê Thị Hoa", "05/03/1985", "", "CĐCS May Sông Công"],
                [2, "Lê Thị Huệ", "05/03/1985", "CDCS-01", "CĐCS MAY SÔNG CÔNG"],
                [3, "Lê Thị Lan", "05/03/1985", "", "CĐCS Chưa Có Mã"],
            )
        ],
        TODAY,
    )
    assert [p.unit_id for p in reading.people] == ["CDCS-01", "CDCS-01", "CDCSCHUACOMA"]


def test_the_same_person_twice_is_one_and_the_fullest_row_wins_in_any_order() -> None:
    full: list[Cell] = [1, "Lê Thị Hoa", "05/03/1985", "Nữ", "019185001234", "0912555001", "U-1", "x"]
    less: list[Cell] = [2, "LÊ THỊ HOA", "05/03/1985", "Nữ", "", "", "U-1", "x"]
    for rows in ((full, less), (less, full)):
        reading = read(*rows)
        assert [p.phone for p in reading.people] == ["+84912555001"]
        assert (reading.duplicates, [n.code for n in reading.notes]) == (1, ["duplicate_differs"])


def test_a_namesake_without_a_citizen_number_is_not_guessed_at() -> None:
    one: list[Cell] = [1, "Lê Thị Hoa", "05/03/1985", "Nữ", "019185001234", "", "U-1", ""]
    two: list[Cell] = [2, "Lê Thị Hoa", "05/03/1985", "Nữ", "019185009999", "", "U-1", ""]
    who: list[Cell] = [3, "Lê Thị Hoa", "05/03/1985", "Nữ", "", "0912555001", "U-1", ""]
    reading = read(one, two, who)
    assert codes(reading) == ["person_ambiguous"]
    assert [p.has_namesake for p in reading.people] == [True, True]


def test_years_alone_tell_people_apart_only_within_a_unit() -> None:
    here: list[Cell] = [1, "Lê Thị Hoa", 1985, "Nữ", "", "", "U-1", ""]
    there: list[Cell] = [2, "Lê Thị Hoa", "1985", "Nữ", "", "", "U-2", ""]
    assert len(read(here, there).people) == 2
    assert len(read(here, here).people) == 1


def test_one_row_can_have_several_reasons_and_counts_once() -> None:
    reading = read([1, "", "31/02/1985", "?", "12", "12", "", "?"])
    assert sorted(codes(reading)) == [
        "app_mark_unclear", "birth_date_invalid", "citizen_number_length", "name_missing", "phone_invalid",
        "sex_unclear", "unit_missing",
    ]  # fmt: skip
    assert reading.bad_rows == 1


def test_a_problem_holds_no_value_of_the_row() -> None:
    reading = read([1, "Bí Mật", "31/02/1985", "Nam", "019185001234999", "0912", "U-1", ""])
    told = repr([p.as_json() for p in reading.problems])
    for secret in ("Bí Mật", "31/02/1985", "019185001234999", "'0912'"):
        assert secret not in told
