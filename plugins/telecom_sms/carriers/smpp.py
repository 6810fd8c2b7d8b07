"""The SMPP carrier: a text becomes short messages, and the carrier's answers become outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from hub.contract import (
    Accepted,
    ConnectionContext,
    DestinationSpec,
    Exchange,
    Outcome,
    Refused,
    RetryLater,
    Scope,
    Shipment,
    Unknown,
)
from hub.errors import HubError

from ..codes import THROTTLED, Meaning, Verdict, meaning_of
from ..settings import SmsSettings
from ..shared_pace import pace_of
from ..smpp import pdu, split
from ..smpp.session import Answer, NoAnswer, NotSent, Reply, Session
from .binds import Account
from .outcomes import later, refused
from .progress import Progress
from .references import References

#: Waits between two tries of one part, and the longest of them.
_RESEND_FIRST_S: Final = 0.2
_RESEND_MOST_S: Final = 2.0
#: As long as no part is taken, going back to the queue is free, and a crash while waiting here would make the
#: message unknown for nothing: so little patience.
_PATIENCE_WHILE_FREE_S: Final = 5.0
#: A part is not begun with less time than this left to hear its answer (less where all times are shorter).
_LEAST_ANSWER_S: Final = 5.0
_VALIDITY_MOST: Final = timedelta(days=7)
#: What a part was answered is written down by itself when its message is under way for so long after it: mostly the
#: outcome comes sooner and carries all references in one row's settlement.
_RECORD_AFTER_S: Final = 0.05


@dataclass(slots=True)
class _Try:
    """One try of one message while it runs; instants on the loop's clock."""

    shipment: Shipment
    #: Where its parts go, one after the other; another one only when this one is gone.
    session: Session
    parts: int
    #: Segments the carrier bills for one part: more than one only where it cuts the text itself.
    weight: int
    started: float
    end: float
    least_answer_s: float
    refs: list[str] = field(default_factory=list)
    taken_count: int = 0
    status: int | None = None
    #: Whether it waits for its references to be written down, and whether it has ended.
    noted: bool = False
    over: bool = False

    def last_start(self) -> float:
        """No part may begin after this."""
        end = self.end - self.least_answer_s
        return end if self.taken_count else min(end, self.started + _PATIENCE_WHILE_FREE_S)

    def exchange(self, now: float) -> Exchange:
        return Exchange(status=self.status, total_ms=round((now - self.started) * 1000, 3))

    def unknown(self, reason: str, now: float) -> Unknown:
        return Unknown(reason=reason, refs=tuple(self.refs), of_parts=self.parts, exchange=self.exchange(now))


class SmppCarrier:
    """Sends the parts of a text in order over one bind, and never again what may have arrived."""

    resend_is_safe = False

    def __init__(self, ctx: ConnectionContext, settings: SmsSettings) -> None:
        self._ctx = ctx
        self._hub = ctx.hub
        self._settings = settings
        self._account = Account(ctx, settings)
        self._progress = Progress(settings.stall_after_s)
        self._pace = pace_of(ctx.hub, ctx.name, settings.rate_per_s, alone=settings.sessions == 1)
        self._policy = self._account.policy
        self._recording: set[asyncio.Task[None]] = set()
        self._to_record: list[_Try] = []
        self._references = References(ctx.hub, settings.sender, settings.reference_bits)
        self.check = self._account.check
        self.close = self._account.close

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._account.run())
            group.create_task(self._progress.watch(self._ctx, lambda: bool(self._account.usable())))

    def destinations(self) -> Sequence[DestinationSpec]:
        # One part of each message is under way at a time, so the windows are also the number of messages at once.
        settings = self._settings
        return [DestinationSpec(concurrency=settings.window * settings.binds, rate_per_s=settings.rate_per_s)]

    async def send(self, shipment: Shipment, msisdn: str, text: str) -> Outcome:
        clock = asyncio.get_running_loop().time
        self._progress.asked(clock())
        try:
            return await self._send(shipment, msisdn, text, clock())
        finally:
            self._progress.settled()

    async def _send(self, shipment: Shipment, msisdn: str, text: str, now: float) -> Outcome:
        settings = self._settings
        session = await self._account.bound(0)
        if session is None:
            return self._not_bound()
        plan = split.plan(text, settings.reference_bits)
        try:
            reference = await self._references.next(msisdn) if len(plan.pieces) > 1 else 0
        except HubError as error:
            # Nothing has left yet: the ledger may simply try again.
            return RetryLater(reason=error.code)
        least_s = min(settings.response_timeout_s, _LEAST_ANSWER_S, shipment.deadline_s / 2)
        # A little earlier than the caller would cut us off, so that it is we who say what happened.
        messages = self._messages(shipment, msisdn, plan, reference)
        weight = len(plan.pieces) // len(messages)
        run = _Try(shipment, session, len(messages), weight, now, now + 0.95 * shipment.deadline_s, least_s)
        try:
            return await self._send_parts(run, messages)
        finally:
            run.over = True

    def _not_bound(self) -> Outcome:
        if self._account.login_refused:
            return Refused(reason="login_refused", scope=Scope.CONNECTION)
        return later("not_bound")

    def _messages(self, shipment: Shipment, msisdn: str, plan: split.Plan, reference: int) -> list[pdu.Message]:
        validity = _validity(shipment.expires_at, self._hub.now())
        return [
            pdu.Message(
                source=self._settings.sender,
                source_ton=self._settings.ton,
                source_npi=self._settings.npi,
                destination=msisdn,
                destination_ton=1,
                destination_npi=1,
                esm_class=part.esm_class,
                validity=validity,
                # A receipt for every part: the message is as well off as its worst part.
                registered_delivery=1,
                data_coding=plan.data_coding,
                short_message=part.short_message,
                tlvs=part.tlvs,
            )
            for part in plan.parts(reference, self._settings.long_messages)
        ]

    async def _send_parts(self, run: _Try, messages: Sequence[pdu.Message]) -> Outcome:
        for message in messages:
            ended = await self._send_part(run, message)
            if ended is not None:
                return ended
        return Accepted(
            refs=tuple(run.refs),
            receipt_within=timedelta(seconds=self._settings.receipt_within_s),
            exchange=run.exchange(asyncio.get_running_loop().time()),
        )

    async def _send_part(self, run: _Try, message: pdu.Message) -> Outcome | None:
        """None when the carrier has taken the part; else what became of the whole message."""
        loop = asyncio.get_running_loop()
        pause_s, reason = _RESEND_FIRST_S, ""
        while True:
            reply = await self._put(run, message)
            if isinstance(reply, NoAnswer):
                return run.unknown("no_answer", loop.time())
            if isinstance(reply, Answer):
                run.status = reply.status
                meaning = meaning_of(reply.status)
                self._progress.moved()
                if meaning.verdict is Verdict.TAKEN:
                    self._pace.taken()
                    self._record(run, reply.message_id)
                    return None
                if meaning.verdict is not Verdict.AGAIN_SOON:
                    return _refusal(run, meaning, loop.time())
                if reply.status == THROTTLED:
                    with suppress(HubError):  # this part waits all the same
                        await self._pace.throttled(loop.time())
                reason = meaning.reason
            else:
                # What the carrier said before matters more than why it was not asked again.
                reason = reason or reply.reason
                if not run.taken_count:
                    return _given_up(run, reason, loop.time())
            if loop.time() + pause_s > run.last_start():
                return _given_up(run, reason, loop.time())
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _RESEND_MOST_S)

    async def _put(self, run: _Try, message: pdu.Message) -> Reply:
        """One part on the wire at the contract's pace, over whichever session is bound by then."""
        loop = asyncio.get_running_loop()
        try:
            wait_s = await self._pace.reserve(loop.time(), run.last_start(), run.weight)
        except HubError:  # a busy ledger gives no instants
            wait_s = None
        if wait_s is None:
            return NotSent("paced")
        if wait_s:
            await asyncio.sleep(wait_s)
        session = await self._account.bound(run.last_start() - loop.time() if run.taken_count else 0, run.session)
        if session is None:
            return NotSent("not_bound")
        run.session = session
        return await session.submit(
            message,
            start_within_s=max(run.last_start() - loop.time(), 0.001),
            answer_within_s=min(self._settings.response_timeout_s, run.end - loop.time()),
            on_late=partial(self._answered_late, run),
        )

    def _record(self, run: _Try, message_id: str) -> None:
        run.taken_count += 1
        ref = self._policy.answered(message_id)
        if not ref:
            # Taken without an id: no receipt can ever name it, so the receipt time decides.
            return
        run.refs.append(ref)
        if self._account.overdue is not None:
            self._account.overdue.await_receipt(ref, message_id, asyncio.get_running_loop().time())
        if run.taken_count < run.parts and not run.noted:
            run.noted = True
            if not self._to_record:
                asyncio.get_running_loop().call_later(_RECORD_AFTER_S, self._record_pending)
            self._to_record.append(run)

    def _record_pending(self) -> None:
        """What is still under way may yet be cut off by a crash: its receipts then find it by what is written now."""
        runs, self._to_record = self._to_record, []
        for run in runs:
            run.noted = False
            if not run.over:
                self._keep(self._record_refs(run, list(run.refs)))

    def _keep(self, recording: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(recording)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    def _answered_late(self, run: _Try, answer: Answer) -> None:
        """The message is unknown by now; with its reference a receipt can still tell what became of it."""
        if meaning_of(answer.status).verdict is Verdict.TAKEN and answer.message_id:
            self._keep(self._record_refs(run, [self._policy.answered(answer.message_id)]))

    async def _record_refs(self, run: _Try, refs: Sequence[str]) -> None:
        with suppress(HubError):  # the outcome carries them too
            await run.shipment.record_refs(refs, of_parts=run.parts)


def _validity(expires_at: datetime | None, now: datetime) -> str:
    """Relative time, so that the carrier's zone does not matter. Source: SMPP 3.4 section 7.1.1.2."""
    if expires_at is None:
        return ""
    seconds = max(1, int(min(expires_at - now, _VALIDITY_MOST).total_seconds()))
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"0000{day:02}{hour:02}{minute:02}{second:02}000R"


def _given_up(run: _Try, reason: str, now: float) -> Outcome:
    if run.taken_count:
        return run.unknown("partly_sent", now)
    return later(reason, run.exchange(now))


def _refusal(run: _Try, meaning: Meaning, now: float) -> Outcome:
    """A part was refused for good. When others were taken, nobody but a person can say what the phone shows."""
    if run.taken_count:
        return run.unknown("partly_sent", now)
    return refused(meaning, run.exchange(now))
