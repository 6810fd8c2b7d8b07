"""A simulated SpeedSMS: /index.php/sms/send with Basic token:x, reports by POST to the account's webhook.

Source: public code against api.speedsms.vn. An account may name ``webhook``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from .web import WebCarrier, cut, run


class SpeedSms(WebCarrier):
    """Knows no request id: the same message twice is two messages."""

    TAKEN, TOO_FAST = "00", "500"

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        #: Where reports go; set in the carrier's portal, so it is no field of a message.
        self.webhook = next((mine["webhook"] for mine in self.accounts if mine.get("webhook")), "")

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/index.php/sms/send", self._send)]

    async def _send(self, request: web.Request) -> web.Response:
        account = self._account(request.headers.get("Authorization", ""))
        if account is None:
            return _error("009", "Account not allowed")
        try:
            fields = json.loads(await request.read())
            to, text, kind = fields["to"], fields["content"], fields["sms_type"]
        except (ValueError, KeyError, TypeError):
            return _error("101", "invalid or missing parameters")
        if kind not in (2, 3, 4, 5) or fields.get("sender") != account["sender"] or not isinstance(to, list):
            return _error("101", "sender not found")
        (phone,) = to
        if not re.fullmatch(r"84[0-9]{9}", phone):
            return _error("105", "phone number invalid", [phone])

        async def report(message_id: str, reached: bool) -> bool:
            found = {"type": "report", "tranId": int(message_id), "phone": phone, "status": 0 if reached else 65}
            return await self.send_report("POST", self.webhook, json=found)

        result = await self.process(phone, text, "", report if self.webhook else None)
        if result.code is None:
            return cut(request)
        if result.code != self.TAKEN:
            return _error(result.code, "refused")
        data = {"tranId": int(result.message_id), "totalSMS": 1, "totalPrice": 250, "invalidPhone": []}
        return web.json_response({"status": "success", "code": "00", "data": data})

    def _account(self, header: str) -> Mapping[str, str] | None:
        try:
            given = base64.b64decode(header.removeprefix("Basic "), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return next((mine for mine in self.accounts if f"{mine['token']}:x" == given), None)


def _error(code: str, message: str, invalid: Sequence[str] = ()) -> web.Response:
    return web.json_response({"status": "error", "code": code, "message": message, "invalidPhone": list(invalid)})


if __name__ == "__main__":
    sys.exit(run(SpeedSms))
