"""Who asks: the console's token, an API key, or somebody on this machine; and how often a key may ask."""

from __future__ import annotations

import hmac
import ipaddress
from datetime import UTC
from email.utils import format_datetime

from aiohttp import hdrs, web
from yarl import URL

from hub.app import HubApp
from hub.contract import OPERATOR, Guard, Principal, UnitOfWork
from hub.errors import Busy, Conflict, InputError
from hub.log import log
from hub.model import from_us, to_us
from hub.security import api_keys
from hub.web.pace import Allowance, Buckets

TOKEN_COOKIE = "unionhub_token"
PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal", Principal)
_HEADERS: web.RequestKey[dict[str, str]] = web.RequestKey("access_headers", dict)


class Access:
    """Decides for every request outside ``/in/`` and the health checks."""

    def __init__(self, hub: HubApp, token: str) -> None:
        """``token``: of the console; "" lets everybody on this machine in."""
        self._hub = hub
        self._token = token
        self._buckets = Buckets()

    async def admit(self, request: web.Request) -> None:
        """Marks the request with who asks. Raises ``InputError`` (401, 403, 429) or a redirect."""
        given = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ")
        if api_keys.is_key(given):
            request[PRINCIPAL] = await self._bearer(request, given)
            return
        self._operator(request, given)
        request[PRINCIPAL] = OPERATOR

    def _operator(self, request: web.Request, given: str) -> None:
        if not self._token:
            # Only by a loopback name: no DNS rebinding.
            if not is_loopback(_host(request)):
                raise InputError(problem="host-not-allowed", status=403)
            return
        if same(given or request.cookies.get(TOKEN_COOKIE, ""), self._token):
            return
        if same(request.query.get("token", ""), self._token):
            # Out of the address bar at once, so that it is in no history and no Referer.
            # One slash: with two, the rest of the path would be a host.
            response = web.HTTPSeeOther("/" + request.rel_url.raw_path.lstrip("/"))
            response.set_cookie(TOKEN_COOKIE, self._token, httponly=True, samesite="Strict", path="/")
            raise response
        raise InputError(problem="token-required", status=401)

    # -- keys --------------------------------------------------------------------------------------

    async def _bearer(self, request: web.Request, given: str) -> Principal:
        hub = self._hub
        rows = await hub.fetch(api_keys.FIND(digest=hub.keyed_hash(api_keys.KIND, given)))
        now = to_us(hub.now())
        key = api_keys.ApiKey.of(rows[0]) if rows else None
        state = "revoked" if key is None else key.state(now)
        if key is None or state in ("revoked", "expired"):
            # What is unknown cannot be named in a line; what is known may.
            log("api.refused", key="" if key is None else key.id, reason=f"key_{state}" if key else "key_unknown")
            raise InputError(problem="key-expired" if state == "expired" else "key-invalid", status=401)
        allowed = self._buckets.take(key.id, key.rate_per_min)
        request[_HEADERS] = _told(key, state, allowed)
        if allowed.retry_after_s:
            raise InputError(problem="rate-limited", status=429)
        if not request.path.startswith("/api/"):
            raise InputError(problem="scope-missing", status=403)  # pages and metrics are for people here
        if key.last_used_at is None or now - key.last_used_at >= api_keys.TOUCH_US:
            await self._touch(key, state, now)
        return key.principal

    async def _touch(self, key: api_keys.ApiKey, state: str, now: int) -> None:
        touch = Guard(api_keys.TOUCH(id=key.id, now=now, before=now - api_keys.TOUCH_US))
        try:
            await self._hub.commit(UnitOfWork(guards=[touch]))
            if state == "expiring":
                await self._hub.store.open_repair("key_expiring", key.id, key.name, now)
        except (Busy, Conflict):
            return  # a request is not refused since its use could not be noted; or somebody else noted it


def _told(key: api_keys.ApiKey, state: str, allowed: Allowance) -> dict[str, str]:
    told = allowed.headers()
    if allowed.retry_after_s:
        told[hdrs.RETRY_AFTER] = str(allowed.retry_after_s)
    if state == "expiring" and key.expires_at is not None:
        told["UnionHub-Key-Expires"] = format_datetime(from_us(key.expires_at).astimezone(UTC), usegmt=True)
    return told


async def tell(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Puts what a key's bearer has to know on every answer, refusals too."""
    if isinstance(request, web.Request):
        response.headers.update(request.get(_HEADERS, {}))
        if response.status == 401 and not request.path.startswith("/in/"):
            response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"


def refuse_other_sites(request: web.Request) -> None:
    """A page of another site cannot make its reader's browser change anything here. Raises ``InputError`` 403."""
    origin = request.headers.get(hdrs.ORIGIN)
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") or (
        origin is not None and _authority(origin) != request.headers.get(hdrs.HOST, "").lower()
    ):
        raise InputError(problem="cross-site", status=403)


def _authority(origin: str) -> str:
    try:
        url = URL(origin)
        return url.authority.lower()
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(request: web.Request) -> str:
    """The name in the Host header, without port and brackets; "" when there is none."""
    name = request.headers.get(hdrs.HOST, "").lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def same(given: str, token: str) -> bool:
    # Bytes that are not UTF-8 arrive as half surrogates.
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
