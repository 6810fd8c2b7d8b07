"""``unionhub db ...``: commands on the ledger's files, with or without a running hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from hub import backups
from hub.clock import system_clock
from hub.contract import Report
from hub.errors import ConfigError, InputError
from hub.model import Json
from hub.plugins import Registry
from hub.security.keys import HubKey
from hub.settings import Configuration
from hub.store.aside import size
from hub.store.backup import BackupKey
from hub.store.migrate import CORE, Owner
from hub.store.move import move

#: Seconds between two lines about work that goes on.
TELL_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCommand:
    """As ``hub.contract.Command``, for what goes neither through the running hub nor into an open ledger."""

    name: str
    help_vi: str
    help_en: str
    params: type[BaseModel]
    run: Callable[[Configuration, Registry, Any, Report], Json]
    #: Text for the terminal, Vietnamese or English; without one a plain table of the answer.
    render: Callable[[Json, str], str] | None = None


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Keyed(Params):
    key: Path | None = Field(None, description="Backup key file; by default key_file in [backup].")


class Backup(Keyed):
    to: Path | None = Field(None, description="File to write; by default a new one in the folder of [backup].")


class NewKey(Params):
    file: Path = Field(description="Where the new key goes.", json_schema_extra={"argument": True})


class Restore(Keyed):
    file: Path = Field(description="The backup.", json_schema_extra={"argument": True})
    into: Path | None = Field(None, description="A data folder with its hub.key; by default the configured one.")
    replace: bool = Field(False, description="Keep the ledger that is there under another name.")


class Check(Keyed):
    file: Path | None = Field(None, description="A backup to verify.", json_schema_extra={"argument": True})


class Move(Params):
    to: str = Field(
        description="postgresql://user@host/database, empty; a password better in PGPASSFILE than here.",
    )


class Progress:
    """Says every second how far the work is; short work is not talked about."""

    STAGES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "copy": ("chép sổ cái", "copying the ledger"),
        "write": ("niêm phong", "sealing"),
        "verify": ("đọc lại để kiểm tra", "reading it back"),
        "restore": ("mở bản sao lưu", "opening the backup"),
        "check": ("kiểm tra tệp dữ liệu", "checking the file"),
        "books": ("đối chiếu sổ", "recounting"),
        "compare": ("đối chiếu hai bên", "comparing both sides"),
    }

    def __init__(self, report: Report) -> None:
        self._report = report
        self._stage = ""
        self._since = self._told = monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = monotonic()
        if stage != self._stage:
            self._stage, self._since = stage, now
        if now - self._told < TELL_EVERY_S:
            return
        self._told = now
        vi, en = self.STAGES[stage]
        if total:
            rate = done / (now - self._since) if now > self._since else 0
            share = f" {min(99, 100 * done // total)} %, {size(done)} / {size(total)}, {size(rate)}/s"
            left = max(0, total - done) / rate if rate else 0
            vi, en = f"{vi}{share}, còn {left:.0f} giây", f"{en}{share}, {left:.0f} s left"
        self._report({"vi": vi, "en": en, "stage": stage, "done_bytes": done, "total_bytes": total})


def _owners(registry: Registry) -> list[Owner]:
    return [CORE, *(Owner(s.owner, s.versions) for s in registry.schemas.values())]


def _backup(config: Configuration, registry: Registry, p: Backup, report: Report) -> Json:
    taken = backups.take(config, system_clock(), Progress(report), to=p.to, key_file=p.key, owners=_owners(registry))
    return {
        "file": str(taken.path),
        "file_bytes": taken.file_bytes,
        "ledger_bytes": taken.summary.bytes,
        "sha256": taken.summary.sha256,
        "installation": taken.header.installation,
        "sequence": taken.header.sequence,
        "created_at": taken.header.created_at,
        "seconds": round(taken.seconds, 1),
        "hub_key_not_included": str(config.var_dir / "hub.key"),
    }


def _say_backup(answer: Json, lang: str) -> str:
    small, large = size(answer["file_bytes"]), size(answer["ledger_bytes"])
    at, took, key = answer["sequence"], answer["seconds"], answer["hub_key_not_included"]
    if lang == "en":
        return (
            f"Backed up to {answer['file']}\n  {small} (ledger {large}), commit {at}, read back and right, {took} s\n"
            f"THE HUB KEY IS NOT IN IT. Without {key} nobody can read the personal data any more, not even after a\n"
            "restore. Keep a copy of that file and of the backup key elsewhere, apart from this backup."
        )
    return (
        f"Đã sao lưu vào {answer['file']}\n  {small} (sổ cái {large}), lần ghi {at}, đã đọc lại và đúng, {took} giây\n"
        f"KHÓA HUB KHÔNG NẰM TRONG BẢN NÀY. Không có {key} thì không ai đọc được dữ liệu cá nhân nữa, kể cả\n"
        "sau khi phục hồi. Cất một bản của tệp ấy và của khóa sao lưu ở nơi khác, tách khỏi bản sao lưu này."
    )


def _new_key(config: Configuration, registry: Registry, p: NewKey, report: Report) -> Json:
    key = BackupKey.make(p.file)
    inside = p.file.is_relative_to(config.folder)
    named = p.file.relative_to(config.folder) if inside else p.file
    return {"file": str(p.file), "fingerprint": key.fingerprint, "setting": f'key_file = "{named}"'}


def _say_new_key(answer: Json, lang: str) -> str:
    if lang == "en":
        return (
            f"New backup key: {answer['file']} (fingerprint {answer['fingerprint']})\n"
            f"1. In hub.toml under [backup]:  {answer['setting']}\n"
            "2. Keep a copy of it elsewhere, apart from the backups: without it no backup can be opened."
        )
    return (
        f"Khóa sao lưu mới: {answer['file']} (dấu {answer['fingerprint']})\n"
        f"1. Ghi vào hub.toml, mục [backup]:  {answer['setting']}\n"
        "2. Cất một bản ở nơi khác, tách khỏi các bản sao lưu: mất khóa này thì không mở được bản nào."
    )


def _restore(config: Configuration, registry: Registry, p: Restore, report: Report) -> Json:
    restored = backups.restore(
        config, _owners(registry), p.file, system_clock(), Progress(report),
        into=p.into, replace=p.replace, key_file=p.key,
    )  # fmt: skip
    return {
        "database": str(restored.database),
        "file": str(p.file),
        "sha256": restored.summary.sha256,
        "installation": restored.header.installation,
        "sequence": restored.header.sequence,
        "created_at": restored.header.created_at,
        "hold": "restored",
        "owed": restored.owed,
        "erased_again": restored.erased_again,
        "replaced": str(restored.replaced) if restored.replaced else None,
    }


def _say_restore(answer: Json, lang: str) -> str:
    at, owed, old, erased = answer["created_at"], answer["owed"], answer["replaced"], answer["erased_again"]
    if lang == "en":
        lines = [f"Restored {answer['database']} as it was at {at} (commit {answer['sequence']})"]
        lines += [f"  What was there is kept: {old}"] if old else []
        lines += [f"  Erased again, as was asked after the backup: {erased} people"] if erased else []
        return "\n".join(
            [
                *lines,
                "ON HOLD: `unionhub run` receives and shows, but sends nothing until `unionhub release`.",
                f"Deliveries that go out then: {owed}. What the original sent after {at} would go a second time:",
                "make sure it is off for good, and pause what must not go twice before you release.",
            ]
        )
    lines = [f"Đã phục hồi {answer['database']} như lúc {at} (lần ghi {answer['sequence']})"]
    lines += [f"  Dữ liệu cũ được cất ở {old}"] if old else []
    lines += [f"  Đã xóa lại {erased} người được xóa sau lúc sao lưu"] if erased else []
    return "\n".join(
        [
            *lines,
            "ĐANG GIỮ: `unionhub run` nhận và hiển thị, nhưng chưa gửi gì cho tới khi chạy `unionhub release`.",
            f"Số lượt sẽ gửi khi đó: {owed}. Lượt nào bản gốc đã gửi sau {at} thì sẽ đi lần nữa: bảo đảm bản gốc",
            "đã tắt hẳn, và tạm dừng nơi không được gửi hai lần trước khi cho gửi tiếp.",
        ]
    )


def _check(config: Configuration, registry: Registry, p: Check, report: Report) -> Json:
    if p.file is not None:
        header, summary = backups.verify(config, _owners(registry), p.file, Progress(report), key_file=p.key)
        return {"file": str(p.file), "ok": True, **header.model_dump(exclude={"salt"}), "sha256": summary.sha256}
    rows = [f._asdict() for f in backups.findings(config, _owners(registry), Progress(report))]
    ok = all(row["ok"] for row in rows)
    return {"database": backups.named_ledger(config), "checks": rows, "ok": ok, "failed": not ok}


def _move(config: Configuration, registry: Registry, p: Move, report: Report) -> Json:
    if config.is_postgres:
        raise ConfigError(
            "sổ cái đã ở trên PostgreSQL; db move chuyển từ tệp SQLite / the ledger is on PostgreSQL already: db move"
            " starts from an SQLite file"
        )
    if not p.to.startswith("postgresql://"):
        raise InputError("--to: postgresql://…", problem="url-invalid", status=400)
    key = HubKey.load(config.var_dir / "hub.key", may_create=False)
    told = monotonic()

    def tell(stage: str, table: str, done: int, total: int) -> None:
        nonlocal told
        if monotonic() - told < TELL_EVERY_S:
            return
        told = monotonic()
        vi, en = Progress.STAGES[stage]
        report({"vi": f"{vi}: {table} {done}/{total}", "en": f"{en}: {table} {done}/{total}", "stage": stage})

    moved = asyncio.run(move(config.database, config.lock_file, p.to, _owners(registry), key.fingerprint, tell))
    return {
        "tables": [{"table": name, "rows": c.rows, "checksum": f"{c.sum:032x}"} for name, c in moved.items() if c.rows],
        "rows": sum(c.rows for c in moved.values()),
        "hold": "moved",
    }


def _say_move(answer: Json, lang: str) -> str:
    rows, tables = answer["rows"], len(answer["tables"])
    if lang == "en":
        return (
            f"Moved {rows} rows of {tables} tables, counted and compared on both sides.\n"
            "1. Set UNIONHUB_DATABASE_URL to the new database. The old file refuses to run from now on.\n"
            "2. ON HOLD: `unionhub run` receives and shows, but sends nothing until `unionhub release`.\n"
            "3. Further nodes need a copy of var/hub.key."
        )
    return (
        f"Đã chuyển {rows} dòng của {tables} bảng, đã đếm và đối chiếu cả hai bên.\n"
        "1. Đặt UNIONHUB_DATABASE_URL là cơ sở dữ liệu mới. Tệp cũ từ nay không chạy được nữa.\n"
        "2. ĐANG GIỮ: `unionhub run` nhận và hiển thị, nhưng chưa gửi gì cho tới khi chạy `unionhub release`.\n"
        "3. Nút khác cần một bản của var/hub.key."
    )


COMMANDS: tuple[FileCommand, ...] = (
    FileCommand(
        name="backup", params=Backup, run=_backup, render=_say_backup,
        help_vi="Sao lưu sổ cái, cả khi hub đang chạy", help_en="Back the ledger up, also while the hub runs",
    ),
    FileCommand(
        name="backup-key", params=NewKey, run=_new_key, render=_say_new_key,
        help_vi="Tạo khóa sao lưu", help_en="Make a backup key",
    ),
    FileCommand(
        name="restore", params=Restore, run=_restore, render=_say_restore,
        help_vi="Phục hồi từ bản sao lưu; chưa gửi gì cho tới khi release",
        help_en="Restore a backup; nothing is sent until release",
    ),
    FileCommand(
        name="check", params=Check, run=_check,
        help_vi="Kiểm tra sổ cái, hoặc một bản sao lưu", help_en="Check the ledger, or a backup",
    ),
    FileCommand(
        name="move", params=Move, run=_move, render=_say_move,
        help_vi="Chuyển sổ cái từ SQLite sang PostgreSQL; chưa gửi gì cho tới khi release",
        help_en="Move the ledger from SQLite to PostgreSQL; nothing is sent until release",
    ),
)  # fmt: skip
