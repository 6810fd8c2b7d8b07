"""Spaces segments out to the rate of the contract, and to what the carrier really takes."""

from __future__ import annotations

from collections import deque
from typing import Final

#: How long everything rests after the carrier said "too fast". Source: Momentum's SMPP guide, as an example.
REST_S: Final = 1.0
#: After "too fast" the rate is cut by so much, at most once per rest: answers already under way say the same again.
CUT: Final = 0.7
#: A carrier that takes anything at all takes one segment a second.
SLOWEST_PER_S: Final = 1.0
#: What the rate grows by in a second in which every segment was taken.
GROWTH_PER_S: Final = 2.0


class Pacer:
    """Gives out start instants on the caller's monotonic clock; knows no clock itself.

    The rate falls by a share when the carrier throttles and grows by a step while it does not, never over the
    contract: additive increase, multiplicative decrease, for all messages of the connection together.
    """

    def __init__(self, rate_per_s: float | None) -> None:
        # 3 % slower than agreed, because the carrier's second begins at another moment than ours.
        self._most_per_s = None if rate_per_s is None else 0.97 * rate_per_s
        #: None as long as nobody has set a limit.
        self.rate_per_s = self._most_per_s
        self._next = 0.0
        self._cut_at = float("-inf")
        self._started: deque[float] = deque(maxlen=1000)

    def reserve(self, now: float, latest: float, segments: int = 1) -> float | None:
        """Seconds to wait before the next may start; None, and nothing is taken, when that is past ``latest``.

        An instant that passed unused is not made up.
        """
        start = max(now, self._next)
        if start > latest:
            return None
        self._next = start + (segments / self.rate_per_s if self.rate_per_s else 0.0)
        self._started.append(start)
        return start - now

    def throttled(self, now: float) -> None:
        """The carrier refused one segment for its rate: everything rests for a moment and then goes on slower."""
        self._next = max(self._next, now + REST_S)
        if now - self._cut_at < REST_S:
            return
        self._cut_at = now
        self.rate_per_s = max(SLOWEST_PER_S, CUT * (self.rate_per_s or self._lately(now)))

    def taken(self) -> None:
        """The carrier took one segment."""
        if self.rate_per_s is None:
            return
        faster = self.rate_per_s + GROWTH_PER_S / self.rate_per_s
        self.rate_per_s = faster if self._most_per_s is None else min(self._most_per_s, faster)

    def _lately(self, now: float) -> float:
        """Segments started in the second before."""
        return float(sum(1 for start in self._started if now - 1 <= start <= now))
