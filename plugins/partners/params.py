"""What the commands of this plugin take, on the command line and as JSON."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from plugins.partners.schema import ContentMode
from plugins.partners.settings import FIELD_PATTERN, MAIL_PATTERN, NAME_PATTERN, TYPE_PATTERN, FilterText


def _split(value: Any) -> Any:
    """The command line gives lists as text: ``a,b``."""
    return [each.strip() for each in value.split(",") if each.strip()] if isinstance(value, str) else value


Types = Annotated[
    tuple[Annotated[str, Field(pattern=TYPE_PATTERN, max_length=200)], ...],
    BeforeValidator(_split),
]
Fields = Annotated[tuple[Annotated[str, Field(pattern=FIELD_PATTERN)], ...], BeforeValidator(_split)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoParams(Params):
    pass


def _argument(what: str, vi: str) -> Any:
    return Field(description=what, title=vi, json_schema_extra={"argument": True})


class OfPartner(Params):
    partner: Name = _argument("The partner's name", "Tên đơn vị đối tác")


class OfEndpoint(OfPartner):
    endpoint: Name = _argument("The endpoint's name", "Tên địa chỉ nhận")


class ListParams(Params):
    limit: int = Field(50, ge=1, le=500, description="At most so many", title="Số dòng tối đa")
    after: str = Field("", max_length=40, description="Partners after this name (next page)", title="Từ sau tên này")


class AddParams(OfPartner):
    title: str = Field("", max_length=200, description="The agency's full name", title="Tên đầy đủ của đơn vị")
    contact: str = Field(
        "", max_length=254, pattern=rf"^$|{MAIL_PATTERN}", description="Mail address that notices go to",
        title="Thư điện tử nhận thông báo",
    )  # fmt: skip


class GrantParams(OfPartner):
    types: Types = Field(
        min_length=1, max_length=100, description="Event types, a,b or with * at the end", title="Loại sự kiện"
    )
    fields: Fields = Field(
        min_length=1, max_length=200, description="Fields that may leave, a,b.c", title="Trường dữ liệu"
    )
    purpose: str = Field(min_length=1, max_length=500, description="What the partner does with it", title="Mục đích")
    legal_basis: str = Field(min_length=1, max_length=500, description="On which legal ground", title="Căn cứ pháp lý")
    begins: date | None = Field(
        None, description="First day, also of events that came before (today if empty)", title="Từ ngày"
    )
    ends: date | None = Field(None, description="Last day (open if empty)", title="Đến hết ngày")


class EndGrantParams(OfPartner):
    grant: str = _argument("The grant's id", "Mã quyền")


class EndpointSettings(Params):
    """What an endpoint keeps beside its address and keys."""

    mode: ContentMode = "structured"
    filter: FilterText = ""
    timeout_s: float = Field(15.0, gt=0, le=60)
    concurrency: int = Field(10, ge=1, le=500)
    rate_per_s: float | None = Field(None, gt=0, le=10_000)
    #: None: as soon as there is an address to refer to.
    detail: Literal["thin", "full"] | None = None


class EndpointParams(OfEndpoint):
    url: str = Field(max_length=2000, description="Where events are posted", title="Địa chỉ nhận (URL)")
    types: Types = Field(
        ("vn.congdoan.*",),
        min_length=1,
        max_length=100,
        description="Of the granted event types, a,b",
        title="Loại sự kiện",
    )
    mode: ContentMode = Field("structured", description="How events are written", title="Dạng nội dung")
    filter: FilterText = Field("", description="JMESPath over the event; empty: all", title="Bộ lọc nội dung")
    timeout_s: float = Field(15.0, gt=0, le=60, description="Seconds one try may take", title="Thời gian chờ (giây)")
    concurrency: int = Field(10, ge=1, le=500, description="Requests at once on a node", title="Số lượt cùng lúc")
    rate_per_s: float | None = Field(None, gt=0, le=10_000, description="Requests a second", title="Số lượt mỗi giây")
    detail: Literal["thin", "full"] | None = Field(
        None, description="thin: a reference to the rest (with public_url)", title="Gửi gọn hoặc đủ"
    )
    asymmetric: bool = Field(
        False, description="Sign with Ed25519 (v1a): the partner holds no secret", title="Ký bằng Ed25519 (v1a)"
    )


class ChangeParams(OfEndpoint):
    url: str | None = Field(None, max_length=2000, description="The new address", title="Địa chỉ mới")
    types: Types | None = Field(None, max_length=100, description="Other event types, a,b", title="Loại sự kiện")
    mode: ContentMode | None = Field(None, description="How events are written", title="Dạng nội dung")
    filter: FilterText | None = Field(None, description="JMESPath over the event", title="Bộ lọc nội dung")
    timeout_s: float | None = Field(
        None, gt=0, le=60, description="Seconds one try may take", title="Thời gian chờ (giây)"
    )
    concurrency: int | None = Field(
        None, ge=1, le=500, description="Requests at once on a node", title="Số lượt cùng lúc"
    )
    rate_per_s: float | None = Field(None, gt=0, le=10_000, description="Requests a second", title="Số lượt mỗi giây")
    detail: Literal["thin", "full"] | None = Field(
        None, description="thin: a reference to the rest", title="Gửi gọn hoặc đủ"
    )


class EventParams(OfPartner):
    event: UUID = _argument("The event's id", "Mã sự kiện")


class RotateParams(OfEndpoint):
    overlap_hours: int = Field(
        24,
        ge=0,
        le=720,
        description="How long the old key signs beside the new one",
        title="Số giờ ký bằng cả hai khóa",
    )


#: A test event that is none of the catalogue's.
TEST_TYPE = "vn.congdoan.endpoint.tested.v1"


class TestParams(OfEndpoint):
    __test__ = False  # its name is no test's
    type: str = Field(
        TEST_TYPE, max_length=200, description="A granted event type: its example is sent", title="Loại sự kiện"
    )


class FilterParams(OfPartner):
    filter: str = Field(min_length=1, max_length=200, description="JMESPath over the event", title="Bộ lọc nội dung")
    types: Types = Field(
        ("vn.congdoan.*",),
        min_length=1,
        max_length=100,
        description="Only these event types, a,b",
        title="Loại sự kiện",
    )


class ExamParams(Params):
    url: str = _argument("The receiver's address", "Địa chỉ của bên nhận")
    secret_file: Path = Field(
        description="File with the secret the receiver verifies with (whsec_...)", title="Tệp chứa khóa ký của bên nhận"
    )


class DoctorParams(Params):
    headers_file: Path = Field(description="File with the request's headers, one a line", title="Tệp tiêu đề yêu cầu")
    body_file: Path = Field(description="File with the body as the receiver saw it", title="Tệp nội dung đã nhận")
    secret_file: Path = Field(description="File with the secret (whsec_... or whpk_...)", title="Tệp khóa")
    sent_body_file: Path | None = Field(
        None, description="File with the body as it was sent, where it is known", title="Tệp nội dung lúc gửi"
    )
    computed: str = Field(
        "", max_length=200, description="The signature the receiver worked out itself", title="Chữ ký bên nhận tự tính"
    )
