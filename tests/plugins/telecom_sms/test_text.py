"""What is done to a text and to a number before sending."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.telecom_sms.text import Replaced, measure, normalise, to_msisdn


def test_typography_is_replaced_and_the_sender_is_told() -> None:
    assert normalise("“Chào”\u00a0anh – chị…") == (
        '"Chào" anh - chị...',
        (
            Replaced("“", '"', 1),
            Replaced("”", '"', 1),
            Replaced("\u00a0", " ", 1),
            Replaced("–", "-", 1),
            Replaced("…", "...", 1),
        ),
    )


def test_replacing_saves_segments() -> None:
    text = "Cong doan thong bao: “hop ngay mai”" + "." * 60
    assert measure(text).segments == 2
    assert measure(normalise(text)[0]).segments == 1


def test_decomposed_letters_are_composed_before_counting() -> None:
    decomposed = unicodedata.normalize("NFD", "Nguyễn Thị Mỹ")
    assert normalise(decomposed) == ("Nguyễn Thị Mỹ", ())


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00b\x07c", "abc"),
        ("zero\u200bwidth \u202eabc", "zerowidth abc"),
        ("\ud800", "?"),
        ("👨‍👩‍👧", "👨‍👩‍👧"),
        ("giá 5 €", "giá 5 €"),
    ],
)
def test_what_no_phone_shows_is_not_sent(text: str, sent: str) -> None:
    assert normalise(text)[0] == sent


@given(st.text(max_size=200))
def test_a_text_once_made_plain_stays_as_it_is(text: str) -> None:
    once, _ = normalise(text)
    assert normalise(once) == (once, ())


@pytest.mark.parametrize(
    "address", ["0912555123", "+84912555123", "84912555123", "0912 555 123", "0912.555.123", "+84-912-555-123"]
)
def test_a_mobile_number_has_one_form_however_it_is_written(address: str) -> None:
    assert to_msisdn(address) == "84912555123"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "0912",
        "02083555123",
        "1900555123",
        "+12025550123",
        "0612555123",
        "09125551234",
        "٠٩١٢٥٥٥١٢٣",
        "0912555123\n",
        "abc",
    ],
)
def test_what_is_no_vietnamese_mobile_number_is_refused(address: str) -> None:
    assert to_msisdn(address) is None
