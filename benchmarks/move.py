"""How fast ``unionhub db move`` copies and compares a ledger from SQLite to PostgreSQL.

    python -m benchmarks.move [--rows 1000000]

The yardstick copies the same number of rows of similar width with asyncpg alone (COPY), out of memory, into a table
without
an index, and compares nothing. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg

from benchmarks.deliver import database
from benchmarks.process import print_json, rss_mb, run, say
from hub.clock import system_clock
from hub.model import to_us
from hub.store import migrate
from hub.store.base import BreakerPolicy, ConnectionRow, DestinationRow, Unit
from hub.store.choose import make_store
from hub.store.move import move
from tests.ledger import fact

#: An event, its content, its key and what is owed of it.
ROWS_OF_ONE = 4
PAGE = 1_000


async def _fill(folder: Path, events: int) -> Path:
    file = folder / "unionhub.db"
    store = make_store(
        "", file, folder / "unionhub.lock", owners=[], unresolved_after_s=604_800,
        breaker=BreakerPolicy(10, 5.0, 3600.0), key_fingerprint=b"benchmark", synchronous="FULL", clock=system_clock,
    )  # fmt: skip
    await store.open()
    await store.configure([ConnectionRow("line", "test")], [DestinationRow("line", "line", 0)])
    now = to_us(system_clock())
    for first in range(0, events, PAGE):
        drafts = [fact(f"k{n}", now, ["line"], content=b"x" * 300) for n in range(first, first + PAGE)]
        await store.commit(Unit(drafts=drafts))
    await store.close()
    return file


async def _bare(url: str, rows: int) -> float:
    """Rows per second."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE bare (id bytea, other bytea, name text, at bigint, body bytea)")
    began = perf_counter()
    for first in range(0, rows, 50_000):
        records = [
            (os.urandom(16), b"o" * 16, f"name {n}", n, b"x" * 150) for n in range(first, min(first + 50_000, rows))
        ]
        await connection.copy_records_to_table("bare", records=records)
    seconds = perf_counter() - began
    await connection.execute("DROP TABLE bare")
    await connection.close()
    return rows / seconds


async def measure(url: str, rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        folder = Path(name)
        file = await _fill(folder, rows // ROWS_OF_ONE)
        say(f"filled: {file.stat().st_size / 1e6:,.0f} MB")
        baseline = await _bare(url, rows)
        before = rss_mb()
        began = perf_counter()
        moved = await move(file, folder / "unionhub.lock", url, [migrate.CORE], b"benchmark", lambda *_: None)
        seconds = perf_counter() - began
        grown = rss_mb(peak=True) - before
    total = sum(each.rows for each in moved.values())
    return {
        "baseline_per_s": round(baseline),
        "rows": total,
        "seconds": round(seconds, 1),
        "per_s": round(total / seconds),
        "ratio": round(total / seconds / baseline, 3),
        "memory_growth_mb": round(max(grown, 0.0), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.move", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with database("postgres", "") as url:
        print_json(run(measure(url, args.rows)))


if __name__ == "__main__":
    main()
