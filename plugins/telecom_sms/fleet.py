"""How the carriers of a choice are doing: who is fit, and for how many messages each has room. No I/O, no clock.

What is seen is the ledger's own (the same for every node): what waits at a carrier and for how long, what became of
what it was given. A verdict changes at most once in ``rest_min``, so that messages do not go to and fro.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from hub.contract import DestinationNow

from .routes import RouteRule, RoutesSettings, in_order

#: Over how long shares are judged, and what a carrier takes in a second is remembered.
WINDOW_S: Final = 60.0
RATE_S: Final = 10.0
#: How often what is seen is kept.
KEEP_EVERY_S: Final = 1.0
#: What waits for an hour that is still to come is not stuck: nothing was due for so long.
FORGET_S: Final = 5.0
#: A carrier is certainly not to be used; a person or its own probe brings it back.
CERTAIN: Final = frozenset({"paused", "breaker_open"})
#: Better a carrier like this than none, in this order; not one of which is certain now that nothing leaves there.
RANKS: Final = ({""}, {"failing", "no_receipts"}, {"slow", "breaker_open", "paused"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a carrier; counts since the ledger began."""

    at: float
    ended: int
    lost: int
    taken: int
    reported: int

    @classmethod
    def of(cls, at: float, now: DestinationNow) -> Seen:
        of = now.counts.get
        reported = of("delivered", 0) + of("dead", 0)
        waiting = of("accepted", 0) + of("unknown", 0)
        return cls(at, now.ended, of("dead", 0) + of("unknown", 0), reported + waiting, reported)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` "": fit. Else since when it is not, and until when it stays so at least. Seconds."""

    reason: str = ""
    since: float = 0.0
    until: float = 0.0


@dataclass(slots=True)
class Carrier:
    receipts: bool
    least_room: int
    now: DestinationNow | None = None
    history: deque[Seen] = field(default_factory=deque)
    #: Given to it since it was looked at.
    placed: int = 0
    #: The most it took in a second lately.
    per_s: float = 0.0
    #: Since when something could be sent and nothing ended; and when that was seen last.
    stuck_since: float | None = None
    stuck_at: float = 0.0
    suspected_since: float | None = None
    verdict: Verdict = Verdict()


class Fleet:
    """The carriers of one choice; instants are seconds of the hub's clock."""

    def __init__(self, settings: RoutesSettings, least_room: Mapping[str, int]) -> None:
        """``least_room``: how many messages keep each carrier busy; connections that do not exist are absent."""
        self._settings = settings
        self.carriers = {
            name: Carrier(share.receipts, least_room[name])
            for name, share in settings.carriers().items()
            if name in least_room
        }
        self.looked_at = float("-inf")
        self._open: dict[str, int] = {}

    # -- seeing ------------------------------------------------------------------------------------

    def see(self, at: float, standings: Mapping[str, DestinationNow]) -> dict[str, Verdict]:
        """Takes in how everything stands; answers the verdicts that change now, for whoever keeps them."""
        self.looked_at = at
        self._open = {name: now.open for name, now in standings.items()}
        changed = {}
        for name, carrier in self.carriers.items():
            carrier.now, carrier.placed = standings.get(name), 0
            if carrier.now is None:
                continue
            seen = Seen.of(at, carrier.now)
            self._watch(carrier, carrier.now, seen)
            self._keep(carrier, seen)
            verdict = self._judged(carrier, at)
            if verdict != carrier.verdict:
                changed[name] = verdict
            carrier.verdict = verdict
        return changed

    def recall(self, verdicts: Mapping[str, Verdict]) -> None:
        """What other nodes, or this one before its start, found."""
        for name, verdict in verdicts.items():
            if name in self.carriers:
                self.carriers[name].verdict = verdict

    def _watch(self, carrier: Carrier, now: DestinationNow, seen: Seen) -> None:
        """What is put back again and again is never due for long: it counts that nothing at all ends."""
        moved = bool(carrier.history) and seen.ended != carrier.history[-1].ended
        if moved or not now.open or seen.at - carrier.stuck_at > FORGET_S:
            carrier.stuck_since = None
        if now.overdue_s > 0:
            carrier.stuck_at = seen.at
            if carrier.stuck_since is None:
                carrier.stuck_since = seen.at

    def _keep(self, carrier: Carrier, seen: Seen) -> None:
        history = carrier.history
        if not history or seen.at - history[-1].at >= KEEP_EVERY_S:
            history.append(seen)
        while seen.at - history[0].at > 2 * WINDOW_S + self._settings.receipt_late_s:
            history.popleft()
        recent = [each for each in history if each.at >= seen.at - RATE_S]
        rates = [(b.ended - a.ended) / (b.at - a.at) for a, b in pairwise(recent)]
        carrier.per_s = max(rates, default=0.0)

    # -- judging -----------------------------------------------------------------------------------

    def _judged(self, carrier: Carrier, at: float) -> Verdict:
        trouble, verdict, rest_s = self._trouble(carrier, at), carrier.verdict, self._settings.rest_min * 60
        if verdict.reason:
            if verdict.reason == "paused" and not trouble:
                return Verdict()  # only a person pauses and resumes
            if at < verdict.until:
                return verdict
            return Verdict(verdict.reason, verdict.since, at + rest_s) if trouble else Verdict()
        if not trouble:
            carrier.suspected_since = None
            return verdict
        if carrier.suspected_since is None:
            carrier.suspected_since = at
        if trouble not in CERTAIN and at - carrier.suspected_since < self._settings.suspect_s:
            return verdict
        carrier.suspected_since = None
        return Verdict(trouble, at, at + rest_s)

    def _trouble(self, carrier: Carrier, at: float) -> str:
        assert carrier.now is not None
        settings, history, last = self._settings, carrier.history, carrier.history[-1]
        if carrier.now.blocked:
            return carrier.now.blocked
        stuck_s = 0.0 if carrier.stuck_since is None else at - carrier.stuck_since
        if max(carrier.now.overdue_s, stuck_s) >= settings.slow_after_s:
            return "slow"
        minute_ago = _at(history, at - WINDOW_S)
        ended = last.ended - minute_ago.ended
        if ended >= settings.judged_least and last.lost - minute_ago.lost >= settings.failed_share * ended:
            return "failing"
        return "no_receipts" if carrier.receipts and self._lacks_receipts(history, at) else ""

    def _lacks_receipts(self, history: Sequence[Seen], at: float) -> bool:
        """Of a minute's messages, so old that all should have been reported: how many more are missing since then."""
        settings, late_s = self._settings, self._settings.receipt_late_s
        due, before = _at(history, at - late_s), _at(history, at - late_s - WINDOW_S)
        missing = max(0, due.taken - history[-1].reported)
        missed_before = max(0, before.taken - _at(history, at - WINDOW_S).reported)
        taken = due.taken - before.taken
        return taken >= settings.judged_least and missing - missed_before > (1 - settings.receipt_share) * taken

    # -- choosing ----------------------------------------------------------------------------------

    def candidates(self, rule: RouteRule, message: bytes, try_no: int) -> list[str]:
        """Carriers that may take the message, the first choice first; one of weight 0 only where nobody else can."""
        known = [share for share in rule.carriers if self._is_usable(share.connection)]
        for reasons in RANKS:
            fit = [share for share in known if self.carriers[share.connection].verdict.reason in reasons]
            if fit:
                weighted = [share for share in fit if share.weight]
                return in_order(weighted or fit, message, try_no)
        return []

    def _is_usable(self, name: str) -> bool:
        now = self.carriers[name].now if name in self.carriers else None
        return now is not None and not now.blocked

    def has_room(self, name: str) -> bool:
        carrier = self.carriers[name]
        assert carrier.now is not None
        return carrier.now.open + carrier.placed < max(carrier.least_room, self._settings.ahead_s * carrier.per_s)

    def place(self, name: str) -> None:
        self.carriers[name].placed += 1

    def waiting(self, destination: str) -> int:
        return self._open.get(destination, 0)

    def unfit(self) -> list[str]:
        """Those from which what waits had better leave, because another carrier of theirs is fit."""
        return [
            name
            for name, carrier in self.carriers.items()
            if carrier.verdict.reason and self.waiting(name) and self._has_another(name)
        ]

    def _has_another(self, name: str) -> bool:
        return any(
            share.connection != name
            and self._is_usable(share.connection)
            and not self.carriers[share.connection].verdict.reason
            for rule in self._settings.rules
            if name in {share.connection for share in rule.carriers}
            for share in rule.carriers
        )


def _at(history: Sequence[Seen], at: float) -> Seen:
    """The last look before an instant, or the first there is."""
    found = history[0]
    for seen in history:
        if seen.at > at:
            break
        found = seen
    return found
