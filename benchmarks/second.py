"""Another node of ``benchmarks.deliver``, in a process of its own: works until SIGTERM.

python -m benchmarks.second --folder DIR --database URL --url URL
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from benchmarks.deliver import node
from benchmarks.process import print_json, run
from hub.log import configure as configure_log


async def work(folder: Path, database_url: str, url: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    with folder.with_suffix(".log").open("wb") as lines:
        configure_log(lines)
        async with node(url, folder, database_url):
            print_json({"ready": True})
            await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.second", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--url", required=True)
    args = parser.parse_args()
    run(work(args.folder, args.database, args.url))


if __name__ == "__main__":
    main()
