"""The table of transitions and the records around it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model import (
    HOLDS_KEY,
    LEGAL,
    REVERSIBLE_DEATHS,
    TRANSITIONS,
    UNSETTLED,
    Priority,
    State,
    from_us,
    new_id,
    to_us,
)

S = State
#: Written out by hand: the table must agree with it, pair by pair.
ALLOWED = {
    S.WAITING: {S.PENDING, S.CANCELLED, S.DEAD},
    S.PENDING: {S.WAITING, S.LEASED, S.DEAD, S.CANCELLED},
    S.LEASED: {S.WAITING, S.PENDING, S.SENDING, S.ACCEPTED, S.DELIVERED, S.DEAD, S.CANCELLED, S.UNKNOWN},
    S.SENDING: {S.PENDING, S.ACCEPTED, S.DELIVERED, S.DEAD, S.UNKNOWN},
    S.ACCEPTED: {S.DELIVERED, S.DEAD, S.UNKNOWN},
    S.UNKNOWN: {S.DELIVERED, S.DEAD, S.PENDING},
    S.DEAD: {S.DELIVERED, S.PENDING},
    S.DELIVERED: set(),
    S.CANCELLED: set(),
}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)), ids=lambda s: s.value)
def test_exactly_these_changes_are_legal(source: State, target: State) -> None:
    assert ((source, target) in LEGAL) is (target in ALLOWED[source])


def test_nothing_leaves_delivered_or_cancelled() -> None:
    assert not [t for t in TRANSITIONS if t.source in (S.DELIVERED, S.CANCELLED)]


def test_every_state_can_be_reached_from_a_new_delivery_and_can_end() -> None:
    reached = {S.WAITING, S.PENDING}
    for _ in State:
        reached |= {t.target for t in TRANSITIONS if t.source in reached}
    assert reached == set(State)
    for state in State:
        can_reach = {state}
        for _ in State:
            can_reach |= {t.target for t in TRANSITIONS if t.source in can_reach}
        assert can_reach & {S.DELIVERED, S.CANCELLED}, f"{state} is a trap"


def test_the_table_can_be_printed() -> None:
    """Each line once, with a cause that reads as a sentence's end."""
    assert len({(t.source, t.target) for t in TRANSITIONS}) == len(TRANSITIONS)
    for t in TRANSITIONS:
        assert t.cause and t.cause == t.cause.strip() and not t.cause.endswith(".")


def test_a_crash_never_makes_a_started_delivery_due_again() -> None:
    """What left the process may be sent again only after an answer that makes it safe, or by a person."""
    causes = {(t.source, t.target): t.cause for t in TRANSITIONS}
    assert "crash" in causes[S.LEASED, S.PENDING]
    assert "crash" not in causes[S.SENDING, S.PENDING]
    assert "person" in causes[S.UNKNOWN, S.PENDING] and "person" in causes[S.DEAD, S.PENDING]


def test_the_sets_of_states_agree_with_one_another() -> None:
    assert set(State) - UNSETTLED == {S.DELIVERED, S.DEAD, S.CANCELLED}
    assert HOLDS_KEY < UNSETTLED and S.ACCEPTED not in HOLDS_KEY and S.WAITING not in HOLDS_KEY
    assert "refused" not in REVERSIBLE_DEATHS
    assert sorted(Priority) == [Priority.URGENT, Priority.NORMAL, Priority.BULK]


@given(st.integers(0, 7_258_118_400_000_000))
def test_instants_survive_the_store_to_the_microsecond(us: int) -> None:
    assert to_us(from_us(us)) == us


def test_an_instant_is_the_same_in_any_zone_and_never_naive() -> None:
    moment = datetime(2026, 11, 23, 6, 0, tzinfo=timezone(timedelta(hours=7)))
    assert to_us(moment) == to_us(moment.astimezone(UTC))
    with pytest.raises(ValueError, match="time zone"):
        to_us(datetime(2026, 11, 23))  # noqa: DTZ001 - what is refused


def test_ids_are_in_the_order_they_were_made() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [i.bytes[:6] for i in ids] == sorted(i.bytes[:6] for i in ids)
    assert {i.version for i in ids} == {7}
