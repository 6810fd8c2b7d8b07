"""What an attempt keeps of a partner's answer and of a new connection: masked, cut, sealed where it may be personal.

A partner may repeat what it was sent, so an answer is sealed under the key of the person whose event it was (or who
was written to) and goes with that key. Kept as bytes: ``{"dns_us", "tls_us", "answer"}`` as JSON, each where there
is one; or 0x01, the subject, 0x00 and that JSON sealed. Rows of older releases hold a size and a fingerprint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from hub.contract import Exchange
from hub.log import MASK, mask
from hub.security.keys import KeyRing

#: Of an answer; enough for a sentence, a trace or the head of an error page.
KEPT_BYTES: Final = 2048
#: Most successes are acknowledged in the same few words: those are looked at once.
SHORT_BYTES: Final = 64
_SEALED: Final = b"\x01"
#: What one of the two patterns below begins with; an answer without any is not searched, which costs ten times as much.
_SIGNS = (
    b"auth", b"basic", b"bearer", b"cookie", b"eyj", b"hub_", b"key", b"passw", b"secret", b"session", b"token", b"v1",
    b"whs",
)  # fmt: skip
#: Schemes and tokens by their shape, then values by the name before them. A value is read to its end or to the end of
#: the answer, never back: a hostile one costs no more than its length.
_TOKENS = re.compile(
    rb"""(?i)\b(?:bearer|basic)[ ]+[\w.~+/=-]{6,}
    |\b(?:whs(?:ec|k)_|hub_(?:live|test)_)[\w+/=-]+
    |\bv1a?,[\w+/=]{20,}
    |\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?""",
    re.VERBOSE,
)
_NAMED = re.compile(
    rb"""(?i)((?:authorization|token|secret|password|passwd|api[_-]?key|cookie|session)["']?\s*[:=]\s*)"""
    rb"""(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s,;&<>"']+)"""
)
#: Other spellings of what could be a plus or a digit would hide a number from the mask.
_SPELLED = re.compile(rb"(?:\\u00|%)(2[bB]|3[0-9])")
#: What a terminal or a page would act upon or hide.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

Unseal = Callable[[Sequence[tuple[str, bytes | None]]], Awaitable[list[bytes | None]]]


class Kept(NamedTuple):
    """``answer`` is None where there was none, and where the person's key was destroyed."""

    dns_us: int | None = None
    tls_us: int | None = None
    answer: str | None = None


def keep(seen: Exchange, subject: str | None, ring: KeyRing) -> bytes | None:
    """What the attempt's row holds; None when there was nothing to see.

    Args:
        subject: under whose key an answer is sealed; None where nothing personal was sent.
    """
    if not seen.answer and seen.dns_ms is None and seen.tls_ms is None:
        return None
    kept: dict[str, object] = {}
    if seen.dns_ms is not None:
        kept["dns_us"] = int(seen.dns_ms * 1000)
    if seen.tls_ms is not None:
        kept["tls_us"] = int(seen.tls_ms * 1000)
    if seen.answer:
        # Without the key at hand nothing is readable of it.
        look = _same_again if len(seen.answer) <= SHORT_BYTES else redacted
        kept["answer"] = fingerprint(seen.answer) if subject and not ring.knows(subject) else look(seen.answer)
    plain = orjson.dumps(kept)
    if not subject or not seen.answer or not ring.knows(subject):
        return plain
    return _SEALED + subject.encode() + b"\x00" + ring.seal(subject, plain)


def redacted(answer: bytes) -> str:
    """Readable text without secrets, tokens, phone and citizen numbers; of anything else size and fingerprint."""
    if b"\x00" in answer:  # compressed, or in an encoding that no mask can read
        return fingerprint(answer)
    data = answer
    if b"\\u00" in data or b"%" in data:
        data = _SPELLED.sub(lambda found: bytes([int(found[1], 16)]), data)
    data = mask(data)
    lower = data.lower()
    if any(sign in lower for sign in _SIGNS):
        data = _NAMED.sub(rb"\1" + MASK.encode(), _TOKENS.sub(MASK.encode(), data))
    text = data[:KEPT_BYTES].decode("utf-8", "replace")
    if len(data) > KEPT_BYTES:
        text = text.removesuffix("\ufffd") + "…"
    return text if text.isascii() and text.isprintable() else _UNSEEN.sub("\ufffd", text.replace("\r\n", "\n"))


_same_again = lru_cache(256)(redacted)


def fingerprint(answer: bytes) -> str:
    return f"{len(answer)} bytes sha256:{hashlib.sha256(answer).hexdigest()[:16]}"


async def read(unseal: Unseal, rows: Sequence[bytes | None]) -> list[Kept]:
    """What rows hold, in their order."""
    parts = [_parts(row) for row in rows]
    opened = await unseal([part for part in parts if part is not None])
    plain = iter(opened)
    return [_read(row if part is None else next(plain)) for row, part in zip(rows, parts, strict=True)]


def _parts(row: bytes | None) -> tuple[str, bytes] | None:
    """Subject and sealed value, or None for one that is not sealed."""
    if row is None or not row.startswith(_SEALED):
        return None
    subject, _, sealed = row[1:].partition(b"\x00")
    return subject.decode(), sealed


def _read(plain: bytes | None) -> Kept:
    if plain is None:
        return Kept()
    return Kept(**orjson.loads(plain)) if plain.startswith(b"{") else Kept(answer=plain.decode())
