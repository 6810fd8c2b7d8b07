"""What a day's outage left behind goes out at the agreed rate; what is urgent, or for others, does not wait for it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.torture import backlog


async def test_a_hundred_thousand_that_wait_drain_at_the_agreed_rate_and_nothing_urgent_waits_for_them(
    tmp_path: Path,
) -> None:
    """Claimed and settled in the ledger, by a clock that is moved."""
    found = await backlog.drain(tmp_path, 100_000)
    assert found["broken"] == []
    assert found["deliveries"] == 100_000 and found["drained_in_s"] in (100, 101)
