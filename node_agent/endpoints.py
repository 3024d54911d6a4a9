"""The agent's own HTTP on loopback: /healthz, /readyz, /info and /metrics, for its owner and for Prometheus.

No TLS and no authentication: only processes of this machine reach it (``responder`` sees to that).
"""

import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import psutil

from node_agent.agent import AgentInfo
from node_agent.core.exposition import CONTENT_TYPE, Family, labelled, one, render
from node_agent.core.report import GpuSample, HostSample
from node_agent.core.worker import WorkerView
from node_agent.responder import Reply, Routes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the answers come from. Each is asked anew for every request, and must answer at once."""

    agent: Callable[[], AgentInfo]
    node_id: Callable[[], str | None]
    workers: Callable[[], tuple[WorkerView, ...]]
    host: Callable[[], HostSample | None]
    gpus: Callable[[], tuple[GpuSample, ...]]
    own: Callable[[], Mapping[str, float]] = dict
    """Further gauges of the agent itself, by full metric name."""
    state: Callable[[], Mapping[str, object]] = dict
    """Further facts for /info: connection, tunnels, requests."""


def unready(workers: Iterable[WorkerView]) -> dict[str, str]:
    """Why this node is not ready, by worker; empty when every worker is ready and there is at least one."""
    views = tuple(workers)
    if not views:
        return {"": "no worker is assigned to this node"}
    return {
        view.status.worker_id: f"{view.status.phase}: {view.status.detail}" for view in views if not view.ready
    }


def build(sources: Sources) -> Routes:
    """What answers each path; ``responder.serving`` serves it."""
    process = psutil.Process()

    def readyz() -> Reply:
        reasons = unready(sources.workers())
        body = {
            "ready": not reasons,
            "reasons": [{"worker_id": w or None, "why": why} for w, why in reasons.items()],
        }
        return _json(body, status=503 if reasons else 200)

    return {
        "/healthz": lambda: Reply(b"ok\n"),
        "/readyz": readyz,
        "/info": lambda: _json(_info(sources)),
        "/metrics": lambda: Reply(render([*_gauges(sources), *_process(process)]), CONTENT_TYPE),
    }


def _json(body: Mapping[str, object], *, status: int = 200) -> Reply:
    return Reply(json.dumps(body).encode(), "application/json; charset=utf-8", status)


def _info(sources: Sources) -> dict[str, object]:
    agent, views = sources.agent(), sources.workers()
    return {
        "agent_version": agent.version,
        "build_date": agent.build_date,
        "checksum": agent.checksum,
        "agent_path": sys.argv[0],
        "python_version": platform.python_version(),
        "node_id": sources.node_id(),
        "ready": not unready(views),
        **sources.state(),
        "workers": [
            {
                "worker_id": view.status.worker_id,
                "model": view.model,
                "engine_base_url": view.endpoint.base_url if view.endpoint else None,
                "ready": view.ready,
                "phase": view.status.phase,
                "progress_percent": view.status.progress_percent,
                "detail": view.status.detail,
                "starts": view.status.starts,
                "adopted": view.status.adopted,
            }
            for view in views
        ],
    }


def _gauges(sources: Sources) -> Iterable[Family]:
    """Everything as gauges, read when Prometheus asks. What is not known has no sample."""
    agent = sources.agent()
    yield one("inventiv_worker_up", "The agent runs.", 1)
    yield labelled(
        "inventiv_agent_info",
        "The agent's own build.",
        ("version", "build_date", "checksum"),
        [((agent.version, agent.build_date, agent.checksum), 1)],
    )
    yield from _workers(sources.workers())
    if (host := sources.host()) is not None:
        yield from _host(host)
    yield from _gpus(sources.gpus())
    for name, value in sources.own().items():
        yield one(name, "Of the agent itself.", value)


def _process(process: psutil.Process) -> Iterable[Family]:
    """The agent as a process, by the names that every Prometheus client uses."""
    prefix, text = "inventiv_agent_process", "Of the agent's process."
    memory, times = process.memory_info(), process.cpu_times()
    yield one(f"{prefix}_resident_memory_bytes", text, memory.rss)
    yield one(f"{prefix}_virtual_memory_bytes", text, memory.vms)
    yield one(f"{prefix}_start_time_seconds", text, process.create_time())
    yield one(f"{prefix}_cpu_seconds_total", text, times.user + times.system, "counter")
    yield one(f"{prefix}_open_fds", text, process.num_fds())
    yield one(f"{prefix}_max_fds", text, process.rlimit(psutil.RLIMIT_NOFILE)[0])


def _workers(views: tuple[WorkerView, ...]) -> Iterable[Family]:
    labels = ("worker_id", "model")
    by = [((view.status.worker_id, view.model), view.status) for view in views]
    counts = [
        (status.requests_running or 0) + (status.requests_waiting or 0)
        for _, status in by
        if status.requests_running is not None or status.requests_waiting is not None
    ]
    yield one("inventiv_worker_vllm_ready", "Every worker of this node is ready.", 0 if unready(views) else 1)
    yield labelled(
        "inventiv_worker_ready",
        "It answers requests.",
        labels,
        [(k, view.ready) for (k, _), view in zip(by, views, strict=True)],
    )
    yield labelled(
        "inventiv_worker_starts", "Times its engine was started.", labels, [(k, s.starts) for k, s in by]
    )
    if counts:
        yield one("inventiv_worker_queue_depth", "Requests in all engines.", sum(counts))
    yield labelled(
        "inventiv_worker_requests_running",
        "As its engine counts.",
        labels,
        [(k, s.requests_running) for k, s in by],
    )
    yield labelled(
        "inventiv_worker_requests_waiting",
        "As its engine counts.",
        labels,
        [(k, s.requests_waiting) for k, s in by],
    )


def _host(host: HostSample) -> Iterable[Family]:
    for name, value in (
        ("cpu_percent", host.cpu_percent),
        ("load1", host.load1),
        ("memory_used_bytes", host.memory_used_bytes),
        ("memory_total_bytes", host.memory_total_bytes),
        ("disk_used_bytes", host.disk_used_bytes),
        ("disk_total_bytes", host.disk_total_bytes),
        ("network_received_bytes", host.network_received_bytes),
        ("network_sent_bytes", host.network_sent_bytes),
    ):
        if value is not None:
            yield one(f"inventiv_worker_{name}", "Of the host.", value)


def _gpus(samples: tuple[GpuSample, ...]) -> Iterable[Family]:
    """Each reading over all accelerators, and again for each one of them."""
    for name, average, values in (
        ("utilization_percent", True, [gpu.utilization_percent for gpu in samples]),
        ("memory_used_bytes", False, [gpu.memory_used_bytes for gpu in samples]),
        ("memory_total_bytes", False, [gpu.memory_total_bytes for gpu in samples]),
        ("temperature_celsius", True, [gpu.temperature_celsius for gpu in samples]),
        ("power_watts", False, [gpu.power_watts for gpu in samples]),
    ):
        known = [value for value in values if value is not None]
        if known:
            total = sum(known) / len(known) if average else sum(known)
            yield one(f"inventiv_worker_gpu_{name}", "Over all accelerators.", total)
            yield labelled(
                f"inventiv_worker_gpu_device_{name}",
                "Of one accelerator.",
                ("gpu_index", "gpu_uuid"),
                [
                    ((str(index), gpu.uuid), value)
                    for index, (gpu, value) in enumerate(zip(samples, values, strict=True))
                ],
            )
