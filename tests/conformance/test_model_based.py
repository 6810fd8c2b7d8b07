"""Any sequence of moves: the store agrees with a model of a few dictionaries, and the books with a recount."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
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
from hub.model import State
from hub.retry import SECOND
from hub.sql import query
from hub.store.base import BreakerPolicy, Job, Unit
from hub.store.sqlite import SqliteStore
from hub.testing import StandingClock
from tests.conformance.conftest import SQLITE_WITNESSES, check_moves
from tests.conformance.ledger_model import UNRESOLVED, Model, Owed
from tests.ledger import ALL, Desk, check_books

S = State
KEYS = st.sampled_from([None, b"key-one", b"key-one", b"key-two"])
STALE = st.sampled_from([False, False, False, True])
ROOM = 3
#: The breaker has tests of its own; here it would only hide the rest.
NO_BREAKER = BreakerPolicy(10**9, 1, 1)
OUTCOMES = st.sampled_from([S.DELIVERED, S.DEAD, S.CANCELLED, S.PENDING, S.ACCEPTED, S.UNKNOWN])


class Ledger(RuleBasedStateMachine):
    empty: Path

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "unionhub.db"
        shutil.copy(self.empty, path)
        self.loop = asyncio.Runner()
        self.clock = StandingClock()
        self.store = SqliteStore(path, breaker=NO_BREAKER, synchronous="OFF", clock=self.clock)
        self.desk = Desk(self.store, self.clock)
        self.model = Model(lambda: self.desk.now)
        self.jobs: list[Job] = []
        self.paused: set[str] = set()
        self.run(self.store.open())
        self.run(self.store.commit(Unit(statements=[query(text(w))() for w in SQLITE_WITNESSES])))
        self.run(self.desk.configure("a", "b"))

    def run(self, work: Any) -> Any:
        return self.loop.run(work)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.run(check_books(self.store))
            self.run(check_moves(self.store))
        finally:
            self.run(self.store.close())
            self.loop.close()
            self.folder.cleanup()

    # -- rules -----------------------------------------------------------------------------------

    @rule(
        where=st.sampled_from(["a", "a", "b"]),
        key=KEYS,
        count=st.integers(1, 3),
        hold=st.booleans(),
        priority=st.integers(0, 2),
        due_s=st.sampled_from([0, 0, 5]),
        expires_s=st.sampled_from([None, None, 0, 20]),
    )
    def commit(
        self, where: str, key: bytes | None, count: int, hold: bool, priority: int, due_s: int, expires_s: int | None
    ) -> None:
        """One, or a line of them."""
        due = self.desk.now + due_s * SECOND
        expires = None if expires_s is None else self.desk.now + expires_s * SECOND
        for _ in range(count):
            number = len(self.model.owed)
            said = self.desk.owe_one(
                where,
                order_key=key,
                on_dead_hold=int(hold),
                priority=priority,
                due_at=due,
                expires_at=expires,
                event_id=(number << 80).to_bytes(16),
            )
            self.model.add(self.run(said), Owed(number, where, key, hold, priority, due, expires))

    @rule(suspect=st.booleans())
    def claim(self, suspect: bool) -> None:
        now, model = self.desk.now, self.model
        possible = model.suspects(now) if suspect else set()
        jobs = self.run(self.desk.claim(capacity={"a": ROOM, "b": ROOM}, suspect=suspect))
        alone = [j for j in jobs if j.crashes]
        assert len(alone) == bool(possible) and {j.id for j in alone} <= possible
        taken = {j.destination for j in alone}
        for where in ("a", "b"):
            expected = model.claimable(where, now)[: ROOM - (where in taken)]
            assert [j.id for j in jobs if j.destination == where and not j.crashes] == expected
        for job in jobs:
            o = model.owed[job.id]
            model.move(o, S.LEASED, o.reason)
            o.lease_no += 1
            assert (job.lease_no, job.tries, job.crashes) == (o.lease_no, o.tries, o.crashes)
        self.jobs += jobs

    def some_job(self, data: st.DataObject) -> Job:
        """Mostly one that is ours now, sometimes any that was ever claimed."""
        ours = [j for j in self.jobs if self.is_ours(j)]
        return data.draw(st.sampled_from(self.jobs if not ours or data.draw(STALE) else ours))

    def is_ours(self, job: Job) -> bool:
        o = self.model.owed[job.id]
        return o.state in (S.LEASED, S.SENDING) and o.lease_no == job.lease_no

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        job = self.some_job(data)
        o = self.model.owed[job.id]
        ours = o.state is S.LEASED and o.lease_no == job.lease_no
        assert self.run(self.desk.store.start(job.id, job.lease_no, b"sha", [])) is ours
        if ours:
            self.model.move(o, S.SENDING, o.reason)

    @rule(data=st.data(), state=OUTCOMES, spends=st.booleans(), parts=st.integers(0, 2), of_parts=st.integers(0, 3))
    def settle(self, data: st.DataObject, state: State, spends: bool, parts: int, of_parts: int) -> None:
        if not any(self.is_ours(j) for j in self.jobs):
            self.claim(suspect=True)
        if not self.jobs:
            return
        job = self.some_job(data)
        o, ours = self.model.owed[job.id], self.is_ours(job)
        if ours and o.state is S.SENDING and state is S.CANCELLED:
            return  # the deliverer asks before it starts
        refs = [f"{job.id.hex()[-6:]}-{job.lease_no}-{i}" for i in range(parts)]
        refs = refs if state in (S.ACCEPTED, S.UNKNOWN) else []
        wait = {S.PENDING: 7 * SECOND, S.ACCEPTED: 30 * SECOND, S.UNKNOWN: UNRESOLVED}.get(state, 0)
        spends = spends or state in (S.DELIVERED, S.ACCEPTED, S.UNKNOWN)
        reason = "" if state in (S.DELIVERED, S.ACCEPTED) else "r"
        said = self.desk.settle(
            job, state, reason, due_us=self.desk.now + wait, refs=tuple(refs),
            of_parts=max(of_parts, parts), spends_try=spends,
        )  # fmt: skip
        assert self.run(said) is ours
        if not ours:
            return
        o.tries += spends
        if state in (S.PENDING, S.ACCEPTED, S.UNKNOWN) or (state is S.DEAD and o.hold and o.key is not None):
            o.crashes = 0
        o.due = self.desk.now + wait
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
    @rule(data=st.data(), of_parts=st.integers(1, 3))
    def record_refs(self, data: st.DataObject, of_parts: int) -> None:
        job = self.some_job(data)
        o = self.model.owed[job.id]
        if not self.is_ours(job):
            return
        ref = f"{job.id.hex()[-6:]}-{job.lease_no}-0"
        self.run(self.desk.store.record_refs(job.destination, job.id, [ref], of_parts))
        self.model.know(o, [ref], of_parts)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), said=st.sampled_from(["delivered", "delivered", "failed", "interim"]))
    def receipt(self, data: st.DataObject, said: str) -> None:
        """For a reference that is known, or that may yet come."""
        job = data.draw(st.sampled_from(self.jobs))
        ref = f"{job.id.hex()[-6:]}-{job.lease_no}-{data.draw(st.integers(0, 1))}"
        self.run(self.desk.receipt(ref, said, "why" if said == "failed" else "", connection=job.destination))
        self.model.receipt(ref, said)

    @rule(seconds=st.sampled_from([-60, 0.001, 10, 10, 30, 30, 8 * 86400]), sweep=st.booleans())
    def step_the_clock(self, seconds: float, sweep: bool) -> None:
        self.clock.advance(seconds)
        if sweep:
            self.run(self.desk.sweep())
            self.model.sweep(self.desk.now)

    @rule(where=st.sampled_from(["a", "b"]), kind=st.sampled_from(["connection", "destination"]))
    def pause_or_resume(self, where: str, kind: str) -> None:
        by = None if f"{kind}:{where}" in self.paused else "operator"
        self.run(self.store.pause(kind, where, by, "", self.desk.now))
        self.paused ^= {f"{kind}:{where}"}
        self.model.paused = {name.split(":")[1] for name in self.paused}

    @rule()
    def crash(self) -> None:
        self.run(self.desk.crash())
        self.model.crash(self.desk.now)

    @precondition(lambda self: self.model.owed)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(list(self.model.owed)))
        o = self.model.owed[id]
        row = self.run(self.desk.row(id))
        [(generation,)] = self.run(
            self.store.read(f"SELECT max(generation) FROM ({ALL}) AS e WHERE event_id = ?", (row["event_id"],))
        )
        following = delivery_id(row["event_id"], o.destination, "", generation + 1)
        done = self.run(self.store.replay(id, following, self.desk.now))
        assert (done is not None) is (not o.in_queue)
        if done:
            fresh = Owed(len(self.model.owed), o.destination, o.key, o.hold, o.priority, self.desk.now, None)
            self.model.add(following, fresh)

    @precondition(lambda self: self.model.owed)
    @rule(data=st.data(), verdict=st.sampled_from(["delivered", "failed", "resend"]))
    def resolve(self, data: st.DataObject, verdict: str) -> None:
        id = data.draw(st.sampled_from(list(self.model.owed)))
        o = self.model.owed[id]
        may = o.state is S.UNKNOWN or o.held
        assert self.run(self.store.resolve(id, verdict, "me", self.desk.now)) is may
        if not may:
            return
        if verdict == "resend":
            self.model.move(o, S.PENDING, "resolved:me")
            o.due, o.expires, o.crashes = self.desk.now, None, 0
            self.model.supersede(o)
        else:
            target = S.DELIVERED if verdict == "delivered" else S.DEAD
            self.model.end(o, target, "resolved:me", by_person=True)

    # -- what must hold after each ---------------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        rows = self.run(self.store.read(f"SELECT id, state, reason, tries, crashes, lease_no FROM ({ALL}) AS e"))
        found = {id: tuple(rest) for id, *rest in rows}
        expected = {id: (o.state.value, o.reason, o.tries, o.crashes, o.lease_no) for id, o in self.model.owed.items()}
        assert found == expected


def test_the_store_agrees_with_the_model(empty_sqlite: Path) -> None:
    machine = type("Ledger", (Ledger,), {"empty": empty_sqlite})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
