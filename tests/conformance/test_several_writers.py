"""What only several writers can get wrong: each race brought about by holding one of them at a chosen statement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from hub.contract import Guard
from hub.errors import Conflict, IdempotencyConflict
from hub.model import State, new_id
from hub.retry import SECOND
from hub.sql import query
from hub.store.base import CommitReport, Job, ReceiptRow, Settlement, Unit
from hub.testing import StandingClock, eventually
from tests.conformance.several import Node, several
from tests.conformance.wire import Stop
from tests.ledger import BREAKER, UNRESOLVED_S, Desk, fact, settlement

pytestmark = pytest.mark.postgres

KEY = b"key-of-order-123"
SPACING = 103_092
LOCK = b"pg_advisory_xact_lock"


class Race:
    """Holds what the first node does at a statement while the second does something, then lets it go on."""

    def __init__(self, one: Node, two: Node) -> None:
        self.one, self.two = one, two

    async def run(self, first: Awaitable[Any], at: bytes, second: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
        """The second is done, or waits for the first, before the first goes on; answers what both answered."""
        stop = Stop(self.one.wire, at)
        held = asyncio.ensure_future(first)
        await asyncio.wait([held, reached := asyncio.create_task(stop.reached.wait())], return_when="FIRST_COMPLETED")
        assert reached.done(), "the statement never came"
        beside = asyncio.ensure_future(second())
        await eventually(lambda: beside.done() or self._waits())
        stop.released.set()
        async with asyncio.timeout(20):
            return tuple(await asyncio.gather(held, beside, return_exceptions=True))  # type: ignore[return-value]

    async def _waits(self) -> bool:
        """Whether a session waits for a lock of another."""
        [(count,)] = await self.two.store.read(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(count)


@pytest.fixture
async def nodes(ledger_dsn: str, clock: StandingClock) -> AsyncIterator[list[Node]]:
    async with several(ledger_dsn, clock, 2) as nodes:
        yield nodes


@pytest.fixture
def race(nodes: list[Node]) -> Race:
    return Race(nodes[0], nodes[1])


# -- what is due is never forgotten ------------------------------------------------------------------


async def test_a_delivery_that_is_being_owed_while_a_claim_empties_its_destination_is_found(race: Race) -> None:
    """The claim sees nothing of it and says so on the destination's row; the unit must have the last word."""
    await race.two.desk.owe("a")
    owing, claimed = await race.run(race.one.desk.owe_one(), b"least(next_due_at", race.two.desk.claim)
    assert len(claimed) == 1
    assert [j.id for j in await race.two.desk.claim()] == [owing]


async def test_a_destination_that_another_unit_holds_is_passed_over_and_asked_again_at_once(race: Race) -> None:
    _, looked = await race.run(race.one.desk.owe_one(), b"COMMIT\0", race.two.desk.look)
    assert looked.jobs == [] and looked.next_at in (2**62, race.two.desk.now)
    await race.two.desk.owe("b")
    assert {j.destination for j in await race.two.desk.claim()} == {"a", "b"}


async def test_a_retry_that_is_put_back_while_a_claim_empties_its_destination_is_found(race: Race) -> None:
    id = await race.one.desk.owe_one()
    job = await race.one.desk.claim_one()
    other = await race.two.desk.owe_one()
    said, claimed = await race.run(race.one.desk.retry_later(job), b"least(next_due_at", race.two.desk.claim)
    assert said and [j.id for j in claimed] == [other]
    assert [j.id for j in await race.two.desk.claim()] == [id]


# -- claims ------------------------------------------------------------------------------------------


async def test_what_one_node_is_claiming_no_other_gets(race: Race) -> None:
    ids = {await race.one.desk.owe_one() for _ in range(5)}
    mine, theirs = await race.run(race.one.desk.claim(limit=3), b"COMMIT\0", race.two.desk.claim)
    assert len(mine) == 3 and theirs == []
    rest = await race.two.desk.claim()
    assert {j.id for j in mine} | {j.id for j in rest} == ids and len(rest) == 2


async def test_two_claims_that_saw_the_same_destination_due_share_nothing(race: Race) -> None:
    """The second has looked for due destinations already when the first takes all there is."""
    ids = {await race.one.desk.owe_one() for _ in range(5)}
    late, early = await race.run(race.one.desk.claim(), b"FOR UPDATE OF d SKIP LOCKED", race.two.desk.claim)
    assert {j.id for j in early} == ids and late == []


async def test_one_probe_asks_for_all_nodes(race: Race) -> None:
    """Both saw the breaker's pause over; one of them may ask whether the partner is back."""
    for _ in range(BREAKER.failures):
        await race.one.desk.owe("a")
    jobs = await race.one.desk.claim()
    said = [settlement(j, State.PENDING, "down", due_us=race.one.desk.now, health=1) for j in jobs]
    assert all(await race.one.store.settle(said, race.one.desk.now))
    race.one.desk.clock.advance(BREAKER.first_s)
    late, early = await race.run(race.one.desk.claim(), b"FOR UPDATE OF d SKIP LOCKED", race.two.desk.claim)
    assert len(early) == 1 and early[0].breaker_open and late == []


async def test_one_that_was_in_flight_at_a_crash_is_taken_by_one_node(race: Race) -> None:
    await race.one.desk.owe("a")
    await race.one.desk.claim()
    await race.one.desk.crash()
    late, early = await race.run(race.one.desk.claim(), b"FOR UPDATE OF d SKIP LOCKED", race.two.desk.claim)
    assert len(early) == 1 and early[0].crashes == 1 and late == []


# -- send instants -----------------------------------------------------------------------------------


async def paced(node: Node, count: int) -> None:
    await node.desk.configure("a", "b", "c", rates={"a": SPACING})
    await node.store.commit(Unit(drafts=[fact(f"p{i}", node.desk.now, ["a"]) for i in range(count)]))


@pytest.mark.parametrize("behind_s", [0.001, 0.05, 0.1, 0.5, 3.0])
async def test_a_claim_that_comes_late_or_whose_clock_is_behind_gets_no_instant_twice(
    nodes: list[Node], behind_s: float
) -> None:
    """It was asked for a little before the other, and waited for a lock meanwhile."""
    await paced(nodes[0], 40)
    earlier = Desk(nodes[1].store, StandingClock(), destinations=["a"])
    instants: list[int] = []
    for _ in range(4):
        instants += [j.send_at for j in await nodes[0].desk.claim()]
        earlier.clock.now = nodes[0].desk.clock.now
        earlier.clock.advance(-behind_s)
        instants += [j.send_at for j in await earlier.claim()]
        nodes[0].desk.clock.advance(0.3)
    gaps = [b - a for a, b in zip(sorted(instants), sorted(instants)[1:], strict=False)]
    assert len(instants) >= 18 and min(gaps) >= SPACING


async def test_instants_that_another_node_took_meanwhile_are_not_given_to_a_suspect(race: Race) -> None:
    await race.one.desk.owe("a")
    await race.one.desk.claim()
    await race.one.desk.crash()
    await paced(race.one, 20)
    fresh = race.two.desk.claim
    late, early = await race.run(
        race.one.desk.claim(limit=1), b"FOR UPDATE OF d SKIP LOCKED", lambda: fresh(suspect=False)
    )
    assert len(early) == 10 and late == []
    race.one.desk.clock.advance(1)
    [job] = await race.one.desk.claim(limit=1)
    assert job.crashes == 1 and job.send_at >= max(j.send_at for j in early) + SPACING


# -- order per key -----------------------------------------------------------------------------------


async def test_a_follower_that_is_being_owed_while_its_head_settles_is_not_stranded(race: Race) -> None:
    """It saw a head; whoever settles the head must see it."""
    await race.two.desk.owe("a", order_key=KEY)
    job = await race.two.desk.claim_one()
    follower, settled = await race.run(
        race.one.desk.owe_one(order_key=KEY), b"INSERT INTO queue", lambda: race.two.desk.settle(job, State.DELIVERED)
    )
    assert settled and await race.two.desk.state(follower) == "pending"


async def test_two_units_that_owe_the_first_of_a_key_at_once_make_one_head(race: Race) -> None:
    one, two = await race.run(
        race.one.desk.owe_one(order_key=KEY), b"INSERT INTO queue", lambda: race.two.desk.owe_one(order_key=KEY)
    )
    assert sorted([await race.one.desk.state(id) for id in (one, two)]) == ["pending", "waiting"]


async def test_a_head_that_expires_and_one_that_settles_promote_one_each(race: Race) -> None:
    ids = [
        await race.one.desk.owe_one(order_key=KEY, expires_at=race.one.desk.now + (SECOND if n == 1 else 10**12))
        for n in range(4)
    ]
    job = await race.one.desk.claim_one()
    race.one.desk.clock.advance(2)
    settled, swept = await race.run(
        race.one.desk.settle(job, State.DELIVERED), b"UPDATE queue SET state = 'pending'", race.two.desk.sweep
    )
    assert settled and swept == 1
    assert [await race.one.desk.state(id) for id in ids] == ["delivered", "dead(expired)", "pending", "waiting"]


async def test_a_person_who_ends_a_head_and_a_sweep_that_ends_it_promote_one(race: Race) -> None:
    ids = [await race.one.desk.owe_one(order_key=KEY) for _ in range(3)]
    await race.one.desk.lose_track(await race.one.desk.claim_one())
    race.one.desk.clock.advance(UNRESOLVED_S)
    now = race.one.desk.now
    resolved, swept = await race.run(
        race.one.store.resolve(ids[0], "delivered", "saw it", now), b"INSERT INTO delivery", race.two.desk.sweep
    )
    assert resolved and swept <= 1
    assert [await race.one.desk.state(id) for id in ids] == ["delivered(resolved:saw it)", "pending", "waiting"]


# -- receipts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [b"FROM receipt WHERE connection", b"COMMIT\0"])
async def test_a_receipt_that_comes_while_its_reference_is_being_recorded_is_matched(race: Race, at: bytes) -> None:
    """The one looks for parked receipts before the other is there, which found no reference."""
    id = await race.one.desk.owe_one()
    job = await race.one.desk.claim_one()
    await race.run(
        race.one.store.record_refs("a", id, ["r1"], 1),
        at,
        lambda: race.two.desk.receipt("r1", "delivered"),
    )
    assert await race.one.store.read("SELECT delivery_id FROM receipt") == [(id,)]
    await race.one.desk.lose_track(job)
    assert await race.one.desk.state(id) == "delivered"


@pytest.mark.parametrize("at", [b"INSERT INTO receipt", b"COMMIT\0"])
async def test_a_reference_that_is_recorded_while_its_receipt_comes_is_matched(race: Race, at: bytes) -> None:
    id = await race.two.desk.owe_one()
    job = await race.two.desk.claim_one()
    await race.run(race.one.desk.receipt("r1", "delivered"), at, lambda: race.two.desk.accept(job, "r1"))
    assert await race.one.desk.state(id) == "delivered"


@pytest.mark.parametrize("at", [b"SELECT state, reason, of_parts FROM provider_ref", b"COMMIT\0"])
async def test_receipts_of_two_parts_at_once_are_weighed_together(race: Race, at: bytes) -> None:
    """Each sees that the other part is still awaited, unless one of them waits."""
    id = await race.one.desk.owe_one()
    await race.one.desk.accept(await race.one.desk.claim_one(), "r1", "r2")
    await race.run(race.one.desk.receipt("r1", "delivered"), at, lambda: race.two.desk.receipt("r2", "delivered"))
    assert await race.one.desk.state(id) == "delivered"


async def test_the_same_receipt_at_two_nodes_counts_once(race: Race) -> None:
    id = await race.one.desk.owe_one()
    await race.one.desk.accept(await race.one.desk.claim_one(), "r1")
    await race.run(
        race.one.desk.receipt("r1", "delivered"), b"COMMIT\0", lambda: race.two.desk.receipt("r1", "delivered")
    )
    assert await race.one.desk.state(id) == "delivered"
    assert await race.one.store.read("SELECT count(*) FROM receipt") == [(1,)]


@pytest.mark.parametrize("held", ["accepted", "unknown"])
async def test_a_receipt_that_comes_while_a_sweep_gives_up_counts(race: Race, held: str) -> None:
    """The sweep has chosen its row already; the counters must not say that it moved what the receipt ended."""
    id = await race.one.desk.owe_one()
    job = await race.one.desk.claim_one()
    if held == "accepted":
        await race.one.desk.accept(job, "r1", within_s=10)
    else:
        await race.one.desk.lose_track(job, refs=("r1",), of_parts=1)
    race.one.desk.clock.advance(UNRESOLVED_S)
    await race.run(race.one.desk.sweep(), LOCK, lambda: race.two.desk.receipt("r1", "delivered"))
    assert await race.one.desk.state(id) == "delivered"


# -- crashes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.DELIVERED, State.DEAD, State.PENDING, State.UNKNOWN])
@pytest.mark.parametrize("at", [b"DELETE FROM queue", b"INSERT INTO attempt", b"COMMIT\0"])
async def test_a_node_given_up_for_dead_that_settles_after_all_is_believed_or_refused(
    race: Race, state: State, at: bytes
) -> None:
    """It was stopped past its lease, and goes on in the middle of the take-over."""
    if at == b"DELETE FROM queue" and state not in (State.DELIVERED, State.DEAD):
        return
    id = await race.one.desk.owe_one()
    job = await race.one.desk.claim_one()
    settled, freed = await race.run(race.one.desk.settle(job, state, "r"), at, race.two.desk.crash)
    attempts = await race.two.desk.attempts(id)
    row = await race.two.desk.row(id)
    if settled:
        assert (freed, row["state"], attempts) == (0, state, [state.value])
    else:
        assert (freed, row["state"], attempts) == (1, "pending", ["lost"])


async def test_a_settle_that_finds_its_delivery_being_taken_over_is_refused(race: Race) -> None:
    id = await race.two.desk.owe_one()
    job = await race.two.desk.claim_one()
    freed, settled = await race.run(
        race.one.desk.crash(), b"INSERT INTO attempt", lambda: race.two.desk.settle(job, State.DELIVERED)
    )
    assert (freed, settled) == (1, False)
    assert await race.one.desk.attempts(id) == ["lost"] and await race.one.desk.state(id) == "pending(crashed)"


async def test_two_nodes_that_take_over_at_once_free_each_delivery_once(race: Race) -> None:
    ids = [await race.one.desk.owe_one(order_key=KEY if n < 2 else None) for n in range(6)]
    jobs = await race.one.desk.claim()
    assert await race.one.store.start(jobs[-1].id, 1, b"sha", [])
    race.one.desk.boot = race.two.desk.boot = b""
    one, two = await race.run(race.one.desk.crash(), b"INSERT INTO attempt", race.two.desk.crash)
    assert (one, two) == (5, 0)
    assert [await race.one.desk.attempts(id) for id in ids if id in {j.id for j in jobs}] == [["lost"]] * 5


async def test_a_node_that_lives_keeps_its_leases_whoever_looks(nodes: list[Node]) -> None:
    one, two = nodes
    third, lease = b"boot-3", 30 * SECOND
    for node in nodes:
        await node.store.beat(node.desk.boot, "node", node.desk.now, node.desk.now + lease)
        await node.desk.owe("a")
        assert len(await node.desk.claim()) == 1
    one.desk.clock.advance(20)
    await one.store.beat(one.desk.boot, "node", one.desk.now, one.desk.now + lease)
    assert await two.store.take_over(third, one.desk.now) == 0
    one.desk.clock.advance(10)
    assert await two.store.take_over(third, one.desk.now) == 1
    assert await one.store.read("SELECT lease_owner FROM queue WHERE state = 'leased'") == [(one.desk.boot,)]


# -- what stands once --------------------------------------------------------------------------------


async def test_the_same_draft_at_two_nodes_stands_once(race: Race) -> None:
    draft = fact("k", race.one.desk.now, ["a", "b"])
    again = fact("k", race.one.desk.now, ["a", "b"])
    for value in (draft, again):
        one, two = await race.run(race.one.desk.commit(draft), b"COMMIT\0", lambda v=value: race.two.desk.commit(v))
        assert two.events == [(draft.event[0], True)]
    assert one.events == [(draft.event[0], True)]
    assert len(await race.one.desk.claim()) == 2


async def test_a_draft_whose_twin_is_undone_stands(race: Race) -> None:
    async def fails() -> object:
        unit = Unit(drafts=[fact("k", race.one.desk.now, ["a"])], statements=[query(text("DELETE FROM nowhere"))()])
        return await race.one.store.commit(unit)

    draft = fact("k", race.one.desk.now, ["a"])
    one, two = await race.run(fails(), b"nowhere", lambda: race.two.desk.commit(draft))
    assert isinstance(one, Exception) and two.events == [(draft.event[0], False)]


async def test_two_contents_under_one_key_at_two_nodes_are_told_apart(race: Race) -> None:
    other = fact("k", race.one.desk.now, ["a"], content=b'{"other":1}')
    one, two = await race.run(
        race.one.desk.commit(fact("k", race.one.desk.now, ["a"])), b"COMMIT\0", lambda: race.two.desk.commit(other)
    )
    assert isinstance(one, CommitReport) and isinstance(two, IdempotencyConflict)
    assert len(await race.one.desk.claim()) == 1


async def test_units_whose_drafts_cross_both_stand(race: Race) -> None:
    """Each has what the other wants: one gives way and is run again."""
    drafts = [fact(f"k{i}", race.one.desk.now, ["a"]) for i in range(2)]
    results = await asyncio.gather(
        *(node.desk.commit(*(drafts if n % 2 else drafts[::-1])) for n in range(20) for node in (race.one, race.two))
    )
    assert sum(not stood for report in results for _, stood in report.events) == 2
    assert len(await race.one.desk.claim()) == 2


async def test_one_of_two_compare_and_sets_at_two_nodes_wins(race: Race) -> None:
    create = query(text("CREATE TABLE probe (name TEXT PRIMARY KEY, n INTEGER NOT NULL)"))
    put = query(text("INSERT INTO probe (name, n) VALUES (:name, :n)"))
    bump = query(text("UPDATE probe SET n = n + 1 WHERE name = :name AND n = :seen"))
    await race.one.store.commit(Unit(statements=[create(), put(name="x", n=0)]))
    unit = Unit(guards=[Guard(bump(name="x", seen=0))], drafts=[fact("k", race.one.desk.now)])
    one, two = await race.run(race.one.store.commit(unit), b"COMMIT\0", lambda: race.two.store.commit(unit))
    assert isinstance(one, CommitReport) and isinstance(two, Conflict)
    assert await race.one.store.read("SELECT n FROM probe") == [(1,)]
    same = Unit(guards=[Guard(put(name="phone", n=0), otherwise="same_recipient")])
    one, two = await race.run(race.one.store.commit(same), b"COMMIT\0", lambda: race.two.store.commit(same))
    assert isinstance(one, CommitReport) and isinstance(two, Conflict) and two.otherwise == "same_recipient"


async def test_a_run_of_a_slot_is_written_and_taken_once(race: Race) -> None:
    now = race.one.desk.now
    made = await race.run(
        race.one.store.due_run("pull", "a", 7, now), b"COMMIT\0", lambda: race.two.store.due_run("pull", "a", 7, now)
    )
    assert made == (True, False)
    runs = await race.run(
        race.one.store.claim_run(b"one", now), b"COMMIT\0", lambda: race.two.store.claim_run(b"two", now)
    )
    assert [run is not None for run in runs] == [True, False]


async def test_what_one_process_does_at_a_time_has_one_holder(nodes: list[Node]) -> None:
    now, until = nodes[0].desk.now, nodes[0].desk.now + 30 * SECOND
    for name in ("leader", "session:a:0"):
        asked = [node.store.hold_lease(name, node.desk.boot, now, until) for _ in range(5) for node in nodes]
        answers = await asyncio.gather(*asked)
        assert sum(answers) == 5, "one of them, as often as it asks"


async def test_a_replay_at_two_nodes_is_owed_once(race: Race) -> None:
    id = await race.one.desk.owe_one()
    await race.one.desk.settle(await race.one.desk.claim_one(), State.DELIVERED)
    following, now = new_id().bytes, race.one.desk.now
    one, two = await race.run(
        race.one.store.replay(id, following, now), b"COMMIT\0", lambda: race.two.store.replay(id, following, now)
    )
    assert (one, two) == (following, None)
    assert len(await race.one.desk.claim()) == 1


async def test_two_people_resolve_one_delivery_once(race: Race) -> None:
    id = await race.one.desk.owe_one()
    await race.one.desk.lose_track(await race.one.desk.claim_one())
    now = race.one.desk.now
    for verdict in ("resend", "failed"):
        one, two = await race.run(
            race.one.store.resolve(id, verdict, "one", now),
            b"COMMIT\0",
            lambda v=verdict: race.two.store.resolve(id, v, "two", now),
        )
        assert (one, two) == (True, False)
        if verdict == "resend":
            await race.one.desk.lose_track(await race.one.desk.claim_one())
    assert await race.one.desk.state(id) == "dead(resolved:one)"


# -- hints -------------------------------------------------------------------------------------------


async def test_another_node_hears_that_something_became_due(nodes: list[Node]) -> None:
    heard = asyncio.Event()
    nodes[1].store.on_hint = heard.set

    async def owe() -> bool:
        await nodes[0].desk.owe("a")
        return heard.is_set()

    await eventually(owe)


# -- locks -------------------------------------------------------------------------------------------


def nobody_gave_way(nodes: list[Node]) -> bool:
    """Whether no unit had to be rolled back because two locked each other out."""
    return not any(b"ROLLBACK\0" in node.wire.said for node in nodes)


async def test_configuring_and_owing_cross_without_a_loss(nodes: list[Node]) -> None:
    """A node that starts puts the due times of all destinations right while others write them."""

    async def configure(node: Node) -> None:
        for _ in range(10):
            await node.desk.configure("c", "b", "a")

    async def owe(node: Node) -> None:
        for _ in range(20):
            await node.desk.owe("a", "c", "b")

    await asyncio.gather(configure(nodes[0]), configure(nodes[1]), owe(nodes[0]), owe(nodes[1]))
    claimed = await nodes[0].desk.claim(limit=1000, capacity=dict.fromkeys("abc", 1000))
    assert len(claimed) == 120


async def test_receipts_in_one_unit_that_cross_those_of_another_all_count(nodes: list[Node]) -> None:
    refs = []
    for n in range(6):
        await nodes[0].desk.owe("a", order_key=KEY)
        await nodes[0].desk.accept(await nodes[0].desk.claim_one(), f"r{n}")
        refs.append(f"r{n}")
    now = nodes[0].desk.now

    def unit(order: list[str], node: int) -> Unit:
        return Unit(receipts=[ReceiptRow(f"{node}{r}".encode(), "a", r, "delivered", "", now) for r in order])

    await asyncio.gather(
        *(nodes[n % 2].store.commit(unit(refs if n % 3 else refs[::-1], n)) for n in range(6)),
    )
    assert await nodes[0].store.read("SELECT state, count(*) FROM delivery GROUP BY state") == [("delivered", 6)]


async def test_failures_and_due_times_of_two_destinations_cross(race: Race) -> None:
    """What one unit says of a destination's health comes before what it says of another's due time, or after."""
    await race.one.desk.owe("a", "c")
    await race.one.desk.owe("a", "c")
    first, second = {}, {}
    for job in await race.one.desk.claim():
        (first if job.destination not in first else second)[job.destination] = job
    now = race.one.desk.now

    def batch(jobs: dict[str, Job], down: str) -> list[Settlement]:
        return [settlement(j, State.PENDING, "r", health=int(name == down), due_us=now) for name, j in jobs.items()]

    one, two = await race.run(
        race.one.store.settle(batch(first, "c"), now),
        b"least(next_due_at",
        lambda: race.two.store.settle(batch(second, "a"), now),
    )
    assert one == two == [True, True] and nobody_gave_way([race.one, race.two])
    found = await race.one.store.read("SELECT id, failures FROM destination WHERE failures > 0 ORDER BY id")
    assert found == [("a", 1), ("c", 1)]


async def test_a_sweep_and_a_receipt_that_need_the_same_locks_cross(race: Race) -> None:
    accepted = await race.one.desk.owe_one(order_key=KEY)
    await race.one.desk.accept(await race.one.desk.claim_one(), "r1", within_s=1)
    expired = await race.one.desk.owe_one(order_key=KEY, expires_at=race.one.desk.now + SECOND)
    last = await race.one.desk.owe_one(order_key=KEY)
    race.one.desk.clock.advance(1)
    await race.run(
        race.one.desk.receipt("r1", "delivered"), b"SELECT destination, order_key FROM queue", race.two.desk.sweep
    )
    states = [await race.one.desk.state(id) for id in (accepted, expired, last)]
    assert states == ["delivered", "dead(expired)", "pending"] and nobody_gave_way([race.one, race.two])


async def test_two_handlers_whose_drafts_follow_one_anothers_deliveries_cross(race: Race) -> None:
    keys = (b"key-one", b"key-two")
    for key in keys:
        await race.one.desk.owe("b", order_key=key)
    jobs = {job.order_key: job for job in await race.one.desk.claim()}
    units = [
        Unit(
            drafts=[fact(f"after-{n}", race.one.desk.now, ["b"], order_key=keys[1 - n])],
            settlement=settlement(jobs[key], State.DELIVERED),
        )
        for n, key in enumerate(keys)
    ]
    results = await race.run(
        race.one.store.commit(units[0]), b"INSERT INTO queue", lambda: race.two.store.commit(units[1])
    )
    assert all(isinstance(r, CommitReport) for r in results) and nobody_gave_way([race.one, race.two])
    assert len(await race.one.desk.claim()) == 2


async def test_a_claim_beside_a_unit_that_waits_holds_no_destination_meanwhile(race: Race) -> None:
    """Whoever the unit waits for may need that very row before it ends."""
    await race.one.desk.owe("a")
    await race.one.desk.owe("b", order_key=KEY)
    head = next(j for j in await race.one.desk.claim(capacity={"b": 1}))

    async def claim_and_owe() -> list[Any]:
        return await asyncio.gather(race.two.desk.claim(), race.two.desk.owe_one("b", order_key=KEY))

    settled, (claimed, follower) = await race.run(
        race.one.desk.settle(head, State.DELIVERED), b"COMMIT\0", claim_and_owe
    )
    assert settled and [j.destination for j in claimed] == ["a"]
    assert await race.one.desk.state(follower) == "pending"


# -- diversions --------------------------------------------------------------------------------------


async def test_what_one_node_moves_elsewhere_no_other_claims_there_and_the_other_way_round(race: Race) -> None:
    ids = [await race.one.desk.owe_one() for _ in range(3)]
    now = race.one.desk.now
    moving = race.one.desk.store.divert(ids[:2], "a", "b", now)
    moved, claimed = await race.run(moving, b"COMMIT\0", lambda: race.two.desk.claim(capacity={"a": 9}))
    assert moved == 2 and {j.id for j in claimed} <= {ids[2]}
    assert {j.id for j in await race.two.desk.claim(capacity={"b": 9})} == set(ids[:2])
    other = await race.one.desk.owe_one()
    late = race.one.desk.claim(capacity={"a": 9})
    jobs, moved = await race.run(late, b"COMMIT\0", lambda: race.two.desk.store.divert([other], "a", "b", now))
    assert other in {j.id for j in jobs} and moved == 0


async def test_two_nodes_that_move_the_same_move_each_once(race: Race) -> None:
    ids = [await race.one.desk.owe_one() for _ in range(4)]
    stores, now = (race.one.desk.store, race.two.desk.store), race.one.desk.now
    counts = await race.run(
        stores[0].divert(ids, "a", "b", now), b"COMMIT\0", lambda: stores[1].divert(ids[::-1], "a", "b", now)
    )
    assert sum(counts) == 4
    assert [await race.one.desk.attempts(id) for id in ids] == [["diverted"]] * 4


async def test_a_diverted_head_and_one_that_is_owed_there_under_its_key_make_one_head(race: Race) -> None:
    await race.one.desk.owe_one("a", order_key=KEY)
    job = await race.one.desk.claim_one()
    diverting = race.one.desk.settle(job, State.PENDING, spends_try=False, divert_to="b")
    moved, _ = await race.run(diverting, b"COMMIT\0", lambda: race.two.desk.owe_one("b", order_key=KEY))
    assert moved
    rows = await race.one.desk.store.read("SELECT destination, state FROM queue ORDER BY state")
    assert [tuple(row) for row in rows] == [("b", "pending"), ("b", "waiting")]
