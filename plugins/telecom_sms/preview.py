"""What a text will look like and cost before anybody gets it, as written and without diacritics, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from hub.model import Json

from .numbers import NETWORKS
from .policy import text_refusal
from .rules import ClassRule
from .settings import SendingSettings
from .smpp import split
from .text import Size, measure, normalise, without_diacritics


def preview(text: str, settings: SendingSettings, rule: ClassRule, now: datetime, networks: Mapping[str, int]) -> Json:
    """Both ways of writing it, what was replaced in it, and what each costs.

    Args:
        networks: messages per network, as far as numbers are known; {} for one message.
    """
    sent, replaced = normalise(text)
    shown = labelled(sent, rule)
    as_written = _way(shown, settings, rule, now, networks)
    plain = _way(without_diacritics(shown), settings, rule, now, networks)
    saved = None
    if as_written["dong"] is not None and plain["dong"] is not None:
        saved = as_written["dong"] - plain["dong"]
    return {
        "purpose": rule.purpose,
        "as_written": as_written,
        "without_diacritics": plain,
        "saved_segments": as_written["segments"] - plain["segments"],
        "saved_dong": saved,
        "label_added": rule.label if shown != sent else "",
        "replaced": [{"found": _name(r.found), "sent": r.sent, "times": r.times} for r in replaced],
        "prices": _prices(settings, rule, now),
    }


def labelled(text: str, rule: ClassRule) -> str:
    """With the class's label in front, if it has one and the text does not begin with it."""
    return text if not rule.label or text.startswith(rule.label) else f"{rule.label} {text}"


def size_of(text: str, settings: SendingSettings, rule: ClassRule) -> Size:
    return measure(text, settings.joining_bits, rule.added_units)


def _way(text: str, settings: SendingSettings, rule: ClassRule, now: datetime, networks: Mapping[str, int]) -> Json:
    size = size_of(text, settings, rule)
    coding = split.GSM7 if size.encoding == "GSM-7" else split.UCS2
    single, part = split.limits(coding, settings.joining_bits)
    room = single if size.segments == 1 else part * size.segments
    messages = dict(networks) or {"": 1}
    dong = cost(settings, rule, size.segments, messages, now)
    return {
        "text": text,
        "encoding": size.encoding,
        "units": size.units,
        "segments": size.segments,
        "units_left": max(0, room - size.units),
        "messages": sum(messages.values()),
        "segments_in_all": size.segments * sum(messages.values()),
        "dong": dong,
        "refusal": text_refusal(settings, rule, text, size, now),
    }


def cost(
    settings: SendingSettings, rule: ClassRule, segments: int, networks: Mapping[str, int], now: datetime
) -> int | None:
    """Đồng for so many segments to so many phones a network; None where a price is not known."""
    total = 0
    for network, count in networks.items():
        price = settings.price(network, rule.purpose, now)
        if price is None:
            return None
        total += price.dong * segments * count
    return total


def _prices(settings: SendingSettings, rule: ClassRule, now: datetime) -> list[Json]:
    found = [(network, settings.price(network, rule.purpose, now)) for network in (*NETWORKS, "")]
    return [
        {"network": network or "*", "dong": price.dong, "since": price.since.isoformat(), "source": price.source}
        for network, price in found
        if price is not None and (price.network == network or not network)
    ]


def _name(character: str) -> str:
    """A character as it can be shown: those nobody sees by their number."""
    return character if character.isprintable() and not character.isspace() else f"U+{ord(character):04X}"
