"""The lock files install the same packages everywhere and name no place to get them from."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^([a-z0-9-]+)==[0-9][0-9a-z.]*( ; [^\\]+)? \\$")


def pinned(lock: Path) -> set[str]:
    return {match[1] for line in lock.read_text().splitlines() if (match := PIN.match(line))}


def required(specifiers: list[str]) -> set[str]:
    return {re.split(r"[<>=~!;\[ ]", s)[0].lower().replace("_", "-") for s in specifiers}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_versions_and_hashes_only(lock: Path) -> None:
    for number, line in enumerate(lock.read_text().splitlines(), 1):
        known = PIN.match(line) or re.match(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$", line) or re.match(r"^ +# ", line)
        assert known, f"{lock.name}:{number}: {line}"
        assert "://" not in line, f"{lock.name}:{number}"


def test_everything_the_project_names_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = required(project["dependencies"] + project["optional-dependencies"]["speed"]) | {"setuptools"}
    assert asked <= pinned(ROOT / "requirements" / "runtime.txt")


@pytest.mark.parametrize("name", ["runtime", "test", "lint", "lock"])
def test_what_a_set_asks_for_is_in_its_lock(name: str) -> None:
    lines = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
    asked = required([line for line in lines if line and not line.startswith("#")])
    assert asked <= pinned(ROOT / "requirements" / f"{name}.txt")


def interpreter(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def find_python(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the search with nothing on PATH but ``folder`` and an ``id`` that says we are root."""
    interpreter(folder, "id", "echo 0")
    interpreter(folder, "apt-get", "exit 1")
    script = str(ROOT / "requirements" / "find-python")
    return subprocess.run(["/bin/sh", script], env={"PATH": str(folder)}, capture_output=True, text=True, timeout=60)


def test_a_shim_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    interpreter(tmp_path, "python3.11", "echo 'command not found' >&2; exit 127")
    interpreter(tmp_path, "python3.13", "case $2 in *version*) echo 3.13;; esac")
    assert find_python(tmp_path).stdout.strip() == str(tmp_path / "python3.13")


def test_a_python_without_venv_gets_the_one_command_and_exit_2(tmp_path: Path) -> None:
    interpreter(tmp_path, "python3", "case $2 in *version*) echo 3.12;; *) exit 1;; esac")
    done = find_python(tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].strip() == "apt-get install -y python3-venv python3.12-venv"


def test_a_python_that_is_too_old_gets_the_one_command_and_exit_2(tmp_path: Path) -> None:
    interpreter(tmp_path, "python3", "echo 3.9; exit 1")
    done = find_python(tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].strip() == "apt-get install -y python3.11 python3.11-venv"


def test_the_scripts_may_be_executed() -> None:
    for name in (".ci/run", "requirements/find-python"):
        assert os.access(ROOT / name, os.X_OK), name
