"""Receipts and late settlements in any order end in the state of the model; without its safeguards they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.torture.controls import without
from benchmarks.torture.shuffles import shuffle

SEED = 11


async def test_any_order_of_receipts_ends_in_the_models_state(tmp_path: Path) -> None:
    assert await shuffle(tmp_path, 500, SEED) == [], f"seed {SEED}"


@pytest.mark.parametrize(("safeguard", "seen"), [("parking", "[('accepted', '')]"), ("fence", "late")])
async def test_without_this_safeguard_they_do_not(tmp_path: Path, safeguard: str, seen: str) -> None:
    with without(safeguard):
        wrong = await shuffle(tmp_path, 50, SEED)
    assert any(seen in each for each in wrong)
