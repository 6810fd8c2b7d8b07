"""What a node believes of itself: from answers that come, come late, or do not come, and from others' leases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from hub.clock import ServerClock, steady
from hub.nodes import LEADER, TRUST, Nodes
from hub.store.base import Store

LEASE_S = 0.9
SECOND = 1_000_000
NEVER = 2**62
OTHER = b"other"
HOUR_US = 3600 * SECOND


class Ledger:
    """The few words a node has with its ledger, in memory; ``ahead_us`` is how its clock is set."""

    shared = True

    def __init__(self) -> None:
        self.ahead_us = 1_700_000_000 * SECOND
        self.alive: dict[bytes, int] = {}
        self.leases: dict[str, tuple[bytes, int]] = {}
        self.asked: list[str] = []
        self.trouble: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.taken_over: list[bytes] = []

    async def _hear(self, what: str) -> None:
        await self.open.wait()
        self.asked.append(what)
        if self.trouble is not None:
            raise self.trouble

    def clock(self) -> int:
        return int(steady() * SECOND) + self.ahead_us

    async def now(self) -> int:
        await self._hear("now")
        return self.clock()

    async def beat(self, boot: bytes, name: str, now: int, until: int) -> int:
        await self._hear("beat")
        self.alive[boot] = until
        ends = [e for b, e in self.alive.items() if b != boot] + [e for o, e in self.leases.values() if o != boot]
        return min((e for e in ends if e > now), default=NEVER)

    async def hold_lease(self, name: str, owner: bytes, now: int, until: int) -> bool:
        await self._hear(f"hold {name}")
        holder, ends = self.leases.get(name, (owner, 0))
        if holder != owner and ends > now:
            return False
        self.leases[name] = (owner, until)
        return True

    async def drop_lease(self, name: str, owner: bytes) -> None:
        await self._hear(f"drop {name}")
        if self.leases.get(name, (b"", 0))[0] == owner:
            del self.leases[name]

    async def read(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        now, boot = parameters
        return [("other", b, end) for b, end in self.alive.items() if end <= now and b != boot]

    async def take_over(self, boot: bytes, now: int) -> int:
        await self._hear("take over")
        gone = [b for b, end in self.alive.items() if end <= now and b != boot]
        for each in gone:
            del self.alive[each]
        self.taken_over += gone
        return len(gone)

    async def place_events(self, limit: int) -> int:
        return 0

    async def leave(self, boot: bytes) -> None:
        await self._hear("leave")
        self.alive.pop(boot, None)


class Told:
    """What the node says to the hub."""

    def __init__(self) -> None:
        self.leads = 0
        self.freed = 0

    def on_lead(self) -> None:
        self.leads += 1

    def on_freed(self) -> None:
        self.freed += 1


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def node(ledger: Ledger, told: Told) -> Nodes:
    return Nodes(
        cast(Store, ledger), b"me", "me", ServerClock(), LEASE_S, on_freed=told.on_freed, on_lead=told.on_lead
    )  # fmt: skip


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    deadline = steady() + within_s
    while not condition():
        assert steady() < deadline
        await asyncio.sleep(0.005)


async def running(node: Nodes) -> asyncio.Task[None]:
    await node.join()
    return asyncio.create_task(node.run())


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_that_joined_is_good_and_the_only_one_leads(node: Nodes, told: Told) -> None:
    assert not node.good() and not node.leads()
    await node.join()
    assert node.good() and node.leads() and node.still_ours(node.term) and told.leads == 1


async def test_it_goes_on_as_long_as_it_is_heard(node: Nodes, ledger: Ledger) -> None:
    task = await running(node)
    await until(lambda: ledger.asked.count("beat") >= 12)  # two leases long
    assert node.good() and node.leads() and node.term == 1
    await end(task)


@pytest.mark.parametrize("silent", [True, False])
async def test_unheard_it_stops_trusting_itself_before_its_lease_ends(
    node: Nodes, ledger: Ledger, silent: bool
) -> None:
    task = await running(node)
    if silent:
        ledger.open.clear()  # nothing comes back
    else:
        ledger.trouble = ConnectionError()
    await until(lambda: not node.good() and not node.leads())
    # Its row still counts for the others then: two thirds of a lease are over, not three.
    assert (ledger.alive[b"me"] - ledger.ahead_us) / SECOND - node._good_until >= LEASE_S / 3 - 0.001
    assert not node.still_ours(1)
    ledger.trouble = None
    ledger.open.set()
    await until(node.good)
    assert node.term == 2 and not node.still_ours(1), "what it had before is another's by now"
    await end(task)


async def test_an_answer_that_comes_too_late_is_no_sign_of_life(node: Nodes, ledger: Ledger) -> None:
    task = await running(node)
    ledger.open.clear()
    await until(lambda: not node.good())
    asked = steady()
    await until(lambda: steady() > asked + LEASE_S)
    ledger.open.set()
    await until(node.good)
    assert node.term == 2, "the answer to the old question made it join no more than the new one"
    await end(task)


async def test_it_takes_the_lead_and_the_work_of_one_whose_lease_has_ended(
    node: Nodes, ledger: Ledger, told: Told
) -> None:
    ends = ledger.clock() + SECOND
    ledger.alive[OTHER] = ends
    ledger.leases[LEADER] = (OTHER, ends)
    task = await running(node)
    assert not node.leads()
    await until(lambda: told.freed == 1)
    assert node.leads() and ledger.taken_over == [OTHER] and ledger.clock() >= ends
    await end(task)


async def test_who_has_just_come_takes_nobody_for_dead(node: Nodes, ledger: Ledger) -> None:
    """After an outage all leases have ended: everybody gets the time to say that it lives."""
    ended = ledger.clock() - HOUR_US
    ledger.alive[OTHER] = ended
    ledger.leases[LEADER] = (OTHER, ended)
    joined = steady()
    task = await running(node)
    assert not node.leads()
    await until(lambda: ledger.taken_over)
    assert steady() - joined >= LEASE_S * (1 - TRUST)
    await end(task)


@pytest.mark.parametrize("hours", [2, -2])
async def test_when_the_ledgers_clock_is_set_nobody_dies_of_it(node: Nodes, ledger: Ledger, hours: int) -> None:
    await node.join()
    ledger.alive[OTHER] = ledger.clock() + SECOND
    joined = steady()
    await until(lambda: steady() > joined + LEASE_S * (1 - TRUST))  # by now it may judge
    ledger.ahead_us += hours * HOUR_US
    await node._beat()
    await node._take_over_once()
    assert ledger.taken_over == [] and node.good() and node.leads() and node.term == 1
    stepped = steady()
    await until(lambda: steady() > stepped + LEASE_S * (1 - TRUST))
    ledger.alive[OTHER] = ledger.clock() - 1  # it had the time to say that it lives, and did not
    await node._beat()
    await node._take_over_once()
    assert ledger.taken_over == [OTHER]


# -- sessions ------------------------------------------------------------------------------------------


async def test_a_session_is_kept_until_it_is_given_back(node: Nodes, ledger: Ledger) -> None:
    task = await running(node)
    lost: list[str] = []
    name = await node.session("x", 1, lambda: lost.append("x"))
    beats = ledger.asked.count(f"hold {name}")
    await until(lambda: ledger.asked.count(f"hold {name}") >= beats + 8)
    assert lost == [] and ledger.leases[name][0] == b"me"
    await node.end_session(name)
    holds = ledger.asked.count(f"hold {name}")
    await until(lambda: ledger.asked[-1] != f"drop {name}")
    await until(lambda: ledger.asked[-8:].count("beat") >= 2)
    assert ledger.asked.count(f"hold {name}") == holds and name not in ledger.leases
    await end(task)


async def test_a_session_is_waited_for_and_each_node_has_one(node: Nodes, ledger: Ledger) -> None:
    until_us = ledger.clock() + SECOND
    ledger.leases["session:x:0"] = (OTHER, until_us)
    ledger.alive[OTHER] = until_us
    task = await running(node)
    assert await node.session("x", 2, lambda: None) == "session:x:1"
    asked = asyncio.create_task(node.session("x", 2, lambda: None))
    await until(asked.done)
    assert asked.result() == "session:x:0" and ledger.clock() >= until_us
    await end(task)


async def test_a_lost_session_is_told_of_once(node: Nodes, ledger: Ledger) -> None:
    task = await running(node)
    lost: list[str] = []
    await node.session("x", 1, lambda: lost.append("x"))
    ledger.open.clear()
    await until(lambda: lost)
    ledger.open.set()
    await until(node.good)
    beats = ledger.asked.count("beat")
    await until(lambda: ledger.asked.count("beat") > beats + 3)
    assert lost == ["x"]
    await end(task)


async def test_a_session_that_another_one_has_is_told_of_at_once(node: Nodes, ledger: Ledger) -> None:
    task = await running(node)
    lost: list[str] = []
    name = await node.session("x", 1, lambda: lost.append("x"))
    ledger.leases[name] = (OTHER, ledger.clock() + HOUR_US)
    await until(lambda: lost)
    assert node.good(), "it did not have to wait for its own trust to end"
    await end(task)


async def test_whoever_leaves_is_good_for_nothing_any_more(node: Nodes, ledger: Ledger) -> None:
    await node.join()
    ledger.trouble = ConnectionError()  # even if it cannot say so
    await node.leave()
    assert not node.good() and not node.leads() and not node.still_ours(node.term)
