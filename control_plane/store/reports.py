"""What nodes say of themselves, to and from the ``jsonb`` columns that keep it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
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


def hardware_json(hardware: Hardware) -> dict[str, Any]:
    """Hardware as it is kept."""
    return asdict(hardware)


def hardware_of(kept: Mapping[str, Any] | None) -> Hardware | None:
    """Hardware as it was told, if ever."""
    if kept is None:
        return None
    return Hardware(**{**kept, "gpus": tuple(Gpu(**gpu) for gpu in kept["gpus"])})


def report_json(report: Report) -> dict[str, Any]:
    """A report as it is kept; revision and build have columns of their own."""
    return {
        "workers": workers_json(report.workers),
        "host": None if report.host is None else asdict(report.host),
        "gpus": [asdict(gpu) for gpu in report.gpus],
    }


def workers_json(workers: Iterable[WorkerReport]) -> list[dict[str, Any]]:
    """Workers as they are kept."""
    return [asdict(worker) for worker in workers]


def workers_of(kept: Mapping[str, Any]) -> tuple[WorkerReport, ...]:
    """The workers of a kept report."""
    return tuple(
        WorkerReport(**{**worker, "phase": WorkerPhase(worker["phase"])}) for worker in kept.get("workers", ())
    )


def host_of(kept: Mapping[str, Any]) -> HostSample | None:
    """The host's reading of a kept report."""
    host = kept.get("host")
    return None if host is None else HostSample(**host)


def gpus_of(kept: Mapping[str, Any]) -> tuple[GpuSample, ...]:
    """The accelerators' readings of a kept report."""
    return tuple(GpuSample(**gpu) for gpu in kept.get("gpus", ()))


def agent_info_of(version: str, build_date: str, checksum: str) -> AgentInfo | None:
    """The agent's build, if it told one."""
    return AgentInfo(version, build_date, checksum) if version else None
