"""``unionhub subjects ...``: erasing a person, and who was erased on whose word."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hub import erasure
from hub.app import HubApp
from hub.contract import Command, Hub, Report
from hub.errors import InputError
from hub.model import Json
from hub.views import show_time

#: A phone or a citizen number; a reason is kept readable for ever.
_LONG_NUMBER = re.compile(r"\+?[0-9](?:[ .-]?[0-9]){8,}")


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Erase(BaseModel):
    model_config = ConfigDict(extra="forbid")
    subject: str = Field(
        min_length=1, max_length=200, description="Id of the person, as events list says it.",
        json_schema_extra={"argument": True},
    )  # fmt: skip
    reason: str = Field(
        min_length=3, max_length=200, description="Number and date of the request; no name, phone or citizen number."
    )
    confirm: str | None = Field(
        None, max_length=200, description="The same id once more: it cannot be undone. Without it things are counted."
    )

    @field_validator("reason")
    @classmethod
    def _not_about_the_person(cls, reason: str) -> str:
        if _LONG_NUMBER.search(reason):
            raise ValueError("không ghi số điện thoại hay số định danh / no phone and no citizen number")
        return reason


def _app(hub: Hub) -> HubApp:
    assert isinstance(hub, HubApp)
    return hub


def list_folders(app: HubApp) -> list[Path]:
    """Where the ids of destroyed keys are written: beside the ledger and beside the backups."""
    config = app.config
    backups = config.folder.parent / config.hub.backup.folder
    return [config.var_dir, *([backups] if backups.is_dir() else [])]


async def _erase(hub: Hub, p: Erase, report: Report) -> Json:
    app = _app(hub)
    there = await erasure.found(app.store, p.subject)
    if p.confirm is None:
        return {**there, "next": f"--confirm {p.subject}"}
    if p.confirm != p.subject:
        raise InputError(
            "--confirm phải là đúng mã ấy; chưa xóa gì / --confirm must be that very id; nothing was erased", status=400
        )
    cancelled = await app.erase(p.subject, p.reason)
    ids = [id for id, *_ in await erasure.listed(app.store)]
    for folder in list_folders(app):
        await asyncio.to_thread(app.keep_erased, folder, ids)
    return {"subject": p.subject, "erased": True, "cancelled": cancelled, "under_way": there["under_way"]}


async def _erased(hub: Hub, p: Nothing, report: Report) -> Json:
    return {
        "erased": [
            {"subject": subject, "at": show_time(at), "by": who, "reason": reason}
            for _, subject, at, who, reason in await erasure.listed(_app(hub).store)
        ]
    }


def _say(answer: Json, lang: str) -> str:
    english = lang == "en"
    if "next" in answer:
        counts = [answer[name] for name in ("events", "would_cancel", "under_way")]
        if english:
            said = "Nothing was erased yet. {} events about this person; {} deliveries to cancel, {} are under way."
            again = "It cannot be undone, not even from a backup. To erase:"
        else:
            said = "Chưa xóa gì. {} sự kiện về người này; {} lượt gửi sẽ bị hủy, {} lượt đang gửi dở."
            again = "Không lấy lại được, kể cả từ bản sao lưu. Muốn xóa thì thêm:"
        return f"{said.format(*counts)}\n{again} {answer['next']}"
    if english:
        return (
            f"Erased {answer['subject']}: nobody can read this person's data any more. {answer['cancelled']} deliveries"
            " were cancelled.\nThe file erased-keys beside the backups belongs to them: keep it with every copy."
        )
    return (
        f"Đã xóa {answer['subject']}: không ai đọc được dữ liệu của người này nữa. Đã hủy {answer['cancelled']} lượt"
        " gửi.\nTệp erased-keys cạnh các bản sao lưu thuộc về chúng: cất cùng mọi bản chép."
    )


COMMANDS: tuple[Command, ...] = (
    Command(
        group="subjects", name="erase", params=Erase, run=_erase, render=_say,
        help_vi="Xóa vĩnh viễn dữ liệu của một người; đếm trước", help_en="Erase a person for good; counts first",
    ),
    Command(
        group="subjects", name="erased", params=Nothing, run=_erased, writes=False,
        help_vi="Ai đã được xóa, lúc nào, theo yêu cầu nào", help_en="Who was erased, when, and on which request",
    ),
)  # fmt: skip
