"""A hub killed at every named place, on both stores: nothing acknowledged is lost, nothing unsafe goes out twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.torture import kills
from hub import crashpoint
from hub.crashpoint import POINTS
from tests.conftest import migrated
from tests.docs.pages import ROOT
from tests.engines import put_key
from tests.postgres import Server

SEED = 11


async def test_a_hub_that_is_killed_at_every_named_place_loses_nothing_and_resends_nothing_unsafe(
    tmp_path: Path,
) -> None:
    async with kills.fork_server() as lives:
        verdict = await kills.installation(lives, tmp_path, "", [*kills.PHASES, "random"], SEED, passes=10)
    assert verdict.broken == [], f"seed {SEED}"
    assert set(verdict.kills) == set(POINTS) | set(kills.OUTSIDE), "every place was reached, and was the last one"
    assert verdict.acknowledged and verdict.unknown, "the kills met work"


@pytest.mark.postgres
async def test_the_same_holds_on_postgresql(tmp_path: Path, postgres_server: Server) -> None:
    dsn = postgres_server.dsn(postgres_server.create_database(postgres_server.template("migrated", migrated)))
    put_key(tmp_path)
    phases = [
        point for point in kills.PHASES if point.startswith(("ledger", "delivery", "receipt", "http.s", "c", "r"))
    ]
    async with kills.fork_server() as lives:
        verdict = await kills.installation(lives, tmp_path, dsn, phases, SEED, passes=6)
    assert verdict.broken == [], f"seed {SEED}"
    assert sum(verdict.kills.values()) == len(phases)


async def test_without_dedupe_a_message_whose_answer_was_lost_becomes_two_events(tmp_path: Path) -> None:
    """The control: the same kills, the same look."""
    async with kills.fork_server() as lives:
        verdict = await kills.installation(lives, tmp_path, "", ["request.kept", "ledger.committed"], SEED, "dedupe")
    assert any("became two events" in each for each in verdict.broken)


def test_a_place_that_does_not_exist_cannot_be_armed() -> None:
    with pytest.raises(ValueError, match=r"no such crash point: ledger\.commited:1"):
        crashpoint.arm("ledger.commited")
    with pytest.raises(ValueError, match="counted from 1"):
        crashpoint.arm("ledger.committed", 0)


@pytest.mark.parametrize(("told", "status"), [("request.read:2", -signal.SIGKILL), ("request.read:3", 0), ("typo", 1)])
def test_the_environment_arms_a_process(told: str, status: int) -> None:
    code = "from hub.crashpoint import crashpoint; crashpoint('request.read'); crashpoint('request.read')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"HUB_CRASH": told}, cwd=ROOT, capture_output=True, timeout=60
    )
    assert done.returncode == status


def test_an_unarmed_process_passes_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: Counter[str] = Counter()
    for point in POINTS:
        crashpoint.crashpoint(point)
    crashpoint.watch(lambda name: passes.update([name]))
    try:
        for point in POINTS:
            crashpoint.crashpoint(point)
    finally:
        crashpoint.watch(None)
    assert passes == dict.fromkeys(POINTS, 1)


def test_every_named_place_stands_in_the_code_once_per_store() -> None:
    """The list is code: a name without a place, or a place without a name, would be prose."""
    code = "".join(path.read_text() for path in Path(crashpoint.__file__).parent.rglob("*.py"))
    found = Counter(code.split('crashpoint("')[n].partition('"')[0] for n in range(1, code.count('crashpoint("') + 1))
    found["ledger.committed"] -= 1  # the example of its module
    assert found == {name: 2 if name.startswith("ledger.") else 1 for name in POINTS}
