"""Outbound HTTP for plugins: one session for life, each attempt under one deadline, answers capped.

No redirect is followed, no cookie kept, no proxy taken from the environment, nothing decompressed. What
goes wrong on the wire is a value (``Reply.failure``), so that a sink need not know aiohttp's exceptions.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from hub import __version__
from hub.contract import CheckStep, Delivered, Exchange, Outcome, Refused, RetryLater, Scope

#: Enough for any error text a person would read; the rest of a longer answer is not fetched.
ANSWER_BYTES = 16 * 1024
#: Below the idle limit of common servers (5 s), so that a POST seldom meets a connection just closed.
KEEPALIVE_S = 4.0
RETRY_AFTER_CAP = timedelta(hours=24)

Address = IPv4Address | IPv6Address
#: Says whether a connection to this address may be made. The one place where an SSRF guard hooks in.
Allowed = Callable[[Address], bool]
Failure = Literal[
    "url",
    "blocked_address",
    "dns",
    "connect",
    "tls",
    "connect_timeout",  # DNS, TCP or TLS took all the time; nothing was sent
    "timeout",  # sent, and no head of an answer in time
    "too_slow",  # the head came, the body did not end in time
    "disconnected",  # closed or reset after the request may have left
    "bad_answer",  # not HTTP, or the body broke off
]


class BlockedAddress(OSError):
    """This address may not be connected to."""


class Reply:
    """What one attempt saw. ``failure`` None means that a whole answer (or its first 16 KiB) was read."""

    __slots__ = (
        "answer", "connect_ms", "expired", "failure", "first_byte_ms",
        "headers", "sent", "started", "status", "total_ms",
    )  # fmt: skip

    def __init__(self, started: float) -> None:
        #: 0 until the head of an answer was read.
        self.status = 0
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.answer = b""
        self.failure: Failure | None = None
        #: Bytes may have left: from here on a failure does not tell whether the partner acted.
        self.sent = False
        #: Until a connection was there: near 0 for a reused one.
        self.connect_ms: float | None = None
        self.first_byte_ms: float | None = None
        self.total_ms = 0.0
        self.started = started
        self.expired = False


_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
#: The attempt of the running task. A TraceConfig could tell the same, at 25 % of the whole request.
_ATTEMPT: ContextVar[Reply] = ContextVar("attempt")


class _MarkedRequest(aiohttp.ClientRequest):
    """Notes the moment before the first byte is written."""

    def send(self, conn: Any) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        attempt = _ATTEMPT.get()
        attempt.sent = True
        attempt.connect_ms = (self.loop.time() - attempt.started) * 1000
        return super().send(conn)


def open_session(
    *, limit_per_host: int = 100, allowed: Allowed | None = None, ssl_context: ssl.SSLContext | None = None
) -> aiohttp.ClientSession:
    """A session to keep for life; call it inside the running loop and close it when the connection closes.

    Args:
        limit_per_host: connections at once to one host and port; the sink's concurrency.
        allowed: asked for every address at connect time, after names and literals alike became numbers,
            and the connection is made to that very address.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,
            limit_per_host=limit_per_host,
            keepalive_timeout=KEEPALIVE_S,
            ssl=ssl_context or True,
            socket_factory=_guarded(allowed) if allowed else None,
        ),
        request_class=_MarkedRequest,
        headers={"User-Agent": f"UnionHub/{__version__}", "Accept-Encoding": "identity"},
        # aiohttp's own time-outs cost a fifth of the rate; exchange() keeps the deadline instead.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


def _guarded(allowed: Allowed) -> Callable[[Any], socket.socket]:
    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, address = info
        if not permitted(allowed, address[0]):
            raise BlockedAddress("blocked address")
        return socket.socket(family=family, type=kind, proto=proto)

    return make


def permitted(allowed: Allowed | None, address: str) -> bool:
    """Asks ``allowed`` about a numeric address; ``::ffff:127.0.0.1`` is judged as 127.0.0.1."""
    if allowed is None:
        return True
    ip = ip_address(address.partition("%")[0])
    return allowed(getattr(ip, "ipv4_mapped", None) or ip)


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    *,
    headers: Mapping[str, str],
    data: bytes | None,
    deadline_s: float,
) -> Reply:
    """One request and its answer, everything within ``deadline_s``; partner failures are in the reply.

    Raises nothing for what a partner or network does; cancellation from outside passes through. PUT, GET
    and DELETE may be sent twice within the attempt when a kept connection turns out closed.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    reply = Reply(loop.time())
    _ATTEMPT.set(reply)
    cancelled_before = task.cancelling()
    timer = loop.call_later(deadline_s, _expire, reply, task)
    response: aiohttp.ClientResponse | None = None
    try:
        response = await session.request(method, url, headers=headers, data=data, allow_redirects=False)
        reply.first_byte_ms = (loop.time() - reply.started) * 1000
        reply.status = response.status
        reply.headers = response.headers
        content = response.content
        # Most answers came whole with their head: no await, and the connection is already back in the pool.
        reply.answer = content.read_nowait() if content.is_eof() else await _read(response)
    except asyncio.CancelledError:
        if not reply.expired or task.uncancel() > cancelled_before:
            raise
        reply.failure = "too_slow" if reply.status else "timeout" if reply.sent else "connect_timeout"
    except (aiohttp.ClientError, OSError, UnicodeError) as error:
        reply.failure = _failure(error)
    finally:
        timer.cancel()
        # Closes the connection unless the answer was read to its end.
        if response is not None and not response.closed:
            response.close()
    if len(reply.answer) > ANSWER_BYTES:
        reply.answer = reply.answer[:ANSWER_BYTES]
    reply.total_ms = (loop.time() - reply.started) * 1000
    return reply


def _expire(reply: Reply, task: asyncio.Task[Any]) -> None:
    reply.expired = True
    task.cancel()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    answer = b""
    while len(answer) <= ANSWER_BYTES:
        chunk = await response.content.readany()
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
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
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
