"""All faults, one after the other: ``python -m benchmarks.torture [--n 10000] [--seed S] [--only NAME]``.

Prints one line per fault and per control, and writes ``benchmarks/results/torture.json``. Exit code 1: something was
broken, or a control did not fail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.torture import kills, power, restarts, shuffles
from benchmarks.torture.controls import SAFEGUARDS, without
from hub.log import configure as configure_log

RESULTS = Path(__file__).parents[1] / "results" / "torture.json"
#: Cuts from one recording, and how many of them the whole hub is started on.
CUTS, STARTS = 5000, 20
_TEMPORARY = "unionhub-torture-"


# -- the faults ------------------------------------------------------------------------------------


async def run_kills(n: int, seed: int, folder: Path, postgres: bool = False, done: str = "") -> dict[str, Any]:
    """``n`` kills, the phases in turn, an installation of ``kills.LIVES`` at a time."""
    dice, total = random.Random(seed), kills.Verdict()
    with _server(postgres) as database:
        async with kills.fork_server() as lives:
            for first in range(0, n, kills.LIVES):
                phases = [kills.PHASES[i % len(kills.PHASES)] for i in range(first, min(first + kills.LIVES, n))]
                place = _made(folder, str(first))
                total.add(await kills.installation(lives, place, database(), phases, dice.randrange(2**32)))
                _say(f"{done}{first + len(phases)} kills, {len(total.broken)} broken")
    return {
        "kills": sum(total.kills.values()),
        "phases": len(total.kills),
        "acknowledged": total.acknowledged,
        "deliveries": total.deliveries,
        "repeats_where_safe": total.repeats,
        "most_of_one_delivery": total.most_of_one,
        "unknown": total.unknown,
        "back_ms_median": round(median(total.back_s) * 1000),
        "broken": total.broken,
    }


async def run_kills_postgres(n: int, seed: int, folder: Path) -> dict[str, Any]:
    return await run_kills(n, seed, folder, postgres=True)


async def run_power(n: int, seed: int, folder: Path) -> dict[str, Any]:
    """Ten times ``n`` power cuts."""
    found: dict[str, int] = {"cuts": 0}
    resent = starts = recorded = 0
    for first in range(0, 10 * n, CUTS):
        place = _made(folder, str(first))
        recording = await power.record(place, seed + first)
        recorded += len(recording.log)
        count = min(CUTS, 10 * n - first)
        for kind, hits in (await asyncio.to_thread(power.tally, recording, count, seed + first, place / "cut")).items():
            found[kind] = found.get(kind, 0) + hits
        for cut in power.cuts(recording, STARTS, seed - first - 1):
            resent += len(await power.resent_by_a_start(recording, cut, place / f"start-{cut.at}"))
            starts += 1
        _say(f"{found['cuts']} cuts, {len(found) - 1} kinds of damage")
    broken = [f"{hits} cuts: {kind}" for kind, hits in found.items() if kind != "cuts"]
    if resent:
        broken.append(f"{resent} sent again by a start")
    return {"cuts": found["cuts"], "recorded_steps": recorded, "whole_starts": starts, "broken": broken}


async def run_shuffles(n: int, seed: int, folder: Path) -> dict[str, Any]:
    return {"deliveries": n, "broken": await shuffles.shuffle(folder, n, seed)}


async def run_restarts(n: int, seed: int, folder: Path) -> dict[str, Any]:
    """One stop of PostgreSQL for every 250 of ``n``: 40 of 10,000; the last one for half a minute."""
    return await restarts.run(max(n // 250, 2), seed, folder)


async def run_nodes(n: int, seed: int, folder: Path) -> dict[str, Any]:
    """A kill of one of three nodes for every hundred of ``n``, and a stop of another."""
    from benchmarks.torture import nodes

    return await asyncio.to_thread(nodes.run, max(n // 100, 3), folder)


Fault = Callable[[int, int, Path], Awaitable[dict[str, Any]]]
FAULTS: dict[str, Fault] = {
    "kills": run_kills,
    "kills_postgres": run_kills_postgres,
    "power": run_power,
    "shuffles": run_shuffles,
    "restarts": run_restarts,
    "nodes": run_nodes,
}


# -- the controls ----------------------------------------------------------------------------------


async def control(safeguard: str, seed: int, folder: Path) -> list[str]:
    """What is seen to break when this safeguard is gone: nothing would be a test that cannot fail."""
    if safeguard == "fsync":
        recording = await power.record(folder, seed, events=60, synchronous="OFF")
        found = power.tally(recording, 200, seed, folder / "cut")
        return [f"{hits} of {found['cuts']} cuts: {kind}" for kind, hits in found.items() if kind != "cuts" and hits]
    if safeguard == "dedupe":
        phases = ["request.kept", "ledger.committed"] * 3
        async with kills.fork_server() as lives:
            return (await kills.installation(lives, folder, "", phases, seed, safeguard)).broken
    with without(safeguard):
        return await shuffles.shuffle(folder, 100, seed)


# -- all of it -------------------------------------------------------------------------------------


@contextmanager
def _server(wanted: bool) -> Iterator[Callable[[], str]]:
    """Makes an empty database at each call; "" stands for a file."""
    if not wanted:
        yield lambda: ""
        return
    from tests.postgres import running_postgres

    with running_postgres() as server:
        yield lambda: server.dsn(server.create_database())


def _made(above: str | Path, name: str) -> Path:
    folder = Path(above) / name
    folder.mkdir()
    return folder


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def torture(n: int, seed: int, only: Sequence[str], results: Path) -> list[str]:
    """Runs what is asked for and keeps each result at once; answers the names of what was broken or did not fail."""
    about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "n": n, "seed": seed, "machine": machine()}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as name, (Path(name) / "hub.log").open("wb") as lines:
        configure_log(lines)
        for fault in [f for f in FAULTS if f in only]:
            began = perf_counter()
            found = {**await FAULTS[fault](n, seed, _made(name, fault)), "seconds": round(perf_counter() - began)}
            _keep(results, "faults", fault, about | found)
            failed += [fault] if found["broken"] else []
            print(f"{fault}: {_shown(found)}", flush=True)
        for safeguard in SAFEGUARDS if "controls" in only else ():
            seen = await control(safeguard, seed, _made(name, f"without-{safeguard}"))
            _keep(results, "controls", safeguard, about | {"fails": bool(seen), "seen": seen[0] if seen else ""})
            failed += [] if seen else [f"control {safeguard}"]
            verdict = f"fails as it must ({seen[0]})" if seen else f"DID NOT FAIL; expected: {SAFEGUARDS[safeguard]}"
            print(f"control without {safeguard}: {verdict}", flush=True)
    return failed


def _shown(found: dict[str, Any]) -> str:
    broken = found["broken"]
    figures = ", ".join(f"{k}={v}" for k, v in found.items() if k != "broken")
    return f"{figures}; {'nothing broken' if not broken else f'BROKEN: {len(broken)}, first: {broken[0]}'}"


def _keep(results: Path, part: str, name: str, found: dict[str, Any]) -> None:
    """Into the file of results; what was not run this time stays as it was, with its own date."""
    results.parent.mkdir(exist_ok=True)
    kept: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    kept.setdefault(part, {})[name] = found
    results.write_text(json.dumps(kept, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000, help="kills and shuffles; ten times as many power cuts")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--only", nargs="+", choices=[*FAULTS, "controls"], default=[*FAULTS, "controls"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    print(f"N={args.n} SEED={args.seed} {machine()}", flush=True)
    failed = asyncio.run(torture(args.n, args.seed, args.only, args.results))
    print(f"BROKEN: {', '.join(failed)}" if failed else "all held", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
