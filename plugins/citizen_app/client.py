"""The app's REST service: a token by client credentials, then pushes that carry an idempotency key.

Source: no contract of the real app is public, so the shape is ours and follows RFC 6749 sections 2.3.1 and
4.4 (token) and draft-ietf-httpapi-idempotency-key-header-07 (push). Imports nothing of the hub.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeGuard, TypeVar
from urllib.parse import quote_plus

import orjson

TOKEN_PATH = "/oauth/token"
PUSH_PATH = "/api/v1/push"
#: A token is renewed so long before its end, that it does not end while a push is on its way.
RENEW_EARLY_S = 30.0
#: Of a token whose life the app does not tell.
DEFAULT_LIFE_S = 300.0
#: What may stand in a header: nothing that ends it or starts another.
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")


class Answer(Protocol):
    """What the transport saw of one request."""

    @property
    def status(self) -> int: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def answer(self) -> bytes: ...


A = TypeVar("A", bound=Answer)
#: One POST: path, headers, body, seconds it may take. Raises nothing for what the network does.
Post = Callable[[str, Mapping[str, str], bytes, float], Awaitable[A]]


@dataclass(frozen=True, slots=True)
class Seen(Generic[A]):
    """How far one call came, and the answer that ended it."""

    stage: Literal["token", "push"]
    answer: A
    #: False: the token endpoint answered 200 without a usable token.
    token_readable: bool = True


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    #: By the event loop's clock, which no clock change moves.
    ends_at: float


class AppClient(Generic[A]):
    """Keeps one token for all pushes and renews it once however many need it."""

    def __init__(self, post: Post[A], client_id: str, client_secret: str) -> None:
        self._post = post
        # Source: RFC 6749 section 2.3.1: both halves are form-encoded before Basic.
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
        self._basic = "Basic " + b64encode(pair).decode()
        self._token: _Token | None = None
        self._renewing = asyncio.Lock()

    async def push(self, key: str, body: bytes, deadline_s: float) -> Seen[A]:
        """One push under the idempotency key; a token that is refused is renewed once and the push repeated."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_s
        refused: _Token | None = None
        while True:
            token = await self._usable_token(refused, ends_at)
            if isinstance(token, Seen):
                return token
            headers = {
                "Authorization": f"Bearer {token.value}",
                "Content-Type": "application/json",
                "Idempotency-Key": key,
            }
            answer = await self._post(PUSH_PATH, headers, body, _left(ends_at))
            if answer.status != 401 or refused is not None:
                return Seen("push", answer)
            refused = token

    async def login(self, deadline_s: float) -> Seen[A] | None:
        """Asks for a fresh token; None when it came, else what stood in the way."""
        token = await self._usable_token(self._token, asyncio.get_running_loop().time() + deadline_s)
        return token if isinstance(token, Seen) else None

    async def _usable_token(self, refused: _Token | None, ends_at: float) -> _Token | Seen[A]:
        """A token other than ``refused`` that still lives; those who wait for a renewal all get the new one."""
        token = self._token
        if _usable(token, refused):
            return token
        async with self._renewing:
            token = self._token
            if _usable(token, refused):
                return token
            return await self._renew(ends_at)

    async def _renew(self, ends_at: float) -> _Token | Seen[A]:
        headers = {"Authorization": self._basic, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._post(TOKEN_PATH, headers, b"grant_type=client_credentials", _left(ends_at))
        if answer.failure is not None or answer.status != 200:
            return Seen("token", answer)
        read = _read_token(answer.answer)
        if read is None:
            return Seen("token", answer, token_readable=False)
        value, life_s = read
        # A short life is kept to half, else such a token would never count as usable.
        usable_s = max(life_s - RENEW_EARLY_S, life_s / 2)
        self._token = _Token(value, asyncio.get_running_loop().time() + usable_s)
        return self._token


def push_body(address: str, title: str, text: str, event_id: str) -> bytes:
    """The JSON of one push; the same arguments give the same bytes."""
    return orjson.dumps({"to": address, "title": title, "body": text, "event_id": event_id})


def _usable(token: _Token | None, refused: _Token | None) -> TypeGuard[_Token]:
    return token is not None and token is not refused and asyncio.get_running_loop().time() < token.ends_at


def _left(ends_at: float) -> float:
    return max(0.0, ends_at - asyncio.get_running_loop().time())


def _read_token(raw: bytes) -> tuple[str, float] | None:
    """Value and life in seconds. Source: RFC 6749 section 5.1."""
    try:
        found: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    value, life = found.get("access_token"), found.get("expires_in", DEFAULT_LIFE_S)
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        return None
    if str(found.get("token_type", "bearer")).lower() != "bearer":
        return None
    known = isinstance(life, int | float) and not isinstance(life, bool) and 0 < life < 31_536_000
    return value, float(life) if known else DEFAULT_LIFE_S
