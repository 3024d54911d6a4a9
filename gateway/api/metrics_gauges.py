"""What metrics show of now: queues, workers, breakers. Looked up by a scrape, kept by nobody."""

from collections.abc import Iterator

from gateway.api.metrics import Metrics
from gateway.core.breaker import State
from gateway.core.demand import Demand
from gateway.core.snapshot import Cell
from gateway.tunnel.registry import Registry
from gateway.tunnel.waiting import Waiting


def watch(metrics: Metrics, cell: Cell, registry: Registry, waiting: Waiting) -> None:
    """Have the metrics show these."""

    def demands() -> Iterator[Demand]:
        return (waiting.demand(model) for model in waiting.tallies())

    def workers() -> dict[str, str]:
        """Deployment of each worker in the snapshot; one that serves several models is one."""
        models = () if cell.current is None else cell.current.models.values()
        return {route.worker_id: route.deployment_id for model in models for route in model.routes}

    def outstanding() -> Iterator[tuple[str, float]]:
        sums: dict[str, int] = {}
        for worker, deployment in workers().items():
            sums[deployment] = sums.get(deployment, 0) + registry.outstanding(worker)
        yield from sums.items()

    metrics.gauge_by(
        "model", "queue_depth", "Requests that wait.", lambda: ((one.model, one.waiting) for one in demands())
    )
    metrics.gauge_by(
        "model", "queue_active", "Requests with a worker.", lambda: ((one.model, one.active) for one in demands())
    )
    metrics.gauge_by(
        "model",
        "queue_oldest_seconds",
        "How long the first in line has waited.",
        lambda: ((one.model, one.oldest_wait_ms / 1000) for one in demands()),
    )
    metrics.gauge_by("deployment", "outstanding_requests", "Requests its workers have of us.", outstanding)
    metrics.gauge(
        "breakers_open",
        "Workers that are left alone because they failed.",
        lambda: sum(registry.breaker.state(worker) is not State.CLOSED for worker in workers()),
    )
    metrics.gauge(
        "peers",
        "Processes of gateways that the snapshot names.",
        lambda: 0 if cell.current is None else len(cell.current.peers),
    )
