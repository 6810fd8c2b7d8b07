"""Tells a partner's contact and the officers by mail what became of an endpoint: a sink for ``endpoint.*`` events.

The ledger does the rest: a mail that the relay does not take is tried again on the schedule, a refused one is kept.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime

import orjson

from hub.contract import (
    Admission,
    Admit,
    Cancel,
    Connection,
    ConnectionContext,
    Delivered,
    DestinationSpec,
    Exchange,
    Outcome,
    Refused,
    RetryLater,
    Scope,
    Shipment,
)
from hub.model import Event
from plugins.partners import tables
from plugins.partners.health import DISABLED, FAILING, RECOVERED
from plugins.partners.managed import subject_of
from plugins.partners.settings import MailSettings, PartnerSettings

_SUBJECTS = {
    FAILING: ("Địa chỉ nhận đang lỗi", "endpoint is failing"),
    DISABLED: ("Địa chỉ nhận đã bị tắt", "endpoint was switched off"),
    RECOVERED: ("Địa chỉ nhận đã hoạt động lại", "endpoint works again"),
}
_TEXTS = {
    FAILING: (
        "Địa chỉ nhận {destination} của đơn vị {partner} không nhận được sự kiện từ {since} (lý do: {reason}).\n"
        "Chưa sự kiện nào mất: hub giữ lại và thử tiếp. Nếu vẫn lỗi, địa chỉ sẽ bị tắt lúc {disabled_at}.\n"
        "Việc cần làm: kiểm tra máy chủ nhận.",
        "Endpoint {destination} of {partner} has not taken events since {since} (reason: {reason}).\n"
        "Nothing is lost: the hub keeps them and tries on. If it still fails it is switched off at {disabled_at}.\n"
        "What to do: look at the receiving server.",
    ),
    DISABLED: (
        "Địa chỉ nhận {destination} của đơn vị {partner} đã bị tắt (lý do: {reason}; lỗi từ {since}).\n"
        "Các sự kiện còn nợ được giữ lại, tối đa 90 ngày.\n"
        "Việc cần làm: sửa máy chủ nhận, rồi nhờ cán bộ công đoàn mở lại.",
        "Endpoint {destination} of {partner} was switched off (reason: {reason}; failing since {since}).\n"
        "What is owed is kept, for 90 days at most.\n"
        "What to do: mend the receiving server, then ask the union's officer to resume it.",
    ),
    RECOVERED: (
        "Địa chỉ nhận {destination} của đơn vị {partner} đã nhận lại bình thường; các sự kiện đã giữ đang được gửi.",
        "Endpoint {destination} of {partner} takes events again; what was kept is being sent.",
    ),
}


class MailSink:
    """A repeat is one more copy of the same notice, under the same Message-ID: that is safe."""

    resend_is_safe = True

    def __init__(self, context: ConnectionContext, settings: MailSettings) -> None:
        self._hub = context.hub
        self._settings = settings
        self._password = None if settings.password is None else context.secret(settings.password)

    def destinations(self) -> Sequence[DestinationSpec]:
        return [DestinationSpec(concurrency=2)]

    def render(self, event: Event) -> bytes:
        """What the mail says, still without the people it goes to."""
        return orjson.dumps(
            {"id": str(event.id), "type": event.type, "at": event.occurred_at, "data": event.data},
            option=orjson.OPT_UTC_Z | orjson.OPT_SORT_KEYS,
        )

    async def admit(self, shipment: Shipment) -> Admission:
        if shipment.event.type not in _TEXTS:
            return Cancel("event_type_not_sendable")
        return Admit() if await self._people(shipment.event) else Cancel("no_address")

    async def _people(self, event: Event) -> list[str]:
        partner = str(event.data.get("partner", ""))
        found = list(self._settings.officers)
        own = self._hub.settings_of(PartnerSettings).get(partner)
        if own is not None:
            found.append(own.contact)
        for row in await self._hub.fetch(tables.PARTNER(name=partner)):
            (contact,) = await self._hub.unseal([(subject_of(partner), row[2])])
            found.append("" if contact is None else contact.decode())
        return sorted({each for each in found if each})

    async def send(self, shipment: Shipment) -> Outcome:
        people = await self._people(shipment.event)
        message = written(shipment.event, self._settings.sender, people)
        timeout_s = min(self._settings.timeout_s, shipment.deadline_s)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.to_thread(self._post, message, people, timeout_s)
        except smtplib.SMTPAuthenticationError as error:
            return Refused(reason="login_refused", scope=Scope.CONNECTION, exchange=Exchange(status=error.smtp_code))
        except smtplib.SMTPRecipientsRefused as refused:
            codes = {code for code, _ in refused.recipients.values()}
            seen = Exchange(status=min(codes))
            return Refused(reason="address_invalid", exchange=seen) if min(codes) >= 500 else _later(seen)
        except smtplib.SMTPResponseException as error:
            return _later(Exchange(status=error.smtp_code))
        except ssl.SSLError:
            return RetryLater(reason="tls")
        except (TimeoutError, smtplib.SMTPServerDisconnected):
            return RetryLater(reason="timeout", ambiguous=True)
        except (smtplib.SMTPException, OSError):
            return RetryLater(reason="connect")
        return Delivered(exchange=Exchange(status=250))

    def _post(self, message: EmailMessage, people: Sequence[str], timeout_s: float) -> None:
        """In a thread: the standard library's client waits."""
        given, context = self._settings, ssl.create_default_context()
        if given.security == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(given.host, given.port, timeout=timeout_s, context=context)
        else:
            client = smtplib.SMTP(given.host, given.port, timeout=timeout_s)
        with client:
            if given.security == "starttls":
                client.starttls(context=context)
            if given.user:
                client.login(given.user, self._password or "")
            client.send_message(message, given.sender, list(people))


def _later(seen: Exchange) -> RetryLater:
    return RetryLater(reason=f"smtp_{seen.status}", exchange=seen)


def written(event: Event, sender: str, people: Sequence[str]) -> EmailMessage:
    """The notice in Vietnamese, then English; the same at every try."""
    data = dict.fromkeys(("destination", "partner", "since", "reason", "disabled_at"), "–") | event.data
    message = EmailMessage()
    vi, en = _SUBJECTS[event.type]
    message["Subject"] = f"{vi} / {en}: {data['destination']}"
    message["From"] = sender
    message["To"] = ", ".join(people)
    message["Date"] = format_datetime(event.occurred_at)
    message["Message-ID"] = f"<{event.id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n\n".join(text.format_map(data) for text in _TEXTS[event.type]) + "\n")
    return message


def open_mail(context: ConnectionContext, settings: MailSettings) -> Connection:
    return Connection(sink=MailSink(context, settings))
