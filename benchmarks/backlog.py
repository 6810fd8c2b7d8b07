"""What a backlog costs: deliveries claimed and settled per second with few and with very many due.

    python -m benchmarks.backlog [--store sqlite|postgres] [--most 1000000] [--seconds 3]

The store alone, without a partner. ``ratio`` is the rate with the most due beside that with 1,000 due, over one
destination;
``ratio_over_1000`` the same over a thousand.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.deliver import database
from benchmarks.process import print_json, run, say
from hub.clock import Clock, system_clock
from hub.model import State, new_id, to_us
from hub.store.base import BreakerPolicy, ClaimRequest, ConnectionRow, DestinationRow, Store, Unit
from hub.store.choose import make_store
from tests.ledger import fact, owed, settlement

SECOND = 1_000_000
CLAIM = 500
#: Rows put in per transaction.
PAGE = 5_000
YARDSTICK = 1_000


class Backlog:
    """A ledger with so many due over so many destinations."""

    def __init__(self, store: Store, clock: Clock, destinations: int) -> None:
        self._store = store
        self._clock = clock
        self._names = [f"line/{n:04}" for n in range(destinations)]
        self._boot = new_id().bytes
        self.due = self._made = 0

    async def open(self) -> None:
        await self._store.configure(
            [ConnectionRow("line", "test")], [DestinationRow(name, "line", 0) for name in self._names]
        )
        draft = fact(new_id().hex, to_us(self._clock()))
        await self._store.commit(Unit(drafts=[draft]))
        self._event_id = draft.event[0]

    async def fill(self, due: int) -> None:
        """Tops up to so many; all of them of one event, as a campaign makes them."""
        now, missing = to_us(self._clock()), due - self.due
        for first in range(0, missing, PAGE):
            numbers = range(first, min(first + PAGE, missing))
            self._made += len(numbers)
            rows = [
                owed(self._event_id, self._names[n % len(self._names)], now, recipient=f"m-{self._made + n}")
                for n in numbers
            ]
            await self._store.commit(Unit(deliveries=rows))
        self.due = due

    async def _round(self) -> int:
        now = to_us(self._clock())
        request = ClaimRequest(
            now=now, owner=self._boot, lease_until=now + 60 * SECOND, limit=CLAIM,
            capacity=dict.fromkeys(self._names, CLAIM), suspect=False,
        )  # fmt: skip
        jobs = (await self._store.claim(request)).jobs
        await self._store.settle([settlement(job, State.DELIVERED, connection="line") for job in jobs], now)
        self.due -= len(jobs)
        return len(jobs)

    async def rate(self, seconds: float) -> float:
        """Claimed and settled per second. The yardstick is topped up outside of what is timed."""
        small, done, spent = self.due <= YARDSTICK, 0, 0.0
        await self._round()
        while spent < seconds:
            if small and self.due < CLAIM:
                await self.fill(YARDSTICK)
            if not self.due:
                break
            began = perf_counter()
            done += await self._round()
            spent += perf_counter() - began
        return done / spent


async def _one(url: str, folder: Path, due: int, destinations: int, seconds: float) -> float:
    store = make_store(
        url, folder / "unionhub.db", folder / "unionhub.lock", owners=[], unresolved_after_s=604_800,
        breaker=BreakerPolicy(10, 5.0, 3600.0), key_fingerprint=b"benchmark", synchronous="FULL", clock=system_clock,
    )  # fmt: skip
    await store.open()
    try:
        backlog = Backlog(store, system_clock, destinations)
        await backlog.open()
        await backlog.fill(due)
        rate = await backlog.rate(seconds)
    finally:
        await store.close()
    say(f"{due:>9,} due over {destinations:>5,}: {rate:,.0f}/s")
    return rate


async def measure(store: str, most: int, seconds: float) -> dict[str, Any]:
    rates: dict[str, float] = {}
    sizes = [YARDSTICK, *(n for n in (100_000, most) if YARDSTICK < n <= most)]
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        for due in dict.fromkeys(sizes):
            for destinations in (1, 1_000):
                key = f"{due}_over_{destinations}"
                with database(store, "") as url, tempfile.TemporaryDirectory(dir=name) as folder:
                    rates[key] = await _one(url, Path(folder), due, destinations, seconds)
    few, many = (rates[f"{sizes[-1]}_over_{n}"] / rates[f"{YARDSTICK}_over_{n}"] for n in (1, 1_000))
    return {
        "baseline_per_s": round(rates[f"{YARDSTICK}_over_1"]),
        "per_s": round(rates[f"{sizes[-1]}_over_1"]),
        "ratio": round(few, 3),
        "ratio_over_1000": round(many, 3),
        "rates_per_s": {key: round(rate) for key, rate in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backlog", description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    print_json(run(measure(args.store, args.most, args.seconds)))


if __name__ == "__main__":
    main()
