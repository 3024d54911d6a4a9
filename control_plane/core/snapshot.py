"""All that a gateway needs for admission and routing, at one revision."""

from dataclasses import dataclass
from datetime import datetime

from control_plane.core.fleet import WorkerPhase
from mesh.kit.ids import DeploymentId, NodeId, OrganizationId, WorkerId


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """An API key as gateways know it: enough to recognise it, not enough to use it."""

    key_id: str
    secret_mac: bytes
    organization_id: OrganizationId
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Route:
    """One worker that serves a model. Whether it can be reached, the gateway knows best."""

    worker_id: WorkerId
    node_id: NodeId
    deployment_id: DeploymentId
    engine: str
    slots: int
    phase: WorkerPhase


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A deployed model under the name that clients ask for."""

    name: str
    created_at: datetime
    context_length: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole of it. ``revoked_nodes`` holds node ids and certificate serials that may no longer attach."""

    revision: int
    api_keys: tuple[KeyEntry, ...]
    models: tuple[ModelEntry, ...]
    revoked_nodes: tuple[str, ...]
