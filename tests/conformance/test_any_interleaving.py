"""Three nodes at random, on slow wires: at every moment the books are right, and in the end nothing is left over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from hub.commit import delivery_id
from hub.errors import Busy
from hub.model import State, new_id
from hub.retry import SECOND
from hub.store.base import BreakerPolicy, Job, Unit
from hub.store.ops.books import BOOKS
from hub.testing import StandingClock
from tests.conformance.several import Node, several
from tests.ledger import UNRESOLVED_S, Desk, fact, settlement

pytestmark = pytest.mark.postgres

SPACING = 50_000
KEYS = [None, b"key-one", b"key-two"]
#: One that opens now and then, with pauses that end within the test.
BREAKER = BreakerPolicy(4, 0.5, 2.0)
OUTCOMES = [
    State.DELIVERED, State.DELIVERED, State.DELIVERED, State.PENDING, State.ACCEPTED, State.UNKNOWN, State.DEAD,
    State.CANCELLED,
]  # fmt: skip
#: Two deliveries of one key that could be sent at the same time.
TWO_HEADS = (
    "SELECT destination, order_key, count(*) FROM queue WHERE state IN ('pending', 'leased', 'sending')"
    " AND order_key IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1"
)


@dataclass
class Office:
    """What the nodes do, drawn from one seed, and what was seen of it."""

    nodes: list[Node]
    dice: random.Random
    clock: StandingClock
    refs: list[tuple[str, str]] = field(default_factory=list)
    leases: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    instants: list[int] = field(default_factory=list)
    settled: int = 0
    busy: int = 0
    feed: list[tuple[int, bytes]] = field(default_factory=list)

    def slow_down(self) -> None:
        """Every piece on every wire takes its time, so that statements of several sessions mix."""

        async def wait(_: bytes) -> None:
            await asyncio.sleep(self.dice.choice([0, 0, 0, 0.001, 0.004]))

        for node in self.nodes:
            node.wire.before_passing_on = wait

    async def insist(self, call: Callable[..., Awaitable[Any]], *arguments: Any, **more: Any) -> Any:
        """As whoever calls a store does."""
        while True:
            try:
                return await call(*arguments, **more)
            except Busy:
                self.busy += 1

    # -- parts -----------------------------------------------------------------------------------

    async def owe(self, node: Node, count: int) -> None:
        """Units of some drafts; now and then one that another node commits too."""
        for _ in range(count):
            drafts = []
            for _ in range(self.dice.randint(1, 4)):
                shared = self.dice.random() < 0.3
                key = f"shared-{self.dice.randint(0, 20)}" if shared else new_id().hex
                where = self.dice.sample(["a", "b", "c"], self.dice.randint(1, 2))
                expires = self.dice.choice([None, None, None, node.desk.now + self.dice.randint(1, 3) * SECOND])
                hold = int(self.dice.random() < 0.2)
                more = {"order_key": self.dice.choice(KEYS), "priority": self.dice.randint(0, 2)}
                due = node.desk.now + self.dice.choice([0, 0, SECOND])
                drafts.append(
                    fact(key, node.desk.now, where, due_at=due, expires_at=expires, on_dead_hold=hold, **more)
                )
            await self.insist(node.store.commit, Unit(drafts=drafts))

    async def work(self, node: Node, rounds: int) -> None:
        """Claims, starts, records references and settles; dies now and then."""
        desk = Desk(node.store, StandingClock(), boot=new_id().bytes, destinations=["a", "b", "c"])
        for _ in range(rounds):
            # Its clock is a little slow or fast, and a claim may wait long for its turn.
            desk.clock.now = self.clock.now
            desk.clock.advance(self.dice.uniform(-0.3, 0.0))
            await self.insist(node.store.beat, desk.boot, "n", desk.now, desk.now + 2 * SECOND)
            jobs = await self.insist(desk.claim, capacity={"a": 4, "b": 4, "c": 4})
            for job in jobs:
                self.leases[job.id, job.lease_no] += 1
                if job.destination == "c":
                    self.instants.append(job.send_at)
            if self.dice.random() < 0.15:
                desk.boot = new_id().bytes
                continue
            said = [await self._try(node, desk, job) for job in jobs]
            self.dice.shuffle(said)
            done = await self.insist(node.store.settle, said, self.now())
            self.settled += sum(done)
            self.clock.advance(self.dice.choice([0.01, 0.05, 0.2]))
        desk.clock.advance(-3600)  # what it still has is taken over

    async def _try(self, node: Node, desk: Desk, job: Job) -> Any:
        state = self.dice.choice(OUTCOMES)
        refs: tuple[str, ...] = ()
        if state in (State.ACCEPTED, State.UNKNOWN) or self.dice.random() < 0.1:
            refs = tuple(f"{job.id.hex()[-8:]}-{job.lease_no}-{n}" for n in range(self.dice.randint(1, 2)))
            self.refs += [(job.destination, ref) for ref in refs]
        if state is not State.CANCELLED and self.dice.random() < 0.5:
            await self.insist(node.store.start, job.id, job.lease_no, b"sha", [])
        if refs and self.dice.random() < 0.5:
            await self.insist(node.store.record_refs, job.destination, job.id, refs[:1], len(refs))
        due = desk.now + {State.PENDING: SECOND // 10, State.ACCEPTED: SECOND}.get(state, 10**15)
        with_refs = refs if state in (State.ACCEPTED, State.UNKNOWN) else ()
        return settlement(
            job, state, "" if state in (State.DELIVERED, State.ACCEPTED) else "r", at=desk.now, due_us=due,
            refs=with_refs, of_parts=len(with_refs), health={State.DELIVERED: -1, State.PENDING: 1}.get(state, 0),
        )  # fmt: skip

    async def report(self, node: Node, count: int) -> None:
        """Receipts: of what is known, of what comes next, and some twice."""
        for _ in range(count):
            if self.refs:
                where, ref = self.dice.choice(self.refs)
                said = self.dice.choice(["delivered", "delivered", "failed", "interim"])
                await self.insist(node.desk.receipt, ref, said, "why" if said == "failed" else "", where)
            await asyncio.sleep(0.005)

    async def tend(self, node: Node, count: int) -> None:
        """Take-overs, sweeps, positions, and a person who looks into what got stuck."""
        boot = new_id().bytes
        for _ in range(count):
            await self.insist(node.store.take_over, boot, self.now())
            await self.insist(node.store.sweep, self.now())
            await self.insist(node.store.place_events, self.dice.randint(1, 50))
            await self._resolve(node)
            await self._replay(node)
            self.clock.advance(0.1)

    async def _resolve(self, node: Node) -> None:
        sql = "SELECT id, order_key FROM queue WHERE state IN ('unknown', 'dead') LIMIT 3"
        for id, key in await self.insist(node.store.read, sql):
            # One that is sent again beside the head it once let pass is a second head, on a person's word.
            verdict = self.dice.choice(["delivered", "failed"] if key else ["delivered", "failed", "resend"])
            await self.insist(node.store.resolve, id, verdict, "me", self.now())

    async def _replay(self, node: Node) -> None:
        for id, event_id, where in await self.insist(
            node.store.read, "SELECT id, event_id, destination FROM delivery WHERE generation = 0 LIMIT 5"
        ):
            await self.insist(node.store.replay, id, delivery_id(event_id, where, "", 1), self.now())

    def now(self) -> int:
        return self.nodes[0].desk.now

    # -- what must hold --------------------------------------------------------------------------

    async def watch(self) -> None:
        """The books at any moment, and the feed as a reader by position sees it."""
        while True:
            await self.check()
            seen = self.feed[-1][0] if self.feed else 0
            self.feed += await self.nodes[0].store.read(
                "SELECT position, id FROM event WHERE position > ? ORDER BY position LIMIT 20", (seen,)
            )
            await asyncio.sleep(0.01)

    async def check(self) -> None:
        for name, query in [*BOOKS.items(), ("two_heads", TWO_HEADS)]:
            assert await self.nodes[0].store.read(query) == [], name

    async def finish(self) -> None:
        """Everything that can still be done is done, by one node."""
        node, read = self.nodes[0], self.nodes[0].store.read
        self.clock.advance(3600)
        desk = Desk(node.store, self.clock, boot=new_id().bytes, destinations=["a", "b", "c"])
        for _ in range(300):
            await node.store.take_over(desk.boot, desk.now)
            await node.store.sweep(desk.now)
            jobs = await desk.claim(limit=1000, capacity=dict.fromkeys("abc", 1000))
            self.instants += [job.send_at for job in jobs if job.destination == "c"]
            assert all(await node.store.settle([settlement(j, State.DELIVERED, health=-1) for j in jobs], desk.now))
            for (id,) in await read("SELECT id FROM queue WHERE state IN ('unknown', 'dead')"):
                assert await node.store.resolve(id, "delivered", "me", desk.now)
            desk.clock.advance(1)
            if not jobs and await read("SELECT count(*) FROM queue WHERE state <> 'accepted'") == [(0,)]:
                break
            await self.check()
        desk.clock.advance(UNRESOLVED_S)
        await node.store.sweep(desk.now)
        desk.clock.advance(UNRESOLVED_S)
        await node.store.sweep(desk.now)
        assert await read("SELECT state, count(*) FROM queue GROUP BY state") == [], "nothing is left over"


@pytest.mark.parametrize("seed", range(4))
async def test_any_interleaving_of_three_nodes_keeps_the_books(
    ledger_dsn: str, clock: StandingClock, seed: int
) -> None:
    async with several(ledger_dsn, clock, 3, BREAKER) as nodes:
        await nodes[0].desk.configure("a", "b", "c", rates={"c": SPACING})
        office = Office(nodes, random.Random(seed), clock)
        office.slow_down()
        watching = asyncio.create_task(office.watch())
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(office.owe(node, 12))
                group.create_task(office.work(node, 12))
                group.create_task(office.work(node, 12))
                group.create_task(office.report(node, 30))
            group.create_task(office.tend(nodes[1], 15))
            group.create_task(office.tend(nodes[2], 15))
        for node in nodes:
            node.wire.before_passing_on = None
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await office.finish()

        assert office.settled > 20
        assert max(office.leases.values()) == 1, "no delivery is claimed twice under one lease number"
        gaps = [b - a for a, b in pairwise(sorted(office.instants))]
        assert min(gaps) >= SPACING, "no instant is given out twice"
        positions = [position for position, _ in office.feed]
        assert positions == list(range(1, len(positions) + 1)), "the reader missed nothing and went back nowhere"
        print(
            seed, "settled", office.settled, "busy", office.busy, "leases", len(office.leases), "feed", len(positions)
        )
