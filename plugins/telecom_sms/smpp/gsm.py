"""The GSM 7-bit default alphabet with its extension table, one septet per octet as SMPP carries it.

Source: 3GPP TS 23.038 sections 6.2.1 and 6.2.1.1.
"""

from __future__ import annotations

from typing import Final

ESCAPE: Final = 0x1B
_BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = {
    0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\", 0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|", 0x65: "€",
}  # fmt: skip

#: Every character of the alphabet with its one or two septets.
SEPTETS: Final[dict[str, bytes]] = {
    **{character: bytes((code,)) for code, character in enumerate(_BASIC) if code != ESCAPE},
    **{character: bytes((ESCAPE, code)) for code, character in _EXTENSION.items()},
}
#: The characters that cost one septet, and all of them.
SINGLE: Final = frozenset(character for character, septets in SEPTETS.items() if len(septets) == 1)
_ALL: Final = frozenset(SEPTETS)


def fits(text: str) -> bool:
    """Whether every character of ``text`` is in the alphabet or its extension."""
    return _ALL.issuperset(text)


def encode(text: str) -> bytes:
    """Raises ``KeyError`` on a character the alphabet does not have."""
    return b"".join([SEPTETS[character] for character in text])


def decode(septets: bytes) -> str:
    """Never raises: an unknown pair shows its second character, as the specification says; a lone escape a space."""
    out: list[str] = []
    escaped = False
    for octet in septets:
        code = octet & 0x7F
        if escaped:
            out.append(_EXTENSION.get(code, " " if code == ESCAPE else _BASIC[code]))
            escaped = False
        elif code == ESCAPE:
            escaped = True
        else:
            out.append(_BASIC[code])
    return "".join(out) + (" " if escaped else "")
