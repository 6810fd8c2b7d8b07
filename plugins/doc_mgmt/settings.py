"""Settings of a connection to the document axis."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from hub.contract import ConnectionSettings, SecretRef


class DocAxisSettings(ConnectionSettings):
    """Trục liên thông văn bản: one account of one organisation."""

    endpoint: str = Field(
        title="Địa chỉ trục",
        description="Base URL of the axis service, without the call's name; https, or http on this machine.",
        examples=["http://127.0.0.1:8401"],
    )
    system_id: str = Field(
        title="Mã hệ thống",
        description="System id the axis operator gave this organisation.",
        min_length=1,
        max_length=100,
        pattern=r"^[\x21-\x7e]+$",
    )
    secret: SecretRef = Field(
        title="Khóa bí mật", description="Where the key that signs each call is kept; never the key itself."
    )
    organ_id: str = Field(
        title="Mã định danh đơn vị",
        description="Our own organisation code, written as the sender of status packets (QCVN 102 or QĐ 20 form).",
        min_length=1,
        max_length=64,
        pattern=r"^[\x21-\x7e]+$",
        examples=["999.00.01.H55"],
    )
    organ_name: str = Field(
        default="", title="Tên đơn vị", description="Our name in status packets; may be empty.", max_length=200
    )
    page_size: int = Field(
        default=20,
        title="Số văn bản mỗi lượt ghi",
        description="Packets fetched before they are committed together and marked on the axis.",
        ge=1,
        le=200,
    )
    timeout_s: float = Field(
        default=30.0, title="Thời gian chờ (giây)", description="Longest wait for one call to the axis.", gt=0, le=600
    )
    connections: int = Field(
        default=4,
        title="Số kết nối đồng thời",
        description="Connections to the axis at once; its SDK allows at most 10.",
        ge=1,
        le=10,
    )
    max_packet_mb: int = Field(
        default=48,
        title="Dung lượng gói tối đa (MB)",
        description="A larger packet is left on the axis and a repair is opened.",
        ge=1,
        le=256,
    )
    allow_plain_http: bool = Field(
        default=False,
        title="Cho phép http không mã hóa",
        description="Allows http:// to another machine; only for an axis inside a protected private network.",
    )

    @field_validator("endpoint")
    @classmethod
    def _is_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in value:
            raise ValueError("must be http(s)://host[:port][/path], without user, query or fragment")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _is_encrypted(self) -> DocAxisSettings:
        parts = urlsplit(self.endpoint)
        if parts.scheme == "http" and not self.allow_plain_http and not is_loopback(parts.hostname or ""):
            raise ValueError("endpoint: http:// to another machine needs allow_plain_http = true")
        return self


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
