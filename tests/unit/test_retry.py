"""decide: every outcome, scope, kind of sink and state of the breaker."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.contract import Accepted, Delivered, Outcome, Refused, RetryLater, Scope, Unknown
from hub.model import LEGAL, State
from hub.retry import SECOND, Policy, Standing, Verdict, decide

NOW = 1_000_000 * SECOND
POLICY = Policy(schedule_s=(10, 100, 1000), jitter=0.2, retry_after_cap_s=600, unresolved_after_s=7 * 86400)
FIRST = Standing(tries=0, resend_is_safe=True, breaker_open=False)


def verdict(
    outcome: Outcome, *, tries: int = 0, safe: bool = True, breaker_open: bool = False, dice: float = 0.5
) -> Verdict:
    return decide(outcome, Standing(tries, safe, breaker_open), POLICY, NOW, dice)


def wait_s(v: Verdict) -> float:
    return (v.due_us - NOW) / SECOND


standings = st.builds(Standing, st.integers(0, 10), st.booleans(), st.booleans())
durations = st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=400))
reasons = st.sampled_from(["busy", "gone", "no_route"])
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Delivered()),
    st.builds(Accepted, refs=st.just(("r",)), receipt_within=st.timedeltas(timedelta(0), timedelta(days=3))),
    st.builds(RetryLater, reason=reasons, after=durations, scope=st.sampled_from(list(Scope)), ambiguous=st.booleans()),
    st.builds(Refused, reason=reasons, scope=st.sampled_from(list(Scope))),
    st.builds(Unknown, reason=reasons),
)
dice = st.floats(0, 1, exclude_max=True)


@given(outcomes, standings, dice)
def test_every_verdict_is_a_legal_move_of_a_claimed_delivery(outcome: Outcome, standing: Standing, d: float) -> None:
    v = decide(outcome, standing, POLICY, NOW, d)
    assert (State.LEASED, v.state) in LEGAL
    assert v.state is State.CANCELLED or (State.SENDING, v.state) in LEGAL
    assert v.due_us >= NOW or v.due_us == 0
    assert v.not_before_us == 0 or v.not_before_us > NOW, "a pause of nothing would be asked again without end"


@given(outcomes, standings, dice)
def test_what_may_have_arrived_is_never_sent_again_where_that_is_unsafe(
    outcome: Outcome, standing: Standing, d: float
) -> None:
    v = decide(outcome, replace(standing, resend_is_safe=False), POLICY, NOW, d)
    may_have_arrived = isinstance(outcome, Unknown) or (isinstance(outcome, RetryLater) and outcome.ambiguous)
    if may_have_arrived:
        assert v.state is State.UNKNOWN and wait_s(v) == 7 * 86400


@given(outcomes, standings, dice)
def test_only_delivered_counts_as_delivered(outcome: Outcome, standing: Standing, d: float) -> None:
    v = decide(outcome, standing, POLICY, NOW, d)
    assert (v.state is State.DELIVERED) is isinstance(outcome, Delivered)
    assert (v.state is State.ACCEPTED) is isinstance(outcome, Accepted)


@given(outcomes, standings, dice)
def test_a_retry_is_spent_or_the_whole_destination_waits(outcome: Outcome, standing: Standing, d: float) -> None:
    """Else one delivery could be tried for ever."""
    v = decide(outcome, standing, POLICY, NOW, d)
    if v.state is State.PENDING and not v.spends_try:
        assert v.pause or v.not_before_us or standing.breaker_open


@pytest.mark.parametrize(("tries", "expected"), [(0, 10), (1, 100), (2, 1000)])
def test_the_schedule_gives_the_wait_after_each_try(tries: int, expected: float) -> None:
    assert wait_s(verdict(RetryLater(reason="busy"), tries=tries)) == expected


@pytest.mark.parametrize("tries", [3, 4, 100])
def test_after_the_last_wait_it_is_dead_and_says_of_what(tries: int) -> None:
    v = verdict(RetryLater(reason="busy"), tries=tries)
    assert (v.state, v.reason) == (State.DEAD, "tries_spent:busy")


@given(st.integers(0, 2), dice)
def test_jitter_stays_within_its_share(tries: int, d: float) -> None:
    wait = wait_s(verdict(RetryLater(reason="busy"), tries=tries, dice=d))
    plain = POLICY.schedule_s[tries]
    assert plain * 0.8 - 0.001 <= wait <= plain * 1.2 + 0.001


def test_jitter_spreads_over_the_whole_share() -> None:
    low, high = (wait_s(verdict(RetryLater(reason="busy"), dice=d)) for d in (0.0, 0.999999))
    assert low == pytest.approx(8) and high == pytest.approx(12, abs=0.001)


@pytest.mark.parametrize(
    ("after_s", "expected"),
    [(None, 10), (0, 10), (-5, 10), (9, 10), (60, 60), (600, 600), (601, 600), (10**9, 600)],
)
def test_the_partners_own_word_is_obeyed_up_to_the_cap_and_never_shortens_the_schedule(
    after_s: float | None, expected: float
) -> None:
    after = None if after_s is None else timedelta(seconds=after_s)
    v = verdict(RetryLater(reason="busy", after=after))
    assert wait_s(v) == expected and v.spends_try


@pytest.mark.parametrize("scope", [Scope.DESTINATION, Scope.CONNECTION])
@pytest.mark.parametrize(("after_s", "expected"), [(None, 30), (0, 1), (-5, 1), (60, 60), (10**9, 600)])
def test_a_pause_for_all_moves_the_row_of_all_and_spends_no_try(
    scope: Scope, after_s: float | None, expected: float
) -> None:
    after = None if after_s is None else timedelta(seconds=after_s)
    v = verdict(RetryLater(reason="throttled", after=after, scope=scope), tries=3)
    assert (v.state, v.spends_try, v.due_us) == (State.PENDING, False, NOW)
    assert v.not_before_us == NOW + expected * SECOND
    assert v.not_before_for == scope.value and v.health == 0


@pytest.mark.parametrize("scope", list(Scope))
def test_a_refusal_reaches_as_far_as_its_scope(scope: Scope) -> None:
    v = verdict(Refused(reason="gone", scope=scope))
    if scope in (Scope.DELIVERY, Scope.RECIPIENT):
        assert (v.state, v.reason, v.pause, v.spends_try) == (State.DEAD, "gone", "", True)
    else:
        assert (v.state, v.pause, v.spends_try, v.due_us) == (State.PENDING, scope.value, False, NOW)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("tries", [0, 3, 50])
def test_while_the_breaker_is_open_a_failure_spends_no_try(safe: bool, tries: int) -> None:
    v = verdict(RetryLater(reason="down"), tries=tries, safe=safe, breaker_open=True)
    assert (v.state, v.spends_try, v.health) == (State.PENDING, False, 1)


@pytest.mark.parametrize("breaker_open", [True, False])
@pytest.mark.parametrize("scope", list(Scope))
def test_ambiguous_and_unsafe_is_unknown_whatever_else_is_true(scope: Scope, breaker_open: bool) -> None:
    outcome = RetryLater(reason="timeout", scope=scope, ambiguous=True, after=timedelta(seconds=5))
    assert verdict(outcome, safe=False, breaker_open=breaker_open).state is State.UNKNOWN
    assert verdict(outcome, safe=True, breaker_open=breaker_open).state is State.PENDING


def test_an_accept_waits_as_long_as_the_partner_takes_to_report() -> None:
    v = verdict(Accepted(refs=("r1", "r2"), receipt_within=timedelta(hours=48)))
    assert v.state is State.ACCEPTED and wait_s(v) == 48 * 3600


def test_health_says_what_the_try_tells_of_the_partner() -> None:
    answers = [Delivered(), Accepted(refs=(), receipt_within=timedelta(1)), Refused(reason="bad")]
    silence = [Unknown(reason="no_answer"), RetryLater(reason="down"), RetryLater(reason="x", ambiguous=True)]
    for outcome, safe in itertools.product(answers, (True, False)):
        assert verdict(outcome, safe=safe).health == -1
    for outcome, safe in itertools.product(silence, (True, False)):
        assert verdict(outcome, safe=safe).health == 1


def test_an_odd_outcome_is_an_error_and_never_a_success() -> None:
    for odd in (None, True, "delivered", 200, object()):
        with pytest.raises(AssertionError):
            decide(odd, FIRST, POLICY, NOW, 0.5)  # type: ignore[arg-type]
