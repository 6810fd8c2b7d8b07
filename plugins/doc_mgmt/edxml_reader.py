"""Reads edXML as senders really write it: junk in front, unbound prefixes, children in any order.

What is tolerated is listed with the real files it comes from; what is hostile (DTD, processing
instructions, bombs) is refused before a tree is built. lxml is imported at first use.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING

from . import archive
from .archive import DEFAULT_LIMITS, Limits
from .edxml import (
    NAMESPACE,
    VIETNAM,
    Attachment,
    Business,
    BusinessType,
    Code,
    Document,
    EdxmlError,
    Organ,
    OtherInfo,
    ReceiverChange,
    Replacement,
    ResponseFor,
    SecretDocument,
    Signer,
    Staff,
    Status,
    StatusCode,
    Trace,
    bears_secrecy_mark,
)

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

#: Without its attachments a packet is a few KiB; a million empty elements would cost 100 MiB of tree.
_MARKUP_BYTES = 2 << 20
#: The start is looked for here; one sample has ten digits of junk.
_JUNK_BYTES = 4096
_START = re.compile(rb"<\?xml|<(?:[A-Za-z_][\w.-]*:)?edXML\b")
_ROOT_TAG = re.compile(rb"<(?:[A-Za-z_][\w.-]*:)?edXML\b")
_DECLARATION = re.compile(rb"<\?xml\b[^>]*?\?>")
_ENCODING = re.compile(rb"encoding\s*=\s*[\"']([\w.-]+)[\"']")
#: Base64 is lifted out before parsing: libxml2 refuses text nodes over 10 MB unless all its limits go.
_BASE64_RUN = re.compile(rb"(ContentTransferEncoded(?:\s[^<>]*)?>)([A-Za-z0-9+/=\s]{4096,})(?=</)")
_INJECTED = b' xmlns:edXML="%s" xmlns:xlink="http://www.w3.org/1999/xlink"' % NAMESPACE.encode()
_UNBOUND_PREFIX = 201  # libxml2 XML_NS_ERR_UNDEFINED_NAMESPACE
_SECRECY_NAMES = re.compile(r"secre|securit|confidential|domat", re.IGNORECASE)
_NOT_SECRET = frozenset({"", "0", "false", "no", "none", "null", "normal", "thường", "thuong", "không", "khong"})
#: People and organisations: a given name "Mật" is no secrecy mark.
_NAME_PARTS = frozenset({"From", "To", "SignerInfo"})


def read_document(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Document:
    """A packet of message type ``edoc``. Raises ``EdxmlError``, ``SecretDocument`` among them."""
    root, lifted = _parse(data, limits)
    header = _message_header(root)
    _refuse_secrecy(root, header)
    info = _one(header, "PromulgationInfo")
    type_ = _one(header, "DocumentType")
    promulgated_on = _date(_text(info, "PromulgationDate"))
    if promulgated_on is None:
        raise EdxmlError("promulgation_date_missing")
    return Document(
        sender=_sender(header),
        receivers=tuple(_organ(item) for item in _all(header, "To")),
        document_id=_id(header, "DocumentId"),
        code=_code(header),
        place=_text(info, "Place"),
        promulgated_on=promulgated_on,
        type_number=_number(type_, "Type"),
        type_detail=_number(type_, "TypeDetail"),
        type_name=_text(type_, "TypeName"),
        subject=_text(header, "Subject"),
        content=_text(header, "Content"),
        signer=_signer(_one(header, "SignerInfo")),
        due_on=_date(_text(header, "DueDate")),
        to_places=tuple(_texts(_one(header, "ToPlaces"), "Place")),
        other=_other(_one(header, "OtherInfo")),
        response_for=tuple(filter(None, map(_response_for, _all(header, "ResponseFor")))),
        steering=_number(header, "SteeringType"),
        traces=tuple(
            Trace(_id(item, "OrganId"), _time(_text(item, "Timestamp"))) for item in _deep(root, "TraceHeader")
        ),
        business=_business(next(_deep(root, "Bussiness"), None)),
        attachments=tuple(_attachments(root, lifted, limits)),
    )


def read_status(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Status:
    """A packet of message type ``status``. Raises ``EdxmlError``."""
    root, _ = _parse(data, limits)
    header = _message_header(root)
    response_for = _response_for(_one(header, "ResponseFor"))
    if response_for is None:
        raise EdxmlError("response_for_missing")
    at = _time(_text(header, "Timestamp"))
    if at is None:
        raise EdxmlError("timestamp_missing")
    try:
        code = StatusCode(_text(header, "StatusCode").zfill(2))
    except ValueError:
        raise EdxmlError("status_code_unknown") from None
    staff = _one(header, "StaffInfo")
    return Status(
        sender=_sender(header),
        response_for=response_for,
        code=code,
        at=at,
        description=_text(header, "Description"),
        staff=None if staff is None else _staff(staff),
    )


# -- from bytes to a tree --------------------------------------------------------------------------


def _parse(data: bytes, limits: Limits) -> tuple[Element, dict[str, bytes]]:
    """The root element, and the base64 runs by the marker that stands in their place."""
    from lxml import etree

    if len(data) > limits.packet_bytes:
        raise EdxmlError("packet_too_large")
    markup, lifted = _lift(_from_start(data))
    if len(markup) > _MARKUP_BYTES:
        raise EdxmlError("packet_too_large")
    _refuse_hostile(markup)
    try:
        root = _tree(markup)
    except etree.XMLSyntaxError as error:
        # The stubs do not know lxml's ``code``.
        if getattr(error, "code", None) != _UNBOUND_PREFIX:
            raise EdxmlError("xml_malformed") from None
        try:
            root = _tree(_ROOT_TAG.sub(lambda tag: tag[0] + _INJECTED, markup, count=1))
        except etree.XMLSyntaxError:
            raise EdxmlError("xml_malformed") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise EdxmlError("xml_forbidden")
    return root, lifted


def _from_start(data: bytes) -> bytes:
    start = _START.search(data, 0, _JUNK_BYTES)
    if start is None:
        raise EdxmlError("not_edxml")
    return data[start.start() :]


def _lift(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    lifted: dict[str, bytes] = {}

    def keep(run: re.Match[bytes]) -> bytes:
        marker = f"lifted-{len(lifted)}"
        lifted[marker] = run[2]
        return run[1] + marker.encode()

    return _BASE64_RUN.sub(keep, data), lifted


def _refuse_hostile(markup: bytes) -> None:
    declaration = _DECLARATION.match(markup)
    rest = markup[declaration.end() :] if declaration else markup
    encoding = _ENCODING.search(declaration[0]) if declaration else None
    # One encoding only, so that the byte tests below see what the parser will see.
    if encoding and encoding[1].lower() not in (b"utf-8", b"utf8", b"us-ascii", b"ascii"):
        raise EdxmlError("encoding_not_utf8")
    if b"<!DOCTYPE" in rest or b"<!ENTITY" in rest or b"<?" in rest:
        raise EdxmlError("xml_forbidden")


def _tree(markup: bytes) -> Element:
    from lxml import etree

    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
    )
    return etree.fromstring(markup, parser)


# -- from the tree to records ----------------------------------------------------------------------


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _all(parent: Element | None, name: str) -> list[Element]:
    """Children by local name: senders disagree about prefixes, and the standard has one namespace."""
    return [] if parent is None else [child for child in parent if _local(child) == name]


def _one(parent: Element | None, name: str) -> Element | None:
    found = _all(parent, name)
    if len(found) > 1:  # two subjects or two codes: nobody could say which one was meant
        raise EdxmlError("element_repeated")
    return found[0] if found else None


def _deep(root: Element, name: str) -> Iterator[Element]:
    return (element for element in root.iter() if _local(element) == name)


def _clean(text: str | None) -> str:
    return unicodedata.normalize("NFC", (text or "").strip())


def _text(parent: Element | None, name: str) -> str:
    element = _one(parent, name)
    return "" if element is None else _clean("".join(map(str, element.itertext())))


def _texts(parent: Element | None, name: str) -> list[str]:
    return [text for item in _all(parent, name) if (text := _clean(item.text))]


def _id(parent: Element | None, name: str) -> str:
    """An identifier; live files carry the literal word null for an absent one."""
    text = _text(parent, name)
    return "" if text.lower() == "null" else text


def _number(parent: Element | None, name: str) -> int | None:
    text = _text(parent, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _date(text: str) -> date | None:
    """``yyyy/MM/dd`` as specified; hyphens and day-first occur in hand-made packets."""
    return next((moment.date() for moment in _moments(text[:10], "%Y/%m/%d", "%Y-%m-%d", "%d/%m/%Y")), None)


def _time(text: str) -> datetime | None:
    return next(_moments(text[:19], "%Y/%m/%d %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M:%S"), None)


def _moments(text: str, *formats: str) -> Iterator[datetime]:
    for form in formats:
        try:
            yield datetime.strptime(text, form).replace(tzinfo=VIETNAM)
        except ValueError:
            continue


def _message_header(root: Element) -> Element:
    if _local(root) != "edXML":
        raise EdxmlError("not_edxml")
    found = list(_deep(root, "MessageHeader"))
    if len(found) != 1:
        raise EdxmlError("message_header_missing" if not found else "element_repeated")
    return found[0]


def _refuse_secrecy(root: Element, header: Element) -> None:
    for part in header:
        if _local(part) in _NAME_PARTS:
            continue
        for element in part.iter():
            text = _clean(element.text)
            named = _SECRECY_NAMES.search(_local(element)) and text.casefold() not in _NOT_SECRET
            if named or bears_secrecy_mark(text):
                raise SecretDocument()
    if any(bears_secrecy_mark(_clean(element.text)) for element in _deep(root, "AttachmentName")):
        raise SecretDocument()


def _sender(header: Element) -> Organ:
    sender = _one(header, "From")
    if sender is None or not _id(sender, "OrganId"):
        raise EdxmlError("sender_missing")
    return _organ(sender)


def _organ(element: Element) -> Organ:
    return Organ(
        organ_id=_id(element, "OrganId"),
        in_charge=_text(element, "OrganizationInCharge"),
        name=_text(element, "OrganName"),
        address=_text(element, "OrganAdd"),
        email=_text(element, "Email"),
        telephone=_text(element, "Telephone"),
        fax=_text(element, "Fax"),
        website=_text(element, "Website"),
    )


def _code(header: Element) -> Code:
    element = _one(header, "Code")
    code = Code(_text(element, "CodeNumber"), _text(element, "CodeNotation"))
    if not code.number and not code.notation:
        raise EdxmlError("code_missing")
    return code


def _signer(element: Element | None) -> Signer | None:
    if element is None:
        return None
    return Signer(
        full_name=_text(element, "FullName"),
        competence=_text(element, "Competence"),
        position=_text(element, "Position"),
    )


def _other(element: Element | None) -> OtherInfo | None:
    if element is None:
        return None
    return OtherInfo(
        priority=_number(element, "Priority") or 0,
        sphere=_text(element, "SphereOfPromulgation"),
        typer_notation=_text(element, "TyperNotation"),
        promulgation_amount=_number(element, "PromulgationAmount"),
        page_amount=_number(element, "PageAmount"),
        appendixes=tuple(_texts(_one(element, "Appendixes"), "Appendix")),
    )


def _response_for(element: Element | None) -> ResponseFor | None:
    """None for the empty element some senders write."""
    if element is None or not _id(element, "OrganId"):
        return None
    return ResponseFor(
        organ_id=_id(element, "OrganId"),
        code=Code.from_text(_text(element, "Code")),
        promulgated_on=_date(_text(element, "PromulgationDate")),
        document_id=_id(element, "DocumentId"),
    )


def _staff(element: Element) -> Staff:
    return Staff(
        name=_text(element, "Staff"),
        staff_id=_id(element, "StaffId"),
        department=_text(element, "Department"),
        department_id=_id(element, "DepartmentId"),
        email=_text(element, "Email"),
        mobile=_text(element, "Mobile"),
    )


def _business(element: Element | None) -> Business:
    """Absent in packets that only bring a new document."""
    number = _number(element, "BussinessDocType")
    if number is not None and number not in set(BusinessType):
        raise EdxmlError("business_type_unknown")
    if element is None:
        return Business()
    change = _one(element, "BussinessDocumentInfo")
    receivers = _all(_one(change, "ReceiverList"), "Receiver")
    replacements = [item for group in _all(element, "ReplacementInfoList") for item in _all(group, "ReplacementInfo")]
    return Business(
        doc_type=BusinessType(number or 0),
        reason=_text(element, "BussinessDocReason"),
        document_id=_id(element, "DocumentId"),
        paper=_text(element, "Paper"),
        staff=tuple(_staff(item) for item in _all(element, "StaffInfo")),
        document_info=_text(change, "DocumentInfo"),
        document_receiver=_text(change, "DocumentReceiver"),
        receivers=tuple(ReceiverChange(_id(item, "OrganId"), _text(item, "ReceiverType") == "1") for item in receivers),
        replacements=tuple(
            Replacement(_id(item, "DocumentId"), tuple(_texts(_one(item, "OrganIdList"), "OrganId")))
            for item in replacements
        ),
    )


def _attachments(root: Element, lifted: dict[str, bytes], limits: Limits) -> Iterator[Attachment]:
    elements = [item for group in _deep(root, "AttachmentEncoded") for item in _all(group, "Attachment")]
    if len(elements) > limits.attachment_count:
        raise EdxmlError("too_many_attachments")
    left = limits.attachment_bytes
    for element in elements:
        encoded = _text(element, "ContentTransferEncoded")
        # Each run is given out once, so that a packet cannot name one run many times.
        run = lifted.pop(encoded, None)
        content = archive.unpack(_base64(run if run is not None else encoded.encode()), left)
        left -= len(content)
        yield Attachment(
            name=_text(element, "AttachmentName"),
            content=content,
            content_id=_text(element, "ContentId"),
            description=_text(element, "Description"),
            content_type=_text(element, "ContentType"),
        )


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise EdxmlError("attachment_not_base64") from None
