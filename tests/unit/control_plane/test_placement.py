"""Where replicas go, why some wait, and that nothing moves without a reason."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.core.fleet import Node, NodeState, WorkerPhase
from control_plane.core.model import Assignment, Deployment, Model
from control_plane.core.placement import Plan, place
from tests.unit.control_plane.fleets import GIB, GRACE, NOW, deployment, model, node, placed

SMALL = model("small")
MINUTE = timedelta(minutes=1)


def plan_for(
    nodes: Iterable[Node],
    deployments: Iterable[Deployment],
    existing: Iterable[Assignment] = (),
    *,
    models: Iterable[Model] = (SMALL,),
) -> Plan:
    return place(nodes, deployments, models, existing, now=NOW, grace=GRACE)


def why(plan: Plan) -> str:
    (text,) = plan.pending.values()
    return text


def homes(plan: Plan) -> list[str]:
    return [one.node_id for one in plan.assign]


def test_replicas_spread_over_the_nodes() -> None:
    plan = plan_for([node("a"), node("b"), node("c")], [deployment("d", SMALL, replicas=3)])
    assert sorted(homes(plan)) == ["a", "b", "c"]
    assert plan.pending == {}


def test_the_node_with_fewest_workers_of_all_breaks_the_tie() -> None:
    plan = plan_for(
        [node("a"), node("b")],
        [deployment("old", SMALL, age=60), deployment("new", SMALL)],
        [placed("w1", "old", "a")],
    )
    assert homes(plan) == ["b"]


def test_what_is_placed_stays_where_it_is() -> None:
    existing = [placed("w1", "d", "a"), placed("w2", "d", "a")]
    assert plan_for([node("a"), node("b")], [deployment("d", SMALL, replicas=2)], existing) == Plan()


@pytest.mark.parametrize("phase", list(WorkerPhase))
def test_no_phase_is_a_reason_to_move(phase: WorkerPhase) -> None:
    existing = [placed("w1", "d", "a", phase=phase)]
    assert plan_for([node("a"), node("b")], [deployment("d", SMALL)], existing) == Plan()


def test_host_memory_is_not_given_twice() -> None:
    plan = plan_for([node("a", memory=3 * GIB)], [deployment("d", SMALL, replicas=4)], [placed("w", "d", "a")])
    assert homes(plan) == ["a", "a"]
    assert why(plan) == (
        "1 of 4 replicas wait: 1.0 GiB more host memory is needed; "
        "host-a has 0 MiB free of the 1.0 GiB that a worker takes"
    )


def test_the_nearest_miss_is_named() -> None:
    big = model("big", memory=3 * GIB)
    plan = plan_for([node("a", memory=GIB), node("b", memory=2 * GIB)], [deployment("d", big)], models=[big])
    assert why(plan) == (
        "1 of 1 replicas wait: 1.0 GiB more host memory is needed; "
        "host-b has 2.0 GiB free of the 3.0 GiB that a worker takes"
    )


def test_a_node_that_is_overfull_gets_nothing_more_and_keeps_what_it_has() -> None:
    big = model("big", memory=3 * GIB)
    plan = plan_for(
        [node("a", memory=GIB)], [deployment("d", big, replicas=2)], [placed("w", "d", "a")], models=[big]
    )
    assert (plan.assign, plan.release) == ((), ())
    assert "3.0 GiB more host memory" in why(plan)


def test_a_gpu_model_takes_the_smallest_accelerators_that_hold_it() -> None:
    wide = model("wide", gpus=2, vram=40 * GIB)
    plan = plan_for(
        [node("a", memory=0, gpus=(80 * GIB, 16 * GIB, 24 * GIB, 24 * GIB))],
        [deployment("d", wide)],
        models=[wide],
    )
    assert [one.gpu_uuids for one in plan.assign] == [("a-gpu2", "a-gpu3")]


def test_an_accelerator_serves_one_worker() -> None:
    one_gpu = model("one", gpus=1, vram=8 * GIB)
    plan = plan_for(
        [node("a", gpus=(24 * GIB, 24 * GIB))],
        [deployment("d", one_gpu, replicas=3)],
        [placed("w", "d", "a", gpus=("a-gpu0",))],
        models=[one_gpu],
    )
    assert [one.gpu_uuids for one in plan.assign] == [("a-gpu1",)]
    assert why(plan) == (
        "1 of 3 replicas wait: 1 more free GPU on one node needed; host-a has 0 of the 1 that a worker takes"
    )


def test_a_worker_on_an_accelerator_that_vanished_disturbs_nobody() -> None:
    one_gpu = model("one", gpus=1, vram=8 * GIB)
    existing = [placed("w", "d", "a", gpus=("gone",))]
    assert (
        plan_for([node("a", gpus=(24 * GIB,))], [deployment("d", one_gpu)], existing, models=[one_gpu]) == Plan()
    )


def test_accelerators_are_counted_on_one_node() -> None:
    wide = model("wide", gpus=4, vram=8 * GIB)
    plan = plan_for([node("a", gpus=(GIB,)), node("b", gpus=(GIB, GIB))], [deployment("d", wide)], models=[wide])
    assert "2 more free GPUs on one node needed; host-b has 2 of the 4" in why(plan)


@pytest.mark.parametrize(
    ("gpus", "words"), [(1, "no 1 free GPU with 64.0 GiB"), (2, "no 2 free GPUs with 32.0 GiB")]
)
def test_too_little_video_memory_is_named(gpus: int, words: str) -> None:
    big = model("big", gpus=gpus, vram=64 * GIB)
    plan = plan_for([node("a", gpus=(24 * GIB, 24 * GIB))], [deployment("d", big)], models=[big])
    assert f"{40 if gpus == 1 else 16}.0 GiB more video memory" in why(plan)
    assert words in why(plan)


def test_memory_below_a_gibibyte_is_told_in_mebibytes() -> None:
    plan = plan_for([node("a", memory=GIB // 2)], [deployment("d", SMALL)])
    assert "512 MiB more host memory is needed" in why(plan)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([], "no node has joined"),
        ([node("a", state=NodeState.REVOKED)], "no node has joined"),
        ([node("a", state=NodeState.JOINING, silent_for=None)], "no node is online"),
        ([node("a", state=NodeState.OFFLINE)], "no node is online"),
        ([node("a", told=False)], "no node has told its hardware yet"),
    ],
)
def test_without_a_usable_node_the_reason_says_so(nodes: list[Node], reason: str) -> None:
    plan = plan_for(nodes, [deployment("d", SMALL)])
    assert why(plan) == f"1 of 1 replicas wait: {reason}"
    assert plan.assign == ()


def test_a_short_absence_moves_nothing() -> None:
    nodes = [node("a", state=NodeState.OFFLINE, silent_for=GRACE), node("b")]
    assert plan_for(nodes, [deployment("d", SMALL)], [placed("w", "d", "a")]) == Plan()


def test_a_long_absence_moves_the_worker_when_another_node_has_room() -> None:
    nodes = [node("a", state=NodeState.OFFLINE, silent_for=GRACE + MINUTE), node("b")]
    plan = plan_for(nodes, [deployment("d", SMALL)], [placed("w", "d", "a")])
    assert homes(plan) == ["b"]
    assert [(one.worker_id, one.why) for one in plan.release] == [("w", "its node is offline for too long")]


def test_a_long_absence_without_room_elsewhere_keeps_the_worker_and_says_so() -> None:
    nodes = [node("a", state=NodeState.OFFLINE, silent_for=GRACE + MINUTE), node("b", memory=GIB // 2)]
    plan = plan_for(nodes, [deployment("d", SMALL)], [placed("w", "d", "a")])
    assert (plan.assign, plan.release) == ((), ())
    assert why(plan).startswith("1 of 1 replicas wait: 512 MiB more host memory")


def test_a_node_never_seen_counts_as_long_absent() -> None:
    nodes = [node("a", state=NodeState.OFFLINE, silent_for=None), node("b")]
    assert homes(plan_for(nodes, [deployment("d", SMALL)], [placed("w", "d", "a")])) == ["b"]


def test_missing_replicas_are_placed_before_lost_ones_are_replaced() -> None:
    nodes = [node("a", state=NodeState.OFFLINE, silent_for=GRACE + MINUTE), node("b", memory=GIB)]
    plan = plan_for(nodes, [deployment("d", SMALL, replicas=2)], [placed("w", "d", "a")])
    assert homes(plan) == ["b"]
    assert plan.release == ()
    assert why(plan).startswith("1 of 2 replicas wait")


def test_workers_of_a_revoked_node_are_released_and_placed_elsewhere() -> None:
    nodes = [node("a", state=NodeState.REVOKED), node("b")]
    plan = plan_for(nodes, [deployment("d", SMALL)], [placed("w", "d", "a")])
    assert homes(plan) == ["b"]
    assert [(one.worker_id, one.why) for one in plan.release] == [("w", "its node is revoked")]


def test_workers_without_a_deployment_are_released() -> None:
    plan = plan_for([node("a")], [], [placed("w", "gone", "a")])
    assert [(one.worker_id, one.why) for one in plan.release] == [("w", "its deployment is gone")]


def test_scaling_down_keeps_those_that_serve() -> None:
    existing = [
        placed("w1", "d", "a", phase=WorkerPhase.FAILED),
        placed("w2", "d", "away", phase=WorkerPhase.READY),
        placed("w3", "d", "a", phase=WorkerPhase.STARTING),
        placed("w4", "d", "a", phase=WorkerPhase.READY),
    ]
    nodes = [node("a"), node("away", state=NodeState.OFFLINE)]
    plan = plan_for(nodes, [deployment("d", SMALL, replicas=2)], existing)
    assert {one.worker_id for one in plan.release} == {"w1", "w2"}
    assert {one.why for one in plan.release} == {"fewer replicas are wanted"}


def test_what_scaling_down_frees_is_used_at_once() -> None:
    shrinking, waiting = deployment("old", SMALL, age=60), deployment("new", SMALL, age=120)
    existing = [placed("w1", "old", "a"), placed("w2", "old", "a")]
    plan = plan_for([node("a", memory=2 * GIB)], [shrinking, waiting], existing)
    assert ([one.worker_id for one in plan.release], homes(plan)) == (["w2"], ["a"])


def test_older_deployments_come_first() -> None:
    plan = plan_for([node("a", memory=GIB)], [deployment("new", SMALL), deployment("old", SMALL, age=60)])
    assert [one.deployment_id for one in plan.assign] == ["old"]
    assert [*plan.pending] == ["new"]


def test_a_gpu_worker_costs_no_host_memory() -> None:
    one_gpu = replace(model("one", gpus=1, vram=8 * GIB), memory_bytes=64 * GIB)
    assert homes(
        plan_for([node("a", memory=0, gpus=(8 * GIB,))], [deployment("d", one_gpu)], models=[one_gpu])
    ) == ["a"]
