"""When a certificate is renewed."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pki.names import Kind
from pki.policy import BACKDATE, LEAF_LIFETIME, SIGNED_BY, renew_at

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_renewal_is_due_at_half_of_the_life_give_or_take_a_tenth() -> None:
    start, end = NOW - BACKDATE, NOW + timedelta(hours=24)
    assert renew_at(start, end) == NOW + timedelta(hours=12)
    assert renew_at(start, end, jitter=0.0) == NOW + timedelta(hours=9.6)
    assert renew_at(start, end, jitter=1.0) == NOW + timedelta(hours=14.4)


@given(ttl=st.timedeltas(timedelta(seconds=1), timedelta(days=30)), jitter=st.floats(0, 1))
def test_renewal_is_due_after_the_start_and_well_before_the_end(ttl: timedelta, jitter: float) -> None:
    assert NOW < renew_at(NOW - BACKDATE, NOW + ttl, jitter=jitter) < NOW + ttl


def test_every_kind_has_a_lifetime_and_an_issuer() -> None:
    assert set(LEAF_LIFETIME) == set(SIGNED_BY) == set(Kind)
