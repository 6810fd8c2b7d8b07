"""Turns schedules into due runs. The table decides what is due; the scheduler only wakes.

A slot is the period (or cron minute) a run stands for: writing it twice is one run, so several wakes, a
restart or a late timer do no harm, and after a stop the current slot is made up once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from hub.clock import Clock
from hub.model import EPOCH, to_us
from hub.settings_model import Schedule
from hub.store.base import Store

ZONE = "Asia/Ho_Chi_Minh"


def slot(schedule: Schedule, now: datetime) -> int:
    """The number of the slot ``now`` falls in: periods, or minutes for a cron line, since 1970."""
    seconds = 60.0 if schedule.every is None else schedule.every.total_seconds()
    return int((now - EPOCH).total_seconds() // seconds)


class Scheduler:
    """One job per scheduled connection, in memory: the ledger remembers, not the scheduler."""

    def __init__(
        self, store: Store, clock: Clock, wake: Callable[[], None], leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake
        self._leads = leads
        # No grace limit: a tick that comes late still asks the table.
        self._scheduler = AsyncIOScheduler(job_defaults={"misfire_grace_time": None, "coalesce": True}, timezone=ZONE)

    def add(self, connection: str, schedule: Schedule) -> None:
        trigger: BaseTrigger
        if schedule.every is not None:
            trigger = IntervalTrigger(seconds=max(1, int(schedule.every.total_seconds())), timezone=ZONE)
        else:
            assert schedule.cron is not None
            trigger = CronTrigger.from_crontab(schedule.cron, timezone=ZONE)
        self._scheduler.add_job(self._tick, trigger, args=(connection, schedule), id=connection)

    async def start(self) -> None:
        self._scheduler.start()
        await self.make_up()

    async def make_up(self) -> None:
        """What is due by now, where nobody was there to say it: after a start, or after another leader's end."""
        for job in self._scheduler.get_jobs():
            if job.args[1].every is not None:
                await self._tick(*job.args)

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def _tick(self, connection: str, schedule: Schedule) -> None:
        now = self._clock()
        if not self._leads():
            return
        if await self._store.due_run("pull", connection, slot(schedule, now), to_us(now)):
            self._wake()
