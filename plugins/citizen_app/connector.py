"""The ``citizen_app`` connector: pushes notices to app users, takes workers' questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson
from yarl import URL

from hub.contract import (
    Admission,
    Admit,
    Cancel,
    CheckStep,
    Connection,
    ConnectionContext,
    DestinationSpec,
    Outcome,
    RawRequest,
    Shipment,
    UnitOfWork,
    Verified,
)
from hub.http import Reply, Session, check_steps, exchange, open_session
from hub.model import Event
from hub.signing import parse_secret, verify
from plugins.citizen_app.client import AppClient, push_body
from plugins.citizen_app.codes import outcome
from plugins.citizen_app.schema import notice_of, question_draft
from plugins.citizen_app.settings import CitizenAppSettings

_ADMIT = Admit()


class AppTransport:
    """Requests to the app's service, over one session opened at the first of them."""

    def __init__(self, settings: CitizenAppSettings) -> None:
        self.url = URL(settings.base_url)
        self._limit = settings.concurrency
        #: Opening a connection does no I/O and may have no running loop.
        self._session: Session | None = None

    async def post(self, path: str, headers: Mapping[str, str], body: bytes, deadline_s: float) -> Reply:
        session = self._session
        if session is None:
            session = self._session = open_session(limit_per_host=self._limit)
        url = URL(str(self.url) + path)
        return await exchange(session, "POST", url, headers=headers, data=body, deadline_s=deadline_s)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class AppSink:
    """Sends again without harm: the app knows a repeat by its idempotency key, the delivery's id."""

    resend_is_safe = True

    def __init__(self, context: ConnectionContext, settings: CitizenAppSettings, transport: AppTransport) -> None:
        self._now = context.hub.now
        self._settings = settings
        self._url = transport.url
        self._client = AppClient(transport.post, settings.client_id, context.secret(settings.client_secret))

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=self._settings.concurrency, rate_per_s=self._settings.rate_per_s)]

    def render(self, event: Event) -> bytes:
        return notice_of(event)

    async def admit(self, shipment: Shipment) -> Admission:
        if shipment.address is None:
            return Cancel("no_address")
        # An empty notice is a mistake in the campaign or its subscription; the app would show a blank line.
        return _ADMIT if orjson.loads(shipment.body)["text"] else Cancel("no_text")

    async def send(self, shipment: Shipment) -> Outcome:
        notice = orjson.loads(shipment.body)
        assert shipment.address is not None  # admit() has cancelled such a delivery
        body = push_body(shipment.address, notice["title"], notice["text"], str(shipment.event.id))
        deadline_s = min(self._settings.timeout_s, shipment.deadline_s)
        return outcome(await self._client.push(str(shipment.delivery_id), body, deadline_s), self._now())

    async def check(self) -> AsyncIterator[CheckStep]:
        """DNS, TCP, TLS, then a login; nothing is pushed."""
        async for step in check_steps(self._url):
            yield step
            if not step.ok:
                return
        failed = await self._client.login(self._settings.timeout_s)
        if failed is None:
            yield CheckStep("login", True, "token")
        else:
            judged = outcome(failed, self._now())
            yield CheckStep("login", False, getattr(judged, "reason", "failed"))


class QuestionReceiver:
    """Standard Webhooks from the app; the message id is the dedupe key."""

    def __init__(self, context: ConnectionContext, settings: CitizenAppSettings) -> None:
        self._hub = context.hub
        self._name = context.name
        self._keys = [parse_secret(context.secret(ref)) for ref in settings.webhook_secrets]

    def verify(self, request: RawRequest) -> Verified:
        return Verified(verify(self._keys, request.headers, request.body, request.received_at))

    def understand(self, request: RawRequest, verified: Verified, body: Any) -> UnitOfWork:
        draft = question_draft(body, verified.dedupe_key, f"/connections/{self._name}", self._subject)
        return UnitOfWork(drafts=[draft])

    def _subject(self, question_id: str) -> str:
        # Keyed, so that the readable envelope tells nothing even where an app numbers questions by phone.
        return "question-" + self._hub.keyed_hash("question", f"{self._name}:{question_id}").hex()


def open_connection(context: ConnectionContext, settings: CitizenAppSettings) -> Connection:
    transport = AppTransport(settings)
    sink = AppSink(context, settings, transport)
    receiver = QuestionReceiver(context, settings) if settings.webhook_secrets else None
    return Connection(receiver=receiver, sink=sink, check=sink.check, close=transport.close)
