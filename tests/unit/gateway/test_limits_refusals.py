"""Tests of gateway/core/refusals.py."""

from datetime import UTC, datetime

from gateway.core.limits import Meter, Need, Refused, Subject
from gateway.core.refusals import LimitReached, QuotaExhausted, headers, limit_reached
from gateway.core.snapshot import Limits
from gateway.core.windows import Kind

NOW = datetime(2026, 11, 23, 12, 0, 15, tzinfo=UTC)


def refused(kind: Kind, *, never: bool = False) -> Refused:
    return Refused("k-1", "key", kind, 2_500_000_000, 1_200, 40_000, 12.5, never)


def test_limits_by_the_minute_say_when_to_try_again() -> None:
    error = limit_reached(refused(Kind.TOKENS_PER_MINUTE))
    assert (error.code, error.retry_after_s, error.kind, error.subject_kind) == (
        "rate_limit_exceeded",
        12.5,
        Kind.TOKENS_PER_MINUTE,
        "key",
    )
    assert str(error) == (
        "Rate limit reached for key k-1 on tokens per min (TPM): "
        "Limit 2500000000, Remaining 1200, Requested 40000. Please try again in 12.5s."
    )


def test_budgets_have_a_code_of_their_own_and_money_is_told_in_units() -> None:
    error = limit_reached(refused(Kind.MONEY_PER_MONTH))
    assert isinstance(error, QuotaExhausted)
    assert error.code == "insufficient_quota"
    assert str(error) == (
        "You exceeded your current quota for key k-1 on money per month: "
        "Limit 2.5, Remaining 0.0000012, Requested 0.00004."
    )


def test_what_can_never_fit_is_told_so() -> None:
    error = limit_reached(refused(Kind.TOKENS_PER_MINUTE, never=True))
    assert type(error) is LimitReached
    assert str(error).startswith("Request too large for key k-1 on tokens per min (TPM): ")


def test_headers_tell_the_tightest_limit_by_the_minute() -> None:
    meter = Meter()
    key = Subject("k", Limits(requests_per_minute=60, tokens_per_minute=1000, tokens_per_day=5000))
    project = Subject("p", Limits(requests_per_minute=30, tokens_per_minute=9000), "project")
    meter.reserve((key, project), Need(200), NOW)
    assert headers((key, project), meter, NOW) == {
        "x-ratelimit-limit-requests": "30",
        "x-ratelimit-remaining-requests": "29",
        "x-ratelimit-reset-requests": "45s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "800",
        "x-ratelimit-reset-tokens": "45s",
    }


def test_headers_tell_only_of_limits_that_there_are() -> None:
    assert headers((Subject("k", Limits(concurrent_requests=1, money_per_day=1)),), Meter(), NOW) == {}
    only = headers((Subject("k", Limits(requests_per_minute=5)),), Meter(), NOW)
    assert list(only) == [f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset")]
