"""A list of 100,000 people to be written to: read, judged and owed in full, and the memory it takes.

    python -m benchmarks.sms_recipients [--recipients 100000] [--kind csv|xlsx]

``sms send-file`` on the shipped hub, each with a text of their own, while the carrier's connection is paused; the list
is refused once first for a bad row, so that judging alone is seen too. An idle hub with all plugins but this one is
the yardstick of what the plugin takes. Prints one JSON object; ``ratio`` is the most memory with the list to the idle
hub with the plugin.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.process import partner, print_json, rss_mb, run
from hub.app import HubApp
from hub.control import run_command
from hub.log import configure as configure_log
from hub.model import Json, to_us
from hub.plugins import load_plugins
from hub.testing import running_hub

REQUESTED = "vn.congdoan.sms.requested.v1"
#: After it is ready a hub may still do what a start leaves to be done.
SETTLE_S = 2.0


def make_list(path: Path, count: int, bad: bool) -> None:
    """Invented people, each with a place of work that fills the template."""
    rows = ((f"Người {n}", f"0912{n:06}", f"CĐCS số {n % 997}") for n in range(count))
    first = [("Không số", "khong", "x")] if bad else []
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8") as out:
            out.write("Họ tên,Số điện thoại,Đơn vị\n")
            out.writelines(",".join(row) + "\n" for row in (*first, *rows))
        return
    import xlsxwriter

    with xlsxwriter.Workbook(path, {"constant_memory": True}) as book:
        sheet = book.add_worksheet()
        for at, row in enumerate([("Họ tên", "Số điện thoại", "Đơn vị"), *first]):
            sheet.write_row(at, 0, row)
        for at, row in enumerate(rows, 1 + len(first)):
            sheet.write_row(at, 0, row)


@asynccontextmanager
async def _hub(folder: Path, with_plugin: bool) -> AsyncIterator[HubApp]:
    (folder / "config").mkdir(parents=True)
    secret = folder / "config" / "smsc"
    secret.touch(mode=0o600)
    secret.write_text("demo")
    account = {
        "host": "127.0.0.1", "port": 9, "system_id": "demo", "password": {"file": "smsc"}, "sender": "CONGDOAN",
        "quiet_hours": False,
    }  # fmt: skip
    with (folder / "hub.log").open("wb") as lines:
        configure_log(lines)
        if not with_plugin:
            others = [p for p in entry_points(group="unionhub.plugins") if p.name != "telecom_sms"]
            async with running_hub(folder, load_plugins(points=others), connections={}) as hub:
                yield hub
            return
        async with running_hub(
            folder,
            load_plugins(),
            connections={"sms": {"type": "telecom_sms", "settings": account}},
            subscriptions=[{"name": "sms", "types": [REQUESTED], "to": "sms", "fields": ["to", "text"]}],
        ) as hub:
            await hub.store.pause("connection", "sms", "operator", "benchmark", to_us(hub.now()))
            yield hub


async def serve_idle(folder: Path, with_plugin: bool) -> None:
    async with _hub(folder, with_plugin):
        await asyncio.sleep(SETTLE_S)
        print_json({"rss_mb": rss_mb()})
        await asyncio.Event().wait()


async def serve_list(folder: Path, count: int, kind: str) -> None:
    """The lists are made by another process before: only what the hub does counts."""
    async with _hub(folder / "hub", True) as hub:
        await asyncio.sleep(SETTLE_S)
        idle = rss_mb()
        wording = {"name": "moi", "text": "Mời {ho_ten} ({don_vi}) dự hội nghị người lao động.", "purpose": "care"}
        await run_command(hub, "sms template", wording, lambda _: None)
        refused = await _send(hub, folder / f"bad.{kind}")
        judged = rss_mb(peak=True)
        started = perf_counter()
        sent = await _send(hub, folder / f"good.{kind}")
        seconds = perf_counter() - started
        print_json(
            {
                "idle_mb": idle, "judged_mb": judged, "peak_mb": rss_mb(peak=True), "seconds": seconds,
                "refused_for": refused["bad_rows"], "messages": sent["messages"], "sent": sent["sent"],
            }
        )  # fmt: skip


async def _send(hub: HubApp, path: Path) -> Json:
    asked = {"name": path.stem, "template": "moi", "purpose": "care", "file": path}
    return await run_command(hub, "sms send-file", asked, lambda _: None)


async def _idle(folder: Path, word: str) -> float:
    async with partner("benchmarks.sms_recipients", "--serve", word, "--folder", folder / word) as (_, said):
        return float(said["rss_mb"])


async def measure(count: int, kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="unionhub-bench-") as name:
        folder = Path(name)
        for bad in (True, False):
            make_list(folder / f"{'bad' if bad else 'good'}.{kind}", count - bad, bad)
        bare, plugin = await _idle(folder, "bare"), await _idle(folder, "plugin")
        arguments = ("--serve", "list", "--folder", folder, "--recipients", count, "--kind", kind)
        async with partner("benchmarks.sms_recipients", *arguments) as (_, said):
            pass
    if not said["sent"] or said["messages"] != count or said["refused_for"] != 1:
        raise SystemExit(f"the list was not sent as it should: {said}")
    return {
        "recipients": count,
        "kind": kind,
        "rss_without_plugin_mb": round(bare, 1),
        "rss_with_plugin_mb": round(plugin, 1),
        "plugin_mb": round(plugin - bare, 1),
        "rss_peak_mb": round(said["peak_mb"], 1),
        "judging_growth_mb": round(said["judged_mb"] - said["idle_mb"], 1),
        "memory_growth_mb": round(said["peak_mb"] - said["idle_mb"], 1),
        "per_s": round(count / said["seconds"]),
        "ratio": round(said["peak_mb"] / said["idle_mb"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sms_recipients", description=__doc__.splitlines()[0])
    parser.add_argument("--recipients", type=int, default=100_000)
    parser.add_argument("--kind", choices=["csv", "xlsx"], default="csv")
    parser.add_argument("--serve", choices=["bare", "plugin", "list"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve == "list":
        run(serve_list(given.folder, given.recipients, given.kind))
    elif given.serve:
        given.folder.mkdir()
        run(serve_idle(given.folder, given.serve == "plugin"))
    else:
        print_json(run(measure(given.recipients, given.kind)))


if __name__ == "__main__":
    main()
