"""Core values → protobuf: what nodes and operators are told. Only the files ``convert_*`` know both."""

from collections.abc import Collection, Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from control_plane.core.access import ApiKey, JoinToken, Organization
from control_plane.core.desired import DesiredState, WorkerSpec
from control_plane.core.fleet import (
    AgentInfo,
    GpuSample,
    Hardware,
    HostSample,
    Node,
    NodeState,
    WorkerPhase,
    WorkerReport,
)
from control_plane.core.model import Assignment, Deployment, Model
from control_plane.core.projects import Project
from control_plane.rpc.convert_limits import (
    adapters_out,
    key_policy_out,
    limits_out,
    price_out,
    routing_policy_out,
)
from control_plane.store.ledger import Spent
from mesh.admin.v1 import (
    api_key_pb2,
    deployment_pb2,
    join_token_pb2,
    model_pb2,
    organization_pb2,
    project_pb2,
)
from mesh.admin.v1 import node_pb2 as admin_node_pb2
from mesh.kit.ids import NodeId
from mesh.node.v1 import node_pb2
from mesh.types.v1 import machine_pb2, worker_pb2

PHASES = {phase: f"WORKER_PHASE_{phase.name}" for phase in WorkerPhase}
_STATES = {state: f"NODE_STATE_{state.name}" for state in NodeState}


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment; absent stays absent."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def desired_state(state: DesiredState) -> node_pb2.DesiredState:
    """What a node should be."""
    return node_pb2.DesiredState(
        revision=state.revision,
        workers=[_worker_spec(spec) for spec in state.workers],
        hubs=[
            node_pb2.Hub(hub_id=hub.hub_id, endpoint=hub.endpoint, server_name=hub.server_name)
            for hub in state.hubs
        ],
    )


def _worker_spec(spec: WorkerSpec) -> worker_pb2.WorkerSpec:
    return worker_pb2.WorkerSpec(
        worker_id=spec.worker_id,
        deployment_id=spec.deployment_id,
        model=spec.model,
        engine=spec.engine,
        source=spec.source,
        context_length=spec.context_length,
        slots=spec.slots,
        memory_bytes=spec.memory_bytes,
        gpu_uuids=spec.gpu_uuids,
        spec_hash=spec.spec_hash,
        adapters=adapters_out(spec.adapters),
    )


def organization(value: Organization) -> organization_pb2.Organization:
    """An organization, as operators see it."""
    return organization_pb2.Organization(
        organization_id=value.organization_id, name=value.name, created_at=timestamp(value.created_at)
    )


def api_key(value: ApiKey) -> api_key_pb2.ApiKey:
    """An API key, as operators see it: without its secret."""
    return api_key_pb2.ApiKey(
        key_id=value.key_id,
        organization_id=value.organization_id,
        name=value.name,
        created_at=timestamp(value.created_at),
        expires_at=timestamp(value.expires_at),
        project_id=value.project_id or "",
        policy=key_policy_out(value.policy),
        prefix=value.prefix,
    )


def project(value: Project, spent: Spent) -> project_pb2.Project:
    """A project with what was charged to it, as operators see it."""
    return project_pb2.Project(
        project_id=value.project_id,
        organization_id=value.organization_id,
        name=value.name,
        created_at=timestamp(value.created_at),
        limits=limits_out(value.limits),
        charged_tokens=spent.tokens,
        charged_money=spent.money,
    )


def join_token(value: JoinToken) -> join_token_pb2.JoinToken:
    """A join token, as operators see it: without its secret."""
    return join_token_pb2.JoinToken(
        token_id=value.token_id,
        organization_id=value.organization_id,
        created_at=timestamp(value.created_at),
        expires_at=timestamp(value.expires_at),
        uses_left=value.uses_left,
        revoked_at=timestamp(value.revoked_at),
    )


def model(value: Model) -> model_pb2.Model:
    """A model, as operators see it."""
    return model_pb2.Model(
        model_id=value.model_id,
        name=value.name,
        source=value.source,
        context_length=value.context_length,
        memory_bytes=value.memory_bytes,
        vram_bytes=value.vram_bytes,
        gpu_count=value.gpu_count,
        created_at=timestamp(value.created_at),
        aliases=value.aliases,
        price=price_out(value.price),
        adapters=adapters_out(value.adapters),
    )


def deployment(
    value: Deployment, placed: Iterable[Assignment] = (), *, online: Collection[NodeId] = ()
) -> deployment_pb2.Deployment:
    """A deployment with its workers, as operators see it. What an absent node said last is not shown as now."""
    return deployment_pb2.Deployment(
        deployment_id=value.deployment_id,
        name=value.name,
        model=value.model_name,
        engine=value.engine,
        replicas=value.replicas,
        slots=value.slots,
        created_at=timestamp(value.created_at),
        workers=[_worker(one) if one.node_id in online else _out_of_sight(one) for one in placed],
        pending_reason=value.pending_reason,
        policy=routing_policy_out(value.policy),
        pass_through=value.pass_through,
    )


def _worker(value: Assignment) -> deployment_pb2.Worker:
    return deployment_pb2.Worker(
        worker_id=value.worker_id,
        node_id=value.node_id,
        phase=PHASES[value.phase],
        progress_percent=value.progress_percent,
        detail=value.detail,
    )


def _out_of_sight(value: Assignment) -> deployment_pb2.Worker:
    return deployment_pb2.Worker(
        worker_id=value.worker_id,
        node_id=value.node_id,
        phase=PHASES[WorkerPhase.PENDING],
        detail="its node is not connected",
    )


def node(value: Node) -> admin_node_pb2.Node:
    """A node with its last words, as operators see it."""
    return admin_node_pb2.Node(
        node_id=value.node_id,
        organization_id=value.organization_id,
        hostname=value.hostname,
        state=_STATES[value.state],
        created_at=timestamp(value.created_at),
        last_seen_at=timestamp(value.last_seen_at),
        epoch=value.epoch,
        desired_revision=value.desired_revision,
        applied_revision=value.applied_revision,
        agent_info=_agent_info(value.agent_info),
        hardware=_hardware(value.hardware),
        workers=[_worker_status(one) for one in value.workers],
        host=_host_sample(value.host),
        gpus=[_gpu_sample(one) for one in value.gpus],
        certificate_expires_at=timestamp(value.certificate_expires_at),
    )


def _agent_info(value: AgentInfo | None) -> machine_pb2.AgentInfo | None:
    if value is None:
        return None
    return machine_pb2.AgentInfo(version=value.version, build_date=value.build_date, checksum=value.checksum)


def _hardware(value: Hardware | None) -> machine_pb2.Hardware | None:
    if value is None:
        return None
    return machine_pb2.Hardware(
        hostname=value.hostname,
        os=value.os,
        arch=value.arch,
        cpu_count=value.cpu_count,
        memory_bytes=value.memory_bytes,
        disk_bytes=value.disk_bytes,
        gpus=[
            machine_pb2.Gpu(
                uuid=gpu.uuid,
                name=gpu.name,
                memory_bytes=gpu.memory_bytes,
                compute_capability=gpu.compute_capability,
            )
            for gpu in value.gpus
        ],
    )


def _worker_status(value: WorkerReport) -> worker_pb2.WorkerStatus:
    return worker_pb2.WorkerStatus(
        worker_id=value.worker_id,
        spec_hash=value.spec_hash,
        phase=PHASES[value.phase],
        progress_percent=value.progress_percent,
        detail=value.detail,
        starts=value.starts,
        adopted=value.adopted,
        requests_running=value.requests_running,
        requests_waiting=value.requests_waiting,
        kv_cache_usage=value.kv_cache_usage,
    )


def _host_sample(value: HostSample | None) -> machine_pb2.HostSample | None:
    if value is None:
        return None
    return machine_pb2.HostSample(
        cpu_percent=value.cpu_percent,
        load1=value.load1,
        memory_used_bytes=value.memory_used_bytes,
        memory_total_bytes=value.memory_total_bytes,
        disk_used_bytes=value.disk_used_bytes,
        disk_total_bytes=value.disk_total_bytes,
        network_received_bytes=value.network_received_bytes,
        network_sent_bytes=value.network_sent_bytes,
    )


def _gpu_sample(value: GpuSample) -> machine_pb2.GpuSample:
    return machine_pb2.GpuSample(
        uuid=value.uuid,
        utilization_percent=value.utilization_percent,
        memory_used_bytes=value.memory_used_bytes,
        memory_total_bytes=value.memory_total_bytes,
        temperature_celsius=value.temperature_celsius,
        power_watts=value.power_watts,
    )
