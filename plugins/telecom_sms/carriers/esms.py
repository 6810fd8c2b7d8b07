"""eSMS (VIHAT): JSON, one brandname message to one phone; reports by GET to a callback address.

Source: devesms/gitbook_esms_for_develop_v2 as of 2026-04-07 (fields, bang-ma-loi.md, callback-url.md).
Not checked against the carrier: how Phone is written, and whether an id is used up by a refused request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson
from pydantic import Field

from hub.contract import SecretRef

from ..codes import Meaning, Verdict
from ..settings import HttpSettings
from .dialect import Call, Plain, Report, Said, Sms, json_object, meaning_in, text_of

PATH: Final = "/MainService.svc/json/SendMultipleMessage_V4_post_json/"
_V = Verdict
CODES: Final[dict[str, Meaning]] = {
    "99": Meaning(_V.BAD_NUMBER, "number_blocked"),
    "100": Meaning(_V.TAKEN, "ok"),
    "101": Meaning(_V.STOP, "login_refused"),
    "102": Meaning(_V.STOP, "no_price_list"),
    "103": Meaning(_V.STOP, "no_balance"),
    "104": Meaning(_V.STOP, "sender_refused"),
    "105": Meaning(_V.LATER, "id_unknown_yet"),
    "107": Meaning(_V.REFUSED, "too_few_phones"),
    "108": Meaning(_V.BAD_NUMBER, "number_invalid"),
    "118": Meaning(_V.STOP, "type_invalid"),
    "120": Meaning(_V.REFUSED, "too_many_phones"),
    "124": Meaning(_V.ALREADY, "duplicate_request"),
    "140": Meaning(_V.STOP, "ip_refused"),
    "143": Meaning(_V.STOP, "account_locked"),
    "146": Meaning(_V.STOP, "template_mismatch"),
    "160": Meaning(_V.AGAIN_SOON, "throttled"),
    "163": Meaning(_V.REFUSED, "one_phone_per_request"),
    "177": Meaning(_V.REFUSED, "network_not_registered"),
    "201": Meaning(_V.REFUSED, "text_blocked"),
}
#: SendStatus of a report that is no end yet. 5 is the end, and says nothing about having arrived.
_UNDER_WAY: Final = frozenset({"1", "2", "7"})

#: ``telcoid`` of a report: where the phone is now, whatever its prefix says.
TELCOS: Final[dict[str, str]] = {
    "1": "viettel", "2": "mobifone", "3": "vinaphone", "4": "vietnamobile", "5": "gmobile", "6": "itel", "7": "reddi",
}  # fmt: skip


class EsmsSettings(HttpSettings):
    """An eSMS account that sends care messages (SmsType 2) under a brandname."""

    api_key: SecretRef = Field(title="ApiKey", description='ApiKey of the account: {file = "..."} or {env = "..."}.')
    secret_key: SecretRef = Field(
        title="SecretKey", description='SecretKey of the account: {file = "..."} or {env = "..."}.'
    )
    sms_type: Literal["2", "8"] = Field(
        "2",
        title="Loại tin (SmsType)",
        description="2: care under a brandname. Advertising (1) needs 30 phones at once.",
    )
    sandbox: bool = Field(
        False, title="Thử, không gửi (Sandbox)", description="The carrier checks and answers, and sends to no phone."
    )
    campaign_id: str = Field(
        "", max_length=100, title="Mã đợt (campaignid)", description="Shown in the carrier's own reports."
    )
    carrier_deduplicates: bool = Field(
        True,
        title="Nhà mạng tự nhận ra tin trùng",
        description="One RequestId is taken once (code 124): a request without an answer is sent again.",
    )
    phone_form: Literal["84", "0"] = Field(
        "0", title="Cách ghi số điện thoại", description="84912... or 0912..., as the carrier wants it."
    )


class Esms(Plain):
    reports_by_request_id = True

    def __init__(self, settings: EsmsSettings, api_key: str, secret_key: str, callback_url: str) -> None:
        self._settings = settings
        self._account = {"ApiKey": api_key, "SecretKey": secret_key}
        self._callback_url = callback_url

    def call(self, sms: Sms, token: str) -> Call:
        settings = self._settings
        fields: dict[str, Any] = {
            **self._account,
            "Content": sms.text,
            "Phone": sms.phone,
            "Brandname": settings.sender,
            "SmsType": settings.sms_type,
            # Told as it is: with 0 the carrier would take the diacritics off without a word.
            "IsUnicode": "0" if sms.text.isascii() else "1",
            "Sandbox": "1" if settings.sandbox else "0",
            "RequestId": sms.request_id,
        }
        if settings.campaign_id:
            fields["campaignid"] = settings.campaign_id
        if self._callback_url:
            fields["CallbackUrl"] = self._callback_url
        return Call(PATH, orjson.dumps(fields))

    def read(self, answer: bytes) -> Said | None:
        found = json_object(answer)
        if found is None or "CodeResult" not in found:
            return None
        return Said(meaning_in(CODES, text_of(found["CodeResult"]), self._settings.codes), text_of(found.get("SMSID")))

    def report(self, fields: Mapping[str, Any]) -> Report | None:
        ref, status = text_of(fields.get("RequestId")), text_of(fields.get("SendStatus"))
        ended = _ended(fields, status)
        if not ref or ended is None:
            return None
        network = TELCOS.get(text_of(fields.get("telcoid")), "")
        return Report(ref, *ended, phone=text_of(fields.get("phonenumber")), network=network)


def _ended(fields: Mapping[str, Any], status: str) -> tuple[str, str] | None:
    """State and reason; None for a status this carrier does not have."""
    if status in _UNDER_WAY:
        return "interim", "on_its_way"
    if status == "4":
        return "failed", "rejected_by_carrier"
    if status != "5":
        return None
    if text_of(fields.get("SendSuccess")) not in ("", "0"):
        return "delivered", ""
    if text_of(fields.get("SendFailed")) not in ("", "0"):
        return "failed", "undeliverable"
    return "interim", "state_unknown_to_carrier"
