"""Texts with gaps: templates of the union's own, and texts the carrier has on file for the brandname."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

from .rules import ZONE, RulesSettings
from .text import folded

_GAP: Final = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")
#: Most letters one gap may be filled with: nobody's whole letter goes into a template.
VALUE_MOST: Final = 200


def fields_of(body: str) -> tuple[str, ...]:
    """Names of the gaps, in order of appearance: every one has to be filled."""
    return tuple(dict.fromkeys(_GAP.findall(body)))


def stray_braces(body: str) -> bool:
    """Whether something looks like a gap and is none: it would be sent as it stands."""
    return bool(re.search(r"[{}]", _GAP.sub("", body)))


def missing_fields(body: str, values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in fields_of(body) if not values.get(name, "").strip())


def filled(body: str, values: Mapping[str, str]) -> str:
    """The text for one person; call only when nothing is missing."""
    return _GAP.sub(lambda gap: values[gap[1]].strip(), body)


def fits_registered(settings: RulesSettings, purpose: str, text: str, at: datetime) -> bool:
    """Whether the carrier has such a text on file; true when none are known for the class.

    Compared without diacritics, as carriers do: an accented text of the same words fits too.
    """
    if not settings.registered_texts:
        return True
    day = at.astimezone(ZONE).date()
    registered = [t.text for t in settings.registered_texts if t.purpose == purpose and t.since <= day]
    return not registered or any(_fits(_pieces(each), folded(text)) for each in registered)


@lru_cache(maxsize=256)
def _pieces(registered: str) -> tuple[str, ...]:
    return tuple(folded(piece) for piece in re.split(r"\{[^{}]*\}", registered))


def _fits(pieces: tuple[str, ...], text: str) -> bool:
    """The pieces stand in the text in order, the first at its start and the last at its end.

    Each is taken where it comes first, which finds a way if there is one; a regular expression could be made to
    try for hours.
    """
    if len(pieces) == 1:
        return text == pieces[0]
    first, *between, last = pieces
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in between:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
