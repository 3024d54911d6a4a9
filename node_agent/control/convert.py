"""Where the control stream's protobuf becomes values, and values become protobuf. No other file here does both."""

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.node.v1 import node_pb2
from mesh.types.v1 import machine_pb2, worker_pb2
from node_agent.agent import AgentInfo
from node_agent.core.desired import DesiredState, Hub
from node_agent.core.report import Gpu, GpuSample, Hardware, HostSample, Report, one_line
from node_agent.core.worker import WorkerPhase, WorkerSpec, WorkerStatus

CAPABILITIES = (1,)
"""Numbers of proto/README.md that this agent has."""

_PHASES = {
    WorkerPhase.PENDING: worker_pb2.WORKER_PHASE_PENDING,
    WorkerPhase.STARTING: worker_pb2.WORKER_PHASE_STARTING,
    WorkerPhase.WARMING: worker_pb2.WORKER_PHASE_WARMING,
    WorkerPhase.READY: worker_pb2.WORKER_PHASE_READY,
    WorkerPhase.DRAINING: worker_pb2.WORKER_PHASE_DRAINING,
    WorkerPhase.FAILED: worker_pb2.WORKER_PHASE_FAILED,
}


def desired_state(message: node_pb2.DesiredState) -> DesiredState:
    """What the control plane wants, as a value."""
    return DesiredState(
        revision=message.revision,
        workers=tuple(_spec(worker) for worker in message.workers),
        hubs=tuple(
            Hub(hub_id=hub.hub_id, endpoint=hub.endpoint, server_name=hub.server_name) for hub in message.hubs
        ),
    )


def hello(
    *,
    agent: AgentInfo,
    hardware: Hardware,
    applied_revision: int,
    last_epoch: int,
    workers: Iterable[WorkerStatus],
) -> node_pb2.ConnectRequest:
    """The first message of a session."""
    return node_pb2.ConnectRequest(
        hello=node_pb2.Hello(
            agent_info=_agent(agent),
            hardware=_hardware(hardware),
            capabilities=CAPABILITIES,
            applied_revision=applied_revision,
            last_epoch=last_epoch,
            workers=[_status(worker) for worker in workers],
        )
    )


def report(value: Report, agent: AgentInfo) -> node_pb2.ConnectRequest:
    """A heartbeat."""
    observed_at = Timestamp()
    observed_at.FromDatetime(value.observed_at)
    return node_pb2.ConnectRequest(
        report=node_pb2.Report(
            sequence=value.sequence,
            observed_at=observed_at,
            applied_revision=value.applied_revision,
            workers=[_status(worker) for worker in value.workers],
            agent_info=_agent(agent),
            host=_host(value.host),
            gpus=[_gpu_sample(sample) for sample in value.gpus],
        )
    )


def _spec(worker: worker_pb2.WorkerSpec) -> WorkerSpec:
    return WorkerSpec(
        worker_id=worker.worker_id,
        deployment_id=worker.deployment_id,
        model=worker.model,
        engine=worker.engine,
        source=worker.source,
        context_length=worker.context_length,
        slots=worker.slots,
        memory_bytes=worker.memory_bytes,
        gpu_uuids=tuple(worker.gpu_uuids),
        spec_hash=worker.spec_hash,
        adapters=tuple((adapter.name, adapter.source) for adapter in worker.adapters),
    )


def _status(worker: WorkerStatus) -> worker_pb2.WorkerStatus:
    return worker_pb2.WorkerStatus(
        worker_id=worker.worker_id,
        spec_hash=worker.spec_hash,
        phase=_PHASES[worker.phase],
        progress_percent=worker.progress_percent,
        detail=one_line(worker.detail),
        starts=worker.starts,
        adopted=worker.adopted,
        requests_running=worker.requests_running,
        requests_waiting=worker.requests_waiting,
        kv_cache_usage=worker.kv_cache_usage,
    )


def _agent(agent: AgentInfo) -> machine_pb2.AgentInfo:
    return machine_pb2.AgentInfo(version=agent.version, build_date=agent.build_date, checksum=agent.checksum)


def _hardware(value: Hardware) -> machine_pb2.Hardware:
    return machine_pb2.Hardware(
        hostname=value.hostname,
        os=value.os,
        arch=value.arch,
        cpu_count=value.cpu_count,
        memory_bytes=value.memory_bytes,
        disk_bytes=value.disk_bytes,
        gpus=[_gpu(gpu) for gpu in value.gpus],
    )


def _gpu(gpu: Gpu) -> machine_pb2.Gpu:
    return machine_pb2.Gpu(
        uuid=gpu.uuid, name=gpu.name, memory_bytes=gpu.memory_bytes, compute_capability=gpu.compute_capability
    )


def _host(sample: HostSample | None) -> machine_pb2.HostSample | None:
    # Nothing rather than a made-up share: fields of this message have no presence.
    if sample is None or sample.cpu_percent is None:
        return None
    return machine_pb2.HostSample(
        cpu_percent=sample.cpu_percent,
        load1=sample.load1,
        memory_used_bytes=sample.memory_used_bytes,
        memory_total_bytes=sample.memory_total_bytes,
        disk_used_bytes=sample.disk_used_bytes,
        disk_total_bytes=sample.disk_total_bytes,
        network_received_bytes=sample.network_received_bytes,
        network_sent_bytes=sample.network_sent_bytes,
    )


def _gpu_sample(sample: GpuSample) -> machine_pb2.GpuSample:
    return machine_pb2.GpuSample(
        uuid=sample.uuid,
        utilization_percent=sample.utilization_percent,
        memory_used_bytes=sample.memory_used_bytes,
        memory_total_bytes=sample.memory_total_bytes,
        temperature_celsius=sample.temperature_celsius,
        power_watts=sample.power_watts,
    )
