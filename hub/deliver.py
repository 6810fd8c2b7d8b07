"""One try of one delivery, from the claimed row to the settlement: open, project, ask, start, send, decide.

Raises nothing: whatever happens becomes a settlement. The commit of the settlement is the worker's, except
where a handler's rows and its settlement are one transaction.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol
from uuid import UUID

import orjson

from hub.answers import keep
from hub.clock import Clock, microseconds
from hub.commit import Committer
from hub.contract import (
    ASK_AGAIN,
    Accepted,
    Admission,
    Admit,
    Cancel,
    Delivered,
    Directory,
    Divert,
    Exchange,
    Guard,
    Handler,
    Hold,
    Hub,
    Outcome,
    Refused,
    RetryLater,
    Scope,
    Shipment,
    Sink,
    UnitOfWork,
    Unknown,
)
from hub.crashpoint import crashpoint
from hub.errors import Busy, Conflict
from hub.fanout import Stopped
from hub.log import log
from hub.metrics import observe_attempt
from hub.model import Event, State, from_us, to_us
from hub.retry import DELIVERED, Policy, Standing, Verdict, decide
from hub.routing import Projection, Router
from hub.routing import project as project_fields
from hub.store.base import AttemptRow, Job, Settlement, Store

#: Until a delivery is taken up again that could not begin because the ledger could not be written.
BUSY_PAUSE = 1_000_000

#: How often admission is asked for while what it went by changes under it.
ASKED_MOST = 3
#: A sink keeps its own deadline and tells more about a time-out; this much later we end it.
GRACE_S = 1.0
_OUTCOMES: dict[type, str] = {
    Delivered: "delivered",
    Accepted: "accepted",
    RetryLater: "retry_later",
    Refused: "refused",
    Unknown: "unknown",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a destination leads: a connection's sink, or a handler inside the hub."""

    connection: str
    channel: str | None = None
    sink: Sink | None = None
    handler: Handler | None = None


class Pacer(Protocol):
    """Waits for this try's instant on a paced destination; False when it has passed."""

    async def __call__(self, job: Job) -> bool: ...


class Deliverer:
    """Tries deliveries; holds no state of its own beside caches of pure look-ups."""

    def __init__(
        self,
        *,
        hub: Hub,
        store: Store,
        committer: Committer,
        router: Router,
        projections: Mapping[bytes, tuple[str, ...]],
        targets: Mapping[str, Target],
        directory: Directory | None,
        policy: Policy,
        clock: Clock,
        deadline_s: float,
        still_ours: Callable[[int], bool] = lambda term: True,
        dice: Callable[[], float] = random.random,
        is_stopped: Stopped | None = None,
    ) -> None:
        """``still_ours``: whether what was claimed in a term certainly is; asked directly before the first byte."""
        self._hub = hub
        self._store = store
        self._committer = committer
        self._router = router
        self._projections = projections
        self._targets = targets
        self._directory = directory
        self._policy = policy
        self._now = microseconds(clock)
        self._deadline_s = deadline_s
        self._still_ours = still_ours
        self._dice = dice
        self._is_stopped = is_stopped or Stopped(store)
        self._may_leave: dict[tuple[str, str, bytes], tuple[str, ...] | None] = {}
        self._edition = router.edition

    async def run(self, job: Job, pace: Pacer) -> Settlement | None:
        """The settlement to commit, or None when a handler's unit has committed it already."""
        # The worker looks at limits now and then: a timer per stage would cost a tenth of a delivery.
        job.limit_s = monotonic() + self._deadline_s
        try:
            return await self._run(job, pace)
        except asyncio.CancelledError:
            if not _ran_out(job):
                raise
            log("delivery.broke", delivery=job.id.hex(), destination=job.destination, error="deadline")
            return self._after(job, RetryLater(reason="plugin_error"), self._now(), resend_is_safe=True)
        except Busy:  # before the first byte: the ledger's trouble is no fault of the delivery
            return self._put_back(job, "ledger_busy", self._now() + BUSY_PAUSE)
        except (Exception, SystemExit) as error:  # the named edge: nothing that a plugin does may lose a claimed row
            log("delivery.broke", delivery=job.id.hex(), destination=job.destination, error=type(error).__name__)
            return self._after(job, RetryLater(reason="plugin_error"), self._now(), resend_is_safe=True)

    async def _run(self, job: Job, pace: Pacer) -> Settlement | None:
        now = self._now()
        if job.expires_at is not None and job.expires_at <= now:
            return self._end(job, State.DEAD, "expired")
        if job.batch_id is not None and await self._is_stopped(job.batch_id):
            return self._end(job, State.CANCELLED, "batch_stopped")
        target = self._targets.get(job.destination)
        if target is None:
            return self._put_back(job, "no_such_destination", now, pause=True)
        if job.sealed_for is not None and not self._committer.ring.knows(job.sealed_for):
            await self._committer.ring.prepare([job.sealed_for], make=False)
        event = self._open(job)
        if isinstance(event, str):
            return self._end(job, State.CANCELLED, event)
        if target.handler is not None:
            return await self._handle(job, target.handler, event)
        assert target.sink is not None
        address: str | None = None
        if job.recipient:
            found = await self._address(job, target)
            if isinstance(found, Settlement):
                return found
            address = found
        return await self._send(job, target, target.sink, event, address, pace, now)

    # -- before the first byte ---------------------------------------------------------------------

    def _open(self, job: Job) -> Event | str:
        """The event as its subscription may see it, or why it can never be sent."""
        fields = self._fields(job)
        if fields is None:
            return "grant_ended"
        content: bytes | None = job.content
        if job.sealed_for is not None:
            content = self._committer.ring.unseal(job.sealed_for, job.content)
        if content is None:
            return "erased"
        event_id = UUID(bytes=job.event_id)
        return Event(
            id=event_id,
            type=job.event_type,
            source=job.event_source,
            subject=job.subject,
            occurred_at=from_us(job.occurred_at),
            data=project_fields(orjson.loads(content), fields),
            scope=job.scope_id,
            correlation_id=event_id if job.correlation_id == job.event_id else UUID(bytes=job.correlation_id),
        )

    def _fields(self, job: Job) -> tuple[str, ...] | None:
        """The pinned fields, or None when today's configuration lets less leave."""
        if self._edition != self._router.edition:
            self._edition = self._router.edition
            self._may_leave.clear()
        key = (job.subscription, job.event_type, job.projection)
        try:
            return self._may_leave[key]
        except KeyError:
            fields = self._projections[job.projection]
            allowed = self._router.may_still_leave(job.subscription, job.event_type, Projection(job.projection, fields))
            self._may_leave[key] = fields if allowed else None
            return self._may_leave[key]

    async def _address(self, job: Job, target: Target) -> str | Settlement:
        """Consent and address are read now, never earlier."""
        assert self._directory is not None and target.channel is not None
        refusal = await self._directory.may_contact(job.recipient, job.purpose, target.channel)
        if refusal is not None:
            return self._end(job, State.CANCELLED, refusal)
        addresses = await self._directory.addresses([job.recipient], target.channel)
        address = addresses.get(job.recipient)
        return self._end(job, State.CANCELLED, "no_address") if address is None else address

    # -- the try itself ----------------------------------------------------------------------------

    async def _send(
        self, job: Job, target: Target, sink: Sink, event: Event, address: str | None, pace: Pacer, started: int
    ) -> Settlement:
        body = sink.render(event)
        digest = hashlib.sha256(body).digest()
        if job.body_sha256 is not None and job.body_sha256 != digest:
            return self._end(job, State.DEAD, "body_changed")
        shipment = Shipment(
            id=job.id,
            lease_no=job.lease_no,
            try_no=job.tries + 1,
            destination=job.destination,
            event=event,
            recipient=job.recipient,
            address=address,
            batch_id=None if job.batch_id is None else UUID(bytes=job.batch_id),
            expires_at=None if job.expires_at is None else from_us(job.expires_at),
            body=body,
            purpose=job.purpose,
            deadline_s=self._deadline_s,
            record_refs=partial(self._store.record_refs, target.connection, job.id),
        )
        admission = await sink.admit(shipment)
        if not isinstance(admission, Admit):
            return self._not_admitted(job, sink, admission)
        if job.send_at:
            if not await pace(job):
                return self._put_back(job, "instant_missed", self._now())
            started = self._now()
            if job.expires_at is not None and job.expires_at <= started:
                return self._end(job, State.DEAD, "expired")
        safe = sink.resend_is_safe
        if not safe or admission.guards:
            refusal = await self._start(job, sink, shipment, admission, digest)
            if refusal is not None:
                return refusal
            crashpoint("delivery.started")
            job.sending = not safe
            started = self._now()
        if not self._still_ours(job.term):
            return self._put_back(job, "lease_lost", self._now())
        outcome = await self._try(job, sink, shipment)
        try:
            return self._after(job, outcome, started, resend_is_safe=safe, digest=digest, connection=target.connection)
        except Exception as error:  # an outcome of the right kind with odd contents: bytes may have left all the same
            log("plugin.raised", destination=job.destination, error=type(error).__name__)
            odd = RetryLater(reason="plugin_error", ambiguous=True)
            return self._after(job, odd, started, resend_is_safe=safe, digest=digest, connection=target.connection)

    def _not_admitted(self, job: Job, sink: Sink, admission: Hold | Cancel | Divert) -> Settlement:
        if isinstance(admission, Cancel):
            return self._end(job, State.CANCELLED, admission.reason)
        if isinstance(admission, Divert):
            return self._divert(job, sink, admission)
        until = to_us(admission.until)
        whole = admission.scope is Scope.DESTINATION
        return self._put_back(job, admission.reason, self._now() if whole else until, not_before=until if whole else 0)

    def _divert(self, job: Job, sink: Sink, admission: Divert) -> Settlement:
        """Its line in the history is an attempt without a try."""
        now = self._now()
        if admission.to == job.destination or admission.to not in self._targets:
            return self._put_back(job, "no_such_destination", now, pause=True)
        log("delivery.diverted", delivery=job.id.hex(), destination=job.destination, to=admission.to)
        verdict = Verdict(State.PENDING, admission.reason, due_us=now, spends_try=False)
        settlement = self._settlement(job, verdict, AttemptRow(now, now, "diverted", f"to:{admission.to}"))
        settlement.divert_to = admission.to
        settlement.lost_may_have_left = sink.resend_is_safe
        return settlement

    async def _start(
        self, job: Job, sink: Sink, shipment: Shipment, admission: Admission, digest: bytes
    ) -> Settlement | None:
        """Commits what must be true before the first byte."""
        for _ in range(ASKED_MOST):
            if not isinstance(admission, Admit):
                return self._not_admitted(job, sink, admission)
            guards: Sequence[Guard] = [
                Guard(self._committer.seal_statement(g.statement), g.rows, g.otherwise) for g in admission.guards
            ]
            try:
                if sink.resend_is_safe:
                    await self._committer.commit(UnitOfWork(guards=guards))
                elif not await self._store.start(job.id, job.lease_no, digest, guards):
                    return self._put_back(job, "lease_lost", self._now())
            except Conflict as conflict:
                if conflict.otherwise != ASK_AGAIN:
                    return self._end(job, State.CANCELLED, conflict.otherwise)
                admission = await sink.admit(shipment)
            else:
                return None
        return self._put_back(job, ASK_AGAIN, self._now() + BUSY_PAUSE)

    async def _try(self, job: Job, sink: Sink, shipment: Shipment) -> Outcome:
        """The sink's own outcome; silence, an exception or an odd answer are never a success."""
        job.limit_s = monotonic() + self._deadline_s + GRACE_S
        try:
            outcome = await sink.send(shipment)
        except asyncio.CancelledError:
            if _ran_out(job):
                return RetryLater(reason="deadline", ambiguous=True)
            if not sink.resend_is_safe:
                return Unknown(reason="stopped_while_sending")
            return RetryLater(reason="stopped", ambiguous=True)
        except (Exception, SystemExit) as error:  # a named edge: a plugin's bug must not decide that something was sent
            log("plugin.raised", destination=shipment.destination, error=type(error).__name__)
            return RetryLater(reason="plugin_error", ambiguous=True)
        if type(outcome) not in _OUTCOMES:
            log("plugin.raised", destination=shipment.destination, error="odd_outcome")
            return RetryLater(reason="plugin_error", ambiguous=True)
        return outcome

    async def _handle(self, job: Job, handler: Handler, event: Event) -> Settlement | None:
        """A handler's effect and the end of its delivery are one transaction, so it happens once."""
        started = self._now()
        for _ in range(3):
            job.limit_s = monotonic() + self._deadline_s
            answer = await handler.handle(event, self._hub)
            if not isinstance(answer, UnitOfWork):
                return self._after(job, answer, started, resend_is_safe=True)
            settlement = self._after(job, Delivered(), started, resend_is_safe=True)
            try:
                await self._committer.commit(answer, settlement=settlement)
            except Conflict as conflict:
                if conflict.otherwise == "late":
                    log("delivery.late", delivery=job.id.hex(), destination=job.destination)
                    return None
                continue
            return None
        return self._after(job, RetryLater(reason="conflict"), started, resend_is_safe=True)

    # -- after the try -----------------------------------------------------------------------------

    def _after(
        self,
        job: Job,
        outcome: Outcome,
        started: int,
        *,
        resend_is_safe: bool,
        digest: bytes | None = None,
        connection: str = "",
    ) -> Settlement:
        now = self._now()
        if type(outcome) is Delivered:
            verdict = DELIVERED
        else:
            standing = Standing(job.tries, resend_is_safe, job.breaker_open)
            verdict = decide(outcome, standing, self._policy, now, self._dice())
        name = _OUTCOMES[type(outcome)]
        if isinstance(outcome, RetryLater) and outcome.ambiguous:
            name = "ambiguous"
        attempt = self._attempt(job, started, now, name, getattr(outcome, "reason", ""), outcome.exchange)
        refs = outcome.refs if isinstance(outcome, Accepted | Unknown) else ()
        observe_attempt(connection, name, (now - started) / 1_000_000)
        log(
            "delivery.attempted",
            delivery=job.id.hex(),
            event_id=job.event_id.hex(),
            type=job.event_type,
            destination=job.destination,
            try_no=job.tries + 1,
            outcome=name,
            reason=attempt.reason,
            state=verdict.state.value,
            status=attempt.status,
            total_us=now - started,
            age_us=now - job.created_at,
        )
        of_parts = outcome.of_parts if isinstance(outcome, Unknown) else len(refs)
        return self._settlement(job, verdict, attempt, digest, connection, refs, of_parts)

    def _attempt(
        self, job: Job, started: int, finished: int, outcome: str, reason: str, seen: Exchange | None
    ) -> AttemptRow:
        if seen is None:
            return AttemptRow(started, finished, outcome, reason)
        return AttemptRow(
            started,
            finished,
            outcome,
            reason,
            seen.status,
            _us(seen.connect_ms),
            _us(seen.first_byte_ms),
            _us(seen.total_ms),
            keep(seen, job.sealed_for or job.recipient or None, self._committer.ring),
        )

    def _settlement(
        self,
        job: Job,
        verdict: Verdict,
        attempt: AttemptRow | None,
        digest: bytes | None = None,
        connection: str = "",
        refs: tuple[str, ...] = (),
        of_parts: int = 0,
    ) -> Settlement:
        return Settlement(
            id=job.id,
            lease_no=job.lease_no,
            destination=job.destination,
            connection=connection,
            order_key=job.order_key,
            on_dead_hold=job.on_dead_hold,
            state=verdict.state,
            reason=verdict.reason,
            due_us=verdict.due_us,
            spends_try=verdict.spends_try,
            attempt=attempt,
            body_sha256=digest,
            refs=refs,
            of_parts=of_parts,
            not_before_us=verdict.not_before_us,
            not_before_for=verdict.not_before_for,
            pause=verdict.pause,
            health=verdict.health,
            probe=job.breaker_open,
        )

    def _put_back(self, job: Job, reason: str, due_us: int, *, pause: bool = False, not_before: int = 0) -> Settlement:
        """Nothing left the process: pending again, no try spent, no attempt to record."""
        verdict = Verdict(
            State.PENDING, reason, due_us=due_us, spends_try=False, not_before_us=not_before,
            pause="destination" if pause else "",
        )  # fmt: skip
        return self._settlement(job, verdict, None)

    def _end(self, job: Job, state: State, reason: str) -> Settlement:
        """Ends without a try: cancelled, or dead before the first byte."""
        now = self._now()
        log("delivery.ended", delivery=job.id.hex(), destination=job.destination, state=state.value, reason=reason)
        return self._settlement(job, Verdict(state, reason, due_us=now, spends_try=False), None)

    def release(self, job: Job) -> Settlement:
        """Gives a claimed row back at a stop."""
        return self._put_back(job, "stopped", self._now())


def _ran_out(job: Job) -> bool:
    """Whether the worker cancelled this stage for its limit; then the cancellation ends here."""
    task = asyncio.current_task()
    if not job.ran_out or task is None:
        return False
    job.ran_out = False
    return task.uncancel() == 0


def _us(ms: float | None) -> int | None:
    return None if ms is None else int(ms * 1000)
