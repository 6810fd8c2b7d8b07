"""Which carrier takes a message: rules, shares, and verdicts that change quickly and then stay, on a virtual clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from hub.contract import DestinationNow
from hub.model import new_id
from plugins.telecom_sms.fleet import Fleet, Verdict
from plugins.telecom_sms.routes import RoutesSettings, Share, Traits, in_order, rule_for

TWO = {"name": "all", "carriers": [{"connection": "a", "weight": 3}, {"connection": "b"}]}


def choice(*rules: dict[str, Any], **changes: Any) -> RoutesSettings:
    return RoutesSettings.model_validate({"rules": rules or (TWO,), **changes})


# -- rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (Traits("advertising", "viettel", "84962555123"), "qc"),
        (Traits("care", "viettel", "84962555123"), "viettel"),
        (Traits("care", "mobifone", "84902555123"), "block"),
        (Traits("care", "vinaphone", "84912555123", tag="tet-2027"), "tet"),
        (Traits("care", "vinaphone", "84912555123", sender="CD-TN"), "sender"),
        (Traits("operations", "vinaphone", "84912555123", tag="hop"), "rest"),
    ],
)
def test_the_first_rule_that_fits_counts(message: Traits, rule: str) -> None:
    to: dict[str, Any] = {"carriers": [{"connection": "a"}]}
    found = choice(
        {"name": "qc", "purposes": ["advertising"], **to},
        {"name": "viettel", "networks": ["viettel"], **to},
        {"name": "block", "prefixes": ["84902"], **to},
        {"name": "tet", "tags": ["tet-*"], "purposes": ["care"], **to},
        {"name": "sender", "senders": ["CD-TN"], **to},
        {"name": "rest", **to},
    )
    assert rule_for(found.rules, message).name == rule


@pytest.mark.parametrize(
    "rules",
    [
        ({"name": "qc", "purposes": ["advertising"], "carriers": [{"connection": "a"}]},),
        (TWO, TWO),
        ({"name": "all", "carriers": [{"connection": "a"}, {"connection": "a"}]},),
        ({"name": "all", "networks": ["viet"], "carriers": [{"connection": "a"}]}, TWO),
        ({"name": "all", "carriers": []},),
    ],
)
def test_rules_that_leave_a_message_without_a_way_are_refused(rules: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(ValidationError):
        choice(*rules)


def test_weights_share_messages_out_and_a_carrier_that_leaves_moves_only_its_own() -> None:
    shares = [Share(connection="a", weight=3), Share(connection="b"), Share(connection="c", weight=0)]
    ids = [new_id().bytes for _ in range(4000)]
    first = {id: in_order(shares, id, 1) for id in ids}
    counted = Counter(order[0] for order in first.values())
    assert abs(counted["a"] / 4000 - 0.75) < 0.03 and counted["c"] == 0
    assert all(order[-1] == "c" for order in first.values())
    for id in ids[:100]:
        alone = in_order([s for s in shares if s.connection != "b"], id, 1)
        assert alone[0] == "a"
        assert in_order(shares, id, 2)[0] != first[id][0], "a later try begins with another carrier"


# -- a world of carriers on a virtual clock --------------------------------------------------------


class World:
    """Carriers as the ledger shows them, and messages that come at an even rate; one step is a second."""

    def __init__(self, settings: RoutesSettings, per_s: int, **speeds: float) -> None:
        self.settings = settings
        self.fleet = Fleet(settings, dict.fromkeys(speeds, 20))
        self.per_s = per_s
        self.speed = speeds
        self.queue: dict[str, list[float]] = {name: [] for name in speeds}
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in speeds}
        self.credit = dict.fromkeys(speeds, 0.0)
        self.reports = dict.fromkeys(speeds, True)
        self.fails = dict.fromkeys(speeds, 0.0)
        self.blocked: dict[str, Any] = dict.fromkeys(speeds, "")
        self.at = 0.0
        self.placed: list[tuple[float, str]] = []
        self.waiting = 0
        self.changes: list[tuple[float, str, str]] = []

    def run(self, seconds: int, each: Callable[[], None] = lambda: None) -> None:
        for _ in range(seconds):
            self.at += 1
            for name in self.queue:
                self._serve(name)
            for name, verdict in self.fleet.see(self.at, {n: self._now(n) for n in self.queue}).items():
                if verdict.reason or not self.fleet.carriers[name].verdict.reason:
                    self.changes.append((self.at, name, verdict.reason))
            self._bring_back()
            self.waiting += self.per_s
            while self.waiting and self._place():
                self.waiting -= 1
            each()

    def _serve(self, name: str) -> None:
        self.credit[name] = min(self.credit[name] + self.speed[name], max(self.speed[name], 1))
        while self.queue[name] and self.credit[name] >= 1 and not self.blocked[name]:
            self.queue[name].pop(0)
            self.credit[name] -= 1
            dead = sum(self.counts[name].values()) % 100 < self.fails[name] * 100
            self.counts[name]["dead" if dead else "delivered" if self.reports[name] else "accepted"] += 1

    def _now(self, name: str) -> DestinationNow:
        queue = self.queue[name]
        overdue = self.at - queue[0] if queue else 0.0
        counts, blocked = self.counts[name], self.blocked[name]
        return DestinationNow(open=len(queue), counts=dict(counts), overdue_s=overdue, blocked=blocked)

    def _bring_back(self) -> None:
        for name in self.fleet.unfit():
            self.waiting += len(self.queue[name])
            self.queue[name].clear()

    def _place(self) -> bool:
        candidates = self.fleet.candidates(self.settings.rules[0], new_id().bytes, 1)
        name = next((n for n in candidates if self.fleet.has_room(n)), None)
        if name is None:
            return False
        self.fleet.place(name)
        self.queue[name].append(self.at)
        self.placed.append((self.at, name))
        return True

    def share(self, name: str, last_s: float) -> float:
        recent = [n for at, n in self.placed if at > self.at - last_s]
        return recent.count(name) / max(1, len(recent))


def test_when_a_carrier_becomes_slow_its_share_moves_in_under_two_minutes_and_stays_for_thirty() -> None:
    """F2. Slow by turns, as such carriers are: it must not make messages go to and fro."""
    world = World(choice(), 20, a=40, b=40)
    world.run(120)
    assert abs(world.share("a", 60) - 0.75) < 0.06 and not world.changes
    world.speed["a"] = 0.2
    world.run(110)
    assert world.share("a", 10) == 0 and world.share("b", 10) == 1 and not world.queue["a"]
    assert world.waiting == 0, "nobody waits for it any more"

    def by_turns() -> None:
        world.speed["a"] = 40 if int(world.at) // 60 % 2 else 0.2

    moved = len(world.changes)
    world.run(29 * 60 - 110, by_turns)
    assert len(world.changes) == moved == 1, "damped: one change in half an hour"
    world.speed["a"] = 40
    world.run(5 * 60)
    assert [change[1:] for change in world.changes] == [("a", "slow"), ("a", "")]
    assert abs(world.share("a", 60) - 0.75) < 0.06


def test_a_carrier_that_only_takes_less_keeps_what_it_takes_and_no_message_waits_for_it() -> None:
    world = World(choice(), 20, a=5, b=40)
    world.run(300)
    assert not world.changes and world.waiting == 0
    assert 0.15 < world.share("a", 60) < 0.35
    assert len(world.queue["a"]) <= max(20, 5 * 5 + 5), "no more is put there than it takes in some seconds"


def test_missing_receipts_move_the_share_and_a_carrier_without_any_is_not_blamed() -> None:
    world = World(choice(), 20, a=40, b=40)
    world.run(200)
    world.reports["a"] = False
    world.run(119)
    assert [change[1:] for change in world.changes] == [("a", "no_receipts")] and world.share("a", 10) == 0
    silent = [{"connection": "a", "weight": 3, "receipts": False}, {"connection": "b"}]
    other = World(choice({"name": "all", "carriers": silent}), 20, a=40, b=40)
    other.reports["a"] = False
    other.run(400)
    assert not other.changes


@pytest.mark.parametrize("blocked", ["paused", "breaker_open"])
def test_what_is_certain_moves_the_share_at_once(blocked: str) -> None:
    world = World(choice(), 20, a=40, b=40)
    world.run(60)
    world.blocked["a"] = blocked
    world.run(3)
    assert world.share("a", 1) == 0 and not world.queue["a"]
    world.blocked["a"] = ""
    world.run(10)
    back = world.share("a", 5) > 0
    assert back is (blocked == "paused"), "a person resumed it; a breaker that closes again may open again"


def test_a_carrier_where_most_messages_fail_is_used_only_while_no_other_is_fit() -> None:
    world = World(choice(), 20, a=40, b=40)
    world.run(60)
    world.fails["a"] = 0.8
    world.run(110)
    assert world.changes[0][1:] == ("a", "failing") and world.share("a", 10) == 0
    world.blocked["b"] = "paused"
    world.run(5)
    assert world.share("a", 2) == 1, "better a carrier like this than none"


def test_a_reserve_takes_over_only_when_no_weighted_carrier_is_fit_and_nothing_is_placed_without_any() -> None:
    world = World(
        choice({"name": "all", "carriers": [{"connection": "a"}, {"connection": "b", "weight": 0}]}), 10, a=5, b=40
    )
    world.run(120)
    assert world.share("b", 120) == 0 and world.waiting > 300, "it is dear: being busy is no reason to use it"
    world.blocked["a"] = "paused"
    world.run(60)
    assert world.share("b", 10) == 1
    world.blocked["b"] = "paused"
    world.run(5)
    placed = len(world.placed)
    world.run(20)
    assert len(world.placed) == placed and world.waiting > 0


def test_a_lone_carrier_is_used_again_as_soon_as_it_takes_anything() -> None:
    world = World(choice({"name": "all", "carriers": [{"connection": "a"}]}), 10, a=40)
    world.run(60)
    world.blocked["a"] = "breaker_open"
    world.run(20)
    assert world.changes[-1][1:] == ("a", "breaker_open") and world.waiting >= 190
    world.blocked["a"] = ""
    world.run(60)
    assert world.waiting == 0, "there is nobody to go to instead"


def test_what_is_put_back_again_and_again_is_stuck_although_nothing_is_due_for_long() -> None:
    fleet = Fleet(choice(), {"a": 20, "b": 20})
    idle = DestinationNow(open=0, counts={}, overdue_s=0, blocked="")
    told = {}
    for at in range(40):
        put_back = DestinationNow(open=5, counts={}, overdue_s=0.3 * (at % 2), blocked="")
        told |= fleet.see(float(at), {"a": put_back, "b": idle})
    assert told["a"].reason == "slow"
    held = Fleet(choice(), {"a": 20, "b": 20})
    later = DestinationNow(open=5, counts={}, overdue_s=0, blocked="")
    assert not any(held.see(float(at), {"a": later, "b": idle}) for at in range(100)), "its hour is still to come"


def test_what_another_node_found_holds_here_too() -> None:
    fleet = Fleet(choice(), {"a": 20, "b": 20})
    fine = DestinationNow(open=0, counts={}, overdue_s=0, blocked="")
    fleet.recall({"a": Verdict("slow", 100.0, 1900.0), "gone": Verdict("slow", 100.0, 1900.0)})
    assert not fleet.see(200.0, {"a": fine, "b": fine})
    assert {fleet.candidates(fleet._settings.rules[0], new_id().bytes, 1)[0] for _ in range(20)} == {"b"}
    assert fleet.see(1901.0, {"a": fine, "b": fine}) == {"a": Verdict()}
