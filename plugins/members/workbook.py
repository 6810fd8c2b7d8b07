"""Opens an Excel file nobody vouches for, and hands out plain rows.

The archive is judged by its directory, unpacked within limits, and every sheet is measured before the reader sees it:
what the reader then gets is a stored copy of exactly what was judged.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

from plugins.members.codes import refusal
from plugins.members.repair import Cell

if TYPE_CHECKING:
    from python_calamine import CalamineWorkbook

#: A list of 50,000 people is about 5 MB; a whole province fits in several files.
MAX_FILE_BYTES = 20 * 1024 * 1024
MAX_UNPACKED_BYTES = 200 * 1024 * 1024
MAX_ENTRIES = 2_000
#: Sheets full of equal rows reach about 1:60; bombs start near 1:1000. Below 1 MiB a ratio says nothing.
MAX_RATIO = 200
RATIO_FROM_BYTES = 1024 * 1024
#: The reader lays a sheet out as a full rectangle: one cell at XFD1048576 would be 17 billion cells.
MAX_CELLS = 3_000_000
#: One shared text may be named by every cell, and the reader copies it each time.
MAX_TEXT_BYTES = 200 * 1024 * 1024

_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_CELL_REF = re.compile(r"([A-Z]{1,3})([0-9]{1,7})$")


@dataclass(frozen=True, slots=True)
class Sheet:
    """One sheet as a rectangle from A1; ``rows[0]`` is Excel's row 1."""

    name: str
    hidden: bool
    rows: list[list[Cell]]


def column_letters(index: int) -> str:
    """0 -> A, 26 -> AA: how Excel names the column."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def open_workbook(path: Path) -> list[Sheet]:
    """All sheets in order. Raises: InputError naming what is wrong with the file and what to do."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise refusal("file-too-big", limit=f"{MAX_FILE_BYTES // 1024**2} MB")
        raw = path.read_bytes()
    except (OSError, ValueError):
        raise refusal("file-missing") from None
    if raw.startswith(_OLE):
        raise refusal("file-old-excel")
    if not raw.startswith(_ZIP):
        raise refusal("file-not-excel")
    return _sheets(_judged_copy(raw))


def _judged_copy(raw: bytes) -> io.BytesIO:
    """The parts the reader needs, unpacked within limits and checked, in an archive without compression."""
    copy = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
            entries = archive.infolist()
            _judge_directory(entries)
            if "xl/workbook.xml" not in {e.filename for e in entries}:
                raise refusal("file-not-excel")
            for name, content in _unpacked(archive, entries):
                out.writestr(name, content)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError, RuntimeError, ValueError):
        raise refusal("file-broken") from None
    except expat.ExpatError:
        raise refusal("file-broken") from None
    copy.seek(0)
    return copy


def _judge_directory(entries: list[zipfile.ZipInfo]) -> None:
    if not entries or len(entries) > MAX_ENTRIES:
        raise refusal("archive-unsafe")
    names = [e.filename.lower() for e in entries]
    declared = sum(e.file_size for e in entries)
    spans = sorted((e.header_offset, e.header_offset + e.compress_size) for e in entries)
    unsafe = (
        len(set(names)) != len(names)
        or declared > MAX_UNPACKED_BYTES
        or any(map(_entry_is_unsafe, entries))
        # Entries that share bytes are how 42.zip gets small.
        or any(end > start for (_, end), (start, _) in pairwise(spans))
    )
    if unsafe:
        raise refusal("archive-unsafe")


def _entry_is_unsafe(entry: zipfile.ZipInfo) -> bool:
    name = entry.filename
    encrypted = bool(entry.flag_bits & 0x1)
    escapes = name.startswith(("/", "\\")) or ":" in name or "\\" in name or ".." in name.split("/") or "\0" in name
    link = stat.S_ISLNK(entry.external_attr >> 16)
    big = entry.file_size > RATIO_FROM_BYTES
    bomb = big and entry.file_size > MAX_RATIO * max(entry.compress_size, 1)
    return encrypted or escapes or link or bomb


def _unpacked(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> Iterator[tuple[str, bytes]]:
    """Parts by name; sheets are measured. ``zipfile`` stops at the declared size and checks the CRC."""
    texts: list[int] = []
    # Shared texts first: a sheet is measured by the texts its cells name.
    for entry in sorted(entries, key=lambda e: (e.filename != "xl/sharedStrings.xml", e.filename)):
        name = entry.filename
        if name.endswith("/") or not name.startswith(("xl/", "_rels/", "[Content_Types]")):
            continue
        if name.startswith(("xl/media/", "xl/drawings/", "xl/embeddings/", "xl/printerSettings/")):
            continue
        content = archive.read(entry)
        if name.endswith((".xml", ".rels")):
            _Measure(texts, shared=name == "xl/sharedStrings.xml").read(content)
        yield name, content


class _Measure:
    """One pass over an XML part: refuses a DOCTYPE and a sheet that would not fit in memory."""

    def __init__(self, texts: list[int], *, shared: bool) -> None:
        self.texts = texts
        self.shared = shared
        self.row = self.column = 0
        self.rows = self.columns = 0
        self.size = self.named = 0
        self.in_value = False
        self.is_reference = False
        self.value = ""

    def read(self, content: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.Parse(content, True)

    def _doctype(self, *_: object) -> None:
        raise refusal("archive-unsafe")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if name == "si":
            self.size = 0
        elif name == "row":
            self.row = _index(attributes.get("r"), self.row + 1)
            self.column = 0
        elif name == "c":
            self._place(attributes.get("r", ""))
            self.is_reference = attributes.get("t") == "s"
        elif name in ("v", "is", "f"):
            self._occupied()
            self.in_value, self.value = name == "v", ""

    def _end(self, tag: str) -> None:
        name = tag.rpartition(":")[2]
        if name == "si" and self.shared:
            self.texts.append(self.size)
        elif name == "v":
            self.in_value = False
            if self.is_reference and self.value.strip().isdigit():
                which = int(self.value[:9])
                self.named += self.texts[which] if which < len(self.texts) else 0
                if self.named > MAX_TEXT_BYTES:
                    raise refusal("archive-unsafe")

    def _text(self, text: str) -> None:
        if self.in_value:
            self.value = (self.value + text)[:32]
        elif self.shared:
            self.size += len(text)

    def _place(self, reference: str) -> None:
        if match := _CELL_REF.match(reference):
            self.column = 0
            for letter in match[1]:
                self.column = self.column * 26 + ord(letter) - 64
            self.row = int(match[2])
        else:
            self.column += 1

    def _occupied(self) -> None:
        self.rows, self.columns = max(self.rows, self.row), max(self.columns, self.column)
        if self.rows * self.columns > MAX_CELLS:
            raise refusal("sheet-too-big", limit=f"{MAX_CELLS:,}".replace(",", "."))


def _index(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 9 else otherwise


def _sheets(copy: io.BytesIO) -> list[Sheet]:
    from python_calamine import CalamineError, SheetTypeEnum, SheetVisibleEnum, load_workbook

    try:
        book: CalamineWorkbook = load_workbook(copy)
        return [
            Sheet(
                meta.name,
                meta.visible != SheetVisibleEnum.Visible,
                [list(row) for row in book.get_sheet_by_name(meta.name).to_python(skip_empty_area=False)],
            )
            for meta in book.sheets_metadata
            if meta.typ == SheetTypeEnum.WorkSheet
        ]
    except (CalamineError, OSError, ValueError):
        raise refusal("file-broken") from None
    except BaseException as error:
        # A panic of the native reader is no Exception; anything else (Ctrl-C) goes on its way.
        if type(error).__name__ == "PanicException":
            raise refusal("file-broken") from None
        raise
