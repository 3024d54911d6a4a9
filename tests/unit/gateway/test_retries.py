"""The retry budget: a part of the traffic, and never nothing for long."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.retries import FLOOR_PER_S, MOST, SHARE, RetryBudget


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2)), max_size=300))
def test_no_more_is_spent_than_was_saved_and_paid_in(steps: list[tuple[bool, float]]) -> None:
    budget, now, requests, spent = RetryBudget(), 0.0, 0, 0
    for retry, passed in steps:
        now += passed
        if retry:
            spent += budget.spend(now)
        else:
            budget.request()
            requests += 1
    assert spent <= MOST / 2 + SHARE * requests + FLOOR_PER_S * now + 1e-6


def test_a_storm_is_cut_off_and_a_quiet_second_helps() -> None:
    budget = RetryBudget()
    granted = sum(budget.spend(0.0) for _ in range(200))
    assert granted == MOST / 2
    assert not budget.spend(0.0)
    assert budget.spend(1.0)


def test_quiet_times_are_saved_up_to_a_bound() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.request()
    assert sum(budget.spend(0.0) for _ in range(1000)) == MOST
