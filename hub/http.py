"""Outbound HTTP for plugins: one session for life, each attempt under one deadline, answers capped.

No redirect is followed, no cookie kept, no proxy taken from the environment, nothing decompressed. What
goes wrong on the wire is a value (``Reply.failure``), so that a sink need not know aiohttp's exceptions.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from time import monotonic

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from hub.contract import CheckStep, Delivered, Exchange, Outcome, Refused, RetryLater, Scope
from hub.crashpoint import crashpoint
from hub.http_session import Address as Address
from hub.http_session import Allowed as Allowed
from hub.http_session import BlockedAddress as BlockedAddress
from hub.http_session import Failure as Failure
from hub.http_session import Reply as Reply
from hub.http_session import Session as Session
from hub.http_session import Wire
from hub.http_session import open_session as open_session
from hub.http_session import permitted as permitted

#: Enough for any error text a person would read; the rest of a longer answer is not fetched.
ANSWER_BYTES = 16 * 1024
RETRY_AFTER_CAP = timedelta(hours=24)


async def exchange(
    session: Session,
    method: str,
    url: URL,
    *,
    headers: Mapping[str, str],
    data: bytes | None,
    deadline_s: float,
) -> Reply:
    """One request and its answer, everything within ``deadline_s``; partner failures are in the reply.

    Raises nothing for what a partner or network does; cancellation from outside passes through. Nothing is
    sent twice within an attempt.

    Args:
        headers: beside Host, Accept, Accept-Encoding, User-Agent and Content-Length, which are set here.

    Raises:
        ValueError: a header would end its line.
    """
    task = asyncio.current_task()
    assert task is not None
    head = _lines(headers, data)
    started = monotonic()
    reply = Reply(started, started + deadline_s)
    cancelled_before = task.cancelling()
    session.watch(task, reply)
    wire: Wire | None = None
    try:
        endpoint = session.endpoint(method, url)
        wire = await session.take(endpoint, reply)
        protocol, transport = wire.protocol, wire.transport
        wire.begin(reads_bodies=method != "HEAD")
        crashpoint("http.connected")
        reply.sent = True
        reply.connect_ms = (monotonic() - started) * 1000
        transport.write((endpoint.head + head).encode() + (data or b""))
        crashpoint("http.sent")
        message, content = await protocol.read()
        while 100 <= message.code < 200 and message.code != 101:
            message, content = await protocol.read()
        crashpoint("http.head")
        reply.first_byte_ms = (monotonic() - started) * 1000
        reply.status = message.code
        reply.headers = message.headers
        # Most answers came whole with their head: no await.
        reply.answer = content.read_nowait() if content.is_eof() else await _read(content)
        crashpoint("http.answered")
        # An answer may overtake its request: what is not written yet must not precede the next one.
        if not transport.get_write_buffer_size():
            session.keep(endpoint, wire)
            wire = None
    except asyncio.CancelledError:
        if not reply.expired or task.uncancel() > cancelled_before:
            raise
        # What it was before anything was sent, the session has looked at.
        reply.failure = "too_slow" if reply.status else "timeout" if reply.sent else reply.failure
    except (aiohttp.ClientError, HttpProcessingError, OSError, UnicodeError) as error:
        reply.failure = _failure(error)
    finally:
        session.unwatch(task)
        if wire is not None:
            wire.connection.close()
    if len(reply.answer) > ANSWER_BYTES:
        reply.answer = reply.answer[:ANSWER_BYTES]
    reply.total_ms = (monotonic() - started) * 1000
    return reply


def _lines(headers: Mapping[str, str], data: bytes | None) -> str:
    """The request's own header lines and the empty one after them."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header may not hold a line end")
    return f"{lines}\r\n" if data is None else f"{lines}Content-Length: {len(data)}\r\n\r\n"


async def _read(content: aiohttp.StreamReader) -> bytes:
    answer = b""
    while len(answer) <= ANSWER_BYTES:
        chunk = await content.readany()
        if not chunk:
            break
        answer += chunk
    return answer


def _failure(error: Exception) -> Failure:
    if isinstance(error, aiohttp.ClientConnectorDNSError | UnicodeError):
        return "dns"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "blocked_address" if isinstance(error.os_error, BlockedAddress) else "connect"
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return "url"
    if isinstance(error, HttpProcessingError | aiohttp.ClientPayloadError):
        return "bad_answer"
    return "disconnected"


# -- from replies to outcomes ----------------------------------------------------------------------

#: What a partner's status means where it differs from the common rule.
Table = Mapping[int, Callable[[Exchange], Outcome]]

#: Source: Standard Webhooks 1.0, "Disabling endpoints": 410 asks to send nothing here any more.
WEBHOOK_TABLE: Table = {410: lambda seen: Refused(reason="gone", scope=Scope.DESTINATION, exchange=seen)}


def outcome_of(reply: Reply, now: datetime, table: Table = WEBHOOK_TABLE) -> Outcome:
    """The common meaning of a reply; ``table`` says what single statuses mean for this partner.

    2xx alone is success. Every other status is tried again later, 4xx too, since a partner's mistake is
    often repaired. 429 and 503 with Retry-After hold the whole destination and spend no try.
    """
    seen = Exchange(
        status=reply.status or None,
        connect_ms=reply.connect_ms,
        first_byte_ms=reply.first_byte_ms,
        total_ms=reply.total_ms,
        answer=reply.answer,
        dns_ms=reply.dns_ms,
        tls_ms=reply.tls_ms,
    )
    if reply.failure is not None:
        return RetryLater(reason=reply.failure, ambiguous=reply.sent, exchange=seen)
    status = reply.status
    if status in table:
        return table[status](seen)
    if 200 <= status < 300:
        return Delivered(exchange=seen)
    if status in (429, 503):
        after = retry_after(reply.headers.get("Retry-After"), now)
        if after is not None:
            return RetryLater(reason=f"http_{status}", after=after, scope=Scope.DESTINATION, exchange=seen)
    return RetryLater(reason=f"http_{status}", exchange=seen)


_SECONDS = re.compile(r"[0-9]{1,100}")


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """The pause a partner asks for, at most 24 h; None when it asks for none that can be obeyed.

    Zero, negative, past and garbage are None: such an answer must spend a try like any other, else a
    partner that always says "0" would be asked for ever at full speed.

    Source: RFC 9110 section 10.2.3 (seconds or an HTTP-date).
    """
    if not value or len(value) > 100:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        # Compared as a number first: timedelta overflows on what a partner may write.
        pause = timedelta(seconds=min(int(value), 86_400))
    else:
        try:
            moment = parsedate_to_datetime(value)
            pause = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(pause, RETRY_AFTER_CAP) if pause > timedelta() else None


# -- connections check -----------------------------------------------------------------------------


async def check_steps(
    url: URL, *, allowed: Allowed | None = None, ssl_context: ssl.SSLContext | None = None, timeout_s: float = 5.0
) -> AsyncIterator[CheckStep]:
    """Steps dns, tcp and (https) tls towards ``url``, ending at the first that fails; sends no request.

    ``detail`` is a fact (addresses, protocol) or a code with the library's word, the same in every language.
    """
    host, port = url.raw_host or "", url.port or 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield CheckStep("dns", False, "timeout" if isinstance(error, TimeoutError) else "host_unknown")
        return
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    yield CheckStep("dns", True, ", ".join(addresses[:4]))
    address = next((each for each in addresses if permitted(allowed, each)), None)
    if address is None:
        yield CheckStep("tcp", False, "blocked_address")
        return
    tcp = await _try_connect("tcp", address, port, timeout_s, None, None)
    yield tcp
    if tcp.ok and url.scheme == "https":
        yield await _try_connect("tls", address, port, timeout_s, ssl_context or ssl.create_default_context(), host)


async def _try_connect(
    step: str, address: str, port: int, timeout_s: float, context: ssl.SSLContext | None, name: str | None
) -> CheckStep:
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        return CheckStep(step, False, f"certificate_refused: {error.verify_message}")
    except ssl.SSLError as error:
        return CheckStep(step, False, f"handshake_failed: {error.reason}")
    except TimeoutError:
        return CheckStep(step, False, "timeout")
    except ConnectionRefusedError:
        return CheckStep(step, False, "refused")
    except OSError:
        return CheckStep(step, False, "unreachable")
    tls = writer.get_extra_info("ssl_object")
    writer.transport.abort()
    return CheckStep(step, True, tls.version() if tls else f"{address} port {port}")
