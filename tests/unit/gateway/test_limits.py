"""Tests of gateway/core/limits.py: what a meter lets in, and what is left afterwards."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.core.limits import NOTHING, Meter, Need, Refused, Reservation, Short, Subject
from gateway.core.snapshot import UNLIMITED, Limits
from gateway.core.windows import Kind, Span

NOW = datetime(2026, 11, 23, 12, 0, 15, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def held(outcome: object) -> Reservation:
    assert isinstance(outcome, Reservation), outcome
    return outcome


def refused(outcome: object) -> Refused:
    assert isinstance(outcome, Refused), outcome
    return outcome


def used(meter: Meter, now: datetime = NOW) -> dict[tuple[str, Kind], int]:
    return {(subject, kind): count.used for subject, kind, _, count in meter.counts(now) if count.used}


def test_without_limits_nothing_is_counted() -> None:
    meter = Meter()
    assert meter.reserve((Subject("k", UNLIMITED),), Need(5, 5), NOW) is NOTHING
    assert meter.reserve((), Need(), NOW) is NOTHING
    meter.settle(NOTHING, 9, 9)
    meter.refund(NOTHING)
    assert NOTHING.is_open
    assert not used(meter)


def test_every_kind_is_set_aside_and_settled_with_what_was_used() -> None:
    meter, subject = Meter(), Subject("k", Limits(*[1000] * 7))
    one = held(meter.reserve((subject,), Need(100, 200), NOW))
    assert sum(used(meter).values()) == 1 + 1 + 3 * 100 + 2 * 200
    meter.settle(one, 30, 40)
    assert used(meter) == {
        ("k", Kind.REQUESTS_PER_MINUTE): 1,
        ("k", Kind.TOKENS_PER_MINUTE): 30,
        ("k", Kind.TOKENS_PER_DAY): 30,
        ("k", Kind.TOKENS_PER_MONTH): 30,
        ("k", Kind.MONEY_PER_DAY): 40,
        ("k", Kind.MONEY_PER_MONTH): 40,
    }
    meter.settle(one, 500, 500)
    meter.refund(one)
    assert sum(used(meter).values()) == 171


def test_after_a_refund_nothing_has_happened() -> None:
    meter, subject = Meter(), Subject("k", Limits(*[1000] * 7))
    one = held(meter.reserve((subject,), Need(100, 200), NOW))
    meter.refund(one)
    meter.refund(one)
    meter.settle(one, 5, 5)
    assert not used(meter)


def test_a_refusal_names_the_limit_and_takes_nothing_from_anyone() -> None:
    meter = Meter()
    key, project = Subject("k", Limits(tokens_per_minute=100)), Subject("p", Limits(tokens_per_day=50), "project")
    held(meter.reserve((key, project), Need(30), NOW))
    before = used(meter)
    no = refused(meter.reserve((key, project), Need(30), NOW))
    assert (no.subject, no.subject_kind, no.kind, no.limit) == ("p", "project", Kind.TOKENS_PER_DAY, 50)
    assert (no.remaining, no.requested, no.never) == (20, 30, False)
    assert no.retry_after_s == 12 * 3600 - 15
    assert used(meter) == before


def test_of_several_limits_the_one_that_lasts_longest_is_named() -> None:
    meter = Meter()
    subject = Subject("k", Limits(requests_per_minute=1, concurrent_requests=1, tokens_per_minute=10))
    held(meter.reserve((subject,), Need(5), NOW))
    assert refused(meter.reserve((subject,), Need(5), NOW)).kind is Kind.REQUESTS_PER_MINUTE
    no = refused(meter.reserve((subject,), Need(11), NOW))
    assert (no.kind, no.never) == (Kind.TOKENS_PER_MINUTE, True)


def test_requests_at_once_are_free_again_when_one_ends() -> None:
    meter, subject = Meter(), Subject("k", Limits(concurrent_requests=1))
    one = held(meter.reserve((subject,), Need(), NOW))
    no = refused(meter.reserve((subject,), Need(), NOW + MINUTE))
    assert (no.kind, no.retry_after_s, no.remaining) == (Kind.CONCURRENT_REQUESTS, 1.0, 0)
    meter.settle(one, 0, 0)
    held(meter.reserve((subject,), Need(), NOW + MINUTE))


def test_spent_is_spent_even_above_the_limit() -> None:
    meter, subject = Meter(), Subject("k", Limits(tokens_per_minute=100))
    meter.settle(held(meter.reserve((subject,), Need(10), NOW)), 150, 0)
    no = refused(meter.reserve((subject,), Need(1), NOW))
    assert (no.remaining, no.never) == (0, False)
    held(meter.reserve((subject,), Need(0), NOW))  # what takes none of it is not held up by it


def test_a_new_window_begins_empty_and_a_late_settling_does_not_touch_it() -> None:
    meter, subject = Meter(), Subject("k", Limits(tokens_per_minute=100, tokens_per_month=100))
    late = held(meter.reserve((subject,), Need(90), NOW))
    assert held(meter.reserve((Subject("k", Limits(tokens_per_minute=100)),), Need(100), NOW + MINUTE))
    meter.settle(late, 10, 0)
    assert used(meter, NOW + MINUTE) == {("k", Kind.TOKENS_PER_MINUTE): 100, ("k", Kind.TOKENS_PER_MONTH): 10}


def test_old_windows_are_forgotten() -> None:
    meter, limits = Meter(), Limits(*[10] * 7)
    for number in range(100):
        one = held(meter.reserve((Subject(f"k{number}", limits),), Need(1, 1), NOW))
        meter.settle(one, 1, 1)
    assert len(list(meter.counts(NOW))) == 700
    assert len(list(meter.counts(NOW + MINUTE))) == 400
    assert len(list(meter.counts(NOW + timedelta(days=1)))) == 200
    assert not list(meter.counts(NOW + timedelta(days=31)))


def test_what_runs_is_not_forgotten() -> None:
    meter, subject = Meter(), Subject("k", Limits(concurrent_requests=1))
    held(meter.reserve((subject,), Need(), NOW))
    assert used(meter, NOW + timedelta(days=60)) == {("k", Kind.CONCURRENT_REQUESTS): 1}


def test_a_clock_set_back_a_little_gives_nobody_a_window_twice() -> None:
    meter, subject = Meter(), Subject("k", Limits(requests_per_minute=1))
    start = NOW.replace(second=0)
    held(meter.reserve((subject,), Need(), start))
    assert refused(meter.reserve((subject,), Need(), start - timedelta(seconds=5))).retry_after_s == 65
    held(meter.reserve((subject,), Need(), start - timedelta(hours=1)))  # it was wrong before


def test_what_is_shared_must_be_granted_first() -> None:
    meter, subject = Meter(shared=True), Subject("k", Limits(requests_per_minute=10, concurrent_requests=2))
    short = meter.reserve((subject,), Need(), NOW)
    assert isinstance(short, Short)
    assert [(lack.bound.kind, lack.amount, lack.counter.used) for lack in short.lacks] == [
        (Kind.REQUESTS_PER_MINUTE, 1, 0),
        (Kind.CONCURRENT_REQUESTS, 1, 0),
    ]
    assert [lack.window for lack in short.lacks] == [int(NOW.timestamp()) - 15, 0]
    for lack in short.lacks:
        lack.counter.share = 1
    held(meter.reserve((subject,), Need(), NOW))
    assert isinstance(meter.reserve((subject,), Need(), NOW), Short)
    assert not used(Meter(shared=True))


def test_what_its_holder_has_used_up_alone_is_refused_at_once() -> None:
    meter, subject = Meter(shared=True), Subject("k", Limits(requests_per_minute=1))
    meter.count(subject.bounds[0]).share = 5
    assert isinstance(meter.reserve((subject,), Need(), NOW), Short)  # that share was another window's
    meter.count(subject.bounds[0]).share = 5
    held(meter.reserve((subject,), Need(), NOW))
    assert refused(meter.reserve((subject,), Need(), NOW)).remaining == 0


def test_with_nobody_to_ask_each_gateway_has_its_even_part_of_all_but_budgets() -> None:
    meter = Meter(shared=True)
    subject = Subject("k", Limits(requests_per_minute=5, tokens_per_day=100))
    short = meter.reserve((subject,), Need(10), NOW, gateways=2)
    assert isinstance(short, Short)
    assert [lack.bound.kind for lack in short.lacks] == [Kind.TOKENS_PER_DAY]
    for _ in range(2):
        held(meter.reserve((subject,), Need(0), NOW, gateways=2))
    assert isinstance(meter.reserve((subject,), Need(0), NOW, gateways=2), Short)


@pytest.mark.parametrize(("share", "left", "expected"), [(4, None, 9), (4, 3, 6), (4, 100, 9), (0, 0, 0)])
def test_what_remains_of_a_shared_limit_is_what_was_last_heard(
    share: int, left: int | None, expected: int
) -> None:
    meter, subject = Meter(shared=True), Subject("k", Limits(requests_per_minute=10))
    bound = subject.bounds[0]
    assert meter.remaining(bound, NOW) == 10
    count = meter.count(bound)
    count.share, count.left, count.used = share, left, 1
    assert meter.remaining(bound, NOW) == expected


def test_the_window_in_force_is_known() -> None:
    assert Meter().window(Span.DAY, NOW) == int(NOW.replace(hour=0, second=0).timestamp())
