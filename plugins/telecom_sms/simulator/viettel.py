"""A simulated Viettel bulk SMS service: SOAP 1.1, wsCpMt and checkBalance, sentences for codes. No receipts.

Source: public code against the service. It reads XML with the standard library, not with what the client uses; what
comes is from our own tests.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from xml.sax import ContentHandler, SAXException, parseString
from xml.sax.xmlreader import AttributesImpl

from aiohttp import web

from .web import WebCarrier, cut, run

_OPERATIONS = {
    "wsCpMt": (
        "User", "Password", "CPCode", "RequestID", "UserID", "ReceiverID", "ServiceID", "CommandCode", "Content",
        "ContentType",
    ),
    "checkBalance": ("User", "Password", "CPCode"),
}  # fmt: skip


class Viettel(WebCarrier):
    """Phones are 84..., RequestID is a number that is taken once."""

    TAKEN = "Insert MT_QUEUE: OK"
    DUPLICATE = "Check ServiceID: DUPLICATE MESSAGE"
    TOO_FAST = "Check information error"

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/bulkapi", self._call)]

    async def _call(self, request: web.Request) -> web.Response:
        if not request.headers.get("Content-Type", "").startswith("text/xml") or "SOAPAction" not in request.headers:
            return web.Response(status=415)
        reading = _Reading()
        try:
            parseString(await request.read(), reading)  # noqa: S317
        except SAXException:
            return web.Response(status=500)
        fields = dict(reading.fields)
        if tuple(name for name, _ in reading.fields) != _OPERATIONS.get(reading.operation):
            return _answer(reading.operation, "Check information error", 0)
        refusal = self._login(fields)
        if refusal:
            return _answer(reading.operation, refusal, 0)
        if reading.operation == "checkBalance":
            return _envelope("checkBalance", "<errDesc>Balance: 1000000</errDesc>")
        problem = self._problem(fields)
        if problem:
            return _answer("wsCpMt", problem, 0)
        result = await self.process(fields["ReceiverID"], fields["Content"], fields["RequestID"], None)
        if result.code is None:
            return cut(request)
        return _answer("wsCpMt", result.code, int(result.code == self.TAKEN))

    def _login(self, fields: dict[str, str]) -> str:
        account = next((mine for mine in self.accounts if mine["user"] == fields["User"]), None)
        if account is None or account["password"] != fields["Password"]:
            return "Authenticate: WRONG_INFORMATION_AUTHENTICATE"
        return "" if account["cp_code"] == fields["CPCode"] else "Authenticate: CP_CODE_NOT_FOUND"

    def _problem(self, fields: dict[str, str]) -> str:
        if not re.fullmatch(r"[0-9]{1,19}", fields["RequestID"]):
            return "Check RequestID: REQUEST_ID_NOT_NUMBER"
        if fields["UserID"] != fields["ReceiverID"]:
            return "UserID_NOT_EQUAL_ReceiverID"
        if not re.fullmatch(r"84[0-9]{9}", fields["ReceiverID"]):
            return "Check ReceiverID: FORMAT_ERROR"
        if fields["ServiceID"] not in {mine["sender"] for mine in self.accounts}:
            return "Check ServiceID: ALIAS_INVALID:TELCO=01"
        if fields["CommandCode"] != "bulksms":
            return "Check CommandCode: COMMAND_CODE_ERROR"
        plain = fields["ContentType"] in ("0", "F")
        return "" if fields["Content"].isascii() == plain else "Check information error"


class _Reading(ContentHandler):
    """Names must be in the service's namespace for the operation, in none for its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.operation = ""
        self.fields: list[tuple[str, str]] = []
        self._text = ""

    def startElement(self, name: str, attrs: AttributesImpl[str]) -> None:
        self._text = ""
        if name.startswith("impl:"):
            self.operation = name.removeprefix("impl:")

    def characters(self, content: str) -> None:
        self._text += content

    def endElement(self, name: str) -> None:
        if self.operation and ":" not in name:
            self.fields.append((name, self._text))


def _answer(operation: str, message: str, result: int) -> web.Response:
    return _envelope(operation or "wsCpMt", f"<message>{message}</message><result>{result}</result>")


def _envelope(operation: str, inner: str) -> web.Response:
    body = (
        '<?xml version="1.0"?><S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Body>'
        f'<ns2:{operation}Response xmlns:ns2="http://impl.bulkSms.ws/"><return>{inner}</return>'
        f"</ns2:{operation}Response></S:Body></S:Envelope>"
    )
    return web.Response(text=body, content_type="text/xml")


if __name__ == "__main__":
    sys.exit(run(Viettel))
