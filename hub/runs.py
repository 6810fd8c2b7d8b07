"""Runs: pulls, fan-outs and backups that are due, a few at a time, each with a lease of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from hub import metrics
from hub.clock import Clock
from hub.commit import Committer
from hub.contract import Connection
from hub.errors import Busy, HubError
from hub.log import log
from hub.model import to_us
from hub.nodes import Nodes
from hub.store.base import RunRow, Store
from hub.sync import pull

#: Runs at once, and how soon what the ledger could not take is tried again.
RUNS, AGAIN_S = 4, 1.0


class Runs:
    """``wake`` tells it that one may be due."""

    def __init__(
        self,
        store: Store,
        nodes: Nodes,
        committer: Committer,
        clock: Clock,
        boot: bytes,
        connections: Mapping[str, Connection],
        others: Mapping[str, Callable[[RunRow], Awaitable[int]]],
        on_items: Callable[[int], None],
    ) -> None:
        """``others``: what runs of other kinds than ``pull`` do; each answers how many items it made."""
        self._store = store
        self._nodes = nodes
        self._committer = committer
        self._clock = clock
        self._boot = boot
        self._connections = connections
        self._others = others
        self._on_items = on_items
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """For as long as the hub works."""
        under_way: dict[asyncio.Task[None], bytes] = {}
        term, unsure = self._nodes.term, False
        try:
            while True:
                self.wake.clear()
                run = None
                if not self._nodes.still_ours(term):  # others go on with what this process had before
                    for task in under_way:
                        task.cancel()
                    under_way.clear()
                    term, unsure = self._nodes.term, True
                try:
                    if unsure and self._nodes.good():
                        await self._store.free_runs(self._boot, set(under_way.values()))
                        unsure = False
                    if len(under_way) < RUNS and self._nodes.good() and await self._store.held() is None:
                        unsure = True  # until the answer is here
                        run = await self._store.claim_run(self._boot, to_us(self._clock()))
                        unsure = False
                except Exception as error:  # a named edge: asked again in a second
                    log("worker.blocked", reason=type(error).__name__)
                if run is None:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await self.wake.wait()
                    continue
                task = asyncio.create_task(self._one(run))
                under_way[task] = run.id
                task.add_done_callback(lambda done: under_way.pop(done, None))
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _one(self, run: RunRow) -> None:
        state, reason, items = "done", "", 0
        try:
            if run.kind in self._others:
                items = await self._others[run.kind](run)
            else:
                source = self._connections[run.object].source
                assert source is not None
                items = await pull(run, source, self._committer, self._store, f"/connections/{run.object}")
        except (Exception, SystemExit) as error:  # a named edge: the cursor stays, the next slot tries again
            state, reason = "failed", error.code if isinstance(error, HubError) else type(error).__name__
        self._on_items(items)
        if not await self._finish(run, state, reason):
            state, reason = "left", "run_lost"
        metrics.runs.labels(run.kind, state).inc()
        log("run.finished", kind=run.kind, object=run.object, state=state, reason=reason, items=items)

    async def _finish(self, run: RunRow, state: str, reason: str) -> bool:
        """Until it is written: a run left open would keep its connection from ever running again."""
        while True:
            try:
                return await self._store.finish_run(run, state, reason, to_us(self._clock()))
            except Busy:
                log("worker.blocked", reason="ledger_busy")
                await asyncio.sleep(AGAIN_S)
