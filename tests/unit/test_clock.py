"""The server's clock as nodes know it: from answers that took some time, and from a steady clock in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import clock
from hub.clock import DRIFT, ServerClock, steady, system_clock
from hub.model import to_us

SERVER_US = 1_700_000_000_000_000


def ahead_s(clock: ServerClock) -> float:
    """How far the server is ahead of the steady clock, as the clock believes; read again if held up."""
    while True:
        before, said, after = steady(), to_us(clock()) / 1_000_000, steady()
        if after - before < 0.0005:
            return said - (before + after) / 2


def asked_at(begin: float, answered: float, said_at: float, ahead: float) -> tuple[int, float, float]:
    """An answer that the server gave at ``said_at``; it is ``ahead`` of the steady clock."""
    return round((said_at + ahead) * 1_000_000), begin, answered


def test_before_the_first_answer_it_is_the_machines_own() -> None:
    assert abs((ServerClock()() - system_clock()).total_seconds()) < 60


def test_the_first_answer_is_taken_however_long_it_took() -> None:
    known = ServerClock()
    assert known.set(*asked_at(100.0, 130.0, 115.0, 5000.0)) == 0.0
    assert ahead_s(known) == pytest.approx(5000.0, abs=0.001)


def test_a_slow_answer_does_not_replace_a_quick_one() -> None:
    known = ServerClock()
    known.set(*asked_at(100.0, 100.002, 100.001, 5000.0))
    # Half a second one way, nothing the other: taken by its middle it would be a quarter of a second wrong.
    assert known.set(*asked_at(101.0, 101.5, 101.5, 5000.0)) == 0.0
    assert ahead_s(known) == pytest.approx(5000.0, abs=0.002)


def test_a_quick_answer_replaces_a_slow_one() -> None:
    known = ServerClock()
    known.set(*asked_at(100.0, 101.0, 101.0, 5000.0))
    assert ahead_s(known) == pytest.approx(5000.5, abs=0.001)
    assert known.set(*asked_at(102.0, 102.002, 102.001, 5000.0)) == 0.0
    assert ahead_s(known) == pytest.approx(5000.0, abs=0.002)


def test_what_was_known_long_ago_is_known_less_well() -> None:
    known = ServerClock()
    known.set(*asked_at(100.0, 100.002, 100.001, 5000.0))
    later = 100.0 + 0.2 / DRIFT  # by now it may be 0.2 s off
    known.set(*asked_at(later, later + 0.3, later + 0.15, 5000.1))
    assert ahead_s(known) == pytest.approx(5000.1, abs=0.002)


@pytest.mark.parametrize("hours", [2, -2, 24 * 365])
def test_a_clock_that_was_set_is_followed_and_told_of(hours: float) -> None:
    known = ServerClock()
    known.set(*asked_at(100.0, 100.002, 100.001, 5000.0))
    set_by = known.set(*asked_at(101.0, 101.2, 101.1, 5000.0 + hours * 3600))
    assert set_by == pytest.approx(hours * 3600, abs=0.2)
    assert ahead_s(known) == pytest.approx(5000.0 + hours * 3600, abs=0.2)


@given(
    st.lists(
        st.tuples(
            st.floats(0.001, 5.0),  # the whole way
            st.floats(0.0, 1.0),  # of it, the way there
            st.floats(0.1, 30.0),  # until it is asked again
        ),
        min_size=1,
        max_size=30,
    )
)
def test_it_is_never_further_off_than_half_of_the_quickest_answers_way(ways: list[tuple[float, float, float]]) -> None:
    """And the drift since; a clock that nobody set is never said to be set."""
    known, at, answers = ServerClock(), 100.0, list[tuple[float, float]]()
    for whole, there, pause in ways:
        assert known.set(*asked_at(at, at + whole, at + whole * there, 5000.0)) == 0.0
        answers.append((whole / 2, at + whole))
        at += whole + pause
        surely_s = min(half + DRIFT * (at - answered) for half, answered in answers)
        assert abs(ahead_s(known) - 5000.0) <= surely_s + 0.001


def test_steady_time_goes_on_while_the_machine_sleeps_where_it_can() -> None:
    import time

    assert getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC) == clock._STEADY
    assert steady() <= steady()
