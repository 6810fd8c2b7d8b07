"""Places where a process may die, named: the list of phases a crash can fall into is code.

``crashpoint("ledger.committed")`` does nothing but look at one global, unless the process was armed: then its
n-th pass there is its last moment, as with ``kill -9``. ``HUB_CRASH=ledger.committed:3`` arms it from outside;
nothing but the tests and ``make torture`` sets that.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from types import MappingProxyType

#: Every place, in the order in which an event and its delivery pass them; what is true there and not yet elsewhere.
POINTS: Mapping[str, str] = MappingProxyType(
    {
        "request.read": "a request has been read whole, nothing of it was looked at",
        "request.verified": "its sender is genuine, nothing is stored",
        "ledger.written": "a group of units was written, COMMIT was not said",
        "ledger.committed": "COMMIT has answered, nobody has been told",
        "request.kept": "the unit of a request is durable, the sender has no answer",
        "delivery.claimed": "deliveries are leased, none has begun",
        "delivery.started": "`sending` is durable (or what had to be true before the first byte), nothing has left",
        "http.connected": "a connection is there, no byte has left",
        "http.sent": "the request is with the operating system, no answer was read",
        "http.head": "the head of the answer was read",
        "http.answered": "the answer was read, its outcome is nowhere else",
        "delivery.tried": "outcomes wait for their commit",
        "delivery.settled": "outcomes are durable, the worker does not know",
        "receipt.matched": "a receipt has moved its delivery, COMMIT was not said",
    }
)

#: Called at every pass; None in any process that is not a victim.
_on_pass: Callable[[str], object] | None = None


def crashpoint(name: str) -> None:
    """Once per request, claim, group or try, never per row of a group: the hot path pays for each."""
    if _on_pass is not None:
        _on_pass(name)


def watch(on_pass: Callable[[str], object] | None) -> None:
    """Has every pass told to ``on_pass``, in the thread that passes; None ends that."""
    global _on_pass
    _on_pass = on_pass


def arm(point: str, nth: int = 1) -> None:
    """The ``nth`` pass of ``point`` kills this process. Raises ValueError for a place that does not exist."""
    if point not in POINTS or nth < 1:
        raise ValueError(f"no such crash point: {point}:{nth}; one of {', '.join(POINTS)}, counted from 1")
    left = nth

    def on_pass(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    watch(on_pass)


def _arm_as_told(told: str) -> None:
    if told:
        point, _, nth = told.partition(":")
        arm(point, int(nth or 1))


_arm_as_told(os.environ.get("HUB_CRASH", ""))
