"""The numbers of one model, and of one deployment that answers for it. Adding is plain arithmetic."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from gateway.control.usage import Told
from gateway.core.usage import Outcome

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
BETWEEN: Final = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
"""Bounds for the time between two tokens: a person reads at 0.2 s, engines are at 0.01 to 0.1 s."""


@dataclass(slots=True)
class Durations:
    """How many durations, in seconds, fell into which bucket."""

    bounds: tuple[float, ...] = SECONDS
    buckets: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.buckets = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """One more."""
        self.buckets[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus wants it: each bucket holds those before it."""
        return list(zip((*map(str, self.bounds), "+Inf"), map(float, accumulate(self.buckets)), strict=True))


@dataclass(slots=True)
class OfModel:
    """What clients saw of one model. ``left_at``: when it was first missed in the snapshot."""

    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    limited: Counter[str] = field(default_factory=Counter)
    left_at: float | None = None


@dataclass(slots=True)
class OfDeployment:
    """What the workers of one deployment did for one model."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    """Attempts, by reason."""
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    money: int = 0
    """Nano-units of the currency."""
    retries: int = 0
    continuations: int = 0
    queue: Durations = field(default_factory=Durations)
    first_token: Durations = field(default_factory=Durations)
    inter_token: Durations = field(default_factory=lambda: Durations(BETWEEN))
    duration: Durations = field(default_factory=Durations)
    left_at: float | None = None

    def add(self, outcome: Outcome, seconds: float, told: Told) -> None:
        """A request that it had last is over."""
        usage = told.usage
        self.outcomes[outcome] += 1
        self.prompt += usage.prompt_tokens or 0
        self.completion += usage.completion_tokens or 0
        self.cached += usage.cached_tokens or 0
        self.money += told.charged_money
        self.retries += told.retries
        self.continuations += told.continuations
        self.queue.add(told.queue_s)
        self.duration.add(seconds)
        if told.inter_token_us is not None:
            self.inter_token.add(told.inter_token_us / 1e6)
