"""Two durable queues of the package index on our job: requests kept first, then posted, a 503 tried again.

    python -m benchmarks.peers pgqueuer|huey [--events 20000]

pgqueuer runs on PostgreSQL, with fsync, its rows and the client on one loop; huey on a SQLite file with ``fsync``, its
tasks in threads. Neither seals, projects or logs: what they post was made and signed before. They are installed by
``make bench PEERS=1`` alone (``requirements/peers.txt``). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import logging
import tempfile
import threading
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from benchmarks.baseline import CONCURRENCY
from benchmarks.deliver import _cpu_s, bulk_rate, database, running_sink, yardstick
from benchmarks.process import print_json, run, say
from benchmarks.workload import SESSION_HEADERS, signed_requests

#: Jobs that are put in at once, as the hub's drafts are.
UNIT = 100
#: pgqueuer's rows of one claim: the most it takes for so many at once; huey's threads.
CLAIM, THREADS = 10 * CONCURRENCY, 16
AGAIN_S = 0.1


class Seen:
    """When each was answered 200."""

    def __init__(self, count: int) -> None:
        self.at: list[float] = []
        self.done = threading.Event()
        self._left = count
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.at.append(perf_counter())
            self._left -= 1
            if self._left == 0:
                self.done.set()


def _jobs(count: int) -> list[bytes]:
    return [json.dumps([headers, body.decode()]).encode() for headers, body in signed_requests(count)]


async def pgqueuer(url: str, jobs: list[bytes], database_url: str) -> tuple[float, Seen, float]:
    """Seconds for putting them in, when each arrived, CPU seconds of this process."""
    import asyncpg
    from pgqueuer import Job, PgQueuer, RetryRequested  # type: ignore[import-not-found]

    seen = Seen(len(jobs))
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with (
        asyncpg.create_pool(database_url, min_size=4, max_size=8) as pool,
        aiohttp.ClientSession(connector=connector, headers=SESSION_HEADERS) as session,
    ):
        queue = PgQueuer.from_asyncpg_pool(pool)
        await queue.qm.queries.install()

        @queue.entrypoint("post", concurrency_limit=CONCURRENCY)  # type: ignore[untyped-decorator]
        async def post(job: Job) -> None:
            headers, body = json.loads(job.payload)
            async with session.post(url, headers=headers, data=body) as answer:
                await answer.read()
            if answer.status != 200:
                raise RetryRequested(delay=timedelta(seconds=AGAIN_S))
            seen.add()

        cpu, began = _cpu_s(), perf_counter()
        for first in range(0, len(jobs), UNIT):
            unit = jobs[first : first + UNIT]
            await queue.qm.queries.enqueue(["post"] * len(unit), list(unit), [0] * len(unit))
        put_in_s = perf_counter() - began
        running = asyncio.create_task(queue.run(batch_size=CLAIM))
        await asyncio.to_thread(seen.done.wait, 600)
        cpu = _cpu_s() - cpu
        queue.shutdown.set()
        await asyncio.gather(running, return_exceptions=True)
    return put_in_s, seen, cpu


def huey(url: str, jobs: list[bytes], folder: Path) -> tuple[float, Seen, float]:
    """The same, in threads."""
    from huey import SqliteHuey  # type: ignore[import-not-found]

    queue = SqliteHuey("bench", filename=str(folder / "huey.db"), fsync=True, results=False)
    seen, here, parts = Seen(len(jobs)), threading.local(), urlsplit(url)

    @queue.task(retries=5, retry_delay=1)  # type: ignore[untyped-decorator]
    def post(job: str) -> None:
        headers, body = json.loads(job)
        if not hasattr(here, "connection"):
            here.connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        here.connection.request("POST", parts.path, body.encode(), {**SESSION_HEADERS, **headers})
        answer = here.connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise ConnectionError(answer.status)
        seen.add()

    cpu, began = _cpu_s(), perf_counter()
    for job in jobs:
        post(job.decode())
    put_in_s = perf_counter() - began
    consumer = queue.create_consumer(workers=THREADS, worker_type="thread", initial_delay=0.01, max_delay=0.1)
    logging.getLogger("huey").setLevel(logging.CRITICAL)  # one line for each refusal that was asked for
    consumer._set_signal_handlers = lambda: None  # they are the main thread's
    consumer.start()
    seen.done.wait(600)
    cpu = _cpu_s() - cpu
    consumer.stop(graceful=True)
    return put_in_s, seen, cpu


async def measure(peer: str, count: int, database_url: str) -> dict[str, Any]:
    jobs = _jobs(count)
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        folder = Path(name)
        before = await yardstick("client", None, count, folder)
        async with running_sink(folder / "sink.log") as url:
            if peer == "huey":
                put_in_s, seen, cpu = await asyncio.to_thread(huey, url, jobs, folder)
            else:
                put_in_s, seen, cpu = await pgqueuer(url, jobs, database_url)
        baseline = max(before, await yardstick("client", None, count, folder))
    bulk = bulk_rate(seen.at)
    say(f"{peer}: {bulk:,.0f}/s")
    return {
        "baseline_per_s": round(baseline),
        "enqueue_per_s": round(count / put_in_s),
        "bulk_per_s": round(bulk),
        "ratio": round(bulk / baseline, 3),
        "cpu_s_per_1000": round(cpu / count * 1000, 3),
        "lost": count - len(seen.at),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=["pgqueuer", "huey"])
    parser.add_argument("--events", type=int, default=20_000)
    args = parser.parse_args()
    with database("postgres" if args.peer == "pgqueuer" else "sqlite", "") as url:
        print_json(run(measure(args.peer, args.events, url)))


if __name__ == "__main__":
    main()
