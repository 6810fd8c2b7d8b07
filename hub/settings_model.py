"""What may stand in the configuration folder, each key with its default, limits and meaning.

``hub.toml`` holds the hub itself and is overridden by ``UNIONHUB_*`` variables; ``connections/<name>.toml``
one connection each; ``subscriptions.toml`` who is owed what. ``hub.settings.load`` reads the folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hub.contract import SecretRef
from hub.model import Priority
from hub.routing import Subscription

PREFIX = "UNIONHUB_"
DELIMITER = "__"
NAME = r"[a-z0-9-]{1,40}"
_EVERY = re.compile(r"every ([1-9][0-9]{0,5})(s|m|h)", re.ASCII)
_TYPE = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*(\.\*)?", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600}

Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=1, le=3650)]


class Section(BaseModel):
    """A table of ``hub.toml``: unknown keys are refused, values do not change while the hub runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpSettings(Section):
    """The web server: console, API and inbound requests."""

    host: str = Field(
        default="127.0.0.1",
        title="Địa chỉ mở cổng",
        description="Address to listen on. Other than loopback, console and API ask for console_token.",
    )
    port: int = Field(default=8080, ge=0, le=65535, title="Cổng", description="TCP port; 0 takes a free one.")
    max_body_bytes: int = Field(
        default=1_048_576,
        ge=1024,
        le=104_857_600,
        title="Cỡ lớn nhất của một yêu cầu (byte)",
        description="Longest inbound body; a longer one is refused with 413 before it is read.",
    )
    body_deadline_s: Seconds = Field(
        default=10, title="Thời hạn đọc yêu cầu (giây)", description="Time an inbound body may take to arrive."
    )
    console_token: SecretRef | None = Field(
        default=None,
        title="Mã vào trang vận hành",
        description="Token for console and operator API; without one a token is made and printed where it is needed.",
    )


class WorkerSettings(Section):
    """The loop that claims and sends deliveries."""

    lease_s: Seconds = Field(
        default=20,
        title="Thời gian giữ việc (giây)",
        description=(
            "How long what this process has claimed stays its own without a sign of life; on PostgreSQL another"
            " node takes over then."
        ),
    )
    claim_batch: int = Field(
        default=1000, ge=1, le=10_000, title="Số lượt gửi nhận mỗi lần", description="Deliveries claimed in one step."
    )
    attempt_deadline_s: Seconds = Field(
        default=20,
        title="Thời hạn một lần thử (giây)",
        description="Time one attempt may take in all.",
    )
    stop_within_s: Seconds = Field(
        default=10, title="Thời hạn dừng (giây)", description="Time a graceful stop waits for attempts under way."
    )
    memory_mb: int = Field(
        default=1024,
        ge=0,
        le=1_000_000,
        title="Ngưỡng bộ nhớ (MB)",
        description=(
            "Above it the hub looks whose memory grows, names the plugin and pauses its connection; 0: it never looks."
        ),
    )


class RetrySettings(Section):
    """When a delivery that failed is tried again."""

    schedule_s: tuple[Seconds, ...] = Field(
        default=(5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400),
        min_length=1,
        max_length=50,
        title="Các khoảng chờ trước khi thử lại (giây)",
        description="Pauses before the 2nd, 3rd, ... try; after the last one the delivery is dead.",
    )
    jitter: float = Field(
        default=0.2,
        ge=0,
        le=0.5,
        title="Độ lệch ngẫu nhiên",
        description="Each pause is spread by up to this part of itself.",
    )
    retry_after_cap_s: Seconds = Field(
        default=86400,
        title="Giới hạn của Retry-After (giây)",
        description="Longest pause a partner can ask for with Retry-After.",
    )


class BreakerSettings(Section):
    """When a destination that keeps failing is left alone for a while."""

    failures: int = Field(
        default=10, ge=1, le=10_000, title="Số lỗi liên tiếp", description="Failures in a row that open the breaker."
    )
    first_s: Seconds = Field(
        default=5, title="Lần ngắt đầu (giây)", description="First pause before one delivery is tried as a probe."
    )
    max_s: Seconds = Field(
        default=3600, title="Lần ngắt dài nhất (giây)", description="Longest pause; each one doubles."
    )

    @model_validator(mode="after")
    def _first_is_not_longest(self) -> BreakerSettings:
        if self.first_s > self.max_s:
            raise ValueError("first_s không được lớn hơn max_s / first_s must not be more than max_s")
        return self


class UnknownSettings(Section):
    """Deliveries whose outcome nobody knows."""

    unresolved_after_days: Days = Field(
        default=7,
        title="Số ngày chờ làm rõ",
        description="After this many days an unknown delivery is dead (unresolved).",
    )


class DedupeSettings(Section):
    """How long a repeated message is recognised."""

    keep_days: Days = Field(
        default=7,
        title="Số ngày nhớ khóa trùng",
        description="Keys of incoming messages are kept so long; longer than any sender repeats itself.",
    )


def _off_or_schedule(text: str) -> str:
    if text:
        parse_schedule(text)
    return text


class BackupSettings(Section):
    """Copies of the ledger, sealed with a key of their own."""

    schedule: Annotated[str, AfterValidator(_off_or_schedule)] = Field(
        default="",
        title="Lịch sao lưu",
        description='When the hub backs itself up: "every 24h" or a cron line (Vietnam time, weekdays by name);'
        ' "" is never.',
    )
    folder: str = Field(
        default="backups",
        min_length=1,
        title="Thư mục sao lưu",
        description="Where backups go, relative to the folder above; best on another disk or machine.",
    )
    keep: int = Field(
        default=14,
        ge=1,
        le=10_000,
        title="Số bản giữ lại",
        description="How many scheduled backups are kept; an older one is removed once a newer one is verified.",
    )
    key_file: str = Field(
        default="",
        title="Tệp khóa sao lưu",
        description="What seals backups: 32 bytes only this user can read, relative to this folder; made by"
        " `unionhub db backup-key FILE`.",
    )

    @model_validator(mode="after")
    def _sealed(self) -> BackupSettings:
        if self.schedule and not self.key_file:
            raise ValueError(
                "có schedule thì phải có key_file; tạo khóa bằng: unionhub db backup-key TỆP"
                " / a schedule needs key_file; make one with: unionhub db backup-key FILE"
            )
        return self


class ReceiptsSettings(Section):
    """What partners report later."""

    parked_days: Days = Field(
        default=30,
        title="Số ngày giữ báo nhận chưa khớp",
        description="A receipt whose reference nobody has claimed is kept so long.",
    )


class RetentionSettings(Section):
    """How long history is kept, counted in whole days (UTC) from the day of the event."""

    history_days: Days = Field(
        default=400,
        title="Số ngày giữ lịch sử",
        description=(
            "Events with their settled deliveries, attempts and receipts, finished runs and cleared repairs are kept"
            " so long. What is still owed to somebody stays until it has settled."
        ),
    )
    content_days: Days = Field(
        default=400,
        title="Số ngày giữ nội dung",
        description="Contents of events are kept so long, never longer than history_days.",
    )
    event_types: dict[str, Days] = Field(
        default_factory=dict,
        title="Số ngày giữ nội dung theo loại sự kiện",
        description=(
            "In place of content_days for some event types: a table of type, in full or with * after its last dot, ="
            " days. Of several that match, the longest name counts."
        ),
    )

    @model_validator(mode="after")
    def _content_goes_before_its_event(self) -> RetentionSettings:
        given = [self.content_days] if "content_days" in self.model_fields_set else []
        if any(days > self.history_days for days in (*given, *self.event_types.values())):
            raise ValueError(
                "content_days và event_types không được dài hơn history_days"
                " / content_days and event_types must not be longer than history_days"
            )
        return self


class HubFile(Section):
    """The tables and keys of ``hub.toml``."""

    database_url: str = Field(
        default="",
        title="Cơ sở dữ liệu",
        description=(
            '"" is the SQLite file var_dir/unionhub.db; else sqlite:///FILE, relative to the folder above, or'
            " postgresql://user@host/database; a password only in the environment variable or PGPASSFILE."
        ),
    )
    var_dir: str = Field(
        default="var",
        min_length=1,
        title="Thư mục dữ liệu",
        description="Folder for the database, keys and files of this installation, relative to the folder above.",
    )
    lang: Literal["vi", "en"] = Field(
        default="vi", title="Ngôn ngữ", description="Language of texts for operators: vi or en."
    )
    source: str = Field(
        default="//ldld.thainguyen.example",
        pattern=r"^[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]{1,200}$",
        title="Tên nguồn sự kiện",
        description="URI base of the CloudEvents attribute source of events made here.",
    )
    http: HttpSettings = Field(
        default_factory=HttpSettings, title="Máy chủ web", description="Console, API and inbound requests."
    )
    worker: WorkerSettings = Field(
        default_factory=WorkerSettings, title="Bộ gửi", description="Claiming and sending deliveries."
    )
    retry: RetrySettings = Field(default_factory=RetrySettings, title="Thử lại", description="Pauses between tries.")
    breaker: BreakerSettings = Field(
        default_factory=BreakerSettings, title="Tạm ngắt", description="Leaving a failing destination alone."
    )
    unknown: UnknownSettings = Field(
        default_factory=UnknownSettings, title="Không rõ kết quả", description="Deliveries of unknown outcome."
    )
    dedupe: DedupeSettings = Field(
        default_factory=DedupeSettings, title="Chống trùng", description="Recognising repeated messages."
    )
    receipts: ReceiptsSettings = Field(
        default_factory=ReceiptsSettings, title="Báo nhận", description="What partners report later."
    )
    retention: RetentionSettings = Field(
        default_factory=RetentionSettings, title="Lưu lịch sử", description="How long history is kept."
    )
    backup: BackupSettings = Field(
        default_factory=BackupSettings, title="Sao lưu", description="Sealed copies of the ledger."
    )


class HubSettings(HubFile, BaseSettings):
    """``hub.toml`` with the environment over it: ``UNIONHUB_HTTP__PORT`` beats ``port`` in ``[http]``."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter=DELIMITER, case_sensitive=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The loader merges file and environment itself, so that each value's origin can be named.
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a source is pulled: a period, or a cron line in Asia/Ho_Chi_Minh. Exactly one is set."""

    text: str
    every: timedelta | None = None
    cron: str | None = None


def parse_schedule(text: str) -> Schedule:
    """``every 30s`` (s, m, h) or a cron line of five fields with weekdays by name.

    Raises: ValueError with a Vietnamese and an English sentence.
    """
    if match := _EVERY.fullmatch(text):
        return Schedule(text, every=timedelta(seconds=int(match[1]) * _UNITS[match[2]]))
    fields = text.split(" ")
    if len(fields) != 5 or not all(fields):
        raise ValueError(
            'ghi "every 30s", "every 5m", "every 1h" hoặc năm trường cron như "30 6 * * mon-fri"'
            ' / write "every 30s", "every 5m", "every 1h" or five cron fields such as "30 6 * * mon-fri"'
        )
    if re.search(r"[0-9]", fields[4]):
        raise ValueError(
            "trường thứ trong tuần ghi bằng tên (mon, tue, ... sun): cùng một chữ số, nơi này tính từ chủ nhật,"
            " nơi khác tính từ thứ hai, nên 1-5 có thể thành thứ ba đến thứ bảy"
            " / weekdays by name only (mon, tue, ... sun): programs count digits from different days, so that 1-5"
            " may mean Tuesday to Saturday"
        )
    # At first use, because it loads the time zone database.
    from apscheduler.triggers.cron import CronTrigger

    try:
        CronTrigger.from_crontab(text, timezone="Asia/Ho_Chi_Minh")
    except ValueError:
        raise ValueError(
            'dòng cron không đúng; ví dụ đúng: "30 6 * * mon-fri" / not a cron line; for example "30 6 * * mon-fri"'
        ) from None
    return Schedule(text, cron=text)


def _valid_schedule(text: str) -> str:
    parse_schedule(text)
    return text


class InboundSettings(Section):
    """What `/in/NAME` of a connection takes, and what it keeps of it."""

    max_body_bytes: int | None = Field(
        default=None,
        ge=1024,
        le=8_388_608,
        title="Cỡ lớn nhất của một yêu cầu (byte)",
        description="In place of http.max_body_bytes, at most 8 MiB; a longer body is answered 413.",
    )
    per_min: int | None = Field(
        default=None,
        ge=1,
        le=600_000,
        title="Số yêu cầu mỗi phút",
        description="More requests a minute than that, on each node, are answered 429 with Retry-After.",
    )
    keep_raw: Literal["none", "failures", "all"] = Field(
        default="failures",
        title="Giữ nguyên bản yêu cầu",
        description=(
            "Which genuine requests are kept as they came, sealed: none (what cannot be read is then refused with"
            " 422), failures (what could not be read), all."
        ),
    )
    keep_days: Days = Field(
        default=30, title="Số ngày giữ nguyên bản", description="How long requests are kept as they came."
    )


class ConnectionFile(Section):
    """The keys of ``connections/<name>.toml``; the table ``[settings]`` belongs to the connector type."""

    type: str = Field(title="Loại kết nối", description="Connector type, one of those `unionhub plugins` lists.")
    enabled: bool = Field(default=True, title="Đang dùng", description="false: nothing is sent, pulled or received.")
    schedule: Annotated[str, AfterValidator(_valid_schedule)] | None = Field(
        default=None,
        title="Lịch chạy",
        description='When a source is pulled: "every 30s", "every 5m", "every 1h" or a cron line such as'
        ' "30 6 * * mon-fri" (Vietnam time, weekdays by name).',
    )
    content_days: Days | None = Field(
        default=None,
        title="Số ngày giữ nội dung",
        description=(
            "Contents of events that this connection brought, and of event types that are sent to nobody who asks for"
            " longer, are kept so long, at most history_days."
        ),
    )
    inbound: InboundSettings = Field(
        default_factory=InboundSettings, title="Yêu cầu gửi đến", description="What `/in/NAME` takes and keeps."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, title="Cài đặt riêng", description="Settings of the connector type."
    )


def _valid_pattern(text: str) -> str:
    if not _TYPE.fullmatch(text):
        raise ValueError(
            'ghi tên đầy đủ của loại sự kiện, hoặc dấu * sau dấu chấm cuối: "vn.congdoan.member.*"'
            ' / write an event type in full, or * after its last dot: "vn.congdoan.member.*"'
        )
    return text


class SubscriptionSettings(Section):
    """One ``[[subscription]]``: which events are owed to whom, and how much of them."""

    name: str = Field(pattern=rf"^{NAME}$", title="Tên", description="Name of this subscription, a-z 0-9 and -.")
    types: tuple[Annotated[str, AfterValidator(_valid_pattern)], ...] = Field(
        min_length=1,
        title="Loại sự kiện",
        description='Event types in full, or a wildcard after a dot: "vn.congdoan.member.*".',
    )
    to: str | None = Field(
        default=None, title="Gửi tới", description='A connection, or "handler:<name>". Either this or to_each.'
    )
    to_each: dict[str, str] | None = Field(
        default=None,
        min_length=1,
        title="Gửi tới từng người",
        description="Each person of the event's audience: a table of channel = connection.",
    )
    fields: tuple[str, ...] = Field(
        default=(), title="Trường được gửi thêm", description="Fields (dotted) that leave besides the type's thin ones."
    )
    ordered: bool = Field(
        default=True, title="Giữ thứ tự", description="Deliveries of one ordering key go one after another."
    )
    priority: Literal["urgent", "normal", "bulk"] | None = Field(
        default=None, title="Mức ưu tiên", description="Overrides the event's own priority: urgent, normal or bulk."
    )
    on_dead: Literal["continue", "hold"] = Field(
        default="continue",
        title="Khi lượt trước đã dừng gửi",
        description="Whether followers of a dead delivery go on (continue) or wait for a person (hold).",
    )
    expires_after_s: int | None = Field(
        default=None, ge=1, le=31_536_000, title="Quá hạn sau (giây)", description="Not sent any more after this time."
    )

    @model_validator(mode="after")
    def _one_goal(self) -> SubscriptionSettings:
        if (self.to is None) == (self.to_each is None):
            raise ValueError("ghi đúng một trong hai: to hoặc to_each / write exactly one of to and to_each")
        return self

    def routed(self) -> Subscription:
        """The same as the router reads it."""
        return Subscription(
            name=self.name,
            types=self.types,
            to=self.to,
            to_each=self.to_each or {},
            fields=self.fields,
            ordered=self.ordered,
            on_dead=self.on_dead,
            priority=None if self.priority is None else Priority[self.priority.upper()],
            expires_after_s=self.expires_after_s,
        )
