"""The VXP transport of the document axis: parameters as signed headers, JSON answers.

Source: axis SDK 2.0 (SDKVXP): paths, header names, the signature recipe and the success rule
``status`` = OK and ``ErrorCode`` = 0. Imports nothing of the hub.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, Literal

import aiohttp
import orjson

_ZONE = timezone(timedelta(hours=7))
_PREFIX = "XroadVnpt-"
_VERSION = "3.0.201608"
_USER_AGENT = "JAVASDKAgent/1.0.0 XRoad/VPCP"
#: A docId travels in a header: nothing that could end the header or start another.
_HEADER_SAFE = re.compile(r"[\x21-\x7e]{1,200}")
#: Lists and answers of calls; packets have their own limit.
_ANSWER_BYTES = 8 << 20
_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,20}")

Mark = Literal["done", "fail"]


class AxisError(Exception):
    """The axis did not answer, or did not answer success."""

    def __init__(
        self,
        code: str,
        *,
        http_status: int | None = None,
        error_code: str = "",
        bytes_left: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code)
        #: connect_failed, timed_out, connection_lost, answer_malformed, answer_too_large, refused, ...
        self.code = code
        self.http_status = http_status
        self.error_code = error_code
        #: Whether the request may have reached the axis.
        self.bytes_left = bytes_left
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful call."""

    http_status: int
    body: Mapping[str, Any]
    connect_ms: float | None
    first_byte_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the received list; it stays there until it is marked."""

    doc_id: str
    created_at: str
    sender: str


def header_safe(value: str) -> bool:
    return _HEADER_SAFE.fullmatch(value) is not None


def sign(secret: bytes, system_id: str, now: datetime, parameters: Mapping[str, str]) -> dict[str, str]:
    """Headers of one call. ``now`` is taken per call: the SDK's one stamp per object goes stale.

    Source: SDKVXP; the digits after "+" of the stamp are milliseconds, not an offset.
    """
    local = now.astimezone(_ZONE)
    stamp = f"{local:%d%m%YT%H%M%S}+{local.microsecond // 1000:04d}"
    names = {"systemid": system_id, "timestamp": stamp, **parameters}
    signed = {_PREFIX + name: value for name, value in names.items()}
    text = orjson.dumps(signed)
    return {
        **signed,
        f"{_PREFIX}sign-header-key": ";".join(names),
        f"{_PREFIX}sign-header": text.decode(),
        f"{_PREFIX}hash-header": hmac.new(secret, text, hashlib.sha256).hexdigest(),
        f"{_PREFIX}version": _VERSION,
        "User-Agent": _USER_AGENT,
    }


class AxisClient:
    """One axis, one account. Opens its session at the first call; ``close`` when done."""

    def __init__(
        self,
        endpoint: str,
        *,
        system_id: str,
        secret: Callable[[], str],
        timeout_s: float,
        connections: int,
        packet_bytes: int,
        now: Callable[[], datetime],
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._system_id = system_id
        self._secret = secret
        self._timeout_s = timeout_s
        self._connections = connections
        # A packet comes as base64 inside JSON.
        self._packet_answer_bytes = packet_bytes * 4 // 3 + 65_536
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def received(self) -> list[Listed]:
        """Everything not marked yet; the axis does not page this list."""
        reply = await self._call("/getReceivedEdocList", {"servicetype": "eDoc", "messagetype": "edoc"})
        data = reply.body.get("data") or []
        if not isinstance(data, list):
            raise AxisError("answer_malformed", http_status=reply.http_status)
        return [_listed(item) for item in data if isinstance(item, dict)]

    async def fetch(self, doc_id: str) -> bytes:
        """The packet as it was sent."""
        # The SDK names a local file here; ours says nothing about this machine.
        reply = await self._call(
            "/getEdoc", {"docId": doc_id, "filePath": "edoc.edxml"}, limit_bytes=self._packet_answer_bytes
        )
        try:
            return base64.b64decode(str(reply.body.get("data", "")), validate=True)
        except binascii.Error:
            raise AxisError("answer_malformed", http_status=reply.http_status) from None

    async def mark(self, doc_id: str, mark: Mark) -> None:
        """Takes an item off the received list; marking twice is allowed."""
        await self._call("/updateStatus", {"docId": doc_id, "status": mark})

    async def send_status(self, packet: bytes, sender: str, deadline_s: float | None = None) -> Reply:
        """Posts a status packet; the axis finds its receiver inside the packet."""
        digest = hashlib.sha256(packet).hexdigest()
        form = aiohttp.MultipartWriter("form-data", boundary=f"edxml-{digest[:32]}")
        part = form.append(packet, {"Content-Type": "application/octet-stream"})
        part.set_content_disposition("form-data", name="file_doc", filename="status.edxml")
        parameters = {"from": sender, "servicetype": "eDoc", "messagetype": "status", "hash-file": digest}
        return await self._call("/sendEdoc", parameters, body=form, deadline_s=deadline_s)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _call(
        self,
        path: str,
        parameters: Mapping[str, str],
        *,
        body: aiohttp.MultipartWriter | None = None,
        limit_bytes: int = _ANSWER_BYTES,
        deadline_s: float | None = None,
    ) -> Reply:
        if not all(map(header_safe, parameters.values())):
            raise AxisError("parameter_not_sendable", bytes_left=False)
        headers = sign(self._secret().encode(), self._system_id, self._now(), parameters)
        if body is None:
            headers["Content-Type"] = "application/json"
        seen = SimpleNamespace(sent=False, connected=None)
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(min(self._timeout_s, deadline_s or self._timeout_s)),
                self._open().post(
                    self._endpoint + path,
                    headers=headers,
                    data=b"{}" if body is None else body,
                    allow_redirects=False,
                    trace_request_ctx=seen,
                ) as response,
            ):
                first_byte = time.monotonic()
                raw = await _read(response, limit_bytes)
        except TimeoutError:
            raise AxisError("timed_out", bytes_left=seen.sent) from None
        except aiohttp.ClientConnectorCertificateError:
            raise AxisError("certificate_refused", bytes_left=False) from None
        except aiohttp.ClientConnectorError:
            raise AxisError("connect_failed", bytes_left=False) from None
        except aiohttp.ClientError:
            raise AxisError("connection_lost", bytes_left=seen.sent) from None
        answer = _success(response, raw)
        return Reply(
            http_status=response.status,
            body=answer,
            connect_ms=None if seen.connected is None else (seen.connected - began) * 1000,
            first_byte_ms=(first_byte - began) * 1000,
            total_ms=(time.monotonic() - began) * 1000,
        )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
                trace_configs=[_tracing()],
            )
        return self._session


def _tracing() -> aiohttp.TraceConfig:
    """Notes when a connection stood and whether a byte left, which decides if a failure is ambiguous."""

    async def connected(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.connected = time.monotonic()

    async def sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.sent = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(connected)
    tracing.on_request_headers_sent.append(sent)
    return tracing


async def _read(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > limit_bytes:
            raise AxisError("answer_too_large", http_status=response.status)
        parts.append(chunk)
    return b"".join(parts)


def _success(response: aiohttp.ClientResponse, raw: bytes) -> dict[str, Any]:
    """The answer's JSON object if it says success in both fields, whatever the HTTP status claims beside it."""
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        answer = None
    error_code = str(answer.get("ErrorCode", "")) if isinstance(answer, dict) else ""
    if not _ERROR_CODE.fullmatch(error_code):
        error_code = ""  # free text could hold anything; it would be stored with the attempt
    if response.status == 200 and isinstance(answer, dict):
        if answer.get("status") == "OK" and error_code == "0":
            return answer
        raise AxisError("refused", http_status=200, error_code=error_code)
    raise AxisError(
        "answer_malformed" if response.status == 200 else "http_error",
        http_status=response.status,
        error_code=error_code,
        retry_after_s=_retry_after(response.headers.get("Retry-After", "")),
    )


def _retry_after(text: str) -> float | None:
    return float(min(int(text), 86_400)) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _listed(item: Mapping[str, Any]) -> Listed:
    return Listed(
        doc_id=str(item.get("docId") or ""),
        created_at=str(item.get("created_time") or "")[:40],
        sender=str(item.get("from") or "")[:64],
    )
