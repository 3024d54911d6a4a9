"""The circuit breaker of each worker."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.breaker import IN_A_ROW, LONGEST_S, OPEN_S, PROBE_S, WINDOW, WINDOW_S, Breaker, State


def ask(breaker: Breaker, now: float, *, failed: bool, worker: str = "w") -> bool:
    return breaker.end(worker, breaker.begin(worker, now), now, failed=failed)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for at in range(IN_A_ROW):
        assert ask(breaker, now, failed=True) is (at == IN_A_ROW - 1)
    return breaker


def test_a_worker_nobody_knows_may_be_asked() -> None:
    breaker = Breaker()
    assert breaker.admits("w", 0.0)
    assert (breaker.state("w"), breaker.retry_in("w", 0.0)) == (State.CLOSED, 0.0)
    assert len(breaker) == 0, "asking remembers nobody"


def test_failures_in_a_row_open_it_and_only_that_worker_s() -> None:
    breaker = opened()
    assert not breaker.admits("w", OPEN_S - 0.1)
    assert breaker.state("w") is State.OPEN
    assert breaker.retry_in("w", 1.0) == OPEN_S - 1.0
    assert breaker.admits("other", 0.0)


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(IN_A_ROW - 1):
            assert not ask(breaker, 0.0, failed=True)
        ask(breaker, 100.0, failed=False)
    assert breaker.state("w") is State.CLOSED
    assert breaker.retry_in("w", 100.0) == 0.0


def test_more_failures_than_successes_in_a_full_window_open_it() -> None:
    breaker = Breaker()
    for at in range(3 * WINDOW):
        assert not ask(breaker, 0.0, failed=at % 2 == 0), "half of them is not more than half"
    opens = [ask(breaker, 1.0, failed=at % 3 != 0) for at in range(6)]
    assert opens == [False] * 5 + [True], "an eleventh of the last twenty"


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker()
    for at in range(3 * WINDOW):
        assert not ask(breaker, at * (WINDOW_S / 10), failed=at % 3 != 0)
    assert breaker.state("w") is State.CLOSED


def test_after_its_time_exactly_one_probe_goes() -> None:
    breaker = opened()
    assert breaker.admits("w", OPEN_S)
    assert breaker.state("w") is State.OPEN, "asking changes nothing"
    breaker.begin("w", OPEN_S)
    assert breaker.state("w") is State.HALF_OPEN
    assert not breaker.admits("w", OPEN_S)
    assert not breaker.admits("w", OPEN_S + PROBE_S - 1)


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened()
    assert not ask(breaker, OPEN_S, failed=False)
    assert breaker.state("w") is State.CLOSED
    for _ in range(IN_A_ROW - 1):
        assert not ask(breaker, OPEN_S, failed=True), "and it begins anew"


def test_every_probe_that_fails_doubles_the_time_up_to_a_minute() -> None:
    breaker, now, waits = opened(), OPEN_S, []
    for _ in range(6):
        assert ask(breaker, now, failed=True)
        waits.append(breaker.retry_in("w", now))
        now += waits[-1]
    assert waits == [10.0, 20.0, 40.0, LONGEST_S, LONGEST_S, LONGEST_S]
    ask(breaker, now, failed=False)
    for _ in range(IN_A_ROW):
        ask(breaker, now, failed=True)
    assert breaker.retry_in("w", now) == OPEN_S, "one success and it is short again"


def test_a_probe_whose_client_left_makes_room_for_another() -> None:
    breaker = opened()
    ticket = breaker.begin("w", OPEN_S)
    breaker.abandon("w", ticket, OPEN_S + 1)
    assert breaker.admits("w", OPEN_S + 1)
    assert not breaker.end("w", ticket, OPEN_S + 2, failed=True), "it is over"
    breaker.abandon("w", ticket, OPEN_S + 2)
    breaker.abandon("nobody", 0, OPEN_S)
    assert breaker.admits("w", OPEN_S + 2)


def test_a_probe_that_is_never_heard_of_does_not_keep_the_worker_out_for_ever() -> None:
    breaker = opened()
    lost = breaker.begin("w", OPEN_S)
    assert breaker.admits("w", OPEN_S + PROBE_S)
    second = breaker.begin("w", OPEN_S + PROBE_S)
    assert not breaker.end("w", lost, OPEN_S + PROBE_S, failed=True)
    breaker.end("w", second, OPEN_S + PROBE_S, failed=False)
    assert breaker.state("w") is State.CLOSED


def test_what_began_before_it_opened_does_not_count_after() -> None:
    breaker = Breaker()
    old = breaker.begin("w", 0.0)
    for _ in range(IN_A_ROW):
        ask(breaker, 0.0, failed=True)
    assert not breaker.end("w", old, 1.0, failed=False)
    assert breaker.state("w") is State.OPEN
    probe = breaker.begin("w", OPEN_S)
    assert not breaker.end("w", old, OPEN_S, failed=True)
    assert breaker.state("w") is State.HALF_OPEN, "the probe decides, nobody else"
    breaker.end("w", probe, OPEN_S, failed=False)
    assert breaker.state("w") is State.CLOSED


def test_a_client_that_leaves_says_nothing_of_the_worker() -> None:
    breaker = Breaker()
    for _ in range(2 * IN_A_ROW):
        breaker.abandon("w", breaker.begin("w", 0.0), 0.0)
    assert breaker.state("w") is State.CLOSED


def test_workers_that_are_gone_are_forgotten() -> None:
    breaker = opened()
    ticket = breaker.begin("other", 0.0)
    breaker.keep({"other"})
    assert len(breaker) == 1
    assert breaker.admits("w", 0.0)
    assert breaker.state("w") is State.CLOSED
    breaker.keep(())
    assert not breaker.end("other", ticket, 0.0, failed=True)
    assert len(breaker) == 0


class OneWorker(RuleBasedStateMachine):
    """Whatever comes in whatever order: at most one probe, and never shut out for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now = Breaker(), 0.0
        self.out: list[int] = []

    @rule(seconds=st.floats(0, PROBE_S / 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.admits("w", self.now))
    @rule()
    def begin(self) -> None:
        was = self.breaker.state("w")
        self.out.append(self.breaker.begin("w", self.now))
        assert self.breaker.state("w") is (State.CLOSED if was is State.CLOSED else State.HALF_OPEN)
        if was is not State.CLOSED:
            assert not self.breaker.admits("w", self.now), "one probe is enough"

    @precondition(lambda self: self.out)
    @rule(failed=st.booleans(), data=st.data())
    def end(self, failed: bool, data: st.DataObject) -> None:
        ticket = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        opens = self.breaker.end("w", ticket, self.now, failed=failed)
        assert not opens or (failed and self.breaker.state("w") is State.OPEN)

    @precondition(lambda self: self.out)
    @rule()
    def abandon(self) -> None:
        self.breaker.abandon("w", self.out.pop(), self.now)

    @invariant()
    def somebody_may_ask_again(self) -> None:
        assert self.breaker.retry_in("w", self.now) <= max(PROBE_S, LONGEST_S)
        assert self.breaker.admits("w", self.now + max(PROBE_S, LONGEST_S))
        assert self.breaker.admits("w", self.now) == (self.breaker.retry_in("w", self.now) == 0.0)


TestOneWorker = OneWorker.TestCase
TestOneWorker.settings = settings(max_examples=40, stateful_step_count=30)
