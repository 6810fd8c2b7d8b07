"""What a cell means, whatever Excel and the typist did to it."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.members import repair
from plugins.members.repair import Unusable

TODAY = date(2026, 11, 23)

prefixes = st.sampled_from(["032", "039", "056", "070", "079", "081", "085", "086", "091", "092", "093", "096", "098"])
mobiles = st.builds(lambda prefix, rest: f"{prefix}{rest:07}", prefixes, st.integers(0, 9_999_999))


@st.composite
def citizens(draw: st.DrawFn) -> tuple[str, str, int]:
    """A right citizen number with its sex and year of birth."""
    province = draw(st.sampled_from(sorted(repair.PROVINCES)))
    year = draw(st.integers(1926, 2011))
    sex = draw(st.sampled_from(("male", "female")))
    digit = 2 * ((year - 1900) // 100) + (sex == "female")
    return f"{province}{digit}{year % 100:02}{draw(st.integers(0, 999_999)):06}", sex, year


def code_of(read: Any, *args: Any) -> str:
    with pytest.raises(Unusable) as caught:
        read(*args)
    return caught.value.code


@given(mobiles)
def test_a_phone_reads_the_same_in_every_way_it_is_typed(number: str) -> None:
    try:
        expected = repair.phone(number).value
    except Unusable:
        return  # a block nobody was given
    assert expected == "+84" + number[1:]
    spaced, dotted = f"{number[:4]} {number[4:7]} {number[7:]}", f"{number[:4]}.{number[4:7]}.{number[7:]}"
    bare, far = number[1:], "84" + number[1:]
    ways: list[Any] = [
        int(number), float(number), spaced, dotted, bare, far, "+" + far, "00" + far,
        "+84 (0)" + bare, f" {number}\u00a0",
        f"'{number}", f"{bare}.0", f"{float(bare):.8E}", f"{number[:4]}-{number[4:]}", f"{number}/ {number}",
    ]  # fmt: skip
    for typed in ways:
        assert repair.phone(typed).value == expected, typed


@given(st.sampled_from(sorted(repair.OLD_PREFIXES.items())), st.integers(0, 9_999_999))
def test_an_eleven_digit_number_reads_as_the_one_it_became(prefix: tuple[str, str], rest: int) -> None:
    old, new = prefix
    try:
        expected = repair.phone(f"{new}{rest:07}")
    except Unusable:
        return
    assert repair.phone(f"{old}{rest:07}") == repair.phone(int(f"{old}{rest:07}")) == expected


@given(mobiles)
def test_a_repaired_phone_repairs_to_itself(number: str) -> None:
    try:
        once = repair.phone(number).value
    except Unusable:
        return
    assert repair.phone(once).value == once


@given(st.one_of(st.text(max_size=30), st.floats(), st.integers(), st.booleans(), st.dates(), st.none()))
def test_no_cell_makes_a_reader_fail_otherwise_than_with_a_reason(cell: Any) -> None:
    readers: list[Any] = [
        repair.phone,
        repair.sex,
        repair.status,
        lambda c: repair.citizen_number(c, "male", 1985),
        lambda c: repair.birth_date(c, TODAY),
        lambda c: repair.joined_on(c, TODAY),
        lambda c: repair.mark(c, "app_mark_unclear"),
        lambda c: repair.full_name(repair.text_of(c)),
    ]
    for read in readers:
        with suppress(Unusable):
            read(cell)


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("0912 55", "phone_invalid"), ("0412555123", "phone_invalid"), ("gọi vợ", "phone_invalid"),
        ("+1 202 555 0123", "phone_invalid"), ("09125551234", "phone_invalid"), (9.1e20, "phone_invalid"),
        (date(2020, 1, 1), "phone_invalid"), ("0208 3855 123", "phone_not_mobile"), ("113", "phone_invalid"),
    ],
)  # fmt: skip
def test_a_wrong_phone_says_what_is_wrong(cell: Any, code: str) -> None:
    assert code_of(repair.phone, cell) == code


@pytest.mark.parametrize("cell", [None, "", "  ", "không có", "Không", "-", "ko"])
def test_a_cell_that_says_there_is_no_phone_is_no_error(cell: Any) -> None:
    assert repair.phone(cell) == (None, None)


def test_of_two_phones_in_a_cell_the_first_is_taken_and_noted() -> None:
    assert repair.phone("0912 555 123 / 0978.555.124") == ("+84912555123", "phone_two_numbers")


@given(citizens())
def test_a_citizen_number_gets_its_lost_zeros_back(given_: tuple[str, str, int]) -> None:
    number, sex, year = given_
    spaced = f"{number[:3]} {number[3:6]} {number[6:]}"
    for typed in (number, int(number), float(number), spaced, f"'{number}", number.lstrip("0")):
        assert repair.citizen_number(typed, sex, year).value == number


@given(citizens())
def test_a_citizen_number_must_fit_sex_and_year(given_: tuple[str, str, int]) -> None:
    number, sex, year = given_
    other = "female" if sex == "male" else "male"
    assert code_of(repair.citizen_number, number, other, year) == "citizen_number_sex"
    assert code_of(repair.citizen_number, number, sex, year + 1) == "citizen_number_birth_year"
    assert repair.citizen_number(number, None, None).value == number


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("0191850012345", "citizen_number_length"), ("01918500", "citizen_number_length"),
        ("091850012", "citizen_number_old"), (91850012, "citizen_number_length"),
        ("0191850O1234", "citizen_number_invalid"),
        # Eleven digits typed as text: a digit is missing, and putting a zero before them gives another person.
        ("01918500123", "citizen_number_length"), (date(2020, 1, 1), "citizen_number_invalid"),
    ],
)  # fmt: skip
def test_a_wrong_citizen_number_says_what_is_wrong(cell: Any, code: str) -> None:
    assert code_of(repair.citizen_number, cell, "female", 1985) == code


def test_an_unknown_province_is_noted_and_not_refused() -> None:
    assert repair.citizen_number("099185001234", "female", 1985) == ("099185001234", "citizen_number_province")


@given(st.dates(date(1930, 1, 1), date(2011, 1, 1)))
def test_a_birth_date_reads_the_same_in_every_way_it_is_typed(born: date) -> None:
    d, m, y = born.day, born.month, born.year
    serial = (born - date(1899, 12, 30)).days
    ways: list[Any] = [
        born, serial, float(serial), f"{d:02}/{m:02}/{y}", f"{d}.{m}.{y}", f"{d}-{m}-{y}", f" {d} / {m} / {y} ",
        born.isoformat(), f"{born.isoformat()} 00:00:00", f"{d:02}/{m:02}/{y % 100:02}",
    ]  # fmt: skip
    for typed in ways:
        assert repair.birth_date(typed, TODAY) == born.isoformat(), typed
    assert repair.birth_date(y, TODAY) == repair.birth_date(str(y), TODAY) == str(y)
    assert repair.birth_date(f"{m}/{y}", TODAY) == f"{y}-{m:02}"


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("31/02/1990", "birth_date_invalid"), ("13/13/1985", "birth_date_invalid"),
        ("khoảng 1980", "birth_date_invalid"), ("?", "birth_date_invalid"),
        ("1/2/3/1985", "birth_date_invalid"), (12, "birth_date_invalid"), (float("nan"), "birth_date_invalid"),
        ("01/09/2024", "birth_date_range"), ("1890", "birth_date_range"), ("05/03/12", "birth_date_range"),
    ],
)  # fmt: skip
def test_a_wrong_birth_date_says_what_is_wrong(cell: Any, code: str) -> None:
    assert code_of(repair.birth_date, cell, TODAY) == code


def test_names_are_kept_in_nfc_with_single_spaces_and_capitals() -> None:
    name = "Nguyễn Thị Mỹ"
    for typed in (
        unicodedata.normalize("NFD", name),
        "  Nguyễn   Thị\u00a0Mỹ ",
        name.upper(),
        name.lower(),
        "Nguyễn\u200b Thị Mỹ",
    ):
        assert repair.full_name(typed) == name
    assert code_of(repair.full_name, "NguyÔn V¨n ¸nh") == "name_invalid"
    assert code_of(repair.full_name, " ") == "name_missing"


def test_names_match_whatever_the_place_of_the_tone_but_keep_their_tones() -> None:
    assert repair.name_key("Lê Thị Hoà") == repair.name_key("LÊ THỊ HÒA")
    assert repair.name_key("Lê Thị Hoa") != repair.name_key("Lê Thị Hòa")
    assert repair.name_key("Đỗ Thuỷ") == repair.name_key("Đỗ Thủy") != repair.name_key("Do Thủy")


def test_a_masked_phone_shows_four_and_three_digits() -> None:
    assert repair.masked("+84912555456") == "0912***456"
    assert repair.masked(None) == ""


@given(st.integers(0, 400))
def test_ages_from_15_to_100_are_taken(days: int) -> None:
    assert repair.birth_date(date(2011, 12, 31) - timedelta(days=days), TODAY)
    assert repair.birth_date(date(1926, 1, 1) + timedelta(days=days), TODAY)
