"""``unionhub sms template|templates``: texts with gaps, kept version by version."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hub.contract import Command, Guard, Hub, Report, Rest, UnitOfWork
from hub.errors import InputError
from hub.model import Json, to_us

from . import tables
from .shown import time_of
from .templates import fields_of, stray_braces


class Nothing(BaseModel):
    """No parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TemplateParams(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="Name of the template.", json_schema_extra={"argument": True}
    )
    text: str = Field(min_length=1, max_length=2000, description="The text; gaps as {ho_ten}.")
    purpose: Literal["care", "operations", "advertising"] = Field(description="Class of its messages.")


async def add_template(hub: Hub, p: TemplateParams, report: Report) -> Json:
    """A new version where the text differs from the newest; versions never change."""
    refuse_stray_braces(p.text)
    rows = await hub.fetch(tables.TEMPLATE(name=p.name))
    if rows and (rows[0][1], rows[0][2]) == (p.purpose, p.text):
        return _template(p.name, rows[0])
    version = rows[0][0] + 1 if rows else 1
    created = to_us(hub.now())
    added = tables.ADD_TEMPLATE(name=p.name, version=version, purpose=p.purpose, body=p.text, created_at=created)
    await hub.commit(UnitOfWork(guards=[Guard(added)]))
    return _template(p.name, (version, p.purpose, p.text, created))


def _template(name: str, row: tuple[Any, ...]) -> Json:
    return {
        "name": name, "version": row[0], "purpose": row[1], "text": row[2], "fields": list(fields_of(row[2])),
        "created_at": time_of(row[3]),
    }  # fmt: skip


async def templates(hub: Hub, p: Nothing, report: Report) -> Json:
    return {"templates": [_template(row[0], row[1:]) for row in await hub.fetch(tables.TEMPLATES())]}


def refuse_stray_braces(body: str) -> None:
    if stray_braces(body):
        raise InputError(
            "dấu { } chỉ dùng cho chỗ trống như {ho_ten} (chữ thường không dấu, số, gạch dưới)"
            " / { } is for gaps like {full_name} only",
            problem="template-braces",
        )


TEMPLATES = (
    Command(
        group="sms", name="template", params=TemplateParams, run=add_template,
        help_vi="Lưu một mẫu tin; mỗi lần sửa là một phiên bản", help_en="Keep a template; every change is a version",
        rest=Rest(method="PUT", path="/sms/templates/{name}", scope="sms:send"),
    ),
    Command(
        group="sms", name="templates", params=Nothing, run=templates, help_vi="Các mẫu tin và phiên bản",
        help_en="Templates and their versions", writes=False,
        rest=Rest(method="GET", path="/sms/templates", scope="sms:read"),
    ),
)  # fmt: skip
