"""The numbers for Prometheus: what adds up, and what stays bounded."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.metrics import LABEL_SETS, REASONS, REMEMBERED_S, Metrics
from gateway.api.metrics_model import SECONDS, Durations
from gateway.control.usage import Told
from gateway.core.metering import Usage
from gateway.core.usage import Outcome
from tests.fakes.clock import FakeClock
from tests.unit.gateway import values


def page(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the page, as Prometheus itself reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return page(metrics).get((f"mesh_gateway_{name}", frozenset(labels.items())))


def known(metrics: Metrics, *names: str) -> None:
    metrics.follow(values.snapshot(models=[values.model(name, values.route("w-1")) for name in names]))


def test_every_number_of_a_request_is_on_the_page_under_its_model_and_deployment() -> None:
    metrics = Metrics(FakeClock())
    told = Told(
        usage=Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=2),
        charged_money=1_500_000_000,
        queue_s=0.3,
        inter_token_us=20_000,
        continuations=1,
        retries=2,
    )
    metrics.ended("m", "d-1", Outcome.COMPLETED, 2.0, told)
    metrics.ended("m", "d-1", Outcome.CANCELLED, 1.0, Told(usage=Usage()))
    ours = {"model": "m", "deployment": "d-1"}
    assert value(metrics, "outcomes_total", **ours, outcome="completed") == 1
    assert value(metrics, "outcomes_total", **ours, outcome="cancelled") == 1
    assert [value(metrics, "tokens_total", **ours, kind=kind) for kind in ("prompt", "completion", "cached")] == [
        7,
        5,
        2,
    ]
    assert value(metrics, "cost_total", **ours) == 1.5
    assert (value(metrics, "retries_total", **ours), value(metrics, "continuations_total", **ours)) == (2, 1)
    assert value(metrics, "request_seconds_sum", **ours) == 3
    assert value(metrics, "queue_wait_seconds_bucket", **ours, le="0.25") == 1
    assert value(metrics, "queue_wait_seconds_bucket", **ours, le="0.5") == 2
    assert value(metrics, "inter_token_seconds_count", **ours) == 1, "of those with several pieces"


def test_two_deployments_of_a_model_are_told_apart() -> None:
    metrics = Metrics(FakeClock())
    metrics.first_token("m", "d-1", 0.2)
    metrics.attempt_failed("m", "d-2", "refused")
    assert value(metrics, "first_token_seconds_count", model="m", deployment="d-1") == 1
    assert value(metrics, "first_token_seconds_count", model="m", deployment="d-2") == 0
    assert value(metrics, "failed_attempts_total", model="m", deployment="d-2", reason="refused") == 1


def test_reasons_and_statuses_are_of_a_fixed_set() -> None:
    metrics = Metrics(FakeClock())
    metrics.answered("m", 599, "a reason that nobody knows")
    metrics.answered("m", 429, "rate_limit_exceeded")
    metrics.answered("m", 200)
    metrics.limited("m", "tokens_per_day")
    assert value(metrics, "requests_total", model="m", status="500") == 1, "a node chose the status"
    assert value(metrics, "requests_total", model="m", status="429") == 1
    assert value(metrics, "errors_total", model="m", reason="internal") == 1
    assert value(metrics, "errors_total", model="m", reason="rate_limit_exceeded") == 1
    assert value(metrics, "limited_total", model="m", limit="tokens_per_day") == 1
    assert all(re.fullmatch("[a-z_]+", reason) for reason in REASONS)


def test_beyond_so_many_models_the_rest_is_counted_together() -> None:
    metrics = Metrics(FakeClock())
    for number in range(LABEL_SETS + 20):
        metrics.answered(f"m-{number}", 200)
        metrics.ended(f"m-{number}", "d-1", Outcome.COMPLETED, 1.0, Told(usage=Usage()))
    metrics.answered("m-1", 200)
    shown = metrics.text().decode().splitlines()  # not parsed: it is long
    assert 'mesh_gateway_requests_total{model="other",status="200"} 20.0' in shown
    assert 'mesh_gateway_outcomes_total{deployment="",model="other",outcome="completed"} 20.0' in shown
    assert 'mesh_gateway_requests_total{model="m-1",status="200"} 2.0' in shown


async def test_a_model_that_left_is_shown_for_an_hour_more_and_then_forgotten() -> None:
    clock = FakeClock()
    metrics = Metrics(clock)
    known(metrics, "m", "gone")
    for name in ("m", "gone", ""):
        metrics.answered(name, 200)
        metrics.first_token(name or "m", "d-1", 0.1)
    known(metrics, "m")
    assert value(metrics, "requests_total", model="gone", status="200") == 1
    await clock.forward(REMEMBERED_S - 1)
    assert value(metrics, "requests_total", model="gone", status="200") == 1
    await clock.forward(1)
    found = page(metrics)
    assert not [labels for _, labels in found if ("model", "gone") in labels]
    assert found["mesh_gateway_requests_total", frozenset({"model": "m", "status": "200"}.items())] == 1
    assert found["mesh_gateway_requests_total", frozenset({"model": "", "status": "200"}.items())] == 1


async def test_a_model_that_comes_back_within_the_hour_keeps_its_numbers() -> None:
    clock = FakeClock()
    metrics = Metrics(clock)
    metrics.answered("m", 200)
    metrics.text()
    await clock.forward(REMEMBERED_S / 2)
    known(metrics, "m")
    metrics.text()
    known(metrics)
    metrics.text()
    await clock.forward(REMEMBERED_S - 1)
    assert value(metrics, "requests_total", model="m", status="200") == 1


def test_gauges_and_totals_are_looked_up_when_somebody_asks() -> None:
    metrics, now = Metrics(FakeClock()), [1.0]
    metrics.gauge("live", "Text.", lambda: now[0])
    metrics.count("seen", "Text.", lambda: now[0])
    metrics.gauge_by("model", "depth", "Text.", lambda: ((f"m-{at}", now[0]) for at in range(LABEL_SETS + 5)))
    now[0] = 4.0
    assert (value(metrics, "live"), value(metrics, "seen_total")) == (4, 4)
    assert value(metrics, "depth", model="m-0") == 4
    assert len([name for name, _ in page(metrics) if name == "mesh_gateway_depth"]) == LABEL_SETS


@settings(max_examples=60)
@given(st.lists(st.floats(0, 1000)))
def test_a_histogram_counts_every_duration_once_and_those_at_a_bound_below_it(found: list[float]) -> None:
    durations = Durations()
    for seconds in found:
        durations.add(seconds)
    for bound, count in durations.cumulative():
        assert count == sum(seconds <= float(bound) for seconds in found)
    assert durations.cumulative()[-1] == ("+Inf", len(found))
    assert len(durations.buckets) == len(SECONDS) + 1
