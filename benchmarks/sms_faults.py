"""What becomes of a sending while the carrier misbehaves: the shipped hub, the simulated SMSC in its own process.

    python -m benchmarks.sms_faults [--only NAME]

The cases and sizes are those in which two gateways were measured (docs/sms.md). Prints one JSON object per case:
``sent`` stands in the carrier's log, ``twice`` more than once; the rest are the ledger's own counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp

from benchmarks.process import partner, print_json, run
from hub import views
from hub.app import HubApp
from hub.contract import UnitOfWork
from hub.log import configure as configure_log
from hub.model import Audience, Draft, Json
from hub.plugins import load_plugins
from hub.testing import eventually, plain_event_type, registry_of, running_hub

ANNOUNCED = "vn.congdoan.benchmark.announced.v1"
#: Longer than any case takes on a loaded machine.
PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    count: int
    behaviour: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: The connection is cut as soon as so many submits are unanswered.
    cut_at: int = 0


CASES = (
    Case("limit_100_per_s_known", 500, {"rate_per_s": 100}, {"rate_per_s": 100, "window": 50}),
    Case("limit_100_per_s_unknown", 500, {"rate_per_s": 100}, {"window": 50}),
    Case("rsyserr_20_percent", 200, {"error_share": 0.2, "error_status": 0x08}),
    Case("rmsgqful_20_percent", 200, {"error_share": 0.2, "error_status": 0x14}),
    Case("cut_with_unanswered_submits", 200, {"slow_ms": 100}, cut_at=10),
    Case("answers_lost_2_percent", 500, {"lose_share": 0.02}, {"response_timeout_s": 5}),
    Case("receipts_500_mixed_early_twice_shuffled", 500, {
        "early_receipt_share": 0.3, "receipt_repeat_share": 0.3, "receipt_shuffle": True, "receipt_style": "mixed",
    }),
)  # fmt: skip


class People:
    """A Directory of invented phones."""

    def __init__(self, count: int) -> None:
        self._phones = {f"m{number:04}": f"+8491255{number:04}" for number in range(count)}

    async def recipients(self, selector: Json) -> AsyncIterator[Sequence[str]]:
        yield list(self._phones)

    async def addresses(self, subjects: Sequence[str], channel: str) -> Mapping[str, str]:
        return {subject: self._phones[subject] for subject in subjects}

    async def may_contact(self, subject: str, purpose: str, channel: str) -> str | None:
        return None


class Control:
    """The simulator's control port."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http, self._url = http, f"http://127.0.0.1:{port}/control"

    async def set(self, **fields: Any) -> None:
        async with self._http.put(self._url, json=fields) as answer:
            answer.raise_for_status()

    async def state(self) -> dict[str, Any]:
        async with self._http.get(self._url) as answer:
            found: dict[str, Any] = await answer.json()
            return found


async def play(case: Case, folder: Path) -> dict[str, Any]:
    (folder / "config").mkdir()
    secret = folder / "config" / "smsc"
    secret.touch(mode=0o600)
    secret.write_text("demo")
    log = folder / "smsc.jsonl"
    # Written as the simulator compares them: whole numbers may stand for fractions.
    arguments = ("--log", log, "--set", json.dumps(dict(case.behaviour)))
    async with partner("plugins.telecom_sms.simulator", *arguments) as (_, ready), aiohttp.ClientSession() as http:
        control = Control(http, ready["control"])
        settings = {
            "host": "127.0.0.1", "port": ready["port"], "system_id": "demo", "password": {"file": "smsc"},
            "sender": "CONGDOAN", "quiet_hours": False, **case.settings,
        }  # fmt: skip
        registry = registry_of(
            load_plugins(),
            event_types=[plain_event_type(ANNOUNCED, thin=("text",))],
            directory=lambda hub: People(case.count),
        )
        with (folder / "hub.log").open("wb") as lines:
            configure_log(lines)
            async with running_hub(
                folder,
                registry,
                connections={"sms": {"type": "telecom_sms", "settings": settings}},
                subscriptions=[{"name": "s", "types": [ANNOUNCED], "to_each": {"phone": "sms"}}],
            ) as hub:
                seconds = await _send(hub, case, control)
                counted = await _states(hub)
                refused = (await control.state())["refused"]
    taken = Counter(line["id"] for line in map(json.loads, log.read_text().splitlines()) if line["verdict"] == "taken")
    return {
        "case": case.name,
        "messages": case.count,
        "seconds": round(seconds, 1),
        "sent": len(taken),
        "twice": sum(count - 1 for count in taken.values()),
        "refused_by_carrier": refused,
        **counted,
    }


async def _send(hub: HubApp, case: Case, control: Control) -> float:
    await eventually(lambda: _is_bound(control), 20, 0.05)
    started = perf_counter()
    draft = Draft(
        type=ANNOUNCED, source="/benchmark", dedupe_key="1", data={"text": "Cong doan tinh kinh bao"},
        audience=Audience({}, ("phone",), "care"),
    )  # fmt: skip
    await hub.commit(UnitOfWork(drafts=[draft]))
    if case.cut_at:
        await eventually(lambda: _in_flight(control, case.cut_at), 20, 0.005)
        await control.set(down=True)
        await control.set(down=False)
    await eventually(lambda: _done(hub, case, control), PATIENCE_S, 0.1)
    return perf_counter() - started


async def _in_flight(control: Control, count: int) -> bool:
    return bool((await control.state())["in_flight"] >= count)


async def _is_bound(control: Control) -> bool:
    return bool((await control.state())["bound"])


async def _done(hub: HubApp, case: Case, control: Control) -> bool:
    """Nothing is under way, and every receipt that will come has come."""
    states = await _states(hub)
    settled = states.get("delivered", 0) + states.get("dead", 0) + states.get("unknown", 0)
    return settled == case.count and (await control.state())["receipts_pending"] == 0


async def _states(hub: HubApp) -> dict[str, int]:
    return dict(Counter(row["state"] for row in await views.deliveries(hub.store, limit=1000)))


async def main(only: str) -> None:
    for case in CASES:
        if only in case.name:
            with tempfile.TemporaryDirectory() as folder:
                print_json(await play(case, Path(folder)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    run(main(parser.parse_args().only))
