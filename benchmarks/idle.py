"""A hub that has nothing to do: how long it takes to be ready, its memory, open files and modules.

    python -m benchmarks.idle

The yardstick is an aiohttp server that only says hello. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.process import partner, print_json, rss_mb, run
from tests.e2e.installation import Installation

#: After it is ready it may still do what a start leaves to be done.
SETTLE_S = 3.0


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _modules(statement: str) -> int:
    said = subprocess.run(
        [sys.executable, "-c", f"{statement}; import sys; print(len(sys.modules))"], check=True, capture_output=True
    )
    return int(said.stdout)


async def measure() -> dict[str, Any]:
    async with partner("benchmarks.hello") as (hello, _):
        await asyncio.sleep(SETTLE_S)
        bare = rss_mb(hello.pid)
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        installation = Installation.new(Path(name) / "hub")
        began = perf_counter()
        with installation.hub() as first:
            first_s = perf_counter() - began
            first.stop()
        began = perf_counter()
        with installation.hub() as hub:
            ready_s = perf_counter() - began
            await asyncio.sleep(SETTLE_S)
            pid = hub.process.pid
            idle = {"rss_mb": rss_mb(pid), "open_files": _files(pid)}
            hub.stop()
    return {
        "baseline_rss_mb": round(bare, 1),
        "rss_mb": round(idle["rss_mb"], 1),
        "ratio": round(idle["rss_mb"] / bare, 2),
        "first_ready_s": round(first_s, 2),
        "ready_s": round(ready_s, 2),
        "open_files": idle["open_files"],
        "modules": _modules("import hub.serve; from hub.plugins import load_plugins; load_plugins()"),
        "baseline_modules": _modules("import aiohttp.web"),
    }


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__.splitlines()[0]).parse_args()
    print_json(run(measure()))


if __name__ == "__main__":
    main()
