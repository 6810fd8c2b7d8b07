"""The announcement event, and how a campaign becomes a draft."""

from __future__ import annotations

from datetime import datetime

from hub.contract import EventType
from hub.model import Audience, Draft, Json, Priority

ANNOUNCED = EventType(
    name="vn.congdoan.campaign.announced.v1",
    title_vi="Đã mở một đợt gửi tin",
    title_en="A campaign was announced",
    personal=False,
    thin=("campaign_id",),
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["campaign_id", "purpose", "title", "text", "channels", "selector"],
        "properties": {
            "campaign_id": {"type": "string", "minLength": 1, "maxLength": 64},
            "purpose": {"enum": ["care", "operations"]},
            "title": {"type": "string", "minLength": 1, "maxLength": 120},
            "text": {"type": "string", "minLength": 1, "maxLength": 2000},
            "channels": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "selector": {"type": "object"},
        },
    },
    example={
        "campaign_id": "tet-2027",
        "purpose": "care",
        "title": "Tết sum vầy 2027",
        "text": "Công đoàn Thái Nguyên mời đoàn viên đăng ký vé xe Tết trước ngày 10/01/2027.",
        "channels": ["app", "phone"],
        "selector": {"unit": "CDCS-01"},
    },
)


def announcement(
    campaign_id: str,
    title: str,
    text: str,
    *,
    channels: tuple[str, ...],
    purpose: str,
    selector: Json,
    expires_at: datetime | None,
) -> Draft:
    """The same campaign id with the same content is one campaign, however often it is announced."""
    return Draft(
        type=ANNOUNCED.name,
        source="/campaigns",
        dedupe_key=campaign_id,
        data={
            "campaign_id": campaign_id,
            "purpose": purpose,
            "title": title,
            "text": text,
            "channels": list(channels),
            "selector": selector,
        },
        audience=Audience(selector, channels, purpose),
        priority=Priority.BULK,
        expires_at=expires_at,
    )
