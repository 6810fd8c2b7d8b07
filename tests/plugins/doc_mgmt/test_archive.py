"""Attachments are zipped by strangers: counts, ratios, sizes and checksums decide before anything is kept."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Sequence

import pytest

from plugins.doc_mgmt.archive import kind, unpack
from plugins.doc_mgmt.edxml import EdxmlError

PDF = b"%PDF-1.4\n" + b"noi dung " * 50
LIMIT = 8 << 20


def zipped(entries: Sequence[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content, compress_type=method)
    return buffer.getvalue()


def _link() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("lien-ket.pdf")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link


def _patched(data: bytes, central_offset: int, form: str, value: int, local_offset: int | None = None) -> bytes:
    """``data`` with one field of the central header (and of the local one) changed."""
    changed = bytearray(data)
    struct.pack_into(form, changed, data.index(b"PK\x01\x02") + central_offset, value)
    if local_offset is not None:
        struct.pack_into(form, changed, local_offset, value)
    return bytes(changed)


ONE = zipped([("a.pdf", PDF)])
UNSAFE = {
    "two entries": zipped([("a.pdf", PDF), ("b.pdf", PDF)]),
    "no entry": b"PK\x03\x04" + zipped([]),
    "climbing name": zipped([("../../etc/cron.d/x", PDF)]),
    "climbing windows name": zipped([("..\\x", PDF)]),
    "absolute name": zipped([("/etc/passwd", PDF)]),
    "folder": zipped([("a/", b"")]),
    "symbolic link": zipped([(_link(), b"/etc/passwd")]),
    "ratio": zipped([("a.pdf", b"\0" * (7 << 20))]),
    "encrypted": _patched(ONE, 8, "<H", 1, 6),
    "other method": zipped([("a.pdf", PDF)], zipfile.ZIP_LZMA),
    "wrong checksum": _patched(ONE, 16, "<I", 1, 14),
    "smaller than it says": _patched(ONE, 24, "<I", len(PDF) + 100, 22),
    "larger than it says": _patched(ONE, 24, "<I", 10, 22),
    "cut off": ONE[:-30],
    "header only": b"PK\x03\x04",
    "very many entries": ONE + b"PK\x01\x02" * 3000,
}


@pytest.mark.parametrize("data", UNSAFE.values(), ids=UNSAFE.keys())
def test_an_unsafe_archive_is_refused(data: bytes) -> None:
    with pytest.raises(EdxmlError, match="archive_unsafe"):
        unpack(data, LIMIT)


def test_a_single_entry_is_unpacked_whatever_its_name_and_method() -> None:
    assert unpack(ONE, LIMIT) == PDF
    assert unpack(zipped([("không có đuôi", PDF)], zipfile.ZIP_STORED), LIMIT) == PDF


def test_a_bare_file_is_kept_as_it_is() -> None:
    assert unpack(PDF, LIMIT) == PDF
    assert unpack(b"", LIMIT) == b""


def test_a_bare_office_file_is_one_attachment_and_not_an_archive() -> None:
    docx = zipped([("[Content_Types].xml", b"<a/>"), ("word/document.xml", b"<b/>")])
    assert unpack(docx, LIMIT) == docx
    assert unpack(zipped([("x.docx", docx)]), LIMIT) == docx


@pytest.mark.parametrize("data", [b"x" * 101, zipped([("a", b"x" * 101)], zipfile.ZIP_STORED)])
def test_nothing_over_the_limit_is_kept(data: bytes) -> None:
    with pytest.raises(EdxmlError, match="attachment_too_large"):
        unpack(data, 100)


def test_kinds_are_told_by_magic_bytes() -> None:
    assert kind(PDF) == ("pdf", "application/pdf")
    assert kind(zipped([("[Content_Types].xml", b""), ("xl/workbook.xml", b"")]))[0] == "xlsx"
    assert kind(zipped([("a.txt", b"")])) == ("zip", "application/zip")
    assert kind(b"MZ\x90") == ("bin", "application/octet-stream")
