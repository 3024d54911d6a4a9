"""A driver's library in the shape of the module ``pynvml``, with devices that can fall silent."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TypeVar

T = TypeVar("T")


class NVMLError(Exception):
    """What the library raises for everything."""


@dataclass
class Device:
    """One accelerator. What is None the driver does not tell."""

    uuid: str | bytes
    name: str | bytes | None = "NVIDIA L4"
    memory: tuple[int, int] | None = (1 << 30, 24 << 30)
    utilization: int | None = 40
    temperature: int | None = 55
    milliwatts: int | None = 70_500
    capability: tuple[int, int] | None = (8, 9)
    lost: bool = False


@dataclass
class FakeNvml:
    """The library."""

    devices: list[Device] = field(default_factory=list)
    driver: bool = True
    inits: int = 0

    NVMLError = NVMLError

    def nvmlInit(self) -> None:
        self._need_driver()
        self.inits += 1

    def nvmlDeviceGetCount(self) -> int:
        self._need_driver()
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        if self.devices[index].lost:
            raise NVMLError("GPU is lost")
        return self.devices[index]

    def nvmlDeviceGetUUID(self, device: Device) -> str | bytes:
        return device.uuid

    def nvmlDeviceGetName(self, device: Device) -> object:
        return self._told(device.name)

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> SimpleNamespace:
        used, total = self._told(device.memory)
        return SimpleNamespace(used=used, total=total)

    def nvmlDeviceGetUtilizationRates(self, device: Device) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._told(device.utilization))

    def nvmlDeviceGetTemperature(self, device: Device, sensor: int) -> int:
        assert sensor == 0
        return self._told(device.temperature)

    def nvmlDeviceGetPowerUsage(self, device: Device) -> int:
        return self._told(device.milliwatts)

    def nvmlDeviceGetCudaComputeCapability(self, device: Device) -> tuple[int, int]:
        return self._told(device.capability)

    def _need_driver(self) -> None:
        if not self.driver:
            raise NVMLError("Driver Not Loaded")

    def _told(self, value: T | None) -> T:
        if value is None:
            raise NVMLError("Not Supported")
        return value
