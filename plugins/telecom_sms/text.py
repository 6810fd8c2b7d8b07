"""What is done to a text before it is sent, and what sending it costs in segments (tin tính cước)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Final, NamedTuple

from .numbers import to_msisdn as to_msisdn
from .smpp import split

#: Typography that turns a cheap 160-character message into a 70-character one for nothing.
_TYPOGRAPHY: Final[dict[str, str]] = {
    **dict.fromkeys("“”„‟″«»", '"'),
    **dict.fromkeys("‘’‚‛′", "'"),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\t", " "),
    # Line and paragraph separators are line ends to whoever wrote them.
    **dict.fromkeys("\u2028\u2029", "\n"),
    "…": "...",
    # Invisible: soft hyphen, zero-width space, word joiner, byte order mark, direction marks.
    **dict.fromkeys("\u00ad\u200b\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", ""),
    # Other control characters have no meaning on a phone; a NUL ends the text on some.
    **{chr(code): "" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"},
}
_TABLE: Final = str.maketrans(_TYPOGRAPHY)
#: Texts whose size and form are kept: one notice goes to many people.
_KEPT: Final = 256


class Replaced(NamedTuple):
    """One kind of character that is sent as another."""

    found: str
    sent: str
    times: int


@lru_cache(maxsize=_KEPT)
def normalise(text: str) -> tuple[str, tuple[Replaced, ...]]:
    """The text as it is sent (NFC, plain typography), and what was replaced, so that the sender can be shown it."""
    composed = unicodedata.normalize("NFC", re.sub(r"\r\n?", "\n", text))
    seen = Counter(character for character in composed if character in _TYPOGRAPHY)
    replaced = tuple(Replaced(found, _TYPOGRAPHY[found], times) for found, times in seen.items())
    # A lone surrogate is no character: it cannot be written to UTF-8 or to the air.
    return composed.translate(_TABLE).encode("utf-8", "replace").decode("utf-8"), replaced


class Size(NamedTuple):
    """``encoding`` is GSM-7 or UCS-2; ``units`` septets or UTF-16 units; ``segments`` is what the carrier bills."""

    encoding: str
    units: int
    segments: int


@lru_cache(maxsize=_KEPT)
def measure(text: str, reference_bits: int = 8, added_units: int = 0) -> Size:
    """Args:
    added_units: what the carrier writes behind the text by itself, and bills.
    """
    data_coding = split.choose_coding(text)
    counted = text + "x" * added_units
    return Size(
        "GSM-7" if data_coding == split.GSM7 else "UCS-2",
        split.total_units(counted, data_coding),
        len(split.cut(counted, data_coding, reference_bits)),
    )


def without_diacritics(text: str) -> str:
    """What it looks like unaccented, for the sender to compare and choose; never used unasked."""
    # NFKD leaves the letter with the stroke whole.
    split_up = unicodedata.normalize("NFD", text.replace("đ", "d").replace("Đ", "D"))
    return unicodedata.normalize("NFC", "".join(c for c in split_up if unicodedata.category(c) != "Mn"))


def folded(text: str) -> str:
    """Upper case without diacritics, words parted by single spaces: how keywords and templates are compared."""
    return " ".join(re.findall(r"[A-Z0-9]+", without_diacritics(text).upper()))
