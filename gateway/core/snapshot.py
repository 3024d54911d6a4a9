"""Keys and routes at one revision: never changed, only replaced.

``Cell`` holds the snapshot in force. Whoever needs it asks the cell at the moment of need, so that a request
is decided by one revision from end to end, and the next request by the newest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class WorkerPhase(StrEnum):
    """Where a worker stands on its way to answering requests."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Route:
    """One worker that serves a model. ``slots``: requests the engine works on at once, at least one."""

    worker_id: str
    node_id: str
    deployment_id: str
    engine: str
    slots: int
    phase: WorkerPhase


@dataclass(frozen=True, slots=True)
class Model:
    """A model under the name clients ask for. Without an organization it is everyone's."""

    name: str
    organization_id: str
    created_at: datetime
    context_length: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as gateways know it: enough to recognise it, not enough to use it."""

    key_id: str
    secret_mac: bytes = field(repr=False)
    organization_id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that admission and routing need. ``revoked`` holds node ids and certificate serials (hex)."""

    revision: int
    key_pepper: bytes = field(repr=False)
    keys: Mapping[str, ApiKey] = field(repr=False)
    models: Mapping[str, Model]
    revoked: frozenset[str]

    def model_for(self, organization_id: str, name: str) -> Model | None:
        """The model of that name, if that organization may use it."""
        model = self.models.get(name)
        return model if model is not None and model.organization_id in ("", organization_id) else None

    def models_for(self, organization_id: str) -> list[Model]:
        """All that organization may use, by name."""
        named = sorted(self.models.items())
        return [model for _, model in named if model.organization_id in ("", organization_id)]


@dataclass(slots=True)
class Cell:
    """Holds the newest snapshot, and tells the watchers of each replacement."""

    current: Snapshot | None = None
    watchers: list[Callable[[Snapshot], None]] = field(default_factory=list)

    def replace(self, snapshot: Snapshot) -> None:
        """From now on this one is in force. Watchers must not raise."""
        self.current = snapshot
        for tell in self.watchers:
            tell(snapshot)
