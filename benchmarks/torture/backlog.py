"""What a day's outage left behind: it drains at its destination's rate, and what is urgent does not wait for it.

Twice: on the hub itself by the real clock for some seconds (``live``), and to the last row on the ledger by a clock
that is moved (``drain``), so that a million deliveries at their agreed rate do not take their quarter of an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.deliver import bulk_rate
from benchmarks.load import percentile
from benchmarks.process import rss_mb
from benchmarks.torture.results import Progress
from hub.contract import Connection, Delivered, Outcome, Shipment, UnitOfWork
from hub.model import Draft, Priority, State, new_id, to_us
from hub.store.base import Job, Settlement, Store, Unit
from hub.store.sqlite import SqliteStore
from hub.testing import RecordingSink, StandingClock, connector, plain_event_type, registry_of, running_hub
from tests.ledger import BREAKER, UNRESOLVED_S, Desk, fact, owed, settlement

THING = "vn.congdoan.thing.happened.v1"
SECOND = 1_000_000
#: Deliveries a second that the destination takes: by the moved clock, and by the real one.
RATE, LIVE_RATE = 1_000, 200
LIVE_S = 20.0
#: Rows put in per transaction, and claimed at once.
PAGE, CLAIM = 5_000, 750
#: Of the clock that is moved.
TICK_S = 0.5
URGENT_EVERY_S = 0.1


async def fill(store: Store, event_id: bytes, count: int, at: int, **more: Any) -> None:
    """Owes ``count`` deliveries of one event to the destination ``line``, as many generations of one."""
    given = {"priority": int(Priority.BULK), **more}
    for first in range(0, count, PAGE):
        numbers = range(first, min(first + PAGE, count))
        await store.commit(Unit(deliveries=[owed(event_id, "line", at, generation=n + 1, **given) for n in numbers]))


# -- the ledger, by a clock that is moved ------------------------------------------------------------


async def drain(folder: Path, count: int, say: Progress | None = None) -> dict[str, Any]:
    """To the last row at ``RATE``; meanwhile something urgent for the same destination and something for another.

    Answers figures, and in ``broken`` what did not hold. Times are of the moved clock unless they say otherwise.
    """
    clock = StandingClock()
    store = SqliteStore(
        folder / "backlog.db", breaker=BREAKER, unresolved_after_s=UNRESOLVED_S, key_fingerprint=b"fingerprint",
        synchronous="OFF", clock=clock,
    )  # fmt: skip
    await store.open()
    try:
        desk = Desk(store, clock)
        await desk.configure("line", "other", rates={"line": SECOND // RATE})
        event = fact(new_id().hex, desk.now)
        await desk.commit(event)
        await fill(store, event.event[0], count, desk.now)
        clock.advance(3600)
        return await _drained(desk, count, say)
    finally:
        await store.close()


async def _drained(desk: Desk, count: int, say: Progress | None) -> dict[str, Any]:
    capacity = {"line": CLAIM, "other": CLAIM}
    began, before, left = desk.now, rss_mb(), count
    asked: dict[bytes, int] = {}
    waited: list[float] = []
    instants: list[int] = []
    taken_ms: list[float] = []
    while left:
        for name in ("line", "other"):
            asked[await desk.owe_one(name, priority=int(Priority.URGENT))] = desk.now
        timed = perf_counter()
        jobs = await desk.claim(limit=2 * CLAIM, capacity=capacity)
        taken_ms.append((perf_counter() - timed) * 1000)
        instants += [job.send_at for job in jobs if job.destination == "line"]
        left -= sum(job.id not in asked for job in jobs)
        waited += [(max(job.send_at, desk.now) - asked.pop(job.id)) / SECOND for job in jobs if job.id in asked]
        await desk.store.settle([_delivered(job) for job in jobs], desk.now)
        desk.clock.advance(TICK_S)
        if say is not None and len(taken_ms) % 100 == 0:
            say(f"{count - left} of {count} sent by a moved clock")
    seconds = (instants[-1] - began) / SECOND
    wanted = len(instants) / RATE
    found = {
        "deliveries": count,
        "drained_in_s": round(seconds),
        "share_of_rate": round(wanted / seconds, 3),
        "urgent_waited_s_most": round(max(waited), 3),
        "claim_ms_p99": round(percentile(taken_ms, 0.99), 1),
        "memory_growth_mb": round(rss_mb() - before, 1),
    }
    return {**found, "broken": _not_held(found, instants, asked)}


def _delivered(job: Job) -> Settlement:
    return settlement(job, State.DELIVERED, at=job.send_at or job.claimed_at)


def _not_held(found: dict[str, Any], instants: Sequence[int], asked: dict[bytes, int]) -> list[str]:
    broken = []
    if found["share_of_rate"] < 0.95:
        broken.append(f"drained at {found['share_of_rate']} of the agreed rate")
    if any(later - earlier < SECOND // RATE for earlier, later in pairwise(instants)):
        broken.append("sent faster than agreed")
    if found["urgent_waited_s_most"] > 1.0 + TICK_S or asked:
        broken.append(f"something urgent waited {found['urgent_waited_s_most']} s, {len(asked)} for ever")
    if found["memory_growth_mb"] > 32:
        broken.append(f"memory grew by {found['memory_growth_mb']} MB")
    return broken


# -- the hub, by the real clock ----------------------------------------------------------------------


class Partner(RecordingSink):
    """Notes when something arrives; keeps nothing else of a million."""

    def __init__(self, rate_per_s: float | None) -> None:
        super().__init__(rate_per_s=rate_per_s, concurrency=50)
        self.arrived: dict[str, float] = {}
        self.sent: list[float] = []

    async def send(self, shipment: Shipment) -> Outcome:
        self.sent.append(perf_counter())
        if shipment.event.data["id"] == "urgent":
            self.arrived[str(shipment.event.id)] = self.sent[-1]
        return Delivered()


async def live(folder: Path, count: int, seconds: float, say: Progress) -> dict[str, Any]:
    """The whole hub for so long with nothing to do but urgent events, then as long with ``count`` waiting."""
    line, other = Partner(LIVE_RATE), Partner(None)
    known = registry_of(
        connector_types=[connector("line", Connection(sink=line)), connector("other", Connection(sink=other))],
        event_types=[plain_event_type(THING)],
    )
    subscriptions = [{"name": name, "types": [THING], "to": name} for name in ("line", "other")]
    async with running_hub(folder, known, connections={"line": {}, "other": {}}, subscriptions=subscriptions) as hub:
        idle = await _urgent(hub, (line, other), seconds)
        # Content and projection of a real event, so that its deliveries can be sent.
        await hub.store.pause("connection", "line", "operator", "outage", to_us(hub.now()))
        [event] = (await hub.commit(UnitOfWork(drafts=[_draft("day", Priority.BULK)]))).events
        [(projection,)] = await hub.store.read(
            "SELECT projection FROM queue WHERE event_id = ? AND destination = 'line'", (event.bytes,)
        )
        await fill(hub.store, event.bytes, count, to_us(hub.now()), projection=projection, subscription="line")
        say(f"{count} wait")
        before = rss_mb()
        await hub.store.pause("connection", "line", None, "", to_us(hub.now()))
        assert hub.worker is not None
        hub.worker.wake()
        line.sent.clear()
        busy = await _urgent(hub, (line, other), seconds)
        rate = bulk_rate(line.sent)
        grown = rss_mb() - before
        [(spacing_us,)] = await hub.store.read("SELECT spacing_us FROM destination WHERE id = 'line'")
    p99_ms = [[round(percentile(each, 0.99) * 1000, 1) for each in times] for times in (idle, busy)]
    return {
        "live_share_of_rate": round(rate * spacing_us / SECOND, 3),
        # A pace gives out its instants up to a second ahead.
        "urgent_ms_p99": p99_ms[1][0],
        "urgent_ms_p99_idle": p99_ms[0][0],
        "other_ms_p99": p99_ms[1][1],
        "other_ms_p99_idle": p99_ms[0][1],
        "live_memory_growth_mb": round(grown, 1),
    }


def _draft(key: str, priority: Priority) -> Draft:
    return Draft(type=THING, source="/t", dedupe_key=f"{key}-{new_id()}", data={"id": key, "n": 1}, priority=priority)


async def _urgent(hub: Any, partners: Sequence[Partner], seconds: float) -> list[list[float]]:
    """Seconds from COMMIT to arrival of urgent events, by partner."""
    committed: dict[str, float] = {}
    for _ in range(int(seconds / URGENT_EVERY_S)):
        [event] = (await hub.commit(UnitOfWork(drafts=[_draft("urgent", Priority.URGENT)]))).events
        committed[str(event)] = perf_counter()
        await asyncio.sleep(URGENT_EVERY_S)
    until = perf_counter() + 30
    while not all(event in partner.arrived for event in committed for partner in partners):
        if perf_counter() > until:
            raise TimeoutError("something urgent did not arrive within 30 s")
        await asyncio.sleep(0.02)
    return [[partner.arrived[event] - at for event, at in committed.items()] for partner in partners]


async def run(count: int, folder: Path, say: Progress) -> dict[str, Any]:
    """Both, with ``count`` deliveries waiting."""
    (folder / "live").mkdir()
    # Figures alone: a pace gives up the instants that a busy machine has missed.
    lived = await live(folder / "live", count, LIVE_S, say)
    return lived | await drain(folder, count, say)
