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
from typing import Any
from uuid import UUID

import orjson

from hub.app import HubApp
from hub.demo.personal import readable
from hub.demo.stage import Books
from hub.routing import matches

_ALL = (
    "SELECT id, event_id, destination, recipient, state, reason FROM queue"
    " UNION ALL SELECT id, event_id, destination, recipient, state, reason FROM delivery"
)
STOP_WITHIN_S = 10.0
#: What the hub itself will still move.
HELD = ("waiting", "pending", "leased", "sending")
#: Of what is unexplained, so many are shown.
SHOWN = 10

#: id, event_id, destination, recipient, state, reason
Delivery = tuple[bytes, bytes, str, str, str, str]


@dataclass(slots=True)
class Row:
    """One connection's line of the summary."""

    events_in: int = 0
    #: From the counters, which the hub keeps apart from the rows.
    owed: int = 0
    states: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    #: Ids that the partner took more than once.
    repeats: int = 0

    @property
    def held(self) -> int:
        return sum(self.states[s] for s in HELD)

    @property
    def adds_up(self) -> bool:
        ended = sum(self.states[s] for s in ("delivered", "accepted", "dead", "unknown", "cancelled"))
        return self.owed == ended + self.held == self.states.total()


@dataclass(slots=True)
class Balance:
    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    faults: list[str] = field(default_factory=list)
    #: (delivery, connection, "taken", "not taken" or "partly taken").
    unknowns: list[tuple[str, str, str]] = field(default_factory=list)
    subjects: int = 0
    unreachable: int = 0
    stopped_in_s: float = 0.0

    @property
    def balanced(self) -> bool:
        return not self.faults


def balance(books: Books, stopped_in_s: float = 0.0) -> Balance:
    """Counts and compares; the hub and the simulators must have stopped."""
    result = Balance(stopped_in_s=stopped_in_s)
    if stopped_in_s > STOP_WITHIN_S:
        result.faults.append(f"stop took {stopped_in_s:.1f} s")
    deliveries: list[Delivery] = books.query(_ALL)
    result.faults += readable(books)
    _count(books, result, deliveries)
    _owed(books, result)
    taken = _taken(books, result)
    _compare(books, result, deliveries, asyncio.run(_Ids(books).of(deliveries)), taken)
    _campaigns(books, result)
    return result


def _taken(books: Books, result: Balance) -> Counter[str]:
    """How often each id was taken. Repeats are counted by connection: the part behind ``@``, or the only one."""
    by_type = {c.type: name for name, c in books.config.connections.items()}
    taken: Counter[str] = Counter()
    for kind, log in books.logs.items():
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if entry["verdict"] == "taken":
                taken[entry["id"]] += 1
                if taken[entry["id"]] > 1:
                    result.rows[entry["id"].partition("@")[2] or by_type[kind]].repeats += 1
    return taken


class _Ids:
    """The ids under which a partner must have logged each delivery, worked out from the ledger alone."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._types = {name: c.type for name, c in books.config.connections.items()}

    async def of(self, deliveries: list[Delivery]) -> dict[bytes, list[str]]:
        """Delivery id -> ids (several for the parts of one message)."""
        hub = HubApp(self._books.config, self._books.registry, environ={})
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
        digest = hmac.new(self._books.key, phone.lstrip("+").encode(), hashlib.sha256).hexdigest()[:16]
        text = hashlib.sha256(data["text"].encode()).hexdigest()[:16]
        return [f"{digest}:{text}:{part}" for part in range(1, self._parts(data["text"]) + 1)]

    def _parts(self, text: str) -> int:
        """Counted here once more, apart from the sender's own code: 160/153 plain, 70/67 with diacritics."""
        single, several = (160, 153) if text.isascii() else (70, 67)
        return 1 if len(text) <= single else -(-len(text) // several)


def _count(books: Books, result: Balance, deliveries: list[Delivery]) -> None:
    for _, _, destination, _, state, _ in deliveries:
        result.rows[destination].states[state] += 1
    for source, count in books.query("SELECT source, count(*) FROM event GROUP BY source"):
        result.rows[source.rpartition("/")[2]].events_in = count
    times: dict[str, list[int]] = defaultdict(list)
    for destination, outcome, took in books.query("SELECT destination, outcome, finished_at - started_at FROM attempt"):
        result.rows[destination].attempts += 1
        if outcome != "lost":  # nobody knows how long that took
            times[destination].append(took)
    for destination, each in times.items():
        each.sort()
        result.rows[destination].p50_ms = each[len(each) // 2] / 1000
        result.rows[destination].p99_ms = each[min(len(each) - 1, len(each) * 99 // 100)] / 1000


def _owed(books: Books, result: Balance) -> None:
    """Nothing owed went missing: by the counters, and by what each subscription makes of the events."""
    for destination, count in books.query("SELECT destination, sum(count) FROM tally GROUP BY destination"):
        result.rows[destination].owed = count
    for name, row in result.rows.items():
        if not row.adds_up:
            result.faults.append(f"{name}: {row.owed} owed by the counters, found {dict(row.states)}")
    events = books.query("SELECT id, type FROM event")
    due: dict[str, set[bytes]] = defaultdict(set)
    for subscription in books.config.subscriptions:
        if subscription.to is not None:
            due[subscription.to] |= {id for id, type in events if any(matches(p, type) for p in subscription.types)}
    for destination, ids in due.items():
        if result.rows[destination].owed != len(ids):
            result.faults.append(
                f"{destination}: {len(ids)} events are subscribed, {result.rows[destination].owed} owed"
            )


def _compare(
    books: Books,
    result: Balance,
    deliveries: list[Delivery],
    expected: dict[bytes, list[str]],
    taken: Counter[str],
) -> None:
    answered = dict(books.query("SELECT delivery_id, count(*) FROM provider_ref GROUP BY delivery_id"))
    in_doubt = {
        row[0] for row in books.query("SELECT DISTINCT delivery_id FROM attempt WHERE outcome IN ('lost', 'ambiguous')")
    }
    one_only = {name for name, c in books.config.connections.items() if c.type == "telecom_sms"}
    explained: set[str] = set()
    #: A phone that is owed the same text twice has one id for both: the second is cancelled.
    sent_once: set[str] = set()
    for id, _, destination, _, state, reason in deliveries:
        ids = expected.get(id)
        if ids is None:
            continue  # a handler inside the hub
        found = [i for i in ids if i in taken]
        whole = state in ("delivered", "accepted") or (state == "dead" and id in answered)
        if len(found) < (len(ids) if whole else answered.get(id, 0)):
            result.faults.append(f"{destination}: {UUID(bytes=id)} is {state} ({reason}) but was never taken")
        if whole or state == "unknown" or (state in HELD and id in in_doubt):
            explained.update(ids)
        if state == "unknown":
            fate = "taken" if len(found) == len(ids) else "partly taken" if found else "not taken"
            result.unknowns.append((str(UUID(bytes=id)), destination, fate))
            explained.update(i for i in taken if ":incomplete:" in i and i.split(":")[0] == ids[0].split(":")[0])
        if destination in one_only:
            sent_once.update(ids)
    result.faults += [f"sent twice: {i}" for i in sorted(sent_once) if taken[i] > 1]
    unexplained = [i for i in taken if i not in explained]
    result.faults += [f"taken but not in the ledger: {i}" for i in unexplained[:SHOWN]]
    if len(unexplained) > SHOWN:
        result.faults.append(f"... and {len(unexplained) - SHOWN} more")


def _campaigns(books: Books, result: Balance) -> None:
    """Everybody of each campaign has a delivery or is counted unreachable."""
    reached = Counter(
        row[0]
        for row in books.query(
            "SELECT batch_id FROM queue WHERE batch_id IS NOT NULL UNION ALL"
            " SELECT batch_id FROM delivery WHERE batch_id IS NOT NULL"
        )
    )
    for id, state, total, made, unreachable in books.query("SELECT id, state, total, made, unreachable FROM batch"):
        result.subjects += total
        result.unreachable += unreachable
        if state != "done" or reached[id] != made or made + unreachable != total:
            result.faults.append(
                f"campaign {id.hex()} ({state}): {total} people, {made} owed, {unreachable} unreachable,"
                f" {reached[id]} found"
            )
