"""What the core asks of a store, one sentence each, and the rows that pass through the seam.

Rows are tuples or slotted records of int, str and bytes; instants are microseconds. Every method that
writes answers only after its COMMIT.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from hub.contract import Guard
from hub.model import State
from hub.sql import Statement

EventRow = tuple[bytes, str, str, str | None, int, int, bytes, bytes | None, str, int]
"""id, source, type, subject, occurred_at, received_at, correlation_id, batch_id, scope_id, key_hash"""

ContentRow = tuple[bytes, str | None, int, bytes]
"""event_id, sealed_for, quarantined, body"""

DedupeRow = tuple[str, bytes, bytes, bytes, int]

#: A data key: subject, wrapped, made at.
KeyRow = tuple[str, bytes, int]
"""source, key, content_hash, event_id, keep_until"""


class QueueRow(NamedTuple):
    """A delivery as it is first owed; ``id`` is derived from (event, destination, recipient, generation)."""

    id: bytes
    event_id: bytes
    destination: str
    recipient: str
    generation: int
    batch_id: bytes | None
    subscription: str
    projection: bytes
    purpose: str
    priority: int
    order_key: bytes | None
    on_dead_hold: int
    expires_at: int | None
    created_at: int
    due_at: int
    scope_id: str
    key_hash: int


@dataclass(frozen=True, slots=True)
class BatchRow:
    id: bytes
    event_id: bytes
    audience: bytes
    run_id: bytes
    created_at: int


@dataclass(frozen=True, slots=True)
class DraftRows:
    """One draft, ready to be written."""

    event: EventRow
    content: ContentRow
    dedupe: DedupeRow
    deliveries: Sequence[QueueRow]
    batch: BatchRow | None = None
    #: What stores the key of its content, written only if the draft is new: a repeat leaves nothing behind.
    keys: Sequence[KeyRow] = ()


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    id: bytes
    connection: str
    ref: str
    state: str
    reason: str
    received_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A unit of work with everything sealed, routed and hashed: nothing left to think about."""

    #: New data keys that its statements are sealed under.
    keys: Sequence[KeyRow] = ()
    guards: Sequence[Guard] = ()
    statements: Sequence[Statement] = ()
    drafts: Sequence[DraftRows] = ()
    deliveries: Sequence[QueueRow] = ()
    receipts: Sequence[ReceiptRow] = ()
    settlement: Settlement | None = None


@dataclass(slots=True)
class Job:
    """A claimed delivery with its event: everything one try needs, read in the claim."""

    id: bytes
    event_id: bytes
    destination: str
    recipient: str
    batch_id: bytes | None
    subscription: str
    projection: bytes
    purpose: str
    order_key: bytes | None
    on_dead_hold: int
    expires_at: int | None
    tries: int
    crashes: int
    lease_no: int
    body_sha256: bytes | None
    created_at: int
    due_at: int
    event_source: str
    event_type: str
    subject: str | None
    occurred_at: int
    correlation_id: bytes
    scope_id: str
    sealed_for: str | None
    content: bytes
    breaker_open: bool = False
    #: The instant this try was given on a paced destination, 0 where there is no limit.
    send_at: int = 0
    claimed_at: int = 0
    #: When the running stage of the try is cancelled, on the monotonic clock, and whether it was.
    limit_s: float = 0.0
    ran_out: bool = False
    #: Whether its start is committed: until its end is too, a crash leaves it in doubt.
    sending: bool = False
    #: In which of its process's terms it was claimed: one that had to join anew has lost what was from before.
    term: int = 0


class AttemptRow(NamedTuple):
    """What one try saw, in the order of the table's columns."""

    started_at: int
    finished_at: int
    outcome: str
    reason: str
    status: int | None = None
    connect_us: int | None = None
    first_byte_us: int | None = None
    total_us: int | None = None
    answer: bytes | None = None


@dataclass(slots=True)
class Settlement:
    """What becomes of a claimed delivery; fenced by ``lease_no``."""

    id: bytes
    lease_no: int
    destination: str
    connection: str
    order_key: bytes | None
    on_dead_hold: int
    state: State
    reason: str
    due_us: int
    spends_try: bool
    attempt: AttemptRow | None
    body_sha256: bytes | None = None
    refs: tuple[str, ...] = ()
    of_parts: int = 0
    not_before_us: int = 0
    not_before_for: Literal["destination", "connection"] = "destination"
    pause: Literal["", "destination", "connection"] = ""
    health: int = 0
    #: Whether this was the one try that asks if the partner is back.
    probe: bool = False
    #: The destination it is owed to from now on (it is pending then), "" for the same.
    divert_to: str = ""
    #: Whether a try from there that a crash cut off before its start was committed may have arrived.
    lost_may_have_left: bool = True


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    failures: int
    first_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """``capacity``: free slots per destination of this process; others are not touched."""

    now: int
    owner: bytes
    lease_until: int
    limit: int
    capacity: Mapping[str, int]
    #: Whether one delivery that was in flight at a crash may be taken too; it runs alone.
    suspect: bool


@dataclass(slots=True)
class Claim:
    jobs: list[Job] = field(default_factory=list)
    #: When something becomes due that could not be claimed now.
    next_at: int = 2**62


@dataclass(frozen=True, slots=True)
class DestinationRow:
    id: str
    connection: str
    spacing_us: int


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class RunRow:
    id: bytes
    kind: str
    object: str
    slot: int
    cursor: str | None
    #: The process it was given to; whoever lost it meanwhile changes nothing any more.
    owner: bytes


@dataclass(frozen=True, slots=True)
class CommitReport:
    """Per draft: the id of the event that stands, and whether it stood before."""

    events: Sequence[tuple[bytes, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneStep:
    """One bounded deletion: rows of a table that ended before an instant, or these events' contents or all of them.

    ``limit``: rows, or of events deliveries; what hangs on a delivery goes with it.
    """

    table: Literal["dedupe", "idempotency", "raw_request", "receipt", "repair", "run", "content", "event"]
    before: int = 0
    events: Sequence[bytes] = ()
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Pruned:
    """Rows that went, by table, and the events that have to be asked for again: they did not fit into the step."""

    rows: Mapping[str, int]
    left: Sequence[bytes]


Listing = Literal["events", "deliveries", "attempts", "receipts", "repairs", "connections", "runs", "batches"]


class Store(Protocol):
    """The ledger. One instance per process; every method may be called from the event loop only."""

    #: Whether other processes may work on it at the same time.
    shared: bool
    #: The process that works on it; set before ``open``, so that others know its sessions when it is lost.
    boot: bytes
    #: Called when another process says that something became due.
    on_hint: Callable[[], None]

    async def open(self) -> None:
        """Opens, migrates, checks the hub key's fingerprint and takes over what a dead process left."""

    async def close(self) -> None:
        """Commits what was submitted and closes."""

    async def commit(self, unit: Unit) -> CommitReport:
        """Writes one unit, or raises ``Conflict``, ``IdempotencyConflict`` or ``Busy`` and changes nothing."""

    async def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Committed rows of one query."""

    async def claim(self, request: ClaimRequest) -> Claim:
        """Leases due deliveries, a few of each due destination, the longest unserved first."""

    async def start(self, delivery_id: bytes, lease_no: int, body_sha256: bytes, guards: Sequence[Guard]) -> bool:
        """Moves ``leased`` to ``sending`` with the guards; False when the lease is no longer ours."""

    async def settle(self, settlements: Sequence[Settlement], now: int) -> list[bool]:
        """Applies settlements with their attempts; False for each that came after its lease was lost."""

    async def divert(
        self, ids: Sequence[bytes], source: str, target: str, now: int, *, lost_may_have_left: bool = True
    ) -> int:
        """Owes those that wait at ``source``, and surely never left from there, to ``target``; answers how many."""

    async def record_refs(self, connection: str, delivery_id: bytes, refs: Sequence[str], of_parts: int = 0) -> None:
        """Makes references durable while the try is running and matches parked receipts."""

    async def now(self) -> int:
        """The ledger's clock in microseconds: the database server's, or this machine's."""

    async def beat(self, boot: bytes, name: str, now: int, until: int) -> int:
        """Says that this process lives, until the given instant; answers when the next other lease ends."""

    async def leave(self, boot: bytes) -> None:
        """This process has ended in order: it holds nothing any more."""

    async def take_over(self, boot: bytes, now: int) -> int:
        """Frees every lease of processes that are gone: ``leased`` to ``pending``, ``sending`` to ``unknown``."""

    async def hold_lease(self, name: str, owner: bytes, now: int, until: int) -> bool:
        """Takes or renews what one process does at a time; False while another has it."""

    async def drop_lease(self, name: str, owner: bytes) -> None:
        """Gives it back."""

    async def free_jobs(self, boot: bytes, known: Collection[bytes]) -> int:
        """Frees what a claim of this process leased whose answer was lost; it holds only the ``known`` ones."""

    async def free_runs(self, boot: bytes, known: Collection[bytes]) -> int:
        """The same for its runs."""

    async def place_events(self, limit: int) -> int:
        """Gives up to ``limit`` committed events their feed positions; answers how many."""

    async def sweep(self, now: int) -> int:
        """Settles what ran out: expiry, receipts that never came, unknowns nobody resolved."""

    async def stop_batch(self, batch_id: bytes) -> bool:
        """Nothing more is made for a batch or begun; False when there is none."""

    async def cancel_stopped(self, batch_id: bytes, first: bytes, last: bytes, now: int) -> bytes | None:
        """Cancels some of its waiting deliveries in a range of ids; answers where to go on, None at the end."""

    async def configure(self, connections: Sequence[ConnectionRow], destinations: Sequence[DestinationRow]) -> None:
        """Makes the rows of configured connections and destinations; pauses those whose file is gone."""

    async def keep_projections(self, projections: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Stores projections by id and answers all that were ever used."""

    async def subject_keys(self, subjects: Sequence[str]) -> dict[str, bytes]:
        """Wrapped data keys of the subjects that have one."""

    async def erase(self, subject: str, who: str, reason: str, now: int) -> bytes | None:
        """Destroys a subject's data key and keeps who asked and why; the key's id, None where there is no key."""

    async def cancel_erased(self, deliveries: Sequence[bytes], now: int) -> int:
        """Cancels those of these deliveries that wait, since what they would send was erased; answers how many."""

    async def due_run(self, kind: str, object: str, slot: int, now: int) -> bool:
        """Writes a due run, unique on (kind, object, slot); False when it is there already."""

    async def claim_run(self, owner: bytes, now: int) -> RunRow | None:
        """Takes the oldest due run."""

    async def finish_run(self, run: RunRow, state: str, reason: str, now: int) -> bool:
        """Ends a run; a failed one leaves the cursor where the last page put it. False: another process has it now."""

    async def pause(self, kind: str, name: str, by: str | None, reason: str, now: int) -> bool:
        """Pauses (or, with ``by`` None, resumes) a connection or destination; False when unknown."""

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Committed rows of one SQL text of the console's and command line's listings."""

    async def replay(self, delivery_id: bytes, new_id: bytes, now: int) -> bytes | None:
        """Owes a settled delivery once more as its next generation; None when it is not settled."""

    async def resolve(self, delivery_id: bytes, verdict: str, reason: str, now: int) -> bool:
        """A person's word on an ``unknown`` (or a held dead) delivery: delivered, failed or resend."""

    async def open_repair(self, kind: str, object: str, detail: str, now: int) -> None:
        """Opens one repair per (kind, object)."""

    async def clear_repair(self, kind: str, object: str, now: int) -> None:
        """Clears it; does nothing when there is none."""

    async def ping(self) -> None:
        """Commits an empty unit: raises ``Busy`` when the ledger cannot be written."""

    async def hold(self, reason: str | None) -> None:
        """Holds all sending for a reason, or releases it."""

    async def held(self) -> str | None:
        """Why nothing is sent, or None."""

    async def prune(self, step: PruneStep) -> Pruned:
        """Deletes a bounded number of rows that were kept long enough, never of what is still owed to somebody."""

    async def drop_days(self, before: int) -> Mapping[str, int]:
        """Drops whole settled days before an instant where the engine has days; answers the rows by table."""

    async def snapshot_age_s(self) -> float:
        """How long the oldest open snapshot has lasted: what was deleted since still takes its place."""
