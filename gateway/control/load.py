"""How busy workers are and how far they have come, from the control plane: hints for routing and for who waits."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from gateway.control.convert import phase_of
from gateway.control.link import ControlPlane, ControlPlaneLost, calling
from gateway.core.reports import WorkerReport
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.kit.backoff import Backoff
from mesh.kit.clock import Clock
from mesh.kit.logs import F

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LoadWatch:
    """Passes on what nodes say. A part. Without a control plane the last word stays."""

    hear: Callable[[WorkerReport], None]
    control_plane: ControlPlane
    clock: Clock

    async def run(self) -> None:
        """Watch, and watch again whenever that ends."""
        async for _ in Backoff(self.clock, cap_s=10.0).attempts():
            await self.once()

    async def once(self) -> None:
        """One watch, until it ends."""
        try:
            with calling():
                async for response in self.control_plane.stub.WatchLoad(pb.WatchLoadRequest()):
                    for worker in response.workers:
                        self._take(worker)
        except ControlPlaneLost as exc:
            log.info("load not told", extra={F.REASON: str(exc)})

    def _take(self, worker: pb.WorkerLoad) -> None:
        running = worker.requests_running if worker.HasField("requests_running") else None
        waiting = worker.requests_waiting if worker.HasField("requests_waiting") else None
        kv = worker.kv_cache_usage if worker.HasField("kv_cache_usage") else None
        if kv is not None and not math.isfinite(kv):
            kv = None
        percent = min(worker.progress_percent, 100)
        phase = phase_of(worker.phase)
        self.hear(WorkerReport(worker.worker_id, running, waiting, kv, phase, percent, worker.detail))
