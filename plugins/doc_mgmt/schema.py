"""The plugin's event types, and the pure mapping between packets and drafts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from hub.contract import EventType
from hub.model import Draft, Json, Priority

from .edxml import VIETNAM, Code, Document, Organ, ResponseFor, Status, StatusCode
from .edxml_writer import write_status

RECEIVED = "vn.congdoan.document.received.v1"
STATUS_ISSUED = "vn.congdoan.document.status-issued.v1"

_UUID = {"type": "string", "format": "uuid"}
_DAY = {"type": "string", "format": "date"}


def _object(properties: Json, optional: Sequence[str] = ()) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


EVENT_TYPES = (
    EventType(
        name=RECEIVED,
        title_vi="Đã nhận văn bản đến",
        title_en="Document received",
        # The trích yếu may name a person ("Về việc nâng lương ông ...").
        personal=True,
        thin=("document_id", "doc_id", "from_organ_id", "code", "promulgated_on", "attachment_count"),
        schema=_object(
            {
                "document_id": _UUID,
                "doc_id": {"type": "string"},
                "from_organ_id": {"type": "string", "maxLength": 64},
                "from_organ_name": {"type": "string"},
                "code": {"type": "string"},
                "promulgated_on": _DAY,
                "partner_document_id": {"type": "string"},
                "business_type": {"enum": [0, 1, 2, 3]},
                "type_name": {"type": "string"},
                "subject_line": {"type": "string"},
                "priority": {"type": "integer"},
                "due_on": _DAY,
                "attachment_count": {"type": "integer"},
                "attachments": {
                    "type": "array",
                    "items": _object(
                        {
                            "id": _UUID,
                            "sha256": {"type": "string"},
                            "size_bytes": {"type": "integer"},
                            "media_type": {"type": "string"},
                        }
                    ),
                },
            },
            optional=("due_on",),
        ),
        example={
            "document_id": "01981f00-0000-7000-8000-000000000001",
            "doc_id": "axis-000123",
            "from_organ_id": "999.00.02.H55",
            "from_organ_name": "Cơ quan ví dụ",
            "code": "56/LĐLĐ-ToC",
            "promulgated_on": "2026-11-20",
            "partner_document_id": "5e0f4c1e-8f0e-4f39-9f8e-1d5f2b1c7a10",
            "business_type": 0,
            "type_name": "Công văn",
            "subject_line": "Về việc tổ chức hội thao năm 2026",
            "priority": 0,
            "attachment_count": 1,
            "attachments": [
                {
                    "id": "01981f00-0000-7000-8000-000000000002",
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "size_bytes": 48213,
                    "media_type": "application/pdf",
                }
            ],
        },
    ),
    EventType(
        name=STATUS_ISSUED,
        title_vi="Đã lập trạng thái xử lý văn bản",
        title_en="Document status issued",
        personal=False,
        thin=("document_id", "doc_id", "status_code", "sender", "response_for", "timestamp"),
        schema=_object(
            {
                "document_id": _UUID,
                "doc_id": {"type": "string"},
                "status_code": {"enum": [code.value for code in StatusCode]},
                "sender": _object({"organ_id": {"type": "string"}, "organ_name": {"type": "string"}}),
                "response_for": _object(
                    {
                        "organ_id": {"type": "string"},
                        "code": {"type": "string"},
                        "promulgation_date": _DAY,
                        "document_id": {"type": "string"},
                    }
                ),
                "timestamp": {"type": "string", "format": "date-time"},
            }
        ),
        example={
            "document_id": "01981f00-0000-7000-8000-000000000001",
            "doc_id": "axis-000123",
            "status_code": "01",
            "sender": {"organ_id": "999.00.01.H55", "organ_name": "Công đoàn ví dụ"},
            "response_for": {
                "organ_id": "999.00.02.H55",
                "code": "56/LĐLĐ-ToC",
                "promulgation_date": "2026-11-20",
                "document_id": "5e0f4c1e-8f0e-4f39-9f8e-1d5f2b1c7a10",
            },
            "timestamp": "2026-11-23T14:05:09+07:00",
        },
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAttachment:
    """An attachment with the id and the digest it is stored under."""

    id: UUID
    name: str
    content: bytes
    sha256: bytes
    extension: str
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a status needs to say which document it speaks about, and who speaks."""

    document_id: UUID
    doc_id: str
    connection: str
    own_organ_id: str
    own_organ_name: str
    response_for: ResponseFor

    @property
    def source(self) -> str:
        """As the hub marks what a connection brings, so that a handler's drafts share its dedupe keys."""
        return f"/connections/{self.connection}"


def response_for(document: Document) -> ResponseFor:
    return ResponseFor(
        organ_id=document.sender.organ_id,
        code=document.code,
        promulgated_on=document.promulgated_on,
        document_id=document.document_id,
    )


def content_digest(document: Document) -> bytes:
    """Tells a true repeat from another content under the same identity."""
    digest = hashlib.sha256(document.subject.encode())
    for attachment in document.attachments:
        digest.update(b"\0" + hashlib.sha256(attachment.content).digest())
    return digest.digest()


def header(document: Document) -> Json:
    """Everything of the packet but the contents, for the sealed column."""
    fields: dict[str, Any] = asdict(document)
    fields["attachments"] = [
        {"name": item.name, "description": item.description, "content_type": item.content_type}
        for item in document.attachments
    ]
    return fields


def received_draft(
    document: Document, reference: Reference, identity: bytes, kept: Sequence[KeptAttachment], at: datetime
) -> Draft:
    data: Json = {
        "document_id": str(reference.document_id),
        "doc_id": reference.doc_id,
        "from_organ_id": document.sender.organ_id,
        "from_organ_name": document.sender.name,
        "code": document.code.text,
        "promulgated_on": document.promulgated_on.isoformat(),
        "partner_document_id": document.document_id,
        "business_type": int(document.business.doc_type),
        "type_name": document.type_name,
        "subject_line": document.subject,
        "priority": document.other.priority if document.other else 0,
        "attachment_count": len(kept),
        "attachments": [
            {
                "id": str(item.id),
                "sha256": item.sha256.hex(),
                "size_bytes": len(item.content),
                "media_type": item.media_type,
            }
            for item in kept
        ],
    }
    if document.due_on:
        data["due_on"] = document.due_on.isoformat()
    return Draft(
        type=RECEIVED,
        source=reference.source,
        dedupe_key=f"document:{identity.hex()}",
        same_as=identity,
        subject=str(reference.document_id),
        ordering_key=str(reference.document_id),
        occurred_at=at,
        # Hỏa tốc waits for nobody.
        priority=Priority.URGENT if data["priority"] >= 3 else Priority.NORMAL,
        data=data,
    )


def status_draft(reference: Reference, code: StatusCode, at: datetime, correlation_id: UUID | None) -> Draft:
    """A status we owe the sender. One per document and code; ordered per document, so 01 leaves before 03."""
    about = reference.response_for
    return Draft(
        type=STATUS_ISSUED,
        source=reference.source,
        dedupe_key=f"status:{reference.document_id}:{code.value}",
        same_as=f"{reference.document_id}:{code.value}".encode(),
        subject=str(reference.document_id),
        ordering_key=str(reference.document_id),
        occurred_at=at,
        correlation_id=correlation_id,
        data={
            "document_id": str(reference.document_id),
            "doc_id": reference.doc_id,
            "status_code": code.value,
            "sender": {"organ_id": reference.own_organ_id, "organ_name": reference.own_organ_name},
            "response_for": {
                "organ_id": about.organ_id,
                "code": about.code.text,
                "promulgation_date": about.promulgated_on.isoformat() if about.promulgated_on else "",
                "document_id": about.document_id,
            },
            "timestamp": at.astimezone(VIETNAM).isoformat(timespec="seconds"),
        },
    )


def status_packet(data: Json) -> bytes:
    """The status packet of a status-issued event: a pure function of its data, the time included."""
    about = data["response_for"]
    promulgated = about["promulgation_date"]
    return write_status(
        Status(
            sender=Organ(organ_id=data["sender"]["organ_id"], name=data["sender"]["organ_name"]),
            response_for=ResponseFor(
                organ_id=about["organ_id"],
                code=Code.from_text(about["code"]),
                promulgated_on=date.fromisoformat(promulgated) if promulgated else None,
                document_id=about["document_id"],
            ),
            code=StatusCode(data["status_code"]),
            at=datetime.fromisoformat(data["timestamp"]),
        )
    )
