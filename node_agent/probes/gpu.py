"""Accelerators as NVIDIA's management library tells them. Without a driver there are none; nothing is made up.

The calls block, for seconds when a driver is ill: call them in a thread.
"""

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mesh.kit.logs import F
from node_agent.core.report import Gpu, GpuSample

log = logging.getLogger(__name__)

T = TypeVar("T")

TEMPERATURE_OF_THE_CHIP = 0  # NVML_TEMPERATURE_GPU
DRIVER = "libnvidia-ml.so.1"  # comes with the driver, and with nothing else


@dataclass(slots=True)
class GpuProbe:
    """Asks the library; ``library`` has the shape of the module ``pynvml``, and is that once there is a driver."""

    library: Any = None
    driver: str = DRIVER
    _open: bool = field(init=False, default=False)

    def inventory(self) -> tuple[Gpu, ...]:
        """Every accelerator there is."""
        return tuple(
            Gpu(
                uuid=uuid,
                name=self._told(self.library.nvmlDeviceGetName, handle, _text) or "",
                memory_bytes=self._told(self.library.nvmlDeviceGetMemoryInfo, handle, _total) or 0,
                compute_capability=self._told(self.library.nvmlDeviceGetCudaComputeCapability, handle, _version)
                or "",
            )
            for uuid, handle in self._devices()
        )

    def sample(self) -> tuple[GpuSample, ...]:
        """A reading of each; what a device does not tell is None."""
        samples = []
        for uuid, handle in self._devices():
            memory = self._told(self.library.nvmlDeviceGetMemoryInfo, handle, _used_and_total)
            samples.append(
                GpuSample(
                    uuid=uuid,
                    utilization_percent=self._told(
                        self.library.nvmlDeviceGetUtilizationRates,
                        handle,
                        lambda rates: _within(rates.gpu, 0, 100),
                    ),
                    memory_used_bytes=memory[0] if memory else None,
                    memory_total_bytes=memory[1] if memory else None,
                    temperature_celsius=self._told(
                        lambda device: self.library.nvmlDeviceGetTemperature(device, TEMPERATURE_OF_THE_CHIP),
                        handle,
                        lambda degrees: _within(degrees, -50, 150),
                    ),
                    power_watts=self._told(
                        self.library.nvmlDeviceGetPowerUsage,
                        handle,
                        lambda milliwatts: max(milliwatts / 1000, 0.0),
                    ),
                )
            )
        return tuple(samples)

    def _devices(self) -> list[tuple[str, Any]]:
        """(uuid, handle) of every device that the driver can name now."""
        if self.library is None:
            self.library = _bindings(self.driver)
            if self.library is None:
                return []
        try:
            if not self._open:
                self.library.nvmlInit()
                self._open = True
            count = self.library.nvmlDeviceGetCount()
        except self.library.NVMLError as exc:
            # No driver, or one that was unloaded under us: asked again next time, it may have come back.
            self._open = False
            log.debug("no accelerators", extra={F.REASON: str(exc)})
            return []
        devices = []
        for index in range(count):
            try:
                handle = self.library.nvmlDeviceGetHandleByIndex(index)
                devices.append((_text(self.library.nvmlDeviceGetUUID(handle)), handle))
            except self.library.NVMLError as exc:  # fallen off the bus: the others still count
                log.warning("an accelerator does not answer", extra={F.COUNT: index, F.REASON: str(exc)})
        return devices

    def _told(self, ask: Callable[[Any], Any], handle: Any, read: Callable[[Any], T]) -> T | None:
        try:
            return read(ask(handle))
        except self.library.NVMLError:
            return None


def _bindings(driver: str) -> Any:
    """The module that speaks to the driver's library; None where there is no such library.

    A machine without a driver need not hold the module's few megabytes, and one that gets a driver need not
    start its agent anew.
    """
    try:
        ctypes.CDLL(driver)
    except OSError:
        return None
    import pynvml  # noqa: PLC0415  # see above

    return pynvml


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _total(memory: Any) -> int:
    return max(int(memory.total), 0)


def _used_and_total(memory: Any) -> tuple[int, int]:
    total = _total(memory)
    return min(max(int(memory.used), 0), total), total


def _version(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _within(value: float, low: float, high: float) -> float:
    return min(max(float(value), low), high)
