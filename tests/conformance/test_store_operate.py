"""Beside the hot path: replay, a person's word, runs, configuration, repairs, keys and projections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hub.commit import delivery_id
from hub.errors import AlreadyRunning, ConfigError
from hub.model import State, new_id
from hub.retry import SECOND
from hub.store.base import BatchRow, ConnectionRow, DestinationRow, RunRow, Store, Unit
from hub.testing import StandingClock
from tests.conformance.test_store_commit import CREATE, put
from tests.ledger import UNRESOLVED_S, Desk, fact

# -- replay and resolve ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.DELIVERED, State.DEAD, State.CANCELLED])
async def test_a_replay_is_the_next_generation_and_the_old_one_stays(desk: Desk, state: State) -> None:
    id = await desk.owe_one(expires_at=desk.now + 3600 * SECOND)
    await desk.settle(await desk.claim_one(), state, "r")
    event = (await desk.row(id))["event_id"]
    for generation in (1, 2):
        following = delivery_id(event, "a", "", generation)
        assert await desk.store.replay(id, following, desk.now) == following
        job = await desk.claim_one()
        assert (job.id, job.tries, job.lease_no, job.expires_at) == (following, 0, 1, None)
        assert (await desk.row(following))["generation"] == generation
        await desk.settle(job, State.DELIVERED)
    assert (await desk.row(id))["state"] == state


async def test_an_unsettled_delivery_is_not_replayed(desk: Desk) -> None:
    id = await desk.owe_one()
    following = new_id().bytes
    assert await desk.store.replay(id, following, desk.now) is None
    job = await desk.claim_one()
    assert await desk.store.replay(id, following, desk.now) is None
    await desk.lose_track(job)
    assert await desk.store.replay(id, following, desk.now) is None
    assert await desk.store.replay(new_id().bytes, following, desk.now) is None


async def test_a_replay_waits_behind_whoever_has_its_key(desk: Desk) -> None:
    key = b"key-of-order-123"
    first = await desk.owe_one(order_key=key)
    await desk.settle(await desk.claim_one(), State.DEAD, "refused")
    second = await desk.owe_one(order_key=key)
    following = delivery_id((await desk.row(first))["event_id"], "a", "", 1)
    await desk.store.replay(first, following, desk.now)
    assert await desk.state(following) == "waiting"
    job = await desk.claim_one()
    assert job.id == second
    await desk.settle(job, State.DELIVERED)
    assert (await desk.claim_one()).id == following


@pytest.mark.parametrize(
    ("verdict", "expected"), [("delivered", "delivered(resolved:why)"), ("failed", "dead(resolved:why)")]
)
async def test_a_person_ends_an_unknown_delivery(desk: Desk, verdict: str, expected: str) -> None:
    id = await desk.owe_one()
    await desk.lose_track(await desk.claim_one())
    assert await desk.store.resolve(id, verdict, "why", desk.now)
    assert await desk.state(id) == expected
    assert not await desk.store.resolve(id, verdict, "again", desk.now)


async def test_a_person_has_an_unknown_delivery_sent_again(desk: Desk) -> None:
    id = await desk.owe_one(expires_at=desk.now + SECOND)
    await desk.lose_track(await desk.claim_one())
    desk.clock.advance(3600)
    assert await desk.store.resolve(id, "resend", "why", desk.now)
    await desk.sweep()
    job = await desk.claim_one()
    assert (job.id, job.lease_no) == (id, 2)


@pytest.mark.parametrize("verdict", ["delivered", "failed", "resend"])
async def test_nobodys_word_moves_what_is_not_unknown(desk: Desk, verdict: str) -> None:
    ids = [await desk.owe_one() for _ in range(5)]
    jobs = await desk.claim()
    await desk.settle(jobs[0], State.DELIVERED)
    await desk.settle(jobs[1], State.DEAD, "refused")
    await desk.retry_later(jobs[2])
    await desk.accept(jobs[3], "r1")
    before = [await desk.state(id) for id in ids]
    for id in (*ids, new_id().bytes):
        assert not await desk.store.resolve(id, verdict, "why", desk.now)
    assert [await desk.state(id) for id in ids] == before


# -- runs --------------------------------------------------------------------------------------------


async def finish(desk: Desk, state: str = "done", reason: str = "") -> RunRow:
    run = await desk.store.claim_run(desk.boot, desk.now)
    assert run is not None
    await desk.store.finish_run(run, state, reason, desk.now)
    return run


async def test_a_slot_is_one_run_however_often_it_is_written(desk: Desk) -> None:
    made = await asyncio.gather(*(desk.store.due_run("pull", "a", 7, desk.now) for _ in range(5)))
    assert sorted(made) == [False] * 4 + [True]
    assert (await finish(desk)).slot == 7
    assert not await desk.store.due_run("pull", "a", 7, desk.now)
    assert await desk.store.due_run("pull", "a", 8, desk.now)


async def test_no_second_run_of_the_same_object_beside_an_open_one(desk: Desk) -> None:
    assert await desk.store.due_run("pull", "a", 1, desk.now)
    assert not await desk.store.due_run("pull", "a", 2, desk.now)
    assert await desk.store.due_run("pull", "b", 2, desk.now)
    run = await desk.store.claim_run(desk.boot, desk.now)
    assert run is not None and not await desk.store.due_run("pull", run.object, 3, desk.now)
    await desk.store.finish_run(run, "failed", "unreachable", desk.now)
    assert await desk.store.due_run("pull", run.object, 3, desk.now)


async def test_a_failed_fan_out_is_gone_on_with_since_nothing_else_would(desk: Desk) -> None:
    draft = fact("k", desk.now)
    batch = BatchRow(new_id().bytes, draft.event[0], b"{}", new_id().bytes, desk.now)
    await desk.commit(type(draft)(draft.event, draft.content, draft.dedupe, (), batch))
    failed = await finish(desk, "failed", "busy")
    assert await desk.repairs() == [("fan_out_failed", batch.id.hex())]
    assert await desk.store.claim_run(desk.boot, desk.now) is None
    desk.clock.advance(60)
    assert (await finish(desk)).id == failed.id
    assert await desk.repairs() == []
    desk.clock.advance(600)
    assert await desk.store.claim_run(desk.boot, desk.now) is None


# -- configuration -----------------------------------------------------------------------------------


async def paused(store: Store) -> dict[str, str]:
    sql = (
        "SELECT name, paused_by FROM connection WHERE paused_by IS NOT NULL"
        " UNION ALL SELECT id, paused_by FROM destination WHERE paused_by IS NOT NULL"
    )
    return dict(await store.read(sql))  # type: ignore[arg-type]


async def test_a_connection_without_a_file_is_paused_with_a_repair_until_it_is_back(desk: Desk) -> None:
    await desk.owe("a")
    await desk.configure("b", "c")
    desk.destinations.append("a")
    assert await paused(desk.store) == {"a": "file"}
    assert await desk.repairs() == [("connection_file_gone", "a")]
    assert await desk.claim() == []
    await desk.configure("a", "b", "c")
    assert await paused(desk.store) == {} and await desk.repairs() == []
    assert len(await desk.claim()) == 1


async def test_a_destination_that_left_its_connection_is_paused_with_a_repair_too(desk: Desk) -> None:
    await desk.configure("p/one", "p/two")
    await desk.owe("p/two")
    await desk.configure("p/one")
    assert (await paused(desk.store))["p/two"] == "file"
    assert ("destination_file_gone", "p/two") in await desk.repairs()
    assert (await desk.look()).next_at == 2**62
    await desk.configure("p/one", "p/two")
    assert len(await desk.claim()) == 1


async def test_configuring_again_keeps_what_an_operator_paused_and_what_is_owed(desk: Desk) -> None:
    await desk.owe("a", "b")
    await desk.store.pause("connection", "a", "operator", "maintenance", desk.now)
    await desk.store.pause("destination", "b", "operator", "maintenance", desk.now)
    await desk.configure("a", "b", "c")
    assert await paused(desk.store) == {"a": "operator", "b": "operator"}
    assert await desk.claim() == []


async def test_a_new_pace_counts_from_the_next_claim(desk: Desk) -> None:
    await desk.configure("a", rates={"a": 250_000})
    for _ in range(10):
        await desk.owe("a")
    assert len(await desk.claim()) == 4
    await desk.configure("a")
    assert len(await desk.claim()) == 6


async def test_projections_are_kept_for_ever(desk: Desk) -> None:
    assert await desk.store.keep_projections({b"1": b"[]", b"2": b'["a"]'}) == {b"1": b"[]", b"2": b'["a"]'}
    kept = await desk.store.keep_projections({b"1": b"other", b"3": b"[]"})
    assert kept == {b"1": b"[]", b"2": b'["a"]', b"3": b"[]"}


async def test_keys_of_subjects_are_read_in_any_number_and_without_the_erased(desk: Desk) -> None:
    from sqlalchemy import text

    from hub.sql import query

    keep = query(text("INSERT INTO subject_key (subject, wrapped, created_at) VALUES (:subject, :wrapped, 1)"))
    subjects = [f"m-{i}" for i in range(700)]
    values = [keep(subject=s, wrapped=None if s == "m-3" else s.encode()) for s in subjects]
    await desk.store.commit(Unit(statements=values))
    found = await desk.store.subject_keys([*subjects[:500], "nobody"])
    assert found == {s: s.encode() for s in subjects[:500] if s != "m-3"}


async def test_one_repair_is_open_per_kind_and_object(desk: Desk) -> None:
    for detail in ("one", "two"):
        await desk.store.open_repair("kind", "x", detail, desk.now)
    await desk.store.open_repair("kind", "y", "", desk.now)
    assert await desk.repairs() == [("kind", "x"), ("kind", "y")]
    await desk.store.clear_repair("kind", "x", desk.now)
    await desk.store.clear_repair("kind", "nobody", desk.now)
    assert await desk.repairs() == [("kind", "y")]
    await desk.store.open_repair("kind", "x", "again", desk.now)
    assert await desk.repairs() == [("kind", "y"), ("kind", "x")]


# -- opening and closing -----------------------------------------------------------------------------


async def test_what_was_committed_is_there_after_closing_and_opening(
    make_store: Callable[..., Store], clock: StandingClock
) -> None:
    for n in range(3):
        store = make_store()
        await store.open()
        desk = Desk(store, clock, keys=n)
        await desk.configure("a")
        await desk.owe("a")
        assert await store.held() is None
        assert await store.read("SELECT count(*) FROM event") == [(n + 1,)]
        await store.close()


async def test_a_second_process_is_refused_with_the_pid_of_the_first(
    store: Store, make_store: Callable[..., Store]
) -> None:
    import os

    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        await make_store().open()
    await store.commit(Unit(statements=[CREATE(), put("still here")]))


async def test_the_key_of_another_installation_is_refused(make_store: Callable[..., Store]) -> None:
    store = make_store()
    await store.open()
    await store.close()
    with pytest.raises(ConfigError, match="copy the key file"):
        await make_store(key_fingerprint=b"another").open()
    again = make_store()
    await again.open()
    await again.close()


async def test_a_store_that_is_closing_refuses_with_busy_and_keeps_what_it_took(
    make_store: Callable[..., Store], clock: StandingClock
) -> None:
    store = make_store()
    await store.open()
    desk = Desk(store, clock)
    taken = [asyncio.create_task(desk.commit(fact(f"k{i}", desk.now))) for i in range(50)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(store.close())
    await asyncio.gather(*taken)
    await closing
    with pytest.raises(Exception, match="closing"):
        await desk.commit(fact("too late", desk.now))
    again = make_store()
    await again.open()
    assert await again.read("SELECT count(*) FROM event") == [(50,)]
    await again.close()


async def test_configuration_of_a_connection_may_change_its_type(store: Store) -> None:
    await store.configure([ConnectionRow("a", "one")], [DestinationRow("a", "a", 0)])
    await store.configure([ConnectionRow("a", "two")], [DestinationRow("a", "a", 0)])
    assert await store.read("SELECT type FROM connection") == [("two",)]


async def test_unresolved_after_is_counted_from_the_moment_it_became_unknown(desk: Desk) -> None:
    id = await desk.owe_one()
    desk.clock.advance(1000)
    await desk.lose_track(await desk.claim_one())
    desk.clock.advance(UNRESOLVED_S - 1)
    assert await desk.sweep() == 0 and await desk.state(id) == "unknown(no_answer)"
