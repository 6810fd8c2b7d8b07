"""``make torture``: it says what it ran, keeps it, and its exit code tells a fault that was not survived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.torture import __main__ as command
from benchmarks.torture.controls import SAFEGUARDS
from benchmarks.torture.results import Progress
from tests.docs.pages import ROOT


def test_it_prints_number_seed_and_machine_and_keeps_what_it_found(tmp_path: Path) -> None:
    results = tmp_path / "torture.json"
    arguments = ["--n", "20", "--seed", "11", "--only", "shuffles", "--results", str(results)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.torture", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("N=20 SEED=11 {'cores':") and done.stdout.endswith("all held\n")
    kept = json.loads(results.read_text())["faults"]["shuffles"]
    assert (kept["n"], kept["seed"], kept["broken"]) == (20, 11, []) and kept["machine"]["sqlite"]


def test_a_run_that_is_broken_off_has_kept_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "torture.json"
    say = Progress(results, "kills", {"n": 10_000, "seed": 11})
    say("25 of 10000 kills, 0 broken", {"kills": 25, "broken": []})
    assert json.loads(results.read_text())["faults"]["kills"] == {
        "n": 10_000, "seed": 11, "kills": 25, "broken": [], "seconds": 0, "unfinished": True
    }  # fmt: skip
    assert "25 of 10000 kills" in capsys.readouterr().err
    say.end({"kills": 10_000, "broken": []})
    assert "unfinished" not in json.loads(results.read_text())["faults"]["kills"]


def test_make_hands_the_command_what_it_was_given() -> None:
    said = subprocess.run(
        ["make", "--dry-run", "torture", "ONLY=kills power", "N=7", "SEED=3"], cwd=ROOT, capture_output=True, text=True
    )
    assert "-m benchmarks.torture --only kills power --n 7 --seed 3" in said.stdout


def test_what_was_committed_has_nothing_broken_and_every_control_failed() -> None:
    kept = json.loads(command.RESULTS.read_text())
    assert set(kept["faults"]) == set(command.FAULTS) and set(kept["controls"]) == set(SAFEGUARDS)
    assert not any(found["broken"] for found in kept["faults"].values())
    assert all(found["fails"] for found in kept["controls"].values())
