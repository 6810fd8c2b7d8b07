"""Settings of a connection of type ``inbound``: how a source proves who it is, and what its messages become."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hub.contract import ConnectionSettings, SecretRef
from hub.signing import RECIPES, networks
from plugins.inbound.schema import RECEIVED

Path = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,60}(\.[A-Za-z0-9_-]{1,60}){0,7}$")]
Header = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,60}$")]
Recipe = Literal["body-hex", "body-base64", "github", "shopify", "slack", "stripe"]
_NEED_SECRETS = ("standard_webhooks", "hmac", "basic", "api_key")


class InboundSourceSettings(ConnectionSettings):
    """A source that posts JSON to `/in/NAME`."""

    verify: Literal["standard_webhooks", "hmac", "basic", "api_key", "mtls", "ip"] = Field(
        title="Cách xác thực",
        description=(
            "How the source proves who it is: standard_webhooks, hmac (by a recipe), basic, api_key, mtls (a client"
            " certificate that a proxy has checked) or ip alone."
        ),
    )
    recipe: Recipe = Field(
        default="body-hex",
        title="Công thức HMAC",
        description="For hmac: what is signed and how it is written; see the plugin's README.",
    )
    header: Header | None = Field(
        default=None,
        title="Tiêu đề",
        description="In lower case: where the signature, the key or the certificate's subject stands, if elsewhere.",
    )
    secrets: tuple[SecretRef, ...] = Field(
        default=(),
        max_length=10,
        title="Khóa hoặc mật khẩu",
        description="Any of them counts; two while the source changes over. Not for mtls and ip.",
    )
    user: str = Field(default="", max_length=200, title="Tên đăng nhập", description="For basic.")
    subjects: tuple[str, ...] = Field(
        default=(),
        max_length=50,
        title="Chủ thể chứng thư",
        description='For mtls: subjects as the proxy writes them, "CN=cong-dich-vu-cong,O=...".',
    )
    proxies: tuple[str, ...] = Field(
        default=(),
        max_length=50,
        title="Máy chủ trung gian",
        description="Addresses (CIDR) of proxies of our own: only their word about certificate and sender counts.",
    )
    networks: tuple[str, ...] = Field(
        default=(),
        max_length=200,
        title="Dải địa chỉ được gửi",
        description="Addresses (CIDR) the source sends from; beside any way to verify, and needed for ip.",
    )
    event_type: str = Field(
        default=RECEIVED,
        max_length=200,
        title="Loại sự kiện",
        description="What a message becomes: an event type of the catalogue in full; its schema is checked.",
    )
    fields: dict[str, Path] = Field(
        default_factory=dict,
        max_length=100,
        title="Các trường",
        description="Field of the event = dotted path in the body (items.0.id); without any, the whole body.",
    )
    dedupe_header: Header | None = Field(
        default=None,
        title="Mã tin trong tiêu đề",
        description="Header with the source's own id of a message; the same one again adds nothing.",
    )
    dedupe_path: Path | None = Field(
        default=None,
        title="Mã tin trong nội dung",
        description="Path of that id in the body. Without either, equal bodies are one message.",
    )
    subject_path: Path | None = Field(
        default=None,
        title="Người liên quan",
        description="Path of an id of whom it is about; a keyed hash of it becomes the event's subject.",
    )

    @field_validator("proxies", "networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            networks(value)
        except ValueError:
            raise ValueError(
                "ghi địa chỉ hoặc dải CIDR, ví dụ 10.20.0.0/16 / write addresses or CIDRs such as 10.20.0.0/16"
            ) from None
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> InboundSourceSettings:
        needed = {
            "secrets": self.verify in _NEED_SECRETS and not self.secrets,
            "user": self.verify == "basic" and not self.user,
            "header": self.verify == "api_key" and self.header is None,
            "subjects": self.verify == "mtls" and not self.subjects,
            "proxies": self.verify == "mtls" and not self.proxies,
            "networks": self.verify == "ip" and not self.networks,
        }
        if missing := [name for name, is_missing in needed.items() if is_missing]:
            names = ", ".join(missing)
            raise ValueError(f"verify = {self.verify} cần thêm {names} / verify = {self.verify} needs {names} too")
        if self.dedupe_header and self.dedupe_path:
            raise ValueError(
                "ghi một trong hai: dedupe_header hoặc dedupe_path / write one of dedupe_header and dedupe_path"
            )
        assert self.recipe in RECIPES
        return self
