"""The HTTP server: inbound requests, health, metrics; console and API are mounted beside them.

Nothing is parsed before the signature is checked, nothing is decompressed, and whatever goes wrong is a
problem document.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import hdrs, web
from aiohttp.web_protocol import _ErrInfo

from hub import metrics
from hub.app import HubApp
from hub.contract import RawRequest
from hub.errors import Busy, HubError, InputError
from hub.log import log
from hub.retention import observe
from hub.web import api, console
from hub.web.problems import problem, problem_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HUB: web.AppKey[HubApp] = web.AppKey("hub", HubApp)
TOKEN: web.AppKey[str] = web.AppKey("token", str)
HEADERS_MAX = 64
TOKEN_COOKIE = "unionhub_token"
#: Answers without a person in front of them: no token, no host rule.
_OPEN = ("/in/", "/healthz", "/readyz")


def build(hub: HubApp, token: str = "") -> web.Application:
    """The application; with ``token``, console, API and metrics ask for it."""
    app = web.Application(middlewares=[_last_resort, _guard], client_max_size=hub.config.hub.http.max_body_bytes)
    app[HUB] = hub
    app[TOKEN] = token
    app.router.add_post("/in/{connection}", _inbound)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", _metrics)
    app.on_response_prepare.append(_anonymous)
    api.mount(app, hub)
    console.mount(app, hub)
    return app


async def _anonymous(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Nobody needs to know which versions answer here."""
    response.headers[hdrs.SERVER] = "UnionHub"


def runner(app: web.Application) -> web.AppRunner:
    """With the rules that keep a hostile body or an idle connection cheap."""
    return _Runner(
        app,
        auto_decompress=False,
        keepalive_timeout=15.0,
        lingering_time=1.0,
        access_log=None,
        # A body that is still arriving must not use up the time a stop has; its sender sends again.
        shutdown_timeout=1.0,
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- below the application: what is not well-formed HTTP ---------------------------------------------


class _Protocol(web.RequestHandler):
    """Answers what aiohttp cannot read with a problem document; its own answer would quote the request."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        current = self._current_request
        if current is None or current.content.is_eof():
            return
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            # Whoever waits for the rest of this body must hear that it cannot come.
            current.content.set_exception(web.RequestPayloadError())
            current.content.feed_eof()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        if status >= 500:
            log("request.failed", path=request.path, error=exc)
            return _refused("internal", status)
        return _refused("request-malformed", 400)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        limit = self.app[HUB].config.hub.http.max_body_bytes

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            refused = _misframed(request, limit)
            return await made.request_handler(request) if refused is None else refused

        return _Server(handle, request_factory=made.request_factory, **made._kwargs)


def _misframed(request: web.BaseRequest, limit: int) -> web.Response | None:
    """What two servers could read differently is refused, and the connection ends with it."""
    if request.headers.get(hdrs.TRANSFER_ENCODING, "chunked").lower() != "chunked":
        return _refused("request-malformed", 400)
    expected = request.headers.get(hdrs.EXPECT)
    if expected is None:
        return None
    if expected.lower() != "100-continue":
        return _refused("request-malformed", 417)
    # Before such a body is invited.
    too_large = request.content_length is not None and request.content_length > limit
    return _refused("body-too-large", 413) if too_large else None


def _refused(slug: str, status: int) -> web.Response:
    metrics.inbound.labels("unknown", str(status)).inc()
    log("event.received", connection="unknown", status=status, reason=slug)
    response = problem(slug, status)
    response.force_close()
    return response


# -- middlewares -----------------------------------------------------------------------------------


@web.middleware
async def _last_resort(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return problem("not-found", 404)
    except web.HTTPMethodNotAllowed as error:
        return problem("method-not-allowed", 405, headers={"Allow": ", ".join(sorted(error.allowed_methods))})
    except web.HTTPRequestEntityTooLarge:
        return problem("body-too-large", 413)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return problem("input-invalid", error.status)
    except HubError as error:
        if error.status >= 500:
            log("request.failed", path=request.path, error=error)
        return problem_of(error)
    except Exception as error:  # a named edge: a caller gets a problem document, never a traceback
        log("request.failed", path=request.path, error=error)
        return problem("internal", 500)


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Console and API: a token when one is set, else only by a loopback name (no DNS rebinding)."""
    if request.path.startswith(_OPEN):
        return await handler(request)
    token = request.app[TOKEN]
    if not token:
        if not is_loopback(_host(request)):
            return problem("host-not-allowed", 403)
        return await handler(request)
    given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.cookies.get(TOKEN_COOKIE, "")
    if _same(given, token):
        return await handler(request)
    if _same(request.query.get("token", ""), token):
        # Out of the address bar at once, so that it is in no history and no Referer.
        # One slash: with two, the rest of the path would be a host.
        response = web.HTTPSeeOther("/" + request.rel_url.raw_path.lstrip("/"))
        response.set_cookie(TOKEN_COOKIE, token, httponly=True, samesite="Strict", path="/")
        raise response
    return problem("token-required", 401)


def _host(request: web.Request) -> str:
    """The name in the Host header, without port and brackets; "" when there is none."""
    name = request.headers.get(hdrs.HOST, "").lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def _same(given: str, token: str) -> bool:
    # Bytes that are not UTF-8 arrive as half surrogates.
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


# -- inbound ---------------------------------------------------------------------------------------


async def _inbound(request: web.Request) -> web.StreamResponse:
    hub = request.app[HUB]
    name = request.match_info["connection"]
    try:
        raw = RawRequest(
            connection=name,
            headers={k.lower(): v for k, v in request.headers.items()},
            body=await _body(request, hub),
            received_at=hub.now(),
        )
        taken = await hub.take(raw)
    except HubError as error:
        response = problem_of(error)
        _seen(hub, name, response.status, error.problem if isinstance(error, InputError) else error.code)
        return response
    reason = "repeated" if taken.repeated else "quarantined" if taken.quarantined else "stored"
    _seen(hub, name, 202, reason)
    return web.Response(body=orjson.dumps({"status": "accepted"}), status=202, content_type="application/json")


def _seen(hub: HubApp, name: str, status: int, reason: str) -> None:
    """One line and one count; a name we do not know is not repeated, it may be anything."""
    known = name if name in hub.connections else "unknown"
    metrics.inbound.labels(known, str(status)).inc()
    log("event.received", connection=known, status=status, reason=reason)


async def _body(request: web.Request, hub: HubApp) -> bytes:
    """The raw bytes, within size and time. Raises ``InputError`` before reading what is too large."""
    if len(request.headers) > HEADERS_MAX:
        raise InputError("at most 64 headers", problem="headers-invalid", status=400)
    connection = hub.connections.get(request.match_info["connection"])
    if connection is None or connection.receiver is None:
        raise InputError("no such connection", problem="not-found", status=404)
    media, charset = request.content_type, request.charset
    is_json = media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
    if hdrs.CONTENT_TYPE not in request.headers or not is_json or (charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise InputError(problem="media-type-unsupported", status=415)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise InputError(problem="content-encoding-unsupported", status=415)
    limit = hub.config.hub.http.max_body_bytes
    too_large = InputError(f"at most {limit} bytes", problem="body-too-large", status=413)
    if request.content_length is not None and request.content_length > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(hub.config.hub.http.body_deadline_s):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise InputError(problem="body-too-slow", status=408) from None
    except (web.RequestPayloadError, ConnectionError):
        raise InputError(problem="request-malformed", status=400) from None
    return bytes(body)


# -- health ----------------------------------------------------------------------------------------


async def _healthz(request: web.Request) -> web.StreamResponse:
    """The process answers."""
    return web.json_response({"status": "alive"})


async def _readyz(request: web.Request) -> web.StreamResponse:
    """The ledger takes writes; a hub in hold is ready to receive and says so."""
    hub = request.app[HUB]
    try:
        await hub.store.ping()
    except Busy as busy:
        return problem("busy", 503, str(busy), headers={"Retry-After": str(busy.retry_after_s)})
    held = await hub.store.held()
    return web.json_response({"status": "ready", "held": held})


async def _metrics(request: web.Request) -> web.StreamResponse:
    hub = request.app[HUB]
    tally = "SELECT destination, state, count FROM tally WHERE state NOT LIKE 'pruned:%'"
    for destination, state, count in await hub.store.read(tally):
        metrics.deliveries.labels(destination, state).set(count)
    await observe(hub.store, hub.now())
    body, content_type = metrics.render()
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
