"""Which carriers may take a message, and in which order: ordered rules, pure functions of the message."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hub.contract import ConnectionSettings

from .numbers import NETWORKS
from .rules import Purpose

_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"


class Share(BaseModel):
    """A carrier of a rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    connection: str = Field(pattern=_NAME, description="Name of the carrier's connection.")
    weight: int = Field(1, ge=0, le=1000, description="Its part of the messages; 0: only while no other is fit.")
    receipts: bool = Field(True, description="False where the carrier gives none: then their absence says nothing.")


class RouteRule(BaseModel):
    """A message that fits everything said here goes to one of these carriers; what is not said fits all."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(pattern=_NAME)
    purposes: tuple[Purpose, ...] = ()
    networks: tuple[str, ...] = Field((), description="Today's network of the phone, as receipts corrected it.")
    prefixes: tuple[str, ...] = Field((), description="First digits of the phone with its country: 8491.")
    senders: tuple[str, ...] = Field((), description="The event's `sender`; a star at the end stands for any rest.")
    tags: tuple[str, ...] = Field((), description="The event's `tag`, else `batch`; a star at the end for any rest.")
    carriers: tuple[Share, ...] = Field(min_length=1)

    @field_validator("networks")
    @classmethod
    def _are_known(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(networks) - set(NETWORKS):
            raise ValueError(f"networks: {', '.join(sorted(unknown))} is none of {', '.join(NETWORKS)}")
        return networks

    @field_validator("carriers")
    @classmethod
    def _are_different(cls, carriers: tuple[Share, ...]) -> tuple[Share, ...]:
        if len({share.connection for share in carriers}) < len(carriers):
            raise ValueError("carriers: each connection once")
        return carriers

    @property
    def takes_everything(self) -> bool:
        return not (self.purposes or self.networks or self.prefixes or self.senders or self.tags)


class RoutesSettings(ConnectionSettings):
    """A choice between carriers. Subscriptions name this connection instead of a carrier's."""

    rules: tuple[RouteRule, ...] = Field(
        min_length=1,
        title="Quy tắc chọn nhà mạng",
        description="Asked in this order, the first that fits counts; the last one has to fit every message.",
    )
    text_field: str = Field(
        "text", title="Trường chứa nội dung tin", description="Where in the event's data the text is; dots go deeper."
    )
    ahead_s: float = Field(
        5.0,
        gt=0,
        le=60,
        title="Giao trước cho nhà mạng (giây)",
        description="No more waits at a carrier than it takes in so long: an urgent message overtakes the rest, and "
        "little has to come back when a carrier fails.",
    )
    slow_after_s: float = Field(
        15.0,
        gt=0,
        le=600,
        title="Coi là chậm sau (giây)",
        description="A message that could be sent waited so long at the carrier: the carrier is slow.",
    )
    failed_share: float = Field(
        0.5,
        gt=0,
        le=1,
        title="Tỷ lệ hỏng",
        description="Of a minute's messages so many ended dead or unknown: the carrier fails.",
    )
    receipt_late_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        title="Báo nhận coi là muộn sau (giây)",
        description="What was taken this long ago should have been reported.",
    )
    receipt_share: float = Field(
        0.5,
        ge=0,
        le=1,
        title="Tỷ lệ báo nhận ít nhất",
        description="Fewer reports than this share of what was taken: receipts are missing. 0: not looked at.",
    )
    judged_least: int = Field(
        20, ge=1, title="Số tin ít nhất để xét", description="Fewer messages in a minute say nothing about shares."
    )
    suspect_s: float = Field(
        10.0,
        ge=0,
        le=300,
        title="Theo dõi trước khi đổi (giây)",
        description="Trouble has to last so long before messages go elsewhere; an outage that is certain counts at "
        "once.",
    )
    rest_min: float = Field(
        30.0,
        ge=0,
        le=1440,
        title="Nghỉ trước khi dùng lại (phút)",
        description="A carrier that failed is not used again sooner, so that messages do not go to and fro.",
    )

    @model_validator(mode="after")
    def _ends_somewhere(self) -> Self:
        if not self.rules[-1].takes_everything:
            raise ValueError("rules: the last rule must name carriers only, so that every message has a way")
        if len({rule.name for rule in self.rules}) < len(self.rules):
            raise ValueError("rules: each name once")
        return self

    def carriers(self) -> dict[str, Share]:
        """Every carrier of the rules by connection."""
        return {share.connection: share for rule in reversed(self.rules) for share in rule.carriers}

    def others_of(self, connection: str) -> int:
        """How many more carriers a message that tried this one can be tried at."""
        return max(len(r.carriers) - 1 for r in self.rules if connection in {s.connection for s in r.carriers})


@dataclass(frozen=True, slots=True)
class Traits:
    """What rules ask of a message."""

    purpose: str
    network: str
    msisdn: str
    sender: str = ""
    tag: str = ""


def rule_for(rules: Sequence[RouteRule], message: Traits) -> RouteRule:
    return next(rule for rule in rules if _fits(rule, message))


def _fits(rule: RouteRule, message: Traits) -> bool:
    return (
        (not rule.purposes or message.purpose in rule.purposes)
        and (not rule.networks or message.network in rule.networks)
        and (not rule.prefixes or message.msisdn.startswith(rule.prefixes))
        and (not rule.senders or _is_among(message.sender, rule.senders))
        and (not rule.tags or _is_among(message.tag, rule.tags))
    )


def _is_among(word: str, patterns: Collection[str]) -> bool:
    return any(word.startswith(p[:-1]) if p.endswith("*") else word == p for p in patterns)


def in_order(carriers: Sequence[Share], message: bytes, try_no: int) -> list[str]:
    """Weighted ones as their weights share messages out, then those of weight 0 as they stand in the file.

    By highest random weight over the message's id: every node answers the same, nobody keeps count, and when one
    carrier leaves only its own messages move. A later try begins with another carrier.
    """
    weighted = sorted((share for share in carriers if share.weight), key=lambda share: _score(share, message))
    turn = (try_no - 1) % len(weighted) if weighted else 0
    ranked = weighted[turn:] + weighted[:turn] + [share for share in carriers if not share.weight]
    return [share.connection for share in ranked]


def _score(share: Share, message: bytes) -> float:
    digest = hashlib.blake2b(message + share.connection.encode(), digest_size=8).digest()
    return -math.log((int.from_bytes(digest) + 1) / (2**64 + 1)) / share.weight
