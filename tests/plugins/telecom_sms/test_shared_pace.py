"""One pace over nodes: no second holds more segments than the contract, however many nodes take from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from plugins.telecom_sms.shared_pace import OwnPace, Pace, SharedPace

from .support import MemoryHub

RATE = 40


class Account:
    """Nodes that share a ledger and send all they may, on a clock that only moves when this test says so."""

    def __init__(self) -> None:
        self.hub = MemoryHub()
        self.now = 0.0
        #: Instant of each segment.
        self.sent: list[float] = []

    def clock(self) -> float:
        return self.now

    def node(self, rate_per_s: float = RATE) -> SharedPace:
        return SharedPace(self.hub, "carrier", rate_per_s, self.clock)

    def goes_on(self, seconds: float) -> None:
        self.now += seconds
        self.hub.at += timedelta(seconds=seconds)

    async def send(self, nodes: Sequence[Pace], seconds: float, sizes: Sequence[int] = (1, 2, 3)) -> None:
        """Each node has one message under way at a time, of one to three segments by turns."""
        free = [self.now] * len(nodes)
        end, turn = self.now + seconds, 0
        while self.now < end:
            for number, node in enumerate(nodes):
                if free[number] <= self.now:
                    size = sizes[turn % len(sizes)]
                    turn += 1
                    wait_s = await node.reserve(self.now, self.now + 5.0, size)
                    if wait_s is not None:
                        free[number] = self.now + wait_s + 1e-6
                        self.sent += [self.now + wait_s + part / RATE for part in range(size)]
                        node.taken()
            self.goes_on(0.005)

    def most_in_a_second(self) -> int:
        sent = sorted(self.sent)
        behind, most = 0, 0
        for at, instant in enumerate(sent):
            while sent[behind] <= instant - 1.0:
                behind += 1
            most = max(most, at - behind + 1)
        return most


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_nodes_together_send_what_the_contract_allows_and_in_no_second_more(count: int) -> None:
    account = Account()
    await account.send([account.node() for _ in range(count)], 20)
    assert account.most_in_a_second() <= RATE + 1
    assert len(account.sent) > 0.8 * 20 * RATE


async def test_control_two_nodes_that_do_not_share_send_twice_as_much() -> None:
    account = Account()
    await account.send([OwnPace(RATE), OwnPace(RATE)], 5)
    assert account.most_in_a_second() > 1.5 * RATE


async def test_what_one_node_is_told_slows_the_others_and_answers_raise_the_pace_again() -> None:
    account = Account()
    told, other = account.node(), account.node()
    await account.send([told, other], 3)
    await told.throttled(account.now)
    await other.throttled(account.now)  # the same moment, the same news
    account.sent = []
    await account.send([told, other], 1.0)
    # Only what the other node had taken already: a quarter of a second's worth.
    assert len(account.sent) <= RATE * 0.25 + 3
    assert account.hub.db.execute("SELECT rate FROM telecom_sms_pace").fetchone()[0] == pytest.approx(
        970 * RATE * 0.7, rel=0.02
    )
    account.sent = []
    await account.send([told, other], 2.0)
    assert account.most_in_a_second() <= 0.8 * RATE
    await account.send([told, other], 40.0)
    assert account.hub.db.execute("SELECT rate FROM telecom_sms_pace").fetchone()[0] == 970 * RATE


async def test_a_node_takes_from_the_ledger_four_times_a_second_not_for_each_segment() -> None:
    account = Account()
    commits = 0

    async def counted() -> None:
        nonlocal commits
        commits += 1

    account.hub.before_commit = counted
    await account.send([account.node(400)], 5)
    assert len(account.sent) > 5 * RATE and commits < 5 * 4 + 5


async def test_a_message_without_the_patience_takes_nothing() -> None:
    account = Account()
    node = account.node(1.0)
    assert await node.reserve(0.0, 5.0, 3) == 0
    assert await node.reserve(0.0, 1.0) is None
    rows = account.hub.db.execute("SELECT next_at FROM telecom_sms_pace").fetchall()
    assert await node.reserve(0.0, 1.0) is None
    assert account.hub.db.execute("SELECT next_at FROM telecom_sms_pace").fetchall() == rows
