"""Unwraps one attachment: base64 of a ZIP with a single entry, or the bare file.

Entries are zipped by strangers, so counts, ratio, size and CRC are checked and no name in the archive
is ever used as a path.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from dataclasses import dataclass

from .edxml import EdxmlError

_LOCAL_HEADER = b"PK\x03\x04"
_CENTRAL_HEADER = b"PK\x01\x02"
#: An office file is itself a ZIP of a few dozen parts; counted before the directory is parsed.
_MAX_ENTRIES = 2_000
#: PDF and office files shrink tenfold at most; small texts may shrink more and are let through.
_MAX_RATIO = 200
_RATIO_FREE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one packet may hold."""

    packet_bytes: int = 48 << 20
    #: All attachments of a packet together, unpacked.
    attachment_bytes: int = 64 << 20
    attachment_count: int = 50


DEFAULT_LIMITS = Limits()


def unpack(data: bytes, limit_bytes: int) -> bytes:
    """The file inside ``data``, by magic bytes and never by the declared type.

    Raises: EdxmlError("archive_unsafe" | "attachment_too_large").
    """
    if not data.startswith(_LOCAL_HEADER):
        return _within(data, limit_bytes)
    if data.count(_CENTRAL_HEADER) > _MAX_ENTRIES:
        raise EdxmlError("archive_unsafe")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if _is_office_file(entries):
                return _within(data, limit_bytes)
            if len(entries) != 1:
                raise EdxmlError("archive_unsafe")
            return _read(archive, entries[0], limit_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise EdxmlError("archive_unsafe") from error


def _within(data: bytes, limit_bytes: int) -> bytes:
    if len(data) > limit_bytes:
        raise EdxmlError("attachment_too_large")
    return data


def _is_office_file(entries: list[zipfile.ZipInfo]) -> bool:
    """A docx, xlsx or odt sent without the wrapping ZIP, as one live sender does with PDF."""
    names = {entry.filename for entry in entries}
    return "[Content_Types].xml" in names or ("mimetype" in names and "content.xml" in names)


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit_bytes: int) -> bytes:
    unix_mode = entry.external_attr >> 16
    unsafe = (
        entry.is_dir()
        or stat.S_ISLNK(unix_mode)
        or entry.flag_bits & 0x1  # encrypted
        or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        or ".." in entry.filename.replace("\\", "/").split("/")
        or entry.filename.startswith(("/", "\\"))
        or entry.file_size > max(_RATIO_FREE_BYTES, entry.compress_size * _MAX_RATIO)
    )
    if unsafe:
        raise EdxmlError("archive_unsafe")
    if entry.file_size > limit_bytes:
        raise EdxmlError("attachment_too_large")
    # Reading to the end is what checks the CRC; the declared size bounds what is inflated.
    parts: list[bytes] = []
    with archive.open(entry) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            parts.append(chunk)
    content = b"".join(parts)
    if len(content) != entry.file_size:
        raise EdxmlError("archive_unsafe")
    return content


#: Magic bytes, the extension for our own file names, the media type.
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF-", "pdf", "application/pdf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole", "application/x-ole-storage"),
    (b"\x89PNG\r\n\x1a\n", "png", "image/png"),
    (b"\xff\xd8\xff", "jpg", "image/jpeg"),
    (b"II*\x00", "tif", "image/tiff"),
    (b"MM\x00*", "tif", "image/tiff"),
    (b"PK\x03\x04", "zip", "application/zip"),
)


def kind(content: bytes) -> tuple[str, str]:
    """(extension, media type) by magic bytes; an office file and an ODF say which by their parts' names."""
    for magic, extension, media_type in _KINDS:
        if content.startswith(magic):
            if extension == "zip":
                return _office_kind(content)
            return extension, media_type
    return "bin", "application/octet-stream"


def _office_kind(content: bytes) -> tuple[str, str]:
    parts = {b"word/document.xml": "docx", b"xl/workbook.xml": "xlsx", b"ppt/presentation.xml": "pptx"}
    for part, extension in parts.items():
        if part in content:
            return extension, "application/vnd.openxmlformats-officedocument"
    return "zip", "application/zip"
