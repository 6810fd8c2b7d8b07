"""This process among those that share the ledger: its sign of life, who leads, and what only so many may do at once.

All leases end by the ledger's clock; a process counts its own from before it asked, and on its steady clock,
so that it stops in time even if it was stopped itself. On SQLite there is one process, and it leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from hub.clock import Clock, ServerClock, steady, system_clock
from hub.log import log
from hub.model import to_us
from hub.store.base import Store

LEADER = "leader"
#: Of a lease: how long a process trusts it without having renewed it.
TRUST = 2 / 3
#: Signs of life in one lease, the longest pause between two, and the one after a failure.
BEATS, BEAT_S, RETRY_S = 6, 5.0, 0.5
#: A stop waits no longer for the ledger to hear of it.
GOODBYE_S = 2.0
#: How late it may be noticed that a session's trust ran out.
WATCH_S = 0.25
#: How often the leader looks for committed events without a feed position, and how many it places at once.
PLACE_EVERY_S, PLACE = 0.2, 2000
#: A machine whose own clock is this much off is told of: its logs and the ids it makes carry a wrong time.
CLOCK_OFF_S = 60.0


class Nodes:
    """``join`` before anything is claimed; then ``run`` as long as the hub does."""

    def __init__(
        self,
        store: Store,
        boot: bytes,
        name: str,
        clock: Clock,
        lease_s: float,
        *,
        on_freed: Callable[[], None],
        on_lead: Callable[[], None],
    ) -> None:
        self._store = store
        self._boot = boot
        self._name = name
        self._clock = clock
        self._lease_s = lease_s
        self._lease_us = int(lease_s * 1_000_000)
        self._trust_s = lease_s * TRUST
        self._every_s = min(lease_s / BEATS, BEAT_S)
        self._on_freed = on_freed
        self._on_lead = on_lead
        #: How often this process has joined: what it claimed in a former term may be another's by now.
        self.term = 0
        self._good_until = 0.0
        self._leads_until = 0.0
        #: From when on it may say that somebody else's lease has ended. After an outage, or when the ledger's clock
        #: was set, all look lapsed: whoever lives gets the time to say so.
        self._judges_from = 0.0
        #: Names of the sessions this process has, until when, and what to do when one is lost.
        self._sessions: dict[str, tuple[float, Callable[[], None]]] = {}
        self._beaten = asyncio.Event()
        self._led_beat = asyncio.Event()
        self._failing = False

    def good(self) -> bool:
        """Whether what this process claims now is certainly its own."""
        return not self._store.shared or steady() < self._good_until

    def still_ours(self, term: int) -> bool:
        """Whether what was claimed in that term certainly is."""
        return self.good() and (term == self.term or not self._store.shared)

    def leads(self) -> bool:
        """Whether this process is the one that schedules, sweeps and places events."""
        return not self._store.shared or steady() < self._leads_until

    async def set_clock(self) -> tuple[float, int]:
        """Asks for the ledger's time; answers when it was asked (steady, s) and what it said (us)."""
        asked = steady()
        server_us = await self._store.now()
        if isinstance(self._clock, ServerClock):
            set_by_s = self._clock.set(server_us, asked, steady())
            if abs(set_by_s) > self._every_s:
                log("node.clock_set", by_s=round(set_by_s, 3))
                self._be_patient(asked)
        return asked, server_us

    async def join(self) -> None:
        """The first sign of life; raises what the store raises."""
        while await self._beat() == 0.0:
            pass
        off_s = (system_clock() - self._clock()).total_seconds()
        if isinstance(self._clock, ServerClock) and abs(off_s) > CLOCK_OFF_S:
            log("node.clock_off", node=self._name, off_s=round(off_s, 3))

    async def leave(self) -> None:
        """Gives back what this process holds; what it cannot say ends with its lease."""
        self._good_until = self._leads_until = 0.0
        with suppress(Exception):
            async with asyncio.timeout(GOODBYE_S):
                await self._store.leave(self._boot)

    async def run(self) -> None:
        if not self._store.shared:
            return
        async with asyncio.TaskGroup() as group:
            for each in (self._beats, self._watch, self._place, self._take_over):
                group.create_task(each(), name=f"nodes:{each.__name__.strip('_')}")

    # -- signs of life -----------------------------------------------------------------------------

    async def _beats(self) -> None:
        pause = self._every_s
        while True:
            await asyncio.sleep(pause)
            try:
                pause = await self._beat()
                self._failing = False
            except Exception as error:  # a named edge: asked again soon; meanwhile the trust runs out
                if not self._failing:
                    log("node.beat_failed", node=self._name, error=type(error).__name__)
                self._failing = True
                pause = min(self._every_s, RETRY_S)

    async def _beat(self) -> float:
        """Renews all that this process holds; answers how many seconds until the next time.

        0.0: the answer took so long that it says nothing; at once again.
        """
        if not self._store.shared:
            return self._every_s
        asked, now = await self.set_clock()
        until = now + self._lease_us
        next_end = await self._store.beat(self._boot, self._name, now, until)
        if steady() >= asked + self._trust_s:
            return 0.0
        if not self.good():
            self.term += 1
            self._be_patient(asked)
            log("node.joined", node=self._name, boot=self._boot.hex(), term=self.term)
        self._good_until = asked + self._trust_s
        for session in list(self._sessions):
            if session not in self._sessions:  # ended meanwhile
                continue
            held = await self._store.hold_lease(session, self._boot, self._judged(now), until)
            if session in self._sessions:
                _, on_lost = self._sessions.pop(session)
                if held:
                    self._sessions[session] = (asked + self._trust_s, on_lost)
                else:
                    on_lost()
        await self._lead(now, until, asked)
        self._beaten.set()
        self._beaten = asyncio.Event()
        # Whatever of somebody else's ends next is noticed then.
        return min(self._every_s, max((next_end - now) / 1_000_000, 0.01))

    async def _watch(self) -> None:
        """Beside the beats: one that hangs renews nothing."""
        while True:
            await asyncio.sleep(min(WATCH_S, self._every_s))
            for session, (until, on_lost) in list(self._sessions.items()):
                if steady() >= until:
                    del self._sessions[session]
                    on_lost()

    def _be_patient(self, now_s: float) -> None:
        self._judges_from = now_s + self._lease_s - self._trust_s

    def _judged(self, now: int) -> int:
        """The instant by which the leases of others are measured: the beginning of time while it is too early."""
        return now if steady() >= self._judges_from else 0

    # -- leading -----------------------------------------------------------------------------------

    async def _lead(self, now: int, until: int, asked: float) -> None:
        if not await self._store.hold_lease(LEADER, self._boot, self._judged(now), until):
            self._leads_until = 0.0
            return
        led = self.leads()
        self._leads_until = asked + self._trust_s
        if not led:
            log("node.leads", node=self._name)
            self._on_lead()
        self._led_beat.set()

    async def _take_over(self) -> None:
        """Beside the beats: it may have to wait for a lock that somebody holds who was stopped."""
        while True:
            await self._led_beat.wait()
            self._led_beat.clear()
            try:
                await self._take_over_once()
            except Exception as error:  # a named edge: the next beat asks again
                log("worker.blocked", reason=type(error).__name__)

    async def _take_over_once(self) -> None:
        now = self._judged(to_us(self._clock()))
        if not (now and self.leads()):
            return
        lost = await self._store.read(
            "SELECT name, boot, lease_until FROM node WHERE lease_until <= ? AND boot <> ?", (now, self._boot)
        )
        for name, boot, ended in lost:
            log("node.lost", node=name, boot=boot.hex(), silent_s=round((now - ended) / 1_000_000 + self._lease_s, 3))
        freed = await self._store.take_over(self._boot, now)
        if freed or lost:
            log("node.took_over", node=self._name, deliveries=freed)
            self._on_freed()

    async def _place(self) -> None:
        while True:
            try:
                while self.leads() and await self._store.place_events(PLACE) == PLACE:
                    pass
            except Exception as error:  # a named edge: what is not placed now is placed later
                log("worker.blocked", reason=type(error).__name__)
            await asyncio.sleep(PLACE_EVERY_S)

    # -- what only so many processes may do at once ------------------------------------------------

    async def session(self, connection: str, of: int, on_lost: Callable[[], None]) -> str:
        """Waits for one of a connection's sessions; ``on_lost`` is called once when it is no longer ours."""
        while True:
            beaten, asked, now = self._beaten, steady(), to_us(self._clock())
            for name in (f"session:{connection}:{number}" for number in range(of)):
                if name not in self._sessions and self.good() and await self._take_session(name, now):
                    self._sessions[name] = (asked + self._trust_s, on_lost)
                    return name
            await beaten.wait()

    async def _take_session(self, name: str, now: int) -> bool:
        try:
            return await self._store.hold_lease(name, self._boot, self._judged(now), now + self._lease_us)
        except Exception:  # a named edge: the next beat says what is wrong, and after it we ask again
            return False

    async def end_session(self, name: str) -> None:
        """Lets another process have it."""
        self._sessions.pop(name, None)
        with suppress(Exception):  # it ends with its lease
            async with asyncio.timeout(GOODBYE_S):
                await self._store.drop_lease(name, self._boot)
