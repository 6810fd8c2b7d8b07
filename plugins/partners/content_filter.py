"""Which events an endpoint wants by their content: a JMESPath expression over what the endpoint would get.

JMESPath has no loops and no recursion of its own, so an expression that is short and shallow always ends soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hub.model import Event, Json

#: Source: FAULTS section 3: expressions of at most 200 characters, nested at most 8 deep.
MAX_LENGTH, MAX_DEPTH = 200, 8


class BadFilter(ValueError):
    """The expression cannot be used; the message says why, in Vietnamese and English."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an event matches, and what the expression answered: ``value: false``, ``error: ...``."""

    matches: bool
    why: str


class Filter:
    """A checked expression; whatever JMESPath counts as true lets the event through."""

    def __init__(self, text: str) -> None:
        """Raises: BadFilter."""
        import jmespath  # type: ignore[import-untyped]  # it ships none
        from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped]  # it ships none

        if not 0 < len(text) <= MAX_LENGTH:
            raise BadFilter(f"bộ lọc dài tối đa {MAX_LENGTH} ký tự / a filter has at most {MAX_LENGTH} characters")
        if _depth(text) > MAX_DEPTH:
            raise BadFilter(f"bộ lọc lồng tối đa {MAX_DEPTH} lớp / a filter is at most {MAX_DEPTH} deep")
        try:
            self._compiled = jmespath.compile(text)
        except (JMESPathError, RecursionError, ValueError) as error:
            said = str(error).splitlines()[0][:200]
            raise BadFilter(f"không phải biểu thức JMESPath: {said} / not a JMESPath expression: {said}") from None
        self.text = text

    def judge(self, event: Event, data: Json) -> Verdict:
        """``data`` is what may leave of the event. An expression that fails on it does not match."""
        from jmespath.exceptions import JMESPathError

        seen = {"id": str(event.id), "type": event.type, "source": event.source, "subject": event.subject, "data": data}
        try:
            value = self._compiled.search(seen)
        except (JMESPathError, RecursionError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
            return Verdict(False, f"error: {type(error).__name__}")
        return Verdict(_is_true(value), f"value: {_shown(value)}")


def _depth(text: str) -> int:
    """The deepest nesting of brackets and of negations, wherever they stand."""
    deepest = depth = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return max(deepest, text.count("!"), text.count("&"))


def _is_true(value: Any) -> bool:
    """Source: JMESPath specification, "Or Expressions": false values are false, null, "", [] and {}."""
    return not (value is None or value is False or (isinstance(value, str | list | dict) and not value))


def _shown(value: Any) -> str:
    """The kind of value, since the value itself may be about a person."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    kind = next(
        (word for of, word in ((str, "text"), (list, "list"), (dict, "object")) if isinstance(value, of)), "number"
    )
    return kind if _is_true(value) else f"{kind} (empty)"
