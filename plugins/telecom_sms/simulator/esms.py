"""A simulated eSMS: SendMultipleMessage_V4_post_json, its codes, and reports by GET to the CallbackUrl of each message.

Source: devesms/gitbook_esms_for_develop_v2, 2026-04-07.
"""

from __future__ import annotations

import hmac
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from .web import WebCarrier, cut, run

_KNOWN = {
    "ApiKey", "SecretKey", "Content", "Phone", "Brandname", "SmsType", "IsUnicode", "Sandbox", "campaignid",
    "RequestId", "CallbackUrl", "SendDate",
}  # fmt: skip


class Esms(WebCarrier):
    """Takes one message per request; every value is text."""

    TAKEN, DUPLICATE, TOO_FAST = "100", "124", "160"

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/MainService.svc/json/SendMultipleMessage_V4_post_json/", self._send)]

    async def _send(self, request: web.Request) -> web.Response:
        try:
            fields = json.loads(await request.read())
        except ValueError:
            return web.Response(status=400, text="Bad Request")
        problem = self._problem(fields)
        if problem:
            return _answer(problem)
        phone = "84" + fields["Phone"][1:] if fields["Phone"].startswith("0") else fields["Phone"]
        callback, sandbox = fields.get("CallbackUrl", ""), fields.get("Sandbox") == "1"

        async def report(message_id: str, reached: bool) -> bool:
            return await self.send_report("GET", callback, params=_report(fields, phone, message_id, reached))

        text = (
            fields["Content"] if fields["IsUnicode"] == "1" else fields["Content"].encode("ascii", "replace").decode()
        )
        if sandbox:
            return _answer(self.TAKEN, "0")
        result = await self.process(phone, text, fields.get("RequestId", ""), report if callback else None)
        return cut(request) if result.code is None else _answer(result.code, result.message_id)

    def _problem(self, fields: Any) -> str:
        if not isinstance(fields, dict) or set(fields) - _KNOWN:
            return "99"
        if not all(isinstance(value, str) for value in fields.values()):
            return "99"
        account = next((mine for mine in self.accounts if mine["api_key"] == fields.get("ApiKey")), None)
        if account is None or not hmac.compare_digest(account["secret_key"], fields.get("SecretKey", "")):
            return "101"
        if fields.get("Brandname") != account["sender"]:
            return "104"
        if not re.fullmatch(r"(0|84)[0-9]{9}", fields.get("Phone", "")):
            return "108"
        return "" if fields.get("SmsType") == "2" else "118"


def _answer(code: str, message_id: str = "") -> web.Response:
    found = {"CodeResult": code, "CountRegenerate": 0, "SMSID": message_id}
    if code != "100":
        found["ErrorMessage"] = f"error {code}"
    return web.json_response(found)


def _report(fields: dict[str, str], phone: str, message_id: str, reached: bool) -> dict[str, str]:
    return {
        "SMSID": message_id, "SendStatus": "5", "SendSuccess": str(int(reached)), "SendFailed": str(int(not reached)),
        "TotalReceiver": "1", "TotalSent": "1", "TotalPrice": "780", "RequestId": fields.get("RequestId", ""),
        "TypeId": "2", "telcoid": "1", "phonenumber": phone, "partnerids": "",
        "error_info": "" if reached else "absent",
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(Esms))
