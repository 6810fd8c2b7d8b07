"""Holds the ledger against what the simulated partners logged, id by id. The two share no code.

A partner logs an id as *taken* when it answered success or processed it and withheld the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from rich.console import Console
from rich.table import Table

from hub.app import HubApp
from hub.demo.stage import Stage

_ALL = (
    "SELECT id, event_id, destination, recipient, state, reason FROM queue"
    " UNION ALL SELECT id, event_id, destination, recipient, state, reason FROM delivery"
)
STOP_WITHIN_S = 10.0


@dataclass(slots=True)
class Row:
    """One connection's line of the summary."""

    events_in: int = 0
    states: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    repeats: int = 0

    @property
    def held(self) -> int:
        return sum(self.states[s] for s in ("waiting", "pending", "leased", "sending"))

    @property
    def owed(self) -> int:
        return self.states.total()


@dataclass(slots=True)
class Balance:
    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    faults: list[str] = field(default_factory=list)
    #: (delivery, connection, "taken" or "not taken").
    unknowns: list[tuple[str, str, str]] = field(default_factory=list)
    subjects: int = 0
    unreachable: int = 0
    stopped_in_s: float = 0.0

    @property
    def balanced(self) -> bool:
        return not self.faults

    def print(self, console: Console, killed: dict[str, int]) -> None:
        table = Table(title="\nSổ cái so với nhật ký của các bên / the ledger against the partners' logs")
        columns = ("kết nối / connection", "events in", "owed", "delivered", "accepted", "dead", "unknown",
                   "cancelled", "held", "attempts", "repeats", "p50 ms", "p99 ms")  # fmt: skip
        for column in columns:
            table.add_column(column, justify="left" if column.startswith("kết") else "right")
        for name in sorted(self.rows):
            r = self.rows[name]
            s = r.states
            table.add_row(
                name, *map(str, (r.events_in, r.owed, s["delivered"], s["accepted"], s["dead"], s["unknown"],
                                 s["cancelled"], r.held, r.attempts, r.repeats)),
                f"{r.p50_ms:.0f}", f"{r.p99_ms:.0f}",
            )  # fmt: skip
        Console(width=max(console.width, 150), highlight=False).print(table)
        console.print(
            f"Đợt gửi / campaigns: {self.subjects} người = {self.subjects - self.unreachable} có lượt gửi"
            f" + {self.unreachable} unreachable"
        )
        console.print(
            f"Lúc bị ngắt / when killed: leased {killed.get('leased')}, sending {killed.get('sending')}"
            f" (SMS {killed.get('sms')}); SIGTERM: {self.stopped_in_s:.1f} s"
        )
        for delivery, connection, fate in self.unknowns:
            console.print(f"unknown {delivery} {connection}: {fate}")
        for fault in self.faults:
            console.print(f"[bold red]{fault}[/bold red]")
        console.print("[bold]Sổ cái cân / the ledger balances[/bold]" if self.balanced else "[bold red]KHÔNG CÂN[/]")


def balance(stage: Stage, stopped_in_s: float) -> Balance:
    """Counts and compares; the hub and the simulators must have stopped."""
    result = Balance(stopped_in_s=stopped_in_s)
    if stopped_in_s > STOP_WITHIN_S:
        result.faults.append(f"stop took {stopped_in_s:.1f} s")
    taken, repeats = _logs(stage)
    deliveries = stage.query(_ALL)
    expected = asyncio.run(_Ids(stage).of(deliveries))
    _summarise(stage, result, deliveries, repeats)
    _compare(stage, result, deliveries, expected, taken)
    _campaigns(stage, result, deliveries)
    _personal(stage, result)
    return result


def _logs(stage: Stage) -> tuple[Counter[str], Counter[str]]:
    """How often each id was taken; and repeats by connection name (the part behind ``@``)."""
    taken: Counter[str] = Counter()
    repeats: Counter[str] = Counter()
    for simulator in stage.simulators.values():
        for line in simulator.log.read_text().splitlines():
            entry = json.loads(line)
            if entry["verdict"] == "taken":
                taken[entry["id"]] += 1
                if taken[entry["id"]] > 1:
                    repeats[entry["id"].partition("@")[2] or simulator.type_name] += 1
    return taken, repeats


class _Ids:
    """The ids under which a partner must have logged each delivery, worked out from the ledger alone."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._types = {name: c.type for name, c in stage.config.connections.items()}

    async def of(self, deliveries: list[tuple[Any, ...]]) -> dict[bytes, list[str]]:
        """Delivery id -> ids (several for the parts of one message)."""
        hub = HubApp(self._stage.config, self._stage.registry, environ={})
        await hub.open()
        try:
            contents = await self._contents(hub)
            phones = await hub.directory.addresses(sorted({d[3] for d in deliveries if d[3]}), "phone")
        finally:
            await hub.stop()
        return {
            d[0]: self._ids(d[0], d[1], d[2], phones.get(d[3], ""), contents.get(d[1], {}))
            for d in deliveries
            if d[2] in self._types
        }

    async def _contents(self, hub: HubApp) -> dict[bytes, dict[str, Any]]:
        rows = await hub.store.read("SELECT event_id, sealed_for, body FROM content WHERE quarantined = 0")
        sealed = await hub.unseal([(s, body) for _, s, body in rows if s is not None])
        opened = iter(sealed)
        found = {}
        for event_id, sealed_for, body in rows:
            plain = body if sealed_for is None else next(opened)
            found[event_id] = orjson.loads(plain) if plain else {}
        return found

    def _ids(self, id: bytes, event_id: bytes, name: str, phone: str, data: dict[str, Any]) -> list[str]:
        kind = self._types[name]
        if kind == "partner":
            return [f"{UUID(bytes=event_id)}@{name}"]
        if kind == "citizen_app":
            return [str(UUID(bytes=id))]
        if kind == "doc_axis":
            return [f"{data['response_for']['document_id']}:{data['status_code']}"]
        digest = hmac.new(self._stage.key, phone.lstrip("+").encode(), hashlib.sha256).hexdigest()[:16]
        text = hashlib.sha256(data["text"].encode()).hexdigest()[:16]
        return [f"{digest}:{text}:{part}" for part in range(1, self._parts(data["text"]) + 1)]

    def _parts(self, text: str) -> int:
        """Counted here once more, apart from the sender's own code: 160/153 plain, 70/67 with diacritics."""
        single, several = (160, 153) if text.isascii() else (70, 67)
        return 1 if len(text) <= single else -(-len(text) // several)


def _summarise(stage: Stage, result: Balance, deliveries: list[tuple[Any, ...]], repeats: Counter[str]) -> None:
    for _, _, destination, _, state, _ in deliveries:
        result.rows[destination].states[state] += 1
    for name, count in repeats.items():
        known = [n for n, c in stage.config.connections.items() if name in (n, c.type)]
        for each in known[:1]:
            result.rows[each].repeats = count
    for source, count in stage.query("SELECT source, count(*) FROM event GROUP BY source"):
        name = source.rpartition("/")[2]
        result.rows[name].events_in = count
    for (destination,) in stage.query("SELECT DISTINCT destination FROM attempt"):
        times = sorted(
            t for (t,) in stage.query(
                "SELECT finished_at - started_at FROM attempt WHERE destination = ? AND outcome <> 'lost'", destination
            )
        )  # fmt: skip
        row = result.rows[destination]
        row.attempts = stage.query("SELECT count(*) FROM attempt WHERE destination = ?", destination)[0][0]
        if times:
            row.p50_ms = times[len(times) // 2] / 1000
            row.p99_ms = times[min(len(times) - 1, len(times) * 99 // 100)] / 1000


def _compare(
    stage: Stage,
    result: Balance,
    deliveries: list[tuple[Any, ...]],
    expected: dict[bytes, list[str]],
    taken: Counter[str],
) -> None:
    accepted = {row[0] for row in stage.query("SELECT DISTINCT delivery_id FROM provider_ref")}
    in_doubt = {
        row[0] for row in stage.query("SELECT DISTINCT delivery_id FROM attempt WHERE outcome IN ('lost', 'ambiguous')")
    }
    explained: set[str] = set()
    for id, _, destination, _, state, reason in deliveries:
        ids = expected.get(id)
        if ids is None:
            continue  # a handler inside the hub
        must = state in ("delivered", "accepted") or (state == "dead" and id in accepted)
        missing = [i for i in ids if i not in taken]
        if must and missing:
            result.faults.append(f"{destination}: {UUID(bytes=id)} is {state} ({reason}) but was never taken")
        may = must or state == "unknown" or id in in_doubt
        if may:
            explained.update(ids)
        if state == "unknown":
            fate = "taken" if not missing else "not taken" if len(missing) == len(ids) else "partly taken"
            result.unknowns.append((str(UUID(bytes=id)), destination, fate))
            explained.update(i for i in taken if ":incomplete:" in i and i.split(":")[0] == ids[0].split(":")[0])
    unexplained = [i for i in taken if i not in explained]
    result.faults += [f"taken but not in the ledger: {i}" for i in unexplained[:10]]
    if len(unexplained) > 10:
        result.faults.append(f"... and {len(unexplained) - 10} more")
    one_only = {n for n, c in stage.config.connections.items() if c.type == "telecom_sms"}
    for id, _, destination, _, _, _ in deliveries:
        if destination in one_only:
            result.faults += [f"sent twice: {i}" for i in expected[id] if taken[i] > 1]


def _campaigns(stage: Stage, result: Balance, deliveries: list[tuple[Any, ...]]) -> None:
    """Everybody of each campaign has a delivery or is counted unreachable."""
    reached: dict[bytes, int] = Counter(
        row[0]
        for row in stage.query(
            "SELECT batch_id FROM queue WHERE batch_id IS NOT NULL UNION ALL"
            " SELECT batch_id FROM delivery WHERE batch_id IS NOT NULL"
        )
    )
    for batch_id, state, total, made, unreachable in stage.query(
        "SELECT id, state, total, made, unreachable FROM batch"
    ):
        result.subjects += total
        result.unreachable += unreachable
        if state != "done" or reached[batch_id] != made or made + unreachable != total:
            result.faults.append(
                f"campaign {batch_id.hex()} ({state}): {total} people, {made} owed, {unreachable} unreachable,"
                f" {reached[batch_id]} found"
            )


def _personal(stage: Stage, result: Balance) -> None:
    """No readable phone or citizen number of the list in any log of either side."""
    canaries = _canaries(stage.folder / "list.json")
    for path in [stage.folder / "hub.log", *(s.log for s in stage.simulators.values())]:
        said = path.read_text(errors="replace")
        found = sum(1 for canary in canaries if canary in said)
        if found:
            result.faults.append(f"{path.name}: {found} personal values of the list are readable")


def _canaries(expected: Path) -> list[str]:
    """Planted values that the list's generator names; see ``plugins/members/simulator``."""
    planted = json.loads(expected.read_text()).get("canaries", [])
    return [str(value) for value in planted]
