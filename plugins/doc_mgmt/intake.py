"""Turns packets into units of work: store once, say 01, keep what cannot be read.

Nothing here talks to the axis, so that a page, a repeat after a crash and a second reading of a quarantined
packet go the same way.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson

from hub.contract import Guard, Hub, Sealed, UnitOfWork
from hub.model import Draft, new_id, to_us
from hub.sql import Statement

from . import archive, schema, tables
from .archive import DEFAULT_LIMITS, Limits
from .edxml import BusinessType, Document, EdxmlError, SecretDocument, StatusCode
from .edxml_reader import read_document
from .schema import KeptAttachment, Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose packet it is: the connection it came through and our own name on that axis."""

    connection: str
    own_organ_id: str
    own_organ_name: str


def identity(hub: Hub, document: Document) -> bytes:
    """What makes two packets one document: sender, number, notation, date and document id.

    A revocation or an update repeats all of these for another purpose, so its type and content count too.
    """
    parts = [
        document.sender.organ_id,
        document.code.number,
        document.code.notation,
        document.promulgated_on.isoformat(),
        document.document_id,
    ]
    if document.business.doc_type is not BusinessType.NEW:
        business = document.business
        parts += [str(int(business.doc_type)), business.document_info, schema.content_digest(document).hex()]
    return hub.keyed_hash("doc_mgmt.identity", "\x1f".join(parts))


@dataclass(slots=True)
class Intake:
    """Gathers what one page brings; ``unit`` is everything of it that must become true together."""

    hub: Hub
    origin: Origin
    limits: Limits = DEFAULT_LIMITS
    guards: list[Guard] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    _identities: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def unit(self) -> UnitOfWork:
        return UnitOfWork(guards=tuple(self.guards), statements=tuple(self.statements), drafts=tuple(self.drafts))

    async def take(self, doc_id: str, raw: bytes) -> str:
        """One fetched packet; answers its verdict: stored | repeated | quarantined | refused."""
        at = self.hub.now()
        try:
            # Inflating and hashing tens of megabytes would stall the loop.
            document = await asyncio.to_thread(read_document, raw, self.limits)
        except EdxmlError as error:
            verdict, reference_id = self._quarantine(doc_id, raw, error, at)
        else:
            verdict, reference_id = await self.keep(doc_id, document, at)
        self.guards.append(Guard(self._packet(doc_id, verdict, reference_id, at), otherwise="packet_seen"))
        self.counts[verdict] = self.counts.get(verdict, 0) + 1
        return verdict

    async def keep(self, doc_id: str, document: Document, at: datetime) -> tuple[str, bytes]:
        """Stores a document unless its identity is known; answers the verdict and the document's id."""
        key = identity(self.hub, document)
        content = schema.content_digest(document)
        known = self._identities.get(key)
        if known is None:
            rows = await self.hub.fetch(tables.DOCUMENT_BY_IDENTITY(identity_hash=key))
            known = (bytes(rows[0][0]), bytes(rows[0][1])) if rows else None
        if known is not None:
            differs = int(known[1] != content)
            self.statements.append(
                tables.COUNT_REPEAT(document_id=known[0], repeats_more=1, differing_more=differs),
            )
            return "repeated", known[0]
        reference = Reference(
            document_id=new_id(),
            doc_id=doc_id,
            connection=self.origin.connection,
            own_organ_id=self.origin.own_organ_id,
            own_organ_name=self.origin.own_organ_name,
            response_for=schema.response_for(document),
        )
        self._identities[key] = (reference.document_id.bytes, content)
        self._store(document, reference, key, content, at)
        return "stored", reference.document_id.bytes

    def _store(self, document: Document, reference: Reference, key: bytes, content: bytes, at: datetime) -> None:
        subject = str(reference.document_id)
        kept = _kept(document)
        row = tables.INSERT_DOCUMENT(
            id=reference.document_id.bytes,
            connection=reference.connection,
            doc_id=reference.doc_id,
            own_organ_id=reference.own_organ_id,
            own_organ_name=reference.own_organ_name,
            identity_hash=key,
            content_sha256=content,
            from_organ_id=document.sender.organ_id,
            code_number=document.code.number,
            code_notation=document.code.notation,
            promulgated_on=document.promulgated_on.isoformat(),
            partner_document_id=document.document_id,
            type_name=document.type_name,
            business_type=int(document.business.doc_type),
            priority=document.other.priority if document.other else 0,
            due_on=document.due_on.isoformat() if document.due_on else None,
            header_sealed=Sealed(subject, orjson.dumps(schema.header(document))),
            attachment_count=len(kept),
            state="received",
            arrival_year=None,
            arrival_number=None,
            received_at_us=to_us(at),
            registered_at_us=None,
            repeats=0,
            differing_repeats=0,
        )
        self.guards.append(Guard(row, otherwise="document_known"))
        for ordinal, item in enumerate(kept, 1):
            self.statements.append(
                tables.INSERT_ATTACHMENT(
                    id=item.id.bytes,
                    document_id=reference.document_id.bytes,
                    ordinal=ordinal,
                    name_sealed=Sealed(subject, item.name.encode()),
                    content_sealed=Sealed(subject, item.content),
                    sha256=item.sha256,
                    size_bytes=len(item.content),
                    extension=item.extension,
                    media_type=item.media_type,
                )
            )
        received = schema.received_draft(document, reference, key, kept, at)
        self.drafts += [received, schema.status_draft(reference, StatusCode.ARRIVED, at, received.id)]

    def _quarantine(self, doc_id: str, raw: bytes, error: EdxmlError, at: datetime) -> tuple[str, bytes]:
        """Keeps a packet no mapping can read yet; of a secret document only that it came."""
        quarantine_id = new_id()
        secret = isinstance(error, SecretDocument)
        self.statements.append(
            tables.INSERT_QUARANTINE(
                id=quarantine_id.bytes,
                connection=self.origin.connection,
                doc_id=doc_id,
                own_organ_id=self.origin.own_organ_id,
                own_organ_name=self.origin.own_organ_name,
                reason=error.code,
                raw_sealed=None if secret else Sealed(str(quarantine_id), raw),
                sha256=hashlib.sha256(raw).digest(),
                size_bytes=len(raw),
                state="kept",
                at_us=to_us(at),
            )
        )
        return "refused" if secret else "quarantined", quarantine_id.bytes

    def _packet(self, doc_id: str, verdict: str, reference_id: bytes, at: datetime) -> Statement:
        return tables.INSERT_PACKET(
            connection=self.origin.connection,
            doc_id=doc_id,
            verdict=verdict,
            reference_id=reference_id,
            seen_at_us=to_us(at),
        )


def _kept(document: Document) -> Sequence[KeptAttachment]:
    kept: list[KeptAttachment] = []
    for attachment in document.attachments:
        extension, media_type = archive.kind(attachment.content)
        kept.append(
            KeptAttachment(
                id=new_id(),
                name=attachment.name,
                content=attachment.content,
                sha256=hashlib.sha256(attachment.content).digest(),
                extension=extension,
                media_type=media_type,
            )
        )
    return kept


async def read_again(hub: Hub, quarantine_id: UUID) -> UnitOfWork | str:
    """Reads a quarantined packet with today's reader: the unit that stores it, or the reason it still cannot be.

    The axis was told "fail" when the packet came; the sender learns from status 01 that it arrived after all.
    """
    rows = await hub.fetch(tables.QUARANTINE_RAW(quarantine_id=quarantine_id.bytes))
    if not rows:
        return "not_found"
    connection, doc_id, own_organ_id, own_organ_name, sealed, state = rows[0]
    if state != "kept":
        return "already_resolved"
    (raw,) = await hub.unseal([(str(quarantine_id), sealed)])
    if raw is None:
        return "content_not_kept"
    try:
        document = await asyncio.to_thread(read_document, raw)
    except EdxmlError as error:
        return error.code
    intake = Intake(hub, Origin(connection=connection, own_organ_id=own_organ_id, own_organ_name=own_organ_name))
    verdict, reference_id = await intake.keep(doc_id, document, hub.now())
    intake.guards.append(resolve(quarantine_id))
    intake.statements.append(
        tables.RESOLVE_PACKET(
            on_connection=connection, of_doc_id=doc_id, new_verdict=verdict, new_reference=reference_id
        )
    )
    return intake.unit()


def resolve(quarantine_id: UUID) -> Guard:
    """Takes a quarantined packet off the list of things to do."""
    return Guard(
        tables.RESOLVE_QUARANTINE(quarantine_id=quarantine_id.bytes, old_state="kept", new_state="resolved"),
        otherwise="already_resolved",
    )
