"""Settings of the connection types ``partner`` (one address of one agency) and ``partners`` (those the API manages)."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from hub.contract import ConnectionSettings, SecretRef
from hub.model import EPOCH
from plugins.partners.content_filter import BadFilter, Filter
from plugins.partners.grants import Grant
from plugins.partners.guard import Guard, Refusal, parse_networks
from plugins.partners.schema import ContentMode

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
TYPE_PATTERN = r"^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*(\.\*)?$"
FIELD_PATTERN = r"^[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}$"
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
MAIL_PATTERN = r"^[^@\s<>,;:\\\"]{1,64}@[A-Za-z0-9.-]{1,190}$"

TypePattern = Annotated[str, Field(pattern=TYPE_PATTERN, max_length=200)]
FieldName = Annotated[str, Field(pattern=FIELD_PATTERN)]


def midnight(day: date) -> datetime:
    """Where a day begins in Vietnam."""
    return datetime(day.year, day.month, day.day, tzinfo=ZONE)


class GrantSettings(BaseModel):
    """One ``[[settings.grants]]``: which fields of which event types may leave, why and until when."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    types: tuple[TypePattern, ...] = Field(min_length=1, max_length=100)
    fields: tuple[FieldName, ...] = Field(min_length=1, max_length=200)
    purpose: str = Field(min_length=1, max_length=500)
    legal_basis: str = Field(min_length=1, max_length=500)
    #: First day, for events that came on it or later; empty: all.
    begins: date | None = None
    #: Last day.
    ends: date | None = None

    def grant(self) -> Grant:
        # Files name days; a grant holds to the end of its last one.
        ends = None if self.ends is None else midnight(date.fromordinal(self.ends.toordinal() + 1))
        return Grant(
            types=self.types,
            fields=self.fields,
            purpose=self.purpose,
            legal_basis=self.legal_basis,
            begins_at=EPOCH if self.begins is None else midnight(self.begins),
            ends_at=ends,
        )


def _networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    parse_networks(texts)
    return texts


def _filter(text: str) -> str:
    if text:
        try:
            Filter(text)
        except BadFilter as error:
            raise ValueError(str(error)) from None
    return text


FilterText = Annotated[str, AfterValidator(_filter)]


class Guarded(ConnectionSettings):
    """What both types let an administrator open."""

    allow_http: bool = Field(
        default=False,
        title="Cho phép http",
        description="Allows plain http beyond loopback, for a network that encrypts below (a VPN, TSLCD).",
    )
    allow_networks: Annotated[tuple[str, ...], AfterValidator(_networks)] = Field(
        default=(),
        max_length=100,
        title="Mạng nội bộ được phép",
        description='Inside networks that may be sent to, such as ["10.1.0.0/16"]; all others are refused.',
    )

    @property
    def guard(self) -> Guard:
        return Guard(parse_networks(self.allow_networks), self.allow_http)


class PartnerSettings(Guarded):
    """One endpoint per connection; an agency with two endpoints has two connections."""

    url: str = Field(
        title="Địa chỉ nhận (URL)",
        description="Where events are posted: https, or http on loopback or with allow_http.",
    )
    secret: SecretRef | None = Field(
        default=None,
        title="Khóa ký",
        description="The signing secret shared with the partner: whsec_ and base64 of at least 24 bytes.",
    )
    previous_secret: SecretRef | None = Field(
        default=None,
        title="Khóa ký cũ",
        description="During a change of keys: signs beside the new secret until the partner has changed over.",
    )
    private_key: SecretRef | None = Field(
        default=None,
        title="Khóa riêng",
        description="whsk_...: signs with Ed25519 (v1a), beside secret or in its place: the partner holds no secret.",
    )
    previous_private_key: SecretRef | None = Field(
        default=None,
        title="Khóa riêng cũ",
        description="During a change of keys: signs beside the new private key.",
    )
    timeout_s: float = Field(
        default=15.0,
        gt=0,
        le=60,
        title="Thời gian chờ tối đa (giây)",
        description="Seconds one try may take in all: name, connection, request and answer.",
    )
    rate_per_s: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        title="Số lượt gửi mỗi giây",
        description="Requests started per second at most, over all nodes; empty for no limit.",
    )
    concurrency: int = Field(
        default=10,
        ge=1,
        le=500,
        title="Số lượt gửi cùng lúc",
        description="Requests under way at once on one node.",
    )
    content_mode: ContentMode = Field(
        default="structured",
        title="Dạng nội dung",
        description=(
            "structured: CloudEvents 1.0 JSON with everything in the body; binary: CloudEvents in headers, data in the"
            " body; webhook: type, timestamp and data."
        ),
    )
    filter: FilterText = Field(
        default="",
        title="Bộ lọc nội dung",
        description="JMESPath over the event (data.unit_id == 'CDCS-01'): what does not match is cancelled (filtered).",
    )
    grants: tuple[GrantSettings, ...] = Field(
        default=(),
        max_length=200,
        title="Quyền xem trường dữ liệu",
        description=(
            "[[settings.grants]] with types, fields, purpose, legal_basis, begins and ends (days): what may leave of"
            " what the subscription names; without any, the subscription alone decides."
        ),
    )
    contact: str = Field(
        default="",
        max_length=254,
        pattern=rf"^$|{MAIL_PATTERN}",
        title="Thư điện tử của đơn vị",
        description="Who is told when the address fails and is switched off, where a connection of type mail exists.",
    )

    @model_validator(mode="after")
    def _can_be_sent_to(self) -> PartnerSettings:
        # Messages never repeat the address: people paste tokens into URLs.
        found = self.guard.look(self.url)
        if isinstance(found, Refusal):
            raise ValueError(f"url: {found}")
        if self.secret is None and self.private_key is None:
            raise ValueError("secret: cần khóa ký (secret) hoặc khóa riêng (private_key) / give secret or private_key")
        return self


class PartnersSettings(Guarded):
    """Partners and endpoints that commands and the API manage; a hub has one such connection."""

    public_url: str = Field(
        default="",
        max_length=500,
        pattern=r"^$|^https?://[^\s?#]+[^\s?#/]$",
        title="Địa chỉ hub mà đối tác thấy",
        description=(
            "Such as https://hub.example.vn. With it events go out thin: the type's thin fields, and dataref, where the"
            " partner's API key reads the rest of what it is granted."
        ),
    )


class MailSettings(ConnectionSettings):
    """A mail relay that tells partners and officers what became of an endpoint."""

    host: str = Field(
        min_length=1, max_length=253, title="Máy chủ thư (SMTP)", description="The relay's name or address."
    )
    port: int = Field(default=587, ge=1, le=65535, title="Cổng", description="587 with starttls, 465 with tls, or 25.")
    security: str = Field(
        default="starttls",
        pattern="^(starttls|tls|none)$",
        title="Mã hóa",
        description="starttls, tls, or none (only on a network that is trusted).",
    )
    user: str = Field(default="", max_length=254, title="Tên đăng nhập", description="Empty: no login.")
    password: SecretRef | None = Field(default=None, title="Mật khẩu", description="Of the login.")
    sender: str = Field(pattern=MAIL_PATTERN, title="Người gửi", description="From address.")
    officers: tuple[Annotated[str, Field(pattern=MAIL_PATTERN)], ...] = Field(
        default=(),
        max_length=20,
        title="Cán bộ cùng nhận",
        description="Get every notice, beside the partner's own contact.",
    )
    timeout_s: float = Field(
        default=15.0, gt=0, le=60, title="Thời gian chờ tối đa (giây)", description="Seconds one mail may take in all."
    )

    @field_validator("password")
    @classmethod
    def _with_a_user(cls, value: SecretRef | None, info: Any) -> SecretRef | None:
        if value is not None and not info.data.get("user"):
            raise ValueError("có password thì phải có user / a password needs a user")
        return value
