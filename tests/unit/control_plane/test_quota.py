"""A limit is divided so that all shares together stay within it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.limits import LIMITS
from control_plane.core.quota import (
    LATE,
    LEASE,
    MAX_ASKS,
    SLACK,
    UNLIMITED,
    Ask,
    Grant,
    QuotaKind,
    Window,
    check_asks,
    divide,
    end,
    grant,
    is_over,
)
from mesh.kit.errors import InvalidInput

NOW = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC)
COUNTS = st.integers(0, 2**63 - 1)
MINUTE = Window("k1", QuotaKind.TOKENS_PER_MINUTE, int(NOW.timestamp()) - 30)
AT_ONCE = Window("k1", QuotaKind.CONCURRENT_REQUESTS, 0)


def window(kind: QuotaKind, start: datetime) -> Window:
    return Window("k1", kind, int(start.timestamp()))


def test_every_limit_has_a_kind() -> None:
    assert {kind.value for kind in QuotaKind} == set(LIMITS)


@given(limit=COUNTS, others=COUNTS, wanted=COUNTS, used=COUNTS)
def test_shares_exceed_a_limit_only_where_it_is_used_up_already(
    limit: int, others: int, wanted: int, used: int
) -> None:
    granted = grant(limit, others=others, wanted=wanted, used=used)
    assert granted >= used
    assert granted == used or (granted <= wanted and others + granted <= limit)
    if used <= wanted and others + wanted <= limit:
        assert granted == wanted


STEP = st.tuples(st.sampled_from("abc"), st.integers(0, 150), st.integers(0, 20))


@given(limit=st.integers(0, 100), steps=st.lists(STEP, max_size=30))
def test_gateways_that_use_only_what_they_hold_never_exceed_a_limit_together(
    limit: int, steps: list[tuple[str, int, int]]
) -> None:
    shares: dict[str, int] = {}
    for hub, wanted, used in steps:
        mine = shares.get(hub, 0)
        ask = Ask(MINUTE, wanted, min(used, mine))
        [given_], held = divide([ask], {MINUTE: limit}, {MINUTE: shares}, hub)
        shares[hub] = held[MINUTE]
        assert given_.granted == held[MINUTE]
        assert sum(shares.values()) + given_.left == limit


def test_what_is_left_is_never_below_nothing() -> None:
    [given_], held = divide([Ask(MINUTE, 5, 7)], {MINUTE: 10}, {MINUTE: {"b": 9}}, "a")
    assert (given_, held) == (Grant(7, 0), {MINUTE: 7})


def test_where_there_is_no_limit_what_is_wanted_is_granted_and_nothing_held() -> None:
    assert divide([Ask(MINUTE, 5, 7), Ask(AT_ONCE, 3, 1)], {}, {}, "a") == (
        [Grant(7, UNLIMITED), Grant(3, UNLIMITED, LEASE)],
        {},
    )


def test_asks_are_answered_in_their_order_and_the_last_of_a_window_counts() -> None:
    asks = [Ask(MINUTE, 9, 0), Ask(AT_ONCE, 2, 0), Ask(MINUTE, 4, 0)]
    grants, held = divide(asks, {MINUTE: 10, AT_ONCE: 1}, {MINUTE: {"a": 8, "b": 2}}, "a")
    assert grants == [Grant(8, 0), Grant(1, 0, LEASE), Grant(4, 4)]
    assert held == {MINUTE: 4, AT_ONCE: 1}


@pytest.mark.parametrize(
    ("kind", "start", "ends"),
    [
        (QuotaKind.REQUESTS_PER_MINUTE, NOW.replace(second=0), datetime(2026, 2, 1, tzinfo=UTC)),
        (QuotaKind.TOKENS_PER_DAY, datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
        (QuotaKind.MONEY_PER_DAY, datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)),
        (QuotaKind.TOKENS_PER_MONTH, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
        (QuotaKind.MONEY_PER_MONTH, datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        (QuotaKind.TOKENS_PER_MONTH, datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    ],
)
def test_windows_are_those_of_the_calendar(kind: QuotaKind, start: datetime, ends: datetime) -> None:
    check_asks([Ask(window(kind, start), 1, 0)], now=NOW)
    assert end(window(kind, start), now=NOW) == ends
    with pytest.raises(InvalidInput, match=r"asks\[1\]\.window"):
        check_asks([Ask(AT_ONCE, 1, 0), Ask(window(kind, start + timedelta(seconds=1)), 1, 0)], now=NOW)


@pytest.mark.parametrize(
    "bad",
    [
        Window("k1", QuotaKind.TOKENS_PER_MINUTE, -60),
        Window("k1", QuotaKind.TOKENS_PER_MINUTE, 2**62),
        Window("k1", QuotaKind.TOKENS_PER_MONTH, 2**62),
        window(QuotaKind.TOKENS_PER_DAY, datetime(2026, 2, 2, tzinfo=UTC)),  # more than a day ahead
        window(QuotaKind.CONCURRENT_REQUESTS, datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_window_that_there_is_not_is_refused(bad: Window) -> None:
    with pytest.raises(InvalidInput, match=r"asks\[0\]\.window: no window of"):
        check_asks([Ask(bad, 1, 0)], now=NOW)


def test_a_call_asks_for_so_much_and_no_more() -> None:
    check_asks([Ask(AT_ONCE, 1, 0)] * MAX_ASKS, now=NOW)
    with pytest.raises(InvalidInput, match="asks: at most 200, not 201"):
        check_asks([Ask(AT_ONCE, 1, 0)] * (MAX_ASKS + 1), now=NOW)


def test_a_window_is_over_some_time_after_its_end_and_requests_at_once_never_are() -> None:
    ended = end(MINUTE, now=NOW)
    assert not is_over(MINUTE, now=ended + LATE)
    assert is_over(MINUTE, now=ended + LATE + timedelta(seconds=1))
    assert not is_over(AT_ONCE, now=NOW)
    assert end(AT_ONCE, now=NOW) == NOW + LEASE + SLACK
