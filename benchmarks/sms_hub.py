"""How fast the shipped hub sends SMS: from the ledger over SMPP to the recorded answer, each message durable.

    python -m benchmarks.sms_hub [--messages 3000] [--window 100]

Six campaigns at once, as in ``benchmarks.sms`` half GSM-7, half Vietnamese of one to three segments, to invented
people, through admission and pacing as shipped, to a bare SMSC in a process of its own. The clock runs from the commit
of the campaigns, so that the fan-out counts too, to the last recorded answer. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.process import partner, print_json, rss_mb, run
from benchmarks.sms import segments_of, texts
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.log import configure as configure_log
from hub.model import Audience, Draft, Json
from hub.plugins import load_plugins
from hub.testing import eventually, plain_event_type, registry_of, running_hub

ANNOUNCED = "vn.congdoan.benchmark.announced.v1"
CAMPAIGNS = 6
PATIENCE_S = 300.0


class People:
    """A Directory in which every campaign has people of its own; the rule is one number's messages in an hour."""

    def __init__(self, each: int) -> None:
        self._each = each

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        first = selector["campaign"] * self._each
        for start in range(first, first + self._each, 500):
            yield [f"m{number:07}" for number in range(start, min(start + 500, first + self._each))]

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        return {subject: f"+849{subject[1:]:0>8}" for subject in subjects}

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        return None


async def measure(messages: int, window: int) -> dict[str, Any]:
    each = messages // CAMPAIGNS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config").mkdir()
        secret = folder / "config" / "smsc"
        secret.touch(mode=0o600)
        secret.write_text("demo")
        registry = registry_of(
            load_plugins(),
            event_types=[plain_event_type(ANNOUNCED, thin=("text",))],
            directory=lambda hub: People(each),
        )
        async with partner("benchmarks.sms_sink") as (_, ready):
            settings = {
                "host": "127.0.0.1", "port": ready["port"], "system_id": "demo", "password": {"file": "smsc"},
                "sender": "CONGDOAN", "window": window, "quiet_hours": False,
            }  # fmt: skip
            with (folder / "hub.log").open("wb") as lines:
                configure_log(lines)
                async with running_hub(
                    folder,
                    registry,
                    connections={"sms": {"type": "telecom_sms", "settings": settings}},
                    subscriptions=[{"name": "s", "types": [ANNOUNCED], "to_each": {"phone": "sms"}}],
                ) as hub:
                    idle_mb = rss_mb()
                    seconds = await _timed(hub, each)
                    accepted = await _accepted(hub)
                    peak_mb = rss_mb(peak=True)
    segments = each * segments_of(texts(CAMPAIGNS))
    return {
        "messages": each * CAMPAIGNS,
        "segments": segments,
        "window": window,
        "accepted": accepted,
        "messages_per_s": round(accepted / seconds),
        "submit_per_s": round(segments / seconds),
        "rss_idle_mb": round(idle_mb),
        "rss_peak_mb": round(peak_mb),
        "load_1_min": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }


async def _timed(hub: HubApp, each: int) -> float:
    started = perf_counter()
    drafts = [
        Draft(
            type=ANNOUNCED, source="/benchmark", dedupe_key=str(number), data={"text": text},
            audience=Audience({"campaign": number}, ("phone",), "care"),
        )
        for number, text in enumerate(texts(CAMPAIGNS))
    ]  # fmt: skip
    await hub.commit(UnitOfWork(drafts=drafts))

    async def all_answered() -> bool:
        return await _accepted(hub) >= each * CAMPAIGNS

    await eventually(all_answered, PATIENCE_S, 0.1)
    return perf_counter() - started


async def _accepted(hub: HubApp) -> int:
    rows = await hub.store.read("SELECT count(*) FROM attempt WHERE outcome = 'accepted'")
    return int(rows[0][0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--window", type=int, default=100)
    given = parser.parse_args()
    print_json(run(measure(given.messages, given.window)))
