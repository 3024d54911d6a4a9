"""Nodes and what they tell of themselves, as values.

What a driver or an agent did not say is ``None`` or absent, never a made-up zero.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mesh.kit.ids import NodeId, OrganizationId, WorkerId


class NodeState(StrEnum):
    """Life of a node's identity."""

    JOINING = "joining"  # has a certificate, never connected
    ONLINE = "online"
    OFFLINE = "offline"  # was connected
    REVOKED = "revoked"  # may not return


class WorkerPhase(StrEnum):
    """Where a worker stands on its way to answering requests."""

    PENDING = "pending"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator, as its driver names it."""

    uuid: str
    name: str
    memory_bytes: int
    compute_capability: str = ""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is made of."""

    hostname: str
    os: str
    arch: str
    cpu_count: int
    memory_bytes: int
    disk_bytes: int
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """The agent's own build, as the running artefact measures itself."""

    version: str
    build_date: str
    checksum: str


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a node last said of one worker."""

    worker_id: WorkerId
    spec_hash: str
    phase: WorkerPhase
    progress_percent: int = 0
    detail: str = ""
    starts: int = 0
    adopted: bool = False
    requests_running: int | None = None
    requests_waiting: int | None = None
    kv_cache_usage: float | None = None
    """Share of the engine's KV cache in use, 0 to 1."""


@dataclass(frozen=True, slots=True)
class HostSample:
    """A reading of the host."""

    cpu_percent: float
    load1: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    network_received_bytes: int
    network_sent_bytes: int


@dataclass(frozen=True, slots=True)
class GpuSample:
    """A reading of one accelerator. What its driver does not tell is None."""

    uuid: str
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A heartbeat: everything, every time."""

    applied_revision: int
    workers: tuple[WorkerReport, ...] = ()
    agent_info: AgentInfo | None = None
    host: HostSample | None = None
    gpus: tuple[GpuSample, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that joined, and its last words."""

    node_id: NodeId
    organization_id: OrganizationId
    hostname: str
    state: NodeState
    created_at: datetime
    last_seen_at: datetime | None = None
    epoch: int = 0
    desired_revision: int = 0
    applied_revision: int = 0
    agent_info: AgentInfo | None = None
    hardware: Hardware | None = None
    workers: tuple[WorkerReport, ...] = ()
    host: HostSample | None = None
    gpus: tuple[GpuSample, ...] = ()
    certificate_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was issued to a node."""

    serial: str
    node_id: NodeId
    spki: str
    issued_at: datetime
    not_after: datetime
    revoked_at: datetime | None = None
