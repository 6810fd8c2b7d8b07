"""Who is owed an event, and what of it may leave: pure functions over frozen subscriptions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hub.model import Json, Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Which event types go where, and which fields beyond the thin ones may leave.

    Either ``to`` (a destination, or ``handler:<name>``) or ``to_each`` (channel -> connection, for events
    with an audience: one delivery per recipient).
    """

    name: str
    types: tuple[str, ...]
    to: str | None = None
    to_each: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    ordered: bool = True
    on_dead: Literal["continue", "hold"] = "continue"
    priority: Priority | None = None
    expires_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """The fields that leave, under an id that stays computable: a delivery is pinned to it for life."""

    id: bytes
    fields: tuple[str, ...]


def projection(fields: Iterable[str]) -> Projection:
    names = tuple(sorted(set(fields)))
    return Projection(hashlib.blake2b("\n".join(names).encode(), digest_size=8).digest(), names)


def matches(pattern: str, event_type: str) -> bool:
    """``vn.congdoan.unit.*`` matches what follows the dot, at any depth, and nothing else."""
    if pattern.endswith(".*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type


def project(data: Json, fields: Iterable[str]) -> Json:
    """Only the named fields of ``data``, nested as they were; names that are absent stay absent."""
    picked: Json = {}
    for name in fields:
        if "." not in name:
            if name in data:
                picked[name] = data[name]
            continue
        source: object = data
        target = picked
        *parents, leaf = name.split(".")
        for parent in parents:
            source = source.get(parent) if isinstance(source, dict) else None
            if not isinstance(source, dict):
                break
            target = target.setdefault(parent, {})
        if isinstance(source, dict) and leaf in source:
            target[leaf] = source[leaf]
    return picked


@dataclass(frozen=True, slots=True)
class Route:
    """One subscription that an event type matched, with its current projection."""

    subscription: Subscription
    projection: Projection


class Router:
    """Routes by event type; immutable but for ``replace``."""

    def __init__(self, subscriptions: Iterable[Subscription], thin: Mapping[str, tuple[str, ...]]) -> None:
        self._thin = thin
        #: How often the subscriptions were replaced: what was looked up before may not hold any more.
        self.edition = 0
        self.replace(subscriptions)

    def replace(self, subscriptions: Iterable[Subscription]) -> None:
        """All of them by others."""
        self.subscriptions = tuple(subscriptions)
        self._routes: dict[str, tuple[Route, ...]] = {}
        self._by_name = {s.name: s for s in self.subscriptions}
        self.edition += 1

    def ahead(self, subscriptions: Iterable[Subscription]) -> Router:
        """What this one will be once its subscriptions are replaced by these."""
        return Router(subscriptions, self._thin)

    def routes(self, event_type: str) -> tuple[Route, ...]:
        """What an event of this type is owed, in the order of the configuration."""
        known = self._routes.get(event_type)
        if known is None:
            thin = self._thin.get(event_type, ())
            known = tuple(
                Route(s, projection((*thin, *s.fields)))
                for s in self.subscriptions
                if any(matches(pattern, event_type) for pattern in s.types)
            )
            self._routes[event_type] = known
        return known

    def may_still_leave(self, subscription: str, event_type: str, pinned: Projection) -> bool:
        """Whether everything the delivery was pinned to is still allowed by today's configuration."""
        owner = self._by_name.get(subscription)
        if owner is None:
            return False
        allowed = {*self._thin.get(event_type, ()), *owner.fields}
        return allowed.issuperset(pinned.fields)
