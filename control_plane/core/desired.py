"""What a node should be: the workers it should run and the hubs it should keep tunnels to."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from control_plane.core.model import Adapter, Deployment, Model
from mesh.kit.ids import DeploymentId, WorkerId


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One engine that a node should run. Two specs with one ``spec_hash`` are the same worker."""

    worker_id: WorkerId
    deployment_id: DeploymentId
    model: str
    engine: str
    source: str
    context_length: int
    slots: int
    memory_bytes: int
    gpu_uuids: tuple[str, ...]
    spec_hash: str = ""
    adapters: tuple[Adapter, ...] = ()


def hub_id(gateway_id: str, process: int) -> str:
    """The id of one process of a gateway, as a hub. Gateways' own ids have no "~"."""
    return f"{gateway_id}~{process}" if process else gateway_id


@dataclass(frozen=True, slots=True)
class Hub:
    """One process of a gateway, where it accepts tunnels."""

    hub_id: str
    endpoint: str
    server_name: str


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The whole of it. ``revision`` only grows, per node."""

    revision: int
    workers: tuple[WorkerSpec, ...] = ()
    hubs: tuple[Hub, ...] = ()


def make_spec(
    worker_id: WorkerId, *, deployment: Deployment, model: Model, gpu_uuids: tuple[str, ...]
) -> WorkerSpec:
    """The spec of one replica of the deployment, hash included."""
    spec = WorkerSpec(
        worker_id=worker_id,
        deployment_id=deployment.deployment_id,
        model=model.name,
        engine=str(deployment.engine),
        source=model.source,
        context_length=model.context_length,
        slots=deployment.slots,
        memory_bytes=model.host_bytes,
        gpu_uuids=gpu_uuids,
        adapters=model.adapters if deployment.engine.serves_adapters else (),
    )
    return replace(spec, spec_hash=spec_hash(spec))


def spec_hash(spec: WorkerSpec) -> str:
    """SHA-256 (hex) over every other field, by name, in one canonical form."""
    fields = {name: value for name, value in asdict(spec).items() if name != "spec_hash"}
    if not spec.adapters:  # such a spec has the hash it had before there were adapters
        del fields["adapters"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
