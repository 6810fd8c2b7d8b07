"""Any sequence of moves: either store agrees with a model of a few dictionaries, and the books with a recount."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from hub.commit import delivery_id
from hub.contract import Guard
from hub.errors import Conflict, IdempotencyConflict
from hub.model import State, new_id
from hub.retry import SECOND
from hub.sql import query
from hub.store.base import BreakerPolicy, DraftRows, Job, Settlement, Store, Unit
from hub.store.ops.books import BOOKS
from hub.store.sqlite import SqliteStore
from hub.testing import StandingClock
from tests.conformance.conftest import SQLITE_WITNESSES, UsedDatabase, check_moves
from tests.conformance.ledger_model import UNRESOLVED, Model, Owed
from tests.ledger import ALL, Desk, check_books, fact, settlement

S = State
KEYS = st.sampled_from([None, b"key-one", b"key-one", b"key-two"])
STALE = st.sampled_from([False, False, False, True])
OFTEN = st.sampled_from([True, True, True, False])
#: Which of the processes does it; where there is one, it does everything.
NODES = st.sampled_from([0, 0, 1])
ALL_OF_IT = 1000
LEASE = 30 * SECOND
#: The breaker has tests of its own; here it would only hide the rest.
NO_BREAKER = BreakerPolicy(10**9, 1, 1)
#: The outcome of a try, whether it spends one, and how many of how many parts were answered.
Try = tuple[State, bool, int, int]
TRIES = st.tuples(
    st.sampled_from([S.DELIVERED, S.DEAD, S.CANCELLED, S.PENDING, S.ACCEPTED, S.ACCEPTED, S.ACCEPTED, S.UNKNOWN]),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 3),
)
CREATE = query(text("CREATE TABLE probe (name TEXT PRIMARY KEY, n INTEGER NOT NULL)"))
PUT = query(text("INSERT INTO probe (name, n) VALUES ('x', :n)"))
BUMP = query(text("UPDATE probe SET n = n + 1 WHERE n = :seen"))
STATES = (
    "SELECT id, state, reason, tries, crashes, lease_no, (SELECT count(*) FROM attempt a WHERE a.delivery_id = e.id)"
    f" FROM ({ALL}) AS e"
)


class Ledger(RuleBasedStateMachine):
    """The moves that any engine knows; an engine says how a ledger begins and how a process dies."""

    loop: asyncio.Runner
    desks: list[Desk]

    @initialize()
    def begin(self) -> None:
        self.clock = StandingClock()
        self.model = Model(lambda: self.clock_us)
        self.jobs: list[Job] = []
        self.drafts: list[DraftRows] = []
        self.paused: set[str] = set()
        self.version = 0
        self.run(self.open())
        self.run(self.store.commit(Unit(statements=[CREATE(), PUT(n=0)])))
        self.run(self.desks[0].configure("a", "b"))
        for n in range(len(self.desks)):
            self.beat(n)

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def run(self, work: Awaitable[Any]) -> Any:
        async def waited() -> Any:
            async with asyncio.timeout(60):
                return await work

        return self.loop.run(waited())

    @property
    def store(self) -> Store:
        return self.desks[0].store

    @property
    def clock_us(self) -> int:
        return self.desks[0].now

    def desk(self, node: int) -> Desk:
        return self.desks[node % len(self.desks)]

    def teardown(self) -> None:
        if not hasattr(self, "desks"):
            return
        try:
            while self.run(self.store.place_events(100)):
                pass
            self.run(check_books(self.store))
            self.run(check_moves(self.store))
        finally:
            self.run(self.close())

    # -- units -----------------------------------------------------------------------------------

    def draft(self, where: str, due_s: int = 0, expires_s: int | None = None, **more: Any) -> tuple[DraftRows, Owed]:
        """A new fact owed to one destination, and what the model has to know of it."""
        number = len(self.model.owed)
        due = self.clock_us + due_s * SECOND
        expires = None if expires_s is None else self.clock_us + expires_s * SECOND
        draft = fact(
            f"k{number}", self.clock_us, [where], event_id=(number << 80).to_bytes(16), due_at=due, expires_at=expires,
            **more,
        )  # fmt: skip
        row = draft.deliveries[0]
        return draft, Owed(number, where, row.order_key, bool(row.on_dead_hold), row.priority, due, expires)

    def stands(self, draft: DraftRows, owed: Owed) -> None:
        self.drafts.append(draft)
        self.model.add(draft.deliveries[0].id, owed)

    @rule(
        node=NODES,
        where=st.sampled_from(["a", "a", "b"]),
        key=KEYS,
        count=st.integers(1, 3),
        hold=st.sampled_from([False, False, True]),
        priority=st.integers(0, 2),
        due_s=st.sampled_from([0, 0, 5]),
        expires_s=st.sampled_from([None, None, None, None, 0, 20]),
    )
    def commit(self, node: int, where: str, count: int, key: bytes | None, hold: bool, **more: Any) -> None:
        """One, or a line of them."""
        for _ in range(count):
            draft, owed = self.draft(where, order_key=key, on_dead_hold=int(hold), **more)
            assert self.run(self.desk(node).commit(draft)).events == [(draft.event[0], False)]
            self.stands(draft, owed)

    @precondition(lambda self: self.drafts)
    @rule(node=NODES, data=st.data(), same=st.booleans())
    def commit_again(self, node: int, data: st.DataObject, same: bool) -> None:
        """A repeat adds nothing; another content under a used key undoes the unit."""
        known = data.draw(st.sampled_from(self.drafts))
        fresh, owed = self.draft("a")
        again = known if same else fact(known.dedupe[1].decode(), self.clock_us, ["b"], content=b"other")
        unit = self.desk(node).commit(fresh, again)
        if same:
            assert self.run(unit).events == [(fresh.event[0], False), (known.event[0], True)]
            self.stands(fresh, owed)
        else:
            with pytest.raises(IdempotencyConflict):
                self.run(unit)

    @rule(node=NODES, behind=st.sampled_from([0, 0, 1]), where=st.sampled_from(["a", "b"]), key=KEYS)
    def commit_with_a_guard(self, node: int, behind: int, where: str, key: bytes | None) -> None:
        """Read, then written if nobody was faster; together with what is owed for it."""
        draft, owed = self.draft(where, order_key=key)
        unit = Unit(guards=[Guard(BUMP(seen=self.version - behind))], drafts=[draft])
        if behind:
            with pytest.raises(Conflict):
                self.run(self.desk(node).store.commit(unit))
        else:
            self.run(self.desk(node).store.commit(unit))
            self.version += 1
            self.stands(draft, owed)
        assert self.run(self.store.read("SELECT n FROM probe")) == [(self.version,)]

    # -- tries -----------------------------------------------------------------------------------

    @rule(node=NODES, where=st.sampled_from(["a", "b"]), suspect=st.booleans(), room=st.sampled_from([1, 3, ALL_OF_IT]))
    def claim(self, node: int, where: str, suspect: bool, room: int) -> None:
        now, model, desk = self.clock_us, self.model, self.desk(node)
        if desk.store.shared:  # which of those due at the same instant it gives is its own choice
            room = ALL_OF_IT
        possible = {id for id in model.suspects(now) if suspect and model.owed[id].destination == where}
        jobs = self.run(desk.claim(capacity={where: room}, suspect=suspect))
        alone = [j.id for j in jobs if j.crashes]
        assert len(alone) == bool(possible) and set(alone) <= possible
        found = [j.id for j in jobs if not j.crashes]
        expected = model.claimable(where, now)[: room - len(alone)]
        assert sorted(found) == sorted(expected)
        assert [self.turn(id) for id in found] == [self.turn(id) for id in expected]
        if not desk.store.shared:
            assert found == expected
        jobs.sort(key=lambda j: j.id)
        for job in jobs:
            o = model.owed[job.id]
            model.move(o, S.LEASED, o.reason)
            o.lease_no += 1
            o.owner = desk.boot
            assert (job.lease_no, job.tries, job.crashes) == (o.lease_no, o.tries, o.crashes)
        self.jobs += jobs

    def turn(self, id: bytes) -> tuple[int, int]:
        return self.model.owed[id].priority, self.model.owed[id].due

    def some_job(self, data: st.DataObject) -> Job:
        """Mostly one that is still owned, sometimes any that was ever claimed."""
        ours = [j for j in self.jobs if self.is_owned(j)]
        return data.draw(st.sampled_from(self.jobs if not ours or data.draw(STALE) else ours))

    def is_owned(self, job: Job) -> bool:
        o = self.model.owed[job.id]
        return o.state in (S.LEASED, S.SENDING) and o.lease_no == job.lease_no

    @precondition(lambda self: self.jobs)
    @rule(node=NODES, data=st.data(), behind=st.sampled_from([None, 0, 0, 1]))
    def start(self, node: int, data: st.DataObject, behind: int | None) -> None:
        """Without a guard, or with one that holds or does not."""
        job = self.some_job(data)
        o = self.model.owed[job.id]
        ours = o.state is S.LEASED and o.lease_no == job.lease_no
        guards = [] if behind is None else [Guard(BUMP(seen=self.version - behind))]
        start = self.desk(node).store.start(job.id, job.lease_no, b"sha", guards)
        if behind:
            with pytest.raises(Conflict):
                self.run(start)
            return
        assert self.run(start) is ours
        self.version += behind is not None
        if ours:
            self.model.move(o, S.SENDING, o.reason)

    @precondition(lambda self: self.jobs)
    @rule(node=NODES, data=st.data(), outcome=TRIES)
    def settle(self, node: int, data: st.DataObject, outcome: Try) -> None:
        self.end_try(node, self.some_job(data), *outcome)

    @rule(node=NODES, outcomes=st.lists(TRIES, min_size=6, max_size=6))
    def work_for_a_while(self, node: int, outcomes: list[Try]) -> None:
        """As a worker does: all it was given, one after the other."""
        for where in ("a", "b"):
            self.claim(node, where, suspect=True, room=ALL_OF_IT)
        ours = [j for j in self.jobs if self.is_owned(j) and self.model.owed[j.id].owner == self.desk(node).boot]
        for job, outcome in zip(ours, outcomes, strict=False):
            self.end_try(node, job, *outcome)

    def end_try(self, node: int, job: Job, state: State, spends: bool, parts: int, of_parts: int) -> None:
        o, ours = self.model.owed[job.id], self.is_owned(job)
        if ours and o.state is S.SENDING and state is S.CANCELLED:
            return  # the deliverer asks before it starts
        refs = [f"{job.id.hex()[-6:]}-{job.lease_no}-{i}" for i in range(parts)]
        refs = refs if state in (S.ACCEPTED, S.UNKNOWN) else []
        wait = {S.PENDING: 7 * SECOND, S.ACCEPTED: 30 * SECOND, S.UNKNOWN: UNRESOLVED}.get(state, 0)
        spends = spends or state in (S.DELIVERED, S.ACCEPTED, S.UNKNOWN)
        reason = "" if state in (S.DELIVERED, S.ACCEPTED) else "r"
        said = self.desk(node).settle(
            job, state, reason, due_us=self.clock_us + wait, refs=tuple(refs), of_parts=max(of_parts, parts),
            spends_try=spends,
        )  # fmt: skip
        assert self.run(said) is ours
        if not ours:
            return
        o.tries += spends
        o.attempts += 1
        if state in (S.PENDING, S.ACCEPTED, S.UNKNOWN) or (state is S.DEAD and o.hold and o.key is not None):
            o.crashes = 0
        o.due = self.clock_us + wait
        if state in (S.DEAD, S.DELIVERED, S.CANCELLED):
            self.model.end(o, state, reason)
        else:
            self.model.move(o, state, reason)
        if refs:
            self.model.know(o, refs, max(of_parts, parts))
        elif state in (S.ACCEPTED, S.UNKNOWN):
            self.model.weigh(o)
        if state is S.PENDING:
            self.model.supersede(o)

    @precondition(lambda self: self.jobs)
    @rule(node=NODES, data=st.data(), key=KEYS)
    def settle_in_a_unit(self, node: int, data: st.DataObject, key: bytes | None) -> None:
        """As a handler does: its draft and the end of its delivery, or neither."""
        job = self.some_job(data)
        draft, owed = self.draft("b", order_key=key)
        done: Settlement = settlement(job, S.DELIVERED, at=self.clock_us)
        unit = self.desk(node).store.commit(Unit(drafts=[draft], settlement=done))
        if not self.is_owned(job):
            with pytest.raises(Conflict):
                self.run(unit)
            return
        self.run(unit)
        self.stands(draft, owed)
        o = self.model.owed[job.id]
        o.tries += 1
        o.attempts += 1
        self.model.end(o, S.DELIVERED, "")

    # -- receipts --------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs)
    @rule(node=NODES, data=st.data(), of_parts=st.integers(1, 3))
    def record_refs(self, node: int, data: st.DataObject, of_parts: int) -> None:
        job = self.some_job(data)
        if not self.is_owned(job):
            return
        ref = f"{job.id.hex()[-6:]}-{job.lease_no}-0"
        self.run(self.desk(node).store.record_refs(job.destination, job.id, [ref], of_parts))
        self.model.know(self.model.owed[job.id], [ref], of_parts)

    @precondition(lambda self: self.jobs)
    @rule(
        node=NODES, data=st.data(), said=st.sampled_from(["delivered", "delivered", "failed", "interim"]),
        times=st.sampled_from([1, 1, 2]),
    )  # fmt: skip
    def receipt(self, node: int, data: st.DataObject, said: str, times: int) -> None:
        """For a reference that is known, or that may yet come; and the same once more."""
        job = data.draw(st.sampled_from(self.jobs))
        ref = f"{job.id.hex()[-6:]}-{job.lease_no}-{data.draw(st.integers(0, 1))}"
        for _ in range(times):
            self.run(self.desk(node).receipt(ref, said, "why" if said == "failed" else "", connection=job.destination))
            self.model.receipt(ref, said)

    # -- time, pauses, people --------------------------------------------------------------------

    @rule(node=NODES, seconds=st.sampled_from([-7200, -60, 0.001, 10, 30, 30, 30, 30, 8 * 86400]), sweep=OFTEN)
    def step_the_clock(self, node: int, seconds: float, sweep: bool) -> None:
        self.clock.advance(seconds)
        if sweep:
            self.run(self.desk(node).sweep())
            self.model.sweep(self.clock_us)

    @rule(node=NODES, where=st.sampled_from(["a", "b"]), kind=st.sampled_from(["connection", "destination"]))
    def pause_or_resume(self, node: int, where: str, kind: str) -> None:
        by = None if f"{kind}:{where}" in self.paused else "operator"
        self.run(self.desk(node).store.pause(kind, where, by, "", self.clock_us))
        self.paused ^= {f"{kind}:{where}"}
        self.model.paused = {name.split(":")[1] for name in self.paused}

    @rule(node=NODES)
    def hold_and_release(self, node: int) -> None:
        """Nothing is given out meanwhile, whatever is due."""
        store = self.desk(node).store
        self.run(store.hold("restored"))
        assert self.run(store.held()) == "restored" and self.run(self.desks[0].claim()) == []
        self.run(store.hold(None))

    @precondition(lambda self: self.model.owed)
    @rule(node=NODES, data=st.data())
    def replay(self, node: int, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(list(self.model.owed)))
        o = self.model.owed[id]
        row = self.run(self.desks[0].row(id))
        [(generation,)] = self.run(
            self.store.read(f"SELECT max(generation) FROM ({ALL}) AS e WHERE event_id = ?", (row["event_id"],))
        )
        following = delivery_id(row["event_id"], o.destination, "", generation + 1)
        done = self.run(self.desk(node).store.replay(id, following, self.clock_us))
        assert (done is not None) is (not o.in_queue)
        if done:
            fresh = Owed(len(self.model.owed), o.destination, o.key, o.hold, o.priority, self.clock_us, None)
            self.model.add(following, fresh)

    @precondition(lambda self: self.model.owed)
    @rule(node=NODES, data=st.data(), verdict=st.sampled_from(["delivered", "failed", "resend"]))
    def resolve(self, node: int, data: st.DataObject, verdict: str) -> None:
        id = data.draw(st.sampled_from(list(self.model.owed)))
        o = self.model.owed[id]
        may = o.state is S.UNKNOWN or o.held
        assert self.run(self.desk(node).store.resolve(id, verdict, "me", self.clock_us)) is may
        if not may:
            return
        if verdict == "resend":
            self.model.move(o, S.PENDING, "resolved:me")
            o.due, o.expires, o.crashes = self.clock_us, None, 0
            self.model.supersede(o)
        else:
            target = S.DELIVERED if verdict == "delivered" else S.DEAD
            self.model.end(o, target, "resolved:me", by_person=True)

    # -- processes -------------------------------------------------------------------------------

    @rule(node=NODES)
    def beat(self, node: int) -> None:
        boot, until = self.desk(node).boot, self.clock_us + LEASE
        self.run(self.desk(node).store.beat(boot, "node", self.clock_us, until))
        self.model.beat(boot, self.clock_us, until)

    @rule(node=NODES)
    def look_for_the_dead(self, node: int) -> None:
        """Somebody else's leases are freed when he said nothing for long, never one's own."""
        desk = self.desk(node)
        freed = self.run(desk.store.take_over(desk.boot, self.clock_us))
        assert freed == self.model.take_over(desk.boot, self.clock_us)

    @rule(node=NODES, data=st.data())
    def an_answer_was_lost(self, node: int, data: st.DataObject) -> None:
        """Of what it leased, a process knows a part only: the rest is freed."""
        desk = self.desk(node)
        mine = [id for id, o in self.model.owed.items() if o.owner == desk.boot and o.state is S.LEASED]
        known = set(data.draw(st.lists(st.sampled_from(mine)))) if mine else set()
        assert self.run(desk.store.free_jobs(desk.boot, known)) == self.model.free(desk.boot, known)

    # -- what must hold after each ---------------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "desks"):
            return
        found, broken = self.run(self.look())
        assert found == {
            id: (o.state.value, o.reason, o.tries, o.crashes, o.lease_no, o.attempts)
            for id, o in self.model.owed.items()
        }
        assert broken == []

    async def look(self) -> tuple[dict[bytes, tuple[Any, ...]], list[str]]:
        """All deliveries, and which of the books do not balance."""
        rows, *books = await asyncio.gather(*(self.store.read(sql) for sql in (STATES, *BOOKS.values())))
        return {id: tuple(rest) for id, *rest in rows}, [
            name for name, wrong in zip(BOOKS, books, strict=True) if wrong
        ]


class OnSqlite(Ledger):
    """One process, which dies and starts again."""

    empty: Path

    async def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "unionhub.db"
        shutil.copy(self.empty, self.path)
        store = self.new_store()
        await store.open()
        await store.commit(Unit(statements=[query(text(witness))() for witness in SQLITE_WITNESSES]))
        self.desks = [Desk(store, self.clock)]

    def new_store(self) -> SqliteStore:
        return SqliteStore(self.path, breaker=NO_BREAKER, synchronous="OFF", clock=self.clock)

    async def close(self) -> None:
        await self.store.close()
        self.folder.cleanup()

    @rule(again=st.sampled_from([False, False, True]))
    def crash(self, again: bool) -> None:
        """The next boot finds what this one left, in the open file or in one that was closed and opened again."""
        desk = self.desks[0]
        if again:
            self.run(self.open_again())
        desk.boot = new_id().bytes
        self.model.lives_until = {}
        assert self.run(desk.store.take_over(desk.boot, self.clock_us)) == self.model.take_over(
            desk.boot, self.clock_us
        )

    async def open_again(self) -> None:
        await self.store.close()
        self.desks[0].store = self.new_store()
        await self.store.open()


class OnPostgres(Ledger):
    """Two processes; one that dies is found out by the other, or by itself when it starts again."""

    database: UsedDatabase
    #: Open from the first example to the last.
    stores: list[Store]

    async def open(self) -> None:
        self.database.clear()
        boots = [f"boot-{n}".encode().ljust(16) for n in range(len(self.stores))]
        self.desks = [
            Desk(s, self.clock, boot, destinations=["a", "b"]) for s, boot in zip(self.stores, boots, strict=True)
        ]

    async def close(self) -> None:
        """The next example goes on with them."""

    @rule(node=NODES, in_order=st.booleans(), found_out=st.booleans())
    def crash(self, node: int, in_order: bool, found_out: bool) -> None:
        """Its next boot is another process; what it held is free when its lease has ended, or at once if it said so."""
        desk = self.desk(node)
        old, desk.boot = desk.boot, new_id().bytes
        if in_order:
            self.run(desk.store.leave(old))
            self.model.lives_until.pop(old, None)
        self.beat(node)
        if found_out:
            self.look_for_the_dead(node + 1)


def run(machine: type[Ledger], phases: Sequence[Phase] = tuple(Phase), *, examples: int, **more: Any) -> None:
    run_state_machine_as_test(
        type(machine.__name__, (machine,), more),
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=phases,
        ),
    )


def test_sqlite_agrees_with_the_model(empty_sqlite: Path) -> None:
    with asyncio.Runner() as loop:
        run(OnSqlite, examples=50, loop=loop, empty=empty_sqlite)


@pytest.mark.postgres
def test_postgres_agrees_with_the_model(used_database: UsedDatabase) -> None:
    from hub.store.postgres import PostgresStore

    dsn = used_database.emptied()
    stores = [PostgresStore(dsn, breaker=NO_BREAKER) for _ in range(2)]
    with asyncio.Runner() as loop:
        for store in stores:
            loop.run(store.open())
        # What fails is told as it was found: making it shorter would take minutes.
        found = (Phase.explicit, Phase.reuse, Phase.generate)
        run(OnPostgres, found, examples=20, loop=loop, database=used_database, stores=stores)
        for store in stores:
            loop.run(store.close())
