"""What the page says was broken is what ``benchmarks/results/torture.json`` keeps."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Of each fault in the table: how often, and what went through it.
SHOWN = {
    "kills": ("kills", "acknowledged", "deliveries", "repeats_where_safe"),
    "kills_postgres": ("kills", "acknowledged", "deliveries", "repeats_where_safe"),
    "after_202": ("kills", "acknowledged", "deliveries", "repeats_where_safe"),
    "power": ("cuts", "recorded_steps", "whole_starts"),
    "restarts": ("stops", "acknowledged", "refused_as_busy"),
    "nodes": ("kills", "stops", "acknowledged", "sent"),
}


def test_the_table_shows_the_figures_that_are_kept() -> None:
    kept = json.loads((ROOT / "benchmarks" / "results" / "torture.json").read_text())["faults"]
    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    for fault, keys in SHOWN.items():
        figures = [f"{kept[fault][key]:,}" for key in keys]
        assert any(all(figure in row for figure in figures) for row in rows), f"{fault}: no row with {figures}"
        assert str(kept[fault]["seed"]) in page, fault
        assert kept[fault]["broken"] == [], fault
