"""Spaces segments out to the rate of the contract, for all messages of a connection together."""

from __future__ import annotations

from typing import Final

#: How long everything rests after the carrier said "too fast". Source: Momentum's SMPP guide, as an example.
_REST_S: Final = 1.0


class Pacer:
    """Gives out start instants on the caller's monotonic clock; knows no clock itself."""

    def __init__(self, rate_per_s: float | None) -> None:
        # 3 % slower than agreed, because the carrier's second begins at another moment than ours.
        self._spacing_s = 0.0 if rate_per_s is None else 1 / (0.97 * rate_per_s)
        self._next = 0.0

    def reserve(self, now: float, latest: float) -> float | None:
        """Seconds to wait before the next segment may start; None, and nothing is taken, when that is past ``latest``.

        An instant that passed unused is not made up.
        """
        start = max(now, self._next)
        if start > latest:
            return None
        self._next = start + self._spacing_s
        return start - now

    def rest(self, now: float) -> None:
        """The carrier throttled one segment: nothing starts for a moment, whatever message it belongs to."""
        self._next = max(self._next, now + _REST_S)
