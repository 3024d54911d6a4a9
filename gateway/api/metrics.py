"""What this gateway tells Prometheus. Labels are bounded: a model is one of the snapshot, never what was asked.

Counting is adding to plain numbers, several times per request; only a scrape makes metrics of them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.api.errors import CLIENT_LEFT, SHAPES
from gateway.api.metrics_model import Durations, OfDeployment, OfModel
from gateway.control.usage import Told
from gateway.core.snapshot import Snapshot
from gateway.core.usage import Outcome
from mesh.kit.clock import Clock

LABEL_SETS: Final = 500  # models, and pairs of a model and a deployment; what is more is counted as "other"
REMEMBERED_S: Final = 3600.0  # how long the numbers of a model stay that has left the snapshot
OTHER: Final = "other"
LEFT, ENGINE, INTERNAL = "client_left", "engine_error", "internal"
REASONS: Final = frozenset(SHAPES) | {LEFT, ENGINE, INTERNAL}
"""All that an error may be counted as."""
_STATUSES: Final = frozenset(int(status) for status in HTTPStatus) | {CLIENT_LEFT}

_Pair = tuple[str, str]
_PAIR: Final = ("model", "deployment")
_Key = TypeVar("_Key", str, _Pair)
_Numbers = TypeVar("_Numbers", OfModel, OfDeployment)


@dataclass(slots=True, eq=False)
class Metrics(Collector):
    """The numbers of one gateway. What gauges and ``totals`` show is looked up when somebody asks."""

    clock: Clock
    gauges: dict[str, tuple[str, Callable[[], float]]] = field(default_factory=dict)
    totals: dict[str, tuple[str, Callable[[], float]]] = field(default_factory=dict)
    labelled: dict[str, tuple[str, str, Callable[[], Iterable[tuple[str, float]]]]] = field(default_factory=dict)
    _models: dict[str, OfModel] = field(init=False, default_factory=dict)
    _deployments: dict[_Pair, OfDeployment] = field(init=False, default_factory=dict)
    _known: frozenset[str] = field(init=False, default=frozenset())
    _known_pairs: frozenset[_Pair] = field(init=False, default=frozenset())

    def gauge(self, name: str, text: str, ask: Callable[[], float]) -> None:
        """Show what ``ask`` returns, under that name."""
        self.gauges[name] = text, ask

    def count(self, name: str, text: str, ask: Callable[[], float]) -> None:
        """The same for a number that only grows."""
        self.totals[name] = text, ask

    def gauge_by(self, label: str, name: str, text: str, ask: Callable[[], Iterable[tuple[str, float]]]) -> None:
        """One gauge for each value of the label; at most ``LABEL_SETS`` of them are shown."""
        self.labelled[name] = text, label, ask

    def follow(self, snapshot: Snapshot) -> None:
        """Those are the models from now on. The others' numbers stay for an hour, so that none is missed."""
        models = snapshot.models.values()
        self._known = frozenset(model.name for model in models)
        self._known_pairs = frozenset((one.name, route.deployment_id) for one in models for route in one.routes)

    def answered(self, model: str, status: int, reason: str = "") -> None:
        """A client was given a status. Without a model: it was refused before one was known.

        ``reason``: the code of the error that it ended with, if any; one that is not of ``REASONS`` is internal.
        """
        of = self._of_model(model)
        # A node chooses the statuses of its engines' errors.
        of.statuses[status if status in _STATUSES else status // 100 * 100] += 1
        if reason:
            of.errors[reason if reason in REASONS else INTERNAL] += 1

    def limited(self, model: str, limit: str) -> None:
        """A limit of that kind had no room for a request."""
        self._of_model(model).limited[limit] += 1

    def first_token(self, model: str, deployment: str, seconds: float) -> None:
        """The first of a stream has come."""
        self._of(model, deployment).first_token.add(seconds)

    def ended(self, model: str, deployment: str, outcome: Outcome, seconds: float, told: Told) -> None:
        """A request that a worker had is over."""
        self._of(model, deployment).add(outcome, seconds, told)

    def attempt_failed(self, model: str, deployment: str, reason: str) -> None:
        """A worker did not answer, or not to the end, and somebody else may be asked."""
        self._of(model, deployment).failed[reason] += 1

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Everything, as Prometheus' own objects."""
        now = self.clock.monotonic()
        _forget(self._models, self._known | {"", OTHER}, now)
        _forget(self._deployments, self._known_pairs | {(OTHER, "")}, now)
        yield from self._by_model()
        yield from self._by_deployment()
        yield from self._histograms()
        for name, (text, ask) in self.gauges.items():
            yield GaugeMetricFamily(f"mesh_gateway_{name}", text, value=ask())
        for name, (text, ask) in self.totals.items():
            yield CounterMetricFamily(f"mesh_gateway_{name}", text, value=ask())
        for name, (text, label, ask_all) in self.labelled.items():
            gauge = GaugeMetricFamily(f"mesh_gateway_{name}", text, labels=(label,))
            for (value, number), _ in zip(ask_all(), range(LABEL_SETS), strict=False):
                gauge.add_metric((value,), number)
            yield gauge

    def _by_model(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "mesh_gateway_requests", "Requests answered, by model and status.", labels=("model", "status")
        )
        errors = CounterMetricFamily(
            "mesh_gateway_errors", "Requests that ended with an error, by its code.", labels=("model", "reason")
        )
        limited = CounterMetricFamily(
            "mesh_gateway_limited", "Requests refused by a limit of keys or projects.", labels=("model", "limit")
        )
        for model, of in self._models.items():
            for family, counts in ((errors, of.errors), (limited, of.limited)):
                for label, count in counts.items():
                    family.add_metric((model, label), count)
            for status, count in of.statuses.items():
                requests.add_metric((model, str(status)), count)
        return iter((requests, errors, limited))

    def _by_deployment(self) -> Iterator[Metric]:
        outcomes = CounterMetricFamily(
            "mesh_gateway_outcomes", "Requests let in, by how they ended.", labels=(*_PAIR, "outcome")
        )
        failed = CounterMetricFamily(
            "mesh_gateway_failed_attempts", "Workers that did not answer, by reason.", labels=(*_PAIR, "reason")
        )
        tokens = CounterMetricFamily(
            "mesh_gateway_tokens", "Tokens, by the engines' own numbers.", labels=(*_PAIR, "kind")
        )
        cost = CounterMetricFamily("mesh_gateway_cost", "Charged, in units of the currency.", labels=_PAIR)
        retries = CounterMetricFamily(
            "mesh_gateway_retries", "Further workers asked before the client had seen anything.", labels=_PAIR
        )
        continuations = CounterMetricFamily(
            "mesh_gateway_continuations", "Further workers that went on with an answer.", labels=_PAIR
        )
        for pair, of in self._deployments.items():
            for outcome, count in of.outcomes.items():
                outcomes.add_metric((*pair, outcome.value), count)
            for reason, count in of.failed.items():
                failed.add_metric((*pair, reason), count)
            for kind, count in (("prompt", of.prompt), ("completion", of.completion), ("cached", of.cached)):
                tokens.add_metric((*pair, kind), count)
            cost.add_metric(pair, of.money / 1e9)
            retries.add_metric(pair, of.retries)
            continuations.add_metric(pair, of.continuations)
        return iter((outcomes, failed, tokens, cost, retries, continuations))

    def _histograms(self) -> Iterator[Metric]:
        shown: tuple[tuple[str, str, Callable[[OfDeployment], Durations]], ...] = (
            ("queue_wait", "How long requests waited for a worker.", lambda of: of.queue),
            ("first_token", "From a request's arrival to the first of its stream.", lambda of: of.first_token),
            ("inter_token", "Between two pieces of a stream: each request's mean.", lambda of: of.inter_token),
            ("request", "From a request's arrival to its end.", lambda of: of.duration),
        )
        for name, text, part in shown:
            family = HistogramMetricFamily(f"mesh_gateway_{name}_seconds", text, labels=_PAIR)
            for pair, of in self._deployments.items():
                durations = part(of)
                family.add_metric(pair, durations.cumulative(), durations.total)
            yield family

    def _of_model(self, model: str) -> OfModel:
        found = self._models.get(model)
        if found is None:
            if len(self._models) >= LABEL_SETS:
                model = OTHER
            found = self._models.setdefault(model, OfModel())
        return found

    def _of(self, model: str, deployment: str) -> OfDeployment:
        pair = model, deployment
        found = self._deployments.get(pair)
        if found is None:
            if len(self._deployments) >= LABEL_SETS:
                pair = OTHER, ""
            found = self._deployments.setdefault(pair, OfDeployment())
        return found


def _forget(numbers: dict[_Key, _Numbers], known: Collection[_Key], now: float) -> None:
    """Drop those that have not been known for so long that every scrape has seen their last numbers."""
    for key, of in list(numbers.items()):
        if key in known:
            of.left_at = None
        elif of.left_at is None:
            of.left_at = now
        elif now - of.left_at >= REMEMBERED_S:
            del numbers[key]
