"""Settings of a connection of type ``citizen_app``: one account at one app."""

from __future__ import annotations

from ipaddress import ip_address

from pydantic import Field, field_validator
from yarl import URL

from hub.contract import ConnectionSettings, SecretRef


class CitizenAppSettings(ConnectionSettings):
    """The app's REST service for notices, and the keys it signs workers' questions with."""

    base_url: str = Field(
        title="Địa chỉ dịch vụ của ứng dụng",
        description="Where /oauth/token and /api/v1/push are: https, or http on this machine.",
    )
    client_id: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        title="Mã khách (client_id)",
        description="Account name the app's operator gave.",
    )
    client_secret: SecretRef = Field(
        title="Khóa bí mật (client_secret)", description="Where the account's secret is kept; never the secret itself."
    )
    webhook_secrets: tuple[SecretRef, ...] = Field(
        default=(),
        max_length=10,
        title="Khóa ký câu hỏi gửi đến",
        description="Keys (whsec_...) the app may sign with; two while it changes over, none to receive nothing.",
    )
    timeout_s: float = Field(
        default=15.0,
        gt=0,
        le=60,
        title="Thời gian chờ tối đa (giây)",
        description="Seconds one try may take in all, a login included.",
    )
    concurrency: int = Field(
        default=10, ge=1, le=500, title="Số lượt gửi cùng lúc", description="Requests under way at once on one node."
    )
    rate_per_s: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        title="Số lượt gửi mỗi giây",
        description="Requests started per second at most, over all nodes; empty for no limit.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_base_url(cls, value: str) -> str:
        try:
            url = URL(value)
            host, _ = url.host or "", url.port
        except ValueError:
            raise ValueError(_NO_ADDRESS) from None
        if url.scheme not in ("http", "https") or not host or url.user or url.query_string or url.raw_fragment:
            raise ValueError(_NO_ADDRESS)
        if url.scheme == "http" and not _is_loopback(host):
            raise ValueError("chỉ dùng http trên chính máy này; nơi khác phải là https / http only on this machine")
        return value.rstrip("/")


_NO_ADDRESS = (
    "ghi dạng https://may-chu/duong-dan, không kèm tên, mật khẩu hay tham số"
    " / write https://host/path without user, query or fragment"
)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
