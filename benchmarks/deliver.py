"""How fast the shipped hub delivers durable, signed events, beside a bare client on the same machine.

    python -m benchmarks.deliver [--store sqlite|postgres] [--database URL] [--events 20000] [--sink URL] [--nodes 2]

Prints one JSON object (benchmarks/README.md says what each key means); progress goes to standard error.
Exit code 1: an event was lost, or the run is void because the sink was too slow to be a yardstick.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.baseline import CONCURRENCY
from benchmarks.process import cpu_s, partner, print_json, rss_mb, run, say
from benchmarks.workload import EVENT_TYPE, SECRET, drafts
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.demo.outside import Outside
from hub.log import configure as configure_log
from hub.model import to_us
from hub.plugins import load_plugins
from hub.testing import running_hub

UNIT_DRAFTS = 100
#: Callers who commit at once, each the next unit when its last one is durable.
CALLERS = 8
#: Below this the sink, not the sender, would be what was measured.
SINK_AHEAD = 1.5
#: Longer than the first retries wait; without any delivery for so long, the rest is not coming.
STANDSTILL_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRun:
    """What the hub did. Seconds are of one monotonic clock, CPU and memory of the hub's process alone."""

    event_ids: Sequence[str]
    #: From the first commit called to the last one answered.
    enqueue_s: float
    #: When each delivery was settled as delivered.
    delivered_at_s: Sequence[float]
    #: From the first commit called to the last delivery settled.
    all_done_s: float
    cpu_s: float
    #: For how long the event loop's thread could have run and had no core, as a share of its CPU time and this.
    waited_for_core: float
    #: Of all processes of the PostgreSQL server; None without one, or when it is on another machine.
    server_cpu_s: float | None
    rss_peak_mb: float


async def run_hub(url: str, count: int, folder: Path, database_url: str, nodes: int = 1) -> HubRun:
    """Runs the shipped hub in this process on ``folder`` until ``count`` events are delivered to ``url``.

    Further ``nodes`` are processes of their own beside it; CPU and memory are of all of them together.
    """
    with folder.with_suffix(".log").open("wb") as lines:
        configure_log(lines)
        async with node(url, folder, database_url) as hub, AsyncExitStack() as stack:
            others = []
            for number in range(1, nodes):
                other = folder.with_name(f"{folder.name}-{number}")
                (other / "var").mkdir(parents=True)
                shutil.copy2(folder / "var" / "hub.key", other / "var" / "hub.key")
                started = partner("benchmarks.second", "--folder", other, "--database", database_url, "--url", url)
                others.append((await stack.enter_async_context(started))[0].pid)
            return await _timed(hub, count, others)


@asynccontextmanager
async def node(url: str, folder: Path, database_url: str) -> AsyncIterator[HubApp]:
    """A shipped hub that works for the benchmark's partner at ``url``."""
    _write_secret(folder / "config")
    settings = {
        "url": url,
        "secret": {"file": "secret"},
        "concurrency": CONCURRENCY,
        "allow_networks": ["127.0.0.0/8"],
    }
    subscription = {"name": "benchmark", "types": [EVENT_TYPE], "to": "partner"}
    async with running_hub(
        folder,
        load_plugins(),
        connections={"partner": {"type": "partner", "settings": settings}},
        subscriptions=[subscription],
        settings={"database_url": database_url},
    ) as hub:
        yield hub


def _write_secret(folder: Path) -> None:
    folder.mkdir(parents=True)
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)


async def _timed(hub: HubApp, count: int, others: Sequence[int]) -> HubRun:
    # Made before the clock starts: inventing events is not the hub's work.
    units = [UnitOfWork(drafts=drafts(range(first, first + UNIT_DRAFTS))) for first in range(0, count, UNIT_DRAFTS)]
    left = iter(units)
    event_ids: list[str] = []

    async def enqueue() -> None:
        for unit in left:
            event_ids.extend(map(str, (await hub.commit(unit)).events))

    server = await _server_pid(hub)
    server_cpu = _server_cpu_s(server)
    cpu, (ran, waited) = _cpu_s() + sum(map(cpu_s, others)), _this_thread()
    started, clock = to_us(hub.now()), perf_counter()
    await asyncio.gather(*(enqueue() for _ in range(CALLERS)))
    enqueue_s = perf_counter() - clock
    say(f"enqueued: {count / enqueue_s:,.0f}/s")
    await _until_delivered(hub, count)
    cpu = _cpu_s() + sum(map(cpu_s, others)) - cpu
    now_ran, now_waited = _this_thread()
    ran, waited = now_ran - ran, now_waited - waited
    server_cpu = _server_cpu_s(server) - server_cpu
    settled = await hub.store.read("SELECT settled_at FROM delivery WHERE state = 'delivered' ORDER BY settled_at")
    instants = [(at - started) / 1e6 for (at,) in settled]
    return HubRun(
        event_ids=event_ids,
        enqueue_s=enqueue_s,
        delivered_at_s=instants,
        all_done_s=instants[-1],
        cpu_s=cpu,
        waited_for_core=waited / (ran + waited or 1),
        server_cpu_s=server_cpu if server else None,
        rss_peak_mb=rss_mb(peak=True) + sum(rss_mb(pid, peak=True) for pid in others),
    )


async def _until_delivered(hub: HubApp, count: int) -> None:
    """Asks the kept counters, since counting rows would take from what is measured; gives up on a standstill."""
    done, since = 0, perf_counter()
    while done < count and perf_counter() - since < STANDSTILL_S:
        await asyncio.sleep(0.05)
        rows = await hub.store.read("SELECT coalesce(sum(count), 0) FROM tally WHERE state = 'delivered'")
        if rows[0][0] != done:
            done, since = rows[0][0], perf_counter()


def _cpu_s() -> float:
    """User and system seconds of this process, without its children."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _this_thread() -> tuple[int, int]:
    """Nanoseconds it ran, and those it was ready to and did not; (0, 0) where the system does not tell."""
    try:
        ran, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(ran), int(waited)


async def _server_pid(hub: HubApp) -> int:
    """The process that all of a PostgreSQL server's have as their parent; 0 when there is none on this machine."""
    if not hub.config.is_postgres:
        return 0
    ((backend,),) = await hub.store.read("SELECT pg_backend_pid()")
    found = _stat(Path(f"/proc/{backend}/stat"))
    return found.parent if found is not None and found.name == "postgres" else 0


class _Stat(NamedTuple):
    """What is asked of ``/proc/PID/stat``; times in clock ticks, ``with_dead`` with those of children that ended."""

    name: str
    parent: int
    own: int
    with_dead: int


def _stat(file: Path) -> _Stat | None:
    try:
        head, _, rest = file.read_text().rpartition(")")
    except OSError:
        return None
    fields = rest.split()
    user, system, dead_user, dead_system = map(int, fields[11:15])
    own = user + system
    return _Stat(head.partition("(")[2], int(fields[1]), own, own + dead_user + dead_system)


def _server_cpu_s(pid: int) -> float:
    """User and system seconds of every process of the server, of those too that have ended."""
    if not pid:
        return 0.0
    server = _stat(Path(f"/proc/{pid}/stat"))
    ticks = server.with_dead if server is not None else 0
    ticks += sum(s.own for f in Path("/proc").glob("[0-9]*/stat") if (s := _stat(f)) is not None and s.parent == pid)
    return ticks / os.sysconf("SC_CLK_TCK")


# -- the other processes ---------------------------------------------------------------------------


@asynccontextmanager
async def running_sink(log: Path) -> AsyncIterator[str]:
    """A sink of its own for one run; its log is complete when the block ends."""
    async with partner("benchmarks.sink", "--log", log) as (_, ready):
        yield f"http://127.0.0.1:{ready['port']}/hook"


async def yardstick(what: str, sink: str | None, count: int, folder: Path) -> float:
    """Requests per second of ``benchmarks.baseline``, in a process of its own like the hub."""
    if sink is None:
        with tempfile.TemporaryDirectory(dir=folder) as apart:
            async with running_sink(Path(apart) / "sink.log") as url:
                return await yardstick(what, url, count, folder)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.baseline", what, "--url", sink, "--events", str(count),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"benchmarks.baseline {what} failed")
    per_s = float(json.loads(output)["per_s"])
    say(f"{what}: {per_s:,.0f}/s")
    return per_s


# -- what the numbers mean -------------------------------------------------------------------------


def bulk_rate(instants: Sequence[float]) -> float:
    """Per second between the 10th and the 90th percentile: without the start and the last retries."""
    ordered = sorted(instants)
    first, last = len(ordered) // 10, len(ordered) * 9 // 10 - 1
    seconds = ordered[last] - ordered[first]
    return (last - first) / seconds if seconds > 0 else 0.0


def tally(log: bytes, event_ids: Sequence[str]) -> tuple[int, int]:
    """``lost`` (enqueued and never answered 200) and ``duplicated`` (answered 200 more than once)."""
    taken = Counter(line.split()[0].decode() for line in log.splitlines() if line.split()[1] == b"200")
    return sum(1 for each in event_ids if each not in taken), sum(1 for each in event_ids if taken[each] > 1)


@contextmanager
def database(store: str, url: str) -> Iterator[str]:
    """The hub's database: a file (""), the one that was named, or a server of our own that writes through to disk."""
    if store == "sqlite" or url:
        yield url
        return
    from tests.postgres import running_postgres

    with running_postgres(durable=True) as server:
        yield server.dsn(server.create_database())


async def measure(count: int, sink: str | None, database_url: str, nodes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        folder = Path(name)
        lost: int | None = None
        duplicated: int | None = None
        sink_only = await yardstick("sockets", sink, count, folder)
        before = await yardstick("client", sink, count, folder)
        if sink is None:
            log = folder / "sink.log"
            async with running_sink(log) as url:
                hub = await run_hub(url, count, folder / "hub", database_url, nodes)
            lost, duplicated = tally(log.read_bytes(), hub.event_ids)
        else:
            hub = await run_hub(sink, count, folder / "hub", database_url, nodes)
        # A shared machine drifts: the better of the two is the harder one to come near.
        baseline = max(before, await yardstick("client", sink, count, folder))
    bulk = bulk_rate(hub.delivered_at_s)
    return {
        "baseline_per_s": round(baseline),
        "sink_only_per_s": round(sink_only),
        "enqueue_per_s": round(count / hub.enqueue_s),
        "bulk_per_s": round(bulk),
        "all_done_per_s": round(count / hub.all_done_s),
        "ratio": round(bulk / baseline, 3),
        "cpu_s_per_1000": round(hub.cpu_s / count * 1000, 3),
        "waited_for_core": round(hub.waited_for_core, 2),
        **_of_the_server(hub, count, database_url),
        "rss_peak_mb": round(hub.rss_peak_mb, 1),
        "lost": lost,
        "duplicated": duplicated,
        "void": sink_only < SINK_AHEAD * baseline,
    }


def _of_the_server(hub: HubRun, count: int, database_url: str) -> dict[str, float | None]:
    if not database_url:
        return {}
    cpu_s = hub.server_cpu_s
    return {"postgres_cpu_s_per_1000": None if cpu_s is None else round(cpu_s / count * 1000, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deliver", description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument(
        "--database",
        metavar="URL",
        default="",
        help="an empty PostgreSQL database; else a server is made for the run",
    )
    parser.add_argument("--events", type=int, default=20_000, help="a multiple of 100")
    parser.add_argument(
        "--sink", metavar="URL", help="another sink than benchmarks.sink; lost and duplicated are then null"
    )
    parser.add_argument("--nodes", type=int, default=1, help="processes that share the work, with --store postgres")
    args = parser.parse_args()
    if args.nodes > 1 and args.store != "postgres":
        parser.error("--nodes: with --store postgres")
    if args.events < UNIT_DRAFTS or args.events % UNIT_DRAFTS:
        parser.error(f"--events: a multiple of {UNIT_DRAFTS}, the drafts of one unit of work")
    if args.database and (args.store != "postgres" or not Outside(Path(), args.database).is_empty()):
        parser.error("--database: an empty database, with --store postgres")
    with database(args.store, args.database) as url:
        answer = run(measure(args.events, args.sink, url, args.nodes))
    print_json(answer)
    sys.exit(1 if answer["void"] or answer["lost"] else 0)


if __name__ == "__main__":
    main()
