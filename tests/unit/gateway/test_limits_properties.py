"""Properties of gateway/core/limits.py: whatever happens in whatever order, a meter agrees with plain sums."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from gateway.core.limits import Meter, Need, Refused, Reservation, Short, Subject
from gateway.core.snapshot import Limits
from gateway.core.windows import SPAN, UNIT, Kind, Span, Unit, starts_at

small = st.none() | st.integers(0, 12)
limits = st.builds(Limits, *[small] * 7)
needs = st.builds(Need, st.integers(0, 6), st.integers(0, 6))
Key = tuple[str, Kind, int]


class MeterAgainstSums(RuleBasedStateMachine):
    """``sums`` holds what every reservation put into each window; ``rows`` the part of each open one."""

    reservations: Bundle[Any] = Bundle("reservations")

    @initialize(key=limits, project=limits)
    def begin(self, key: Limits, project: Limits) -> None:
        self.meter = Meter()
        self.now = datetime(2026, 12, 31, 23, 50, tzinfo=UTC)
        self.subjects = (Subject("k", key), Subject("p", project, "project"))
        self.sums: Counter[Key] = Counter()
        self.rows: dict[int, dict[Key, int]] = {}
        self.kept: list[Reservation] = []

    def wanted(self, need: Need, both: bool) -> tuple[tuple[Subject, ...], dict[Key, int]]:
        subjects = self.subjects if both else self.subjects[:1]
        starts = starts_at(int(self.now.timestamp()))
        amounts = {Unit.REQUESTS: 1, Unit.RUNNING: 1, Unit.TOKENS: need.tokens, Unit.MONEY: need.money}
        row = {
            (one.id, kind, starts[SPAN[kind]]): amounts[UNIT[kind]]
            for one in subjects
            for kind in Kind
            if getattr(one.limits, kind) is not None
        }
        return subjects, row

    def limit(self, key: Key) -> int:
        subject = next(one for one in self.subjects if one.id == key[0])
        limit: int = getattr(subject.limits, key[1])
        return limit

    @rule(target=reservations, need=needs, both=st.booleans())
    def reserve(self, need: Need, both: bool) -> Reservation | None:
        subjects, row = self.wanted(need, both)
        over = {key for key, amount in row.items() if amount and self.sums[key] + amount > self.limit(key)}
        outcome = self.meter.reserve(subjects, need, self.now)
        assert not isinstance(outcome, Short)
        if isinstance(outcome, Refused):
            named = {(subject, kind) for subject, kind, _ in over}
            assert (outcome.subject, outcome.kind) in named
            assert outcome.never == any(row[key] > self.limit(key) for key in over)
            return None
        assert not over
        self.sums.update(row)
        self.rows[id(outcome)] = row
        self.kept.append(outcome)  # so that no other gets its id
        return outcome

    @rule(one=reservations, tokens=st.integers(0, 9), money=st.integers(0, 9))
    def settle(self, one: Reservation | None, tokens: int, money: int) -> None:
        if one is None:
            return
        self.meter.settle(one, tokens, money)
        actual = {Unit.REQUESTS: 1, Unit.RUNNING: 0, Unit.TOKENS: tokens, Unit.MONEY: money}
        for key, amount in self.rows.pop(id(one), {}).items():
            self.sums[key] += actual[UNIT[key[1]]] - amount

    @rule(one=reservations)
    def refund(self, one: Reservation | None) -> None:
        if one is not None:
            self.meter.refund(one)
            self.sums.subtract(self.rows.pop(id(one), {}))

    @rule(seconds=st.sampled_from([1, 20, 61, 700, 86_400]))
    def pass_time(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def counters_are_the_sums(self) -> None:
        starts = starts_at(int(self.now.timestamp()))
        found = {
            (subject, kind, window): count.used
            for subject, kind, window, count in self.meter.counts(self.now)
            if count.used
        }
        current = {key: sum_ for key, sum_ in self.sums.items() if sum_ and key[2] == starts[SPAN[key[1]]]}
        assert found == current

    @invariant()
    def what_runs_is_what_is_open(self) -> None:
        for subject in self.subjects:
            if subject.limits.concurrent_requests is not None:
                key = (subject.id, Kind.CONCURRENT_REQUESTS, starts_at(0)[Span.NOW])
                assert self.sums[key] == sum(key in row for row in self.rows.values())


MeterAgainstSums.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMeterAgainstSums = MeterAgainstSums.TestCase
