"""What a node says of itself: its hardware once per session, a whole report with every heartbeat. Pure.

What a driver or a kernel does not tell is ``None`` or absent, never a made-up zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from node_agent.core.worker import WorkerStatus

MAX_DETAIL = 500  # characters of a worker's one line; an engine's last words can be long


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator, as its driver names it."""

    uuid: str
    name: str
    memory_bytes: int
    compute_capability: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What the machine is made of."""

    hostname: str
    os: str
    arch: str
    cpu_count: int
    memory_bytes: int
    disk_bytes: int
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """A reading of one accelerator. What its driver does not tell is None."""

    uuid: str
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """A reading of the host."""

    cpu_percent: float | None
    """None until there are two readings to tell a share from."""

    load1: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A heartbeat: everything, every time. ``sequence`` rises by one within a connection."""

    sequence: int
    observed_at: datetime
    applied_revision: int
    workers: tuple[WorkerStatus, ...] = ()
    host: HostSample | None = None
    gpus: tuple[GpuSample, ...] = ()


def one_line(text: str) -> str:
    """Text of any origin as one printable line of at most MAX_DETAIL characters; its end is what gets kept."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MAX_DETAIL else "…" + line[1 - MAX_DETAIL :]


def essence(workers: Iterable[WorkerStatus]) -> tuple[object, ...]:
    """What of the workers is worth a report at once; queue depths alone can wait for the next heartbeat."""
    return tuple(
        sorted(
            (w.worker_id, w.spec_hash, w.phase, w.progress_percent, w.detail, w.starts, w.adopted) for w in workers
        )
    )
