"""Strangers may knock so often and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rpc.limits import BLOCK_S, FAILURE_WINDOW_S, Limiter, Limits
from mesh.kit.errors import TooManyRequests


def _admitted(limiter: Limiter, source: str, times: int, now: float) -> int:
    count = 0
    for _ in range(times):
        try:
            limiter.admit(source, now)
        except TooManyRequests:
            continue
        count += 1
    return count


def test_an_address_may_make_a_burst_and_then_one_call_a_second() -> None:
    limiter = Limiter(Limits())
    assert _admitted(limiter, "a", 20, 0.0) == 5
    assert _admitted(limiter, "a", 20, 1.0) == 1
    assert _admitted(limiter, "a", 20, 1.5) == 0


def test_one_address_does_not_use_up_what_others_may() -> None:
    limiter = Limiter(Limits())
    _admitted(limiter, "a", 100, 0.0)
    assert _admitted(limiter, "b", 20, 0.0) == 5


def test_all_together_are_limited_too() -> None:
    limiter = Limiter(Limits(), per_second_in_all=50.0)
    assert sum(_admitted(limiter, f"address {n}", 5, 0.0) for n in range(100)) == 50


def test_the_refusal_says_when_to_come_back() -> None:
    limiter = Limiter(Limits(per_second=0.5, burst=1))
    limiter.admit("a", 0.0)
    with pytest.raises(TooManyRequests) as refused:
        limiter.admit("a", 0.0)
    limiter.admit("a", refused.value.retry_after_s)


def test_ten_failures_shut_an_address_out_for_a_quarter_of_an_hour() -> None:
    limiter = Limiter(Limits(failures=10))
    for second in range(10):
        limiter.admit("a", float(second))
        limiter.failed("a", float(second))
    assert _admitted(limiter, "a", 1, 10.0) == 0
    assert _admitted(limiter, "b", 1, 10.0) == 1
    assert _admitted(limiter, "a", 1, 9.0 + BLOCK_S) == 1


def test_failures_of_long_ago_do_not_count() -> None:
    limiter = Limiter(Limits(failures=2))
    limiter.failed("a", 0.0)
    limiter.failed("a", FAILURE_WINDOW_S + 1)
    limiter.admit("a", FAILURE_WINDOW_S + 2)


@given(st.lists(st.integers(0, 50), max_size=200))
def test_the_table_of_addresses_never_outgrows_its_bound(sources: list[int]) -> None:
    limiter = Limiter(Limits(), capacity=10)
    for now, source in enumerate(sources):
        limiter.failed(str(source), float(now))
        assert len(limiter) <= 10
