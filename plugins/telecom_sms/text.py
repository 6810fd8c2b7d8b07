"""What is done to a text before it is sent, and what sending it costs in segments (tin tính cước)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Final, NamedTuple

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


class Replaced(NamedTuple):
    """One kind of character that is sent as another."""

    found: str
    sent: str
    times: int


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


def measure(text: str, reference_bits: int = 8) -> Size:
    data_coding = split.choose_coding(text)
    return Size(
        "GSM-7" if data_coding == split.GSM7 else "UCS-2",
        sum(split.units(character, data_coding) for character in text),
        len(split.cut(text, data_coding, reference_bits)),
    )


#: A Vietnamese mobile number in any of the ways people write it. Landlines take no SMS, foreign numbers cost a fortune.
_MOBILE: Final = re.compile(r"(?:\+?84|0)([35789][0-9]{8})")


def to_msisdn(address: str) -> str | None:
    """84 and nine digits, the way carriers want it; None for anything but a Vietnamese mobile number."""
    found = _MOBILE.fullmatch(re.sub(r"[ .\-]", "", address))
    return f"84{found[1]}" if found else None
