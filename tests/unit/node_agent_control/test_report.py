"""What a heartbeat says, as values and as protobuf."""

from dataclasses import replace
from datetime import UTC, datetime

from mesh.types.v1 import worker_pb2
from node_agent.agent import AgentInfo
from node_agent.control import convert
from node_agent.core.desired import DesiredState, Hub
from node_agent.core.report import (
    MAX_DETAIL,
    Gpu,
    GpuSample,
    Hardware,
    HostSample,
    Report,
    essence,
    one_line,
)
from node_agent.core.worker import WorkerPhase, WorkerStatus
from tests.unit.node_agent_control.test_desired import STATE

AGENT = AgentInfo("0.1.0", "2026-11-23", "ab" * 32)
READY = WorkerStatus(
    worker_id="w-1",
    spec_hash="abc",
    phase=WorkerPhase.READY,
    progress_percent=100,
    detail="answers\n requests",
    starts=2,
    adopted=True,
    requests_running=0,
)


def test_words_of_any_origin_become_one_printable_line() -> None:
    assert one_line("  a\tb\r\nc\x1b[0m  ") == "a b c [0m"
    assert one_line("x" * MAX_DETAIL) == "x" * MAX_DETAIL
    long = one_line("begin" + "x" * MAX_DETAIL + "end")
    assert len(long) == MAX_DETAIL
    assert long.startswith("…x")
    assert long.endswith("end")


def test_only_what_matters_at_once_is_the_essence() -> None:
    busier = replace(READY, requests_running=3, requests_waiting=1, kv_cache_usage=0.5)
    other = replace(READY, worker_id="w-0", phase=WorkerPhase.STARTING)
    assert essence([READY, other]) == essence([other, busier])
    assert essence([READY]) != essence([replace(READY, phase=WorkerPhase.FAILED)])
    assert essence([READY]) != essence([replace(READY, progress_percent=99)])


def test_every_phase_has_its_number() -> None:
    for phase in WorkerPhase:
        sent = convert.report(
            Report(
                sequence=1,
                observed_at=datetime(2026, 1, 1, tzinfo=UTC),
                applied_revision=0,
                workers=(replace(READY, phase=phase),),
            ),
            AGENT,
        )
        assert worker_pb2.WorkerPhase.Name(sent.report.workers[0].phase) == f"WORKER_PHASE_{phase.name}"


def test_a_report_carries_everything_and_invents_nothing() -> None:
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    bare = convert.report(Report(sequence=3, observed_at=at, applied_revision=7, workers=(READY,)), AGENT).report
    assert (bare.sequence, bare.applied_revision, bare.observed_at.ToDatetime(UTC)) == (3, 7, at)
    assert (bare.agent_info.version, bare.agent_info.checksum) == ("0.1.0", "ab" * 32)
    assert not bare.HasField("host")
    assert not bare.gpus
    worker = bare.workers[0]
    assert (worker.worker_id, worker.detail, worker.starts, worker.adopted) == ("w-1", "answers requests", 2, True)
    assert worker.HasField("requests_running")
    assert not worker.HasField("requests_waiting")
    assert not worker.HasField("kv_cache_usage")
    pressed = convert.report(
        Report(sequence=4, observed_at=at, applied_revision=7, workers=(replace(READY, kv_cache_usage=0.5),)),
        AGENT,
    )
    assert pressed.report.workers[0].kv_cache_usage == 0.5

    host = HostSample(
        cpu_percent=12.5,
        load1=0.5,
        memory_used_bytes=1,
        memory_total_bytes=2,
        disk_used_bytes=3,
        disk_total_bytes=4,
        network_received_bytes=5,
        network_sent_bytes=6,
    )
    gpus = (GpuSample(uuid="GPU-1", utilization_percent=50.0, power_watts=70.0), GpuSample(uuid="GPU-2"))
    full = convert.report(
        Report(sequence=4, observed_at=at, applied_revision=7, host=host, gpus=gpus), AGENT
    ).report
    assert (full.host.cpu_percent, full.host.network_sent_bytes) == (12.5, 6)
    first = Report(sequence=5, observed_at=at, applied_revision=7, host=replace(host, cpu_percent=None))
    assert not convert.report(first, AGENT).report.HasField("host")
    assert [(gpu.uuid, gpu.utilization_percent) for gpu in full.gpus] == [("GPU-1", 50.0), ("GPU-2", 0.0)]


def test_hello_says_what_the_machine_is() -> None:
    hardware = Hardware(
        hostname="box",
        os="Debian 12",
        arch="x86_64",
        cpu_count=2,
        memory_bytes=8,
        disk_bytes=9,
        gpus=(Gpu(uuid="GPU-1", name="H100", memory_bytes=80, compute_capability="9.0"),),
    )
    hello = convert.hello(agent=AGENT, hardware=hardware, applied_revision=7, last_epoch=4, workers=[READY]).hello
    assert (hello.hardware.hostname, hello.hardware.gpus[0].compute_capability) == ("box", "9.0")
    assert (hello.applied_revision, len(hello.workers)) == (7, 1)
    assert list(hello.capabilities) == [1]


def test_desired_state_arrives_as_values() -> None:
    (spec,) = STATE.workers
    message = convert.node_pb2.DesiredState(
        revision=7,
        workers=[
            worker_pb2.WorkerSpec(
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
            )
        ],
        hubs=[convert.node_pb2.Hub(hub_id="g-1", endpoint="127.0.0.1:7450", server_name="gateway.mesh.local")],
    )
    assert convert.desired_state(message) == DesiredState(
        revision=7,
        workers=(spec,),
        hubs=(Hub(hub_id="g-1", endpoint="127.0.0.1:7450", server_name="gateway.mesh.local"),),
    )
