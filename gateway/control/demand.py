"""What queues here, told to the control plane: the signal that scaling works from."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass

from gateway.control.link import ControlPlane, ControlPlaneLost, calling
from gateway.core.demand import Demand
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.kit.clock import Clock
from mesh.kit.logs import F

log = logging.getLogger(__name__)

INTERVAL_S = 5.0  # a scaler that decides every few seconds needs no fresher numbers
CALL_S = 5.0


@dataclass(slots=True)
class DemandReporter:
    """Reports every few seconds. A part. ``seen`` tells what was seen since the last report, once."""

    seen: Callable[[], list[Demand]]
    process: int
    control_plane: ControlPlane
    clock: Clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.clock.sleep(INTERVAL_S)
            await self.once()

    async def once(self) -> None:
        """One report. One that is lost is not told again: the next has newer numbers."""
        models = [pb.ModelDemand(**asdict(one)) for one in self.seen()]
        if not models:
            return
        try:
            with calling():
                await self.control_plane.stub.ReportDemand(
                    pb.ReportDemandRequest(process=self.process, models=models), timeout=CALL_S
                )
        except ControlPlaneLost as exc:
            log.info("demand not reported", extra={F.REASON: str(exc)})
