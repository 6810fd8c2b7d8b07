"""docs/features.md names tests and commands that exist, each feature once."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from docs import generate
from tests.docs.pages import DOCS, ROOT

PAGE = DOCS / "features.md"
_ID = re.compile(r"[A-M][0-9]{1,2}")


def rows(heading: str) -> list[list[str]]:
    """The table below a heading, without its head."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@cache
def defined_in(path: Path) -> frozenset[str]:
    found = ast.walk(ast.parse(path.read_text("utf-8")))
    return frozenset(n.name for n in found if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_id_stands_once_and_is_one_of_the_list() -> None:
    ids = [row[0] for row in rows("Holds") + rows("Partly")]
    assert ids
    assert len(ids) == len(set(ids)), sorted(i for i in ids if ids.count(i) > 1)
    assert all(_ID.fullmatch(i) for i in ids)


def test_no_row_stands_outside_of_the_two_tables() -> None:
    text = PAGE.read_text("utf-8")
    tables = [lines for lines in re.split(r"\n\n+", text) if lines.startswith("| id |")]
    assert len(tables) == 2, "one table below each heading"
    inside = {line for lines in tables for line in lines.splitlines()}
    outside = [line for line in text.splitlines() if line.lstrip().startswith("|") and line not in inside]
    assert outside == []


def test_every_row_has_its_cells() -> None:
    assert {len(row) for row in rows("Holds")} == {4}
    assert {len(row) for row in rows("Partly")} == {3}


def test_each_named_test_exists() -> None:
    for id, _, named, _ in rows("Holds"):
        for each in named.split(", "):
            path, _, name = each.partition("::")
            assert name.startswith("test_"), each
            assert (ROOT / path).is_file(), f"{id}: {path}"
            assert name in defined_in(ROOT / path), f"{id}: {each}"


def test_a_test_that_is_not_there_would_be_noticed() -> None:
    assert "test_that_nobody_wrote" not in defined_in(Path(__file__))
    assert "test_each_named_test_exists" in defined_in(Path(__file__))


def test_each_named_command_exists() -> None:
    known = {name for name, _ in generate.commands()}
    for id, _, _, command in rows("Holds"):
        assert command.strip("`").removeprefix("unionhub ") in known, f"{id}: {command}"
