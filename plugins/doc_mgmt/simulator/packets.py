"""Invented packets of the simulated axis, with the habits real senders have.

Built from text templates, independently of the plugin's codec, so that a misreading of the format cannot
hide in both. Organisations, people and texts are invented.
"""

from __future__ import annotations

import base64
import io
import random
import uuid
import zipfile
from dataclasses import dataclass
from xml.sax.saxutils import escape

NAMESPACE = "http://www.mic.gov.vn/TBT/QCVN_102_2016"
RECEIVER = "999.00.01.H55"

#: One per packet in turn; the names are shown by the control port.
HABITS = (
    "plain",
    "junk_prefix",
    "unbound_prefix",
    "raw_pdf",
    "empty_response_for",
    "document_id_last",
    "comma_document_id",
    "two_attachments",
)

_SENDERS = (
    ("999.00.02.H55", "Sở Ví Dụ tỉnh"),
    ("999.00.03.H55", "Ủy ban nhân dân phường Mẫu"),
    ("999.00.04.G99", "Cơ quan Minh Họa trung ương"),
)
_TYPES = (("Công văn", "UBND-VX"), ("Kế hoạch", "KH-LĐLĐ"), ("Quyết định", "QĐ-UBND"), ("Thông báo", "TB-SVD"))
_SUBJECTS = (
    "Về việc tổ chức hội thao công nhân, viên chức, lao động",
    "Về việc rà soát nhu cầu nhà ở của công nhân khu công nghiệp",
    "Triển khai Tháng Công nhân và Tháng hành động về an toàn, vệ sinh lao động",
    "Về việc cung cấp số liệu đoàn viên & lao động quý <III>",
)
_SIGNERS = ("Nguyễn Văn Ví Dụ", "Trần Thị Minh Họa", "Lê Văn Mẫu")


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet on the axis. ``document_id`` is "" where nothing in it can be read."""

    doc_id: str
    document_id: str
    sender: str
    habit: str
    content: bytes


def packets(seed: int, documents: int, first: int = 0) -> list[Packet]:
    """``documents`` readable packets numbered from ``first``; the same arguments give the same bytes."""
    return [_packet(seed, number) for number in range(first, first + documents)]


def broken_packet(seed: int) -> Packet:
    """Cut off in the middle of a tag: beyond repair."""
    whole = _packet(seed, 900_000)
    cut = whole.content.index(b"PromulgationDate")
    return Packet(_doc_id(seed, 900_000), "", whole.sender, "broken", whole.content[:cut])


def repeated_packet(seed: int) -> Packet:
    """Document 0 once more under another docId, as after a relay: one TraceHeader longer."""
    first = _packet(seed, 0)
    relay = "<edXML:TraceHeader><edXML:OrganId>null</edXML:OrganId></edXML:TraceHeader></edXML:TraceHeaderList>"
    content = first.content.replace(b"</edXML:TraceHeaderList>", relay.encode())
    return Packet(_doc_id(seed, 900_001), first.document_id, first.sender, "repeated", content)


def _doc_id(seed: int, number: int) -> str:
    return f"SIM{seed}-{number:06d}"


def _packet(seed: int, number: int) -> Packet:
    dice = random.Random(f"{seed}/{number}")
    habit = HABITS[number % len(HABITS)]
    organ_id, organ_name = dice.choice(_SENDERS)
    type_name, notation = dice.choice(_TYPES)
    day = f"2026/{dice.randint(1, 11):02d}/{dice.randint(1, 28):02d}"
    code = (str(number + 1), notation)
    document_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
    if habit == "comma_document_id":
        document_id = f"{organ_id},{day},{code[0]}/{code[1]}"
    header = _header(dice, habit, (organ_id, organ_name), document_id, code, day, type_name)
    files = [_pdf(f"{seed}-{number}")] + ([_pdf(f"{seed}-{number}-b")] if habit == "two_attachments" else [])
    text = _envelope(header, organ_id, day, habit, files, dice)
    content = text.encode()
    if habit == "junk_prefix":
        content = b"0000012345" + content
    return Packet(_doc_id(seed, number), document_id, organ_id, habit, content)


def _header(
    dice: random.Random,
    habit: str,
    sender: tuple[str, str],
    document_id: str,
    code: tuple[str, str],
    day: str,
    type_name: str,
) -> str:
    name = "" if habit == "document_id_last" else _tag("OrganName", escape(sender[1]))
    parts = {
        "From": _tag("From", _tag("OrganId", sender[0]) + name),
        "To": _tag("To", _tag("OrganId", RECEIVER) + _tag("OrganName", "Công đoàn Ví Dụ")),
        "DocumentId": _tag("DocumentId", escape(document_id)),
        "Code": _tag("Code", _tag("CodeNumber", code[0]) + _tag("CodeNotation", escape(code[1]))),
        "PromulgationInfo": _tag("PromulgationInfo", _tag("Place", "Thái Nguyên") + _tag("PromulgationDate", day)),
        "DocumentType": _tag("DocumentType", _tag("Type", "1") + _tag("TypeName", type_name)),
        "Subject": _tag("Subject", escape(dice.choice(_SUBJECTS))),
        "SignerInfo": _tag("SignerInfo", _tag("Competence", "KT.") + _tag("FullName", dice.choice(_SIGNERS))),
        "OtherInfo": _tag("OtherInfo", _tag("Priority", str(dice.choice((0, 0, 0, 1, 3)))) + _tag("PageAmount", "2")),
    }
    if habit == "empty_response_for":
        parts["ResponseFor"] = "<edXML:ResponseFor/>"
    order = list(parts)
    if habit == "document_id_last":
        dice.shuffle(order)
        order.remove("DocumentId")
        order.append("DocumentId")
    return _tag("MessageHeader", "".join(parts[item] for item in order))


def _envelope(header: str, organ_id: str, day: str, habit: str, files: list[bytes], dice: random.Random) -> str:
    trace_organ = "null" if habit == "empty_response_for" else organ_id
    trace = _tag("TraceHeader", _tag("OrganId", trace_organ) + _tag("Timestamp", f"{day} 08:30:00"))
    business = "" if habit == "raw_pdf" else _tag("Bussiness", _tag("BussinessDocType", "0"))
    references, attachments = "", ""
    # The type written here is a habit of the sender too: nothing may be decided by it.
    content_type = dice.choice(("application/zip", "application/pdf", "text/plain"))
    for number, content in enumerate(files, 1):
        head = f"cid:{number}", f"Văn bản số {number} (bản ký).pdf"
        references += _tag(
            "Reference",
            _tag("ContentId", head[0]) + _tag("ContentType", content_type) + _tag("AttachmentName", head[1]),
        )
        packed = content if habit == "raw_pdf" else _zipped(content, dice)
        attachments += (
            f"<Attachment><ContentId>{head[0]}</ContentId><AttachmentName>{head[1]}</AttachmentName>"
            f"<ContentType>{content_type}</ContentType>"
            f"<ContentTransferEncoded>{base64.b64encode(packed).decode()}</ContentTransferEncoded></Attachment>"
        )
    outer = "edXML:AttachmentEncoded" if habit == "unbound_prefix" else "AttachmentEncoded"
    body = _tag("edXMLBody", f'<edXML:edXMLManifest version="1.0">{references}</edXML:edXMLManifest>')
    headers = _tag("edXMLHeader", header + _tag("TraceHeaderList", trace + business))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<edXML xmlns="{NAMESPACE}">'
        f'<edXML:edXMLEnvelope xmlns:edXML="{NAMESPACE}">{headers}{body}</edXML:edXMLEnvelope>'
        f"<{outer}>{attachments}</{outer}></edXML>\n"
    )


def _tag(name: str, inner: str) -> str:
    return f"<edXML:{name}>{inner}</edXML:{name}>"


def _zipped(content: bytes, dice: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        name = zipfile.ZipInfo(f"{uuid.UUID(int=dice.getrandbits(128), version=4)}.pdf", (2026, 1, 1, 0, 0, 0))
        name.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(name, content)
    return buffer.getvalue()


def _pdf(label: str) -> bytes:
    """The smallest file a PDF reader opens, with an empty page; ``label`` makes each another one."""
    body = b"%%PDF-1.4\n%% mau %s\n" % label.encode()
    offsets = []
    for number, text in enumerate(
        (
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>",
        ),
        1,
    ):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return body + b"xref\n0 4\n0000000000 65535 f \n%strailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        table,
        len(body),
    )
