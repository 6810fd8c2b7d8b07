"""A hub whose power is cut at any moment, on SQLite; and three disks and settings that must be caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.torture import power

SEED = 11


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
async def test_no_power_cut_damages_the_file_loses_what_was_acknowledged_or_sends_it_blindly_again(
    tmp_path: Path, seed: int
) -> None:
    """5,000 cuts in all; the whole hub is started on some of them."""
    recording = await power.record(tmp_path, seed)
    assert power.tally(recording, 2500, seed, tmp_path / "cut") == {"cuts": 2500}, f"seed {seed}"
    for cut in power.cuts(recording, 5, seed + 100):
        again = await power.resent_by_a_start(recording, cut, tmp_path / f"start-{cut.at}")
        assert not again, f"seed {seed}, cut at {cut.at}"


async def test_a_disk_that_lies_about_fsync_is_caught(tmp_path: Path) -> None:
    """A control, and a limit: no software keeps what such a disk has thrown away."""
    recording = await power.record(tmp_path, SEED, events=60)
    found = power.tally(recording, 200, SEED, tmp_path / "cut", fsync_lies=True)
    assert found["lost"] + found["corrupt"] > 20


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
async def test_without_a_full_fsync_what_was_acknowledged_is_lost(tmp_path: Path, synchronous: str) -> None:
    """The control for the setting that the hub ships."""
    recording = await power.record(tmp_path, SEED, events=60, synchronous=synchronous)
    found = power.tally(recording, 200, SEED, tmp_path / "cut")
    assert found["lost"] + found["corrupt"] > 5
    assert synchronous == "OFF" or not found["corrupt"], "NORMAL loses, and keeps the file whole"
