"""Alphabets and splitting, against the simulator's own reading and an independent count."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smpplib import gsm as oracle

from plugins.telecom_sms.simulator import wire
from plugins.telecom_sms.smpp import gsm, split
from plugins.telecom_sms.text import measure

EXTENDED = "^{}[]~\\|€\f"
GSM_TEXT = st.text(st.sampled_from("abcdef ÅÄÖñüàΔΩ@£§¿\n0123" + EXTENDED), max_size=700)
ANY_TEXT = st.text(
    st.one_of(
        st.sampled_from("Công đoàn gửi anh chị đoàn viên ạ ấ ợ ữ ỷ Đ [] € 🎉 👨‍👩‍👧"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=400,
)


def join(parts: list[bytes], coding: int) -> str:
    """As a phone joins them: by the numbers in the headers, whatever the order of arrival."""
    if len(parts) == 1:
        return wire.text_of(parts[0], coding)
    submits = [wire.Submit(b"", b"", b"", b"", True, False, coding, part) for part in reversed(parts)]
    read = sorted(wire.read_part(submit) for submit in submits)
    assert [part[2] for part in read] == list(range(1, len(parts) + 1))
    assert {part[1] for part in read} == {len(parts)}
    return wire.text_of(b"".join(part[3] for part in read), coding)


@pytest.mark.parametrize("bits", [8, 16])
@given(text=st.one_of(GSM_TEXT, ANY_TEXT), reference=st.integers(0, 0xFFFF))
def test_split_then_joined_is_the_text(bits: int, text: str, reference: int) -> None:
    plan = split.plan(text, bits)
    parts = plan.user_data(reference)
    assert join(parts, plan.data_coding) == text
    # Octets on the air: 7-bit text packs 8 characters into 7 octets.
    for part in parts:
        header = part[0] + 1 if len(parts) > 1 else 0
        body = len(part) - header
        assert header + (body * 7 + 7) // 8 <= 140 if plan.data_coding == 0 else len(part) <= 140


@given(st.one_of(GSM_TEXT, ANY_TEXT))
def test_the_count_agrees_with_an_independent_one(text: str) -> None:
    letters = set(oracle.GSM_CHARACTER_TABLE[:128]) - {"\x1b", "`"} | {"§"}
    extended = set(EXTENDED)
    if set(text) <= letters | extended:
        costs, single, part = [2 if letter in extended else 1 for letter in text], 160, 153
    else:
        costs, single, part = [len(letter.encode("utf-16-le")) // 2 for letter in text], 70, 67
    segments, room = 1, part
    if sum(costs) > single:
        for cost in costs:
            if cost > room:
                segments, room = segments + 1, part
            room -= cost
    assert measure(text) == ("GSM-7" if single == 160 else "UCS-2", sum(costs), segments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("GSM-7", 0, 1)),
        ("a" * 160, ("GSM-7", 160, 1)),
        ("a" * 161, ("GSM-7", 161, 2)),
        ("a" * 306, ("GSM-7", 306, 2)),
        ("a" * 307, ("GSM-7", 307, 3)),
        ("ạ" * 70, ("UCS-2", 70, 1)),
        ("ạ" * 71, ("UCS-2", 71, 2)),
        ("ạ" * 134, ("UCS-2", 134, 2)),
        ("ạ" * 135, ("UCS-2", 135, 3)),
        ("[" * 80, ("GSM-7", 160, 1)),
        ("[" * 81, ("GSM-7", 162, 2)),
        # 153 is odd: the 77th bracket does not fit and takes its escape along.
        ("[" * 153, ("GSM-7", 306, 3)),
        ("🎉" * 35, ("UCS-2", 70, 1)),
        # 67 is odd: 33 pairs to a part.
        ("🎉" * 67, ("UCS-2", 134, 3)),
    ],
)
def test_lengths_stand_in_a_table(text: str, expected: tuple[str, int, int]) -> None:
    assert measure(text) == expected


def test_sixteen_bit_references_leave_one_place_less() -> None:
    assert measure("a" * 306, 16).segments == 3
    assert measure("ạ" * 134, 16).segments == 3
    assert measure("a" * 304, 16).segments == 2


@pytest.mark.parametrize("letter", [letter for letter in gsm.SEPTETS if letter not in "`§"])
def test_smpplib_writes_the_same_septets(letter: str) -> None:
    # Except ` and §, which it confuses, and the form feed it does not know.
    if letter == "\f":
        return
    assert gsm.encode(letter) == oracle.gsm_encode(letter)


def test_the_alphabet_has_128_places_and_ten_more() -> None:
    assert len(gsm.SEPTETS) == 127 + 10
    assert all(gsm.decode(septets) == letter for letter, septets in gsm.SEPTETS.items())


def test_of_vietnamese_letters_only_seven_are_in_the_alphabet() -> None:
    letters = {
        unicodedata.normalize("NFC", base + tone)
        for base in "aăâeêioôơuưyđAĂÂEÊIOÔƠUƯYĐ"
        for tone in ("", "\u0300", "\u0301", "\u0309", "\u0303", "\u0323")
        if base not in "đĐ" or not tone
    }
    accented = {letter for letter in letters if not letter.isascii()}
    assert {letter for letter in accented if gsm.fits(letter)} == set("àèéìòùÉ")


@given(st.binary(max_size=60))
def test_a_header_that_lies_never_raises(data: bytes) -> None:
    concat, rest = split.read_header(data)
    assert data.endswith(rest)
    assert concat is None or 1 <= concat.part <= concat.total


def test_headers_with_other_elements_before_the_joining_one_are_read() -> None:
    assert split.read_header(bytes.fromhex("0a 24 01 01 00 03 07 0c 0b 01 00") + b"x") == ((7, 12, 11), b"x")
    assert split.read_header(bytes.fromhex("06 08 04 12 34 0c 0b") + b"x") == ((0x1234, 12, 11), b"x")
    assert split.read_header(b"") == (None, b"")
