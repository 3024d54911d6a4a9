"""When the simulator says what: slots, queue, delays, and the cache of prefixes."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from node_agent.engines.simulator_metrics import Metrics
from node_agent.engines.simulator_options import parse
from node_agent.engines.simulator_scheduler import BLOCK, Job, PrefixCache, Scheduler
from tests.fakes.simulator import FakeTimer

WORDS = [f"w{number}" for number in range(100)]


class Bench:
    """A scheduler, and what it did when."""

    def __init__(self, options: str = "", slots: int = 2) -> None:
        self.timer, self.metrics = FakeTimer(), Metrics()
        self.scheduler = Scheduler(parse(options), slots, self.metrics, self.timer)
        self.log: list[tuple[str, float, int, int]] = []
        self.ends: dict[str, float] = {}

    def job(self, name: str, tokens: int, prompt: Sequence[str] = ("a",)) -> Job:
        def say(first: int, last: int) -> None:
            self.log.append((name, round(self.timer.now, 6), first, last))

        job = Job(prompt=prompt, answer=[["t"] * tokens] if tokens else [], reasons=["stop"], say=say)
        job.done = lambda: self.ends.__setitem__(name, round(self.timer.now, 6))
        self.scheduler.submit(job)
        return job


def test_with_no_delays_all_is_said_at_once() -> None:
    bench = Bench()
    bench.job("a", 5)
    assert bench.log == [("a", 0.0, 0, 5)]
    assert bench.ends == {"a": 0.0}
    assert bench.timer.set == 0


def test_tokens_come_one_by_one_at_their_moments() -> None:
    bench = Bench("ttft_ms=10,token_ms=5")
    bench.job("a", 3)
    bench.timer.forward(1)
    assert bench.log == [("a", 0.01, 0, 1), ("a", 0.015, 1, 2), ("a", 0.02, 2, 3)]
    assert bench.ends == {"a": 0.02}


def test_who_is_late_says_all_that_is_due_and_is_on_time_again() -> None:
    bench = Bench("ttft_ms=10,token_ms=10")
    bench.job("a", 8)
    bench.timer.now = 0.035  # the process was held up
    bench.timer.forward(0.0)
    bench.timer.forward(0.01)
    assert bench.log == [("a", 0.035, 0, 3), ("a", 0.04, 3, 4)]


def test_one_timer_serves_everybody() -> None:
    bench = Bench("ttft_ms=10,token_ms=5", slots=50)
    for number in range(50):
        bench.job(str(number), 3)
    assert bench.timer.set == 1
    bench.timer.forward(1)
    assert len(bench.ends) == 50


def test_more_than_the_slots_wait_in_order_of_arrival() -> None:
    bench = Bench("ttft_ms=10", slots=2)
    for name in "abcde":
        bench.job(name, 1)
    assert (bench.scheduler.running, bench.scheduler.waiting) == (2, 3)
    bench.timer.forward(1)
    assert bench.ends == {"a": 0.01, "b": 0.01, "c": 0.02, "d": 0.02, "e": 0.03}
    assert bench.metrics.queue.sum > 0.03
    assert (bench.scheduler.running, bench.scheduler.waiting, bench.scheduler.cache_usage) == (0, 0, 0.0)


def test_many_waiting_that_need_no_time_follow_one_another_without_depth() -> None:
    bench = Bench("token_ms=10", slots=1)
    bench.job("long", 2)
    for number in range(3000):
        bench.job(str(number), 1)
    bench.timer.forward(0.02)
    assert len(bench.ends) == 3001


def test_who_leaves_frees_its_slot_at_once_and_is_counted() -> None:
    bench = Bench("ttft_ms=10,token_ms=10", slots=1)
    first, second, third = bench.job("a", 9), bench.job("b", 1), bench.job("c", 1)
    bench.timer.forward(0.015)
    bench.scheduler.abort(second)
    bench.scheduler.abort(first)
    bench.timer.forward(1)
    assert bench.ends == {"c": 0.025}
    assert bench.log == [("a", 0.01, 0, 1), ("c", 0.025, 0, 1)]
    bench.scheduler.abort(third)
    assert (bench.metrics.aborted, bench.metrics.finished["abort"]) == (2, 2)


def test_a_request_that_only_reads_takes_its_time_and_says_nothing() -> None:
    bench = Bench("prefill_us_per_token=1000")
    bench.job("a", 0, WORDS[:20])
    assert bench.ends == {}
    bench.timer.forward(0.02)
    assert bench.ends == {"a": 0.02}
    assert bench.log == []


def test_a_known_beginning_needs_no_reading() -> None:
    bench = Bench("prefill_us_per_token=1000")
    bench.job("a", 1, WORDS[:40])
    bench.timer.forward(1)
    again = bench.job("b", 1, [*WORDS[:40], "new"])
    assert again.cached == 32
    bench.timer.forward(1)
    assert bench.ends == {"a": 0.04, "b": 1.009}
    assert (bench.metrics.cache_queries, bench.metrics.cache_hits) == (81, 32)


def test_an_answer_is_part_of_the_next_turns_known_beginning() -> None:
    bench = Bench()
    bench.job("a", 32, WORDS[:16])
    assert bench.job("b", 1, [*WORDS[:16], *["t"] * 32, "more"]).cached == 48


def test_running_requests_hold_their_share_of_the_cache() -> None:
    bench = Bench("ttft_ms=10,cache_blocks=10")
    bench.job("a", 20, WORDS[:20])
    assert bench.scheduler.cache_usage == 0.3
    bench.job("b", 500, WORDS[:20])
    assert bench.scheduler.cache_usage == 1.0
    assert Bench("cache_blocks=0").scheduler.cache_usage == 1.0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 100)), min_size=1, max_size=30),
    st.integers(0, 8),
)
def test_the_cache_knows_whole_blocks_of_what_was_read_and_keeps_its_bound(
    reads: list[tuple[str, int]], room: int
) -> None:
    cache, ample, seen = PrefixCache(room), PrefixCache(1 << 20), set()
    for first, size in reads:
        words = [first, *WORDS][:size]
        best = 0
        for end in range(BLOCK, len(words), BLOCK):
            if tuple(words[:end]) not in seen:
                break
            best = end
        assert ample.hit(words) == best
        assert cache.hit(words) <= min(best, room * BLOCK)
        cache.keep(words)
        ample.keep(words)
        seen |= {tuple(words[:end]) for end in range(BLOCK, len(words) + 1, BLOCK)}


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6), st.booleans()), max_size=20),
    st.integers(1, 4),
    st.sampled_from(["", "ttft_ms=3", "token_ms=2", "ttft_ms=3,token_ms=2,prefill_us_per_token=100"]),
)
def test_everybody_is_answered_in_full_or_aborted_and_nothing_is_left(
    jobs: list[tuple[int, int, bool]], slots: int, options: str
) -> None:
    bench = Bench(options, slots)
    submitted = []
    for number, (wait, tokens, leaves) in enumerate(jobs):
        bench.timer.forward(wait / 1000)
        submitted.append((str(number), tokens, leaves, bench.job(str(number), tokens)))
        assert bench.scheduler.running <= slots
    for _, _, leaves, job in submitted:
        if leaves:
            bench.scheduler.abort(job)
    bench.timer.forward(10)
    assert (bench.scheduler.running, bench.scheduler.waiting, bench.scheduler.cache_usage) == (0, 0, 0.0)
    for name, tokens, leaves, _ in submitted:
        said = [step for who, _, first, last in bench.log if who == name for step in range(first, last)]
        assert said == list(range(len(said)))
        assert (name in bench.ends) or leaves
        assert name not in bench.ends or len(said) == tokens
    assert bench.metrics.aborted + len(bench.ends) == len(jobs)
