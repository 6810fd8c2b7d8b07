"""FPT brandname: an OAuth token of about an hour, then JSON with the text in Base64.

Source: public code against api/push-brandname-otp. From memory, so settings: the field of the message id, the codes
of a token that has ended, and that RequestId does not protect against repeats. No receipts.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import Field

from hub.contract import SecretRef

from ..codes import Meaning, Verdict
from ..settings import HttpSettings, Printable
from .dialect import Call, Plain, Said, Sms, json_object, meaning_in, text_of

TOKEN_PATH: Final = "/oauth2/token"
PATH: Final = "/api/push-brandname-otp"
_V = Verdict
CODES: Final[dict[str, Meaning]] = {}
_TOKEN_LIFE_S: Final = 3600.0


class FptSettings(HttpSettings):
    """An FPT brandname account."""

    client_id: Printable = Field(min_length=1, max_length=200, title="client_id", description="As the carrier gave it.")
    client_secret: SecretRef = Field(
        title="client_secret", description='Where it is kept: {file = "..."} or {env = "..."}.'
    )
    scope: Printable = Field("send_brandname_otp", title="scope", description="What the token is for.")
    message_id_field: str = Field("MessageId", title="Trường mã tin", description="Where the answer names the message.")
    token_codes: tuple[str, ...] = Field(
        ("1011",), title="Mã hết hạn token", description="Codes in field `error` that a new token may cure."
    )


class Fpt(Plain):
    def __init__(self, settings: FptSettings, client_secret: str) -> None:
        self._settings = settings
        self._client_secret = client_secret
        #: Token and pushes of one life belong together.
        self._session_id = secrets.token_hex(16)

    def login(self) -> Call:
        fields = {
            "grant_type": "client_credentials",
            "client_id": self._settings.client_id,
            "client_secret": self._client_secret,
            "scope": self._settings.scope,
            "session_id": self._session_id,
        }
        return Call(TOKEN_PATH, orjson.dumps(fields))

    def read_login(self, answer: bytes) -> tuple[str, float] | None:
        found = json_object(answer)
        token = text_of(found.get("access_token")) if found else ""
        if not token:
            return None
        life = found.get("expires_in") if found else None
        return token, float(life) if isinstance(life, int) and 0 < life < 31_536_000 else _TOKEN_LIFE_S

    def call(self, sms: Sms, token: str) -> Call:
        fields = {
            "access_token": token,
            "session_id": self._session_id,
            "BrandName": self._settings.sender,
            "Phone": sms.phone,
            "Message": b64encode(sms.text.encode()).decode(),
            "RequestId": sms.request_id,
        }
        return Call(PATH, orjson.dumps(fields))

    def read(self, answer: bytes) -> Said | None:
        found: Mapping[str, Any] | None = json_object(answer)
        if found is None:
            return None
        if "error" in found:
            code = text_of(found["error"])
            if code in self._settings.token_codes:
                return Said(Meaning(_V.STOP, "login_refused"), token_refused=True)
            return Said(meaning_in(CODES, code, self._settings.codes))
        ref = text_of(found.get(self._settings.message_id_field))
        return Said(Meaning(_V.TAKEN, "ok"), ref) if ref else None
