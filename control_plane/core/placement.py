"""Fleet + deployments → who runs what. Pure: the same inputs, in any order, give the same plan.

Rules
1. A placed replica stays where it is, unless its node is revoked, or has been offline for longer than the grace
   and another node has room. Losing sight of a node is no reason to lose its workers.
2. A new replica goes to an online node with room: host memory for a CPU model; for a GPU model as many free
   accelerators as it asks for, each with room for its share of the video memory. An accelerator serves one worker.
3. Of the nodes with room, the one with the fewest workers of that deployment, then with the fewest workers.
4. What fits nowhere stays pending, and the plan names the smallest thing that is missing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.core.fleet import Gpu, Node, NodeState, WorkerPhase
from control_plane.core.model import Assignment, Deployment, Model
from mesh.kit.ids import DeploymentId, NodeId, WorkerId


@dataclass(frozen=True, slots=True)
class Assign:
    """Run one more replica there."""

    deployment_id: DeploymentId
    node_id: NodeId
    gpu_uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """Run this one no longer."""

    worker_id: WorkerId
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to change, and why the rest must wait."""

    assign: tuple[Assign, ...] = ()
    release: tuple[Release, ...] = ()
    pending: Mapping[DeploymentId, str] = field(default_factory=dict)


# Which replicas to keep when fewer are wanted: those that serve, or are nearest to it.
_KEEP = (
    WorkerPhase.READY,
    WorkerPhase.WARMING,
    WorkerPhase.STARTING,
    WorkerPhase.PENDING,
    WorkerPhase.DRAINING,
    WorkerPhase.FAILED,
)


@dataclass(slots=True)
class _Site:
    """A node while the plan is made: what is left of it. Lives for one call of ``place``."""

    node: Node
    host_bytes: int
    gpus: dict[str, Gpu]
    workers: dict[DeploymentId, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.workers.values())

    @property
    def rank(self) -> tuple[int, str]:
        return self.total, self.node.node_id

    def charge(self, deployment_id: DeploymentId, model: Model, gpu_uuids: Iterable[str]) -> None:
        self.workers[deployment_id] = self.workers.get(deployment_id, 0) + 1
        self.host_bytes -= model.host_bytes
        for uuid in gpu_uuids:
            self.gpus.pop(uuid, None)

    def choose_gpus(self, model: Model) -> tuple[str, ...]:
        """The smallest free accelerators that hold their share, so that big ones stay free for big models."""
        enough = [gpu for gpu in self.gpus.values() if gpu.memory_bytes >= model.vram_bytes_per_gpu]
        enough.sort(key=lambda gpu: (gpu.memory_bytes, gpu.uuid))
        return tuple(gpu.uuid for gpu in enough[: model.gpu_count])

    def has_room(self, model: Model) -> bool:
        return self.host_bytes >= model.host_bytes and len(self.choose_gpus(model)) == model.gpu_count


def place(
    nodes: Iterable[Node],
    deployments: Iterable[Deployment],
    models: Iterable[Model],
    existing: Iterable[Assignment],
    *,
    now: datetime,
    grace: timedelta,
) -> Plan:
    """Decide where every replica runs, changing as little as possible. Older deployments come first."""
    fleet = {node.node_id: node for node in nodes if node.state is not NodeState.REVOKED}
    wanted = sorted(deployments, key=lambda one: (one.created_at, one.deployment_id))
    known = {one.model_id: one for one in models}
    needs = {one.deployment_id: known[one.model_id] for one in wanted}
    kept, release = _keep(fleet, wanted, existing)
    sites = _sites(fleet, needs, kept)

    assign: list[Assign] = []
    pending: dict[DeploymentId, str] = {}
    for deployment in wanted:
        owner, model = deployment.deployment_id, needs[deployment.deployment_id]
        mine = kept[owner]
        lost = [one for one in mine if _lost(fleet[one.node_id], now, grace)]
        missing = deployment.replicas - len(mine)
        while missing or lost:
            site = _best(sites, owner, model)
            if site is None:
                lacks = _lacks(fleet.values(), sites, model)
                pending[owner] = f"{missing + len(lost)} of {deployment.replicas} replicas wait: {lacks}"
                break
            gpu_uuids = site.choose_gpus(model)
            site.charge(owner, model, gpu_uuids)
            assign.append(Assign(owner, site.node.node_id, gpu_uuids))
            if missing:
                missing -= 1
            else:
                release.append(Release(lost.pop(0).worker_id, "its node is offline for too long"))
    return Plan(tuple(assign), tuple(release), pending)


def _keep(
    fleet: Mapping[NodeId, Node], wanted: Iterable[Deployment], existing: Iterable[Assignment]
) -> tuple[dict[DeploymentId, list[Assignment]], list[Release]]:
    """Part what stays, by deployment, from what must go whatever else is decided."""
    kept: dict[DeploymentId, list[Assignment]] = {one.deployment_id: [] for one in wanted}
    release: list[Release] = []
    for one in sorted(existing, key=lambda one: one.worker_id):
        if one.deployment_id not in kept:
            release.append(Release(one.worker_id, "its deployment is gone"))
        elif one.node_id not in fleet:
            release.append(Release(one.worker_id, "its node is revoked"))
        else:
            kept[one.deployment_id].append(one)
    for deployment in wanted:
        mine = kept[deployment.deployment_id]
        mine.sort(key=lambda one: (fleet[one.node_id].state is not NodeState.ONLINE, _KEEP.index(one.phase)))
        release += [Release(one.worker_id, "fewer replicas are wanted") for one in mine[deployment.replicas :]]
        del mine[deployment.replicas :]
    return kept, release


def _sites(
    fleet: Mapping[NodeId, Node],
    needs: Mapping[DeploymentId, Model],
    kept: Mapping[DeploymentId, Iterable[Assignment]],
) -> list[_Site]:
    """Every node that may be given work, less what stays on it."""
    sites = {
        node.node_id: _Site(node, node.hardware.memory_bytes, {gpu.uuid: gpu for gpu in node.hardware.gpus})
        for node in fleet.values()
        if node.state is NodeState.ONLINE and node.hardware is not None
    }
    for owner, mine in kept.items():
        for one in mine:
            if (site := sites.get(one.node_id)) is not None:
                site.charge(owner, needs[owner], one.gpu_uuids)
    return [*sites.values()]


def _lost(node: Node, now: datetime, grace: timedelta) -> bool:
    if node.state is not NodeState.OFFLINE:
        return False
    return node.last_seen_at is None or now - node.last_seen_at > grace


def _best(sites: Iterable[_Site], owner: DeploymentId, model: Model) -> _Site | None:
    fitting = [site for site in sites if site.has_room(model)]
    return min(fitting, key=lambda site: (site.workers.get(owner, 0), *site.rank), default=None)


def _lacks(fleet: Iterable[Node], sites: Iterable[_Site], model: Model) -> str:
    """The smallest thing that would let one more worker of that model run, in words."""
    nodes, candidates = [*fleet], [*sites]
    if not nodes:
        return "no node has joined"
    if not candidates:
        silent = any(node.state is NodeState.ONLINE for node in nodes)
        return "no node has told its hardware yet" if silent else "no node is online"
    if not model.gpu_count:
        nearest = min(candidates, key=lambda site: (-site.host_bytes, site.node.node_id))
        free = max(nearest.host_bytes, 0)
        return (
            f"{_size(model.host_bytes - free)} more host memory is needed; "
            f"{nearest.node.hostname} has {_size(free)} free of the {_size(model.host_bytes)} that a worker takes"
        )
    (gpus, octets), _, nearest = min((_shortage(site, model), site.node.node_id, site) for site in candidates)
    if gpus:
        return (
            f"{gpus} more free GPU{'s' if gpus > 1 else ''} on one node needed; "
            f"{nearest.node.hostname} has {len(nearest.gpus)} of the {model.gpu_count} that a worker takes"
        )
    return (
        f"{_size(octets)} more video memory is needed; {nearest.node.hostname} has no {model.gpu_count} free "
        f"GPU{'s' if model.gpu_count > 1 else ''} with {_size(model.vram_bytes_per_gpu)} each"
    )


def _shortage(site: _Site, model: Model) -> tuple[int, int]:
    """How many accelerators are missing there; if none, how much memory the best of them lack."""
    largest = sorted((gpu.memory_bytes for gpu in site.gpus.values()), reverse=True)[: model.gpu_count]
    octets = sum(max(model.vram_bytes_per_gpu - memory, 0) for memory in largest)
    return model.gpu_count - len(largest), octets


def _size(octets: int) -> str:
    return f"{octets / 2**30:.1f} GiB" if octets >= 2**30 else f"{-(-octets // 2**20)} MiB"
