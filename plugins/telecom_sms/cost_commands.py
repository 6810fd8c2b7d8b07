"""What sendings cost: ``unionhub sms costs``, and what a budget needs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from hub.contract import Command, Hub, Report, Rest
from hub.errors import InputError, NotFound
from hub.model import Json, to_us

from . import tables
from .rules import ZONE


class CostsParams(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(None, description="Only this sending.", pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    first: AwareDatetime | None = Field(None, alias="from", description="From this time on (RFC 3339).")
    behind: AwareDatetime | None = Field(None, alias="until", description="Before this time (RFC 3339).")


async def row_of(hub: Hub, name: str) -> tuple[Any, ...]:
    rows = await hub.fetch(tables.BATCH(name=name))
    if not rows:
        raise NotFound(f"không có đợt gửi tin '{name}' / no sending '{name}'")
    return rows[0]


def can_be_counted(budget: int | None, dong: int | None) -> None:
    if budget is not None and dong is None:
        raise InputError(
            "chưa có đơn giá nên không giữ được hạn mức; chưa gửi gì, hãy ghi prices vào tệp kết nối"
            " / without prices no budget can be kept; nothing was sent, write prices into the connection's file",
            problem="no-prices",
            status=422,
        )


async def costs(hub: Hub, p: CostsParams, report: Report) -> Json:
    """Of what carriers took or may have taken: what the bill can be at most."""
    if p.name is not None:
        rows = await hub.fetch(tables.COSTS_OF_BATCH(campaign=(await row_of(hub, p.name))[0]))
    else:
        first = p.first or datetime(2020, 1, 1, tzinfo=ZONE)
        rows = await hub.fetch(tables.COSTS(first=to_us(first), behind=to_us(p.behind or hub.now()) + 1))
    lines = [cost_of(row) for row in rows]
    return {
        "costs": lines,
        "messages": sum(line["messages"] for line in lines),
        "segments": sum(line["segments"] for line in lines),
        "dong": sum(line["dong"] for line in lines),
    }


def cost_of(row: tuple[Any, ...]) -> Json:
    names = ("connection", "network", "unit", "purpose", "messages", "segments", "dong")
    return dict(zip(names, (*row[:4], *map(int, row[4:])), strict=True))


COSTS = (
    Command(
        group="sms", name="costs", params=CostsParams, run=costs, writes=False,
        help_vi="Chi phí theo kết nối, mạng, đơn vị và loại tin",
        help_en="Cost by connection, network, unit and class",
        rest=Rest(method="GET", path="/sms/costs", scope="sms:read"),
    ),
)  # fmt: skip
