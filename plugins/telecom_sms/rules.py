"""What law, contract and decency say of sending: figures with a date and a source, all of them settings.

Source of the defaults: Decree 91/2020/ND-CP in force since 1 October 2020, as the press summed it up (articles 13 and
16; nobody here read the decree itself); where no law speaks, the union's own choice, marked so.
"""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Final, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hub.contract import ConnectionSettings

from .numbers import NETWORKS

Purpose = Literal["care", "operations", "advertising", "answer"]
#: What people can be sent; ``answer`` is the hub's own word to somebody who has just written.
PURPOSES: Final[tuple[Purpose, ...]] = ("care", "operations", "advertising")
ANSWER: Final = "answer"
#: The law's hours are those on the wall of whoever reads.
ZONE: Final = ZoneInfo("Asia/Ho_Chi_Minh")
_DECREE: Final = "Nghị định 91/2020/NĐ-CP, Điều 13 (theo báo chí / as reported)"
_CHOICE: Final = "Công đoàn tự chọn, không do luật định / the union's own choice"
_SINCE: Final = date(2020, 10, 1)


class _Dated(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    since: date = Field(description="In force from this day on.")
    source: str = Field(min_length=1, max_length=200, description="Where the figures are from.")


_D = TypeVar("_D", bound=_Dated)


class ClassRule(_Dated):
    """What holds for one class of messages from a day on."""

    purpose: Purpose
    hours_from: time = Field(description="Nothing earlier, local time.")
    hours_to: time = Field(description="Nothing later, local time.")
    #: Quiet hours of this class may be set aside for one sending, with a reason that is kept.
    override: bool = True
    per_day: int | None = Field(None, ge=1, description="Messages of the class to one number in 24 hours.")
    label: str = Field("", description="What such a text has to begin with.")
    brandname: bool = Field(False, description="Only under a brandname, never from an ordinary number.")
    consent: bool = Field(False, description="Only to numbers whose consent is on record.")
    do_not_call: bool = Field(False, description="Never to a number on the Do-Not-Call list.")
    max_segments: int = Field(10, ge=1, le=10)
    #: Letters the carrier writes behind such a text by itself (122 of 160 are left).
    added_units: int = Field(0, ge=0, le=100)

    @model_validator(mode="after")
    def _opens_before_it_closes(self) -> ClassRule:
        if self.hours_from >= self.hours_to:
            raise ValueError("hours_from must be before hours_to")
        return self


class Price(_Dated):
    """What one segment costs from a day on."""

    network: str = Field("*", description='"viettel", "mobifone", ... or "*" for all others.')
    purpose: Purpose | None = Field(None, description="Only this class; by default every one.")
    dong: int = Field(ge=0, le=100_000, description="Đồng per segment, tax as the contract says.")

    @field_validator("network")
    @classmethod
    def _is_known(cls, network: str) -> str:
        if network not in (*NETWORKS, "*"):
            raise ValueError(f"network: one of {', '.join(NETWORKS)} or *")
        return network


class RegisteredText(_Dated):
    """A text the carrier has on file for the brandname; ``{...}`` stands for what changes."""

    purpose: Purpose
    text: str = Field(min_length=1, max_length=2000)


RULES: Final = (
    ClassRule(
        purpose="care", since=_SINCE, source=_CHOICE, hours_from=time(7), hours_to=time(22), max_segments=10,
    ),
    ClassRule(
        purpose="operations", since=_SINCE, source=_CHOICE, hours_from=time(6), hours_to=time(22, 30),
    ),
    ClassRule(
        purpose="advertising", since=_SINCE, source=_DECREE, hours_from=time(7), hours_to=time(22), override=False,
        per_day=3, label="[QC]", brandname=True, consent=True, do_not_call=True, max_segments=3, added_units=38,
    ),
    # A refusal has to be confirmed at once, at any hour, and only who refused within a day gets such an answer.
    ClassRule(
        purpose="answer",
        since=_SINCE,
        source="Nghị định 91/2020/NĐ-CP, Điều 16 (theo báo chí / as reported)",
        hours_from=time(0),
        hours_to=time(23, 59),
        max_segments=1,
    ),
)  # fmt: skip


class RulesSettings(ConnectionSettings):
    """What has to be true before a message may leave; every figure dated and with its source."""

    rules: tuple[ClassRule, ...] = Field(
        (),
        title="Quy định theo loại tin",
        description="Per class (care, operations, advertising): hours, label, limits, consent; the latest `since` that"
        " has come counts. A class with entries here has only these, the others those the plugin ships.",
    )
    default_purpose: Purpose = Field(
        "care", title="Loại tin khi sự kiện không nói", description="The class of messages whose event names none."
    )
    quiet_hours: bool = Field(
        True,
        title="Giữ giờ yên lặng",
        description="Off for simulators and demonstrations only: refused where the carrier is not on this machine.",
    )
    quiet_margin_min: int = Field(
        5, ge=0, le=60, title="Khoảng đệm trước giờ yên lặng (phút)", description="Nothing is begun so shortly before."
    )
    prices: tuple[Price, ...] = Field(
        (), title="Đơn giá", description="Per network and class, by contract; without one, costs are not shown."
    )
    registered_texts: tuple[RegisteredText, ...] = Field(
        (),
        title="Mẫu tin đã đăng ký với nhà mạng",
        description="If there are any for a class, a text of it must fit one, compared without diacritics.",
    )
    countries: tuple[str, ...] = Field(
        ("VN",), title="Nước được gửi tới", description="ISO codes of the countries whose mobile numbers are reached."
    )
    only_to: tuple[str, ...] = Field(
        (), title="Chỉ gửi tới các số này", description="For trying out: others are cancelled with not_on_list."
    )
    per_number_hour: int | None = Field(
        5, ge=1, title="Số tin mỗi giờ tới một số", description="More are held; none for no limit."
    )
    per_prefix_hour: int | None = Field(
        None, ge=1, title="Số tin mỗi giờ tới một dải 10.000 số", description="More are held; none for no limit."
    )
    stop_words: tuple[str, ...] = Field(
        ("TU CHOI", "HUY", "STOP"),
        title="Từ khóa từ chối nhận",
        description="A reply of just these words, with or without diacritics, then at will QC, CSKH or DH.",
    )
    wrong_person_words: tuple[str, ...] = Field(
        ("SAI", "SAI SO", "SAI NGUOI", "NHAM SO"),
        title="Từ khóa báo nhầm người",
        description="A reply of just these words: nothing is sent to this number any more.",
    )
    start_words: tuple[str, ...] = Field(
        ("DONG Y", "NHAN LAI"),
        title="Từ khóa nhận lại",
        description="A reply of just these words takes the refusal back; with QC it consents to advertising.",
    )
    stop_answer: str = Field(
        "{sender}: da ghi nhan, tu nay khong nhan tin {what} toi so nay. Nhan lai: soan DONG Y.",
        max_length=160,
        title="Tin xác nhận từ chối",
        description="Sent once; {sender} and {what} are filled in. Empty for none.",
    )
    inbound_repeat_s: int = Field(
        300,
        ge=0,
        le=86_400,
        title="Tin đến trùng (giây)",
        description="The same text from the same phone within so long is one: carriers repeat what was not answered.",
    )

    def rule(self, purpose: str, at: datetime) -> ClassRule | None:
        """What holds for a class; None for a class nobody knows, or before its first rule."""
        own = [rule for rule in self.rules if rule.purpose == purpose]
        return _in_force(own or [rule for rule in RULES if rule.purpose == purpose], at)

    def price(self, network: str, purpose: str, at: datetime) -> Price | None:
        """The most exact price: of the network before "*", of the class before all."""
        if not self.prices:
            return None
        fitting = [p for p in self.prices if p.network in (network, "*") and p.purpose in (purpose, None)]
        ranked = sorted(fitting, key=lambda p: (p.network != "*", p.purpose is not None))
        while ranked:
            best = ranked[-1]
            found = _in_force([p for p in ranked if (p.network, p.purpose) == (best.network, best.purpose)], at)
            if found is not None:
                return found
            ranked = [p for p in ranked if (p.network, p.purpose) != (best.network, best.purpose)]
        return None


def _in_force(entries: list[_D], at: datetime) -> _D | None:
    day = at.astimezone(ZONE).date()
    return max((e for e in entries if e.since <= day), key=lambda e: e.since, default=None)
