"""Settings of a connection of type ``partner``: one receiving address of one agency."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

from pydantic import Field, model_validator
from yarl import URL

from hub.contract import ConnectionSettings, SecretRef


class PartnerSettings(ConnectionSettings):
    """One endpoint per connection; an agency with two endpoints has two connections."""

    url: str = Field(
        title="Địa chỉ nhận (URL)",
        description="Where events are posted: https, or http on loopback or with allow_http.",
    )
    secret: SecretRef = Field(
        title="Khóa ký",
        description="The signing secret shared with the partner: whsec_ and base64 of at least 24 bytes.",
    )
    previous_secret: SecretRef | None = Field(
        default=None,
        title="Khóa ký cũ",
        description="During a change of keys: signs beside the new secret until the partner has changed over.",
    )
    allow_http: bool = Field(
        default=False,
        title="Cho phép http",
        description="Allows plain http beyond loopback, for a network that encrypts below (a VPN, TSLCD).",
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
    content_mode: Literal["structured"] = Field(
        default="structured",
        title="Dạng nội dung",
        description="How the event is written: structured is CloudEvents 1.0 JSON with everything in the body.",
    )

    @model_validator(mode="after")
    def _url_can_be_posted_to(self) -> PartnerSettings:
        # Messages never repeat the address: people paste tokens into URLs.
        try:
            url = URL(self.url)
            host, _ = url.host, url.port
        except ValueError:
            raise ValueError("url: not an address; write https://host/path") from None
        if url.scheme not in ("http", "https") or not host:
            raise ValueError("url: write https://host/path")
        if url.user is not None or url.password is not None:
            raise ValueError("url: no user name or password in the address; requests are signed instead")
        if url.raw_fragment:
            raise ValueError("url: no #fragment; it is never sent")
        if url.scheme == "http" and not self.allow_http and not is_loopback(host):
            raise ValueError("url: https is required; http needs allow_http = true, or a loopback address")
        return self


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its spelling alone; no name is looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
