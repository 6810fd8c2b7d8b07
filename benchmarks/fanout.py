"""One event for many: how fast a fan-out makes the deliveries, and in how much memory.

    python -m benchmarks.fanout [--store sqlite|postgres] [--recipients 100000]

The yardstick writes rows of the same width with the standard library's sqlite3, 500 in a transaction and each flushed,
into one table with one index. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.deliver import database
from benchmarks.process import print_json, rss_mb, run, say
from hub.app import HubApp
from hub.contract import Connection, UnitOfWork
from hub.log import configure as configure_log
from hub.model import Audience, Draft, Json, to_us
from hub.testing import RecordingSink, connector, eventually, plain_event_type, registry_of, running_hub

NOTICE = "vn.congdoan.benchmark.announced.v1"
PAGE = 500


class Crowd:
    """A directory of invented subjects, all with an address."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        for first in range(0, self._count, PAGE):
            yield [f"m-{n:07}" for n in range(first, min(first + PAGE, self._count))]

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        return dict.fromkeys(subjects, "loopback")

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        return None


def bare(folder: Path, count: int) -> float:
    """Rows per second of the yardstick."""
    db = sqlite3.connect(folder / "bare.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE owed (id BLOB PRIMARY KEY, event BLOB, recipient TEXT, due INT, about TEXT)")
    db.execute("CREATE INDEX owed_due ON owed (due)")
    started = perf_counter()
    for first in range(0, count, PAGE):
        db.execute("BEGIN IMMEDIATE")
        rows = [(os.urandom(16), b"e" * 16, f"m-{n:07}", n, "x" * 150) for n in range(first, first + PAGE)]
        db.executemany("INSERT INTO owed VALUES (?, ?, ?, ?, ?)", rows)
        db.execute("COMMIT")
    seconds = perf_counter() - started
    db.close()
    return count / seconds


async def measure(count: int, database_url: str) -> dict[str, Any]:
    crowd = Crowd(count)
    registry = registry_of(
        connector_types=[connector("line", Connection(sink=RecordingSink()), channel="phone")],
        event_types=[plain_event_type(NOTICE)],
        directory=lambda hub: crowd,
    )
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        folder = Path(name)
        before = bare(folder, count)
        with (folder / "hub.log").open("wb") as lines:
            configure_log(lines)
            async with running_hub(
                folder,
                registry,
                connections={"line": {"type": "line"}},
                subscriptions=[{"name": "notices", "types": [NOTICE], "to_each": {"phone": "line"}}],
                settings={"database_url": database_url},
            ) as hub:
                await hub.store.pause("connection", "line", "operator", "benchmark", to_us(hub.now()))
                idle = rss_mb()
                started = perf_counter()
                await hub.commit(UnitOfWork(drafts=[_notice()]))
                await eventually(lambda: _all_made(hub, count), deadline_s=600, every_s=0.05)
                seconds = perf_counter() - started
                grown = rss_mb(peak=True) - idle
        baseline = max(before, await asyncio.to_thread(_bare_again, count))
    say(f"made: {count / seconds:,.0f}/s beside {baseline:,.0f}/s")
    return {
        "baseline_per_s": round(baseline),
        "per_s": round(count / seconds),
        "ratio": round(count / seconds / baseline, 3),
        "memory_growth_mb": round(grown, 1),
    }


def _bare_again(count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as apart:
        return bare(Path(apart), count)


async def _all_made(hub: HubApp, count: int) -> bool:
    return await hub.store.read("SELECT coalesce(sum(made), 0) FROM batch") == [(count,)]


def _notice() -> Draft:
    audience = Audience(selector={}, channels=("phone",), purpose="benchmark")
    return Draft(type=NOTICE, source="benchmark", dedupe_key="one", data={"id": "one", "n": 1}, audience=audience)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--recipients", type=int, default=100_000, help=f"a multiple of {PAGE}")
    args = parser.parse_args()
    if args.recipients < PAGE or args.recipients % PAGE:
        parser.error(f"--recipients: a multiple of {PAGE}")
    with database(args.store, "") as url:
        print_json(run(measure(args.recipients, url)))


if __name__ == "__main__":
    main()
