"""The skip policy, watched from outside: a small project of its own with our conftest, run by pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import allowed_skips

TESTS = Path(__file__).parents[1]
SKIPPING = """
import pytest

def test_that_runs(): pass

@pytest.mark.parametrize("n", [1, 2])
def test_that_skips(n): pytest.skip("not here")

@pytest.mark.xfail(strict=True)
def test_that_is_known_to_fail(): assert False
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "chromium.py", "postgres.py"):
        shutil.copy(TESTS / name, tmp_path / "tests" / name)
    (tmp_path / "tests" / "allowed_skips.txt").write_text("# none\n")
    (tmp_path / "tests" / "test_it.py").write_text(SKIPPING)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\naddopts = -p no:cacheprovider\n")
    return tmp_path


def run(project: Path, *arguments: str, ci: bool) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CI"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--import-mode=importlib", *arguments],
        cwd=project,
        env=inherited | ({"CI": "true"} if ci else {}),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_ci_fails_on_a_skip_that_is_not_listed_and_on_a_module_that_skips_itself(project: Path) -> None:
    (project / "tests" / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    done = run(project, "-n", "2", ci=True)
    assert done.returncode == 1, done.stdout
    assert "tests/test_it.py::test_that_skips[1] was skipped and is not in allowed_skips.txt" in done.stdout
    assert "tests/test_module.py was skipped" in done.stdout


def test_ci_takes_a_skip_that_is_listed_with_its_reason(project: Path) -> None:
    (project / "tests" / "allowed_skips.txt").write_text("tests/test_it.py::test_that_skips  # needs the moon\n")
    assert run(project, ci=True).returncode == 0


def test_a_listed_skip_needs_a_reason() -> None:
    assert allowed_skips("tests/test_it.py::test_that_skips  # needs the moon\n") == {
        "tests/test_it.py::test_that_skips"
    }
    with pytest.raises(pytest.UsageError, match="give the reason"):
        allowed_skips("tests/test_it.py::test_that_skips\n")


def test_elsewhere_a_skip_is_counted_and_explained(project: Path) -> None:
    done = run(project, ci=False)
    assert done.returncode == 0, done.stdout
    assert "2 skipped: not here" in done.stdout
