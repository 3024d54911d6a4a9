"""Tests of gateway/core/windows.py."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.snapshot import Limits
from gateway.core.windows import Kind, Span, duration, end_of, starts_at

moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def test_each_field_of_limits_is_a_kind() -> None:
    assert [kind.value for kind in Kind] == list(Limits.__slots__)
    assert [kind for kind in Kind if kind.is_budget] == list(Kind)[3:]


@given(moments)
def test_a_moment_is_in_its_window_and_the_next_window_begins_where_it_ends(now: datetime) -> None:
    seconds = int(now.timestamp())
    starts = starts_at(seconds)
    assert starts[Span.NOW] == end_of(Span.NOW, 0) == 0
    for span in (Span.MINUTE, Span.DAY, Span.MONTH):
        end = end_of(span, starts[span])
        assert starts[span] <= seconds < end
        assert starts_at(end)[span] == end
        assert starts_at(end - 1)[span] == starts[span]


def test_windows_are_those_of_the_calendar() -> None:
    now = datetime(2028, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
    _, minute, day, month = starts_at(int(now.timestamp()))
    assert datetime.fromtimestamp(minute, UTC) == datetime(2028, 2, 29, 23, 59, tzinfo=UTC)
    assert datetime.fromtimestamp(day, UTC) == datetime(2028, 2, 29, tzinfo=UTC)
    assert datetime.fromtimestamp(month, UTC) == datetime(2028, 2, 1, tzinfo=UTC)
    assert end_of(Span.MONTH, month) == end_of(Span.DAY, day) == datetime(2028, 3, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.0119, "12ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (7.66, "7.66s"),
        (10, "10s"),
        (60, "1m0s"),
        (90.5, "1m30.5s"),
        (360, "6m0s"),
        (timedelta(days=1).total_seconds(), "24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
