"""The machine itself: what it is made of, and how busy it is. From the kernel, by psutil."""

import contextlib
import os
import platform
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from node_agent.core.report import Gpu, Hardware, HostSample

LEAST_S = 0.1  # per core: ten ticks of the kernel's clock; of less time nobody can tell a share
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # in a container, the container's own; absent at the root


@dataclass(slots=True)
class HostProbe:
    """Reads the host. ``disk`` is the folder whose file system counts: where models and logs lie."""

    disk: Path
    cgroup_limit: Path = CGROUP_LIMIT
    _before: tuple[float, float] = field(init=False)
    """The mark that the next share is told from. Our own: psutil keeps one for each thread that asks."""

    def __post_init__(self) -> None:
        self._before = _cpu_seconds()

    def hardware(self, gpus: tuple[Gpu, ...] = ()) -> Hardware:
        """What it is made of."""
        return Hardware(
            hostname=socket.gethostname(),
            os=_operating_system(),
            arch=platform.machine(),
            cpu_count=len(os.sched_getaffinity(0)),
            memory_bytes=self._memory()[1],
            disk_bytes=shutil.disk_usage(self.disk).total,
            gpus=gpus,
        )

    def sample(self) -> HostSample:
        """A reading; the CPU's share is since the reading before, and None when that was just now."""
        used, total = self._memory()
        disk = shutil.disk_usage(self.disk)
        links = [link for name, link in psutil.net_io_counters(pernic=True).items() if name != "lo"]
        return HostSample(
            cpu_percent=self._cpu_percent(),
            load1=os.getloadavg()[0],
            memory_used_bytes=used,
            memory_total_bytes=total,
            disk_used_bytes=disk.used,
            disk_total_bytes=disk.total,
            network_received_bytes=sum(link.bytes_recv for link in links),
            network_sent_bytes=sum(link.bytes_sent for link in links),
        )

    def _cpu_percent(self) -> float | None:
        now, before = _cpu_seconds(), self._before
        busy, total = now[0] - before[0], now[1] - before[1]
        if total < LEAST_S * (os.cpu_count() or 1):
            return None
        self._before = now
        return min(max(100.0 * busy / total, 0.0), 100.0)

    def _memory(self) -> tuple[int, int]:
        """(used, total), where a container's limit is the total: more than that it cannot have."""
        memory = psutil.virtual_memory()
        total = memory.total
        with contextlib.suppress(OSError, ValueError):  # not in a container, or one without a limit ("max")
            total = min(total, int(self.cgroup_limit.read_text()))
        return min(memory.total - memory.available, total), total


def _cpu_seconds() -> tuple[float, float]:
    """(busy, all) seconds of all cores since boot. Guests' time is in their hosts' already."""
    times = psutil.cpu_times()._asdict()
    total = sum(seconds for name, seconds in times.items() if not name.startswith("guest"))
    return total - times["idle"] - times.get("iowait", 0.0), total


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)
