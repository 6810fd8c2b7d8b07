"""A request's raw bytes, within size and time."""

from __future__ import annotations

import asyncio

from aiohttp import web

from hub.errors import InputError


async def read(request: web.BaseRequest, limit: int, deadline_s: float) -> bytes:
    """Raises ``InputError``: 413 before reading what is too large, 408 for what is too slow, 400 for broken framing."""
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    body = bytearray()
    if request.content.is_eof() and request.content.exception() is None:  # it came whole with its head: no timer
        body += request.content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        return bytes(body)
    try:
        async with asyncio.timeout(deadline_s):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise InputError(problem="body-too-slow", status=408) from None
    except (web.RequestPayloadError, ConnectionError):
        raise InputError(problem="request-malformed", status=400) from None
    return bytes(body)


def _too_large(limit: int) -> InputError:
    return InputError(f"at most {limit} bytes", problem="body-too-large", status=413)
