"""Protobuf → core values: what nodes and gateways say. With ``convert_out``, the only file that knows both.

What comes in is made fit to keep: texts are clipped and lose control characters, numbers are pulled into their
range, a reading that cannot be (not a number, more used than there is) becomes the nearest one that can. Only what
has no sensible nearest value is refused, with InvalidInput naming the field.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

from control_plane.core.fleet import (
    AgentInfo,
    Gpu,
    GpuSample,
    Hardware,
    HostSample,
    Report,
    WorkerPhase,
    WorkerReport,
)
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import WorkerId
from mesh.node.v1 import node_pb2
from mesh.types.v1 import machine_pb2, worker_pb2

MAX_WORKERS = 256  # of one node; placement never comes near
MAX_GPUS = 64  # of one machine
MAX_DETAIL = 512  # characters: one line for people
MAX_NAME = 128  # characters of any id, name or version that a node tells
_MOST = 2**63 - 1  # what a bigint holds
_MOST_32 = 2**31 - 1  # what an integer holds

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_PHASES = {
    number: WorkerPhase(name.removeprefix("WORKER_PHASE_").lower())
    for name, number in worker_pb2.WorkerPhase.items()
    if number
}


def hardware(said: machine_pb2.Hardware) -> Hardware:
    """What a machine says it is made of."""
    _at_most("hardware.gpus", len(said.gpus), MAX_GPUS)
    return Hardware(
        hostname=text(said.hostname),
        os=text(said.os),
        arch=text(said.arch),
        cpu_count=_count(said.cpu_count),
        memory_bytes=_big(said.memory_bytes),
        disk_bytes=_big(said.disk_bytes),
        gpus=tuple(
            Gpu(text(gpu.uuid), text(gpu.name), _big(gpu.memory_bytes), text(gpu.compute_capability))
            for gpu in _each_once(said.gpus, "uuid")
        ),
    )


def agent_info(said: machine_pb2.AgentInfo) -> AgentInfo:
    """What an agent says it is."""
    return AgentInfo(text(said.version), text(said.build_date), text(said.checksum))


def workers(said: Iterable[worker_pb2.WorkerStatus]) -> tuple[WorkerReport, ...]:
    """What a node says of its workers."""
    statuses = list(said)
    _at_most("workers", len(statuses), MAX_WORKERS)
    return tuple(
        WorkerReport(
            worker_id=WorkerId(text(one.worker_id)),
            spec_hash=text(one.spec_hash),
            phase=_PHASES.get(
                one.phase, WorkerPhase.PENDING
            ),  # a newer agent's phase: not serving, as far as we know
            progress_percent=min(one.progress_percent, 100),
            detail=text(one.detail, MAX_DETAIL),
            starts=_count(one.starts),
            adopted=one.adopted,
            requests_running=_count(one.requests_running) if one.HasField("requests_running") else None,
            requests_waiting=_count(one.requests_waiting) if one.HasField("requests_waiting") else None,
            kv_cache_usage=_between(one.kv_cache_usage, 0, 1) if one.HasField("kv_cache_usage") else None,
        )
        for one in _each_once(statuses, "worker_id")
    )


def report(said: node_pb2.Report) -> Report:
    """A heartbeat."""
    _at_most("gpus", len(said.gpus), MAX_GPUS)
    return Report(
        applied_revision=revision(said.applied_revision),
        workers=workers(said.workers),
        agent_info=agent_info(said.agent_info) if said.HasField("agent_info") else None,
        host=_host_sample(said.host) if said.HasField("host") else None,
        gpus=tuple(_gpu_sample(gpu) for gpu in _each_once(said.gpus, "uuid")),
    )


def revision(said: int) -> int:
    """A revision that a node says it acted on, or an epoch that it says it had."""
    return _big(said)


def _host_sample(said: machine_pb2.HostSample) -> HostSample:
    memory, disk = _big(said.memory_total_bytes), _big(said.disk_total_bytes)
    return HostSample(
        cpu_percent=_between(said.cpu_percent, 0, 100),
        load1=_between(said.load1, 0, 1e6),
        memory_used_bytes=min(_big(said.memory_used_bytes), memory),
        memory_total_bytes=memory,
        disk_used_bytes=min(_big(said.disk_used_bytes), disk),
        disk_total_bytes=disk,
        network_received_bytes=_big(said.network_received_bytes),
        network_sent_bytes=_big(said.network_sent_bytes),
    )


def _gpu_sample(said: machine_pb2.GpuSample) -> GpuSample:
    total, used = _told(said, "memory_total_bytes"), _told(said, "memory_used_bytes")
    if total is not None:
        total = _big(total)
    if used is not None:
        used = _big(used) if total is None else min(used, total)
    return GpuSample(
        uuid=text(said.uuid),
        utilization_percent=_reading(said, "utilization_percent", 0, 100),
        memory_used_bytes=used,
        memory_total_bytes=total,
        temperature_celsius=_reading(said, "temperature_celsius", -50, 150),
        power_watts=_reading(said, "power_watts", 0, 100_000),
    )


def _reading(said: machine_pb2.GpuSample, name: str, low: float, high: float) -> float | None:
    """What a driver does not tell, or tells as no number, is absent."""
    value = _told(said, name)
    return None if value is None or not math.isfinite(value) else _between(value, low, high)


def _told(said: machine_pb2.GpuSample, name: str) -> Any:
    return getattr(said, name) if said.HasField(name) else None


def text(said: str, longest: int = MAX_NAME) -> str:
    """One line that can be stored and shown: Postgres refuses NUL, terminals obey the rest."""
    return _UNSEEN.sub(" ", said[:longest]).strip()


def _count(said: int) -> int:
    return min(said, _MOST_32)


def _big(said: int) -> int:
    return min(said, _MOST)


def _between(said: float, low: float, high: float) -> float:
    return max(low, min(high, said)) if math.isfinite(said) else max(low, 0.0)


def _at_most(field: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidInput(field, f"at most {most}, not {count}")


def _each_once(said: Iterable[Any], key: str) -> list[Any]:
    """The last of each: a node that says two things of one worker means the later."""
    return list({getattr(one, key): one for one in said}.values())
