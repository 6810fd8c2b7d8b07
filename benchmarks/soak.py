"""What grows: the shipped hub for so many minutes under a steady load with a partner that now and then refuses.

    python -m benchmarks.soak [--minutes 5] [--per-s 200]

Memory, open files, threads and rows of every table at the start (a fifth of the way) and at the end.
Prints one JSON object; ``memory_growth_mb`` is what came after the start was noted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.deliver import UNIT_DRAFTS, _until_delivered, node, running_sink
from benchmarks.process import print_json, rss_mb, run, say
from benchmarks.workload import drafts
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.log import configure as configure_log

#: Of the whole: what is loaded once and for all is in memory by then.
WARM = 0.2


async def _state(hub: HubApp) -> dict[str, Any]:
    names = [name for (name,) in await hub.store.read("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    rows = {name: (await hub.store.read(f'SELECT count(*) FROM "{name}"'))[0][0] for name in names}
    size = sum(path.stat().st_size for path in hub.config.var_dir.glob("unionhub.db*"))
    return {
        "rss_mb": round(rss_mb(), 1),
        "open_files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "database_mb": round(size / 2**20, 1),
        "rows": {name: count for name, count in rows.items() if count},
    }


async def measure(minutes: float, per_s: int) -> dict[str, Any]:
    count, started = 0, perf_counter()
    start: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name, (Path(name) / "hub.log").open("wb") as lines:
        configure_log(lines)
        # It answers 503 to the first try of one in twenty.
        async with running_sink(Path(name) / "sink.log") as url, node(url, Path(name) / "hub", "") as hub:
            while (spent := perf_counter() - started) < minutes * 60:
                if not start and spent > WARM * minutes * 60:
                    start = await _state(hub)
                await hub.commit(UnitOfWork(drafts=drafts(range(count, count + UNIT_DRAFTS))))
                count += UNIT_DRAFTS
                await asyncio.sleep(max(0.0, count / per_s - (perf_counter() - started)))
            await _until_delivered(hub, count)
            end = await _state(hub)
    say(f"{count} events in {minutes} minutes")
    undelivered = end["rows"].get("queue", 0)
    return {
        "minutes": minutes,
        "events": count,
        "undelivered": undelivered,
        "memory_growth_mb": round(end["rss_mb"] - start["rss_mb"], 1),
        "start": start,
        "end": end,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--per-s", type=int, default=200)
    args = parser.parse_args()
    print_json(run(measure(args.minutes, args.per_s)))


if __name__ == "__main__":
    main()
