"""VNPT / VinaPhone brandname: the carrier holds the template, we name it and send its parameters.

Only the names of the fields are public (send_sms_list, RQST). How they are written is from memory: so the whole request
is a setting with the shape below as its default, and so are the fields of the answer. No receipts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import Field, field_validator

from hub.contract import SecretRef

from ..codes import Meaning, Verdict
from ..settings import HttpSettings, Printable
from .dialect import Call, Plain, Said, Sms, json_object, meaning_in, text_of

_V = Verdict
CODES: Final[dict[str, Meaning]] = {"0": Meaning(_V.TAKEN, "ok")}
#: What a string of the request may be: replaced as a whole, so that no text can change the request's shape.
PLACEHOLDERS: Final = frozenset({
    "{request_id}", "{number}", "{phone}", "{text}", "{sender}", "{datacoding}",
    "{label_id}", "{contract_type_id}", "{contract_id}", "{template_id}", "{agent_id}",
    "{api_user}", "{api_password}", "{username}",
})  # fmt: skip
REQUEST: Final[dict[str, Any]] = {
    "RQST": {
        "name": "send_sms_list",
        "REQID": "{number}",
        "LABELID": "{label_id}",
        "CONTRACTTYPEID": "{contract_type_id}",
        "CONTRACTID": "{contract_id}",
        "TEMPLATEID": "{template_id}",
        "PARAMS": [{"NUM": "1", "CONTENT": "{text}"}],
        "SCHEDULETIME": "",
        "MOBILELIST": "{phone}",
        "ISTELCOSUB": "0",
        "AGENTID": "{agent_id}",
        "APIUSER": "{api_user}",
        "APIPASS": "{api_password}",
        "USERNAME": "{username}",
        "DATACODING": "{datacoding}",
    }
}


class VnptSettings(HttpSettings):
    """A VNPT brandname account with one template registered for its text."""

    path: str = Field(
        "/smsmarketing/api", pattern=r"^/[!-~]*$", title="Đường dẫn", description="Of the service, as VNPT gave it."
    )
    label_id: Printable = Field(title="LABELID", description="Number of the registered brandname.")
    contract_type_id: Printable = Field("1", title="CONTRACTTYPEID", description="1 care, 2 advertising (memory).")
    contract_id: Printable = Field(title="CONTRACTID", description="Number of the contract.")
    template_id: Printable = Field(title="TEMPLATEID", description="Number of the registered template.")
    agent_id: Printable = Field(title="AGENTID", description="Number of the agent.")
    api_user: Printable = Field(title="APIUSER", description="Login name of the account.")
    api_password: SecretRef = Field(title="APIPASS", description='Where it is kept: {file = "..."} or {env = "..."}.')
    username: Printable = Field(title="USERNAME", description="User of the portal in whose name is sent.")
    request: dict[str, Any] = Field(
        default_factory=lambda: REQUEST,
        title="Mẫu yêu cầu",
        description="The JSON body; a string that is a placeholder like {phone} is replaced whole.",
    )
    answer_code: str = Field("RPLY.ERROR", title="Trường mã lỗi", description="Where the answer holds its code.")
    answer_id: str = Field("RPLY.REQID", title="Trường mã tin", description="Where it names the message, if it does.")

    @field_validator("request")
    @classmethod
    def _knows_its_placeholders(cls, value: dict[str, Any]) -> dict[str, Any]:
        found = set(_placeholders(value))
        unknown = sorted(found - PLACEHOLDERS)
        if unknown:
            raise ValueError(f"request: no such placeholder: {', '.join(unknown)}")
        missing = sorted({"{phone}", "{text}"} - found)
        if missing:
            raise ValueError(f"request: {' and '.join(missing)} must stand in it")
        return value


class Vnpt(Plain):
    def __init__(self, settings: VnptSettings, api_password: str) -> None:
        self._settings = settings
        self._api_password = api_password

    def call(self, sms: Sms, token: str) -> Call:
        settings = self._settings
        values = {
            "{request_id}": sms.request_id,
            "{number}": str(sms.number),
            "{phone}": sms.phone,
            "{text}": sms.text,
            "{sender}": settings.sender,
            "{datacoding}": "0" if sms.text.isascii() else "8",
            "{label_id}": settings.label_id,
            "{contract_type_id}": settings.contract_type_id,
            "{contract_id}": settings.contract_id,
            "{template_id}": settings.template_id,
            "{agent_id}": settings.agent_id,
            "{api_user}": settings.api_user,
            "{api_password}": self._api_password,
            "{username}": settings.username,
        }
        return Call(settings.path, orjson.dumps(_filled(settings.request, values)))

    def read(self, answer: bytes) -> Said | None:
        found = json_object(answer)
        code = text_of(_at(found, self._settings.answer_code))
        if not code:
            return None
        return Said(meaning_in(CODES, code, self._settings.codes), text_of(_at(found, self._settings.answer_id)))


def _placeholders(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value.startswith("{") and value.endswith("}") else []
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [name for child in children for name in _placeholders(child)]


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return values.get(value, value)
    if isinstance(value, Mapping):
        return {name: _filled(child, values) for name, child in value.items()}
    return [_filled(child, values) for child in value] if isinstance(value, list) else value


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
