"""The documentation as the tests see it: its pages, headings, links and marked blocks of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FENCED = re.compile(r"^(```+)([^\n]*)\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: the language and the words behind it, such as ``runnable`` or ``file=x.py``."""

    words: tuple[str, ...]
    text: str


def documents() -> list[Path]:
    """Everything people read in this repository."""
    own = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")]
    return [*own, *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "plugins").rglob("README.md"))]


def blocks(page: Path) -> list[Block]:
    return [Block(tuple(m[2].split()), m[3]) for m in _FENCED.finditer(page.read_text("utf-8"))]


def file_block(page: Path, name: str) -> str:
    """The one block that is marked ``file=<name>``."""
    (found,) = [b.text for b in blocks(page) if f"file={name}" in b.words]
    return found


def links(page: Path) -> Iterator[str]:
    """Targets of the page's links, code left out."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCED.sub("", page.read_text("utf-8")))
    yield from (m[1] for m in _LINK.finditer(prose))


def anchors(page: Path) -> set[str]:
    """What ``#...`` may name on this page, as GitHub makes it of a heading."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCED.sub("", page.read_text("utf-8"))):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        plain, n = slug, 0
        while slug in found:
            n += 1
            slug = f"{plain}-{n}"
        found.add(slug)
    return found
