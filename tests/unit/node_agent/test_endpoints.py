"""The agent's own HTTP: health, readiness, information and gauges, to this machine only."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.kit.settings import Address
from node_agent import endpoints
from node_agent.agent import AgentInfo
from node_agent.core.report import GpuSample, HostSample
from node_agent.core.worker import LoopbackEndpoint, WorkerPhase, WorkerStatus, WorkerView
from node_agent.responder import serving

NAMES = ("worker_id", "gpu_index", "version")
HOST = HostSample(
    cpu_percent=12.5,
    load1=0.5,
    memory_used_bytes=1,
    memory_total_bytes=2,
    disk_used_bytes=3,
    disk_total_bytes=4,
    network_received_bytes=5,
    network_sent_bytes=6,
)


def view(
    worker_id: str, phase: WorkerPhase, *, running: int | None = None, waiting: int | None = None
) -> WorkerView:
    status = WorkerStatus(
        worker_id=worker_id,
        spec_hash="h",
        phase=phase,
        detail="in words",
        starts=2,
        requests_running=running,
        requests_waiting=waiting,
    )
    return WorkerView(model="tiny", status=status, endpoint=LoopbackEndpoint("127.0.0.1", 4711))


@dataclass
class Agent:
    """What there is to tell."""

    workers: tuple[WorkerView, ...] = ()
    host: HostSample | None = None
    gpus: tuple[GpuSample, ...] = ()
    own: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        sources = endpoints.Sources(
            agent=lambda: AgentInfo("1.2.3", "2026-11-23", "c0ffee"),
            node_id=lambda: "n-1",
            workers=lambda: self.workers,
            host=lambda: self.host,
            gpus=lambda: self.gpus,
            own=lambda: self.own,
        )
        async with (
            serving(endpoints.build(sources), Address("127.0.0.1", 0)) as address,
            aiohttp.ClientSession(f"http://{address}") as client,
        ):
            yield client

    async def gauges(self) -> dict[tuple[str, str], float]:
        """(metric, worker, accelerator or version) → value."""
        async with self.client() as client, client.get("/metrics") as response:
            assert response.status == 200
            text = await response.text()
        return {
            (sample.name, next((sample.labels[name] for name in NAMES if name in sample.labels), "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


async def test_the_agent_is_alive_even_with_nothing_to_do() -> None:
    async with Agent().client() as client, client.get("/healthz") as response:
        assert (response.status, await response.text()) == (200, "ok\n")


@pytest.mark.parametrize(
    ("phases", "status", "unready"),
    [
        ((), 503, [None]),
        ((WorkerPhase.READY,), 200, []),
        ((WorkerPhase.READY, WorkerPhase.READY), 200, []),
        ((WorkerPhase.READY, WorkerPhase.FAILED), 503, ["w-1"]),
        ((WorkerPhase.DRAINING,), 503, ["w-0"]),
    ],
)
async def test_it_is_ready_when_every_worker_is_and_there_is_one(
    phases: tuple[WorkerPhase, ...], status: int, unready: list[str | None]
) -> None:
    agent = Agent(tuple(view(f"w-{at}", phase) for at, phase in enumerate(phases)))
    async with agent.client() as client, client.get("/readyz") as response:
        body = await response.json()
        assert (response.status, body["ready"]) == (status, not unready)
        assert [reason["worker_id"] for reason in body["reasons"]] == unready
        assert all(reason["why"] for reason in body["reasons"])


async def test_information_names_the_build_the_node_and_its_workers() -> None:
    async with Agent((view("w-1", WorkerPhase.READY),)).client() as client, client.get("/info") as response:
        body = json.loads(await response.text())
    assert body["agent_version"] == "1.2.3"
    assert body["build_date"] == "2026-11-23"
    assert body["checksum"] == "c0ffee"
    assert body["node_id"] == "n-1"
    assert body["agent_path"]
    assert body["python_version"].startswith("3.")
    (worker,) = body["workers"]
    assert (worker["model"], worker["engine_base_url"], worker["ready"]) == ("tiny", "http://127.0.0.1:4711", True)


async def test_a_worker_without_an_engine_has_no_base_url() -> None:
    pending = WorkerView(model="tiny", status=WorkerStatus(worker_id="w", spec_hash="h"), endpoint=None)
    async with Agent((pending,)).client() as client, client.get("/info") as response:
        (worker,) = (await response.json())["workers"]
        assert (worker["engine_base_url"], worker["ready"], worker["phase"]) == (None, False, "pending")


async def test_gauges_tell_of_workers_host_and_agent() -> None:
    workers = (
        view("w-1", WorkerPhase.READY, running=3, waiting=1),
        view("w-2", WorkerPhase.FAILED),
        view("w-3", WorkerPhase.READY, running=2),
    )
    gauges = await Agent(workers, HOST, own={"inventiv_agent_tunnels": 2}).gauges()
    assert gauges["inventiv_worker_up", ""] == 1
    assert gauges["inventiv_worker_vllm_ready", ""] == 0
    assert gauges["inventiv_worker_ready", "w-1"] == 1
    assert gauges["inventiv_worker_ready", "w-2"] == 0
    assert gauges["inventiv_worker_starts", "w-1"] == 2
    assert gauges["inventiv_worker_queue_depth", ""] == 6
    assert gauges["inventiv_worker_requests_running", "w-3"] == 2
    assert ("inventiv_worker_requests_waiting", "w-3") not in gauges
    assert gauges["inventiv_worker_cpu_percent", ""] == 12.5
    assert gauges["inventiv_worker_network_sent_bytes", ""] == 6
    assert gauges["inventiv_agent_info", "1.2.3"] == 1
    assert gauges["inventiv_agent_tunnels", ""] == 2
    assert gauges["inventiv_agent_process_resident_memory_bytes", ""] > 0
    assert gauges["inventiv_agent_process_cpu_seconds_total", ""] > 0


async def test_gauges_of_what_is_not_known_are_absent() -> None:
    gauges = await Agent().gauges()
    assert not {name for name, _ in gauges if "queue_depth" in name or "gpu" in name or "cpu_percent" in name}


async def test_accelerators_are_told_one_by_one_and_over_all() -> None:
    gpus = (
        GpuSample(uuid="GPU-a", utilization_percent=10, memory_used_bytes=1, memory_total_bytes=10),
        GpuSample(
            uuid="GPU-b", utilization_percent=30, memory_used_bytes=2, memory_total_bytes=10, power_watts=70
        ),
    )
    gauges = await Agent(gpus=gpus).gauges()
    assert gauges["inventiv_worker_gpu_utilization_percent", ""] == 20
    assert gauges["inventiv_worker_gpu_memory_used_bytes", ""] == 3
    assert gauges["inventiv_worker_gpu_device_memory_used_bytes", "1"] == 2
    assert gauges["inventiv_worker_gpu_power_watts", ""] == 70
    assert ("inventiv_worker_gpu_device_power_watts", "0") not in gauges
    assert not {name for name, _ in gauges if "temperature" in name}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:7460", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.7:7460", 403),
        ("[fe80::1]:7460", 403),
        ("localhost", 200),
        ("localhost:7460", 200),
        ("127.0.0.1:7460", 200),
        ("[::1]:7460", 200),
    ],
)
async def test_only_loopback_names_are_answered(host: str, status: int) -> None:
    async with Agent().client() as client:
        for path in ("/healthz", "/info", "/metrics"):
            async with client.get(path, headers={"Host": host}) as response:
                assert response.status == status


async def test_other_paths_and_methods_are_refused() -> None:
    async with Agent().client() as client:
        for method, path, status in (("GET", "/", 404), ("POST", "/healthz", 405)):
            async with client.request(method, path) as response:
                assert response.status == status


async def test_it_never_listens_where_others_could_reach_it() -> None:
    sources = endpoints.Sources(
        agent=lambda: AgentInfo("", "", ""), node_id=lambda: None, workers=tuple, host=lambda: None, gpus=tuple
    )
    with pytest.raises(ValueError, match="not a loopback"):
        async with serving(endpoints.build(sources), Address("0.0.0.0", 0)):
            pass
