"""The ledger as a few dictionaries: what the store must agree with after every move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hub.model import HOLDS_KEY, LEGAL, REVERSIBLE_DEATHS, State
from hub.retry import SECOND
from hub.store.ops.settle import POISON
from tests.ledger import UNRESOLVED_S

S = State
UNRESOLVED = int(UNRESOLVED_S * SECOND)
ENDED = (S.DELIVERED, S.DEAD, S.CANCELLED)


@dataclass(slots=True)
class Owed:
    """One delivery as the model sees it; ``held`` is a death that still keeps its key."""

    seq: int
    destination: str
    key: bytes | None
    hold: bool
    priority: int
    due: int
    expires: int | None
    state: State = S.PENDING
    reason: str = ""
    tries: int = 0
    crashes: int = 0
    lease_no: int = 0
    owner: bytes = b""
    attempts: int = 0
    held: bool = False
    of_parts: int = 0
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def in_queue(self) -> bool:
        return self.state not in ENDED or self.held

    @property
    def holds(self) -> bool:
        return self.state in HOLDS_KEY or self.held


class Model:
    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.owed: dict[bytes, Owed] = {}
        self.paused: set[str] = set()
        self.receipts: dict[str, set[str]] = {}
        #: Until when each process is taken to live.
        self.lives_until: dict[bytes, int] = {}

    # -- moves -----------------------------------------------------------------------------------

    def add(self, id: bytes, o: Owed) -> None:
        if o.key is not None and any(p.in_queue and p.state is not S.ACCEPTED for p in self.line(o) if p.seq < o.seq):
            o.state = S.WAITING
        self.owed[id] = o

    def line(self, o: Owed) -> list[Owed]:
        return [p for p in self.owed.values() if p.key == o.key is not None and p.destination == o.destination]

    def move(self, o: Owed, state: State, reason: str = "") -> None:
        """Changes the state, in the table only; frees the key where that follows."""
        assert (o.state, state) in LEGAL, f"{o.state} -> {state} is not in the table"
        had_key = o.holds
        o.state, o.reason, o.held = state, reason, False
        if had_key and not o.holds:
            self.promote(o)

    def end(self, o: Owed, state: State, reason: str, *, by_person: bool = False) -> None:
        """Ends it; a death that must be looked at keeps the key it had."""
        if state is S.DEAD and o.hold and o.key is not None and o.holds and not by_person:
            assert (o.state, state) in LEGAL
            o.state, o.reason, o.held = state, reason, True
            return
        if o.held and state is S.DEAD:  # the same state, with a person's reason
            o.reason, o.held = reason, False
            self.promote(o)
            return
        self.move(o, state, reason)

    def promote(self, o: Owed) -> None:
        waiting = sorted((p for p in self.line(o) if p.state is S.WAITING), key=lambda p: p.seq)
        if waiting and not any(p.holds and p.seq < waiting[0].seq for p in self.line(o)):
            waiting[0].state = S.PENDING
            waiting[0].due = max(waiting[0].due, self.now())

    # -- what the store should answer ------------------------------------------------------------

    def claimable(self, destination: str, now: int) -> list[bytes]:
        """In the order they should be leased."""
        if destination in self.paused:
            return []
        due = [
            (o.priority, o.due, o.seq, id)
            for id, o in self.owed.items()
            if o.state is S.PENDING and o.destination == destination and o.crashes == 0 and o.due <= now
        ]
        return [id for *_, id in sorted(due)]

    def suspects(self, now: int) -> set[bytes]:
        return {
            id
            for id, o in self.owed.items()
            if o.state is S.PENDING and o.crashes and o.due <= now and o.destination not in self.paused
        }

    # -- receipts --------------------------------------------------------------------------------

    def know(self, o: Owed, refs: list[str], of_parts: int) -> None:
        for ref in refs:
            o.parts.setdefault(ref, "awaited")
            for said in self.receipts.get(ref, ()):
                self._move_part(o, ref, said)
        o.of_parts = max(o.of_parts, of_parts)
        self.weigh(o)

    def receipt(self, ref: str, said: str) -> None:
        self.receipts.setdefault(ref, set()).add(said)
        for o in self.owed.values():
            if ref in o.parts and self._move_part(o, ref, said):
                self.weigh(o)

    def _move_part(self, o: Owed, ref: str, said: str) -> bool:
        forward = {"awaited": ("failed", "delivered"), "failed": ("delivered",), "superseded": ("delivered",)}
        if said not in forward.get(o.parts[ref], ()):
            return False
        o.parts[ref] = said
        return True

    def supersede(self, o: Owed) -> None:
        for ref, state in o.parts.items():
            if state in ("awaited", "failed"):
                o.parts[ref] = "superseded"

    def weigh(self, o: Owed) -> None:
        said = [state for state in o.parts.values() if state != "superseded"]
        if not said or "awaited" in said:
            return
        arrived = set(said) == {"delivered"}
        if arrived and len(said) < max(o.of_parts, 1):
            return
        if o.state in (S.ACCEPTED, S.UNKNOWN):
            self.end(o, S.DELIVERED if arrived else S.DEAD, "" if arrived else "receipt:why")
        elif arrived and o.state is S.DEAD and o.reason in REVERSIBLE_DEATHS:
            was_held = o.held
            o.state, o.reason, o.held = S.DELIVERED, "late_receipt", False
            if was_held:
                self.promote(o)

    # -- time and crashes ------------------------------------------------------------------------

    def sweep(self, now: int) -> None:
        """In the order in which it ran out."""
        timed = [o for o in self.owed.values() if o.state in (S.ACCEPTED, S.UNKNOWN) and o.due <= now]
        expired = [
            o
            for o in self.owed.values()
            if o.state in (S.WAITING, S.PENDING) and o.expires is not None and o.expires <= now
        ]
        for o in sorted(expired, key=lambda o: (o.expires, o.seq)):
            if o.state in (S.WAITING, S.PENDING):
                self.end(o, S.DEAD, "expired")
        for o in sorted(timed, key=lambda o: (o.due, o.seq)):
            if o.state is S.ACCEPTED:
                self.move(o, S.UNKNOWN, "no_receipt")
                o.due = now + UNRESOLVED
            else:
                self.end(o, S.DEAD, "unresolved")

    def beat(self, boot: bytes, now: int, until: int) -> None:
        """Nobody is taken to live much longer than who beats now: the clock may have been set back."""
        self.lives_until[boot] = until
        for other, end in self.lives_until.items():
            if end > until + (until - now):
                self.lives_until[other] = until

    def take_over(self, boot: bytes, now: int) -> int:
        """Frees what processes hold that are gone; answers how much."""
        self.lives_until = {b: until for b, until in self.lives_until.items() if until > now or b == boot}
        gone = [
            o
            for o in sorted(self.owed.values(), key=lambda o: o.seq)
            if o.state in (S.LEASED, S.SENDING) and o.owner != boot and o.owner not in self.lives_until
        ]
        for o in gone:
            o.crashes += 1
            o.attempts += 1
            if o.state is S.LEASED:
                self.move(o, S.PENDING, "crashed")
                o.due = now
                if o.crashes >= POISON:
                    self.end(o, S.DEAD, "poison")
            else:
                self.move(o, S.UNKNOWN, "crashed_while_sending")
                o.due = now + UNRESOLVED
                self.weigh(o)
        return len(gone)

    def free(self, boot: bytes, known: set[bytes]) -> int:
        """What a process was given and never heard of."""
        lost = [o for id, o in self.owed.items() if o.state is S.LEASED and o.owner == boot and id not in known]
        for o in lost:
            self.move(o, S.PENDING, o.reason)
        return len(lost)
