"""The lease loop: claims due deliveries, runs them per destination, commits their settlements in batches.

One lane per destination keeps its concurrency and pace, so that a slow destination takes no slot of
another. A slot is free when its try ends and the settlement commits behind it; where a resend is unsafe, when
that end is on record.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from hub.clock import Clock
from hub.crashpoint import crashpoint
from hub.deliver import Deliverer
from hub.errors import Busy
from hub.log import log
from hub.model import State, to_us
from hub.store.base import AttemptRow, ClaimRequest, Job, Settlement, Store

#: Longest sleep without a look: other processes' commits and clock steps are noticed within it.
POLL_S = 1.0
#: A commit waits this long for company, unless so many wait already: each costs a disk flush.
SETTLE_WITHIN_S, SETTLE_AT = 0.02, 100
#: How often running tries are held against their limits. A lane may hold so much work beside the tries in flight:
#: a claim waits for two disk flushes, in which a fast partner takes many times the tries in flight.
WATCH_EVERY_S = 0.25
#: How late a send instant may be used where other nodes have the next ones, beside half its spacing: so much, and
#: the room that the spacing leaves, keep any second within one more than was agreed.
LATE_US = 20_000
#: After trouble with the ledger, how long claims are looked for whose answers were lost, and how often.
UNSURE_S, UNSURE_EVERY_S = 60.0, 1.0
#: How often it is looked whether a connection's tries have ended.
ENDED_EVERY_S = 0.02
#: Settlements that may wait for their commit before lanes stop claiming.
UNSETTLED = 2000


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """Tries in flight at once, and the spacing of their starts (0: none)."""

    concurrency: int
    spacing_us: int = 0


class Lane:
    """The tries of one destination."""

    __slots__ = (
        "_ahead",
        "_clock",
        "_closed",
        "_ended",
        "_free_at",
        "_idle",
        "_late_us",
        "_on_hungry",
        "_run",
        "_turn",
        "hungry",
        "jobs",
        "running",
        "spec",
        "tasks",
    )

    def __init__(
        self,
        spec: LaneSpec,
        clock: Clock,
        run: Callable[[Job, Lane], Awaitable[None]],
        on_hungry: Callable[[], None] = lambda: None,
        shared: bool = False,
    ) -> None:
        """``shared``: whether other processes send to the same destination."""
        self.spec = spec
        self.jobs: deque[Job] = deque()
        self.running = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self._clock = clock
        self._run = run
        self._free_at = 0
        self._late_us = spec.spacing_us // 2 + LATE_US if shared else None
        self._turn = asyncio.Lock()
        self._on_hungry = on_hungry
        #: Whether half of what waits is worked off: a claim for every free slot would be a commit each.
        self.hungry = True
        self._ahead = spec.concurrency
        self._ended = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def respec(self, spec: LaneSpec) -> None:
        """What begins from now on keeps to this; what is under way ends as it began."""
        self.spec = spec
        if self._late_us is not None:
            self._late_us = spec.spacing_us // 2 + LATE_US

    def room(self) -> int:
        """Rows it pays to lease now: one round in flight, and another or what the last watch saw it work off."""
        return self.spec.concurrency + self._ahead - self.running - len(self.jobs)

    def learn_speed(self) -> None:
        """Called every ``WATCH_EVERY_S``; a lane that became slow holds no more than one round behind."""
        self._ahead = max(self.spec.concurrency, self._ended)
        self._ended = 0

    def put(self, job: Job) -> None:
        self.jobs.append(job)
        if self.running >= self.spec.concurrency:
            pass  # a runner takes it when it has ended what it runs
        elif self._idle:
            self.running += 1
            self._idle.popleft().set_result(None)
        else:
            self.running += 1
            task = asyncio.create_task(self._drain())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        self.hungry = self.room() > self._ahead // 2

    async def _drain(self) -> None:
        """One runner; it lingers without work, since a task for each job costs a tenth of the job."""
        while True:
            try:
                while self.jobs:
                    job = self.jobs.popleft()
                    self._look()
                    await self._run(job, self)
                    self._ended += 1
            finally:
                self.running -= 1
            self._look()
            if self._closed:
                return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    def dismiss(self) -> None:
        """Ends the runners that have nothing to do, and the others after their job."""
        self._closed = True
        while self._idle:
            self._idle.popleft().cancel()

    def _look(self) -> None:
        """Tells once when the lane has become hungry; it stays so until it is given something."""
        if not self.hungry and self.room() > self._ahead // 2:
            self.hungry = True
            self._on_hungry()

    async def pace(self, job: Job) -> bool:
        """Waits for the given instant, and never closer than the spacing to the start before.

        One after another, so that a loop that stalled does not let out at once all who slept meanwhile. A shared
        pace is kept by everybody's instants: one that was missed is not made up, the next ones are others'.
        """
        async with self._turn:
            now = to_us(self._clock())
            if self._late_us is not None and now > job.send_at + self._late_us:
                return False
            # What is claimed is due within a second; a longer wait could only come from a clock set back.
            wait = min(max(job.send_at, self._free_at) - now, 1_000_000 + self.spec.spacing_us)
            if wait > 0:
                await asyncio.sleep(wait / 1_000_000)
            begins = max(now + wait, to_us(self._clock()))
            if self._late_us is not None and begins > job.send_at + self._late_us:
                return False
            self._free_at = begins + self.spec.spacing_us
            return True


class Worker:
    """Owns the lanes of this process; ``wake`` tells it that something may be due."""

    def __init__(
        self,
        store: Store,
        deliverer: Deliverer,
        lanes: Mapping[str, LaneSpec],
        *,
        boot: bytes,
        clock: Clock,
        lease_s: float,
        claim_batch: int,
        may_claim: Callable[[], bool] = lambda: True,
        term: Callable[[], int] = lambda: 0,
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        """``may_claim``: whether this process certainly counts as alive, and in which ``term`` of its life."""
        self._store = store
        self._deliverer = deliverer
        self._boot = boot
        self._clock = clock
        self._lease_us = int(lease_s * 1_000_000)
        self._claim_batch = claim_batch
        self._may_claim = may_claim
        self._term = term
        self._on_settled = on_settled
        #: Connections whose deliveries are left to other processes.
        self._left_alone: set[str] = set()
        self._lanes: dict[str, Lane] = {}
        #: Tries that go on although their destination is gone.
        self._gone: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._to_settle: list[Settlement] = []
        self._settling: list[Settlement] = []
        #: Slots that are free once what was settled so far is committed.
        self._kept: list[asyncio.Future[None]] = []
        self._unsure_until = self._unsure_at = 0.0
        self._settle_wake = asyncio.Event()
        #: Set while no settlement is on its way to the ledger: then a claim and the next one can share a flush.
        self._settled_all = asyncio.Event()
        self._settled_all.set()
        self._suspects: set[bytes] = set()
        self._stopping = False
        self._ended = False
        self._running: dict[asyncio.Task[Any], Job] = {}
        self.set_lanes(lanes)

    def wake(self) -> None:
        self._wake.set()

    def set_lanes(self, lanes: Mapping[str, LaneSpec]) -> None:
        """Other destinations than before: of one that is gone, what has not begun is given back."""
        for name in [name for name in self._lanes if name not in lanes]:
            lane = self._lanes.pop(name)
            self._give_back(lane)
            lane.dismiss()
            self._gone.extend(lane.tasks)
        self._gone = [task for task in self._gone if not task.done()]
        for name, spec in lanes.items():
            if name in self._lanes:
                self._lanes[name].respec(spec)
            else:
                self._lanes[name] = self._new_lane(spec)
        self._wake.set()

    def _new_lane(self, spec: LaneSpec) -> Lane:
        return Lane(spec, self._clock, self._one, self.wake, self._store.shared)

    def leave_alone(self, connection: str) -> None:
        """Claims no more for a connection, and gives back what has not begun."""
        self._left_alone.add(connection)
        for name, lane in self._lanes.items():
            if name.partition("/")[0] == connection:
                self._give_back(lane)

    def whose(self, task: asyncio.Task[Any]) -> tuple[str, str] | None:
        """What a task works for; may be asked from another thread."""
        job = self._running.get(task)
        return None if job is None else ("destination", job.destination)

    def give_back(self, kind: str, name: str) -> None:
        """Of a destination or connection that was paused meanwhile: what has not begun."""
        for destination, lane in self._lanes.items():
            if name == (destination if kind == "destination" else destination.partition("/")[0]):
                self._give_back(lane)

    def _is_left_alone(self, destination: str) -> bool:
        return destination.partition("/")[0] in self._left_alone

    def serve(self, connection: str) -> None:
        self._left_alone.discard(connection)
        self._wake.set()

    async def ended(self, connection: str, within_s: float) -> None:
        """Waits for a connection's tries under way, but no longer."""
        until = monotonic() + within_s
        while monotonic() < until:
            if not any(job.destination.partition("/")[0] == connection for job in self._running.values()):
                return
            await asyncio.sleep(ENDED_EVERY_S)

    @property
    def busy(self) -> int:
        """Claimed rows that are not settled yet."""
        return len(self._running) + sum(len(lane.jobs) for lane in self._lanes.values()) + len(self._to_settle)

    async def run(self) -> None:
        """Until ``stop``; a ledger that cannot be written now is asked again, nothing is claimed meanwhile."""
        settler = asyncio.create_task(self._settle_loop(), name="settler")
        watch = asyncio.create_task(self._watch(), name="watch")
        try:
            while not self._stopping:
                await self._wait(await self._claim_some())
        finally:
            self._stopping = self._ended = True
            self._settle_wake.set()
            try:
                await settler
            finally:
                watch.cancel()

    async def stop(self, within_s: float) -> None:
        """Claims no more, gives back what has not begun, lets tries end, then cancels what still runs."""
        self._stopping = True
        self._wake.set()
        for lane in self._lanes.values():
            self._give_back(lane)
            lane.dismiss()
        tasks = {*self._gone, *(task for lane in self._lanes.values() for task in lane.tasks)}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=within_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=2.0)

    def _give_back(self, lane: Lane) -> None:
        while lane.jobs:
            self._settle(self._deliverer.release(lane.jobs.popleft()))

    # -- claiming ----------------------------------------------------------------------------------

    async def _claim_some(self) -> float:
        """Claims once; answers how many seconds there is nothing to do."""
        self._wake.clear()
        if len(self._to_settle) > UNSETTLED:
            return 0.05
        await self._settled_all.wait()
        if not any(lane.hungry for lane in self._lanes.values()) or not self._may_claim():
            return POLL_S
        # One that is not hungry is asked along: the claim is made and committed anyway.
        capacity = {name: room for name, lane in self._lanes.items() if (room := lane.room()) > 0}
        for name in [n for n in capacity if self._left_alone and self._is_left_alone(n)]:
            del capacity[name]
        if not capacity:
            return POLL_S
        term = self._term()
        now = to_us(self._clock())
        request = ClaimRequest(
            now=now,
            owner=self._boot,
            lease_until=now + self._lease_us,
            limit=self._claim_batch,
            capacity=capacity,
            suspect=not self._suspects,
        )
        try:
            await self._free_unheard()
            claim = await self._store.claim(request)
        except Exception as error:  # a named edge: a loop that ended here would send nothing and say nothing
            if self._store.shared:
                self._unsure_until = monotonic() + UNSURE_S
            log("worker.blocked", reason="ledger_busy" if isinstance(error, Busy) else type(error).__name__)
            return POLL_S
        if claim.jobs:
            crashpoint("delivery.claimed")
        for job in claim.jobs:
            job.term = term
            if job.crashes:
                self._suspects.add(job.id)
            lane = self._lanes.get(job.destination)
            if lane is None or self._stopping or (self._left_alone and self._is_left_alone(job.destination)):
                self._settle(self._deliverer.release(job))
            else:
                lane.put(job)
        brought = Counter([job.destination for job in claim.jobs])
        more = (name for name, room in capacity.items() if brought[name] >= room and self._lanes[name].hungry)
        if len(claim.jobs) >= self._claim_batch or any(more):
            return 0.0
        # The others brought less than they had room for: another look would commit an empty claim.
        return min(max((claim.next_at - now) / 1_000_000, 0.02), POLL_S)

    async def _free_unheard(self) -> None:
        """What a claim leased whose answer never came would stay with this process for as long as it lives."""
        now = monotonic()
        if now >= self._unsure_until or now < self._unsure_at:
            return
        self._unsure_at = now + UNSURE_EVERY_S
        known = {job.id for job in self._running.values()}
        known.update(job.id for lane in self._lanes.values() for job in lane.jobs)
        known.update(settlement.id for settlement in (*self._to_settle, *self._settling))
        if freed := await self._store.free_jobs(self._boot, known):
            log("worker.claim_unheard", deliveries=freed)

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    # -- running and settling ----------------------------------------------------------------------

    async def _one(self, job: Job, lane: Lane) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = job
        try:
            settlement = await self._deliverer.run(job, lane.pace)
        except asyncio.CancelledError:
            # The deliverer turns a cancelled try into an outcome; here nothing had begun yet.
            settlement = self._deliverer.release(job)
        finally:
            del self._running[task]
        if settlement is not None:
            self._settle(settlement)
            if settlement.not_before_us or settlement.pause:
                self._give_back(lane)
            if job.sending:
                # Another start before this end is on record would leave more than the lane's slots in doubt at a crash.
                kept = asyncio.get_running_loop().create_future()
                self._kept.append(kept)
                await kept
        else:
            self._suspects.discard(job.id)
            self._wake.set()

    async def _watch(self) -> None:
        """Cancels what has run past its limit; the deliverer turns that into an outcome."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for lane in self._lanes.values():
                lane.learn_speed()
            now = monotonic()
            for task, job in list(self._running.items()):
                if now > job.limit_s and not job.ran_out:
                    job.ran_out = True
                    task.cancel()

    def _settle(self, settlement: Settlement) -> None:
        self._to_settle.append(settlement)
        self._settle_wake.set()

    async def _settle_loop(self) -> None:
        while not (self._ended and not self._to_settle and not len(self._running)):
            self._settling = []
            if not self._to_settle:
                self._settle_wake.clear()
                try:
                    async with asyncio.timeout(0.2 if self._ended else None):
                        await self._settle_wake.wait()
                except TimeoutError:
                    pass
                continue
            if len(self._to_settle) < SETTLE_AT and not self._stopping and not self._kept:
                await asyncio.sleep(SETTLE_WITHIN_S)
            batch, self._to_settle = self._to_settle, []
            kept, self._kept = self._kept, []
            self._settling = batch
            self._settled_all.clear()
            crashpoint("delivery.tried")
            try:
                ok = await self._store.settle(batch, to_us(self._clock()))
            except Busy:  # kept in memory and tried again: the outcome of a try is never dropped
                self._to_settle = batch + self._to_settle
                self._kept += kept
                log("worker.blocked", reason="ledger_busy")
                await asyncio.sleep(0.5)
                continue
            except Exception as error:  # a named edge: one that cannot be written must not keep the others from it
                log("worker.blocked", reason=type(error).__name__)
                await self._settle_apart(batch)
                _free(kept)
                continue
            finally:
                self._settled_all.set()
            crashpoint("delivery.settled")
            self._settled(batch, ok)
            _free(kept)
            await asyncio.sleep(0)  # a claim that waited goes first, and with it what ended meanwhile

    async def _settle_apart(self, batch: list[Settlement]) -> None:
        """One by one; what a plugin left in it that no column takes is dropped, the outcome stands."""
        for settlement in batch:
            for version in (settlement, _plain(settlement)):
                try:
                    ok = await self._store.settle([version], to_us(self._clock()))
                except Busy:
                    self._to_settle.append(settlement)
                except Exception as error:
                    log("worker.blocked", reason=type(error).__name__, delivery=settlement.id.hex())
                    continue
                else:
                    self._settled([settlement], ok)
                break
            else:  # stays leased; a restart takes it over
                self._suspects.discard(settlement.id)

    def _settled(self, batch: list[Settlement], ok: list[bool]) -> None:
        wake = False
        soon_us = to_us(self._clock()) + int(POLL_S * 1_000_000)
        for settlement, good in zip(batch, ok, strict=True):
            if not good:
                log("delivery.late", delivery=settlement.id.hex(), destination=settlement.destination)
            # A later retry is found by the poll.
            soon = settlement.state is State.PENDING and settlement.due_us < soon_us
            if soon or settlement.order_key is not None:
                wake = True
            if settlement.pause:
                log("destination.paused", destination=settlement.destination, reason=settlement.reason)
        if self._suspects:
            self._suspects.difference_update(s.id for s in batch)
            wake = True
        if wake:
            self._wake.set()
        self._on_settled()


def _free(kept: list[asyncio.Future[None]]) -> None:
    for slot in kept:
        if not slot.done():
            slot.set_result(None)


def _plain(settlement: Settlement) -> Settlement:
    """The same settlement with nothing in it that came from a plugin's hands."""
    attempt = settlement.attempt
    if attempt is not None:
        attempt = AttemptRow(attempt.started_at, attempt.finished_at, attempt.outcome, "plugin_error")
    return replace(settlement, reason="plugin_error", attempt=attempt, refs=(), of_parts=0)
