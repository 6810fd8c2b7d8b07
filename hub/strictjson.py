"""The one JSON reader for whatever comes from outside: strict, bounded, and the same for everybody.

What two parsers could read differently (a repeated key, NaN, a number beyond 64 bits, half a surrogate) is
refused instead of guessed. Refusals never quote the input.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import orjson

from hub.errors import InputError

MAX_DEPTH = 32
MAX_ITEMS = 10_000

Problem = Literal[
    "json-too-deep", "json-too-many-items", "json-duplicate-key", "json-number-range", "json-nul", "json-invalid"
]  # fmt: skip

_TEXTS: dict[Problem, str] = {
    "json-too-deep": f"The JSON is nested deeper than {MAX_DEPTH} levels.",
    "json-too-many-items": f"The JSON has more than {MAX_ITEMS} items.",
    "json-duplicate-key": "An object in the JSON has the same key twice.",
    "json-number-range": "A number in the JSON is outside what 64 bits hold.",
    "json-nul": "The JSON holds a NUL character.",
    "json-invalid": "The body is not JSON in UTF-8 without a byte order mark.",
}
# A string up to its end (or the end of input: an open one is swallowed whole, else a million quotes
# would be scanned a million times), or one sign of structure.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*+\\u0000")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
#: Longest number worth reading: -9223372036854775808 has 20 characters, the longest shortest float 24.
_NUMBER_CHARACTERS = 64


def refused(problem: Problem) -> InputError:
    return InputError(_TEXTS[problem], problem=problem, status=400)


def loads(raw: bytes, *, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS) -> Any:
    """The value of ``raw``; keys and texts are free of NUL and fit UTF-8, integers fit 64 bits.

    Items are array elements and object members, each container counted once more.

    Raises:
        InputError: ``problem`` says which rule was broken; status 400.
    """
    if b"\0" in raw:
        raise refused("json-nul")
    _measure(raw, max_depth, max_items)
    broken = False
    value: Any = None
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
        if b"\\u" in raw:
            if _ESCAPED_NUL.search(raw):
                raise refused("json-nul")
            # The standard library lets half a surrogate pass; orjson does not.
            orjson.loads(raw)
    except ValueError:
        broken = True
    # Raised out here, since the parser's own exception carries the whole document.
    if broken:
        raise refused("json-invalid")
    return value


def misfit(schema: Mapping[str, Any], value: Any) -> tuple[str, str] | None:
    """Where ``value`` does not fit a JSON Schema, as a JSON pointer, and which rule it breaks; None: it fits.

    Neither repeats what was sent: a key that is no plain name is shown as ``*``.
    """
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import best_match

    formats = FormatChecker(formats=("date", "uuid"))
    formats.checks("date-time")(_is_instant)
    error = best_match(Draft202012Validator(dict(schema), format_checker=formats).iter_errors(value))
    if error is None:
        return None
    pointer = "".join(f"/{part}" if _NAME.fullmatch(str(part)) else "/*" for part in error.absolute_path)
    rule = error.validator_value if isinstance(error.validator_value, int | float | str | list) else ""
    return pointer, f"{error.validator} {rule}".strip()[:300]


def _is_instant(value: object) -> bool:
    """Source: RFC 3339, section 5.6; what is no text is somebody else's rule."""
    return not isinstance(value, str) or _INSTANT.fullmatch(value) is not None


def _measure(raw: bytes, max_depth: int, max_items: int) -> None:
    """Counts before anything is parsed: one pass, ended at the first number too high."""
    opened = raw.count(b"[") + raw.count(b"{")
    if opened <= max_depth and opened + raw.count(b",") <= max_items:
        return  # nearly always: even with those inside of texts there are not too many
    depth = items = 0
    for match in _TOKENS.finditer(raw):
        sign = match[0]
        if sign in b"[{":
            depth += 1
            items += 1
            if depth > max_depth:
                raise refused("json-too-deep")
        elif sign in b"]}":
            depth -= 1
            if depth < 0:
                raise refused("json-invalid")
        elif sign == b",":
            items += 1
        if items > max_items:
            raise refused("json-too-many-items")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise refused("json-duplicate-key")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _NUMBER_CHARACTERS or not -(2**63) <= (number := int(digits)) < 2**63:
        raise refused("json-number-range")
    return number


def _float(digits: str) -> float:
    if len(digits) > _NUMBER_CHARACTERS or (number := float(digits)) in (float("inf"), float("-inf")):
        raise refused("json-number-range")
    return number


def _constant(name: str) -> Any:
    raise refused("json-number-range")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)
