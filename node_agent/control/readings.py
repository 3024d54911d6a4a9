"""The last readings of host and accelerators, taken in a thread, because an ill driver can block for seconds."""

import asyncio
import logging
from dataclasses import dataclass, field

from mesh.kit.clock import Clock
from node_agent.core.report import GpuSample, Hardware, HostSample
from node_agent.probes.gpu import GpuProbe
from node_agent.probes.host import HostProbe

log = logging.getLogger(__name__)

EVERY_S = 5.0  # half a heartbeat: what a report carries is fresh, and costs an idle machine nothing
FIRST_S = 0.5  # from the first reading to the second, which knows the CPU's share
STALE_S = 30.0  # older than that is no reading of now


@dataclass(slots=True, eq=False)
class Readings:
    """A part that samples for everyone, so that rates are over one interval and not over whoever asked last."""

    host_probe: HostProbe
    gpu_probe: GpuProbe
    clock: Clock
    _host: HostSample | None = field(init=False, default=None)
    _gpus: tuple[GpuSample, ...] = field(init=False, default=())
    _taken: float | None = field(init=False, default=None)

    async def run(self) -> None:
        """Until cancelled."""
        await self._read()
        await self.clock.sleep(FIRST_S)
        while True:
            await self._read()
            await self.clock.sleep(EVERY_S)

    async def hardware(self) -> Hardware:
        """What the machine is made of, as of now: a driver may have been installed since."""
        return await asyncio.to_thread(lambda: self.host_probe.hardware(self.gpu_probe.inventory()))

    def host(self) -> HostSample | None:
        """The last reading of the host; None when there is none of now."""
        return self._host if self._fresh() else None

    def gpus(self) -> tuple[GpuSample, ...]:
        """The last reading of each accelerator; none when there is none of now."""
        return self._gpus if self._fresh() else ()

    async def _read(self) -> None:
        try:
            self._host, self._gpus = await asyncio.to_thread(self._sample)
        except Exception:  # edge: a machine that cannot be read is no reason to stop serving
            log.exception("no reading")
        else:
            self._taken = self.clock.monotonic()

    def _sample(self) -> tuple[HostSample, tuple[GpuSample, ...]]:
        return self.host_probe.sample(), self.gpu_probe.sample()

    def _fresh(self) -> bool:
        return self._taken is not None and self.clock.monotonic() - self._taken < STALE_S
