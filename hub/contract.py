"""What a plugin and the core promise each other: roles, outcomes and the unit of work.

Plugins import this module, ``hub.model``, ``hub.sql``, ``hub.errors``, ``hub.http`` and ``hub.signing``,
and nothing deeper. Times are aware UTC datetimes, durations are timedeltas.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import MetaData

from hub.model import Draft, Event, Json, Receipt
from hub.sql import Query, Statement

# -- units of work ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value for a statement that is encrypted under ``subject``'s data key on its way to the disk.

    Read it back with ``Hub.unseal``; when the subject's key is destroyed it reads as None.
    """

    subject: str
    plaintext: bytes


@dataclass(frozen=True, slots=True)
class Guard:
    """A statement and the number of rows it must touch; else the unit is undone and ``Conflict`` raised."""

    statement: Statement
    rows: int = 1
    #: Why the unit could not stand, carried by ``Conflict.otherwise`` (and by a cancelled delivery).
    otherwise: str = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOfWork:
    """Everything that must become true together: a value, shipped to the one writer.

    Guards run first, in order, then statements, drafts (each with the deliveries it is owed), receipts.
    Statement values are int, str, bytes, None or ``Sealed``.
    """

    guards: Sequence[Guard] = ()
    statements: Sequence[Statement] = ()
    drafts: Sequence[Draft] = ()
    receipts: Sequence[Receipt] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """``repeated[i]`` says that draft ``i`` was known already and added nothing."""

    events: tuple[UUID, ...] = ()
    repeated: tuple[bool, ...] = ()


# -- outcomes of one try ---------------------------------------------------------------------------


class Scope(StrEnum):
    """How far a failure reaches. Destination and connection put the delivery back without spending a try."""

    DELIVERY = "delivery"
    RECIPIENT = "recipient"
    DESTINATION = "destination"
    CONNECTION = "connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What was seen on the wire; ``answer`` is capped by the sink and masked before it is stored.

    ``connect_ms``, ``first_byte_ms`` and ``total_ms`` count from the start; ``dns_ms`` and ``tls_ms`` are the parts of
    ``connect_ms`` that a name and a handshake took, None where there was none.
    """

    status: int | None = None
    connect_ms: float | None = None
    first_byte_ms: float | None = None
    total_ms: float | None = None
    answer: bytes = b""
    dns_ms: float | None = None
    tls_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """It arrived; nothing more is awaited."""

    exchange: Exchange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The partner has it under ``refs`` (one per part) and reports within ``receipt_within``."""

    refs: tuple[str, ...]
    receipt_within: timedelta
    exchange: Exchange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryLater:
    """Not now. ``after`` is the partner's own word (Retry-After); ``ambiguous``: it may have arrived."""

    reason: str
    after: timedelta | None = None
    scope: Scope = Scope.DELIVERY
    ambiguous: bool = False
    exchange: Exchange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Never, for this delivery (or recipient); with a wider scope: not until a person has acted."""

    reason: str
    scope: Scope = Scope.DELIVERY
    exchange: Exchange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Bytes left and no answer came, and sending again could do it twice.

    ``refs`` are those the partner did answer, ``of_parts`` how many there would have been.
    """

    reason: str
    refs: tuple[str, ...] = ()
    of_parts: int = 0
    exchange: Exchange | None = None


Outcome = Delivered | Accepted | RetryLater | Refused | Unknown


#: ``Guard.otherwise`` of an admission that was given without a look: when it fails, ``admit`` is asked again at once.
ASK_AGAIN: Final = "ask_again"


@dataclass(frozen=True, slots=True)
class Admit:
    """May be sent now; ``guards`` commit with the start, and a failed one cancels with its reason."""

    guards: Sequence[Guard] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """May not be sent before ``until``; no try is spent. ``scope`` DESTINATION: nor may anything else from there."""

    until: datetime
    reason: str
    scope: Literal[Scope.DELIVERY, Scope.DESTINATION] = Scope.DELIVERY


@dataclass(frozen=True, slots=True)
class Cancel:
    """Need not or may not be sent any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Divert:
    """Owed to another destination of this installation from now on, and due there at once; no try is spent.

    The delivery keeps its id, its tries and its expiry; ordering keys are kept at each destination, not over several.
    """

    to: str
    reason: str = ""


Admission = Admit | Hold | Cancel | Divert

# -- what a sink is handed -------------------------------------------------------------------------


class RecordRefs(Protocol):
    """Makes references durable while the try is still running (a part that was answered).

    ``of_parts`` is how many references the whole delivery will have: without it, receipts alone can never
    prove that a try which ended without an outcome arrived in full.
    """

    async def __call__(self, refs: Sequence[str], of_parts: int = 0) -> None: ...


@dataclass(slots=True, kw_only=True)
class Shipment:
    """One try of one delivery, made for it. ``body`` is what ``Sink.render`` answered, byte for byte at every try."""

    #: 16 bytes of the delivery's id; ``delivery_id`` shows it.
    id: bytes
    lease_no: int
    try_no: int
    destination: str
    event: Event
    recipient: str
    #: Where the Directory reaches the recipient on this sink's channel; None when there is no recipient.
    address: str | None
    batch_id: UUID | None
    expires_at: datetime | None
    body: bytes
    #: Why people are written to, as the campaign or the draft said; "" when nobody did.
    purpose: str = ""
    #: Seconds this try may take in all; the lease outlives it.
    deadline_s: float
    record_refs: RecordRefs

    @property
    def delivery_id(self) -> UUID:
        """The same id at every try: what a partner recognises a repeat by."""
        return UUID(bytes=self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSpec:
    """One paced stream out. ``name`` "" is the connection itself, else it becomes ``connection/name``."""

    name: str = ""
    #: Tries in flight at once on one node.
    concurrency: int = 10
    #: Starts per second over all nodes; None for no limit.
    rate_per_s: float | None = None


class Sink(Protocol):
    """Is sent to."""

    #: False: what timed out after bytes left is ``unknown`` and never sent again by a machine.
    resend_is_safe: bool

    def destinations(self) -> Sequence[DestinationSpec]:
        """The paced streams of this sink, when the connection opens and whenever it says that they changed."""

    def render(self, event: Event) -> bytes:
        """The body on the wire: a pure function of the event, so that every try sends the same bytes."""

    async def admit(self, shipment: Shipment) -> Admission:
        """Asked at every try before the first byte; no I/O towards the partner."""

    async def send(self, shipment: Shipment) -> Outcome:
        """One try. Raises nothing on purpose: partner failures are outcomes."""


@dataclass(frozen=True, slots=True)
class RawRequest:
    """An inbound request as it came. Header names are lower case, values as sent."""

    connection: str
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime
    method: str = "POST"
    #: What follows ``/in/{connection}/``, as sent; "" when nothing does.
    path: str = ""
    #: The last value of each name.
    query: Mapping[str, str] = field(default_factory=dict)
    #: Address of whoever is connected: the sender, or the proxy before us.
    remote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """What ``/in/{connection}`` takes for a receiver, and what it says when the message is kept."""

    methods: tuple[str, ...] = ("POST",)
    #: JSON is read strictly before ``understand``; bodies of other types are handed over as bytes.
    media: tuple[str, ...] = ("application/json",)
    #: At most so many bytes; None for the hub's own limit.
    max_body_bytes: int | None = None
    status: int = 202
    answer: bytes = b'{"status":"accepted"}'
    answer_media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Verified:
    """The sender is genuine; ``dedupe_key`` is its own id of this message."""

    dedupe_key: str


class Receiver(Protocol):
    """Takes inbound HTTP. ``verify`` sees raw bytes before anything is parsed."""

    def verify(self, request: RawRequest) -> Verified:
        """Raises ``Unauthenticated``; must not parse the body."""

    def understand(self, request: RawRequest, verified: Verified, body: Any) -> UnitOfWork:
        """Drafts or receipts from strict JSON; raises ``NotUnderstood`` and the hub keeps the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One step of a pull: what it brought, and the cursor that is true once it is committed."""

    unit: UnitOfWork
    cursor: str | None
    #: Whether there is nothing more to read now.
    done: bool
    #: For the source itself: what ``acknowledge`` needs.
    token: Any = None


class Source(Protocol):
    """Is pulled on a schedule, page by page; each page and its cursor are one transaction."""

    async def page(self, cursor: str | None) -> Page:
        """The next page after ``cursor``; may raise, then the run fails and the cursor stays."""

    async def acknowledge(self, page: Page) -> None:
        """Tells the partner that the page is kept; called after COMMIT and may be called again."""


@dataclass(frozen=True, slots=True)
class Handler:
    """Consumes events durably: what it returns commits together with the settlement of its delivery.

    ``handle`` does no network I/O. A subscription names it as ``handler:<name>``.
    """

    name: str
    handle: Callable[[Event, Hub], Awaitable[UnitOfWork | Outcome]]


class Directory(Protocol):
    """Who can be reached where, asked at the moment of sending; provided by one plugin, used by any.

    Subjects are the opaque ids of events. Addresses live in memory only while a message is sent.
    """

    def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        """Subjects of an audience, in pages, in a stable order, each once."""

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        """The address of each subject that has one on ``channel`` ("app", "phone")."""

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        """None, or the reason why this subject must not be contacted (``left_the_union``)."""


# -- who asks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks: a person at the command line or console, or the bearer of an API key."""

    name: str
    #: What an API key was given: ``events:publish``; ``admin`` is all of it. None: a person here, who may everything.
    scopes: frozenset[str] | None = None
    #: ``scope`` of the events and deliveries that may be seen; None: all.
    sees: frozenset[str] | None = None
    #: Whose key it is, in the words of the plugin that gave it out: ``partner:so-noi-vu``; "" is this installation.
    owner: str = ""
    #: A test key's: what it asks for is checked and answered as ever, and reaches no phone and no partner.
    test: bool = False
    #: Stable over repeats of one request with an Idempotency-Key, else "". As a draft's dedupe key it makes the draft
    #: once even where a crash cut off the first answer.
    request_key: str = ""

    @property
    def sees_all(self) -> bool:
        return not self.owner and self.sees is None

    def may(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes or "admin" in self.scopes


OPERATOR = Principal(name="operator")


class FeedView(Protocol):
    """What the bearer of an API key with an ``owner`` reads of the feed; provided by one plugin (``hub_feed_view``).

    ``GET /api/v1/events?after=&wait=`` walks the events by feed position and asks for each of them, so a view keeps
    no cursor and need not be told what was read. Without a view such a key reads nothing.
    """

    async def __call__(self, principal: Principal, event: Event) -> Json | None:
        """The event as ``principal`` may see it now (``data`` is whole here), or None where nothing was granted.

        Raises nothing on purpose; one event after the other, in the order of the feed.
        """


# -- connections -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step of ``unionhub connections check``: dns, tcp, tls, login, in this order."""

    step: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """A subscription that a connection brings itself, beside those of the configuration's files."""

    #: Unique in this installation; deliveries remember it.
    name: str
    types: tuple[str, ...]
    #: One of the connection's own destinations: ``connection/name``.
    to: str
    #: Fields that leave beside the thin ones.
    fields: tuple[str, ...] = ()
    ordered: bool = True
    on_dead: Literal["continue", "hold"] = "continue"
    expires_after_s: int | None = None


@dataclass(slots=True, kw_only=True)
class Connection:
    """A configured instance of a connector type, opened. Every role is optional."""

    receiver: Receiver | None = None
    inbound: Inbound = field(default_factory=Inbound)
    source: Source | None = None
    sink: Sink | None = None
    #: A task for as long as the hub runs (a session to keep up); restarted with backoff when it ends.
    run: Callable[[], Awaitable[None]] | None = None
    #: How many processes may keep ``run`` up at once, over all nodes; the others leave its deliveries to them.
    sessions: int | None = None
    #: Its own subscriptions as they are now; asked before ``sink.destinations`` when the hub opens and after
    #: each ``ConnectionContext.changed``.
    routes: Callable[[], Awaitable[Sequence[Subscribed]]] | None = None
    check: Callable[[], AsyncIterator[CheckStep]] | None = None
    close: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationNow:
    """How one paced stream stands, over all nodes."""

    #: Deliveries that wait for a try or are in one.
    open: int
    #: Of the others by state, since the ledger began: what was pruned counts too.
    counts: Mapping[str, int]
    #: For how long the one that waits longest could have been sent; 0 when none is due.
    overdue_s: float
    #: Why nothing is sent: paused, breaker_open, or "".
    blocked: Literal["", "paused", "breaker_open"]

    @property
    def ended(self) -> int:
        """How many left by a try or were cancelled."""
        return sum(self.counts.values())


class ConnectionSettings(BaseModel):
    """Base of every connector type's settings; unknown keys are refused, every field is described."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SettingsT = TypeVar("SettingsT", bound=ConnectionSettings)


class Hub(Protocol):
    """What a plugin may ask of the hub. The same object serves handlers, commands and connections."""

    async def commit(self, unit: UnitOfWork) -> Committed:
        """Makes the unit durable, or raises and changes nothing.

        Raises: Conflict (a guard failed: read again and try again), IdempotencyConflict, Busy.
        """

    async def fetch(self, statement: Statement) -> list[tuple[Any, ...]]:
        """Committed rows, as tuples in the order of the query's columns."""

    async def unseal(self, sealed: Sequence[tuple[str, bytes | None]]) -> list[bytes | None]:
        """Plaintexts of (subject, sealed value) pairs; None where the value or the subject's key is gone."""

    def keyed_hash(self, kind: str, value: str) -> bytes:
        """16 bytes that stand for ``value`` in an index without telling it; stable for this installation."""

    def now(self) -> datetime: ...

    def settings_of(self, kind: type[SettingsT]) -> Mapping[str, SettingsT]:
        """Settings of the enabled connections whose settings are of this kind, by name."""

    async def batch(self, id: UUID) -> Json | None:
        """What became of a batch (its id, or its event's), or None: ``state``, ``total`` people, and of these

        ``unreachable``, ``unmade`` (nothing is owed yet) and ``counts`` by state, which add up to ``total``;
        ``reasons`` counts the ended and unknown by reason.
        """

    async def stop_batch(self, id: UUID) -> bool:
        """Nothing more of a batch is begun, on any node, and what waits is cancelled; False when there is none."""

    async def attempts(self, delivery: UUID) -> list[Json]:
        """What was tried of a delivery, the first first: ``started_at``, ``outcome``, ``reason``, ``status``,

        ``dns_ms``, ``connect_ms``, ``tls_ms``, ``first_byte_ms``, ``total_ms`` and the masked ``answer``, or None each.
        """

    async def resend(self, event: UUID, destination: str, *, before: datetime) -> UUID | None:
        """Owes an event of the ledger to a destination (of the connection's own subscriptions) once more.

        Where it was never owed it is owed as today's subscriptions say, else as its next generation; answers the
        delivery's id. None: it is still to be sent, was owed again at or after ``before``, or no subscription leads
        it there. What may leave is judged when it is sent, as ever.

        Raises: InputError (410) when the event's content is gone.
        """

    async def divert(self, source: str, target: str, *, limit: int = 500, tried: int = 0) -> int:
        """Owes to ``target`` again what was first owed there, was diverted to ``source`` and waits; answers how many.

        Only what has surely not left moves: nothing that is being sent, was accepted, is unknown, or may have arrived
        by an earlier try. ``tried``: only what was tried in vain, and at most so often; 0: whatever waits.
        """

    async def standings(self, destinations: Sequence[str]) -> Mapping[str, DestinationNow]:
        """How these destinations stand, as the ledger knows; those it does not know are absent."""

    @property
    def directory(self) -> Directory: ...

    @property
    def event_types(self) -> Mapping[str, EventType]:
        """The catalogue, by name in full."""

    @property
    def principal(self) -> Principal:
        """Who asked for the command that runs; ``OPERATOR`` wherever nobody did over HTTP."""


async def _nobody_listens() -> None:
    """Outside of a hub nothing has to be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionContext:
    """What a connector type gets to open one connection with."""

    name: str
    hub: Hub
    #: Resolves ``{file = "..."}`` or ``{env = "..."}`` in settings; raises ``ConfigError`` naming the key.
    secret: Callable[[SecretRef], str]
    #: Writes one wide log line with the connection's name: ``log("session.bound", window=10)``.
    log: Callable[..., None]
    #: Opens (once per kind and connection) or clears a thing for a person to do.
    open_repair: Callable[[str, str], Awaitable[None]]
    clear_repair: Callable[[str], Awaitable[None]]
    #: Tells the hub to ask for destinations and subscriptions again; raises what ``routes`` raises.
    changed: Callable[[], Awaitable[None]] = _nobody_listens
    #: Folder for this installation's files (``var/``).
    var_dir: Path


class SecretRef(BaseModel):
    """Where a secret is kept: a file (mode 0600) or an environment variable, never the TOML itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str | None = None
    env: str | None = None


@dataclass(frozen=True, slots=True)
class Simulator:
    """How to start this type's simulated partner: ``python -m module --port ... <arguments>``.

    ``arguments`` gets the settings of all connections of the type by name, a resolver of their secrets
    and a folder for files it may need; one process plays all of them.
    """

    module: str
    arguments: Callable[[Mapping[str, Any], Callable[[SecretRef], str], Path], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorType:
    """A kind of system the hub can connect to.

    ``open`` does no I/O; sessions start in ``Connection.run`` and in calls. ``channel`` names the kind of
    address its deliveries need ("app", "phone"), None when they go to the partner itself.
    """

    name: str
    settings: type[ConnectionSettings]
    open: Callable[[ConnectionContext, Any], Connection]
    channel: str | None = None
    title_vi: str = ""
    title_en: str = ""
    #: Started by ``unionhub simulators``, the demo and tests; never part of the running hub.
    simulator: Simulator | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """A type in the catalogue: ``vn.congdoan.<noun>.<past-tense>.v<n>``."""

    name: str
    title_vi: str
    title_en: str
    #: Whether the content is about a person; then it is sealed under the subject's key.
    personal: bool
    #: Top-level or dotted fields that leave by default; a subscription may name more.
    thin: tuple[str, ...]
    #: JSON Schema (draft 2020-12) of ``data`` and one example that fits it.
    schema: Mapping[str, Any]
    example: Mapping[str, Any]
    #: Still made and delivered, but nobody should begin with it; ``successor`` names the type to take, if there is one.
    deprecated: bool = False
    successor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A plugin's own tables: SQLAlchemy metadata and the folder with its migration scripts.

    Table names start with ``<owner>_``; no foreign keys to anybody else's tables.
    """

    owner: str
    metadata: MetaData
    versions: Path


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An entry of the catalogue of log lines: what a line says, and its fields besides at, level and event."""

    name: str
    says: str
    fields: tuple[str, ...] = ()
    level: Literal["info", "warning", "error"] = "info"
    #: All values are ids, codes and numbers made by the hub: only the finished line is masked, not each value.
    plain: bool = False


# -- pages -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """A request to a plugin's page. Header names are lower case; of a name that comes twice the last value counts."""

    method: str
    path: str
    #: Values of the names in braces in the route's path.
    params: Mapping[str, str]
    query: Mapping[str, str]
    #: Fields of a form (``application/x-www-form-urlencoded``).
    form: Mapping[str, str]
    cookies: Mapping[str, str]
    headers: Mapping[str, str]
    #: Address of whoever is connected: the reader, or the proxy before us.
    remote: str
    #: Whether the reader came by https, as far as the hub or the proxy before it knows.
    secure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PageResponse:
    """An answer; the hub adds the headers that keep it in its frame, out of caches and free of outside resources."""

    body: bytes = b""
    status: int = 200
    media: str = "text/html"
    #: ``Location``, ``Set-Cookie``, ``Cache-Control``, ``Retry-After``, ``Content-Disposition``.
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRoute:
    """A page that a plugin serves beside the console, below a first path segment of its own: ``/portal/...``."""

    method: Literal["GET", "POST"]
    #: Names in braces are handed over in ``PageRequest.params``.
    path: str
    handle: Callable[[Hub, PageRequest], Awaitable[PageResponse]]
    #: Who asks, as the plugin finds it (its own sessions); ``Hub.principal`` while ``handle`` runs, and without one
    #: somebody who may see nothing. None: a page for people of this installation, behind the console's own rule.
    who: Callable[[Hub, PageRequest], Awaitable[Principal | None]] | None = None
    max_body_bytes: int = 64 * 1024


Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Where a command answers over HTTP too, below ``/api/v1``.

    Names in braces in ``path`` are fields of the command's ``params``; the others come as query parameters (GET,
    DELETE) or as a JSON body (POST, PUT, PATCH).
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    #: What an API key must be allowed: ``notices:send``. The console's token may everything.
    scope: str
    status: int = 200
    #: Whether a test key may call a command that writes: only one that looks at ``hub.principal.test``.
    takes_test_keys: bool = False
    #: Whether the command itself narrows what it answers to ``hub.principal`` (``owner``, ``sees``); else it is 404 to
    #: keys that may not see everything.
    narrows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """An operator's command, run inside the hub process: ``unionhub units import FILE``.

    ``params`` is a pydantic model; its fields become arguments (``json_schema_extra={"argument": True}``)
    and options of the command line. ``run`` answers a dict: shown as a table by ``render`` or, with
    ``--json``, as it is. ``Path`` fields are made absolute by the command line. An answer with
    ``{"failed": True}`` ends with exit code 1.
    """

    group: str
    name: str
    help_vi: str
    help_en: str
    params: type[BaseModel]
    run: Callable[[Hub, Any, Report], Awaitable[Json]]
    #: Text for the terminal, Vietnamese or English; by default a plain table of the answer.
    render: Callable[[Json, str], str] | None = None
    writes: bool = field(default=True)
    rest: Rest | None = None
    #: The answer's JSON Schema, as the OpenAPI page shows it.
    answer: Json = field(default_factory=lambda: {"type": "object"})


__all__ = [
    "ASK_AGAIN", "OPERATOR", "Accepted", "Admission", "Admit", "Cancel", "CheckStep", "Command", "Committed",
    "Connection", "ConnectionContext", "ConnectionSettings", "ConnectorType", "Delivered", "DestinationSpec",
    "Directory", "EventType", "Exchange", "FeedView", "Guard", "Handler", "Hold", "Hub", "Inbound", "LogEvent",
    "Outcome", "Page", "PageRequest", "PageResponse", "PageRoute", "Principal", "Query", "RawRequest", "Receiver",
    "RecordRefs", "Refused", "Report", "Rest", "RetryLater", "Schema", "Scope", "Sealed", "SecretRef", "Shipment",
    "Simulator", "Sink", "Source", "Statement", "UnitOfWork", "Unknown", "Verified",
]  # fmt: skip
