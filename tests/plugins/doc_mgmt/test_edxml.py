"""The reader takes what senders write, the writer writes what the standard says."""

from __future__ import annotations

import base64
import io
import unicodedata
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.doc_mgmt.archive import Limits
from plugins.doc_mgmt.edxml import (
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
from plugins.doc_mgmt.edxml_reader import read_document, read_status
from plugins.doc_mgmt.edxml_writer import write_document, write_status
from plugins.doc_mgmt.simulator.packets import HABITS, broken_packet, packets, repeated_packet

FULL = Document(
    sender=Organ(
        organ_id="999.00.02.H55",
        in_charge="Tỉnh Mẫu",
        name="Sở Ví Dụ & Cộng sự",
        address="Số 1",
        email="vanthu@vidu.example",
        telephone="02085550000",
        fax="02085550001",
        website="vidu.example",
    ),
    receivers=(Organ(organ_id="999.00.01.H55", name="Công đoàn Ví Dụ"), Organ(organ_id="vxp.saas.03")),
    document_id="999.00.02.H55,2026/11/20,56/LĐLĐ-ToC",
    code=Code("56", "LĐLĐ-ToC"),
    place="Thái Nguyên",
    promulgated_on=date(2026, 11, 20),
    type_number=1,
    type_detail=2,
    type_name="Công văn",
    subject="Về việc tổ chức <hội thao> năm 2026",
    content="Tóm tắt",
    signer=Signer(full_name="Nguyễn Văn Mật", competence="KT.", position="Phó Giám đốc"),
    due_on=date(2026, 12, 1),
    to_places=("Như trên", "Lưu: VT"),
    other=OtherInfo(
        priority=3,
        sphere="Trong tỉnh",
        typer_notation="NVA",
        promulgation_amount=3,
        page_amount=12,
        appendixes=("PL1",),
    ),
    response_for=(
        ResponseFor(
            organ_id="999.00.01.H55", code=Code("7", "CĐ-VP/TC"), promulgated_on=date(2026, 1, 2), document_id="d-7"
        ),
    ),
    steering=2,
    traces=(Trace("999.00.02.H55", datetime(2026, 11, 20, 8, 30, tzinfo=VIETNAM)),),
    business=Business(),
    attachments=(
        Attachment(name="Văn bản.pdf", content=b"%PDF-1.4 mau", content_id="cid:1", content_type="application/zip"),
        Attachment(name="..\\..\\phụ lục", content=b"\x00\x01", content_id="cid:2", content_type="text/plain"),
    ),
)

BUSINESSES = [
    Business(reason="Gửi mới"),
    Business(
        doc_type=BusinessType.REVOKE, reason="Gửi nhầm", staff=(Staff(name="Trần Thị Minh Họa", department="VP"),)
    ),
    Business(
        doc_type=BusinessType.UPDATE,
        document_id="d-1",
        document_info="Sửa ngày",
        document_receiver="Thêm nơi nhận",
        receivers=(ReceiverChange("999.00.05.H55", True), ReceiverChange("999.00.06.H55", False)),
    ),
    Business(
        doc_type=BusinessType.REPLACE,
        paper="1",
        replacements=(Replacement("d-1", ("999.00.01.H55", "999.00.05.H55")), Replacement("d-2", ("H55.242",))),
    ),
]
RESPONSE_FOR = ResponseFor(
    organ_id="999.00.02.H55", code=Code("56", "LĐLĐ-ToC"), promulgated_on=date(2026, 11, 20), document_id="d-1"
)


@pytest.mark.parametrize("business", BUSINESSES, ids=lambda b: b.doc_type.name)
def test_a_document_of_every_business_type_survives_writing_and_reading(business: Business) -> None:
    document = replace(FULL, business=business)
    assert read_document(write_document(document)) == document


@pytest.mark.parametrize("code", list(StatusCode))
def test_each_of_the_nine_statuses_survives_writing_and_reading(code: StatusCode) -> None:
    status = Status(
        sender=Organ(organ_id="999.00.01.H55", name="Công đoàn Ví Dụ"),
        response_for=RESPONSE_FOR,
        code=code,
        at=datetime(2026, 11, 23, 14, 5, 9, tzinfo=VIETNAM),
        description="Đã xử lý",
        staff=Staff(name="Lê Văn Mẫu", staff_id="nv1", department="VP", department_id="p1", email="a@b", mobile="0"),
    )
    assert read_status(write_status(status)) == status


def test_writing_the_same_document_twice_gives_the_same_bytes() -> None:
    assert write_document(FULL) == write_document(FULL)


def test_the_writer_follows_the_sdk_in_order_and_prefixes() -> None:
    written = write_document(FULL)
    header = ET.fromstring(written).find(  # noqa: S314 - our own bytes
        f".//{{{NAMESPACE}}}MessageHeader"
    )
    assert header is not None
    assert [child.tag.partition("}")[2] for child in header] == [
        "From", "To", "To", "DocumentId", "Code", "PromulgationInfo", "DocumentType", "Subject", "Content",
        "SignerInfo", "DueDate", "OtherInfo", "ResponseFor", "SteeringType", "ToPlaces",
    ]  # fmt: skip
    assert f'<edXML xmlns="{NAMESPACE}"><edXML:edXMLEnvelope xmlns:edXML="{NAMESPACE}">'.encode() in written
    assert b"<AttachmentEncoded><Attachment>" in written


def test_times_are_written_in_viet_nam_whatever_zone_they_come_in() -> None:
    at = datetime(2026, 12, 31, 18, 0, tzinfo=UTC)
    status = Status(sender=Organ(organ_id="a"), response_for=RESPONSE_FOR, code=StatusCode.ARRIVED, at=at)
    assert b"<edXML:Timestamp>2027/01/01 01:00:00<" in write_status(status)
    assert read_status(write_status(status)).at == at


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"subject": ""}, "subject_missing"),
        ({"receivers": ()}, "receivers_missing"),
        ({"code": Code("1", "")}, "code_missing"),
        ({"steering": 4}, "steering_unknown"),
        ({"other": OtherInfo(priority=5)}, "priority_unknown"),
        ({"subject": "a\x00b"}, "character_not_allowed"),
        ({"subject": "[TỐI MẬT] Về việc"}, "secrecy_mark"),
    ],
)
def test_the_writer_refuses_what_the_standard_does_not_allow(change: dict[str, object], code: str) -> None:
    with pytest.raises(EdxmlError) as refused:
        write_document(replace(FULL, **change))  # type: ignore[arg-type]  # the table mixes fields
    assert refused.value.code == code


# -- what real senders do --------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(HABITS)), ids=HABITS)
def test_every_habit_of_real_senders_is_read(number: int) -> None:
    (packet,) = packets(seed=3, documents=1, first=number)
    document = read_document(packet.content)
    assert document.document_id == packet.document_id
    assert document.sender.organ_id == packet.sender
    assert document.response_for == ()
    assert [item.content[:5] for item in document.attachments] == [b"%PDF-"] * (2 if number == 7 else 1)


def test_a_relayed_packet_has_one_trace_more_and_the_same_identity() -> None:
    (first,) = packets(seed=3, documents=1)
    relayed, original = read_document(repeated_packet(3).content), read_document(first.content)
    assert replace(relayed, traces=original.traces) == original
    assert relayed.traces[-1] == Trace("", None)


def test_a_packet_cut_off_in_the_middle_is_refused() -> None:
    with pytest.raises(EdxmlError, match="xml_malformed"):
        read_document(broken_packet(3).content)


def test_xlink_is_bound_where_the_sender_forgot_it() -> None:
    packet = write_document(FULL).replace(b"<edXML:Reference>", b'<edXML:Reference xlink:href="cid:1">')
    assert read_document(packet) == FULL


def test_an_attachment_larger_than_a_text_node_may_be_is_read_whole() -> None:
    content = bytes(range(256)) * 60_000
    document = replace(FULL, attachments=(replace(FULL.attachments[0], content=b""),))
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as packed:
        packed.writestr("a.bin", content)
    raw = write_document(document).replace(
        base64.b64encode(_zip_of_empty(write_document(document))), base64.b64encode(stored.getvalue())
    )
    assert len(raw) > 20_000_000
    assert read_document(raw).attachments[0].content == content


def _zip_of_empty(packet: bytes) -> bytes:
    text = packet.partition(b"<ContentTransferEncoded>")[2].partition(b"<")[0]
    return base64.b64decode(text)


def test_one_lifted_attachment_cannot_be_named_a_second_time() -> None:
    run = base64.b64encode(b"x" * 6000)
    attachment = b"<Attachment><AttachmentName>a</AttachmentName><ContentTransferEncoded>%s</ContentTransferEncoded>"
    both = b"</Attachment>".join([attachment % run, attachment % b"lifted-0", b""])
    packet = write_document(replace(FULL, attachments=())).replace(
        b"</edXML>", b"<AttachmentEncoded>" + both + b"</AttachmentEncoded></edXML>"
    )
    with pytest.raises(EdxmlError, match="attachment_not_base64"):
        read_document(packet)


HEADER_START = b"<edXML:MessageHeader>"


def _children(packet: bytes) -> tuple[bytes, list[bytes], bytes]:
    """The packet around its MessageHeader, and the header's children as bytes."""
    before, _, rest = packet.partition(HEADER_START)
    inner, _, after = rest.partition(b"</edXML:MessageHeader>")
    wrapped = b'<edXML:r xmlns:edXML="%s">%s</edXML:r>' % (NAMESPACE.encode(), inner)
    root = ET.fromstring(wrapped)  # noqa: S314 - our own bytes
    ET.register_namespace("edXML", NAMESPACE)
    return before + HEADER_START, [ET.tostring(child) for child in root], b"</edXML:MessageHeader>" + after


BEFORE, CHILDREN, AFTER = _children(write_document(FULL))


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(len(CHILDREN))))
def test_any_order_of_the_header_reads_the_same(order: list[int]) -> None:
    read = read_document(BEFORE + b"".join(CHILDREN[i] for i in order) + AFTER)
    assert set(read.receivers) == set(FULL.receivers)
    assert replace(read, receivers=FULL.receivers) == FULL


_TEXT = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zs", "Zl", "Zp"), exclude_characters="\ufffe\uffff"),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(_TEXT, _TEXT, st.dates(min_value=date(1990, 1, 1)), st.binary(max_size=300))
def test_any_text_date_and_content_survives(subject: str, notation: str, day: date, content: bytes) -> None:
    document = replace(
        FULL,
        subject=subject,
        code=Code("1", notation),
        promulgated_on=day,
        attachments=(replace(FULL.attachments[0], content=content),),
    )
    if bears_secrecy_mark(subject) or bears_secrecy_mark(notation):
        return
    read = read_document(write_document(document))
    assert read.subject == unicodedata.normalize("NFC", subject)
    assert read.code.notation == unicodedata.normalize("NFC", notation)
    assert read.promulgated_on == day
    assert read.attachments[0].content == content


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_packet_is_read_or_refused_with_a_code_and_nothing_else(data: st.DataObject) -> None:
    packet = bytearray(write_document(FULL))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packet) - 1))
        packet[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        read_document(bytes(packet))
    except EdxmlError as refused:
        assert refused.code.replace("_", "").isalnum()


# -- hostile packets -------------------------------------------------------------------------------

BODY = write_document(FULL).partition(b"?>")[2].lstrip()
LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (i, b"&l%d;" % (i - 1) * 10) for i in range(1, 12))
HOSTILE = {
    "external file": b'<?xml version="1.0"?><!DOCTYPE edXML [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + BODY,
    "external dtd": b'<?xml version="1.0"?><!DOCTYPE edXML SYSTEM "http://127.0.0.1:9/x.dtd">' + BODY,
    "parameter entity": b'<?xml version="1.0"?><!DOCTYPE edXML [<!ENTITY % p SYSTEM "file:///etc/hosts"> %p;]>' + BODY,
    "laughs": b'<?xml version="1.0"?><!DOCTYPE edXML [<!ENTITY l0 "ha">' + LAUGHS + b"]>" + BODY,
    "empty dtd": b'<?xml version="1.0"?><!DOCTYPE edXML>' + BODY,
    "processing instruction": b'<?xml version="1.0"?><?xml-stylesheet href="x"?>' + BODY,
    "instruction inside": BODY.replace(HEADER_START, HEADER_START + b"<?php evil ?>"),
    "dtd after junk": b"123<?xml version='1.0'?><!DOCTYPE edXML [<!ENTITY x 'y'>]>" + BODY,
}


@pytest.mark.parametrize("packet", HOSTILE.values(), ids=HOSTILE.keys())
def test_dtds_entities_and_instructions_are_refused_outright(packet: bytes) -> None:
    with pytest.raises(EdxmlError, match="xml_forbidden"):
        read_document(packet)


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"", "not_edxml"),
        (b"<html/>", "not_edxml"),
        (b" " * 5000 + BODY, "not_edxml"),
        (b'<?xml version="1.0" encoding="UTF-7"?>' + BODY, "encoding_not_utf8"),
        (b'<?xml version="1.0" encoding="utf-16"?>' + BODY, "encoding_not_utf8"),
        (("\ufeff" + BODY.decode()).encode("utf-16"), "not_edxml"),
        (BODY + BODY, "xml_malformed"),
        (b"<edXML>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</edXML>", "xml_malformed"),
        (b"<edXML>" + b"<a/>" * 600_000 + b"</edXML>", "packet_too_large"),
        (BODY.replace("Sở".encode(), b"\xff\xfe"), "xml_malformed"),
        (BODY.replace(HEADER_START, HEADER_START + b"<edXML:Subject>hai</edXML:Subject>"), "element_repeated"),
        (BODY.replace(b"edXML:MessageHeader>", b"edXML:Other>"), "message_header_missing"),
        (BODY.replace(b"999.00.02.H55</edXML:OrganId><edXML:Organization", b"null</edXML:OrganId><edXML:Organization"),
         "sender_missing"),
        (BODY.replace(b"PromulgationDate>2026/11/20", b"PromulgationDate>2026/13/45"), "promulgation_date_missing"),
        (BODY.replace(b"BussinessDocType>0", b"BussinessDocType>9"), "business_type_unknown"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_reason(packet: bytes, code: str) -> None:
    with pytest.raises(EdxmlError) as refused:
        read_document(packet)
    assert refused.value.code == code


def test_limits_hold_for_the_packet_and_for_all_attachments_together() -> None:
    packet = write_document(replace(FULL, attachments=FULL.attachments[:1] * 3))
    size = len(FULL.attachments[0].content)
    for limits, code in (
        (Limits(packet_bytes=len(packet) - 1), "packet_too_large"),
        (Limits(attachment_bytes=3 * size - 1), "attachment_too_large"),
        (Limits(attachment_count=2), "too_many_attachments"),
    ):
        with pytest.raises(EdxmlError, match=code):
            read_document(packet, limits)
    assert len(read_document(packet, Limits(attachment_bytes=3 * size)).attachments) == 3


@pytest.mark.parametrize(
    "text", ["Mật", "TỐI MẬT", "(Tuyệt mật)", "[MẬT] Về việc", "Tối mật: kế hoạch", "ĐỘ MẬT: TỐI MẬT", "[TOI MAT] V/v"]
)
def test_a_secrecy_mark_is_seen_alone_or_in_front(text: str) -> None:
    assert bears_secrecy_mark(text)
    with pytest.raises(SecretDocument):
        read_document(BODY.replace(b"<edXML:TyperNotation>NVA", b"<edXML:TyperNotation>" + text.encode()))
    with pytest.raises(SecretDocument):
        read_document(BODY.replace(b"<edXML:Subject>", b"<edXML:Subject>[M\xe1\xba\xacT] "))


@pytest.mark.parametrize(
    "text", ["Về bảo mật thông tin", "Mật ong rừng", "Nguyễn Văn Mật", "Độ mật: thường", "Không mật", "mật độ dân số"]
)
def test_ordinary_words_are_no_secrecy_mark(text: str) -> None:
    assert not bears_secrecy_mark(text)


def test_a_secrecy_element_no_standard_knows_is_taken_seriously() -> None:
    marked = BODY.replace(b"<edXML:Priority>", b"<edXML:SecurityLevel>2</edXML:SecurityLevel><edXML:Priority>")
    with pytest.raises(SecretDocument):
        read_document(marked)
    assert read_document(marked.replace(b"SecurityLevel>2", b"SecurityLevel>0")) == FULL
