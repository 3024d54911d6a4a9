"""What holds of the queue whatever is asked of it, beside a model that looks at everything each time."""

import heapq
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.queue import PASS_ON, FairQueue, Full, Ticket
from gateway.core.snapshot import Priority

INF = float("inf")
WEIGHTS = {"a": 1, "b": 2, "c": 5, "d": 1}
CAPACITY = 6

keys = st.sampled_from(sorted(WEIGHTS))
weights = st.integers(1, 7)


def ticket(key: str, weight: int = 1, priority: Priority = Priority.NORMAL) -> Ticket[None]:
    return Ticket(key, weight, priority, INF, 0.0, None)


@dataclass
class Flow:
    start: Fraction
    number: int


@dataclass
class Slow:
    """The same rules without a heap: every ticket in one list, every question answered by looking at all."""

    waiting: list[Ticket[int]] = field(default_factory=list)
    late: list[Ticket[int]] = field(default_factory=list)
    clock: dict[Priority, Fraction] = field(default_factory=lambda: dict.fromkeys(Priority, Fraction(0)))
    flows: dict[tuple[Priority, str], Flow] = field(default_factory=dict)
    ends: dict[tuple[Priority, str], Fraction] = field(default_factory=dict)
    turns: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(Priority, 0))
    number: int = 0

    def held(self, key: str) -> int:
        return sum(one.key_id == key for one in self.waiting)

    def victim(self, new: Ticket[int]) -> Ticket[int] | None:
        """None: it is refused."""
        heavy = [key for key in WEIGHTS if self.held(key) > 1]
        most = max((Fraction(self.held(key), WEIGHTS[key]) for key in heavy), default=None)
        held = self.held(new.key_id)
        if most is None or (held and Fraction(held + 1, new.weight) >= most):
            return None
        heaviest = [key for key in heavy if Fraction(self.held(key), WEIGHTS[key]) == most]
        return [one for one in self.waiting if one.key_id in heaviest][-1]

    def push(self, new: Ticket[int]) -> None:
        self.number += 1
        place = (new.priority, new.key_id)
        if place not in self.flows:
            start = max(self.clock[new.priority], self.ends.get(place, Fraction(0)))
            self.flows[place] = Flow(start, self.number)
        self.waiting.append(new)

    def drop(self, one: Ticket[int]) -> None:
        self.waiting.remove(one)
        band, key = one.priority, one.key_id
        if not any(other.priority is band and other.key_id == key for other in self.waiting):
            self.ends[band, key] = self.flows.pop((band, key)).start
        if not any(other.priority is band for other in self.waiting):
            self.clock[band] = Fraction(0)
            self.ends = {place: end for place, end in self.ends.items() if place[0] is not band}

    def sweep(self, now: float) -> None:
        gone = [one for one in self.waiting if one.deadline <= now]
        for one in sorted(gone, key=lambda one: one.deadline):
            self.drop(one)
            self.late.append(one)

    def pop(self) -> Ticket[int] | None:
        bands = sorted({one.priority for one in self.waiting}, reverse=True)
        if not bands:
            return None
        for band in bands[:-1]:
            self.turns[band] = (self.turns[band] + 1) % PASS_ON
            if self.turns[band]:
                break
        else:
            band = bands[-1]
        place = min(
            (place for place in self.flows if place[0] is band),
            key=lambda place: (self.flows[place].start, self.flows[place].number),
        )
        flow = self.flows[place]
        one = min(
            (one for one in self.waiting if (one.priority, one.key_id) == place),
            key=lambda one: (one.deadline, one.arrived, one.payload),
        )
        self.clock[band] = flow.start
        # In integers, as the queue counts: keys that draw level by adding thirds do so in both or in neither.
        flow.start += (1 << 40) // one.weight
        self.number += 1
        flow.number = self.number
        self.drop(one)
        return one


class Beside(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue(CAPACITY)
        self.slow = Slow()
        self.now = 0.0
        self.count = 0

    @rule(key=keys, priority=st.sampled_from(Priority), patience=st.sampled_from([0.0, 1.0, 3.0, 9.0, INF]))
    def push(self, key: str, priority: Priority, patience: float) -> None:
        self.count += 1
        new = Ticket(key, WEIGHTS[key], priority, self.now + patience, self.now, self.count)
        full = len(self.slow.waiting) + len(self.slow.late) >= CAPACITY
        expected = self.slow.victim(new) if full else None
        if full and expected is None:
            with pytest.raises(Full):
                self.queue.push(new)
            return
        held = {other: self.slow.held(other) for other in WEIGHTS}
        evicted = self.queue.push(new)
        assert (evicted is None) == (expected is None)
        if evicted is not None and expected is not None:  # among equals either may make way
            assert evicted is [one for one in self.slow.waiting if one.key_id == evicted.key_id][-1]
            loads = [Fraction(held[one.key_id], WEIGHTS[one.key_id]) for one in (evicted, expected)]
            assert loads[0] == loads[1]
            self.slow.drop(evicted)
        self.slow.push(new)

    @rule()
    def pop(self) -> None:
        self.slow.sweep(self.now)
        assert self.queue.pop(self.now) is self.slow.pop()

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def collect(self) -> None:
        self.slow.sweep(self.now)
        assert {one.payload for one in self.queue.expired(self.now)} == {one.payload for one in self.slow.late}
        self.slow.late.clear()

    @precondition(lambda self: self.slow.waiting or self.slow.late)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([*self.slow.waiting, *self.slow.late]))
        assert self.queue.remove(one)
        assert not self.queue.remove(one)
        if one in self.slow.late:
            self.slow.late.remove(one)
        else:
            self.slow.drop(one)

    @invariant()
    def counts_agree(self) -> None:
        slow = self.slow
        assert self.queue.depth == len(slow.waiting) + len(slow.late) <= CAPACITY
        assert all(self.queue.depth_of(key) == slow.held(key) for key in WEIGHTS)
        assert self.queue.oldest(self.now) == (self.now - slow.waiting[0].arrived if slow.waiting else 0.0)


TestBeside = Beside.TestCase
TestBeside.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=2), weights, min_size=1, max_size=6), st.integers(1, 120))
def test_keys_that_always_wait_share_by_weight_within_one_request_each(by_key: dict[str, int], pops: int) -> None:
    queue: FairQueue[None] = FairQueue(10_000)
    served = dict.fromkeys(by_key, 0)
    for key, weight in by_key.items():
        for _ in range(pops):
            queue.push(ticket(key, weight))
    for _ in range(pops):
        one = queue.pop(0.0)
        assert one is not None  # work conserving
        served[one.key_id] += 1
    total = sum(by_key.values())
    for key, weight in by_key.items():
        for other, its in by_key.items():  # the law of start-time fair queuing
            apart = abs(Fraction(served[key], weight) - Fraction(served[other], its))
            assert apart <= Fraction(1, weight) + Fraction(1, its) + Fraction(1, 1 << 20)
        assert served[key] > Fraction(pops * weight, total) - 1 - Fraction(weight * len(by_key), total)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(keys, st.sampled_from(Priority)), min_size=1, max_size=60),
    st.lists(st.integers(0, 99), max_size=60),
)
def test_all_who_are_not_removed_are_served_and_nobody_else(
    came: list[tuple[str, Priority]], leave: list[int]
) -> None:
    queue: FairQueue[None] = FairQueue(100)
    waiting = [ticket(key, WEIGHTS[key], priority) for key, priority in came]
    for one in waiting:
        queue.push(one)
    for place in leave:
        if place < len(waiting):
            queue.remove(waiting.pop(place))
    served = []
    while (next_one := queue.pop(0.0)) is not None:
        served.append(next_one)
    assert len(served) == len(waiting)
    assert set(served) == set(waiting)
    assert (queue.depth, queue.oldest(1.0)) == (0, 0.0)


@settings(max_examples=60)
@given(st.integers(0, 20), st.sampled_from([Priority.LOW, Priority.NORMAL]), st.integers(1, 4))
def test_a_flood_above_starves_nobody(served: int, priority: Priority, others: int) -> None:
    queue: FairQueue[None] = FairQueue(10_000)
    higher = [one for one in Priority if one > priority]
    single = ticket("single", 1, priority)

    def flood() -> None:
        for band in higher:
            queue.push(ticket("flood", 100, band))
        for n in range(others):
            queue.push(ticket(f"other{n}", 100, priority))

    for _ in range(served):
        flood()
        queue.pop(0.0)
    queue.push(single)
    # Beside others of weight 100 it goes at once: it is behind nobody's second request.
    for _ in range(PASS_ON ** len(higher) * (others + 1)):
        flood()
        if queue.pop(0.0) is single:
            return
    pytest.fail("it was never served")


@settings(max_examples=80)
@given(st.integers(1, 40), st.lists(keys, max_size=150))
def test_a_key_within_its_share_of_places_always_has_one(capacity: int, came: list[str]) -> None:
    queue: FairQueue[None] = FairQueue(capacity)
    for key in came:
        weight = WEIGHTS[key]
        total = sum(WEIGHTS[other] for other in WEIGHTS if queue.depth_of(other) or other == key)
        fair = Fraction(capacity * weight, total)
        before = queue.depth_of(key)
        try:
            queue.push(ticket(key, weight))
        except Full:
            shares = {other: Fraction(capacity * its, total) for other, its in WEIGHTS.items()}
            above = [other for other, its in shares.items() if queue.depth_of(other) > its]
            # Shares may be less than one place, and an only ticket is left to its key.
            assert before + 1 > fair or all(queue.depth_of(other) == 1 for other in above)
        assert queue.depth <= capacity


@pytest.mark.parametrize("workers", [1, 2, 7, 64])
@pytest.mark.parametrize("at", [0.0, 0.3, 3.0, 7.5])
def test_a_thousand_waiting_requests_delay_another_keys_one_by_no_more_than_a_service_time(
    workers: int, at: float
) -> None:
    """Key A has 1,000 waiting, key B comes with one; service takes 1, and somebody is free at the next end."""
    queue: FairQueue[str] = FairQueue(2000)
    for n in range(1000 + workers):
        queue.push(Ticket("a", 1, Priority.NORMAL, INF, 0.0, f"a{n}"))
    ends: list[float] = []
    for n in range(workers):  # not all at once: their ends are spread over one service time
        queue.pop(0.0)
        heapq.heappush(ends, 1 + n / workers)
    came, ahead = False, 0
    while True:
        now = heapq.heappop(ends)
        if now > at and not came:
            queue.push(Ticket("b", 1, Priority.NORMAL, INF, at, "b"))
            came = True
        one = queue.pop(now)
        assert one is not None
        heapq.heappush(ends, now + 1)
        if one.payload == "b":
            break
        ahead += came
    assert ahead == 0  # nobody of A's, whatever A has waiting
    assert now - at <= 1.0
