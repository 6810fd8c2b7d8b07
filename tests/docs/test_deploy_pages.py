"""The pages of docs/deploy: their commands exist, are shell, and name what is there.

What can be carried out without PostgreSQL, systemd or a container engine is, by tests/e2e/test_deploy.py; here the rest
is looked at.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from docs import generate
from hub import __version__
from tests.docs.pages import DOCS, ROOT, Block, blocks

PAGES = sorted((DOCS / "deploy").glob("*.md"))


def shell(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.words[:1] == ("sh",)]


def commands_of(page: Path) -> set[str]:
    """What stands behind ``unionhub`` in the page's blocks and code, as far as it is no option or argument."""
    code = "\n".join([*(b.text for b in shell(page)), *re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))])
    found = re.findall(r"(?:^|sudo |hub )unionhub ((?:[a-z]+ ?){1,2})", code, re.MULTILINE)
    known = {name for name, _ in generate.commands()}
    said = set()
    for words in (each.split() for each in found):
        both, first = " ".join(words), words[0]
        said.add(first if first in known and both not in known else both)
    return said


def test_there_is_a_page_for_each_task() -> None:
    names = {page.stem for page in PAGES}
    assert names == {"install", "add-a-node", "upgrade", "move-to-postgresql", "lose-a-node"}


def test_every_command_on_these_pages_exists() -> None:
    said = {name for page in PAGES for name in commands_of(page)}
    assert {"check", "connections list", "release", "db move"} <= said
    assert said <= {name for name, _ in generate.commands()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_shell_and_says_what_carries_it_out(page: Path) -> None:
    assert shell(page)
    for block in shell(page):
        assert set(block.words) <= {"sh", "machine", "new-machine", "same-machine", "container", "postgres", "deb"}, (
            block.words
        )
        subprocess.run(["bash", "-n", "-c", block.text], check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_this_version_and_files_that_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert set(re.findall(r"unionhub[-_:](\d+\.\d+\.\d+)", text)) <= {__version__}
    for name in re.findall(r"(?:deploy|systemd)/[A-Za-z@./_-]+\b", text):
        path = name if name.startswith("deploy/") else f"deploy/{name}"
        if "systemd/system" not in name:
            assert (ROOT / path.rstrip(".")).exists() or "*" in path, name


def test_the_secrets_of_the_containers_are_made_private_and_agree(tmp_path: Path) -> None:
    (block,) = [b for page in PAGES for b in shell(page) if "container" in b.words]
    for name, does in (("sudo", 'exec "$@"'), ("chown", "exit 0"), ("install", 'mkdir -p "$8"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run(["bash", "-euc", f"PATH={tmp_path}:$PATH\n{block.text}"], cwd=tmp_path, check=True)
    secrets = {path.name: path for path in (tmp_path / "config" / "secrets").iterdir()}
    assert set(secrets) == {"postgres", "console", "pgpass"}
    assert {path.stat().st_mode & 0o777 for path in secrets.values()} == {0o600}
    password = secrets["postgres"].read_text()
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert secrets["pgpass"].read_text() == f"postgres:5432:unionhub:unionhub:{password}\n"
    assert secrets["console"].read_text() != password
