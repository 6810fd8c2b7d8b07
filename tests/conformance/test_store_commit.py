"""Units of work: what commits together, what fails alone, and what a repeat adds (nothing)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import bindparam, text

from hub.contract import Guard
from hub.errors import Conflict, IdempotencyConflict
from hub.model import State, new_id
from hub.sql import Statement, query
from hub.store.base import BatchRow, CommitReport, Store, Unit
from tests.ledger import Desk, fact, owed, settlement

CREATE = query(text("CREATE TABLE probe (name TEXT PRIMARY KEY, n INTEGER NOT NULL)"))
INSERT = query(text("INSERT INTO probe (name, n) VALUES (:name, :n)"))
BUMP = query(text("UPDATE probe SET n = n + 1 WHERE name = :name AND n = :seen"))
READ = query(text("SELECT name, n FROM probe ORDER BY name").bindparams())
ONE = query(text("SELECT n FROM probe WHERE name = :name").bindparams(bindparam("name")))


@pytest.fixture
async def probe(store: Store) -> Store:
    await store.commit(Unit(statements=[CREATE(), INSERT(name="x", n=0)]))
    return store


def bump(seen: int, otherwise: str = "moved") -> Guard:
    return Guard(BUMP(name="x", seen=seen), otherwise=otherwise)


def put(name: str, n: int = 0) -> Statement:
    return INSERT(name=name, n=n)


async def test_guards_statements_drafts_and_deliveries_become_true_together(probe: Store, desk: Desk) -> None:
    draft = fact("k", desk.now, ["a", "b"])
    extra = fact("k2", desk.now)
    more = owed(extra.event[0], "c", desk.now)
    report = await probe.commit(Unit(guards=[bump(0)], statements=[put("y")], drafts=[draft, extra], deliveries=[more]))
    assert report == CommitReport([(draft.event[0], False), (extra.event[0], False)])
    assert await probe.fetch(READ()) == [("x", 1), ("y", 0)]
    assert sorted(j.destination for j in await desk.claim()) == ["a", "b", "c"]


async def test_a_failed_guard_undoes_its_unit_and_says_why(probe: Store, desk: Desk) -> None:
    with pytest.raises(Conflict) as caught:
        await probe.commit(
            Unit(guards=[bump(0), bump(0, "second")], statements=[put("y")], drafts=[fact("k", desk.now, ["a"])])
        )
    assert caught.value.otherwise == "second"
    assert await probe.fetch(READ()) == [("x", 0)]
    assert await probe.read("SELECT count(*) FROM event") == [(0,)]
    assert await desk.claim() == []


async def test_a_guard_that_breaks_a_unique_key_is_a_failed_guard(probe: Store) -> None:
    with pytest.raises(Conflict) as caught:
        await probe.commit(Unit(guards=[Guard(put("x"), otherwise="same_recipient")]))
    assert caught.value.otherwise == "same_recipient"


async def test_a_guard_counts_rows_exactly(probe: Store) -> None:
    await probe.commit(Unit(guards=[Guard(BUMP(name="nobody", seen=0), rows=0)]))
    with pytest.raises(Conflict):
        await probe.commit(Unit(guards=[Guard(BUMP(name="x", seen=0), rows=2)]))


async def test_units_that_fail_leave_the_others_of_their_group_standing(probe: Store, desk: Desk) -> None:
    """Submitted at once, so that they share a group: bad ones first, in the middle and last."""
    units = []
    for i in range(60):
        bad = {0: bump(99), 30: Guard(put("x")), 59: bump(99)}.get(i)
        guards = [] if bad is None else [bad]
        units.append(Unit(guards=guards, statements=[put(f"n{i:02}")], drafts=[fact(f"k{i}", desk.now, ["a"])]))
    results = await asyncio.gather(*(probe.commit(u) for u in units), return_exceptions=True)
    failed = [i for i, r in enumerate(results) if isinstance(r, Conflict)]
    assert failed == [0, 30, 59]
    assert len(await probe.fetch(READ())) == 1 + 57
    await probe.place_events(100)
    assert await probe.read("SELECT count(*), max(position) FROM event") == [(57, 57)]


async def test_a_statement_that_fails_undoes_its_unit_only(probe: Store, desk: Desk) -> None:
    bad = Unit(drafts=[fact("bad", desk.now, ["a"])], statements=[put("y"), put("y")])
    good = Unit(drafts=[fact("good", desk.now, ["a"])])
    results = await asyncio.gather(probe.commit(good), probe.commit(bad), return_exceptions=True)
    assert isinstance(results[0], CommitReport) and isinstance(results[1], Exception)
    assert await probe.fetch(READ()) == [("x", 0)]
    assert len(await desk.claim()) == 1


async def test_wrong_sql_is_not_called_busy(probe: Store) -> None:
    """Busy means: try again. A misspelt table would be tried for ever."""
    with pytest.raises(Exception, match=r"no such table|does not exist") as caught:
        await probe.commit(Unit(statements=[query(text("DELETE FROM nowhere"))()]))
    assert getattr(caught.value, "may_retry", False) is False


async def test_only_one_of_many_compare_and_sets_wins(probe: Store) -> None:
    results = await asyncio.gather(*(probe.commit(Unit(guards=[bump(0)])) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(r, CommitReport) for r in results) == 1
    assert await probe.fetch(ONE(name="x")) == [(1,)]


# -- repeats -----------------------------------------------------------------------------------------


async def test_a_repeated_draft_adds_nothing_and_lets_the_unit_stand(probe: Store, desk: Desk) -> None:
    first = fact("k", desk.now, ["a"])
    await desk.commit(first)
    again, fresh = fact("k", desk.now, ["a", "b"]), fact("k2", desk.now)
    report = await probe.commit(Unit(statements=[put("y")], drafts=[again, fresh]))
    assert report.events == [(first.event[0], True), (fresh.event[0], False)]
    assert await probe.fetch(READ()) == [("x", 0), ("y", 0)]
    assert [j.id for j in await desk.claim()] == [first.deliveries[0].id]


async def test_the_same_draft_value_committed_again_is_a_repeat(desk: Desk) -> None:
    """A caller that never heard the answer sends the very same value once more."""
    draft = fact("k", desk.now, ["a"])
    await desk.commit(draft)
    report = await desk.commit(draft, fact("other", desk.now))
    assert report.events[0] == (draft.event[0], True)
    assert len(await desk.claim()) == 1


async def test_a_repeat_within_one_unit_is_found(desk: Desk) -> None:
    one, two = fact("k", desk.now, ["a"]), fact("k", desk.now, ["a"])
    assert (await desk.commit(one, two)).events == [(one.event[0], False), (one.event[0], True)]
    assert len(await desk.claim()) == 1


async def test_the_same_key_with_another_content_rolls_the_unit_back(probe: Store, desk: Desk) -> None:
    await desk.commit(fact("k", desk.now))
    other = fact("k", desk.now, ["a"], content=b'{"other":1}')
    with pytest.raises(IdempotencyConflict):
        await probe.commit(Unit(statements=[put("y")], drafts=[fact("k2", desk.now, ["a"]), other]))
    assert await probe.fetch(READ()) == [("x", 0)]
    assert await probe.read("SELECT count(*) FROM event") == [(1,)]
    assert await desk.claim() == []


async def test_a_used_key_of_another_source_is_another_key(desk: Desk) -> None:
    draft = fact("k", desk.now)
    other = fact("k", desk.now, content=b'{"x":1}')
    elsewhere = type(other)(other.event, other.content, ("//elsewhere", *other.dedupe[1:]), other.deliveries)
    await desk.commit(draft)
    assert (await desk.commit(elsewhere)).events == [(other.event[0], False)]


async def test_a_delivery_is_owed_once_per_event_destination_recipient_and_generation(desk: Desk) -> None:
    draft = fact("k", desk.now, ["a"])
    await desk.commit(draft)
    with pytest.raises(Exception, match=r"(?i)unique"):
        await desk.store.commit(Unit(deliveries=[owed(draft.event[0], "a", desk.now)]))
    assert len(await desk.claim()) == 1


# -- the feed ----------------------------------------------------------------------------------------


async def test_a_rolled_back_unit_leaves_no_gap_in_the_positions(probe: Store, desk: Desk) -> None:
    """The books are checked after each test: positions 1, 2, 3, ..."""
    for i in range(3):
        doomed = Unit(drafts=[fact(f"d{i}-{n}", desk.now) for n in range(5)], guards=[], statements=[put("x")])
        kept = Unit(drafts=[fact(f"k{i}", desk.now)])
        await asyncio.gather(probe.commit(kept), probe.commit(doomed), return_exceptions=True)
    assert await probe.read("SELECT count(*) FROM event") == [(3,)]


# -- what else travels in a unit ---------------------------------------------------------------------


async def test_a_unit_may_settle_a_delivery_and_a_late_one_undoes_it_all(probe: Store, desk: Desk) -> None:
    """A handler's rows, its drafts and the end of its own delivery: once, or not at all."""
    await desk.owe("a")
    job = await desk.claim_one()
    done = settlement(job, State.DELIVERED)
    unit = Unit(statements=[put("y")], drafts=[fact("follow", desk.now, ["b"])], settlement=done)
    await probe.commit(unit)
    assert await desk.state(job.id) == "delivered"
    with pytest.raises(Conflict) as caught:
        await probe.commit(Unit(statements=[put("z")], drafts=[fact("again", desk.now, ["b"])], settlement=done))
    assert caught.value.otherwise == "late"
    assert await probe.fetch(READ()) == [("x", 0), ("y", 0)]


async def test_a_success_that_settles_in_a_unit_closes_the_breaker_like_any_other(desk: Desk) -> None:
    for _ in range(2):
        await desk.owe("a")
        await desk.retry_later(await desk.claim_one(), after_s=1000, health=1)
    await desk.owe("a")
    done = settlement(await desk.claim_one(), State.DELIVERED, health=-1)
    await desk.store.commit(Unit(settlement=done))
    assert await desk.store.read("SELECT failures FROM destination WHERE id = 'a'") == [(0,)]


async def test_an_audience_makes_a_batch_and_a_run_with_its_event(desk: Desk) -> None:
    draft = fact("k", desk.now)
    batch = BatchRow(new_id().bytes, draft.event[0], b"{}", new_id().bytes, desk.now)
    draft = type(draft)(draft.event, draft.content, draft.dedupe, (), batch)
    await desk.commit(draft)
    await desk.commit(draft)
    run = await desk.store.claim_run(desk.boot, desk.now)
    assert run is not None and (run.kind, run.object) == ("fan_out", batch.id.hex())
    assert await desk.store.claim_run(desk.boot, desk.now) is None
    assert await desk.store.read("SELECT state FROM batch") == [("freezing",)]


async def test_drafts_of_many_callers_at_once_are_each_new_a_repeat_or_refused(store: Store, desk: Desk) -> None:
    """Units of drafts alone are written as one where all are new; one that is not leaves the others as they were."""
    first = fact("known", desk.now, ["a"])
    await store.commit(Unit(drafts=[first]))
    fresh = [fact(f"k{n}", desk.now, ["a"]) for n in range(20)]
    again, other = fact("known", desk.now, ["a"]), fact("known", desk.now, ["a"], content=b"[]")
    units = [Unit(drafts=[each]) for each in (*fresh[:10], again, other, *fresh[10:])]
    answers = await asyncio.gather(*(store.commit(unit) for unit in units), return_exceptions=True)
    assert isinstance(answers.pop(11), IdempotencyConflict)
    assert answers.pop(10) == CommitReport([(first.event[0], True)])
    assert answers == [CommitReport([(each.event[0], False)]) for each in fresh]
    assert len(await desk.claim(limit=50)) == 21
    assert await store.read("SELECT count(*) FROM event") == [(21,)]


async def test_callers_that_made_the_same_key_share_it_and_one_that_made_another_hears_of_it(
    store: Store, desk: Desk
) -> None:
    mine, others = ("m-1", b"wrapped", 1), ("m-1", b"made by another process", 2)
    drafts = [replace(fact(f"k{n}", desk.now), keys=[mine]) for n in range(4)]
    late = replace(fact("late", desk.now), keys=[others])
    await asyncio.gather(*(store.commit(Unit(drafts=[each])) for each in drafts))
    assert await store.subject_keys(["m-1"]) == {"m-1": b"wrapped"}
    answers = await asyncio.gather(
        store.commit(Unit(drafts=[fact("beside", desk.now)])),
        store.commit(Unit(drafts=[late])),
        store.commit(Unit(keys=[others], statements=[])),
        return_exceptions=True,
    )
    assert [getattr(each, "otherwise", "") for each in answers] == ["", "key_race", "key_race"]
    assert await store.read("SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM dedupe)") == [(5, 5)]
