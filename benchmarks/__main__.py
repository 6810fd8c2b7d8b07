"""All benchmarks, each in processes of its own, several times and in turn; what they said goes into a file.

    python -m benchmarks [--only NAME ...] [--rounds 3] [--peers] [--out benchmarks/results/latest.json]

A result is the run with the median ratio; ``ratios`` shows how far the others were from it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median_low
from typing import Any

from benchmarks.process import say

#: What each is run as, and how many times: one that takes long and is no matter of luck runs once.
SUITE: Mapping[str, tuple[Sequence[str], int]] = {
    "deliver.sqlite": (["deliver"], 3),
    "deliver.postgres": (["deliver", "--store", "postgres"], 3),
    "deliver.postgres_2p": (["deliver", "--store", "postgres", "--nodes", "2"], 3),
    "accept.sqlite": (["accept"], 3),
    "accept.postgres": (["accept", "--store", "postgres"], 3),
    "fanout.sqlite": (["fanout"], 1),
    "fanout.postgres": (["fanout", "--store", "postgres"], 1),
    "backlog.sqlite": (["backlog"], 1),
    "backlog.postgres": (["backlog", "--store", "postgres"], 1),
    "latency.sqlite": (["latency"], 1),
    "idle": (["idle"], 1),
    "takeover": (["takeover"], 1),
    "move": (["move"], 1),
    "sms": (["sms"], 3),
    "sms_hub": (["sms_hub"], 1),
    "sms_end_to_end": (["sms_end_to_end"], 3),
    "sms_recipients": (["sms_recipients"], 1),
    "soak": (["soak"], 1),
}
#: Other durable queues on the same job, with --peers.
PEERS: Mapping[str, tuple[Sequence[str], int]] = {
    "peer.pgqueuer": (["peers", "pgqueuer"], 3),
    "peer.huey": (["peers", "huey"], 3),
}
PACKAGES = ("aiohttp", "asyncpg", "cryptography", "orjson", "uvloop")


def one(arguments: Sequence[str]) -> dict[str, Any]:
    """What one run said; one that failed says so and nothing else."""
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{arguments[0]}", *arguments[1:]], stdout=subprocess.PIPE)
    lines = done.stdout.splitlines()
    answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return answer if done.returncode == 0 else {**answer, "failed": done.returncode}


def chosen(only: Sequence[str], peers: bool = False) -> list[str]:
    """``deliver`` stands for all of its kind, and so does ``sms``; ``peers``: those of others too."""
    known = {**SUITE, **PEERS} if peers else SUITE
    return [name for name in known if not only or name in only or re.split(r"[._]", name)[0] in only]


def measure(names: Sequence[str], rounds: int | None) -> dict[str, Any]:
    """In turn, so that an hour in which the machine is slow is everybody's."""
    said: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    known = {**SUITE, **PEERS}
    times = {name: min(known[name][1], rounds) if rounds else known[name][1] for name in names}
    for turn in range(max(times.values(), default=0)):
        for name in names:
            if turn < times[name]:
                say(f"-- {name} ({turn + 1} of {times[name]})")
                said[name].append(one(known[name][0]))
    return {name: _median(runs) for name, runs in said.items()}


def _median(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    good = [run for run in runs if "failed" not in run]
    if not good:
        return runs[-1]
    ratios = [run.get("ratio", 0.0) for run in good]
    middle = good[ratios.index(median_low(ratios))]
    return middle if len(runs) == 1 else {**middle, "ratios": sorted(ratios), "failed_runs": len(runs) - len(good)}


def about() -> dict[str, Any]:
    """Where and of what: without it a figure says nothing."""
    cores = os.cpu_count()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cores} cores, {platform.machine()}, {platform.system()}",
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=", ".join(SUITE))
    parser.add_argument("--rounds", type=int, help="at most so many runs of each")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/latest.json"))
    parser.add_argument("--peers", action="store_true", help="other durable queues too: make bench PEERS=1")
    args = parser.parse_args()
    names = chosen(args.only, args.peers)
    if not names:
        parser.error(f"--only: one of {', '.join(SUITE)}")
    kept = json.loads(args.out.read_text())["results"] if args.only and args.out.exists() else {}
    machine = about()
    results = {name: {**result, "about": machine} for name, result in measure(names, args.rounds).items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    ordered = {name: {**kept, **results}[name] for name in (*SUITE, *PEERS) if name in {**kept, **results}}
    args.out.write_text(json.dumps({"results": ordered}, indent=2) + "\n")
    for name, result in results.items():
        say(f"{name:18} " + ", ".join(f"{k} {v}" for k, v in result.items() if k not in ("about", "ratios")))
    sys.exit(1 if any("failed" in result for result in results.values()) else 0)


if __name__ == "__main__":
    main()
