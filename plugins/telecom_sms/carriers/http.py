"""Carriers that are reached by HTTP: one request per message, and what its answer or silence means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import UUID

from yarl import URL

from hub.contract import (
    Accepted,
    CheckStep,
    ConnectionContext,
    DestinationSpec,
    Exchange,
    Hub,
    Outcome,
    RetryLater,
    Shipment,
    Unknown,
)
from hub.errors import HubError
from hub.http import Reply, Session, check_steps, exchange, open_session

from ..codes import Meaning, Verdict
from ..settings import HttpSettings
from ..shared_pace import pace_of
from ..text import measure
from .dialect import Call, Dialect, Said, Sms
from .outcomes import later, refused
from .progress import Progress

#: A token is renewed so long before its end that it does not end while a message is on its way.
_RENEW_EARLY_S: Final = 60.0
_V = Verdict
#: What a status alone says where the body says nothing this carrier would say.
_BY_STATUS: Final = {
    401: Meaning(_V.STOP, "login_refused"),
    403: Meaning(_V.STOP, "login_refused"),
    404: Meaning(_V.STOP, "no_such_path"),
    413: Meaning(_V.REFUSED, "message_length_invalid"),
    429: Meaning(_V.AGAIN_SOON, "throttled"),
}


def request_id(hub: Hub, delivery_id: UUID) -> str:
    """The same at every try; its last eight characters prove to ourselves that we made it."""
    return delivery_id.hex + hub.keyed_hash("sms_request", delivery_id.hex).hex()[:8]


def is_ours(hub: Hub, candidate: str) -> bool:
    try:
        return len(candidate) == 40 and request_id(hub, UUID(candidate[:32])) == candidate
    except ValueError:
        return False


class HttpCarrier:
    """Sends each message by one request. A repeat carries the same request id."""

    def __init__(self, ctx: ConnectionContext, settings: HttpSettings, dialect: Dialect) -> None:
        self.resend_is_safe = settings.carrier_deduplicates
        self._ctx = ctx
        self._settings = settings
        self._dialect = dialect
        self._progress = Progress(settings.stall_after_s)
        self._pace = pace_of(ctx.hub, ctx.name, settings.rate_per_s)
        self._base = URL(settings.base_url)
        #: Opening a connection does no I/O and may have no running loop.
        self._session: Session | None = None
        self._token, self._token_ends_at = "", 0.0
        self._renewing = asyncio.Lock()

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=self._settings.concurrency, rate_per_s=self._settings.rate_per_s)]

    async def run(self) -> None:
        await self._progress.watch(self._ctx, lambda: True)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, shipment: Shipment, msisdn: str, text: str) -> Outcome:
        clock = asyncio.get_running_loop().time
        self._progress.asked(clock())
        try:
            return await self._send(shipment, self._sms(shipment, msisdn, text), clock() + 0.95 * shipment.deadline_s)
        finally:
            self._progress.settled()

    def _sms(self, shipment: Shipment, msisdn: str, text: str) -> Sms:
        made = request_id(self._ctx.hub, shipment.delivery_id)
        number = int.from_bytes(self._ctx.hub.keyed_hash("sms_number", made)[:8], "big") >> 1 or 1
        phone = msisdn if self._settings.phone_form == "84" else "0" + msisdn[2:]
        return Sms(made, number, phone, text)

    async def _send(self, shipment: Shipment, sms: Sms, end: float) -> Outcome:
        loop = asyncio.get_running_loop()
        try:
            wait_s = await self._pace.reserve(loop.time(), loop.time() + 5.0, measure(sms.text).segments)
        except HubError:  # a busy ledger gives no instants, and nothing has left yet
            wait_s = None
        if wait_s is None:
            return later("paced")
        await asyncio.sleep(wait_s)
        refused_token = ""
        while True:
            token = await self._usable_token(refused_token, end)
            if not isinstance(token, str):
                return token
            reply = await self._post(self._dialect.call(sms, token), end)
            said = None if reply.failure else self._dialect.read(reply.answer)
            stale = said.token_refused if said else reply.status == 401 and bool(token)
            if not stale or refused_token:
                outcome = self._outcome(sms, reply, said)
                if isinstance(outcome, RetryLater) and outcome.reason == "throttled":
                    with suppress(HubError):  # the whole stream rests for a moment all the same
                        await self._pace.throttled(loop.time())
                return outcome
            refused_token = token

    async def _post(self, call: Call, end: float) -> Reply:
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._session = open_session(limit_per_host=self._settings.concurrency)
        left_s = max(0.001, min(self._settings.timeout_s, end - loop.time()))
        url = self._base.join(URL(call.path, encoded=True))
        return await exchange(self._session, "POST", url, headers=call.headers, data=call.body, deadline_s=left_s)

    # -- tokens ------------------------------------------------------------------------------------

    async def _usable_token(self, refused_token: str, end: float) -> str | Outcome:
        """A token other than the refused one, "" where none is needed; those who wait for a renewal share it."""
        call = self._dialect.login()
        if call is None:
            return ""
        async with self._renewing:
            now = asyncio.get_running_loop().time()
            if self._token and self._token != refused_token and now < self._token_ends_at:
                return self._token
            reply = await self._post(call, end)
            found = None if reply.failure or reply.status != 200 else self._dialect.read_login(reply.answer)
            if found is None:
                return self._no_token(reply)
            self._token, life_s = found
            # A short life is kept to half, else such a token would never count as usable.
            self._token_ends_at = now + max(life_s - _RENEW_EARLY_S, life_s / 2)
            return self._token

    def _no_token(self, reply: Reply) -> Outcome:
        """No message was sent, so nothing can have arrived."""
        if not reply.failure and reply.status in (200, 400, 401, 403):
            return refused(Meaning(_V.STOP, "login_refused"), _seen(reply))
        return later("token_unavailable", _seen(reply))

    # -- outcomes ----------------------------------------------------------------------------------

    def _outcome(self, sms: Sms, reply: Reply, said: Said | None) -> Outcome:
        if reply.failure and not reply.sent:
            return later("not_reached", _seen(reply))
        if said is None:
            meaning = None if reply.failure else _BY_STATUS.get(reply.status)
            if meaning is None:
                return self._in_doubt(sms, reply)
            said = Said(meaning)
        self._progress.moved()
        meaning = said.meaning
        if meaning.verdict in (_V.TAKEN, _V.ALREADY):
            self._pace.taken()
            return Accepted(
                refs=self._refs(sms, said.ref),
                receipt_within=timedelta(seconds=self._settings.receipt_within_s),
                exchange=_seen(reply),
            )
        return refused(meaning, _seen(reply))

    def _refs(self, sms: Sms, theirs: str) -> tuple[str, ...]:
        if self._dialect.reports_by_request_id:
            return (sms.request_id,)
        return (theirs,) if theirs else ()

    def _in_doubt(self, sms: Sms, reply: Reply) -> Outcome:
        """The carrier may have it. Asked again only where it recognises the repeat."""
        reason = reply.failure or f"http_{reply.status}"
        if self.resend_is_safe:
            return RetryLater(reason=reason, ambiguous=True, exchange=_seen(reply))
        return Unknown(reason="no_answer", refs=self._refs(sms, ""), of_parts=1, exchange=_seen(reply))

    # -- check -------------------------------------------------------------------------------------

    async def check(self) -> AsyncIterator[CheckStep]:
        """dns, tcp, tls, and a login where the carrier has a call that sends nothing."""
        async for step in check_steps(self._base):
            yield step
            if not step.ok:
                return
        end = asyncio.get_running_loop().time() + self._settings.timeout_s
        token = await self._usable_token("", end)
        if not isinstance(token, str):
            yield CheckStep("login", False, getattr(token, "reason", "failed"))
            return
        call = self._dialect.probe()
        if call is not None:
            reply = await self._post(call, end)
            said = None if reply.failure else self._dialect.read(reply.answer)
            problem = reply.failure or (f"http_{reply.status}" if said is None else said.meaning.reason)
            yield CheckStep("login", said is not None and said.meaning.verdict is _V.TAKEN, problem)
        elif token:
            yield CheckStep("login", True, "token")


def _seen(reply: Reply) -> Exchange:
    """Without the answer's bytes: they may name a phone."""
    return Exchange(
        status=reply.status or None,
        connect_ms=reply.connect_ms,
        first_byte_ms=reply.first_byte_ms,
        total_ms=reply.total_ms,
    )
