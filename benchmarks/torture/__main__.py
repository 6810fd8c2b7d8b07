"""All faults, one after the other: ``python -m benchmarks.torture [--n 10000] [--seed S] [--only NAME ...]``.

Prints one line per fault and per control, says on the way how far it is, and keeps what it has found so far in
``benchmarks/results/torture.json`` (``unfinished``: the run was broken off there). Exit code 1: something was broken,
or a control did not fail.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.torture import backlog, kills, power, restarts, shuffles
from benchmarks.torture.controls import SAFEGUARDS, without
from benchmarks.torture.results import Progress, keep, machine
from hub.log import configure as configure_log

RESULTS = Path(__file__).parents[1] / "results" / "torture.json"
#: Cuts from one recording, how many of them the whole hub is started on, and how many are made between two words.
CUTS, STARTS, STEP = 5000, 20, 1000
_TEMPORARY = "unionhub-torture-"


# -- the faults ------------------------------------------------------------------------------------


async def run_kills(
    n: int, seed: int, folder: Path, say: Progress, phases: Sequence[str] = kills.PHASES, postgres: bool = False
) -> dict[str, Any]:
    """``n`` kills, the phases in turn, an installation of ``kills.LIVES`` at a time."""
    dice, total = random.Random(seed), kills.Verdict()
    with _server(postgres) as database:
        async with kills.fork_server() as lives:
            for first in range(0, n, kills.LIVES):
                these = [phases[i % len(phases)] for i in range(first, min(first + kills.LIVES, n))]
                place = _made(folder, str(first))
                total.add(await kills.installation(lives, place, database(), these, dice.randrange(2**32)))
                say(f"{first + len(these)} of {n} kills, {len(total.broken)} broken", _of_kills(total))
    return _of_kills(total)


def _of_kills(total: kills.Verdict) -> dict[str, Any]:
    return {
        "kills": sum(total.kills.values()),
        "phases": len(total.kills),
        "acknowledged": total.acknowledged,
        "deliveries": total.deliveries,
        "repeats_where_safe": total.repeats,
        "most_of_one_delivery": total.most_of_one,
        "unknown": total.unknown,
        "taken_for_poison": total.poisoned,
        "back_ms_median": round(median(total.back_s) * 1000) if total.back_s else None,
        "broken": total.broken,
    }


async def run_kills_postgres(n: int, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    return await run_kills(n, seed, folder, say, postgres=True)


async def run_after_202(n: int, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    """The one moment that callers rely on: they have the 202, the hub is gone."""
    return await run_kills(n, seed, folder, say, ["caller.answered"])


async def run_power(n: int, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    """Ten times ``n`` power cuts."""
    found: dict[str, int] = {"cuts": 0}
    resent = starts = recorded = 0

    def so_far() -> dict[str, Any]:
        broken = [f"{hits} cuts: {kind}" for kind, hits in found.items() if kind != "cuts"]
        if resent:
            broken.append(f"{resent} sent again by a start")
        return {"cuts": found["cuts"], "recorded_steps": recorded, "whole_starts": starts, "broken": broken}

    for first in range(0, 10 * n, CUTS):
        place = _made(folder, str(first))
        recording = await power.record(place, seed + first)
        recorded += len(recording.log)
        for step in range(first, min(first + CUTS, 10 * n), STEP):
            count = min(STEP, 10 * n - step)
            hits = await asyncio.to_thread(power.tally, recording, count, seed + step, place / "cut")
            for kind, number in hits.items():
                found[kind] = found.get(kind, 0) + number
            say(f"{found['cuts']} of {10 * n} cuts, {len(found) - 1} kinds of damage", so_far())
        for cut in power.cuts(recording, STARTS, seed - first - 1):
            resent += len(await power.resent_by_a_start(recording, cut, place / f"start-{cut.at}"))
            starts += 1
    return so_far()


async def run_shuffles(n: int, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    broken: list[str] = []
    for first in range(0, n, STEP):
        broken += await shuffles.shuffle(_made(folder, str(first)), min(STEP, n - first), seed + first)
        done = {"deliveries": min(first + STEP, n), "broken": broken}
        say(f"{done['deliveries']} of {n} deliveries, {len(broken)} broken", done)
    return {"deliveries": n, "broken": broken}


async def run_restarts(n: int, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    """One stop of PostgreSQL for every 250 of ``n``: 40 of 10,000; the last one for half a minute."""
    return await restarts.run(max(n // 250, 2), seed, folder, say)


async def run_nodes(n: int, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    """A kill of one of three nodes for every hundred of ``n``, and a stop of another."""
    from benchmarks.torture import nodes

    return await asyncio.to_thread(nodes.run, max(n // 100, 3), folder, say)


async def run_backlog(n: int, seed: int, folder: Path, say: Progress) -> dict[str, Any]:
    """A hundred deliveries that a day left behind for every one of ``n``: a million of 10,000."""
    return await backlog.run(100 * n, folder, say)


Fault = Callable[[int, int, Path, Progress], Awaitable[dict[str, Any]]]
FAULTS: dict[str, Fault] = {
    "kills": run_kills,
    "kills_postgres": run_kills_postgres,
    "after_202": run_after_202,
    "power": run_power,
    "shuffles": run_shuffles,
    "restarts": run_restarts,
    "nodes": run_nodes,
    "backlog": run_backlog,
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


async def torture(n: int, seed: int, only: Sequence[str], results: Path) -> list[str]:
    """Runs what is asked for and keeps each result at once; answers the names of what was broken or did not fail."""
    about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "n": n, "seed": seed, "machine": machine()}
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY) as name, (Path(name) / "hub.log").open("wb") as lines:
        configure_log(lines)
        for fault in [f for f in FAULTS if f in only]:
            progress = Progress(results, fault, about)
            found = progress.end(await FAULTS[fault](n, seed, _made(name, fault), progress))
            failed += [fault] if found["broken"] else []
            print(f"{fault}: {_shown(found, about)}", flush=True)
        for safeguard in SAFEGUARDS if "controls" in only else ():
            seen = await control(safeguard, seed, _made(name, f"without-{safeguard}"))
            keep(results, "controls", safeguard, about | {"fails": bool(seen), "seen": seen[0] if seen else ""})
            failed += [] if seen else [f"control {safeguard}"]
            verdict = f"fails as it must ({seen[0]})" if seen else f"DID NOT FAIL; expected: {SAFEGUARDS[safeguard]}"
            print(f"control without {safeguard}: {verdict}", flush=True)
    return failed


def _shown(found: dict[str, Any], about: dict[str, Any]) -> str:
    broken = found["broken"]
    figures = ", ".join(f"{k}={v}" for k, v in found.items() if k != "broken" and k not in about)
    return f"{figures}; {'nothing broken' if not broken else f'BROKEN: {len(broken)}, first: {broken[0]}'}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--n",
        type=int,
        default=10_000,
        help="kills and shuffles; ten times as many power cuts, a hundred times the backlog",
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--only", nargs="+", action="extend", choices=[*FAULTS, "controls"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    print(f"N={args.n} SEED={args.seed} {machine()}", flush=True)
    failed = asyncio.run(torture(args.n, args.seed, args.only or [*FAULTS, "controls"], args.results))
    print(f"BROKEN: {', '.join(failed)}" if failed else "all held", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
