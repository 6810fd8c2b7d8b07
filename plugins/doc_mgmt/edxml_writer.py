"""Writes edXML strictly, in the SDK's order of elements, byte for byte the same for the same record.

Source: axis SDK 2.0; the default namespace stands on the root and the prefix on the envelope, as its
samples have it, because receivers are known that match on prefixes.
"""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

from .edxml import (
    NAMESPACE,
    PRIORITIES,
    STEERING_TYPES,
    VIETNAM,
    Attachment,
    Business,
    Code,
    Document,
    EdxmlError,
    Organ,
    OtherInfo,
    ResponseFor,
    SecretDocument,
    Staff,
    Status,
    bears_secrecy_mark,
)

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Zip entries get this fixed date: the same document is the same bytes whenever it is written.
_ENTRY_DATE = (1980, 1, 1, 0, 0, 0)


def write_document(document: Document) -> bytes:
    """A packet of message type ``edoc``. Raises ``EdxmlError`` for what the standard does not allow."""
    _check_document(document)
    xml = _Xml()
    with xml.root():
        with xml.tag("edXMLEnvelope"):
            with xml.tag("edXMLHeader"):
                with xml.tag("MessageHeader"):
                    _message_header(xml, document)
                with xml.tag("TraceHeaderList"):
                    for trace in document.traces:
                        with xml.tag("TraceHeader"):
                            xml.text("OrganId", trace.organ_id)
                            xml.text("Timestamp", _time(trace.at) if trace.at else "", optional=True)
                    _business(xml, document.business)
            with xml.tag("edXMLBody"), xml.tag("edXMLManifest", {"version": "1.0"}):
                for number, attachment in enumerate(document.attachments, 1):
                    with xml.tag("Reference"):
                        _attachment_head(xml, attachment, number)
        if document.attachments:
            xml.bare = True
            with xml.tag("AttachmentEncoded"):
                for number, attachment in enumerate(document.attachments, 1):
                    with xml.tag("Attachment"):
                        _attachment_head(xml, attachment, number)
                        xml.text("ContentTransferEncoded", _packed(attachment, number))
    return xml.done()


def write_status(status: Status) -> bytes:
    """A packet of message type ``status``: no receiver element, no body."""
    if not status.sender.organ_id or not status.response_for.organ_id:
        raise EdxmlError("sender_missing")
    xml = _Xml()
    with xml.root(), xml.tag("edXMLEnvelope"), xml.tag("edXMLHeader"), xml.tag("MessageHeader"):
        _organ(xml, "From", status.sender)
        _response_for(xml, status.response_for)
        if status.staff:
            _staff(xml, status.staff)
        xml.text("StatusCode", status.code)
        xml.text("Description", status.description, optional=True)
        xml.text("Timestamp", _time(status.at))
    return xml.done()


def _check_document(document: Document) -> None:
    required = {
        "sender_missing": document.sender.organ_id,
        "receivers_missing": document.receivers,
        "document_id_missing": document.document_id,
        "code_missing": document.code.number and document.code.notation,
        "subject_missing": document.subject,
        "type_name_missing": document.type_name,
        "traces_missing": document.traces,
    }
    for code, value in required.items():
        if not value:
            raise EdxmlError(code)
    if document.other and document.other.priority not in PRIORITIES:
        raise EdxmlError("priority_unknown")
    if document.steering is not None and document.steering not in STEERING_TYPES:
        raise EdxmlError("steering_unknown")
    if any(map(bears_secrecy_mark, (document.subject, document.content, document.type_name))):
        raise SecretDocument()


class _Xml:
    """A SAX writer with the prefix rule: everything in the envelope is prefixed, attachments are not."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._sax = XMLGenerator(self._out, "utf-8")
        self._sax.startDocument()
        self.bare = False

    @contextmanager
    def root(self) -> Iterator[None]:
        self._sax.startElement("edXML", AttributesImpl({"xmlns": NAMESPACE}))
        yield
        self._sax.endElement("edXML")

    @contextmanager
    def tag(self, name: str, attributes: dict[str, str] | None = None) -> Iterator[None]:
        full = name if self.bare else f"edXML:{name}"
        extra = {"xmlns:edXML": NAMESPACE} if name == "edXMLEnvelope" else {}
        self._sax.startElement(full, AttributesImpl(extra | (attributes or {})))
        yield
        self._sax.endElement(full)

    def text(self, name: str, value: str, *, optional: bool = False) -> None:
        """One element with text; an empty ``optional`` one is left out."""
        if optional and not value:
            return
        if _ILLEGAL.search(value):
            raise EdxmlError("character_not_allowed")
        with self.tag(name):
            self._sax.characters(value)

    def number(self, name: str, value: int | None) -> None:
        self.text(name, "" if value is None else str(value), optional=True)

    def texts(self, outer: str, inner: str, values: Iterable[str]) -> None:
        if values:
            with self.tag(outer):
                for value in values:
                    self.text(inner, value)

    def done(self) -> bytes:
        self._sax.endDocument()
        return self._out.getvalue()


def _date(day: date | None) -> str:
    return f"{day:%Y/%m/%d}" if day else ""


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(VIETNAM):%Y/%m/%d %H:%M:%S}"


def _message_header(xml: _Xml, document: Document) -> None:
    _organ(xml, "From", document.sender)
    for receiver in document.receivers:
        _organ(xml, "To", receiver)
    xml.text("DocumentId", document.document_id)
    with xml.tag("Code"):
        xml.text("CodeNumber", document.code.number)
        xml.text("CodeNotation", document.code.notation)
    with xml.tag("PromulgationInfo"):
        xml.text("Place", document.place)
        xml.text("PromulgationDate", _date(document.promulgated_on))
    with xml.tag("DocumentType"):
        xml.number("Type", document.type_number)
        xml.number("TypeDetail", document.type_detail)
        xml.text("TypeName", document.type_name)
    xml.text("Subject", document.subject)
    xml.text("Content", document.content, optional=True)
    if document.signer:
        with xml.tag("SignerInfo"):
            xml.text("Competence", document.signer.competence, optional=True)
            xml.text("Position", document.signer.position, optional=True)
            xml.text("FullName", document.signer.full_name)
    xml.text("DueDate", _date(document.due_on), optional=True)
    if document.other:
        _other(xml, document.other)
    for response_for in document.response_for:
        _response_for(xml, response_for)
    xml.number("SteeringType", document.steering)
    xml.texts("ToPlaces", "Place", document.to_places)


def _organ(xml: _Xml, name: str, organ: Organ) -> None:
    with xml.tag(name):
        xml.text("OrganId", organ.organ_id)
        for element, value in (
            ("OrganizationInCharge", organ.in_charge),
            ("OrganName", organ.name),
            ("OrganAdd", organ.address),
            ("Email", organ.email),
            ("Telephone", organ.telephone),
            ("Fax", organ.fax),
            ("Website", organ.website),
        ):
            xml.text(element, value, optional=True)


def _other(xml: _Xml, other: OtherInfo) -> None:
    with xml.tag("OtherInfo"):
        xml.number("Priority", other.priority)
        xml.text("SphereOfPromulgation", other.sphere, optional=True)
        xml.text("TyperNotation", other.typer_notation, optional=True)
        xml.number("PromulgationAmount", other.promulgation_amount)
        xml.number("PageAmount", other.page_amount)
        xml.texts("Appendixes", "Appendix", other.appendixes)


def _response_for(xml: _Xml, response_for: ResponseFor) -> None:
    with xml.tag("ResponseFor"):
        xml.text("OrganId", response_for.organ_id)
        xml.text("Code", _code_text(response_for.code))
        xml.text("PromulgationDate", _date(response_for.promulgated_on))
        xml.text("DocumentId", response_for.document_id)


def _code_text(code: Code) -> str:
    return code.text if code.notation else code.number


def _staff(xml: _Xml, staff: Staff) -> None:
    with xml.tag("StaffInfo"):
        for element, value in (
            ("Department", staff.department),
            ("DepartmentId", staff.department_id),
            ("Staff", staff.name),
            ("StaffId", staff.staff_id),
            ("Email", staff.email),
            ("Mobile", staff.mobile),
        ):
            xml.text(element, value, optional=True)


def _business(xml: _Xml, business: Business) -> None:
    with xml.tag("Bussiness"):
        xml.text("DocumentId", business.document_id, optional=True)
        xml.number("BussinessDocType", business.doc_type)
        xml.text("BussinessDocReason", business.reason, optional=True)
        xml.text("Paper", business.paper, optional=True)
        for staff in business.staff:
            _staff(xml, staff)
        if business.document_info or business.document_receiver or business.receivers:
            with xml.tag("BussinessDocumentInfo"):
                xml.text("DocumentInfo", business.document_info)
                xml.text("DocumentReceiver", business.document_receiver)
                with xml.tag("ReceiverList"):
                    for receiver in business.receivers:
                        with xml.tag("Receiver"):
                            xml.text("OrganId", receiver.organ_id)
                            xml.text("ReceiverType", "1" if receiver.added else "0")
        if business.replacements:
            with xml.tag("ReplacementInfoList"):
                for replacement in business.replacements:
                    with xml.tag("ReplacementInfo"):
                        xml.text("DocumentId", replacement.document_id)
                        xml.texts("OrganIdList", "OrganId", replacement.organ_ids)


def _attachment_head(xml: _Xml, attachment: Attachment, number: int) -> None:
    content_id = attachment.content_id or f"cid:attachment-{number}"
    if xml.bare:
        xml.text("ContentId", content_id)
        xml.text("AttachmentName", attachment.name)
        xml.text("Description", attachment.description, optional=True)
        xml.text("ContentType", attachment.content_type or "application/zip")
    else:
        xml.text("ContentId", content_id)
        xml.text("ContentType", attachment.content_type or "application/zip")
        xml.text("Description", attachment.description, optional=True)
        xml.text("AttachmentName", attachment.name)


def _packed(attachment: Attachment, number: int) -> str:
    """Base64 of a ZIP with one entry, named by us: the real name is AttachmentName."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        extension = "".join(char for char in attachment.name.rpartition(".")[2] if char.isalnum() and char.isascii())
        entry = zipfile.ZipInfo(f"attachment-{number}.{extension or 'bin'}", _ENTRY_DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        packed.writestr(entry, attachment.content)
    return base64.b64encode(buffer.getvalue()).decode()
