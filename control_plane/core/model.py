"""Models, deployments and placed replicas, as values. What runs never changes once made."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from control_plane.core.fleet import WorkerPhase
from mesh.kit.ids import DeploymentId, ModelId, NodeId, WorkerId


class Engine(StrEnum):
    """The engine adapters that nodes have."""

    LLAMACPP = "llamacpp"
    SIMULATOR = "simulator"

    @property
    def serves_adapters(self) -> bool:
        """Whether it can serve adapters (LoRA) beside its model."""
        return self is Engine.SIMULATOR


SIMULATED: Final = "simulator:"
"""What the source of a model begins with that only the simulator can run."""


class RoutingPolicy(StrEnum):
    """How gateways choose among the workers of a model."""

    BALANCED = "balanced"
    PREFIX = "prefix"
    SESSION = "session"
    ROUND_ROBIN = "round_robin"
    CHEAPEST = "cheapest"


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-units of the currency for a million tokens. ``cached``: of prompt tokens that the engine had."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


FREE: Final = Price()


@dataclass(frozen=True, slots=True)
class Adapter:
    """A small set of weights on top of a model's, served under a name of its own."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Model:
    """What can be deployed. It runs on the CPU unless it asks for accelerators."""

    model_id: ModelId
    name: str
    source: str
    context_length: int
    memory_bytes: int
    vram_bytes: int
    gpu_count: int
    created_at: datetime
    aliases: tuple[str, ...] = ()
    price: Price = FREE
    adapters: tuple[Adapter, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether only the simulator can run it."""
        return self.source.startswith(SIMULATED)

    @property
    def host_bytes(self) -> int:
        """Host memory that one worker is charged with."""
        return 0 if self.gpu_count else self.memory_bytes

    @property
    def vram_bytes_per_gpu(self) -> int:
        """Engines split a model evenly, so each accelerator must hold its share."""
        return -(-self.vram_bytes // self.gpu_count) if self.gpu_count else 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """This model, this engine, this many replicas."""

    deployment_id: DeploymentId
    name: str
    model_id: ModelId
    model_name: str
    engine: Engine
    replicas: int
    slots: int
    created_at: datetime
    pending_reason: str = ""  # why fewer workers run than wanted; empty when all are placed
    policy: RoutingPolicy = RoutingPolicy.BALANCED
    pass_through: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """One placed replica, with what its node last said of it."""

    worker_id: WorkerId
    deployment_id: DeploymentId
    node_id: NodeId
    gpu_uuids: tuple[str, ...] = ()
    spec_hash: str = ""
    phase: WorkerPhase = WorkerPhase.PENDING
    progress_percent: int = 0
    detail: str = ""
