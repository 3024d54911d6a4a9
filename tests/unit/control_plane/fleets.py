"""Short ways to make fleets and deployments, for tests of the core."""

from datetime import UTC, datetime, timedelta

from control_plane.core.fleet import Gpu, Hardware, Node, NodeState, WorkerPhase
from control_plane.core.model import Assignment, Deployment, Engine, Model
from mesh.kit.ids import DeploymentId, ModelId, NodeId, OrganizationId, WorkerId

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GRACE = timedelta(minutes=5)
GIB = 2**30


def node(
    name: str,
    *,
    memory: int = 16 * GIB,
    gpus: tuple[int, ...] = (),
    state: NodeState = NodeState.ONLINE,
    silent_for: timedelta | None = timedelta(0),
    told: bool = True,
) -> Node:
    """A node with that much host memory, and one accelerator for each size."""
    hardware = Hardware(
        hostname=f"host-{name}",
        os="linux",
        arch="x86_64",
        cpu_count=8,
        memory_bytes=memory,
        disk_bytes=100 * GIB,
        gpus=tuple(Gpu(f"{name}-gpu{i}", "card", size) for i, size in enumerate(gpus)),
    )
    return Node(
        node_id=NodeId(name),
        organization_id=OrganizationId("org"),
        hostname=f"host-{name}",
        state=state,
        created_at=NOW,
        last_seen_at=None if silent_for is None else NOW - silent_for,
        hardware=hardware if told else None,
    )


def model(name: str = "small", *, memory: int = GIB, gpus: int = 0, vram: int = 0) -> Model:
    """A model that needs that much."""
    return Model(
        model_id=ModelId(f"id-{name}"),
        name=name,
        source="package:weights/model.gguf",
        context_length=4096,
        memory_bytes=memory,
        vram_bytes=vram,
        gpu_count=gpus,
        created_at=NOW,
    )


def deployment(name: str, of: Model, *, replicas: int = 1, age: int = 0) -> Deployment:
    """A deployment of the model, made that many seconds ago."""
    return Deployment(
        deployment_id=DeploymentId(name),
        name=name,
        model_id=of.model_id,
        model_name=of.name,
        engine=Engine.LLAMACPP,
        replicas=replicas,
        slots=4,
        created_at=NOW - timedelta(seconds=age),
    )


def placed(
    worker: str,
    of: str,
    on: str,
    *,
    gpus: tuple[str, ...] = (),
    phase: WorkerPhase = WorkerPhase.READY,
) -> Assignment:
    """A replica that runs there already."""
    return Assignment(WorkerId(worker), DeploymentId(of), NodeId(on), gpus, phase=phase)
