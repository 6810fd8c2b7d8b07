"""The only place that reads the wall clock; everything else is handed a ``Clock``."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hub.model import to_us

Clock = Callable[[], datetime]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Of Linux: goes on while the machine is suspended. What another machine has counted meanwhile, we have too.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: How far two clocks may drift apart in a second, one of them being corrected.
DRIFT = 0.0005


def system_clock() -> datetime:
    return datetime.now(UTC)


def microseconds(clock: Clock) -> Callable[[], int]:
    """What the ledger writes down of ``clock``, without a datetime in between where that is the system's own."""
    if clock is system_clock:
        return lambda: time.time_ns() // 1000
    return lambda: to_us(clock())


def steady() -> float:
    """Seconds since some instant, never set and never standing still: what leases are counted by."""
    return time.clock_gettime(_STEADY)


class ServerClock:
    """A database server's clock, asked now and then; in between this machine's steady one carries it on.

    Nodes that share a ledger agree on the time by it, whatever their own clocks say.
    """

    def __init__(self) -> None:
        self._ahead_s: float | None = None
        self._doubt_s = 0.0
        self._taken_at = 0.0

    def set(self, server_us: int, asked: float, answered: float) -> float:
        """Takes an answer with the ``steady`` instants around it, unless it says less than is known already.

        Returns: by how many seconds the server's clock was set since, 0.0 as long as all answers may be right.
        """
        ahead_s, doubt_s = server_us / 1_000_000 - (asked + answered) / 2, (answered - asked) / 2
        set_by_s = 0.0
        if self._ahead_s is not None:
            known_s = self._doubt_s + DRIFT * (answered - self._taken_at)
            if abs(ahead_s - self._ahead_s) > doubt_s + known_s:
                set_by_s = ahead_s - self._ahead_s
            elif doubt_s > known_s:  # a slow answer: the time may be anywhere in between
                return 0.0
        self._ahead_s, self._doubt_s, self._taken_at = ahead_s, doubt_s, answered
        return set_by_s

    def __call__(self) -> datetime:
        if self._ahead_s is None:  # not connected yet: nothing is claimed or sent before the first answer
            return system_clock()
        return _EPOCH + timedelta(seconds=self._ahead_s + steady())
