"""The hash of a spec names the worker: the same fields, the same hash; any other field, another."""

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.desired import DesiredState, WorkerSpec, hub_id, make_spec, spec_hash
from control_plane.core.model import Adapter, Engine
from mesh.kit.ids import DeploymentId, WorkerId
from tests.unit.control_plane.fleets import GIB, deployment, model

texts = st.text(max_size=20)
sizes = st.integers(0, 2**63 - 1)
specs = st.builds(
    WorkerSpec,
    worker_id=texts,
    deployment_id=texts,
    model=texts,
    engine=texts,
    source=texts,
    context_length=sizes,
    slots=sizes,
    memory_bytes=sizes,
    gpu_uuids=st.lists(texts, max_size=3).map(tuple),
    adapters=st.lists(st.builds(Adapter, texts, texts), max_size=3).map(tuple),
)


@given(specs, specs)
def test_two_specs_share_a_hash_only_when_they_are_the_same(one: WorkerSpec, other: WorkerSpec) -> None:
    assert (spec_hash(one) == spec_hash(other)) == (one == other)


@given(specs, st.data())
def test_every_field_is_in_the_hash(spec: WorkerSpec, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([one.name for one in fields(WorkerSpec) if one.name != "spec_hash"]))
    value = getattr(spec, name)
    changed = value + 1 if isinstance(value, int) else (*value, "x") if isinstance(value, tuple) else value + "x"
    assert spec_hash(replace(spec, **{name: changed})) != spec_hash(spec)


@given(specs, texts)
def test_the_hash_does_not_hash_itself(spec: WorkerSpec, old: str) -> None:
    assert spec_hash(replace(spec, spec_hash=old)) == spec_hash(spec)


def test_the_hash_never_changes_between_versions() -> None:
    spec = WorkerSpec(WorkerId("w"), DeploymentId("d"), "m", "llamacpp", "file:///m.gguf", 4096, 4, 2**30, ())
    assert spec_hash(spec) == "daba86d38dc2336e869f5969669f33bd590e2c2ad24b7c4daecaab553b9f3eab"


def test_a_cpu_worker_is_charged_with_host_memory_and_a_gpu_worker_with_none() -> None:
    cpu, gpu = model(memory=GIB), model(gpus=2, vram=GIB)
    on_cpu = make_spec(WorkerId("w"), deployment=deployment("d", cpu), model=cpu, gpu_uuids=())
    on_gpu = make_spec(WorkerId("w"), deployment=deployment("d", gpu), model=gpu, gpu_uuids=("g1", "g2"))
    assert (on_cpu.memory_bytes, on_gpu.memory_bytes) == (GIB, 0)
    assert on_gpu.gpu_uuids == ("g1", "g2")
    assert on_cpu.spec_hash == spec_hash(on_cpu)


def test_a_new_node_should_run_nothing() -> None:
    assert DesiredState(1) == DesiredState(revision=1, workers=(), hubs=())


def test_adapters_go_to_engines_that_can_serve_them_and_no_others() -> None:
    base = replace(model(), adapters=(Adapter("fr", "simulator:seed=1"),))
    plain = deployment("d", base)
    able = replace(plain, engine=Engine.SIMULATOR)
    specs = [make_spec(WorkerId("w"), deployment=one, model=base, gpu_uuids=()) for one in (plain, able)]
    assert [one.adapters for one in specs] == [(), base.adapters]
    assert all(one.spec_hash == spec_hash(one) for one in specs)


@given(st.integers(0, 63), st.integers(0, 63))
def test_each_process_of_a_gateway_is_a_hub_of_its_own(one: int, other: int) -> None:
    assert (hub_id("gw-1", one) == hub_id("gw-1", other)) == (one == other)


def test_the_first_process_is_called_as_its_gateway() -> None:
    assert (hub_id("gw-1", 0), hub_id("gw-1", 3)) == ("gw-1", "gw-1~3")
