"""When the simulator says what: slots, the queue before them, the delays, and the cache of prefixes.

One timer serves every request: it is set for the earliest moment at which somebody has a token to say. Moments are
counted from a request's start, so that delays do not add up; who is late says all that is due at once.
"""

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from node_agent.engines.simulator_metrics import Metrics
from node_agent.engines.simulator_options import Options

BLOCK = 16  # tokens that the cache keeps or forgets together
_SLACK_S = 0.0005  # due within this: said now, with the same write
_ROUNDING = 1e-5  # tokens: the moment of an alarm is never just before its token's


class Timer(Protocol):
    """What of an event loop is needed; tests bring their own."""

    def time(self) -> float:
        """Seconds that never go back."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        """Call it then."""


@dataclass(eq=False, slots=True, kw_only=True)
class Job:
    """One request to the model. ``steps`` moments at which it says something; 0 for one that only reads."""

    prompt: Sequence[str]
    answer: Sequence[Sequence[str]]
    """The tokens of each choice."""
    reasons: Sequence[str]
    """Why each choice ends."""
    say: Callable[[int, int], None] = lambda first, last: None
    """Steps ``first`` up to and without ``last`` are due."""
    done: Callable[[], None] = lambda: None
    steps: int = field(init=False, default=0)
    said: int = field(init=False, default=0)
    cached: int = field(init=False, default=0)
    blocks: int = field(init=False, default=0)
    running: bool = field(init=False, default=False)
    over: bool = field(init=False, default=False)
    arrived: float = field(init=False, default=0.0)
    began: float = field(init=False, default=0.0)
    first: float = field(init=False, default=0.0)
    last: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.steps = max(map(len, self.answer), default=0)


class PrefixCache:
    """Which blocks of which beginnings were read lately; the one not used for longest goes first."""

    def __init__(self, blocks: int) -> None:
        self._room = blocks
        self._kept: OrderedDict[int, None] = OrderedDict()

    def hit(self, words: Sequence[str]) -> int:
        """How many tokens at the beginning are known. The last one never is: it has to be read anyway."""
        known, chain = 0, 0
        for end in range(BLOCK, len(words), BLOCK):
            chain = hash((chain, *words[end - BLOCK : end]))
            if chain not in self._kept:
                break
            self._kept.move_to_end(chain)
            known = end
        return known

    def keep(self, words: Sequence[str]) -> None:
        """Remember every whole block."""
        chain = 0
        for end in range(BLOCK, len(words) + 1, BLOCK):
            chain = hash((chain, *words[end - BLOCK : end]))
            self._kept[chain] = None
            self._kept.move_to_end(chain)
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)


class Scheduler:
    """Gives ``slots`` requests at a time their tokens, in order of arrival."""

    def __init__(self, options: Options, slots: int, metrics: Metrics, timer: Timer) -> None:
        self._options, self._slots, self._metrics, self._timer = options, slots, metrics, timer
        self._cache = PrefixCache(options.cache_blocks)
        self._waiting: deque[Job] = deque()
        self._due: list[tuple[float, int, Job]] = []
        self._count = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._blocks = 0
        self._filling = False
        self.running = 0

    @property
    def waiting(self) -> int:
        """Requests that have no slot yet."""
        return len(self._waiting)

    @property
    def cache_usage(self) -> float:
        """Share of the cache that running requests hold, 0 to 1."""
        return min(1.0, self._blocks / self._options.cache_blocks) if self._options.cache_blocks else 1.0

    def submit(self, job: Job) -> None:
        """Take a request in. With no delays and a free slot it is answered before this returns."""
        job.arrived = self._timer.time()
        if self.running < self._slots:
            self._begin(job)
        else:
            self._waiting.append(job)

    def abort(self, job: Job) -> None:
        """Its client is gone: stop at once. After its end this does nothing."""
        if job.over:
            return
        job.over = True
        self._metrics.aborted += 1
        self._metrics.finished["abort"] += 1
        if job.running:
            self._release(job)
            self._next()
        else:
            self._waiting.remove(job)

    def _begin(self, job: Job) -> None:
        options, metrics = self._options, self._metrics
        job.began, job.running = self._timer.time(), True
        job.cached = self._cache.hit(job.prompt)
        self._cache.keep(job.prompt)
        size = len(job.prompt)
        metrics.cache_queries += size
        metrics.cache_hits += job.cached
        metrics.prompt_tokens += size
        job.blocks = -(-(size + job.steps) // BLOCK)
        self._blocks += job.blocks
        self.running += 1
        job.first = job.began + options.ttft_ms / 1e3 + (size - job.cached) * options.prefill_us_per_token / 1e6
        self._advance(job, job.began)

    def _advance(self, job: Job, now: float) -> None:
        """Let it say what is due, and set it up for what is not."""
        due = self._due_steps(job, now + _SLACK_S)
        if due > job.said:
            if job.said == 0:
                self._metrics.ttft.observe(now - job.arrived)
                self._metrics.prefill.observe(now - job.began)
                fresh = due - 1
            else:
                fresh = due - job.said
            if fresh:
                self._metrics.token.observe(max(0.0, now - (job.last or now)) / fresh, fresh)
            job.last = now
            first, job.said = job.said, due
            job.say(first, due)
        if job.over:  # what it said broke the connection
            return
        if job.said >= job.steps and now + _SLACK_S >= job.first:
            self._finish(job, now)
            return
        when = job.first + job.said * self._options.token_ms / 1e3
        self._count += 1
        heapq.heappush(self._due, (when, self._count, job))
        self._set_alarm()

    def _due_steps(self, job: Job, now: float) -> int:
        if now < job.first:
            return 0
        pause = self._options.token_ms / 1e3
        if pause <= 0:
            return job.steps
        return min(job.steps, 1 + int((now - job.first) / pause + _ROUNDING))

    def _set_alarm(self) -> None:
        when = self._due[0][0]
        if self._alarm is not None:
            if self._alarm_at <= when:
                return
            self._alarm.cancel()
        self._alarm, self._alarm_at = self._timer.call_at(when, self._tick), when

    def _tick(self) -> None:
        self._alarm = None
        now = self._timer.time()
        jobs = []  # all of them first: whoever is set up again has its turn at the next alarm
        while self._due and self._due[0][0] <= now + _SLACK_S:
            jobs.append(heapq.heappop(self._due)[2])
        for job in jobs:
            if not job.over:
                self._advance(job, now)
        if self._due:
            self._set_alarm()

    def _finish(self, job: Job, now: float) -> None:
        metrics = self._metrics
        job.over = True
        drawn = sum(map(len, job.answer))
        metrics.generation_tokens += drawn
        for reason in job.reasons:
            metrics.finished[reason] += 1
        metrics.prompt.observe(len(job.prompt))
        metrics.generated.observe(drawn)
        metrics.whole.observe(now - job.arrived)
        metrics.queue.observe(job.began - job.arrived)
        metrics.inference.observe(now - job.began)
        metrics.decode.observe(max(0.0, now - job.first))
        if job.steps > 1:
            metrics.per_token.observe(max(0.0, now - job.first) / (job.steps - 1))
        if job.answer:
            self._cache.keep([*job.prompt, *(token.strip() for token in job.answer[0])])
        self._release(job)
        job.done()
        self._next()

    def _release(self, job: Job) -> None:
        job.running = False
        self.running -= 1
        self._blocks -= job.blocks

    def _next(self) -> None:
        if self._filling:  # whoever calls us from in there goes on by itself
            return
        self._filling = True
        try:
            while self._waiting and self.running < self._slots:
                self._begin(self._waiting.popleft())
        finally:
            self._filling = False
