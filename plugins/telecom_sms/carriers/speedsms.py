"""SpeedSMS: JSON with Basic authentication, no request id; reports by POST to a webhook set in its portal.

Source: public code against api.speedsms.vn (fields, webhook); codes 00, 101 and 300 seen there, the others from
memory. Without a request id nothing is ever sent again after an answer was lost.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson
from pydantic import Field

from hub.contract import SecretRef

from ..codes import Meaning, Verdict
from ..settings import HttpSettings
from .dialect import Call, Plain, Report, Said, Sms, json_object, meaning_in, text_of

PATH: Final = "/index.php/sms/send"
_V = Verdict
CODES: Final[dict[str, Meaning]] = {
    "00": Meaning(_V.TAKEN, "ok"),
    "101": Meaning(_V.STOP, "sender_refused"),
    "300": Meaning(_V.STOP, "no_balance"),
    # From memory:
    "007": Meaning(_V.STOP, "ip_refused"),
    "008": Meaning(_V.STOP, "account_locked"),
    "009": Meaning(_V.STOP, "login_refused"),
    "105": Meaning(_V.BAD_NUMBER, "number_invalid"),
    "113": Meaning(_V.REFUSED, "message_length_invalid"),
    "500": Meaning(_V.LATER, "carrier_system_error"),
}


class SpeedSmsSettings(HttpSettings):
    """A SpeedSMS account."""

    token: SecretRef = Field(title="Mã truy cập", description='The access token: {file = "..."} or {env = "..."}.')
    sms_type: Literal[2, 3, 4, 5] = Field(
        3,
        title="Loại tin (sms_type)",
        description="2 a number of the carrier's, 3 own brandname, 4 the carrier's brandname, 5 an Android phone.",
    )


class SpeedSms(Plain):
    def __init__(self, settings: SpeedSmsSettings, token: str) -> None:
        self._settings = settings
        self._headers = {
            "Content-Type": "application/json",
            "Authorization": "Basic " + b64encode(f"{token}:x".encode()).decode(),
        }

    def call(self, sms: Sms, token: str) -> Call:
        fields = {
            "to": [sms.phone],
            "content": sms.text,
            "sms_type": self._settings.sms_type,
            "sender": self._settings.sender,
        }
        return Call(PATH, orjson.dumps(fields), self._headers)

    def read(self, answer: bytes) -> Said | None:
        found = json_object(answer)
        if found is None or found.get("status") not in ("success", "error"):
            return None
        data = found.get("data")
        data = data if isinstance(data, Mapping) else {}
        ref = text_of(data.get("tranId"))
        if found["status"] == "success" and data.get("invalidPhone") and not data.get("totalSMS"):
            return Said(Meaning(_V.BAD_NUMBER, "number_invalid"), ref)
        return Said(meaning_in(CODES, text_of(found.get("code")), self._settings.codes), ref)

    def report(self, fields: Mapping[str, Any]) -> Report | None:
        ref, status = text_of(fields.get("tranId")), text_of(fields.get("status"))
        if fields.get("type") != "report" or not ref or not status.isascii() or not status.isdigit():
            return None
        number = int(status[:6])
        if number == 0:
            return Report(ref, "delivered")
        # 1 to 63: the phone may still be reached.
        return (
            Report(ref, "interim", "on_its_way")
            if number < 64
            else Report(ref, "failed", f"undeliverable_err_{number}")
        )
