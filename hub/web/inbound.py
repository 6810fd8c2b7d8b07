"""``/in/{connection}``: what a connection's receiver takes. Path, headers, media type, size and rate come before it.

Nothing is parsed before the sender is verified, and nothing is decompressed.
"""

from __future__ import annotations

from urllib.parse import unquote

from aiohttp import hdrs, web

from hub import metrics
from hub.app import HubApp
from hub.contract import Connection, Inbound, RawRequest
from hub.errors import HubError, InputError, NotFound
from hub.log import log
from hub.rawrequests import is_json
from hub.web import body
from hub.web.pace import Buckets
from hub.web.problems import problem_of

HEADERS_MAX = 64
PREFIX = "/in/"


def limit_of(hub: HubApp, name: str) -> int:
    """Most bytes a connection takes."""
    config, connection = hub.config.connections.get(name), hub.connections.get(name)
    own = config.inbound.max_body_bytes if config else None
    return own or (connection.inbound.max_body_bytes if connection else None) or hub.config.hub.http.max_body_bytes


class Door:
    """Stands before the application and its routes: what it would add to a request costs as much as a commit."""

    def __init__(self, hub: HubApp) -> None:
        self._hub = hub
        self._buckets = Buckets()

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every method: which ones it takes, a connection says."""
        hub = self._hub
        # As sent: the receiver may have signed it.
        first, _, tail = request.rel_url.raw_path.removeprefix(PREFIX).partition("/")
        name = unquote(first)
        retry_after = ""
        try:
            connection = self._open(request, name)
            config = hub.config.connections[name].inbound
            if config.per_min is not None:
                allowed = self._buckets.take(name, config.per_min)
                retry_after = str(allowed.retry_after_s)
                if allowed.retry_after_s:
                    raise InputError(problem="rate-limited", status=429)
            taken = await hub.take(await self._raw(request, name, tail, connection.inbound))
        except HubError as error:
            response = problem_of(error)
            if response.status == 429:
                response.headers[hdrs.RETRY_AFTER] = retry_after
            if response.status == 405:
                response.headers[hdrs.ALLOW] = ", ".join(hub.connections[name].inbound.methods)
            self._seen(name, response.status, error.problem if isinstance(error, InputError) else error.code)
            return response
        reason = "repeated" if taken.repeated else "quarantined" if taken.quarantined else "stored"
        told = connection.inbound
        self._seen(name, told.status, reason)
        return web.Response(body=told.answer, status=told.status, content_type=told.answer_media)

    def _seen(self, name: str, status: int, reason: str) -> None:
        """One line and one count; a name we do not know is not repeated, it may be anything."""
        known = name if name in self._hub.connections else "unknown"
        metrics.inbound.labels(known, str(status)).inc()
        log("event.received", connection=known, status=status, reason=reason)

    def _open(self, request: web.BaseRequest, name: str) -> Connection:
        """The connection, where it takes such requests at all."""
        if len(request.headers) > HEADERS_MAX:
            raise InputError("at most 64 headers", problem="headers-invalid", status=400)
        connection = self._hub.connections.get(name)
        if connection is None or connection.receiver is None:
            raise NotFound
        if request.method not in connection.inbound.methods:
            raise InputError(problem="method-not-allowed", status=405)
        return connection

    async def _raw(self, request: web.BaseRequest, name: str, tail: str, inbound: Inbound) -> RawRequest:
        """The request as it came. Raises ``InputError`` before reading what is too large or of another kind."""
        content = b""
        if request.method not in ("GET", "HEAD", "DELETE") or request.body_exists:
            _check_media(request, inbound)
            if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
                raise InputError(problem="content-encoding-unsupported", status=415)
            content = await body.read(request, limit_of(self._hub, name), self._hub.config.hub.http.body_deadline_s)
        return RawRequest(
            connection=name,
            headers={k.lower(): v for k, v in request.headers.items()},
            body=content,
            received_at=self._hub.now(),
            method=request.method,
            path=tail,
            query=dict(iter(request.query.items())) if request.rel_url.raw_query_string else {},
            remote=request.remote or "",
        )


def _check_media(request: web.BaseRequest, inbound: Inbound) -> None:
    media = request.content_type
    taken = media in inbound.media or ("application/json" in inbound.media and is_json(media))
    charset = (request.charset or "utf-8").lower()
    if hdrs.CONTENT_TYPE not in request.headers or not taken or charset not in ("utf-8", "utf8"):
        raise InputError(problem="media-type-unsupported", status=415)
