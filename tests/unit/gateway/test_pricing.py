"""Tests of gateway/core/pricing.py."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.pricing import cost, estimate_tokens, worst_case
from gateway.core.snapshot import Price

counts = st.integers(0, 2**31 - 1)
prices = st.builds(Price, *[st.integers(0, 10**12)] * 3)


def test_cached_prompt_tokens_have_their_own_price() -> None:
    price = Price(prompt=2_000_000, cached=500_000, completion=6_000_000)
    assert cost(price, 100, 0, 10) == 260
    assert cost(price, 100, 40, 10) == 120 + 20 + 60


def test_a_fraction_of_a_nano_unit_is_a_whole_one() -> None:
    assert cost(Price(prompt=1), 1, 0, 0) == 1
    assert cost(Price(prompt=1), 1_000_000, 0, 0) == 1
    assert cost(Price(), 10**9, 0, 10**9) == 0


def test_more_cached_tokens_than_prompt_are_the_prompt() -> None:
    assert cost(Price(prompt=10**6, cached=10**6), 5, 9, 0) == 5


def test_an_estimate_is_rather_high_and_never_nothing() -> None:
    assert [estimate_tokens(chars) for chars in (0, 1, 3, 4, 300)] == [1, 1, 1, 2, 100]


@given(prices, counts, counts, counts)
def test_costs_are_exact_but_for_rounding_up_and_never_above_the_worst_case(
    price: Price, prompt: int, cached: int, completion: int
) -> None:
    hit = min(cached, prompt)
    exact = Fraction((prompt - hit) * price.prompt + hit * price.cached + completion * price.completion, 10**6)
    charged = cost(price, prompt, cached, completion)
    assert exact <= charged < exact + 1
    assert charged <= worst_case(price, prompt, completion)
