"""``unionhub campaigns announce``: opens a campaign; the hub owes each person their delivery by itself."""

from __future__ import annotations

import unicodedata
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hub.contract import Command, Hub, Report, UnitOfWork
from hub.model import Json
from plugins.campaigns.schema import announcement


class Announce(BaseModel):
    """What a campaign needs."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
        description="Name of the campaign, a-z 0-9 and -; announcing it again changes nothing.",
        json_schema_extra={"argument": True},
    )
    title: str = Field(min_length=1, max_length=120, description="Title, shown where the channel has one.")
    text: str = Field(min_length=1, max_length=2000, description="The text people read.")
    channels: str = Field("app,phone", pattern=r"^[a-z]+(,[a-z]+)*$", description="In order of preference.")
    purpose: Literal["care", "operations"] = Field("care", description="Why people are written to.")
    unit: str | None = Field(None, description="Only members of this unit.")
    expires_hours: int = Field(24, ge=1, le=720, description="Not sent any more after so many hours.")

    @field_validator("title", "text")
    @classmethod
    def _composed(cls, value: str) -> str:
        return unicodedata.normalize("NFC", value.strip())


async def announce(hub: Hub, p: Announce, report: Report) -> Json:
    draft = announcement(
        p.id,
        p.title,
        p.text,
        channels=tuple(p.channels.split(",")),
        purpose=p.purpose,
        selector={"unit": p.unit} if p.unit else {},
        expires_at=hub.now() + timedelta(hours=p.expires_hours),
    )
    committed = await hub.commit(UnitOfWork(drafts=[draft]))
    return {"campaign": p.id, "event": str(committed.events[0]), "repeated": committed.repeated[0]}


COMMANDS = (
    Command(
        group="campaigns",
        name="announce",
        params=Announce,
        run=announce,
        help_vi="Mở một đợt gửi tin tới đoàn viên",
        help_en="Open a campaign to members",
    ),
)
