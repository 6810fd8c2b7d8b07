"""Any sequence of moves and prunings: nobody who is owed something loses anything of it, and the books balance."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from hub.commit import delivery_id
from hub.errors import InputError
from hub.model import State
from hub.retention import Pruner, Rules
from hub.retry import SECOND
from hub.routing import Router
from hub.settings_model import RetentionSettings
from hub.store.base import BreakerPolicy, Job, PruneStep, Store
from hub.store.sqlite import SqliteStore
from hub.testing import StandingClock
from tests.conformance.ledger_model import UNRESOLVED
from tests.conftest import migrated
from tests.history import DAY, campaign, id_at, orphans
from tests.ledger import ALL, Desk, check_books
from tests.postgres import Server

S = State
NO_BREAKER = BreakerPolicy(10**9, 1, 1)
HISTORY_DAYS, CONTENT_DAYS = 100, 20
OUTCOMES = st.sampled_from([S.DELIVERED, S.DELIVERED, S.DEAD, S.CANCELLED, S.PENDING, S.ACCEPTED, S.UNKNOWN])
AGES = st.sampled_from([0, 5, 50, 50, 200, 200, 200])
#: Everything that somebody who is still owed something needs, and what was tried for them so far.
OWED = (
    "SELECT q.id, q.state, q.reason, q.tries, e.id, e.type, c.body, (SELECT count(*) FROM attempt a"
    " WHERE a.delivery_id = q.id), (SELECT count(*) FROM provider_ref p WHERE p.delivery_id = q.id),"
    " (SELECT count(*) FROM receipt r WHERE r.delivery_id = q.id), (SELECT count(*) FROM delivery d"
    " WHERE d.event_id = q.event_id) FROM queue q LEFT JOIN event e ON e.id = q.event_id"
    " LEFT JOIN content c ON c.event_id = q.event_id ORDER BY q.id"
)
FANNING = "SELECT event_id FROM batch WHERE state IN ('freezing', 'running')"


class History(RuleBasedStateMachine):
    new_store: Callable[[Path, StandingClock], Store]

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.Runner()
        self.clock = StandingClock()
        self.store = type(self).new_store(Path(self.folder.name), self.clock)
        self.desk = Desk(self.store, self.clock)
        retention = RetentionSettings(history_days=HISTORY_DAYS, content_days=CONTENT_DAYS)
        self.pruner = Pruner(self.store, Rules(retention, 30, {}, Router([], {})), self.clock, share=1)
        self.events: list[bytes] = []
        self.jobs: list[Job] = []
        self.run(self.store.open())
        self.run(self.desk.configure("a", "b"))

    def run(self, work: Any) -> Any:
        return self.loop.run(work)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.everything_old()
            self.run(check_books(self.store))
        finally:
            self.run(self.store.close())
            self.loop.close()
            self.folder.cleanup()

    # -- moves -----------------------------------------------------------------------------------

    @rule(
        days=AGES,
        where=st.sampled_from([["a"], ["a", "b"], []]),
        people=st.integers(0, 3),
        key=st.sampled_from([None, b"key"]),
        hold=st.booleans(),
        expires_s=st.sampled_from([None, None, 20]),
    )
    def owe(
        self, days: int, where: list[str], people: int, key: bytes | None, hold: bool, expires_s: int | None
    ) -> None:
        event_id = id_at(self.desk.now - days * DAY, len(self.events))
        expires = None if expires_s is None else self.desk.now + expires_s * SECOND
        self.run(self.desk.owe(*where, event_id=event_id, order_key=key, on_dead_hold=int(hold), expires_at=expires))
        self.events.append(event_id)
        if people and not where:
            state = "running" if people == 1 else "done"
            self.run(campaign(self.desk, event_id, state, subjects=people))

    @rule(suspect=st.booleans())
    def claim(self, suspect: bool) -> None:
        self.jobs += self.run(self.desk.claim(suspect=suspect))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), state=OUTCOMES, parts=st.integers(0, 2))
    def settle(self, data: st.DataObject, state: State, parts: int) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        wait = {S.PENDING: 7 * SECOND, S.ACCEPTED: 30 * SECOND, S.UNKNOWN: UNRESOLVED}.get(state, 0)
        refs = tuple(f"{job.id.hex()}-{job.lease_no}-{i}" for i in range(parts)) if state is S.ACCEPTED else ()
        self.run(self.desk.settle(job, state, "r", due_us=self.desk.now + wait, refs=refs, of_parts=parts))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), said=st.sampled_from(["delivered", "failed"]), part=st.integers(0, 1))
    def receipt(self, data: st.DataObject, said: str, part: int) -> None:
        """For a delivery that awaits it, has ended, or is gone."""
        job = data.draw(st.sampled_from(self.jobs))
        self.run(self.desk.receipt(f"{job.id.hex()}-{job.lease_no}-{part}", said, connection=job.destination))

    @rule(days=st.sampled_from([0.0001, 0.001, 1, 8, 30]), sweep=st.booleans())
    def step_the_clock(self, days: float, sweep: bool) -> None:
        self.clock.advance(days * 86400)
        if sweep:
            self.run(self.desk.sweep())

    @rule()
    def crash(self) -> None:
        self.run(self.desk.crash())

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        rows = self.run(self.store.read(f"SELECT id, event_id, destination FROM ({ALL}) AS e ORDER BY id"))
        if not rows:
            return
        id, event_id, destination = data.draw(st.sampled_from(rows))
        of = (
            f"SELECT max(generation) FROM ({ALL}) AS e WHERE event_id = ? AND destination = ?",
            (event_id, destination),
        )
        ((generation,),) = self.run(self.store.read(*of))
        kept = self.run(self.store.read("SELECT 1 FROM content WHERE event_id = ?", (event_id,)))
        try:
            done = self.run(
                self.store.replay(id, delivery_id(event_id, destination, "", generation + 1), self.desk.now)
            )
        except InputError:
            assert not kept
        else:
            assert kept or done is None

    @rule(data=st.data(), verdict=st.sampled_from(["delivered", "failed", "resend"]))
    def resolve(self, data: st.DataObject, verdict: str) -> None:
        rows = self.run(self.store.read("SELECT id FROM queue WHERE state IN ('unknown', 'dead') ORDER BY id"))
        if rows:
            self.run(self.store.resolve(data.draw(st.sampled_from(rows))[0], verdict, "me", self.desk.now))

    # -- prunings --------------------------------------------------------------------------------

    def pruned(self, work: Any) -> Any:
        """What is owed is untouched, and nothing is left without what it belongs to."""
        while self.run(self.store.place_events(1000)):
            pass
        owed, fanning = self.run(self.store.read(OWED)), self.run(self.store.read(FANNING))
        result = self.run(work)
        assert self.run(self.store.read(OWED)) == owed
        for (event_id,) in fanning:
            assert self.run(self.store.read("SELECT 1 FROM content WHERE event_id = ?", (event_id,)))
        assert self.run(orphans(self.store)) == []
        return result

    @precondition(lambda self: self.events)
    @rule(data=st.data(), table=st.sampled_from(["content", "event"]), limit=st.integers(1, 4))
    def a_step(self, data: st.DataObject, table: Literal["content", "event"], limit: int) -> None:
        """Of any events at all, however young: what is owed must not depend on somebody's arithmetic of days."""
        ids = data.draw(st.lists(st.sampled_from(self.events), min_size=1, max_size=4, unique=True))
        self.pruned(self.store.prune(PruneStep(table=table, events=ids, limit=limit)))

    @rule(
        table=st.sampled_from(["dedupe", "receipt", "repair", "run"]), days=st.integers(-1, 20), limit=st.integers(1, 3)
    )
    def ended(self, table: Any, days: int, limit: int) -> None:
        step = PruneStep(table=table, before=self.desk.now - days * DAY, limit=limit)
        assert self.pruned(self.store.prune(step)).rows[table] <= limit

    @rule()
    def everything_old(self) -> None:
        """A pass takes what it said it would, and leaves nothing old but what is owed."""
        while self.run(self.store.place_events(1000)):
            pass
        foretold = self.run(self.pruner.would_go())
        done = {table: n for table, n in self.pruned(self.pruner.one_pass()).items() if n}
        if "day" not in done:  # PostgreSQL drops a whole day as one thing, and counts it so
            assert done == foretold
        assert self.run(self.pruner.would_go()) == {}
        owing = f"SELECT event_id FROM queue UNION {FANNING}"
        for table, key, days in (("event", "id", HISTORY_DAYS), ("content", "event_id", CONTENT_DAYS)):
            bound = id_at((self.desk.now // DAY - days) * DAY)[:6]
            left = self.run(
                self.store.read(f"SELECT count(*) FROM {table} WHERE {key} < ? AND {key} NOT IN ({owing})", (bound,))
            )
            assert left == [(0,)]


def drive(new_store: Callable[[Path, StandingClock], Store], examples: int) -> None:
    machine = type("History", (History,), {"new_store": staticmethod(new_store)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_nothing_owed_is_ever_pruned_on_sqlite(empty_sqlite: Path) -> None:
    def new_store(folder: Path, clock: StandingClock) -> Store:
        shutil.copy(empty_sqlite, folder / "unionhub.db")
        return SqliteStore(folder / "unionhub.db", breaker=NO_BREAKER, synchronous="OFF", clock=clock)

    drive(new_store, 60)


@pytest.mark.postgres
def test_nothing_owed_is_ever_pruned_on_postgres(postgres_server: Server) -> None:
    from hub.store.postgres import PostgresStore

    template = postgres_server.template("migrated", migrated)
    made: list[str] = []

    def new_store(folder: Path, clock: StandingClock) -> Store:
        made.append(postgres_server.create_database(template))
        return PostgresStore(postgres_server.dsn(made[-1]), breaker=NO_BREAKER)

    try:
        drive(new_store, 6)
    finally:
        for name in made:
            postgres_server.drop_database(name)
