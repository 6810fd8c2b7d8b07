"""Two yardsticks: what a bare client does with the same requests, and what the sink can take.

    python -m benchmarks.baseline client|sockets --url URL [--events 20000]

``client`` is one aiohttp session, keep-alive, concurrency 100, nothing durable, no second try after a 503.
``sockets`` writes ready-made requests to 100 keep-alive sockets without an HTTP library: when it is not well
ahead of the client, the sink is what was measured, not the client.
"""

from __future__ import annotations

import argparse
import asyncio
from time import perf_counter

import aiohttp

from benchmarks.load import load
from benchmarks.process import print_json, run
from benchmarks.workload import SESSION_HEADERS, raw_requests, signed_requests

CONCURRENCY = 100


async def client(url: str, count: int) -> float:
    """Answered requests per second."""
    requests = iter(signed_requests(count))
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(connector=connector, headers=SESSION_HEADERS) as session:

        async def post_in_turn() -> None:
            for headers, body in requests:
                async with session.post(url, headers=headers, data=body) as response:
                    await response.read()

        started = perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONCURRENCY):
                tasks.create_task(post_in_turn())
        return count / (perf_counter() - started)


async def sockets(url: str, count: int) -> float:
    """Answered requests per second."""
    return (await load(url, raw_requests(url, count), CONCURRENCY)).per_s


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baseline", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["client", "sockets"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--events", type=int, default=20_000)
    args = parser.parse_args()
    print_json({"per_s": run({"client": client, "sockets": sockets}[args.what](args.url, args.events))})


if __name__ == "__main__":
    main()
