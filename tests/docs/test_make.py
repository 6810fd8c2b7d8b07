"""Whatever text says "make TARGET", the Makefile has that target, and something to do for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, documents

#: In backticks, or a line of its own in a block of commands; prose makes other things.
_NAMED = re.compile(r"(?:`|^[ \t]*\$?[ \t]*)make ([a-z][a-z0-9-]*)\b(?=[^\n]*`|[ \t]*(?:#|$|[A-Z]+=))", re.MULTILINE)
_RULE = re.compile(r"^([a-z][a-z-]*):(?!=)[^\n]*\n\t", re.MULTILINE)
_FOLDERS = ("hub", "plugins", "benchmarks", "tests", "docs", "deploy")


def targets() -> set[str]:
    """Those with a recipe."""
    return set(_RULE.findall((ROOT / "Makefile").read_text("utf-8")))


def texts() -> list[Path]:
    sources = [path for folder in _FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*documents(), *(path for path in sources if path != Path(__file__)), ROOT / "Makefile"]


def test_every_target_that_a_text_names_is_in_the_makefile_with_a_recipe() -> None:
    known = targets()
    assert {"demo", "test", "lint"} <= known
    named = {(name, str(p.relative_to(ROOT))) for p in texts() for name in _NAMED.findall(p.read_text("utf-8"))}
    assert {"demo", "test", "bench"} <= {name for name, _ in named}, "nothing is looked at"
    assert [(name, where) for name, where in sorted(named) if name not in known] == []


@pytest.mark.parametrize("text", ["run `make nothing`", "``make nothing ONLY=x`` does", "```sh\nmake nothing\n```"])
def test_a_target_that_is_not_there_is_noticed(text: str) -> None:
    assert _NAMED.findall(text) == ["nothing"]
    assert _NAMED.findall("they make nothing of it") == []
