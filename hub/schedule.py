"""Turns schedules into due runs. The table decides what is due; the scheduler only wakes.

A slot is the period (or the minute a cron line named) that a run stands for: writing it twice is one run, so
several wakes, a restart or a late timer do no harm. Somebody looks now and then without being woken, so what was
missed while nobody led, or while this machine's clock was wrong, is made up: the current slot, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from hub.clock import Clock
from hub.log import log
from hub.model import EPOCH, from_us, to_us
from hub.settings_model import Schedule
from hub.store.base import Store

ZONE = "Asia/Ho_Chi_Minh"
LOOK_EVERY_S, RETRY_S = 30.0, 1.0
#: How far back a cron line's last minute is looked for, the likely ones first.
_BACK = [timedelta(hours=1), *(timedelta(days=n) for n in (1, 8, 32, 366))]
_LAST = "SELECT max(due_at) FROM run WHERE kind = ? AND object = ?"


def slot(schedule: Schedule, now: datetime) -> int | None:
    """The number of the slot that ``now`` falls in: periods, or minutes for a cron line, since 1970.

    None: the cron line has named no minute within a year.
    """
    if schedule.every is not None:
        return int((now - EPOCH) / schedule.every)
    assert schedule.cron is not None
    trigger = CronTrigger.from_crontab(schedule.cron, timezone=ZONE)
    for back in _BACK:
        named, following = None, trigger.get_next_fire_time(None, now - back)
        while following is not None and following <= now:
            named, following = following, trigger.get_next_fire_time(following, following)
        if named is not None:
            return int((named - EPOCH) / timedelta(minutes=1))
    return None


class Scheduler:
    """One job per schedule, in memory: the ledger remembers, not the scheduler."""

    def __init__(
        self, store: Store, clock: Clock, wake: Callable[[], None], leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake
        self._leads = leads
        #: By kind of run, and what it runs for.
        self._schedules: dict[tuple[str, str], Schedule] = {}
        self._since = clock()
        self._asked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        # No grace limit: a tick that comes late still asks the table.
        self._scheduler = AsyncIOScheduler(job_defaults={"misfire_grace_time": None, "coalesce": True}, timezone=ZONE)

    def add(self, object: str, schedule: Schedule, kind: str = "pull") -> None:
        self._schedules[kind, object] = schedule
        trigger: BaseTrigger
        if schedule.every is not None:
            trigger = IntervalTrigger(seconds=max(1, int(schedule.every.total_seconds())), timezone=ZONE)
        else:
            assert schedule.cron is not None
            trigger = CronTrigger.from_crontab(schedule.cron, timezone=ZONE)
        self._scheduler.add_job(self._tick, trigger, id=f"{kind}:{object}")

    def remove(self, object: str, kind: str = "pull") -> None:
        if self._schedules.pop((kind, object), None) is not None:
            self._scheduler.remove_job(f"{kind}:{object}")

    def start(self) -> None:
        self._scheduler.start()
        self._looking = asyncio.create_task(self._keep_looking(), name="schedule")

    def look(self) -> None:
        """Asks what is due by now: a timer's wake, or the lead was taken."""
        self._asked.set()

    async def _tick(self) -> None:
        self.look()

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        if self._looking is not None:
            self._looking.cancel()

    async def _keep_looking(self) -> None:
        pause = 0.0
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            pause = LOOK_EVERY_S
            try:
                if self._leads():
                    await self._make_due()
            except Exception as error:  # a named edge: what is due now is due in a second
                log("worker.blocked", reason=type(error).__name__)
                pause = RETRY_S

    async def _make_due(self) -> None:
        now = self._clock()
        for (kind, object), schedule in list(self._schedules.items()):
            current = slot(schedule, now)
            if current is None or (schedule.cron is not None and not await self._is_missing(kind, object, current)):
                continue
            if await self._store.due_run(kind, object, current, to_us(now)):
                self._wake()

    async def _is_missing(self, kind: str, object: str, minute: int) -> bool:
        """A minute from before this hub was there is made up only where one was kept before: not at a first start."""
        named = EPOCH + timedelta(minutes=minute)
        if named >= self._since:
            return True
        ((last,),) = await self._store.read(_LAST, (kind, object))
        return last is not None and from_us(last) < named
