"""Viettel bulk SMS: SOAP 1.1, operation wsCpMt; answers are sentences of which the beginning is the code.

Source: public code against the service (element names, namespace, sentences). Not checked against the carrier: the
path, how long unicode text is written, and whether DUPLICATE MESSAGE looks at RequestID or at the text. No receipts.
"""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import escape

from pydantic import Field

from hub.contract import SecretRef

from ..codes import Meaning, Verdict
from ..settings import HttpSettings, Printable
from .dialect import Call, Plain, Said, Sms

NAMESPACE: Final = "http://impl.bulkSms.ws/"
_V = Verdict
#: By the beginning of the sentence, without the spaces around colons.
CODES: Final[dict[str, Meaning]] = {
    "Insert MT_QUEUE:OK": Meaning(_V.TAKEN, "ok"),
    "Authenticate:IP_INVALID": Meaning(_V.STOP, "ip_refused"),
    "Authenticate:CP_CODE_NOT_FOUND": Meaning(_V.STOP, "login_refused"),
    "Authenticate:WRONG_INFORMATION_AUTHENTICATE": Meaning(_V.STOP, "login_refused"),
    "Check RequestID:REQUEST_ID_NOT_NUMBER": Meaning(_V.STOP, "request_id_invalid"),
    "UserID_NOT_EQUAL_ReceiverID": Meaning(_V.STOP, "request_invalid"),
    "Unable to check telco from input receiver": Meaning(_V.BAD_NUMBER, "number_invalid"),
    "Check ReceiverID:FORMAT_ERROR": Meaning(_V.BAD_NUMBER, "number_invalid"),
    "Check ServiceID:DUPLICATE MESSAGE": Meaning(_V.ALREADY, "duplicate_request"),
    "Check ServiceID:ALIAS_INVALID": Meaning(_V.REFUSED, "network_not_registered"),
    "Check CommandCode:COMMAND_CODE_ERROR": Meaning(_V.STOP, "request_invalid"),
    "Check Content:MAXLENGTH_LIMIT": Meaning(_V.REFUSED, "message_length_invalid"),
    "Check Content:MSG_ERROR_CONTAIN_BLACKLIST": Meaning(_V.REFUSED, "text_blocked"),
    "Check template:CONTENT_NOT_MATCH_TEMPLATE": Meaning(_V.STOP, "template_mismatch"),
    "Check information error": Meaning(_V.LATER, "carrier_system_error"),
}
_HEADERS: Final = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": '""'}


class ViettelSettings(HttpSettings):
    """An account of Viettel's bulk SMS service."""

    user: Printable = Field(min_length=1, max_length=60, title="User", description="Login name of the account.")
    password: SecretRef = Field(
        title="Mật khẩu", description='Where the password is kept: {file = "..."} or {env = "..."}.'
    )
    cp_code: Printable = Field(min_length=1, max_length=60, title="CPCode", description="Code of the content provider.")
    command_code: Printable = Field("bulksms", title="CommandCode", description="bulksms unless the contract differs.")
    path: str = Field("/bulkapi", pattern=r"^/[!-~]*$", title="Đường dẫn", description="Of the SOAP service (memory).")
    plain_type: Printable = Field("0", title="ContentType không dấu", description="For ASCII text: 0 or F.")
    carrier_deduplicates: bool = Field(
        True,
        title="Nhà mạng tự nhận ra tin trùng",
        description="One RequestID is taken once (DUPLICATE MESSAGE): a request without an answer is sent again.",
    )


class Viettel(Plain):
    def __init__(self, settings: ViettelSettings, password: str) -> None:
        self._settings = settings
        self._password = password

    def call(self, sms: Sms, token: str) -> Call:
        settings = self._settings
        fields = {
            "User": settings.user,
            "Password": self._password,
            "CPCode": settings.cp_code,
            "RequestID": str(sms.number),
            "UserID": sms.phone,
            "ReceiverID": sms.phone,
            "ServiceID": settings.sender,
            "CommandCode": settings.command_code,
            "Content": sms.text,
            "ContentType": settings.plain_type if sms.text.isascii() else "1",
        }
        return Call(settings.path, _envelope("wsCpMt", fields), _HEADERS)

    def probe(self) -> Call:
        fields = {"User": self._settings.user, "Password": self._password, "CPCode": self._settings.cp_code}
        return Call(self._settings.path, _envelope("checkBalance", fields), _HEADERS)

    def read(self, answer: bytes) -> Said | None:
        found = _returned(answer)
        if found is None:
            return None
        if "errDesc" in found:
            problem = _meaning(found["errDesc"])
            return Said(problem or Meaning(_V.TAKEN, "balance"))
        sentence = found.get("message", "")
        overruled = self._settings.codes.get(sentence.strip())
        known = _meaning(sentence)
        if overruled is not None:
            return Said(Meaning(overruled, known.reason if known else "code_overruled"))
        if known is not None:
            return Said(known)
        return Said(Meaning(_V.TAKEN, "ok") if found.get("result") == "1" else Meaning(_V.LATER, "code_unlisted"))


def _meaning(sentence: str) -> Meaning | None:
    written = re.sub(r"\s*:\s*", ":", sentence.strip())
    return next((meaning for beginning, meaning in CODES.items() if written.startswith(beginning)), None)


def _envelope(operation: str, fields: dict[str, str]) -> bytes:
    """The operation is in the service's namespace, its elements are in none. Source: SOAP 1.1, style document."""
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        f' xmlns:impl="{NAMESPACE}"><soapenv:Header/><soapenv:Body>'
        f"<impl:{operation}>{inner}</impl:{operation}>"
        "</soapenv:Body></soapenv:Envelope>"
    ).encode()


def _returned(answer: bytes) -> dict[str, str] | None:
    """The children of ``return`` by local name; None for what is no such answer. Entities are never expanded."""
    from lxml import etree

    if b"<!DOCTYPE" in answer or b"<!ENTITY" in answer:
        return None
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        root = etree.fromstring(answer, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    for element in root.iter("{*}return"):
        return {etree.QName(child).localname: (child.text or "").strip() for child in element.iterchildren("{*}*")}
    return None
