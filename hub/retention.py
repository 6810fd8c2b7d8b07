"""How long history is kept, and the quiet task that lets it go: whole days at a time, in small steps.

An event's day (UTC) is the day in its id. Nothing that is still owed to somebody goes, whatever its age.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from time import monotonic
from typing import Literal

from hub import metrics
from hub.clock import Clock
from hub.errors import Busy
from hub.log import log
from hub.model import to_us
from hub.routing import Router, matches
from hub.settings import Configuration
from hub.settings_model import RetentionSettings
from hub.store.base import Pruned, PruneStep, Store
from hub.store.ops.prune import CONTENTS_TO_GO, ENDED_TO_GO, EVENTS, EVENTS_TO_GO

#: The first pass waits, so that a machine that started with a wrong clock has had time to correct it.
FIRST_S, EVERY_S = 600.0, 6 * 3600.0
#: A clock that moved this much against the monotonic one was set: what it called old may be young.
CLOCK_SET_S = 60.0
#: Of the ledger's time a pass takes at most this part: after a step it rests the rest.
SHARE = 0.2
#: Events read at once, to see which of them have to go.
PAGE = 2000
DAY_S = 86_400

_OLD_EVENTS = "SELECT id FROM event WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
_OLD_CONTENTS = (
    "SELECT e.id, e.type, e.source FROM content c JOIN event e ON e.id = c.event_id WHERE c.event_id > ?"
    " AND c.event_id < ? AND c.quarantined <> 1 ORDER BY c.event_id LIMIT ?"
)
_BROUGHT_BY = "/connections/"
Ending = Literal["dedupe", "idempotency", "raw_request", "receipt", "repair", "run"]


class Rules:
    """How many days what is kept; see the settings ``[retention]`` and a connection's ``content_days``."""

    def __init__(
        self, retention: RetentionSettings, parked_days: int, connections: Mapping[str, int], router: Router
    ) -> None:
        """``connections``: those that say how long contents are kept for them."""
        self.history_days = retention.history_days
        self.parked_days = parked_days
        self._content_days = min(retention.content_days, retention.history_days)
        self._by_type = retention.event_types
        self._by_connection = connections
        self._router = router
        self._known: dict[tuple[str, str], int] = {}
        #: The least any content is kept.
        self.shortest = min([self._content_days, *self._by_type.values(), *connections.values()])

    @classmethod
    def of(cls, config: Configuration, router: Router) -> Rules:
        connections = {name: c.content_days for name, c in config.connections.items() if c.content_days is not None}
        return cls(config.hub.retention, config.hub.receipts.parked_days, connections, router)

    def content_days(self, event_type: str, source: str) -> int:
        """The least of what the type allows, what the bringing connection allows, and what the receivers want.

        The receivers are those who are owed the type by today's subscriptions: a delivery whose subscription is
        gone could not be sent again anyway. One who says nothing wants as long as the type allows.
        """
        key = (event_type, source)
        if key not in self._known:
            allowed = self._type_days(event_type)
            brought_by = source.rpartition(_BROUGHT_BY)[2] if _BROUGHT_BY in source else ""
            allowed = min(allowed, self._by_connection.get(brought_by, allowed))
            wanted = [self._by_connection.get(name, allowed) for name in self._receivers(event_type)]
            self._known[key] = min(allowed, max(wanted, default=allowed))
        return self._known[key]

    def _type_days(self, event_type: str) -> int:
        found = [pattern for pattern in self._by_type if matches(pattern, event_type)]
        if not found:
            return self._content_days
        return self._by_type[max(found, key=lambda pattern: (not pattern.endswith("*"), len(pattern)))]

    def _receivers(self, event_type: str) -> set[str]:
        """Destinations; a handler says nothing and so wants as long as the type allows."""
        found: set[str] = set()
        for route in self._router.routes(event_type):
            found |= {route.subscription.to} if route.subscription.to else set(route.subscription.to_each.values())
        return found


class Pruner:
    """Lets history go. ``run`` for as long as the hub does; ``one_pass`` at once."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        clock: Clock,
        *,
        leads: Callable[[], bool] = lambda: True,
        share: float = SHARE,
    ) -> None:
        """``leads``: whether this process is the one of several that does it."""
        self._store = store
        self._rules = rules
        self._clock = clock
        self._leads = leads
        self._share = share

    async def run(self, first_s: float = FIRST_S, every_s: float = EVERY_S) -> None:
        wait_s = first_s
        while True:
            wait_s = every_s if await self.turn(wait_s) else first_s

    async def turn(self, wait_s: float) -> bool:
        """Waits, then makes a pass; False when none was made to its end."""
        wall, began = self._clock(), monotonic()
        await asyncio.sleep(wait_s)
        if abs((self._clock() - wall).total_seconds() - (monotonic() - began)) > CLOCK_SET_S:
            log("history.postponed", reason="clock_set")
            return False
        if not self._leads():
            return False
        try:
            await self.one_pass()
        except Exception as error:  # a named edge: what is left is found by the next pass
            log("history.postponed", reason="ledger_busy" if isinstance(error, Busy) else type(error).__name__)
            return False
        return True

    async def one_pass(self) -> dict[str, int]:
        """Deletes what was kept long enough; answers the rows by table."""
        # Once: a clock that is set while the pass runs must not make young what it has begun to call old.
        began, today, gone = monotonic(), self._today(), Counter[str]()
        kept_from = self.kept_from(today)
        _count(await self._store.drop_days(_start(kept_from)), gone)
        for table, before in self._ends(today):
            step = PruneStep(table=table, before=before)
            while (await self._step(step, gone)).rows.get(table, 0) >= step.limit:
                pass
        async for ids in self._old_events(today):
            await self._all_of("event", ids, gone)
        async for ids in self._old_contents(today):
            await self._all_of("content", ids, gone)
        log("history.pruned", rows=dict(+gone), before=kept_from.isoformat(), took_s=round(monotonic() - began, 3))
        return dict(gone)

    async def would_go(self) -> dict[str, int]:
        """The rows a pass would delete now, by table; changes nothing."""
        today, rows = self._today(), Counter[str]()
        for table, before in self._ends(today):
            rows[table] += await self._number(ENDED_TO_GO[table], before)
        behind = first_id(self.kept_from(today))
        for of, count in EVENTS_TO_GO.items():
            rows[of] += await self._number(count, behind, behind)
        async for ids in self._old_contents(today):
            for some in (ids[i : i + EVENTS] for i in range(0, len(ids), EVENTS)):
                count = CONTENTS_TO_GO.format(", ".join("?" * len(some)))
                rows["content"] += await self._number(count, *some, first_id(today))
        return dict(+rows)

    async def _number(self, count: str, *values: bytes | int) -> int:
        ((number,),) = await self._store.read(count, values)
        return int(number)

    # -- what is old enough ------------------------------------------------------------------------

    def kept_from(self, today: date | None = None) -> date:
        """The first day whose history is kept."""
        return (today or self._today()) - timedelta(self._rules.history_days)

    def _today(self) -> date:
        return self._clock().astimezone(UTC).date()

    def _ends(self, today: date) -> Sequence[tuple[Ending, int]]:
        """What ends by itself, and before which instant it must have ended. What says itself when, does so then."""
        kept_from = _start(self.kept_from(today))
        parked = _start(today - timedelta(self._rules.parked_days))
        now = min(to_us(self._clock()), _start(today + timedelta(1)))
        return (
            ("dedupe", now), ("idempotency", now), ("raw_request", now), ("receipt", parked), ("repair", kept_from),
            ("run", kept_from),
        )  # fmt: skip

    async def _old_events(self, today: date) -> AsyncIterator[list[bytes]]:
        after, behind = b"", first_id(self.kept_from(today))
        while page := await self._store.read(_OLD_EVENTS, (after, behind, PAGE)):
            yield [id for (id,) in page]
            after = page[-1][0]

    async def _old_contents(self, today: date) -> AsyncIterator[list[bytes]]:
        """Of events that are kept themselves. Looks at every content kept longer than the shortest rule says."""
        after, behind = first_id(self.kept_from(today)), first_id(today - timedelta(self._rules.shortest))
        while page := await self._store.read(_OLD_CONTENTS, (after, behind, PAGE)):
            yield [
                id
                for id, event_type, source in page
                if id < first_id(today - timedelta(self._rules.content_days(event_type, source)))
            ]
            after = page[-1][0]

    # -- steps -------------------------------------------------------------------------------------

    async def _all_of(self, table: Literal["event", "content"], ids: Sequence[bytes], gone: Counter[str]) -> None:
        left = ids
        while left:
            left = (await self._step(PruneStep(table=table, events=left), gone)).left

    async def _step(self, step: PruneStep, gone: Counter[str]) -> Pruned:
        """One step and the rest it needs: when the ledger is busy, both get longer."""
        began = monotonic()
        pruned = await self._store.prune(step)
        _count(pruned.rows, gone)
        await asyncio.sleep((monotonic() - began) * (1 / self._share - 1))
        return pruned


async def observe(store: Store, now: datetime) -> None:
    """Sets the gauges that are asked for at a scrape."""
    metrics.oldest_snapshot.set(await store.snapshot_age_s())
    oldest = await store.read("SELECT id FROM event ORDER BY id LIMIT 1")
    began = int.from_bytes(oldest[0][0][:6]) / 1000 // DAY_S * DAY_S if oldest else now.timestamp()
    metrics.oldest_day.set(max(now.timestamp() - began, 0.0))


def first_id(day: date) -> bytes:
    """No event of that day or later has a lower id, nor has a delivery of one: ids begin with milliseconds."""
    return (_start(day) // 1000).to_bytes(6) + bytes(10)


def _start(day: date) -> int:
    return to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _count(rows: Mapping[str, int], gone: Counter[str]) -> None:
    for table, number in rows.items():
        gone[table] += number
        metrics.pruned.labels(table).inc(number)
