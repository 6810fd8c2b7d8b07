"""Connections to partners, kept for life: aiohttp's connector and parser, and no more of its client.

``hub.http`` makes requests on them; plugins take what they need from there.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv6Address, ip_address
from time import monotonic
from typing import Any, Literal, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from hub import __version__

#: Below the idle limit of common servers (5 s), so that a POST seldom meets a connection just closed.
KEEPALIVE_S = 4.0

Address = IPv4Address | IPv6Address
#: Says whether a connection to this address may be made. The one place where an SSRF guard hooks in.
Allowed = Callable[[Address], bool]
Failure = Literal[
    "url",
    "blocked_address",
    "dns",
    "connect",
    "tls",
    "dns_timeout",  # looking the name up took all the time; nothing was sent
    "connect_timeout",  # so did TCP, or the wait for a connection of one's own
    "tls_timeout",  # so did TLS
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
        "answer", "connect_ms", "dns_ms", "ends", "expired", "failure", "first_byte_ms",
        "headers", "sent", "started", "status", "tls_ms", "total_ms",
    )  # fmt: skip

    def __init__(self, started: float, ends: float) -> None:
        #: 0 until the head of an answer was read.
        self.status = 0
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.answer = b""
        self.failure: Failure | None = None
        #: Bytes may have left: from here on a failure does not tell whether the partner acted.
        self.sent = False
        #: Until a connection was there: near 0 for a reused one.
        self.connect_ms: float | None = None
        #: Of that, what a new connection's name and handshake took; None where there was none.
        self.dns_ms: float | None = None
        self.tls_ms: float | None = None
        self.first_byte_ms: float | None = None
        self.total_ms = 0.0
        #: On the monotonic clock, and by when all must be over.
        self.started = started
        self.ends = ends
        self.expired = False


_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
#: exchange() keeps one deadline over everything instead; aiohttp's own time-outs cost a timer each.
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)
_HEADERS = {"User-Agent": f"UnionHub/{__version__}", "Accept-Encoding": "identity"}
#: Addresses one session has at hand; a sink posts to a few.
_ENDPOINTS = 256


class _Endpoint(aiohttp.ClientRequest):
    """Method and address: what the connector is asked for a connection with, and how each request begins."""

    def __init__(self, method: str, url: URL, loop: asyncio.AbstractEventLoop) -> None:
        if url.scheme not in ("http", "https"):
            raise aiohttp.NonHttpUrlClientError(url)
        super().__init__(method, url, headers=_HEADERS, loop=loop)
        self.headers.popall("Content-Length", None)
        common = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        self.head = f"{self.method} {self.url.raw_path_qs} HTTP/1.1\r\n{common}"
        self.key = super().connection_key

    @property
    def connection_key(self) -> aiohttp.client_reqrep.ConnectionKey:
        return self.key


class _Making:
    """How far a new connection has come; instants are on the monotonic clock."""

    __slots__ = ("asked_at", "connected_at", "found_at", "sockets")

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        #: The name: looked up from, and known; 0 for a number.
        self.asked_at = self.found_at = 0.0
        #: TCP is there: what comes now is the handshake.
        self.connected_at = 0.0


#: The connection that this task is making; tasks that try addresses side by side share it.
_MAKING: ContextVar[_Making | None] = ContextVar("making", default=None)


class _Connector(aiohttp.TCPConnector):
    """aiohttp's own, which can be asked how far a new connection has come; a kept one costs nothing more."""

    def __init__(self, allowed: Allowed | None, **options: Any) -> None:
        super().__init__(socket_factory=_guarded(allowed), **options)
        self._making: dict[asyncio.Task[Any], _Making] = {}
        self._protocol = self._factory
        # asyncio makes the protocol between TCP and TLS, which nothing else tells apart.
        self._factory = self._connected  # type: ignore[assignment]

    def _connected(self) -> Any:
        making = _MAKING.get()
        if making is not None:
            making.connected_at = monotonic()
        return self._protocol()

    async def _resolve_host(self, host: str, port: int, traces: Any = None) -> Any:
        making = _MAKING.get()
        if making is None or is_numeric(host):
            return await super()._resolve_host(host, port, traces)
        making.asked_at = monotonic()
        found = await super()._resolve_host(host, port, traces)
        making.found_at = monotonic()
        return found

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        made = self._making[task] = _Making()
        token = _MAKING.set(made)
        try:
            return await super()._create_connection(req, traces, timeout)
        finally:
            _MAKING.reset(token)

    def made(self, task: asyncio.Task[Any], reply: Reply, is_tls: bool) -> None:
        """Writes down what a connection that was made, or given up, has taken; a kept one leaves nothing."""
        making = self._making.pop(task, None)
        if making is None:
            return
        now = monotonic()
        if making.asked_at:
            reply.dns_ms = ((making.found_at or now) - making.asked_at) * 1000
        if is_tls and making.connected_at:
            reply.tls_ms = (now - making.connected_at) * 1000

    def stage(self, task: asyncio.Task[Any]) -> Failure:
        """What has taken all the time of a task that has no connection yet."""
        making = self._making.get(task)
        if making is None:
            return "connect_timeout"
        sockets = making.sockets
        return "tls_timeout" if any(map(_is_connected, sockets)) else "connect_timeout" if sockets else "dns_timeout"


def is_numeric(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


class Wire:
    """A connection that stays ours between requests: to give it back and ask for it again costs as much as a parse."""

    __slots__ = ("connection", "idle_since", "parser", "protocol", "reads_bodies", "transport")

    def __init__(self, connection: Connection) -> None:
        protocol, transport = connection.protocol, connection.transport
        assert protocol is not None and transport is not None
        self.connection = connection
        self.protocol = protocol
        self.transport = transport
        #: Kept between requests, and what it was made for.
        self.parser: Any = None
        self.reads_bodies = False
        self.idle_since = 0.0

    def begin(self, reads_bodies: bool) -> None:
        protocol = self.protocol
        if self.parser is not None and self.reads_bodies is reads_bodies:
            protocol._parser = self.parser
        else:
            protocol.set_response_params(skip_payload=not reads_bodies, read_until_eof=True, auto_decompress=False)
            self.reads_bodies = reads_bodies

    def rest(self) -> None:
        """Without a parser the protocol does not read what comes now, and calls the connection spoilt."""
        self.parser, self.protocol._parser = self.protocol._parser, None
        self.idle_since = monotonic()

    def is_usable(self, now: float) -> bool:
        """Whether it is open, not too old, and nothing has been said on it that nobody asked for.

        A second answer to the request before would be taken for the answer to the next one.
        """
        protocol = self.protocol
        return (
            now - self.idle_since < KEEPALIVE_S
            and protocol.transport is not None
            and not self.transport.is_closing()
            and not protocol.should_close
        )


class Session:
    """Connections kept for life; aiohttp's connector, its parser, and no more of its client.

    A whole ClientSession.request costs three times as much: it makes and copies objects for redirects,
    cookies, proxies and streamed bodies, none of which the hub wants.
    """

    def __init__(self, connector: _Connector) -> None:
        self.connector = connector
        self.loop = asyncio.get_running_loop()
        self._endpoints: dict[tuple[str, URL], _Endpoint] = {}
        #: Idle connections, the last used at the end; the connector counts them as in use.
        self._idle: dict[aiohttp.client_reqrep.ConnectionKey, list[Wire]] = {}
        #: Who asks the connector; some of them may wait for a connection that another one has.
        self._asking = 0
        self._tidier: asyncio.TimerHandle | None = None
        #: What runs under which deadline: one timer for all, since one for each costs as much as a signature.
        self._running: dict[asyncio.Task[Any], Reply] = {}
        self._watcher: asyncio.TimerHandle | None = None
        self._watched_until = math.inf

    def watch(self, task: asyncio.Task[Any], reply: Reply) -> None:
        """Cancels the task when the reply's time is over, unless ``unwatch`` comes before."""
        self._running[task] = reply
        if reply.ends < self._watched_until:
            if self._watcher is not None:
                self._watcher.cancel()
            self._watched_until = reply.ends
            self._watcher = self.loop.call_later(reply.ends - monotonic(), self._expire)

    def unwatch(self, task: asyncio.Task[Any]) -> None:
        del self._running[task]

    def _expire(self) -> None:
        now, following = monotonic(), math.inf
        for task, reply in self._running.items():
            if reply.expired:
                continue
            if reply.ends > now:
                following = min(following, reply.ends)
                continue
            reply.expired = True
            if not reply.sent:
                reply.failure = self.connector.stage(task)
            task.cancel()
        self._watched_until = following
        # A timer may be early by the loop's resolution, and must not spin until it is right.
        self._watcher = None if following == math.inf else self.loop.call_later(following - now + 0.001, self._expire)

    async def take(self, endpoint: _Endpoint, reply: Reply) -> Wire:
        """A connection, kept or new; ``keep`` or close it. ``reply`` is told what a new one took."""
        idle = self._idle.get(endpoint.key)
        while idle:
            wire = idle.pop()
            if wire.is_usable(monotonic()):
                return wire
            wire.connection.close()
        self._asking += 1
        try:
            while True:
                connection = await self.connector.connect(endpoint, [], _NO_TIMEOUT)
                if not len(connection.protocol or ()):
                    return Wire(connection)
                connection.close()
        finally:
            self._asking -= 1
            task = asyncio.current_task()
            assert task is not None
            self.connector.made(task, reply, endpoint.url.scheme == "https")

    def keep(self, endpoint: _Endpoint, wire: Wire) -> None:
        """For the next request, or closed unless the answer was read to its end."""
        if self._asking or wire.protocol.should_close:
            wire.connection.release()
            return
        wire.rest()
        self._idle.setdefault(endpoint.key, []).append(wire)
        if self._tidier is None:
            self._tidier = self.loop.call_later(KEEPALIVE_S, self._tidy)

    def idle(self) -> list[Wire]:
        return [wire for idle in self._idle.values() for wire in idle]

    def _tidy(self) -> None:
        """Closes what nobody has used; looks again as long as something is kept."""
        now = monotonic()
        for key, idle in list(self._idle.items()):
            while idle and not idle[0].is_usable(now):
                idle.pop(0).connection.close()
            if not idle:
                del self._idle[key]
        self._tidier = self.loop.call_later(KEEPALIVE_S, self._tidy) if self._idle else None

    def endpoint(self, method: str, url: URL) -> _Endpoint:
        found = self._endpoints.get((method, url))
        if found is None:
            if len(self._endpoints) >= _ENDPOINTS:
                self._endpoints.clear()
            found = self._endpoints[method, url] = _Endpoint(method, url, self.loop)
        return found

    async def close(self) -> None:
        for timer in (self._tidier, self._watcher):
            if timer is not None:
                timer.cancel()
        for wire in self.idle():
            wire.connection.close()
        self._idle.clear()
        await self.connector.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def open_session(
    *,
    limit_per_host: int = 100,
    allowed: Allowed | None = None,
    ssl_context: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
) -> Session:
    """A session to keep for life; call it inside the running loop and close it when the connection closes.

    Args:
        limit_per_host: connections at once to one host and port; the sink's concurrency.
        allowed: asked for every address at connect time, after names and literals alike became numbers,
            and the connection is made to that very address.
        resolver: in place of the system's own.
    """
    return Session(
        _Connector(
            allowed,
            limit=0,
            limit_per_host=limit_per_host,
            keepalive_timeout=KEEPALIVE_S,
            ssl=ssl_context or True,
            resolver=resolver,
        )
    )


def _guarded(allowed: Allowed | None) -> Callable[[Any], socket.socket]:
    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, address = info
        if not permitted(allowed, address[0]):
            raise BlockedAddress("blocked address")
        made = socket.socket(family=family, type=kind, proto=proto)
        making = _MAKING.get()
        if making is not None:
            making.sockets.append(made)
        return made

    return make


def permitted(allowed: Allowed | None, address: str) -> bool:
    """Asks ``allowed`` about a numeric address; ``::ffff:127.0.0.1`` is judged as 127.0.0.1."""
    if allowed is None:
        return True
    ip = ip_address(address.partition("%")[0])
    return allowed(getattr(ip, "ipv4_mapped", None) or ip)
