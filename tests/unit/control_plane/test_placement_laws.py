"""Laws of placement that hold for every fleet."""

import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.fleet import Node, NodeState, WorkerPhase
from control_plane.core.model import Assignment, Deployment, Model
from control_plane.core.placement import Plan, place
from mesh.kit.ids import WorkerId
from tests.unit.control_plane.fleets import GIB, GRACE, NOW, deployment, model, node, placed

MODELS = (
    model("tiny", memory=GIB),
    model("big", memory=5 * GIB),
    model("one-gpu", gpus=1, vram=20 * GIB),
    model("two-gpus", gpus=2, vram=60 * GIB),
)
BY_ID = {one.model_id: one for one in MODELS}


@dataclass(frozen=True)
class World:
    nodes: tuple[Node, ...]
    deployments: tuple[Deployment, ...]
    existing: tuple[Assignment, ...] = ()

    def plan(self) -> Plan:
        return place(self.nodes, self.deployments, MODELS, self.existing, now=NOW, grace=GRACE)

    def after(self, plan: Plan) -> "World":
        gone = {one.worker_id for one in plan.release}
        kept = [one for one in self.existing if one.worker_id not in gone]
        new = [
            Assignment(WorkerId(f"n{len(self.existing)}-{i:03}"), one.deployment_id, one.node_id, one.gpu_uuids)
            for i, one in enumerate(plan.assign)
        ]
        return World(self.nodes, self.deployments, (*kept, *new))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    nodes = tuple(
        node(
            f"n{i}",
            memory=draw(st.integers(0, 8)) * GIB,
            gpus=tuple(draw(st.lists(st.sampled_from([16 * GIB, 24 * GIB, 40 * GIB]), max_size=3))),
            state=draw(st.sampled_from(list(NodeState))),
            silent_for=draw(st.sampled_from([None, timedelta(0), GRACE, GRACE * 2])),
            told=draw(st.booleans()),
        )
        for i in range(draw(st.integers(0, 4)))
    )
    deployments = tuple(
        deployment(
            f"d{i}", draw(st.sampled_from(MODELS)), replicas=draw(st.integers(1, 4)), age=draw(st.integers(0, 3))
        )
        for i in range(draw(st.integers(0, 3)))
    )
    existing = []
    if nodes:
        for i in range(draw(st.integers(0, 6))):
            home, of = draw(st.sampled_from(nodes)), draw(st.sampled_from(["d0", "d1", "d2", "gone"]))
            gpus = tuple(gpu.uuid for gpu in home.hardware.gpus[:1]) if home.hardware else ()
            existing.append(
                placed(f"w{i}", of, home.node_id, gpus=gpus, phase=draw(st.sampled_from(list(WorkerPhase))))
            )
    return World(nodes, deployments, tuple(existing))


@given(worlds())
def test_carrying_out_a_plan_leaves_only_what_it_called_pending(world: World) -> None:
    plan = world.plan()
    again = world.after(plan).plan()
    assert (again.assign, again.release) == ((), ())
    assert again.pending.keys() == plan.pending.keys()


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_means_nothing(world: World, order: random.Random) -> None:
    shuffled = World(
        *(tuple(order.sample(part, len(part))) for part in (world.nodes, world.deployments, world.existing))
    )
    assert shuffled.plan() == world.plan()


@given(worlds())
def test_no_node_is_given_more_than_it_has(world: World) -> None:
    plan = world.plan()
    after, by_id = world.after(plan), {one.deployment_id: one for one in world.deployments}
    needs = {owner: BY_ID[one.model_id] for owner, one in by_id.items()}
    for home in {one.node_id for one in plan.assign}:
        site = next(one for one in world.nodes if one.node_id == home)
        assert site.state is NodeState.ONLINE
        assert site.hardware is not None
        here = [one for one in after.existing if one.node_id == home]
        new = [one for one in plan.assign if one.node_id == home]
        sizes = {gpu.uuid: gpu.memory_bytes for gpu in site.hardware.gpus}
        taken = Counter(uuid for one in here for uuid in one.gpu_uuids)
        for one in new:
            need: Model = needs[one.deployment_id]
            assert len(one.gpu_uuids) == need.gpu_count
            assert all(sizes[uuid] >= need.vram_bytes_per_gpu and taken[uuid] == 1 for uuid in one.gpu_uuids)
            assert sum(sizes[uuid] for uuid in one.gpu_uuids) >= need.vram_bytes
        if any(needs[one.deployment_id].host_bytes for one in new):
            assert sum(needs[one.deployment_id].host_bytes for one in here) <= site.hardware.memory_bytes


@given(worlds())
def test_a_worker_leaves_a_node_only_for_a_stated_reason(world: World) -> None:
    plan, states = world.plan(), {one.node_id: one for one in world.nodes}
    wanted = {one.deployment_id: one.replicas for one in world.deployments}
    by_worker = {one.worker_id: one for one in world.existing}
    for gone in plan.release:
        worker = by_worker[gone.worker_id]
        home = states[worker.node_id]
        count = sum(one.deployment_id == worker.deployment_id for one in world.existing)
        assert {
            "its deployment is gone": worker.deployment_id not in wanted,
            "its node is revoked": home.state is NodeState.REVOKED,
            "fewer replicas are wanted": count > wanted.get(worker.deployment_id, 0),
            "its node is offline for too long": home.state is NodeState.OFFLINE and home.last_seen_at != NOW,
        }[gone.why]


@given(worlds())
def test_every_replica_is_placed_or_called_pending(world: World) -> None:
    plan = world.plan()
    after = world.after(plan)
    for one in world.deployments:
        count = sum(other.deployment_id == one.deployment_id for other in after.existing)
        assert count <= one.replicas
        assert count == one.replicas or one.deployment_id in plan.pending
