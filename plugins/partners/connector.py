"""Posts signed events to the endpoints of agencies: one per connection, or those that the API manages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime

from yarl import URL

from hub.contract import (
    Admission,
    Admit,
    Cancel,
    CheckStep,
    Connection,
    ConnectionContext,
    Delivered,
    DestinationSpec,
    Outcome,
    Refused,
    RetryLater,
    Scope,
    SecretRef,
    Shipment,
)
from hub.http import Reply, Session, check_steps, exchange, open_session, outcome_of
from hub.model import Event, Json
from hub.signing import parse_private_key, parse_secret
from plugins.partners.content_filter import Filter
from plugins.partners.endpoint import Book, Endpoint, FixedBook, Keys, specs, written
from plugins.partners.grants import what_may_leave
from plugins.partners.health import STOPPED, TOO_LONG, Health
from plugins.partners.inbox import is_inbox, receive
from plugins.partners.schema import CONTENT_TYPE, cloud_event
from plugins.partners.settings import PartnerSettings

_ADMIT = Admit()
_STRUCTURED = {"Content-Type": CONTENT_TYPE}
#: A partner's own word beside an answer other than 2xx: ``message`` wants this event no more, ``endpoint`` nothing.
STOP_HEADER = "webhook-stop"


class PartnerSink:
    """Sends again without harm: the partner knows a repeat by its ``webhook-id``."""

    resend_is_safe = True

    def __init__(self, context: ConnectionContext, book: Book) -> None:
        self._hub = context.hub
        self._hub = context.hub
        self._now = context.hub.now
        self._book = book
        self.health = Health(context, self._partner_of)
        #: Opened at the first try, since opening a connection does no I/O and may have no running loop.
        self._session: Session | None = None

    def _partner_of(self, destination: str) -> str:
        endpoint = self._book.endpoints.get(destination)
        return destination if endpoint is None else endpoint.partner

    def destinations(self) -> Sequence[DestinationSpec]:
        return specs(self._book.endpoints)

    def render(self, event: Event) -> bytes:
        """What every endpoint's request is made from; one with grants or another mode makes its own of the event."""
        return cloud_event(event)

    async def admit(self, shipment: Shipment) -> Admission:
        endpoint = self._book.endpoints.get(shipment.destination)
        if endpoint is None:
            return Cancel("endpoint_removed")
        if endpoint.grants is None and endpoint.filter is None:
            return _ADMIT
        data = _granted(endpoint, shipment.event, self._now())
        if isinstance(data, str):
            return Cancel(data)
        if endpoint.filter is not None and not endpoint.filter.judge(shipment.event, data).matches:
            return Cancel("filtered")
        return _ADMIT

    async def send(self, shipment: Shipment) -> Outcome:
        endpoint = self._book.endpoints.get(shipment.destination)
        now = self._now()
        if endpoint is None or not isinstance(endpoint.target, URL):
            # Removed since it was admitted, or an administrator has closed the network it is on.
            return RetryLater(reason="endpoint_removed" if endpoint is None else "blocked_address")
        session = self._session
        if session is None:
            session = self._session = open_session(limit_per_host=self._book.limit_per_host, allowed=self._allows)
        headers, body = _STRUCTURED, shipment.body
        if endpoint.grants is not None or endpoint.mode != "structured":
            kind = self._hub.event_types.get(shipment.event.type) if endpoint.reference else None
            made = written(endpoint, shipment.event, kind.thin if kind else (), now)
            if isinstance(made, str):
                return RetryLater(reason=made)  # it ended this very moment: the next try cancels
            headers, body = made
        message_id = str(shipment.event.id)
        timestamp = int(now.timestamp())
        signed = {
            **headers,
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": endpoint.keys.signatures(message_id, timestamp, body, now),
        }
        if is_inbox(endpoint.target):
            reply = await receive(self._hub, endpoint, signed, body)
        else:
            deadline_s = min(endpoint.timeout_s, shipment.deadline_s)
            reply = await exchange(session, "POST", endpoint.target, headers=signed, data=body, deadline_s=deadline_s)
        outcome = _outcome(reply, now)
        if type(outcome) is Delivered:
            if shipment.destination in self.health.failing:
                await self.health.worked(shipment.destination)
            return outcome
        return await self._after_failure(shipment.destination, outcome, reply.status, now)

    def _allows(self, address: object) -> bool:
        return self._book.guard.allows(address)  # type: ignore[arg-type]  # hub.http's addresses are the same

    async def _after_failure(self, destination: str, outcome: Outcome, status: int, now: datetime) -> Outcome:
        if isinstance(outcome, Refused):
            if outcome.scope is Scope.DESTINATION:
                await self.health.disabled(destination, outcome.reason, now)
            return outcome
        # 429 asks for a slower pace; it is no failure.
        if (
            isinstance(outcome, RetryLater)
            and status != 429
            and await self.health.failed(destination, outcome.reason, now)
        ):
            await self.health.disabled(destination, TOO_LONG, now)
            return Refused(reason=TOO_LONG, scope=Scope.DESTINATION, exchange=outcome.exchange)
        return outcome

    async def check(self) -> AsyncIterator[CheckStep]:
        """DNS, TCP and TLS of each endpoint; no request, since a partner would have to take it for an event."""
        for endpoint in self._book.endpoints.values():
            if not isinstance(endpoint.target, URL):
                yield CheckStep("url", False, endpoint.target.code)
                continue
            if is_inbox(endpoint.target):
                continue
            async for step in check_steps(endpoint.target, allowed=self._allows):
                yield step if not endpoint.name else replace(step, step=f"{endpoint.name} {step.step}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _granted(endpoint: Endpoint, event: Event, now: datetime) -> Json | str:
    return event.data if endpoint.grants is None else what_may_leave(endpoint.grants, event, now)


def _outcome(reply: Reply, now: datetime) -> Outcome:
    outcome = outcome_of(reply, now)
    if type(outcome) is Delivered or reply.failure is not None:
        return outcome
    match reply.headers.get(STOP_HEADER, "").strip().lower():
        case "message":
            return Refused(reason=STOPPED, exchange=outcome.exchange)
        case "endpoint":
            return Refused(reason=STOPPED, scope=Scope.DESTINATION, exchange=outcome.exchange)
    return outcome


def open_connection(context: ConnectionContext, settings: PartnerSettings) -> Connection:
    """One endpoint, as its file says."""
    endpoint = Endpoint(
        name="",
        partner=context.name,
        target=settings.guard.look(settings.url),
        keys=_keys(context, settings),
        mode=settings.content_mode,
        timeout_s=settings.timeout_s,
        concurrency=settings.concurrency,
        rate_per_s=settings.rate_per_s,
        grants=tuple(each.grant() for each in settings.grants) or None,
        filter=Filter(settings.filter) if settings.filter else None,
    )
    sink = PartnerSink(context, FixedBook(settings.guard, {context.name: endpoint}))
    return Connection(sink=sink, check=sink.check, close=sink.close)


def _keys(context: ConnectionContext, settings: PartnerSettings) -> Keys:
    def opened(ref: SecretRef | None) -> str | None:
        return None if ref is None else context.secret(ref)

    secret, older = opened(settings.secret), opened(settings.previous_secret)
    private, older_private = opened(settings.private_key), opened(settings.previous_private_key)
    return Keys(
        secret=None if secret is None else parse_secret(secret),
        private=None if private is None else parse_private_key(private),
        older_secrets=() if older is None else (parse_secret(older),),
        older_private=() if older_private is None else (parse_private_key(older_private),),
    )
