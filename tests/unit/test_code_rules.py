"""Rules about our own source that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANNEL_WORDS = {"sms", "webhook", "document", "member"}
#: Edges of the hub, which may give examples from a channel. Everything else beside them is the reading core, the files
#: a newcomer reads in one sitting: they must make sense for any channel.
EDGES = {"app", "cli", "demo", "http", "plugins", "secret_files", "settings", "settings_model", "signing", "strictjson"}
READING_CORE = [p for p in sorted((ROOT / "hub").glob("*.py")) if p.stem not in EDGES] + [ROOT / "hub/store/base.py"]


def channel_words(text: str) -> list[str]:
    """Channel words of ``text``, also inside identifiers (``member_id``, ``SmsSink``), in singular or plural."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)
    return [w for w in words if w.lower() in CHANNEL_WORDS or w.lower().removesuffix("s") in CHANNEL_WORDS]


def body_reads(source: str) -> Iterator[int]:
    """Lines that read an inbound body by aiohttp's own decoding: ``request.text()``, ``self.request.json()``."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value
        name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
        if name == "request" and node.func.attr in {"text", "json", "post"}:
            yield node.lineno


def modules() -> list[Path]:
    """Modules of the hub and of its plugins; a simulator plays somebody else and may read as it likes."""
    found = [path for folder in ("hub", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if not any(part.startswith("simulator") for part in path.parts)]


@pytest.mark.parametrize("path", READING_CORE, ids=lambda path: path.stem)
def test_the_reading_core_names_no_channel(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), 1)
    assert not [f"{path.name}:{n}: {line.strip()}" for n, line in lines if channel_words(line)]


@pytest.mark.parametrize("text", ["member_id", "SmsSink", "SMS", "webhooks", "a Document.", "__members__", "sms2"])
def test_channel_words_are_found_inside_names(text: str) -> None:
    assert channel_words(text)


@pytest.mark.parametrize("text", ["remember", "documented", "documentation", "membership", "transmission"])
def test_other_words_are_left_alone(text: str) -> None:
    assert not channel_words(text)


def test_inbound_bodies_are_read_raw_and_parsed_in_one_place() -> None:
    found = [f"{p.relative_to(ROOT)}:{line}" for p in modules() for line in body_reads(p.read_text())]
    assert not found, "read bytes with a cap, then hub.strictjson"


def test_a_body_read_by_aiohttp_is_noticed() -> None:
    assert list(body_reads("async def f(self):\n    await self.request.json()\n    await response.json()")) == [2]
