"""What this gateway tells Prometheus. Labels are bounded: a model is one of the snapshot, never what was asked.

Counting is adding to plain numbers, several times per request; only a scrape makes metrics of them.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.core.metering import Usage
from gateway.core.usage import Outcome

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_BOUNDS = (*map(str, _SECONDS), "+Inf")


@dataclass(slots=True)
class Durations:
    """How many durations fell into which bucket."""

    buckets: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus wants it: each bucket holds those before it."""
        found, seen = [], 0
        for bound, count in zip(_BOUNDS, self.buckets, strict=True):
            seen += count
            found.append((bound, float(seen)))
        return found


@dataclass(slots=True)
class OfModel:
    """The numbers of one model."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    first_token: Durations = field(default_factory=Durations)
    duration: Durations = field(default_factory=Durations)


@dataclass(slots=True, eq=False)
class Metrics(Collector):
    """The numbers of one gateway. ``gauges`` are looked up when somebody asks."""

    gauges: dict[str, tuple[str, Callable[[], float]]] = field(default_factory=dict)
    _requests: Counter[tuple[str, int]] = field(init=False, default_factory=Counter)
    _failed_attempts: Counter[str] = field(init=False, default_factory=Counter)
    _models: dict[str, OfModel] = field(init=False, default_factory=dict)

    def gauge(self, name: str, text: str, ask: Callable[[], float]) -> None:
        """Show what ``ask`` returns, under that name."""
        self.gauges[name] = text, ask

    def answered(self, model: str, status: int) -> None:
        """A client was given a status. Without a model: it was refused before one was known."""
        self._requests[model, status] += 1

    def first_token(self, model: str, seconds: float) -> None:
        """The first of a stream has come."""
        self._of(model).first_token.add(seconds)

    def ended(self, model: str, outcome: Outcome, seconds: float, usage: Usage) -> None:
        """A request that was let in is over."""
        of = self._of(model)
        of.outcomes[outcome] += 1
        of.duration.add(seconds)
        of.prompt += usage.prompt_tokens or 0
        of.completion += usage.completion_tokens or 0
        of.cached += usage.cached_tokens or 0

    def attempt_failed(self, reason: str) -> None:
        """A worker did not answer, and its client has seen nothing yet."""
        self._failed_attempts[reason] += 1

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Everything, as Prometheus' own objects."""
        requests = CounterMetricFamily(
            "mesh_gateway_requests", "Requests answered, by model and status.", labels=("model", "status")
        )
        for (model, status), count in self._requests.items():
            requests.add_metric((model, str(status)), count)
        yield requests
        attempts = CounterMetricFamily(
            "mesh_gateway_failed_attempts", "Workers that did not answer, by reason.", labels=("reason",)
        )
        for reason, count in self._failed_attempts.items():
            attempts.add_metric((reason,), count)
        yield attempts
        yield from self._by_model()
        for name, (text, ask) in self.gauges.items():
            yield GaugeMetricFamily(f"mesh_gateway_{name}", text, value=ask())

    def _by_model(self) -> Iterator[Metric]:
        outcomes = CounterMetricFamily(
            "mesh_gateway_outcomes", "Requests let in, by how they ended.", labels=("model", "outcome")
        )
        tokens = CounterMetricFamily(
            "mesh_gateway_tokens", "Tokens, by the engines' own numbers.", labels=("model", "kind")
        )
        first = HistogramMetricFamily(
            "mesh_gateway_first_token_seconds",
            "From a request's arrival to the first of its stream.",
            labels=("model",),
        )
        whole = HistogramMetricFamily(
            "mesh_gateway_request_seconds", "From a request's arrival to its end.", labels=("model",)
        )
        for model, of in self._models.items():
            for outcome, count in of.outcomes.items():
                outcomes.add_metric((model, outcome.value), count)
            for kind, count in (("prompt", of.prompt), ("completion", of.completion), ("cached", of.cached)):
                tokens.add_metric((model, kind), count)
            first.add_metric((model,), of.first_token.cumulative(), of.first_token.total)
            whole.add_metric((model,), of.duration.cumulative(), of.duration.total)
        yield from (outcomes, tokens, first, whole)

    def _of(self, model: str) -> OfModel:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = OfModel()
        return found
