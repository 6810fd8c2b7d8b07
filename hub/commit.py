"""The one write door: turns a unit of work into rows (sealed, hashed, routed) and commits it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import orjson

from hub.clock import Clock
from hub.contract import Committed, EventType, Guard, Sealed, UnitOfWork
from hub.errors import Conflict, InputError
from hub.model import Draft, Receipt, new_id, to_us
from hub.routing import Router, Subscription
from hub.security.keys import HubKey, KeyRing
from hub.sql import Statement
from hub.store.base import BatchRow, DraftRows, QueueRow, ReceiptRow, Settlement, Store, Unit

RECEIPT_STATES = ("delivered", "failed", "interim")
_SIGN64 = 1 << 63


def delivery_id(event_id: bytes, destination: str, recipient: str, generation: int) -> bytes:
    """A UUIDv8 that is unique by construction and sorts beside its event.

    Its first half is the event's own time bits, its second a hash of what is unique about the delivery:
    the primary key enforces "once per event, destination, recipient and generation", and all deliveries of
    an event are one range of the key.
    """
    tail = hashlib.blake2b(
        b"%s\0%s\0%s\0%d" % (event_id, destination.encode(), recipient.encode(), generation), digest_size=8
    ).digest()
    return event_range(event_id)[0][:8] + bytes([0x80 | (tail[0] & 0x3F)]) + tail[1:]


def event_range(event_id: bytes) -> tuple[bytes, bytes]:
    """The lowest and highest delivery id an event can have."""
    head = event_id[:6] + bytes([0x80 | (event_id[6] & 0x0F)]) + event_id[7:8]
    return head + b"\x00" * 8, head + b"\xff" * 8


def key_hash(value: str) -> int:
    """A signed 64-bit hash of an id: the future shard."""
    number = int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest())
    return number - 2 * _SIGN64 if number >= _SIGN64 else number


class AsSent(NamedTuple):
    """The same message is the same bytes under its sender's own id, whatever a mapping makes of them."""

    source: str
    body: bytes


class Committer:
    """Prepares units on the event loop; the store's writer only writes."""

    def __init__(
        self,
        store: Store,
        hub_key: HubKey,
        ring: KeyRing,
        router: Router,
        event_types: Mapping[str, EventType],
        clock: Clock,
        *,
        base: str,
        dedupe_keep: timedelta,
    ) -> None:
        self._store = store
        self._hub_key = hub_key
        self.ring = ring
        self.router = router
        self._event_types = event_types
        self._clock = clock
        self._base = base
        self._dedupe_keep_us = int(dedupe_keep.total_seconds() * 1_000_000)

    async def commit(
        self,
        unit: UnitOfWork,
        *,
        connection: str = "",
        settlement: Settlement | None = None,
        deliveries: Sequence[QueueRow] = (),
        quarantined: Mapping[UUID, bytes] | None = None,
        as_sent: AsSent | None = None,
    ) -> Committed:
        """Commits, trying once more when another process made a subject's key first.

        Args:
            quarantined: replaces the content of a draft by bytes no mapping could read; they are sealed.
            as_sent: stands over ``source`` and ``same_as`` of every draft.
        """
        try:
            return await self._commit(unit, connection, settlement, deliveries, quarantined or {}, as_sent)
        except Conflict as conflict:
            if conflict.otherwise != "key_race":
                raise
            self.ring.forget(self._subjects(unit, quarantined or {}))
            return await self._commit(unit, connection, settlement, deliveries, quarantined or {}, as_sent)

    def now(self) -> datetime:
        return self._clock()

    def keyed_hash(self, kind: str, value: bytes) -> bytes:
        """16 bytes that stand for ``value``."""
        return self._hub_key.keyed_hash(kind, value)

    def uri(self, source: str) -> str:
        """A source that begins with "/" stands behind the installation's own URI."""
        return self._base + source if source.startswith("/") else source

    async def _commit(
        self,
        unit: UnitOfWork,
        connection: str,
        settlement: Settlement | None,
        deliveries: Sequence[QueueRow],
        quarantined: Mapping[UUID, bytes],
        as_sent: AsSent | None,
    ) -> Committed:
        now = to_us(self._clock())
        in_rows = self._sealed_in_rows(unit)
        await self.ring.prepare(self._subjects(unit, quarantined), make=True)
        prepared = Unit(
            keys=self.ring.unstored(in_rows, now),
            guards=[self._guard(g) for g in unit.guards],
            statements=[self.seal_statement(s) for s in unit.statements],
            drafts=[self._draft(d, now, quarantined.get(d.id), as_sent) for d in unit.drafts],
            deliveries=deliveries,
            receipts=[self._receipt(r, connection, now) for r in unit.receipts],
            settlement=settlement,
        )
        report = await self._store.commit(prepared)
        self.ring.stored(in_rows)
        for draft, rows, (_, known) in zip(unit.drafts, prepared.drafts, report.events, strict=True):
            if rows.keys and not known:
                self.ring.stored([self._sealed_for(draft, draft.id in quarantined) or ""])
        return Committed(
            tuple(
                [
                    UUID(bytes=kept) if known else d.id
                    for d, (kept, known) in zip(unit.drafts, report.events, strict=True)
                ]
            ),
            tuple([known for _, known in report.events]),
        )

    def _subjects(self, unit: UnitOfWork, quarantined: Mapping[UUID, bytes]) -> list[str]:
        found: dict[str, None] = {}
        for draft in unit.drafts:
            sealed_for = self._sealed_for(draft, draft.id in quarantined)
            if sealed_for is not None:
                found[sealed_for] = None
        for subject in self._sealed_in_rows(unit):
            found[subject] = None
        return list(found)

    def _sealed_in_rows(self, unit: UnitOfWork) -> list[str]:
        """Subjects whose keys the plugin's own rows are sealed under."""
        found: dict[str, None] = {}
        for statement in (*unit.statements, *(g.statement for g in unit.guards)):
            for value in statement.values.values():
                if type(value) is Sealed:
                    found[value.subject] = None
        return list(found)

    def _sealed_for(self, draft: Draft, is_quarantined: bool) -> str | None:
        if is_quarantined:
            return "event:" + draft.id.hex
        event_type = self._event_types.get(draft.type)
        if event_type is None:
            raise InputError(f"event type {draft.type} is not in the catalogue", problem="event-type-unknown")
        if not event_type.personal:
            return None
        return draft.subject or "event:" + draft.id.hex

    def _guard(self, guard: Guard) -> Guard:
        return Guard(self.seal_statement(guard.statement), guard.rows, guard.otherwise)

    def seal_statement(self, statement: Statement) -> Statement:
        """Encrypts the ``Sealed`` values; their keys are in the ring already."""
        values = statement.values
        if not any(type(v) is Sealed for v in values.values()):
            return statement
        seal = self.ring.seal
        return Statement(
            statement.query, {k: seal(v.subject, v.plaintext) if type(v) is Sealed else v for k, v in values.items()}
        )

    def _draft(self, draft: Draft, now: int, raw: bytes | None, as_sent: AsSent | None) -> DraftRows:
        canonical = orjson.dumps(draft.data, option=orjson.OPT_SORT_KEYS)
        body = canonical if raw is None else raw
        sealed_for = self._sealed_for(draft, raw is not None)
        event_id = draft.id.bytes
        source = self.uri(draft.source if as_sent is None else as_sent.source)
        if "\0" in f"{source}{draft.subject}{draft.scope}{draft.purpose}":  # PostgreSQL has no such text
            raise InputError("source, subject, scope and purpose may not hold a NUL", problem="input-invalid")
        same = as_sent.body if as_sent is not None else canonical if draft.same_as is None else draft.same_as
        content_hash = self._hub_key.keyed_hash("content", same)
        dedupe_key = self._hub_key.keyed_hash("dedupe", draft.dedupe_key.encode())
        occurred = now if draft.occurred_at is None else to_us(draft.occurred_at)
        correlation = event_id if draft.correlation_id is None else draft.correlation_id.bytes
        shard = key_hash(draft.subject or draft.dedupe_key)
        batch: BatchRow | None = None
        if draft.audience is not None and raw is None:
            audience = {
                "selector": draft.audience.selector,
                "channels": draft.audience.channels,
                "purpose": draft.audience.purpose,
                "priority": int(draft.priority),
                "expires_at": None if draft.expires_at is None else to_us(draft.expires_at),
            }
            batch = BatchRow((draft.batch_id or new_id()).bytes, event_id, orjson.dumps(audience), new_id().bytes, now)
        return DraftRows(
            (
                event_id, source, draft.type, draft.subject, occurred, now, correlation,
                _batch_of(draft, batch), draft.scope, shard,
            ),
            (
                event_id, sealed_for, int(raw is not None),
                body if sealed_for is None else self.ring.seal(sealed_for, body),
            ),
            (source, dedupe_key, content_hash, event_id, now + self._dedupe_keep_us),
            () if raw is not None else self._owed(draft, event_id, now, shard),
            batch,
            () if sealed_for is None else self.ring.unstored([sealed_for], now),
        )  # fmt: skip

    def _owed(self, draft: Draft, event_id: bytes, now: int, shard: int) -> list[QueueRow]:
        """Once per destination: where two subscriptions lead to the same one, the first of the configuration counts."""
        rows = []
        owed: set[str] = set()
        for route in self.router.routes(draft.type):
            subscription = route.subscription
            if subscription.to is None:
                continue  # one delivery per recipient: the fan-out run makes them
            if subscription.to in owed:
                continue
            owed.add(subscription.to)
            rows.append(
                queue_row(
                    subscription, route.projection.id, event_id, subscription.to, "", now, shard,
                    order_key=self._order_key(draft, subscription),
                    priority=int(draft.priority),
                    expires_at=None if draft.expires_at is None else to_us(draft.expires_at),
                    scope=draft.scope,
                    purpose=draft.purpose,
                    batch_id=_batch_of(draft, None),
                )
            )  # fmt: skip
        return rows

    def _order_key(self, draft: Draft, subscription: Subscription) -> bytes | None:
        if draft.ordering_key is None or not subscription.ordered:
            return None
        return self._hub_key.keyed_hash("order", draft.ordering_key.encode())

    def _receipt(self, receipt: Receipt, connection: str, now: int) -> ReceiptRow:
        if receipt.state not in RECEIPT_STATES:
            raise InputError(f"a receipt is one of {', '.join(RECEIPT_STATES)}", problem="receipt-invalid")
        identity = "\0".join((connection, receipt.ref, receipt.state, receipt.reason, receipt.dedupe_key))
        return ReceiptRow(
            self._hub_key.keyed_hash("receipt", identity.encode()),
            connection,
            receipt.ref,
            receipt.state,
            receipt.reason,
            now,
        )


def _batch_of(draft: Draft, fanned_out: BatchRow | None) -> bytes | None:
    if fanned_out is not None:
        return fanned_out.id
    return None if draft.batch_id is None else draft.batch_id.bytes


def queue_row(
    subscription: Subscription,
    projection_id: bytes,
    event_id: bytes,
    destination: str,
    recipient: str,
    now: int,
    shard: int,
    *,
    order_key: bytes | None = None,
    priority: int = 1,
    expires_at: int | None = None,
    scope: str = "",
    purpose: str = "",
    batch_id: bytes | None = None,
) -> QueueRow:
    """What a subscription owes one destination (and recipient) for one event."""
    if subscription.expires_after_s is not None:
        own = now + subscription.expires_after_s * 1_000_000
        expires_at = own if expires_at is None else min(own, expires_at)
    return QueueRow(
        id=delivery_id(event_id, destination, recipient, 0),
        event_id=event_id,
        destination=destination,
        recipient=recipient,
        generation=0,
        batch_id=batch_id,
        subscription=subscription.name,
        projection=projection_id,
        purpose=purpose,
        priority=priority if subscription.priority is None else int(subscription.priority),
        order_key=order_key,
        on_dead_hold=int(subscription.on_dead == "hold"),
        expires_at=expires_at,
        created_at=now,
        due_at=now,
        scope_id=scope,
        key_hash=shard,
    )
