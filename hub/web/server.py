"""The HTTP server: inbound requests, health, metrics; console and API are mounted beside them.

Nothing is parsed before the signature is checked, nothing is decompressed, and whatever goes wrong is a
problem document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.web_protocol import _ErrInfo

from hub import metrics
from hub.app import HubApp
from hub.errors import Busy, HubError
from hub.log import log
from hub.retention import observe
from hub.web import api, console, inbound, pages
from hub.web.access import Access, is_loopback, tell
from hub.web.problems import problem, problem_of

__all__ = ["build", "is_loopback", "runner"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RequestT = TypeVar("RequestT", bound=web.BaseRequest)
#: Nobody needs to know which versions answer here.
SERVER = "UnionHub"

HUB: web.AppKey[HubApp] = web.AppKey("hub", HubApp)
ACCESS: web.AppKey[Access] = web.AppKey("access", Access)
#: Below these, plugins let their own readers in.
PAGES: web.AppKey[tuple[str, ...]] = web.AppKey("pages", tuple)
#: Answers without a person in front of them: no token, no host rule.
_OPEN = ("/healthz", "/readyz")


def build(hub: HubApp, token: str = "") -> web.Application:
    """The application; with ``token``, console, API and metrics ask for it."""
    app = web.Application(middlewares=[_last_resort, _guard], client_max_size=hub.config.hub.http.max_body_bytes)
    app[HUB] = hub
    app[ACCESS] = Access(hub, token)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", _metrics)
    app.on_response_prepare.append(_anonymous)
    app.on_response_prepare.append(tell)
    api.mount(app, hub)
    console.mount(app, hub)
    app[PAGES] = pages.mount(app, hub)
    return app


async def _anonymous(request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = SERVER


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


# -- below the application: what is not well-formed HTTP ---------------------------------------------


class _Protocol(web.RequestHandler):
    """Answers what aiohttp cannot read with a problem document; its own answer would quote the request."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._messages or not isinstance(self._messages[-1][0], _ErrInfo):
            return
        current = self._current_request
        if current is not None and not current.content.is_eof():
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
        hub = self.app[HUB]
        door = inbound.Door(hub)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            refused = _misframed(request, hub)
            if refused is not None:
                return refused
            if not request.path.startswith(inbound.PREFIX):
                return await made.request_handler(request)
            if hdrs.EXPECT in request.headers and request.version == HttpVersion11:
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # the answer has not begun: what goes wrong now can still be told
            response = await _answered(request, door.take)
            response.headers[hdrs.SERVER] = SERVER
            return response

        return _Server(handle, request_factory=made.request_factory, **made._kwargs)


def _misframed(request: web.BaseRequest, hub: HubApp) -> web.Response | None:
    """What two servers could read differently is refused, and the connection ends with it."""
    if request.headers.get(hdrs.TRANSFER_ENCODING, "chunked").lower() != "chunked":
        return _refused("request-malformed", 400)
    expected = request.headers.get(hdrs.EXPECT)
    if expected is None:
        return None
    if expected.lower() != "100-continue":
        return _refused("request-malformed", 417)
    # Before such a body is invited.
    name = request.path.removeprefix(inbound.PREFIX).partition("/")[0] if request.path.startswith("/in/") else ""
    limit = inbound.limit_of(hub, name)
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
    return await _answered(request, handler)


async def _answered(
    request: RequestT, handler: Callable[[RequestT], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What ``handler`` answers; whatever goes wrong is a problem document."""
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
    """Console and API are for whoever ``Access`` admits; a plugin's own pages for whom the plugin does."""
    if not request.path.startswith((*_OPEN, *request.app[PAGES])):
        await request.app[ACCESS].admit(request)
    return await handler(request)


# -- health ----------------------------------------------------------------------------------------


async def _healthz(request: web.Request) -> web.StreamResponse:
    """The process answers."""
    return web.json_response({"status": "alive"})


async def _readyz(request: web.Request) -> web.StreamResponse:
    """The ledger takes writes; a hub in hold is ready to receive and says so."""
    hub = request.app[HUB]
    if hub.outdated is not None:
        return problem("outdated", 503, str(hub.outdated), headers={"Retry-After": "5"})
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
