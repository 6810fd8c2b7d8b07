"""Operator commands: ``unionhub documents list | show | save | quarantine | reparse | resolve``."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from hub.contract import Command, Hub, Report, UnitOfWork
from hub.errors import Conflict, NotFound
from hub.model import Json, from_us

from . import intake, tables
from .edxml import VIETNAM

_ARGUMENT: JsonDict = {"argument": True}


class _Params(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ListParams(_Params):
    state: Literal["received", "registered"] | None = Field(default=None, description="Only documents in this state.")
    limit: int = Field(default=50, ge=1, le=1000, description="How many, newest first.")
    offset: int = Field(default=0, ge=0, description="How many of the newest to leave out.")


class IdParams(_Params):
    id: UUID = Field(description="The document's own id.", json_schema_extra=_ARGUMENT)


class SaveParams(IdParams):
    out: Path = Field(description="Existing folder the attachments are written to.")


class QuarantineParams(_Params):
    pass


class QuarantineIdParams(_Params):
    id: UUID = Field(description="The id shown by documents quarantine.", json_schema_extra=_ARGUMENT)


async def list_documents(hub: Hub, params: ListParams, report: Report) -> Json:
    query = tables.NEWEST_DOCUMENTS_IN_STATE if params.state else tables.NEWEST_DOCUMENTS
    filters = {"state": params.state} if params.state else {}
    found = [_row(row) for row in await hub.fetch(query(limit=params.limit, offset=params.offset, **filters))]
    headers = await _headers(hub, found)
    return {"documents": [_line(row, header) for row, header in zip(found, headers, strict=True)]}


async def show_document(hub: Hub, params: IdParams, report: Report) -> Json:
    row = await _document(hub, params.id)
    (header,) = await _headers(hub, [row])
    attachments = await _attachments(hub, params.id)
    return {
        **_line(row, header),
        "doc_id": row["doc_id"],
        "connection": row["connection"],
        "partner_document_id": row["partner_document_id"],
        "business_type": row["business_type"],
        "priority": row["priority"],
        "due_on": row["due_on"],
        "registered_at": _moment(row["registered_at_us"]),
        "repeats": row["repeats"],
        "differing_repeats": row["differing_repeats"],
        "header": header,
        "attachments": [
            {
                "ordinal": item["ordinal"],
                "name": item["name"],
                "media_type": item["media_type"],
                "size_bytes": item["size_bytes"],
                "sha256": item["sha256"].hex(),
            }
            for item in attachments
        ],
    }


async def save_document(hub: Hub, params: SaveParams, report: Report) -> Json:
    """Writes the attachments under names of our own: a name from a packet never becomes a path."""
    await _document(hub, params.id)
    if not await asyncio.to_thread(params.out.is_dir):
        return {"failed": True, "reason": "folder_missing", "out": str(params.out)}
    saved: list[Json] = []
    for item in await _attachments(hub, params.id):
        path = params.out / f"{params.id}-{item['ordinal']}-{item['sha256'].hex()[:12]}.{item['extension']}"
        rows = await hub.fetch(tables.ATTACHMENT_CONTENT(attachment_id=item["id"]))
        (content,) = await hub.unseal([(str(params.id), rows[0][0])])
        if content is None or hashlib.sha256(content).digest() != item["sha256"]:
            return {"failed": True, "reason": "content_erased" if content is None else "digest_differs"}
        await asyncio.to_thread(_write, path, content)
        saved.append({"file": str(path), "name": item["name"], "size_bytes": len(content)})
    return {"saved": saved}


async def list_quarantine(hub: Hub, params: QuarantineParams, report: Report) -> Json:
    names = ("id", "connection", "doc_id", "reason", "sha256", "size_bytes", "state", "at_us")
    lines: list[Json] = []
    for values in await hub.fetch(tables.QUARANTINES()):
        row = dict(zip(names, values, strict=True))
        lines.append(
            {
                **{name: row[name] for name in ("connection", "doc_id", "reason", "size_bytes", "state")},
                "id": str(UUID(bytes=bytes(row["id"]))),
                "sha256": bytes(row["sha256"]).hex(),
                "at": _moment(row["at_us"]),
            }
        )
    return {"quarantine": lines}


async def reparse(hub: Hub, params: QuarantineIdParams, report: Report) -> Json:
    unit = await intake.read_again(hub, params.id)
    if isinstance(unit, str):
        return {"failed": True, "reason": unit}
    return await _commit(hub, unit, "stored")


async def resolve(hub: Hub, params: QuarantineIdParams, report: Report) -> Json:
    return await _commit(hub, UnitOfWork(guards=(intake.resolve(params.id),)), "resolved")


async def _commit(hub: Hub, unit: UnitOfWork, done: str) -> Json:
    try:
        await hub.commit(unit)
    except Conflict as conflict:
        return {"failed": True, "reason": conflict.otherwise}
    return {done: True}


async def _document(hub: Hub, document_id: UUID) -> dict[str, Any]:
    rows = await hub.fetch(tables.DOCUMENT_BY_ID(document_id=document_id.bytes))
    if not rows:
        raise NotFound(f"no document {document_id}")
    return _row(rows[0])


async def _headers(hub: Hub, rows: Sequence[dict[str, Any]]) -> list[Json]:
    """The sealed headers; empty where the document's content was erased."""
    opened = await hub.unseal([(str(row["id"]), row["header_sealed"]) for row in rows])
    return [orjson.loads(header) if header else {} for header in opened]


async def _attachments(hub: Hub, document_id: UUID) -> list[dict[str, Any]]:
    names = ("id", "ordinal", "name_sealed", "sha256", "size_bytes", "extension", "media_type")
    rows = [
        dict(zip(names, values, strict=True))
        for values in await hub.fetch(tables.ATTACHMENTS_OF(document_id=document_id.bytes))
    ]
    opened = await hub.unseal([(str(document_id), row["name_sealed"]) for row in rows])
    for row, name in zip(rows, opened, strict=True):
        row["name"] = "" if name is None else name.decode()
        row["sha256"] = bytes(row["sha256"])
    return rows


def _row(values: tuple[Any, ...]) -> dict[str, Any]:
    row = dict(zip(tables.DOCUMENT_COLUMNS, values, strict=True))
    row["id"] = UUID(bytes=bytes(row["id"]))
    return row


def _line(row: dict[str, Any], header: Json) -> Json:
    number = row["arrival_number"]
    return {
        "id": str(row["id"]),
        "received_at": _moment(row["received_at_us"]),
        "from_organ_id": row["from_organ_id"],
        "code": f"{row['code_number']}/{row['code_notation']}",
        "promulgated_on": row["promulgated_on"],
        "type_name": row["type_name"],
        "subject_line": header.get("subject", ""),
        "state": row["state"],
        "arrival": None if number is None else f"{number}/{row['arrival_year']}",
        "attachments": row["attachment_count"],
    }


def _moment(us: int | None) -> str | None:
    return None if us is None else from_us(us).astimezone(VIETNAM).isoformat(timespec="seconds")


def _write(path: Path, content: bytes) -> None:
    """Owner-only; our name carries the digest, so an existing file is the same content or a planted one."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def render_list(answer: Json, lang: str) -> str:
    if not answer["documents"]:
        return (
            "Chưa có văn bản đến. Văn bản xuất hiện ở đây sau lần đọc trục kế tiếp: unionhub sync."
            if lang == "vi"
            else "No documents yet. They appear here after the next pull: unionhub sync."
        )
    lines = [
        f"{item['arrival'] or '-':>10}  {item['received_at']}  {item['from_organ_id']:<16}  {item['code']:<20}  "
        f"{item['type_name']:<12}  {item['subject_line'][:60]}  [{item['id']}]"
        for item in answer["documents"]
    ]
    title = (
        "    Số đến  Nhận lúc  Nơi gửi  Số, ký hiệu  Loại  Trích yếu  [mã]"
        if lang == "vi"
        else "   Arrival  Received  From  Code  Type  Subject  [id]"
    )
    return "\n".join([title, *lines])


def _command(
    name: str, vi: str, en: str, params: type[BaseModel], run: Any, *, writes: bool, render: Any = None
) -> Command:
    return Command(
        group="documents", name=name, help_vi=vi, help_en=en, params=params, run=run, writes=writes, render=render
    )


COMMANDS = (
    _command(
        "list", "Liệt kê văn bản đến, mới nhất trước.", "List received documents, newest first.",
        ListParams, list_documents, writes=False, render=render_list,
    ),
    _command(
        "show", "Xem một văn bản và các tệp kèm theo.", "Show one document and its attachments.",
        IdParams, show_document, writes=False,
    ),
    _command(
        "save", "Lưu các tệp kèm theo vào một thư mục.", "Write the attachments to a folder.",
        SaveParams, save_document, writes=False,
    ),
    _command(
        "quarantine", "Liệt kê các gói không đọc được đang giữ.", "List kept packets that could not be read.",
        QuarantineParams, list_quarantine, writes=False,
    ),
    _command(
        "reparse", "Đọc lại một gói đang giữ.", "Read a kept packet again.",
        QuarantineIdParams, reparse, writes=True,
    ),
    _command(
        "resolve", "Đánh dấu một gói đang giữ là đã xử lý.", "Mark a kept packet as dealt with.",
        QuarantineIdParams, resolve, writes=True,
    ),
)  # fmt: skip
