"""What nodes and gateways say is made fit to keep, whatever they say."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.fleet import GpuSample, Node, NodeState, WorkerPhase
from control_plane.rpc import convert_in, convert_out
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import NodeId, OrganizationId
from mesh.node.v1 import node_pb2
from mesh.types.v1 import machine_pb2, worker_pb2

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FLOATS = st.floats(width=32)
MOST, MOST_32 = 2**63 - 1, 2**31 - 1
NODE = Node(NodeId("n-1"), OrganizationId("o-1"), "box", NodeState.ONLINE, datetime(2026, 1, 1, tzinfo=UTC))


@given(
    st.builds(
        machine_pb2.GpuSample,
        uuid=st.text(max_size=300),
        utilization_percent=FLOATS,
        memory_used_bytes=U64,
        memory_total_bytes=U64,
        temperature_celsius=FLOATS,
        power_watts=FLOATS,
    )
)
def test_a_gpu_reading_is_one_that_can_be(said: machine_pb2.GpuSample) -> None:
    [kept] = convert_in.report(node_pb2.Report(gpus=[said])).gpus
    for value, told, low, high in (
        (kept.utilization_percent, said.utilization_percent, 0, 100),
        (kept.temperature_celsius, said.temperature_celsius, -50, 150),
        (kept.power_watts, said.power_watts, 0, 100_000),
    ):
        assert (value is None) == (not math.isfinite(told))
        assert value is None or low <= value <= high
    assert kept.memory_used_bytes is not None
    assert kept.memory_total_bytes is not None
    assert 0 <= kept.memory_used_bytes <= kept.memory_total_bytes <= MOST
    assert len(kept.uuid) <= 128


@given(
    st.builds(
        machine_pb2.HostSample,
        cpu_percent=FLOATS,
        load1=FLOATS,
        memory_used_bytes=U64,
        memory_total_bytes=U64,
        disk_used_bytes=U64,
        disk_total_bytes=U64,
        network_received_bytes=U64,
        network_sent_bytes=U64,
    )
)
def test_a_host_reading_is_one_that_can_be(said: machine_pb2.HostSample) -> None:
    kept = convert_in.report(node_pb2.Report(host=said)).host
    assert kept is not None
    assert 0 <= kept.cpu_percent <= 100
    assert 0 <= kept.load1 <= 1e6
    assert 0 <= kept.memory_used_bytes <= kept.memory_total_bytes <= MOST
    assert 0 <= kept.disk_used_bytes <= kept.disk_total_bytes <= MOST
    assert max(kept.network_received_bytes, kept.network_sent_bytes) <= MOST


def test_what_can_be_is_kept_as_it_is() -> None:
    said = machine_pb2.GpuSample(
        uuid="GPU-1",
        utilization_percent=50,
        memory_used_bytes=1,
        memory_total_bytes=2,
        temperature_celsius=-3,
        power_watts=300,
    )
    [kept] = convert_in.report(node_pb2.Report(gpus=[said])).gpus
    assert (kept.utilization_percent, kept.temperature_celsius, kept.power_watts) == (50, -3, 300)
    assert (kept.memory_used_bytes, kept.memory_total_bytes) == (1, 2)


def test_what_a_driver_does_not_tell_is_absent_and_stays_absent() -> None:
    [kept] = convert_in.report(node_pb2.Report(gpus=[machine_pb2.GpuSample(uuid="GPU-1")])).gpus
    assert kept == GpuSample("GPU-1")
    kept_node = replace(NODE, gpus=(kept, GpuSample("GPU-2", utilization_percent=0.0, memory_used_bytes=0)))
    told, zero = convert_out.node(kept_node).gpus
    assert [one.name for one, _ in told.ListFields()] == ["uuid"]
    assert {one.name for one, _ in zero.ListFields()} == {"uuid", "utilization_percent", "memory_used_bytes"}


def test_memory_in_use_is_kept_without_a_total() -> None:
    said = machine_pb2.GpuSample(uuid="GPU-1", memory_used_bytes=2**64 - 1)
    [kept] = convert_in.report(node_pb2.Report(gpus=[said])).gpus
    assert (kept.memory_used_bytes, kept.memory_total_bytes) == (MOST, None)


def test_what_was_not_said_is_absent() -> None:
    kept = convert_in.report(node_pb2.Report(workers=[worker_pb2.WorkerStatus(worker_id="w")]))
    assert (kept.agent_info, kept.host, kept.gpus) == (None, None, ())
    assert (kept.workers[0].requests_running, kept.workers[0].requests_waiting) == (None, None)
    assert kept.workers[0].kv_cache_usage is None
    zero = worker_pb2.WorkerStatus(worker_id="w", requests_running=0)
    assert convert_in.workers([zero])[0].requests_running == 0


@given(st.text())
def test_texts_are_one_line_that_postgres_takes(said: str) -> None:
    [kept] = convert_in.workers([worker_pb2.WorkerStatus(worker_id="w", detail=said)])
    assert "\x00" not in kept.detail
    assert len(kept.detail) <= convert_in.MAX_DETAIL
    assert len(kept.detail.splitlines()) <= 1


@given(
    st.builds(
        worker_pb2.WorkerStatus,
        worker_id=st.just("w"),
        phase=st.integers(0, 99),
        progress_percent=U32,
        starts=U32,
        requests_running=U32,
        requests_waiting=U32,
        kv_cache_usage=FLOATS,
    )
)
def test_the_numbers_of_a_worker_fit_their_columns(said: worker_pb2.WorkerStatus) -> None:
    [kept] = convert_in.workers([said])
    assert kept.progress_percent <= 100
    assert max(kept.starts, kept.requests_running or 0, kept.requests_waiting or 0) <= MOST_32
    assert 0 <= (kept.kv_cache_usage or 0) <= 1


def test_every_phase_of_the_schema_is_a_phase_of_ours_and_an_unknown_one_is_pending() -> None:
    said = [worker_pb2.WorkerStatus(worker_id=str(n), phase=n) for n in (*range(7), 42)]  # type: ignore[arg-type]  # open enum
    assert [one.phase for one in convert_in.workers(said)] == [
        WorkerPhase.PENDING,
        *WorkerPhase,
        WorkerPhase.PENDING,
    ]


def test_of_two_things_said_of_one_worker_the_later_counts() -> None:
    said = [worker_pb2.WorkerStatus(worker_id="w", starts=n) for n in (1, 2)]
    assert [one.starts for one in convert_in.workers(said)] == [2]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("workers", node_pb2.Report(workers=[worker_pb2.WorkerStatus(worker_id=str(n)) for n in range(257)])),
        ("gpus", node_pb2.Report(gpus=[machine_pb2.GpuSample(uuid=str(n)) for n in range(65)])),
    ],
    ids=["workers", "gpus"],
)
def test_a_list_past_its_bound_is_refused_by_name(field: str, said: node_pb2.Report) -> None:
    with pytest.raises(InvalidInput) as refused:
        convert_in.report(said)
    assert refused.value.field == field


def test_a_machine_with_too_many_accelerators_is_refused() -> None:
    said = machine_pb2.Hardware(gpus=[machine_pb2.Gpu(uuid=str(n)) for n in range(65)])
    with pytest.raises(InvalidInput, match=r"hardware\.gpus"):
        convert_in.hardware(said)
