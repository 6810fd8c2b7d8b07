"""Which fields of which event type may leave for a partner, why and until when: pure functions.

A grant is never changed: it is given, and it ends. So what may leave of an event is a function of the event and of the
instant: grants that began before the event count, and once one of them has ended what it let through is owed no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hub.model import EPOCH, Event, Json, from_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Fields of event types that a partner may get. ``types`` in full or with ``*`` after the last dot."""

    types: tuple[str, ...]
    #: Dotted names; one names everything below it.
    fields: tuple[str, ...]
    #: What the partner does with it, and on which legal ground (*căn cứ pháp lý*).
    purpose: str
    legal_basis: str
    #: Events that came to the hub before are not covered.
    begins_at: datetime = EPOCH
    #: When it ends or ended; None while nobody has said.
    ends_at: datetime | None = None
    id: str = ""

    def covers(self, event_type: str) -> bool:
        return any(matches(pattern, event_type) for pattern in self.types)

    def holds(self, at: datetime) -> bool:
        return self.begins_at <= at and (self.ends_at is None or at < self.ends_at)


def matches(pattern: str, event_type: str) -> bool:
    """``vn.congdoan.unit.*`` matches what follows the dot, at any depth, and nothing else."""
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else pattern == event_type


def within(wanted: str, granted: str) -> str | None:
    """The pattern for what two patterns have in common, or None."""
    if matches(granted, wanted) or granted == wanted:
        return wanted
    return granted if matches(wanted, granted) else None


def common_types(wanted: Iterable[str], grants: Iterable[Grant]) -> tuple[str, ...]:
    """Patterns of what is wanted and granted both."""
    granted = {pattern for grant in grants for pattern in grant.types}
    both = {common for one in wanted for other in granted if (common := within(one, other)) is not None}
    return tuple(sorted(both))


def came_at(event: Event) -> datetime:
    """When the event came to this hub: its id is a UUIDv7."""
    return from_us((event.id.int >> 80) * 1000)


def what_may_leave(grants: Sequence[Grant], event: Event, now: datetime) -> Json | str:
    """The granted part of ``event.data``, the same at every try; or why nothing may leave (any more)."""
    came = came_at(event)
    own = [grant for grant in grants if grant.begins_at <= came and grant.covers(event.type)]
    if not own:
        return "not_granted"
    holding = [grant for grant in own if grant.holds(now)]
    if not holding:
        return "grant_ended"
    data = cut(event.data, (name for grant in holding for name in grant.fields))
    # What it was owed with, when one of its grants has ended since: less may leave now, so nothing does.
    ended = [grant for grant in own if grant.holds(came) and not grant.holds(now)]
    if ended and cut(event.data, (name for grant in (*holding, *ended) for name in grant.fields)) != data:
        return "grant_ended"
    return data


def cut(data: Json, fields: Iterable[str]) -> Json:
    """Only the named fields of ``data``, nested as they were; what a name says nothing of stays out."""
    tree: dict[str, Any] = {}
    for name in fields:
        branch = tree
        *parents, leaf = name.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if branch is _ALL:
                break
        else:
            branch[leaf] = _ALL
    return _pruned(data, tree)


_ALL: dict[str, Any] = {"": None}


def _pruned(data: Json, tree: dict[str, Any]) -> Json:
    kept: Json = {}
    for name, value in data.items():  # in the order of the data: the same bytes whatever the order of grants
        branch = tree.get(name)
        if branch is _ALL:
            kept[name] = value
        elif branch is not None and isinstance(value, dict) and (below := _pruned(value, branch)):
            kept[name] = below
    return kept
