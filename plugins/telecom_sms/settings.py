"""Settings of one ``telecom_sms`` connection: one account at one carrier."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from hub.contract import ConnectionSettings, SecretRef

#: Printable ASCII, as every address and account name on this wire has to be.
Printable = Annotated[str, StringConstraints(pattern=r"^[ -~]*$")]


class SmsSettings(ConnectionSettings):
    """An SMPP 3.4 account. Every figure a carrier's contract names is a setting here."""

    host: str = Field(
        title="Máy chủ nhà mạng",
        description="Address of the carrier's SMSC. Until opt-out, consent and quiet hours exist: loopback only.",
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
    window: int = Field(
        10, ge=1, le=1000, title="Số tin chờ trả lời", description="Segments that may be unanswered at once."
    )
    sender: Printable = Field(
        min_length=1,
        max_length=20,
        title="Tên gửi",
        description="Registered brandname (at most 11 letters, digits, dot, space, dash, underscore) or a number.",
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
    rate_per_s: float | None = Field(
        None,
        gt=0,
        le=10_000,
        title="Tốc độ (tin tính cước mỗi giây)",
        description="Segments per second of the contract; none for no limit of ours.",
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
    receipt_within_s: int = Field(
        86_400,
        ge=1,
        le=604_800,
        title="Chờ báo nhận (giây)",
        description="A message without a receipt for so long becomes unknown.",
    )
    receipt_ids: Literal["as_is", "hex_to_dec", "dec_to_hex", "casefold", "strip_zeros"] = Field(
        "as_is",
        title="Cách ghi mã tin trong báo nhận",
        description="How receipts write ids; hex_to_dec: answers hexadecimal, receipts decimal.",
    )
    reference_bits: Literal[8, 16] = Field(
        8,
        title="Độ dài mã ghép tin (bit)",
        description="8 leaves 153 or 67 characters per part, 16 leaves 152 or 66 and repeats later.",
    )
    max_segments: int = Field(
        10, ge=1, le=10, title="Số tin tính cước tối đa", description="A longer text is cancelled with sms_too_long."
    )
    tls: bool = Field(False, title="Mã hóa đường truyền (TLS)", description="Connect with TLS and check the host name.")
    tls_ca_file: Path | None = Field(
        None, title="Tệp chứng thư gốc", description="Root certificates (PEM); by default those of the system."
    )
    tls_server_name: str | None = Field(
        None, title="Tên trong chứng thư", description="Name the certificate must carry, when it is not the host."
    )
    text_field: str = Field(
        "text",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$",
        title="Trường chứa nội dung tin",
        description="Where in the event's data the text is; dots go deeper.",
    )

    @model_validator(mode="after")
    def _brandname_fits(self) -> SmsSettings:
        """An alphanumeric address holds 11 characters on the air. Source: 3GPP TS 23.040 section 9.1.2.5."""
        if self.ton == 5 and len(self.sender) > 11:
            raise ValueError("sender: a brandname has at most 11 characters")
        return self

    @field_validator("host")
    @classmethod
    def _stays_on_this_machine(cls, host: str) -> str:
        if not is_loopback(host):
            raise ValueError(
                "telecom_sms chưa được phép gửi ra ngoài máy này, vì phần từ chối nhận, đồng ý nhận và giờ yên lặng"
                " chưa có; hãy trỏ host về trình giả lập (127.0.0.1)"
                " / telecom_sms must not reach beyond this machine, because opt-out, consent and quiet hours do not"
                " exist yet; point host at the simulator (127.0.0.1)"
            )
        return host

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


def is_loopback(host: str) -> bool:
    """Only what needs no look-up to be sure: a literal loopback address, or the name every system keeps for it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
