"""The event a message becomes where no other type is configured, and how fields are found in a body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.contract import EventType
from hub.errors import NotUnderstood
from hub.model import Json

RECEIVED = "vn.congdoan.inbound.received.v1"
EVENT_TYPES = (
    EventType(
        name=RECEIVED,
        title_vi="Đã nhận một tin từ nguồn gửi đến",
        title_en="A message of a source was received",
        # Nobody knows what a source writes there.
        personal=True,
        thin=("connection",),
        schema={
            "type": "object",
            "required": ["connection"],
            "properties": {
                "connection": {"type": "string", "description": "Name of the connection it came through"},
                "body": {"description": "The message as it was sent, where no fields are configured"},
            },
        },
        example={"connection": "cong-dich-vu-cong", "body": {"ma_ho_so": "HS-2026-00123", "trang_thai": "da_tra"}},
    ),
)

_ABSENT = object()


def at(body: Any, path: str) -> Any:
    """What stands at a dotted path ("order.lines.0.id"), or ``_ABSENT``."""
    found = body
    for part in path.split("."):
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isascii() and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return _ABSENT
    return found


def text_at(body: Any, path: str) -> str:
    """An id: text or a whole number of at most 200 characters. Raises ``NotUnderstood``."""
    found = at(body, path)
    if isinstance(found, bool) or not isinstance(found, str | int) or not 0 < len(str(found)) <= 200:
        raise NotUnderstood
    return str(found)


def data_of(body: Any, fields: Mapping[str, str], event_type: str, connection: str) -> Json:
    """The content of the event: the configured fields, or the whole body. Raises ``NotUnderstood``."""
    mine: Json = {"connection": connection} if event_type == RECEIVED else {}
    if not fields:
        if mine:
            return {**mine, "body": body}
        if not isinstance(body, dict):
            raise NotUnderstood
        return dict(body)
    found = {name: value for name, path in fields.items() if (value := at(body, path)) is not _ABSENT}
    if not found:
        raise NotUnderstood
    return mine | found
