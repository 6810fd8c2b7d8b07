"""The plugin's event types: an SMS somebody asked for, one text to many members, and an SMS that came in."""

from __future__ import annotations

from typing import Final

from hub.contract import EventType

_PURPOSE: Final = {"enum": ["care", "operations", "advertising", "answer"]}
_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": 2000}
#: Optional, for the rules of ``sms_routes`` alone: which carrier takes it. The name shown is that of its connection.
_ROUTING: Final = {
    "sender": {"type": "string", "minLength": 1, "maxLength": 64},
    "tag": {"type": "string", "minLength": 1, "maxLength": 64},
}
_TEMPLATE: Final = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "required": ["name", "version"],
    "properties": {"name": {"type": "string"}, "version": {"type": "integer", "minimum": 1}},
}

REQUESTED: Final = EventType(
    name="vn.congdoan.sms.requested.v1",
    title_vi="Yêu cầu gửi một tin nhắn SMS",
    title_en="An SMS was asked for",
    personal=True,
    thin=("batch", "purpose", "template", "sender", "tag"),
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["batch", "to", "text", "purpose", "template"],
        "properties": {
            "batch": {"type": "string", "maxLength": 64},
            "to": {"type": "string", "pattern": "^[0-9]{6,15}$"},
            "text": _TEXT,
            "purpose": _PURPOSE,
            "template": _TEMPLATE,
            **_ROUTING,
        },
    },
    example={
        "batch": "hop-thang-12",
        "to": "84912555123",
        "text": "CD Thai Nguyen moi anh Nam hop luc 8h ngay 05/12.",
        "purpose": "operations",
        "template": {"name": "moi-hop", "version": 2},
    },
)
ANNOUNCED: Final = EventType(
    name="vn.congdoan.sms.announced.v1",
    title_vi="Yêu cầu gửi một tin nhắn SMS tới nhiều đoàn viên",
    title_en="One SMS to many members was asked for",
    personal=False,
    thin=("batch", "purpose", "template", "sender", "tag"),
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["batch", "text", "purpose", "template"],
        "properties": {
            "batch": {"type": "string", "maxLength": 64},
            "text": _TEXT,
            "purpose": _PURPOSE,
            "template": _TEMPLATE,
            **_ROUTING,
        },
    },
    example={
        "batch": "ve-xe-tet",
        "text": "CD Thai Nguyen: dang ky ve xe Tet truoc ngay 10/01 tai to cong doan.",
        "purpose": "care",
        "template": None,
    },
)
RECEIVED: Final = EventType(
    name="vn.congdoan.sms.received.v1",
    title_vi="Đã nhận một tin nhắn SMS",
    title_en="An SMS came in",
    personal=True,
    thin=("connection", "to", "keyword", "meaning", "parts", "complete"),
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["connection", "from", "to", "text", "keyword", "meaning", "parts", "complete"],
        "properties": {
            "connection": {"type": "string"},
            "from": {"type": "string", "maxLength": 21},
            "to": {"type": "string", "maxLength": 21},
            "text": {"type": "string"},
            "keyword": {"type": "string", "maxLength": 20},
            "meaning": {"enum": ["", "stop", "wrong_person", "start"]},
            "parts": {"type": "integer", "minimum": 1, "maximum": 255},
            "complete": {"type": "boolean"},
        },
    },
    example={
        "connection": "nha-mang",
        "from": "84912555123",
        "to": "8088",
        "text": "HOI luong thang 13 co dong bao hiem khong",
        "keyword": "HOI",
        "meaning": "",
        "parts": 1,
        "complete": True,
    },
)
