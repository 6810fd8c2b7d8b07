"""A simulated VNPT brandname service: RQST send_sms_list. It holds the template, requests bring the parameters.

Only names of fields are public; how they are nested is from memory, here as in the client's default template.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from .web import WebCarrier, cut, run

_FIELDS = {
    "name", "REQID", "LABELID", "CONTRACTTYPEID", "CONTRACTID", "TEMPLATEID", "PARAMS", "SCHEDULETIME", "MOBILELIST",
    "ISTELCOSUB", "AGENTID", "APIUSER", "APIPASS", "USERNAME", "DATACODING",
}  # fmt: skip


class Vnpt(WebCarrier):
    """Error 0 is success; the others are this simulator's own."""

    TAKEN, TOO_FAST = "0", "90"

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/smsmarketing/api", self._send)]

    async def _send(self, request: web.Request) -> web.Response:
        try:
            fields = json.loads(await request.read())["RQST"]
        except (ValueError, KeyError, TypeError):
            return web.Response(status=400)
        problem = self._problem(fields)
        if problem:
            return _answer(problem, fields)
        text = "".join(parameter["CONTENT"] for parameter in fields["PARAMS"])
        result = await self.process(fields["MOBILELIST"], text, "", None)
        return cut(request) if result.code is None else _answer(result.code, fields)

    def _problem(self, fields: Any) -> str:
        if not isinstance(fields, dict) or set(fields) != _FIELDS or fields["name"] != "send_sms_list":
            return "1"
        account = next((mine for mine in self.accounts if mine["api_user"] == fields["APIUSER"]), None)
        if account is None or account["api_password"] != fields["APIPASS"]:
            return "2"
        same = {"LABELID": "label_id", "CONTRACTID": "contract_id", "TEMPLATEID": "template_id"}
        if any(fields[theirs] != account[ours] for theirs, ours in same.items()):
            return "3"
        return "" if re.fullmatch(r"84[0-9]{9}", fields["MOBILELIST"]) else "4"


def _answer(code: str, fields: Any) -> web.Response:
    request_id = fields.get("REQID", "") if isinstance(fields, dict) else ""
    said = "success" if code == "0" else f"error {code}"
    reply = {"name": "send_sms_list", "ERROR": code, "ERROR_DESC": said, "REQID": request_id}
    return web.json_response({"RPLY": reply})


if __name__ == "__main__":
    sys.exit(run(Vnpt))
