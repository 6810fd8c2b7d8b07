"""This process among those that share the ledger: its sign of life, who leads, and what only so many may do at once.

All leases end by the ledger's clock; a process counts its own from before it asked, and on its monotonic
clock, so that it stops in time even if it was stopped itself. On SQLite there is one process, and it leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from hub.clock import Clock, ServerClock
from hub.log import log
from hub.model import to_us
from hub.store.base import Store

LEADER = "leader"
#: Of a lease: how long a process trusts it without having renewed it.
TRUST = 2 / 3
#: Signs of life in one lease, and the longest pause between two.
BEATS, BEAT_S = 6, 5.0
#: An answer that took longer says too little about the time.
ROUND_TRIP_S = 1.0
#: How often the leader looks for committed events without a feed position, and how many it places at once.
PLACE_EVERY_S, PLACE = 0.2, 2000


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
        self._lease_us = int(lease_s * 1_000_000)
        self._trust_s = lease_s * TRUST
        self._every_s = min(lease_s / BEATS, BEAT_S)
        self._on_freed = on_freed
        self._on_lead = on_lead
        self._good_until = 0.0
        self._leads_until = 0.0
        #: Names of the sessions this process has, until when, and what to do when one is lost.
        self._sessions: dict[str, tuple[float, Callable[[], None]]] = {}

    def good(self) -> bool:
        """Whether what this process has claimed is certainly still its own."""
        return not self._store.shared or monotonic() < self._good_until

    def leads(self) -> bool:
        """Whether this process is the one that schedules, sweeps and places events."""
        return not self._store.shared or monotonic() < self._leads_until

    async def set_clock(self) -> tuple[float, int]:
        """Asks for the ledger's time; answers when it was asked (monotonic, s) and what it said (us)."""
        asked = monotonic()
        server_us = await self._store.now()
        answered = monotonic()
        if isinstance(self._clock, ServerClock) and answered - asked <= ROUND_TRIP_S:
            self._clock.set(server_us, asked, answered)
        return asked, server_us

    async def join(self) -> None:
        """The first sign of life; raises what the store raises."""
        await self._beat()

    async def leave(self) -> None:
        """Gives back what this process holds; what it cannot say ends with its lease."""
        self._good_until = self._leads_until = 0.0
        with suppress(Exception):
            await self._store.leave(self._boot)

    async def run(self) -> None:
        if not self._store.shared:
            return
        placing = asyncio.create_task(self._place(), name="positions")
        try:
            while True:
                await asyncio.sleep(self._every_s)
                try:
                    await self._beat()
                except Exception as error:  # a named edge: asked again at once; meanwhile the trust runs out
                    log("node.beat_failed", error=type(error).__name__)
                    await asyncio.sleep(min(self._every_s, 0.5))
                for session, (until, on_lost) in list(self._sessions.items()):
                    if monotonic() >= until:
                        del self._sessions[session]
                        on_lost()
        finally:
            placing.cancel()

    async def _beat(self) -> None:
        if not self._store.shared:
            return
        asked, server_us = await self.set_clock()
        until = server_us + self._lease_us
        await self._store.beat(self._boot, self._name, server_us, until)
        was_good, self._good_until = self.good(), asked + self._trust_s
        if not was_good:
            log("node.joined", node=self._name, boot=self._boot.hex())
        for session, (_, on_lost) in list(self._sessions.items()):
            if await self._store.hold_lease(session, self._boot, server_us, until):
                self._sessions[session] = (asked + self._trust_s, on_lost)
        await self._lead(server_us, until, asked)

    async def _lead(self, now: int, until: int, asked: float) -> None:
        led = self.leads()
        if not await self._store.hold_lease(LEADER, self._boot, now, until):
            self._leads_until = 0.0
            return
        self._leads_until = asked + self._trust_s
        if not led:
            log("node.leads", node=self._name)
            self._on_lead()
        if freed := await self._store.take_over(self._boot, now):
            log("node.took_over", node=self._name, deliveries=freed)
            self._on_freed()

    async def _place(self) -> None:
        while True:
            try:
                while self.leads() and await self._store.place_events(PLACE) == PLACE:
                    pass
            except Exception as error:  # a named edge: what is not placed now is placed later
                log("node.beat_failed", error=type(error).__name__)
            await asyncio.sleep(PLACE_EVERY_S)

    # -- what only so many processes may do at once ------------------------------------------------

    async def session(self, connection: str, of: int, on_lost: Callable[[], None]) -> str:
        """Waits for one of a connection's sessions; ``on_lost`` is called once when it is no longer ours."""
        while True:
            asked = monotonic()
            now = to_us(self._clock())
            for number in range(of):
                name = f"session:{connection}:{number}"
                if name in self._sessions:
                    continue
                if self.good() and await self._store.hold_lease(name, self._boot, now, now + self._lease_us):
                    self._sessions[name] = (asked + self._trust_s, on_lost)
                    return name
            await asyncio.sleep(self._every_s)

    async def end_session(self, name: str) -> None:
        """Lets another process have it."""
        self._sessions.pop(name, None)
        with suppress(Exception):  # it ends with its lease
            await self._store.drop_lease(name, self._boot)
