"""``unionhub sms carriers``: how each carrier is doing, and its part of the messages."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from hub.contract import Command, Hub, Report, Rest
from hub.model import Json, to_us

from . import tables
from .numbers import NETWORKS
from .routes import RoutesSettings
from .rules import PURPOSES
from .settings import SendingSettings
from .shown import time_of

_REASONS = {
    "": ("đang dùng", "in use"),
    "paused": ("đang dừng, cần người xử lý", "paused, needs a person"),
    "breaker_open": ("lỗi liên tiếp", "repeated failures"),
    "slow": ("chậm", "slow"),
    "failing": ("nhiều tin hỏng", "many messages fail"),
    "no_receipts": ("thiếu báo nhận", "receipts are missing"),
}


class NoParams(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


async def carriers(hub: Hub, p: NoParams, report: Report) -> Json:
    """The carriers' connections: how each is doing, its part of the messages, and what holds there today."""
    now = hub.now()
    accounts = hub.settings_of(SendingSettings)
    choices = hub.settings_of(RoutesSettings)
    standings = await hub.standings(sorted(accounts))
    taken = {n: int(m) for n, m in await hub.fetch(tables.TAKEN_SINCE(since=to_us(now - timedelta(hours=1))))}
    verdicts = {
        (choice, row[0]): row[1:] for choice in choices for row in await hub.fetch(tables.CARRIERS(route=choice))
    }
    lines = []
    for name, settings in sorted(accounts.items()):
        there = standings.get(name)
        lines.append(
            {
                "connection": name,
                "sender": settings.sender,
                "rate_per_s": settings.rate_per_s,
                "waiting": 0 if there is None else there.open,
                "blocked": "" if there is None else there.blocked,
                "last_hour": taken.get(name, 0),
                "share": round(taken.get(name, 0) / max(1, sum(taken.values())), 3),
                "routes": [
                    _route(choice, weights, *verdicts.get((choice, name), ("", 0, 0)))
                    for choice, each in choices.items()
                    if (weights := _weights(each, name))
                ],
                "rules": [_rule(settings, purpose, now) for purpose in PURPOSES],
                "prices": _prices(settings, now),
            }
        )
    return {"carriers": lines}


def _weights(settings: RoutesSettings, name: str) -> dict[str, int]:
    return {
        rule.name: share.weight for rule in settings.rules for share in rule.carriers if share.connection == name
    }  # fmt: skip


def _route(choice: str, weights: dict[str, int], reason: str, since: int, until: int) -> Json:
    return {
        "via": choice,
        "weights": weights,
        "fit": not reason,
        "reason": reason,
        "since": time_of(since) if reason else None,
        "until": time_of(until) if reason else None,
    }


def _rule(settings: SendingSettings, purpose: str, now: datetime) -> Json:
    rule = settings.rule(purpose, now)
    return {"purpose": purpose, "rule": None} if rule is None else rule.model_dump(mode="json")


def _prices(settings: SendingSettings, now: datetime) -> list[Json]:
    return [
        {"network": network, "purpose": purpose, "dong": price.dong, "since": price.since.isoformat(),
         "source": price.source}
        for network in NETWORKS
        for purpose in PURPOSES
        if (price := settings.price(network, purpose, now)) is not None
    ]  # fmt: skip


def render_carriers(answer: Json, lang: str) -> str:
    which = 1 if lang == "en" else 0
    lines = []
    for each in answer["carriers"]:
        lines.append(
            f"{each['connection']} ({each['sender']}): {('đang chờ', 'waiting')[which]} {each['waiting']}, "
            f"{('một giờ qua', 'last hour')[which]} {each['last_hour']} {('tin', 'messages')[which]} "
            f"({each['share']:.0%})"
        )
        for route in each["routes"]:
            state = _REASONS.get(route["reason"], (route["reason"], route["reason"]))[which]
            if route["until"] and route["reason"] != "paused":
                state += f", {('nghỉ tới', 'rests until')[which]} {route['until'][11:16]}"
            weights = ", ".join(f"{rule} {weight}" for rule, weight in route["weights"].items())
            lines.append(f"  {route['via']}: {state} ({weights})")
    return "\n".join(lines) or ("chưa có kết nối SMS nào", "no SMS connection")[which]


ROUTES = (
    Command(
        group="sms", name="carriers", params=NoParams, run=carriers, writes=False, render=render_carriers,
        help_vi="Từng nhà mạng: đang ra sao, nhận bao nhiêu phần tin, quy định và đơn giá",
        help_en="How each carrier is doing, its part of the messages, rules and prices",
        rest=Rest(method="GET", path="/sms/carriers", scope="sms:read"),
    ),
)  # fmt: skip
