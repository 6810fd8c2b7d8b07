"""A simulated FPT brandname service: /oauth2/token, /api/push-brandname-otp. No receipts, no protection from repeats.

Source: public code against the service; codes and the answer's fields from memory.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import sys
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from .web import WebCarrier, cut, run

_TOKEN_FIELDS = {"grant_type", "client_id", "client_secret", "scope", "session_id"}
_PUSH_FIELDS = {"access_token", "session_id", "BrandName", "Phone", "Message", "RequestId"}


class Fpt(WebCarrier):
    """Tokens belong to the session id they were asked with; ``forget`` makes all of them stale."""

    TAKEN, TOO_FAST = "ok", "1020"

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._tokens: dict[str, str] = {}

    def forget(self) -> None:
        self._tokens.clear()

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/oauth2/token", self._token), web.post("/api/push-brandname-otp", self._push)]

    async def _token(self, request: web.Request) -> web.Response:
        fields = await _fields(request)
        known = any(
            (mine["client_id"], mine["client_secret"]) == (fields.get("client_id"), fields.get("client_secret"))
            for mine in self.accounts
        )
        if set(fields) != _TOKEN_FIELDS or fields["grant_type"] != "client_credentials" or not known:
            return _error("1001", "invalid client", 401)
        token = secrets.token_urlsafe(24)
        self._tokens[token] = fields["session_id"]
        self.counts["logins"] += 1
        return web.json_response({
            "access_token": token, "expires_in": 3600, "token_type": "Bearer", "scope": fields["scope"],
        })  # fmt: skip

    async def _push(self, request: web.Request) -> web.Response:
        fields = await _fields(request)
        if set(fields) != _PUSH_FIELDS:
            return _error("1002", "missing field")
        if self._tokens.get(fields["access_token"]) != fields["session_id"]:
            return _error("1011", "token expired")
        try:
            text = base64.b64decode(fields["Message"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return _error("1003", "message is not base64")
        result = await self.process(fields["Phone"], text, "", None)
        if result.code is None:
            return cut(request)
        if result.code != self.TAKEN:
            return _error(result.code, "refused")
        return web.json_response({
            "MessageId": int(result.message_id), "BrandName": fields["BrandName"], "Phone": fields["Phone"],
            "Message": text, "PartnerId": "1", "Telco": "viettel",
        })  # fmt: skip


async def _fields(request: web.Request) -> dict[str, str]:
    try:
        found = json.loads(await request.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _error(code: str, text: str, status: int = 200) -> web.Response:
    return web.json_response({"error": int(code), "error_description": text}, status=status)


if __name__ == "__main__":
    sys.exit(run(Fpt))
