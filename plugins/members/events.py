"""The event types of this plugin: a member came to be known, a member changed."""

from __future__ import annotations

from typing import Any

from hub.contract import EventType
from plugins.members.schema import FIELDS

CREATED = "vn.congdoan.member.created.v1"
UPDATED = "vn.congdoan.member.updated.v1"

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 200}
#: A calendar date as far as the list knows it: the day, the month or only the year.
_DATE: dict[str, Any] = {"type": "string", "pattern": r"^\d{4}(-\d{2}(-\d{2})?)?$"}
_VALUES: dict[str, Any] = {
    "unit_id": {"type": "string", "minLength": 1, "maxLength": 32},
    "full_name": _TEXT,
    "birth_date": _DATE,
    "sex": {"enum": ["male", "female"]},
    "citizen_number": {"type": "string", "pattern": r"^\d{12}$"},
    "phone": {"type": "string", "pattern": r"^\+84\d{9}$"},
    "card_number": _TEXT,
    "position": _TEXT,
    "union_position": _TEXT,
    "union_group": _TEXT,
    "joined_on": _DATE,
    "has_app": {"type": "boolean"},
    "status": {"enum": ["active", "left"]},
}
_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["member_id", "unit_id", "changed", "values"],
    "properties": {
        "member_id": {"type": "string", "description": "Opaque id of the member, the same in every event."},
        "unit_id": {"type": "string", "description": "Code of the union unit after the change."},
        "changed": {"type": "array", "items": {"enum": list(FIELDS)}, "uniqueItems": True},
        "values": {"type": "object", "additionalProperties": False, "properties": _VALUES},
    },
}
_THIN = ("member_id", "unit_id", "changed")
_MEMBER = "5b0e0c5e-6f0a-4a57-9b0e-3f1f1c9a7d21"

EVENT_TYPES = (
    EventType(
        name=CREATED,
        title_vi="Đoàn viên mới",
        title_en="Member created",
        personal=True,
        thin=_THIN,
        schema=_SCHEMA,
        example={
            "member_id": _MEMBER,
            "unit_id": "CDCS-01",
            "changed": ["unit_id", "full_name", "birth_date", "sex", "phone", "has_app"],
            "values": {
                "unit_id": "CDCS-01",
                "full_name": "Nguyễn Thị Mẫu",
                "birth_date": "1985-03-05",
                "sex": "female",
                "phone": "+84912555123",
                "has_app": True,
            },
        },
    ),
    EventType(
        name=UPDATED,
        title_vi="Thông tin đoàn viên thay đổi",
        title_en="Member updated",
        personal=True,
        thin=_THIN,
        schema=_SCHEMA,
        example={
            "member_id": _MEMBER,
            "unit_id": "CDCS-01",
            "changed": ["phone"],
            "values": {"phone": "+84912555124"},
        },
    ),
)
