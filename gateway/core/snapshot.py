"""Keys and routes at one revision: never changed, only replaced.

``Cell`` holds the snapshot in force. Whoever needs it asks the cell at the moment of need, so that a request
is decided by one revision from end to end, and the next request by the newest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final


class WorkerPhase(StrEnum):
    """Where a worker stands on its way to answering requests."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Policy(StrEnum):
    """How a worker is chosen among those of a model."""

    BALANCED = "balanced"
    PREFIX = "prefix"
    SESSION = "session"
    ROUND_ROBIN = "round_robin"
    CHEAPEST = "cheapest"


class Priority(IntEnum):
    """Who goes first in a queue: the higher one."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Route:
    """One worker that serves a model. ``slots``: requests the engine works on at once, at least one."""

    worker_id: str
    node_id: str
    deployment_id: str
    engine: str
    slots: int
    phase: WorkerPhase
    weight: float = 1.0
    """What it can do beside others of the model; above zero."""
    cost_per_hour: int = 0
    """Of its machine, nano-units of the currency; zero: nothing, or not known."""


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-units of the currency for a million tokens. ``cached``: of prompt tokens that an engine had."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """None: unlimited. Windows are UTC's minutes, days and months; money is in nano-units of the currency."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    money_per_day: int | None = None
    money_per_month: int | None = None


UNLIMITED: Final = Limits()


@dataclass(frozen=True, slots=True)
class Model:
    """A model under the name clients ask for. Without an organization it is everyone's."""

    name: str
    organization_id: str
    created_at: datetime
    context_length: int
    routes: tuple[Route, ...]
    aliases: tuple[str, ...] = ()
    engine_name: str = ""
    """What its engines know it by; empty: its name."""
    base_model: str = ""
    """For an adapter (LoRA): the model it belongs to."""
    policy: Policy = Policy.BALANCED
    price: Price = Price()
    pass_through: frozenset[str] = frozenset()
    can_start: bool = False
    """Whether a worker may come when there is none."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as gateways know it: enough to recognise it, not enough to use it."""

    key_id: str
    secret_mac: bytes = field(repr=False)
    organization_id: str
    expires_at: datetime | None
    project_id: str = ""
    scopes: frozenset[str] = frozenset()
    """Endpoints it may be used for; empty: all."""
    allowed_models: frozenset[str] = frozenset()
    """Empty: all that its organization may use."""
    limits: Limits = UNLIMITED
    weight: int = 1
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Project:
    """What keys are grouped by; its limits are over all of them."""

    project_id: str
    organization_id: str
    limits: Limits = UNLIMITED


@dataclass(frozen=True, slots=True)
class Peer:
    """One process of a gateway. ``endpoint``: its peer listener, empty when it has none."""

    hub_id: str
    endpoint: str
    server_name: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that admission and routing need. ``revoked`` holds node ids and certificate serials (hex)."""

    revision: int
    key_pepper: bytes = field(repr=False)
    keys: Mapping[str, ApiKey] = field(repr=False)
    models: Mapping[str, Model]
    """By name, and by alias."""
    revoked: frozenset[str]
    projects: Mapping[str, Project] = field(default_factory=dict)
    peers: tuple[Peer, ...] = ()
    pass_through: frozenset[str] = field(init=False, repr=False)
    """Every path that some model's engines serve beside the known ones."""

    def __post_init__(self) -> None:
        paths = frozenset(path for model in self.models.values() for path in model.pass_through)
        object.__setattr__(self, "pass_through", paths)

    def model_for(self, organization_id: str, name: str) -> Model | None:
        """The model of that name, if that organization may use it."""
        model = self.models.get(name)
        return model if model is not None and model.organization_id in ("", organization_id) else None

    def models_for(self, organization_id: str) -> list[Model]:
        """All that organization may use, by name."""
        named = sorted(self.models.items())
        return [
            model for name, model in named if name == model.name and model.organization_id in ("", organization_id)
        ]


@dataclass(slots=True)
class Cell:
    """Holds the newest snapshot, and tells the watchers of each replacement."""

    current: Snapshot | None = None
    watchers: list[Callable[[Snapshot], None]] = field(default_factory=list)

    def model(self, name: str) -> Model | None:
        """The model of that name in force."""
        return None if self.current is None else self.current.models.get(name)

    def replace(self, snapshot: Snapshot) -> None:
        """From now on this one is in force. Watchers must not raise."""
        self.current = snapshot
        for tell in self.watchers:
            tell(snapshot)
