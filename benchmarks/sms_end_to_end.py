"""From one HTTP request a message, each durable before its 202, over the ledger and SMPP to the recorded answer.

    python -m benchmarks.sms_end_to_end [--messages 3000] [--window 100]

The hub as shipped, a bare SMSC and the load are a process each; the requests are those of ``POST /api/v1/sms/sendings``
with an API key, the message set that of ``benchmarks.sms``. Yardsticks on the same machine, before and after: our bare
client on the same SMSC (``bare_submit_per_s``) and an aiohttp server that only says hello (``hello_per_s``). Prints one
JSON object; ``ratio`` is of segments from end to end to the bare client's, ``accept_ratio`` of requests taken while the
carrier's connection is paused to the hello's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.hello import PATH, listen
from benchmarks.load import load
from benchmarks.process import cpu_s, partner, print_json, rss_mb, run, say
from benchmarks.sms import ours, segments_of, texts
from hub.app import HubApp
from hub.control import run_command
from hub.log import configure as configure_log
from hub.model import to_us
from hub.plugins import load_plugins
from hub.testing import eventually, running_hub
from hub.web import server

#: As many requests are under way at once.
CONNECTIONS = 64
REQUESTED = "vn.congdoan.sms.requested.v1"
PATIENCE_S = 300.0


# -- the hub's process -----------------------------------------------------------------------------


async def serve(folder: Path, port: int, window: int) -> None:
    """Says where it listens; then does what each line of its standard input asks and answers with a line."""
    (folder / "config").mkdir()
    secret = folder / "config" / "smsc"
    secret.touch(mode=0o600)
    secret.write_text("demo")
    account = {
        "host": "127.0.0.1", "port": port, "system_id": "demo", "password": {"file": "smsc"}, "sender": "CONGDOAN",
        "window": window, "quiet_hours": False,
    }  # fmt: skip
    with (folder / "hub.log").open("wb") as lines:
        configure_log(lines)
        async with running_hub(
            folder,
            load_plugins(),
            connections={"sms": {"type": "telecom_sms", "settings": account}},
            subscriptions=[{"name": "sms", "types": [REQUESTED], "to": "sms", "fields": ["to", "text"]}],
        ) as hub:
            asked = {"name": "benchmark", "scopes": ["sms:send"], "rate": 60_000}
            key = await run_command(hub, "keys add", asked, lambda _: None)
            runner = server.runner(server.build(hub))
            print_json({"port": await listen(runner), "key": key["key"], "rss_mb": rss_mb()})
            await _obey(hub)
            await runner.cleanup()


async def _obey(hub: HubApp) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).split():
        word, number = line[0].decode(), int(line[1])
        if word == "pause":
            by = "operator" if number else None
            await hub.store.pause("connection", "sms", by, "benchmark", to_us(hub.now()))
            if hub.worker is not None:
                hub.worker.wake()
        elif word == "accepted":
            await eventually(partial(_so_many, hub, number), PATIENCE_S, 0.05)
        print_json({"done": word, "accepted": await _accepted(hub), "rss_peak_mb": rss_mb(peak=True)})


async def _so_many(hub: HubApp, number: int) -> bool:
    return await _accepted(hub) >= number


async def _accepted(hub: HubApp) -> int:
    rows = await hub.store.read("SELECT coalesce(sum(count), 0) FROM tally WHERE state = 'accepted'")
    return int(rows[0][0])


# -- the load --------------------------------------------------------------------------------------


def requests(all_texts: Sequence[str], first: int, host: str, key: str, path: str) -> list[bytes]:
    """One message to one invented phone each, ready for the socket."""
    made = []
    for number, text in enumerate(all_texts, first):
        asked = {"name": f"tin-{number}", "text": text, "purpose": "care", "to": f"0912{number:06}"}
        body = json.dumps(asked, ensure_ascii=False).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


class _Hub:
    """The hub's process, asked by lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, word: str, number: int) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{word} {number}\n".encode())
        said: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return said


async def _hello(all_texts: Sequence[str]) -> float:
    async with partner("benchmarks.hello") as (_, ready):
        host = f"127.0.0.1:{ready['port']}"
        seen = await load(f"http://{host}", requests(all_texts, 0, host, "uhk_" + "x" * 40, PATH), CONNECTIONS)
    return seen.per_s


async def _driven(port: int, window: int, all_texts: Sequence[str]) -> dict[str, Any]:
    half = len(all_texts) // 2
    path = "/api/v1/sms/sendings"
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as folder:
        arguments = ("--serve", folder, "--port", port, "--window", window)
        async with partner("benchmarks.sms_end_to_end", *arguments, asks=True) as (process, ready):
            hub, host = _Hub(process), f"127.0.0.1:{ready['port']}"
            warm = requests(texts(200), 500_000, host, ready["key"], path)
            await _taken(host, warm)
            await hub.ask("accepted", 200)
            await hub.ask("pause", 1)
            accept_per_s = await _taken(host, requests(all_texts[:half], 0, host, ready["key"], path))
            await hub.ask("pause", 0)
            await hub.ask("accepted", 200 + half)
            timed = requests(all_texts[half:], half, host, ready["key"], path)
            before, started = cpu_s(process.pid), perf_counter()
            await _taken(host, timed)
            taken_s = perf_counter() - started
            said = await hub.ask("accepted", 200 + len(all_texts))
            seconds = perf_counter() - started
            used = cpu_s(process.pid) - before
    segments = segments_of(all_texts[half:])
    return {
        "accept_per_s": round(accept_per_s),
        "requests_per_s_while_sending": round(len(timed) / taken_s),
        "submit_per_s": round(segments / seconds),
        "messages_per_s": round(len(timed) / seconds),
        "cpu_s_per_1000": round(used / len(timed) * 1000, 3),
        "rss_idle_mb": round(ready["rss_mb"]),
        "rss_peak_mb": round(said["rss_peak_mb"]),
        "accepted": said["accepted"] - 200,
    }


async def _taken(host: str, asked: Sequence[bytes]) -> float:
    seen = await load(f"http://{host}", asked, CONNECTIONS)
    if set(seen.statuses) != {202}:
        raise SystemExit(f"not every message was taken: {dict(seen.statuses)}")
    return seen.per_s


async def measure(messages: int, window: int) -> dict[str, Any]:
    all_texts = texts(messages)
    async with partner("benchmarks.sms_sink") as (_, ready):
        port = ready["port"]
        bare = [await ours(port, all_texts, window)]
        hello = [await _hello(all_texts)]
        found = await _driven(port, window, all_texts)
        bare.append(await ours(port, all_texts, window))
        hello.append(await _hello(all_texts))
    say(f"end to end {found['submit_per_s']:,}/s beside {max(bare):,.0f}/s; accepts {found['accept_per_s']:,}/s")
    return {
        "messages": messages,
        "segments": segments_of(all_texts),
        "window": window,
        "bare_submit_per_s": round(max(bare)),
        **found,
        "ratio": round(found["submit_per_s"] / max(bare), 3),
        "hello_per_s": round(max(hello)),
        "accept_ratio": round(found["accept_per_s"] / max(hello), 3),
        "load_1_min": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sms_end_to_end", description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=6000, help="half of them while the connection is paused")
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--serve", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        run(serve(given.serve, given.port, given.window))
        return
    print_json(run(measure(given.messages, given.window)))


if __name__ == "__main__":
    main()
