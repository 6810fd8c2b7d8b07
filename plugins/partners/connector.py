"""The ``partner`` connector: posts signed events to one endpoint of one agency."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from yarl import URL

from hub.contract import (
    Admission,
    Admit,
    CheckStep,
    Connection,
    ConnectionContext,
    DestinationSpec,
    Outcome,
    Shipment,
)
from hub.http import Session, check_steps, exchange, open_session, outcome_of
from hub.model import Event
from hub.signing import parse_secret, sign
from plugins.partners.schema import CONTENT_TYPE, cloud_event
from plugins.partners.settings import PartnerSettings

_ADMIT = Admit()


class PartnerSink:
    """Sends again without harm: the partner knows a repeat by its ``webhook-id``."""

    resend_is_safe = True

    def __init__(self, context: ConnectionContext, settings: PartnerSettings) -> None:
        self._now = context.hub.now
        self._url = URL(settings.url)
        self._settings = settings
        self._key = parse_secret(context.secret(settings.secret))
        #: Keys that sign as well while the partner changes over.
        self._older = [parse_secret(context.secret(each)) for each in (settings.previous_secret,) if each]
        #: Opened at the first try, since opening a connection does no I/O and may have no running loop.
        self._session: Session | None = None

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=self._settings.concurrency, rate_per_s=self._settings.rate_per_s)]

    def render(self, event: Event) -> bytes:
        return cloud_event(event)

    async def admit(self, shipment: Shipment) -> Admission:
        return _ADMIT

    async def send(self, shipment: Shipment) -> Outcome:
        session = self._session
        if session is None:
            session = self._session = open_session(limit_per_host=self._settings.concurrency)
        message_id = str(shipment.event.id)
        now = self._now()
        timestamp = int(now.timestamp())
        reply = await exchange(
            session,
            "POST",
            self._url,
            headers={
                "Content-Type": CONTENT_TYPE,
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": sign(self._key, message_id, timestamp, shipment.body, *self._older),
            },
            data=shipment.body,
            deadline_s=min(self._settings.timeout_s, shipment.deadline_s),
        )
        return outcome_of(reply, now)

    def check(self) -> AsyncIterator[CheckStep]:
        """DNS, TCP and TLS; no request, since a partner would have to take it for an event."""
        return check_steps(self._url)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def open_connection(context: ConnectionContext, settings: PartnerSettings) -> Connection:
    sink = PartnerSink(context, settings)
    return Connection(sink=sink, check=sink.check, close=sink.close)
