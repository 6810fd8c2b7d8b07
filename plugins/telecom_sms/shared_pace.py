"""One pace for all nodes of an account: instants are taken from a row of the ledger, a fraction of a second at a time.

What a node has taken and does not use is lost, never made up: however many nodes there are, no second holds more
segments than the contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from hub.contract import Guard, Hub, UnitOfWork
from hub.errors import Conflict
from hub.model import to_us

from . import tables
from .pacing import CUT, GROWTH_PER_S, REST_S, SLOWEST_PER_S, Pacer

_SECOND: Final = 1_000_000
#: Seconds' worth of segments taken at once: as few commits as that, and as little that one node keeps from another.
_SPAN_S: Final = 0.25
#: Nobody takes further ahead than a message has patience; more means that a clock was set back.
_AHEAD_MOST: Final = 60 * _SECOND
#: Two clocks read one after the other differ by less.
_JOINED_S: Final = 0.001
_TRIES: Final = 50


class Pace(Protocol):
    """When the next segments may start; instants are of the event loop's clock."""

    async def reserve(self, now: float, latest: float, segments: int = 1) -> float | None:
        """Seconds to wait from ``now``; None, and nothing is taken, when that is past ``latest``. Raises: HubError."""

    async def throttled(self, now: float) -> None:
        """The carrier refused a segment for its rate: the whole account rests for a moment and goes on slower."""

    def taken(self) -> None:
        """The carrier took one segment."""


def pace_of(hub: Hub, connection: str, rate_per_s: float | None, *, alone: bool = False) -> Pace:
    """``alone``: no other node sends over the account. Without a contract each node finds out for itself."""
    return OwnPace(rate_per_s) if alone or rate_per_s is None else SharedPace(hub, connection, rate_per_s)


class OwnPace:
    """Of the only node that sends."""

    def __init__(self, rate_per_s: float | None) -> None:
        self._pacer = Pacer(rate_per_s)
        self.taken = self._pacer.taken

    async def reserve(self, now: float, latest: float, segments: int = 1) -> float | None:
        return self._pacer.reserve(now, latest, segments)

    async def throttled(self, now: float) -> None:
        self._pacer.throttled(now)


class SharedPace:
    """A node's part of a pace that others keep to as well."""

    def __init__(self, hub: Hub, connection: str, rate_per_s: float, clock: Callable[[], float] | None = None) -> None:
        self._hub = hub
        self._connection = connection
        # 3 % slower than agreed, because the carrier's second begins at another moment than ours.
        self._most = max(1, int(970 * rate_per_s))
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        #: Segments in 1,000 seconds, as the row had it last.
        self._rate = self._most
        #: What this node has of the common time.
        self._next = self._until = 0.0
        self._taken = 0
        self._turn = asyncio.Lock()

    async def reserve(self, now: float, latest: float, segments: int = 1) -> float | None:
        async with self._turn:
            now = max(now, self._clock())
            lasts = segments * 1000 / self._rate
            start = max(now, self._next)
            if start > latest:
                return None
            if start + lasts > self._until + 1e-6:
                start = await self._take(segments)
                lasts = segments * 1000 / self._rate
                if start > latest:
                    return None  # its time stays ours for the next one
            self._next = start + lasts
            return max(0.0, start - now)

    async def throttled(self, now: float) -> None:
        async with self._turn:
            for _ in range(_TRIES):
                at, ahead, rate, cut_at = await self._read()
                if cut_at is not None and at - cut_at < REST_S * _SECOND:
                    self._rate = rate
                    break  # this node or another one was told the same a moment ago
                slower = max(int(1000 * SLOWEST_PER_S), int(CUT * rate))
                rested = max(ahead, at + int(REST_S * _SECOND))
                if await self._write((ahead, rate, cut_at), rested, slower, at):
                    self._rate = slower
                    break
            self._taken, self._until = 0, 0.0

    def taken(self) -> None:
        self._taken += 1

    async def _take(self, segments: int) -> float:
        """Takes the next free time, for so many segments at least; answers when it begins."""
        for _ in range(_TRIES):
            at, ahead, rate, cut_at = await self._read()
            faster = min(self._most, rate + int(1000 * GROWTH_PER_S * 1000 / rate * self._taken))
            count = max(segments, int(faster * _SPAN_S / 1000))
            first = at if ahead > at + _AHEAD_MOST else max(ahead, at)
            lasts_us = count * 1000 * _SECOND // faster
            if await self._write((ahead, rate, cut_at), first + lasts_us, faster, cut_at or 0):
                now = self._clock()
                start = now + (first - to_us(self._hub.now())) / _SECOND
                until = start + lasts_us / _SECOND
                # What is left of the time before is ours too where the new one follows it at once.
                if abs(start - self._until) < _JOINED_S and self._next > now:
                    start = self._next
                self._rate, self._taken, self._next, self._until = faster, 0, start, until
                return start
        raise Conflict

    async def _read(self) -> tuple[int, int, int, int | None]:
        """The ledger's instant, how far the pace is taken, its rate, and when it was last cut; None without a row."""
        rows = await self._hub.fetch(tables.PACE(connection=self._connection))
        now = to_us(self._hub.now())
        if not rows:
            return now, 0, self._most, None
        ahead, rate, cut_at = map(int, rows[0])
        return now, ahead, min(rate, self._most), cut_at

    async def _write(self, seen: tuple[int, int, int | None], ahead: int, rate: int, cut_at: int) -> bool:
        taken = tables.TAKE_PACE(connection=self._connection, next_at=ahead, rate=rate, cut_at=cut_at, seen=seen[0])
        try:
            await self._hub.commit(UnitOfWork(guards=[Guard(taken)]))
        except Conflict:
            return False
        return True
