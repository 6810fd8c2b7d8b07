"""A node that is killed: how long until another one leads and has taken over what it held.

    python -m benchmarks.takeover [--lease-s 20]

Two nodes of the shipped configuration on a PostgreSQL server that is started for the run. The yardstick is the lease: a
node counts as lost when it gave no sign of life for so long. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg

from benchmarks.deliver import database
from benchmarks.process import print_json, run
from hub.testing import eventually
from tests.e2e.installation import Installation


async def measure(url: str, lease_s: float) -> dict[str, Any]:
    os.environ |= {"UNIONHUB_DATABASE_URL": url, "UNIONHUB_WORKER__LEASE_S": str(lease_s)}
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        one, two = (Installation.new(Path(name) / each) for each in ("one", "two"))
        with one.hub() as first:
            key = two.folder / "var" / "hub.key"
            key.parent.mkdir()
            shutil.copy(one.folder / "var" / "hub.key", key)
            with two.hub() as second:
                connection = await asyncpg.connect(url)
                leader = "SELECT owner FROM lease WHERE name = 'leader'"
                before = await connection.fetchval(leader)
                assert before is not None

                async def taken_over() -> bool:
                    nodes = await connection.fetchval("SELECT count(*) FROM node")
                    return nodes == 1 and await connection.fetchval(leader) not in (None, before)

                first.process.kill()
                killed = perf_counter()
                await eventually(taken_over, 3 * lease_s + 30, 0.05)
                seconds = perf_counter() - killed
                await connection.close()
                second.stop()
    return {"baseline_lease_s": lease_s, "taken_over_after_s": round(seconds, 1), "ratio": round(seconds / lease_s, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.takeover", description=__doc__.splitlines()[0])
    parser.add_argument("--lease-s", type=float, default=20.0, help="[worker] lease_s; shipped: 20")
    args = parser.parse_args()
    with database("postgres", "") as url:
        print_json(run(measure(url, args.lease_s)))


if __name__ == "__main__":
    main()
