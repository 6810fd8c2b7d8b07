"""How fast signed webhooks are taken, each answered after its COMMIT, beside an aiohttp server that only says hello.

    python -m benchmarks.accept [--store sqlite|postgres] [--requests 10000]

Both servers are processes of their own; ready-made requests come over 64 keep-alive sockets. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hmac import digest
from pathlib import Path
from typing import Any

from benchmarks.deliver import database
from benchmarks.hello import PATH, listen, until_told
from benchmarks.load import load, percentile
from benchmarks.process import cpu_s, partner, print_json, run, say
from hub.log import configure as configure_log
from hub.plugins import load_plugins
from hub.testing import running_hub
from hub.web import server

CONNECTIONS = 64
KEY = b"benchmark-benchmark-benchmark-32"
SECRET = "whsec_" + b64encode(KEY).decode()


def questions(count: int, host: str) -> list[bytes]:
    """Signed questions of invented workers, as the citizen app posts them, ready for the socket."""
    at = int(datetime.now(UTC).timestamp())
    made = []
    for n in range(count):
        body = json.dumps(
            {
                "type": "question",
                "id": f"q-{n}",
                "worker": {"name": f"Nguyễn Thị Mẫu {n}", "phone": f"0912{55_0000 + n % 10_000:06}"},
                "text": "Công ty chậm trả lương hai tháng nay, công đoàn có thể giúp chúng tôi không ạ?",
                "asked_at": "2026-11-23T14:05:09+07:00",
            },
            ensure_ascii=False,
        ).encode()
        signature = b64encode(digest(KEY, f"msg_{n}.{at}.".encode() + body, "sha256")).decode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nwebhook-id: msg_{n}\r\n"
            f"webhook-timestamp: {at}\r\nwebhook-signature: v1,{signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


async def serve_hub(folder: Path, database_url: str) -> None:
    config = folder / "config"
    config.mkdir(parents=True)
    for name in ("key", "client"):
        (config / name).write_text(SECRET)
        (config / name).chmod(0o600)
    app = {
        "base_url": "http://127.0.0.1:9",
        "client_id": "benchmark",
        "client_secret": {"file": "client"},
        "webhook_secrets": [{"file": "key"}],
    }
    with (folder / "hub.log").open("wb") as lines:
        configure_log(lines)
        async with running_hub(
            folder,
            load_plugins(),
            connections={"app": {"type": "citizen_app", "settings": app}},
            settings={"database_url": database_url},
        ) as hub:
            runner = server.runner(server.build(hub))
            print_json({"port": await listen(runner)})
            await until_told()
            await runner.cleanup()


async def _driven(count: int, module: str, *arguments: object) -> Mapping[str, float]:
    """Rate, waits and CPU of a server that gets ``count`` questions."""
    async with partner(module, *arguments) as (process, ready):
        host = f"127.0.0.1:{ready['port']}"
        warm = await load(f"http://{host}", [b.replace(b"msg_", b"wrm_") for b in questions(200, host)], CONNECTIONS)
        requests = questions(count, host)
        before = cpu_s(process.pid)
        seen = await load(f"http://{host}", requests, CONNECTIONS)
        used = cpu_s(process.pid) - before
    if set(seen.statuses) != {202} or not warm.statuses:
        raise SystemExit(f"not every request was accepted: {dict(seen.statuses)}")
    return {
        "per_s": seen.per_s,
        "p50_ms": percentile(seen.waited_s, 0.5) * 1000,
        "p99_ms": percentile(seen.waited_s, 0.99) * 1000,
        "cpu_s_per_1000": used / count * 1000,
    }


async def measure(count: int, database_url: str) -> dict[str, Any]:
    before = await _driven(count, "benchmarks.hello")
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as folder:
        hub = await _driven(count, "benchmarks.accept", "--serve", folder, "--database", database_url)
    after = await _driven(count, "benchmarks.hello")
    baseline = max(before["per_s"], after["per_s"])
    say(f"accepted: {hub['per_s']:,.0f}/s beside {baseline:,.0f}/s")
    return {
        "baseline_per_s": round(baseline),
        "per_s": round(hub["per_s"]),
        "ratio": round(hub["per_s"] / baseline, 3),
        "p50_ms": round(hub["p50_ms"], 2),
        "p99_ms": round(hub["p99_ms"], 2),
        "cpu_s_per_1000": round(hub["cpu_s_per_1000"], 3),
        "baseline_cpu_s_per_1000": round(min(before["cpu_s_per_1000"], after["cpu_s_per_1000"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accept", description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument(
        "--database", default="", help="an empty PostgreSQL database; else a server is made for the run"
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--serve", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        run(serve_hub(args.serve, args.database))
        return
    with database(args.store, args.database) as url:
        print_json(run(measure(args.requests, url)))


if __name__ == "__main__":
    main()
