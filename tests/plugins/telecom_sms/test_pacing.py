"""The pace of segments: the contract's at most, less while the carrier says too fast."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.telecom_sms.pacing import Pacer


def test_paced_instants_are_spaced_not_made_up_and_rest_after_throttling() -> None:
    pacer = Pacer(10.0)
    assert pacer.reserve(100.0, 200.0) == 0
    assert pacer.reserve(100.0, 200.0) == pytest.approx(1 / 9.7)
    assert pacer.reserve(150.0, 200.0) == 0
    pacer.throttled(150.0)
    assert pacer.reserve(150.0, 150.5) is None
    assert pacer.reserve(150.0, 200.0) == pytest.approx(1.0)
    assert Pacer(None).reserve(5.0, 5.0) == Pacer(None).reserve(5.0, 5.0) == 0


def test_a_message_the_carrier_cuts_itself_takes_the_time_of_all_its_segments() -> None:
    pacer = Pacer(10.0)
    assert pacer.reserve(1.0, 9.0, segments=4) == 0
    assert pacer.reserve(1.0, 9.0) == pytest.approx(4 / 9.7)


def test_throttling_cuts_the_rate_once_per_rest_and_answers_raise_it_to_the_contract() -> None:
    pacer = Pacer(100.0)
    for _ in range(10):
        pacer.throttled(50.0)
    assert pacer.rate_per_s == pytest.approx(0.7 * 97)
    pacer.throttled(51.0)
    assert pacer.rate_per_s == pytest.approx(0.49 * 97)
    slow = pacer.rate_per_s
    for _ in range(int(slow)):
        pacer.taken()
    # A second of nothing but success is worth about two segments a second.
    assert slow + 1.5 < pacer.rate_per_s < slow + 2.5
    for _ in range(10_000):
        pacer.taken()
    assert pacer.rate_per_s == pytest.approx(97)


def test_without_a_contract_the_rate_is_taken_from_what_just_went_and_grows_again() -> None:
    pacer = Pacer(None)
    for number in range(300):
        pacer.reserve(10 + number / 100, 99.0)
    pacer.throttled(13.0)
    assert pacer.rate_per_s == pytest.approx(70, abs=1)
    pacer.taken()
    assert pacer.rate_per_s > 70


@given(st.lists(st.sampled_from(["throttled", "taken"]), max_size=200))
def test_the_rate_stays_between_one_a_second_and_the_contract(answers: list[str]) -> None:
    pacer, now = Pacer(20.0), 0.0
    for answer in answers:
        now += 1.0
        if answer == "throttled":
            pacer.throttled(now)
        else:
            pacer.taken()
        assert pacer.rate_per_s is not None and 1.0 <= pacer.rate_per_s <= 19.4
