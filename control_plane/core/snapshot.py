"""All that a gateway needs for admission and routing, at one revision."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from control_plane.core.fleet import WorkerPhase
from control_plane.core.limits import ANYTHING, KeyPolicy
from control_plane.core.model import FREE, Deployment, Model, Price, RoutingPolicy
from control_plane.core.projects import Project
from mesh.kit.ids import DeploymentId, NodeId, OrganizationId, WorkerId


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """An API key as gateways know it: enough to recognise it, not enough to use it."""

    key_id: str
    secret_mac: bytes
    organization_id: OrganizationId
    expires_at: datetime | None
    project_id: str | None = None
    policy: KeyPolicy = ANYTHING


@dataclass(frozen=True, slots=True)
class Route:
    """One worker that serves a model. Whether it can be reached, the gateway knows best."""

    worker_id: WorkerId
    node_id: NodeId
    deployment_id: DeploymentId
    engine: str
    slots: int
    phase: WorkerPhase
    weight: int = 1000
    """What it can do beside others of the model, in thousandths."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A deployed model, or one adapter of it, under the name that clients ask for."""

    name: str
    created_at: datetime
    context_length: int
    routes: tuple[Route, ...]
    aliases: tuple[str, ...] = ()
    engine_name: str = ""
    """What its engines know it by; empty: its name."""
    base_model: str = ""
    """For an adapter: the model it belongs to."""
    policy: RoutingPolicy = RoutingPolicy.BALANCED
    price: Price = FREE
    pass_through: tuple[str, ...] = ()
    can_start: bool = False


@dataclass(frozen=True, slots=True)
class Peer:
    """One process of a gateway, as others reach it; ``endpoint`` is empty when it listens to no peer."""

    hub_id: str
    endpoint: str
    server_name: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole of it. ``revoked_nodes`` holds node ids and certificate serials that may no longer attach."""

    revision: int
    api_keys: tuple[KeyEntry, ...]
    models: tuple[ModelEntry, ...]
    revoked_nodes: tuple[str, ...]
    projects: tuple[Project, ...] = ()
    peers: tuple[Peer, ...] = ()


def model_entries(
    models: Iterable[Model],
    deployments: Iterable[Deployment],
    routes: Mapping[str, Sequence[Route]],
) -> tuple[ModelEntry, ...]:
    """An entry for each deployed model, and one for each of its adapters that some deployment can serve.

    The oldest deployment says how requests are routed; the paths of all of them are open.
    """
    of_model: dict[str, list[Deployment]] = {}
    for one in sorted(deployments, key=lambda one: (one.created_at, one.deployment_id)):
        of_model.setdefault(one.model_id, []).append(one)
    entries = []
    for model in models:
        deployed = of_model.get(model.model_id, [])
        if deployed:
            entries.append(_entry(model, deployed, routes, name=model.name, aliases=model.aliases))
        able = [one for one in deployed if one.engine.serves_adapters]
        if able:
            entries.extend(_entry(model, able, routes, name=one.name, base=model.name) for one in model.adapters)
    return tuple(entries)


def _entry(
    model: Model,
    deployed: Sequence[Deployment],
    routes: Mapping[str, Sequence[Route]],
    *,
    name: str,
    aliases: tuple[str, ...] = (),
    base: str = "",
) -> ModelEntry:
    found = [route for one in deployed for route in routes.get(one.deployment_id, ())]
    return ModelEntry(
        name=name,
        created_at=model.created_at,
        context_length=model.context_length,
        routes=tuple(sorted(found, key=lambda route: route.worker_id)),
        aliases=aliases,
        engine_name=name if base else "",
        base_model=base,
        policy=deployed[0].policy,
        price=model.price,
        pass_through=tuple(sorted({path for one in deployed for path in one.pass_through})),
        can_start=any(one.replicas for one in deployed),
    )
