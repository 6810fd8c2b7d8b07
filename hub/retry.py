"""What follows from one try: a pure function from outcome to verdict. No clock, no dice, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from hub.contract import Accepted, Delivered, Outcome, Refused, RetryLater, Scope, Unknown
from hub.model import State

SECOND = 1_000_000
#: A partner that asks for a pause of nothing would be asked again without end, since no try is spent.
MIN_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The durable retry schedule. ``schedule_s[k]`` is the wait after failed try k+1; then it is dead."""

    schedule_s: tuple[float, ...]
    #: Each wait is stretched or shortened by up to this share.
    jitter: float
    retry_after_cap_s: float
    unresolved_after_s: float
    #: Wait of a whole destination that asked for a pause without saying how long.
    pause_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger knows of the delivery and its destination when the try ended."""

    tries: int
    resend_is_safe: bool
    #: While the destination's breaker is open a failure spends no try: an outage kills nothing.
    breaker_open: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The next state, and what the try says about the destination.

    ``due_us`` is when something happens by itself next: the next try (pending), the end of the wait for a
    receipt (accepted) or for a person (unknown).
    """

    state: State
    reason: str
    due_us: int = 0
    spends_try: bool = True
    not_before_us: int = 0
    #: Whose every delivery waits until then.
    not_before_for: Literal["destination", "connection"] = "destination"
    pause: Literal["", "destination", "connection"] = ""
    #: +1 counts towards the destination's breaker, -1 closes it, 0 says nothing about its health.
    health: Literal[-1, 0, 1] = 0


DELIVERED = Verdict(State.DELIVERED, "", health=-1)


def decide(outcome: Outcome, standing: Standing, policy: Policy, now_us: int, dice: float) -> Verdict:
    """``dice`` in [0, 1) spreads retries; ``now_us`` is the end of the try."""
    match outcome:
        case Delivered():
            return DELIVERED
        case Accepted():
            wait = int(outcome.receipt_within.total_seconds() * SECOND)
            return Verdict(State.ACCEPTED, "", due_us=now_us + wait, health=-1)
        case Unknown():
            return _unknown(outcome.reason, policy, now_us)
        case Refused():
            return _refused(outcome, now_us)
        case RetryLater():
            return _retry_later(outcome, standing, policy, now_us, dice)
        case _:
            assert_never(outcome)


def _unknown(reason: str, policy: Policy, now_us: int) -> Verdict:
    return Verdict(State.UNKNOWN, reason, due_us=now_us + int(policy.unresolved_after_s * SECOND), health=1)


def _refused(outcome: Refused, now_us: int) -> Verdict:
    match outcome.scope:
        case Scope.DELIVERY | Scope.RECIPIENT:
            return Verdict(State.DEAD, outcome.reason, health=-1)
        case Scope.DESTINATION:
            return Verdict(State.PENDING, outcome.reason, due_us=now_us, spends_try=False, pause="destination")
        case Scope.CONNECTION:
            return Verdict(State.PENDING, outcome.reason, due_us=now_us, spends_try=False, pause="connection")
        case _:
            assert_never(outcome.scope)


def _retry_later(outcome: RetryLater, standing: Standing, policy: Policy, now_us: int, dice: float) -> Verdict:
    if outcome.ambiguous and not standing.resend_is_safe:
        return _unknown(outcome.reason, policy, now_us)
    asked_s = None if outcome.after is None else min(max(outcome.after.total_seconds(), 0.0), policy.retry_after_cap_s)
    if outcome.scope in (Scope.DESTINATION, Scope.CONNECTION):
        pause_s = policy.pause_s if asked_s is None else max(asked_s, MIN_PAUSE_S)
        return Verdict(
            State.PENDING,
            outcome.reason,
            due_us=now_us,
            spends_try=False,
            not_before_us=now_us + int(pause_s * SECOND),
            not_before_for="connection" if outcome.scope is Scope.CONNECTION else "destination",
        )
    if standing.breaker_open:
        return Verdict(State.PENDING, outcome.reason, due_us=now_us, spends_try=False, health=1)
    if standing.tries >= len(policy.schedule_s):
        return Verdict(State.DEAD, "tries_spent:" + outcome.reason, health=1)
    wait_s = policy.schedule_s[standing.tries] * (1 + policy.jitter * (2 * dice - 1))
    if asked_s is not None:
        wait_s = max(wait_s, asked_s)
    return Verdict(State.PENDING, outcome.reason, due_us=now_us + int(wait_s * SECOND), health=1)
