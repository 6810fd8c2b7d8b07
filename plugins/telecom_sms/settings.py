"""Settings of the plugin's connections: what all carriers have in common, SMPP accounts, HTTP accounts."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator
from yarl import URL

from hub.contract import SecretRef

from .codes import Verdict
from .rules import RulesSettings

#: Printable ASCII, as every address and account name on this wire has to be.
Printable = Annotated[str, StringConstraints(pattern=r"^[ -~]*$")]


#: What is said of carriers' SMPP accounts (memory, nobody checked): only defaults, every one a setting.
PROFILES: Final[dict[str, dict[str, Any]]] = {
    "mobifone": {"sender_ton": 5, "sender_npi": 0, "bind": "transceiver", "window": 10, "receipt_ids": "as_is"},
}


class SendingSettings(RulesSettings):
    """What every carrier's connection has in common: who sends, how fast, how long, and where the text is."""

    sender: Printable = Field(
        min_length=1,
        max_length=20,
        title="Tên gửi",
        description="Registered brandname (at most 11 letters, digits, dot, space, dash, underscore) or a number.",
    )
    rate_per_s: float | None = Field(
        None,
        gt=0,
        le=10_000,
        title="Tốc độ (tin tính cước mỗi giây)",
        description="Segments per second of the contract; none for no limit of ours.",
    )
    receipt_within_s: int = Field(
        86_400,
        ge=1,
        le=604_800,
        title="Chờ báo nhận (giây)",
        description="A message without a receipt for so long becomes unknown.",
    )
    max_segments: int = Field(
        10, ge=1, le=10, title="Số tin tính cước tối đa", description="A longer text is cancelled with sms_too_long."
    )
    text_field: str = Field(
        "text",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$",
        title="Trường chứa nội dung tin",
        description="Where in the event's data the text is; dots go deeper.",
    )
    stall_after_s: float = Field(
        120.0,
        gt=0,
        le=86_400,
        title="Báo khi đứng yên (giây)",
        description="Messages were handed over and the carrier answered none for so long: a repair is opened.",
    )

    keep_sent_days: int = Field(
        400,
        ge=31,
        le=3650,
        title="Giữ sổ chi phí (ngày)",
        description="What each message cost, and that a phone had its one SMS of a campaign. The longest of all "
        "connections counts.",
    )
    keep_inbox_days: int = Field(
        400,
        ge=1,
        le=3650,
        title="Giữ tin đến (ngày)",
        description="Messages from phones in `sms inbox`. Refusals and consent are kept until they are taken back.",
    )

    @property
    def joining_bits(self) -> int:
        """Size of the reference that joins the parts of a long text, which takes room from its letters."""
        return 8


class SmsSettings(SendingSettings):
    """An SMPP 3.4 account. Every figure a carrier's contract names is a setting here."""

    host: str = Field(
        title="Máy chủ nhà mạng",
        description="Address of the carrier's SMSC.",
    )
    port: int = Field(2775, ge=1, le=65535, title="Cổng", description="TCP port of the SMSC.")
    system_id: Printable = Field(
        min_length=1, max_length=15, title="Tên đăng nhập (system_id)", description="Account name the carrier gave."
    )
    password: SecretRef = Field(
        title="Mật khẩu", description='Where the password is kept: {file = "..."} or {env = "..."}.'
    )
    system_type: Printable = Field(
        "", max_length=12, title="Loại hệ thống (system_type)", description="Only if the carrier asks for one."
    )
    sessions: int = Field(
        default=1,
        ge=1,
        le=100,
        title="Số nút được đăng nhập cùng lúc",
        description="How many nodes may be bound at once: as many as the carrier allows. The others send nothing here.",
    )
    bind: Literal["transceiver", "separate"] = Field(
        "transceiver",
        title="Kiểu kết nối",
        description="One bind for both directions, or a transmitter and a receiver of their own.",
    )
    binds: int = Field(
        1,
        ge=1,
        le=20,
        title="Số phiên đăng nhập mỗi nút",
        description="Binds that send, per node; a long text stays on one; `separate`: one receiver besides.",
    )
    window: int = Field(
        10, ge=1, le=1000, title="Số tin chờ trả lời", description="Segments that may be unanswered at once, per bind."
    )
    sender_ton: int | None = Field(
        None,
        ge=0,
        le=6,
        title="Loại tên gửi (TON)",
        description="Type of number of the sender; by default 5 for a brandname, 1 for a number over 6 digits, else 0.",
    )
    sender_npi: int | None = Field(
        None,
        ge=0,
        le=18,
        title="Cách đánh số tên gửi (NPI)",
        description="Numbering plan of the sender; by default 1 for a number over 6 digits, else 0.",
    )
    response_timeout_s: float = Field(
        30.0,
        gt=0,
        le=300,
        title="Chờ trả lời (giây)",
        description="Without an answer for so long the result is unknown.",
    )
    enquire_link_s: float = Field(
        30.0, gt=0, le=600, title="Kiểm tra đường truyền (giây)", description="How often the link is asked for life."
    )
    connect_timeout_s: float = Field(
        10.0, gt=0, le=120, title="Chờ kết nối (giây)", description="Time for connecting, TLS included."
    )
    receipt_ids: Literal["as_is", "hex_to_dec", "dec_to_hex", "casefold", "strip_zeros"] = Field(
        "as_is",
        title="Cách ghi mã tin trong báo nhận",
        description="How receipts write ids; hex_to_dec: answers hexadecimal, receipts decimal.",
    )
    query_after_s: float | None = Field(
        None,
        gt=0,
        le=604_800,
        title="Hỏi lại khi thiếu báo nhận (giây)",
        description="Ask with query_sm about a segment without a receipt for so long; none: the carrier is not asked.",
    )
    long_messages: Literal["udh", "sar", "payload"] = Field(
        "udh",
        title="Cách gửi tin dài",
        description="Joining header, sar_* parameters, or the whole text in message_payload: what the carrier wants.",
    )
    reference_bits: Literal[8, 16] = Field(
        8,
        title="Độ dài mã ghép tin (bit)",
        description="8 leaves 153 or 67 characters per part, 16 leaves 152 or 66 and repeats later.",
    )
    profile: Literal["", "mobifone"] = Field(
        "", title="Mẫu nhà mạng", description="Defaults of a carrier for what this file does not say."
    )
    tls: bool = Field(False, title="Mã hóa đường truyền (TLS)", description="Connect with TLS and check the host name.")
    tls_ca_file: Path | None = Field(
        None, title="Tệp chứng thư gốc", description="Root certificates (PEM); by default those of the system."
    )
    tls_server_name: str | None = Field(
        None, title="Tên trong chứng thư", description="Name the certificate must carry, when it is not the host."
    )

    @model_validator(mode="after")
    def _fill_from_profile(self) -> SmsSettings:
        """Afterwards: what sees the file's values first turns lists and dates into what strict rules refuse."""
        for name, value in PROFILES.get(self.profile, {}).items():
            if name not in self.model_fields_set:
                object.__setattr__(self, name, value)
        return self

    @model_validator(mode="after")
    def _brandname_fits(self) -> SmsSettings:
        """An alphanumeric address holds 11 characters on the air. Source: 3GPP TS 23.040 section 9.1.2.5."""
        if self.ton == 5 and len(self.sender) > 11:
            raise ValueError("sender: a brandname has at most 11 characters")
        return self

    @model_validator(mode="after")
    def _real_phones_sleep(self) -> SmsSettings:
        refuse_without_quiet_hours(self, self.host)
        return self

    @property
    def joining_bits(self) -> int:
        return self.reference_bits

    @property
    def ton(self) -> int:
        if self.sender_ton is not None:
            return self.sender_ton
        if not self.sender.isdigit():
            return 5
        return 1 if len(self.sender) > 6 else 0

    @property
    def npi(self) -> int:
        if self.sender_npi is not None:
            return self.sender_npi
        return 1 if self.sender.isdigit() and len(self.sender) > 6 else 0


class HttpSettings(SendingSettings):
    """What the accounts that are reached by HTTP have in common."""

    base_url: str = Field(
        title="Địa chỉ nhà mạng",
        description="https://... as the carrier gave it, without a path.",
    )
    concurrency: int = Field(
        10, ge=1, le=200, title="Số tin gửi cùng lúc", description="Requests under way at once on one node."
    )
    timeout_s: float = Field(
        20.0,
        gt=0,
        le=120,
        title="Chờ trả lời (giây)",
        description="Time for one request. Without an answer the result is unknown, or asked again with the same id.",
    )
    receipt_path: SecretRef | None = Field(
        None,
        title="Mã đường dẫn báo nhận",
        description="At least 24 letters or digits nobody can guess: reports come to /in/CONNECTION/CODE. None: none.",
    )

    public_url: str = Field(
        "",
        title="Địa chỉ công khai của hub",
        description="https://... under which the carrier reaches this hub; for carriers that are told it per message.",
    )
    carrier_deduplicates: bool = Field(
        False,
        title="Nhà mạng tự nhận ra tin trùng",
        description="The carrier takes one request id once: then a request without an answer is sent again.",
    )
    phone_form: Literal["84", "0"] = Field(
        "84", title="Cách ghi số điện thoại", description="84912... or 0912..., as the carrier wants it."
    )
    codes: dict[str, Verdict] = Field(
        default_factory=dict,
        title="Mã của nhà mạng",
        description="What single codes of this carrier mean, where its table in the plugin is wrong or silent.",
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        url = URL(value)
        if url.scheme not in ("http", "https") or not url.host or url.path not in ("", "/") or url.query_string:
            raise ValueError("base_url: an address like https://host:port, without path and query")
        if url.scheme == "http" and not is_loopback(url.host):
            raise ValueError("base_url: accounts and phones must not travel in plain, write https://")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _real_phones_sleep(self) -> HttpSettings:
        refuse_without_quiet_hours(self, URL(self.base_url).host or "")
        return self


def refuse_without_quiet_hours(settings: SendingSettings, host: str) -> None:
    """Raises ``ValueError``: a simulator may ring at night, people's phones may not."""
    if settings.quiet_hours or is_loopback(host):
        return
    raise ValueError(
        "quiet_hours = false chỉ dùng với trình giả lập trên máy này; bỏ dòng đó để gửi qua nhà mạng thật"
        " / quiet_hours = false is for the simulator on this machine only; remove it to send through a real carrier"
    )


def is_loopback(host: str) -> bool:
    """Only what needs no look-up to be sure: a literal loopback address, or the name every system keeps for it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
