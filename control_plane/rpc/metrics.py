"""What Prometheus may ask of a control plane: fixed names, fixed labels, no ids of anyone's things as labels."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge

from control_plane.core.fleet import NodeState, WorkerPhase


class Metrics:
    """The numbers of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._nodes = Gauge("inventiv_control_plane_nodes", "Nodes by state", ["state"], registry=self.registry)
        self._workers = Gauge(
            "inventiv_control_plane_workers", "Workers by phase", ["phase"], registry=self.registry
        )
        self._streams = Gauge(
            "inventiv_control_plane_streams",
            "gRPC streams live in this process",
            ["method"],
            registry=self.registry,
        )
        self._reports = Counter(
            "inventiv_control_plane_reports", "Node reports by outcome", ["outcome"], registry=self.registry
        )
        self._usage = Counter(
            "inventiv_control_plane_usage_records_stored",
            "Usage records handed in and stored, repeats included",
            registry=self.registry,
        )
        self._joins = Counter(
            "inventiv_control_plane_joins", "Joins by outcome", ["outcome"], registry=self.registry
        )
        self._database = Gauge(
            "inventiv_control_plane_database_up", "1 while the database answers", registry=self.registry
        )
        self._snapshots = Counter(
            "inventiv_control_plane_snapshots",
            "Snapshots for gateways by outcome",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("sent", "too_large"):
            self._snapshots.labels(outcome)
        for method in ("Connect", "WatchSnapshot", "WatchLoad"):
            self._streams.labels(method)
        for outcome in ("joined", "refused", "limited"):
            self._joins.labels(outcome)
        for outcome in ("stored", "repeated", "lost"):
            self._reports.labels(outcome)

    @contextmanager
    def stream(self, method: str) -> Iterator[None]:
        """Count one live stream of that method."""
        gauge = self._streams.labels(method)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()

    def report(self, outcome: str) -> None:
        """Count one report of a node: stored, repeated or lost."""
        self._reports.labels(outcome).inc()

    def joined(self, outcome: str) -> None:
        """Count one attempt to join: joined, refused or limited."""
        self._joins.labels(outcome).inc()

    def snapshot(self, outcome: str) -> None:
        """Count one snapshot for a gateway: sent, or too_large to be."""
        self._snapshots.labels(outcome).inc()

    def usage_stored(self, records: int) -> None:
        """Count usage records that are stored now, whether by this call or an earlier one."""
        self._usage.inc(records)

    def database_up(self, *, up: bool) -> None:
        """Say whether the database answered just now."""
        self._database.set(up)

    def fleet(self, nodes: Mapping[NodeState, int], workers: Mapping[WorkerPhase, int]) -> None:
        """Say how the fleet stands; states and phases that nobody is in are zero, not absent."""
        for state in NodeState:
            self._nodes.labels(state.value).set(nodes.get(state, 0))
        for phase in WorkerPhase:
            self._workers.labels(phase.value).set(workers.get(phase, 0))
