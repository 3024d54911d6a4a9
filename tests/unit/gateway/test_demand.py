"""What is told of waits: exact means, percentiles never understated, nothing told twice."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.demand import RETRY_S, Demand, Pace, Tally


def told(tally: Tally) -> Demand:
    return tally.demand("m", waiting=0, active=0, oldest_s=0.0)


def test_nothing_seen_is_nothing_told() -> None:
    assert told(Tally()) == Demand("m", 0, 0, 0, 0, 0, 0, 0)


def test_what_is_now_is_told_as_it_is() -> None:
    demand = Tally().demand("m", waiting=3, active=4, oldest_s=1.5)
    assert (demand.waiting, demand.active, demand.oldest_wait_ms) == (3, 4, 1500)


def test_those_who_went_straight_through_are_waits_of_nothing() -> None:
    tally = Tally()
    tally.straight, tally.called, tally.refused = 19, 1, 2
    tally.waited(2.0)
    assert told(tally) == Demand("m", 0, 0, 20, 2, 100, 0, 0)
    tally.waited(0.012)
    assert told(tally).wait_p95_ms == 12


def test_what_was_reported_is_not_told_again() -> None:
    tally = Tally()
    tally.straight, tally.called, tally.refused = 3, 2, 1
    tally.waited(9.0)
    tally.reported()
    assert told(tally) == Demand("m", 0, 0, 0, 0, 0, 0, 0)
    tally.called += 1
    tally.waited(0.004)
    assert told(tally) == Demand("m", 0, 0, 1, 0, 4, 4, 0)
    assert (tally.admitted, tally.waits) == (6, 2)


def test_no_wait_is_beyond_what_can_be_told() -> None:
    tally = Tally()
    tally.waited(1e12)
    tally.waited(-1.0)
    demand = tally.demand("m", waiting=0, active=0, oldest_s=1e12)
    assert demand.oldest_wait_ms == demand.wait_mean_ms == demand.wait_p95_ms == 2**32 - 1


@given(st.lists(st.floats(0.001, 4000), max_size=60), st.integers(0, 30))
def test_the_percentile_is_never_less_than_the_truth_and_at_most_an_eighth_more(
    waits: list[float], straight: int
) -> None:
    tally = Tally()
    tally.straight = straight
    for seconds in waits:
        tally.waited(seconds)
    everyone = sorted([0] * straight + [round(seconds * 1000) for seconds in waits])
    demand = told(tally)
    if not everyone:
        assert demand.wait_p95_ms == 0
        return
    truth = everyone[math.ceil(len(everyone) * 95 / 100) - 1]
    assert truth <= demand.wait_p95_ms <= truth * 1.125
    assert demand.wait_mean_ms == pytest.approx(sum(waits) / len(everyone) * 1000, abs=1)


def test_who_is_refused_comes_again_when_those_before_it_are_served() -> None:
    pace = Pace()
    pace.note(100.0, 50)
    pace.note(105.0, 60)
    assert pace.retry_after_s(110.0, 70, 40) == 20.0  # two each second


def test_the_pace_is_that_of_late() -> None:
    pace = Pace()
    pace.note(0.0, 0)
    pace.note(15.0, 1500)
    assert pace.retry_after_s(15.0, 1500, 1000) == 10.0
    pace.note(30.0, 1530)
    assert pace.retry_after_s(30.0, 1530, 20) == 10.0
    pace.note(31.0, 1532)
    assert pace.retry_after_s(31.0, 1532, 20) == 10.0


def test_a_quiet_time_says_nothing_of_the_pace() -> None:
    pace = Pace()
    pace.note(0.0, 0)
    pace.note(1000.0, 10)
    assert pace.retry_after_s(1001.0, 20, 50) == 5.0


def test_when_nobody_was_served_it_is_the_longest() -> None:
    pace = Pace()
    assert pace.retry_after_s(5.0, 9, 1) == RETRY_S[1]
    pace.note(0.0, 9)
    assert pace.retry_after_s(5.0, 9, 1) == RETRY_S[1]


@given(st.floats(0, 1e6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_it_is_always_within_bounds(now: float, admitted: int, depth: int) -> None:
    pace = Pace()
    pace.note(0.0, 0)
    soonest, latest = RETRY_S
    assert soonest <= pace.retry_after_s(now, admitted, depth) <= latest
