"""What is done about the difference between workers wanted and engines found."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from node_agent.core.plan import Action, Adopt, Keep, Observed, Start, Stop, plan
from node_agent.core.worker import WorkerSpec
from tests.fakes.engine import spec

IDS = st.sampled_from(["a", "b", "c"])
HASHES = st.sampled_from(["1", "2"])
desired_lists = st.lists(
    st.builds(lambda w, h: spec(w, spec_hash=h), IDS, HASHES), unique_by=lambda s: s.worker_id
)


@st.composite
def observations(draw: st.DrawFn) -> list[Observed]:
    rows = draw(st.lists(st.tuples(IDS, HASHES, st.booleans(), st.booleans(), st.booleans()), max_size=6))
    return [
        Observed(
            key=f"k{at}", worker_id=w, spec_hash=h, kept=kept, stopping=kept and stopping, adoptable=adoptable
        )
        for at, (w, h, kept, stopping, adoptable) in enumerate(rows)
    ]


def carried_out(actions: tuple[Action, ...], observed: list[Observed]) -> list[Observed]:
    """The world once every action is done and everything that was stopping has stopped."""
    world = {engine.key: engine for engine in observed if not engine.stopping}
    for action in actions:
        match action:
            case Stop(key):
                del world[key]
            case Adopt(key):
                world[key] = replace(world[key], kept=True)
            case Start(begun):
                key = f"new-{begun.worker_id}"
                world[key] = Observed(key=key, worker_id=begun.worker_id, spec_hash=begun.spec_hash, kept=True)
    return list(world.values())


@given(desired_lists, observations())
def test_carrying_out_a_plan_leaves_one_engine_for_every_worker_and_nothing_to_do(
    desired: list[WorkerSpec], observed: list[Observed]
) -> None:
    after = carried_out(plan(desired, observed), observed)
    assert sorted((e.worker_id, e.spec_hash) for e in after) == sorted((s.worker_id, s.spec_hash) for s in desired)
    assert all(isinstance(action, Keep) for action in plan(desired, after))


@given(desired_lists, observations())
def test_stops_come_before_everything_else_and_starts_after(
    desired: list[WorkerSpec], observed: list[Observed]
) -> None:
    order = [Stop, Keep, Adopt, Start]
    kinds = [order.index(type(action)) for action in plan(desired, observed)]
    assert kinds == sorted(kinds)


@given(desired_lists, observations())
def test_an_engine_on_its_way_out_is_never_touched_again(
    desired: list[WorkerSpec], observed: list[Observed]
) -> None:
    leaving = {engine.key for engine in observed if engine.stopping}
    assert not leaving & {getattr(action, "key", None) for action in plan(desired, observed)}


def found(key: str = "k", worker_id: str = "a", spec_hash: str = "1", **more: bool) -> Observed:
    return Observed(key=key, worker_id=worker_id, spec_hash=spec_hash, **more)


A1 = spec("a", spec_hash="1")


def test_an_engine_left_by_an_earlier_agent_is_adopted() -> None:
    assert plan([A1], [found()]) == (Adopt("k", A1),)


def test_a_changed_specification_stops_the_old_engine_and_starts_a_new_one() -> None:
    assert plan([A1], [found(spec_hash="0", kept=True)]) == (
        Stop("k", "a", "the specification changed"),
        Start(A1),
    )


def test_what_nobody_wants_is_stopped_with_a_reason() -> None:
    assert plan([], [found(kept=True)]) == (Stop("k", "a", "no longer wanted"),)
    assert plan([], [found()]) == (Stop("k", "a", "left over"),)


def test_of_two_engines_of_one_worker_the_known_one_stays() -> None:
    assert plan([A1], [found("j"), found("k", kept=True)]) == (
        Stop("j", "a", "a second engine of one worker"),
        Keep("k", "a"),
    )


def test_a_leftover_without_a_record_is_not_adopted() -> None:
    assert plan([A1], [found(adoptable=False)]) == (
        Stop("k", "a", "left over without a whole record"),
        Start(A1),
    )


def test_a_worker_wanted_again_while_its_engine_leaves_is_started_anew() -> None:
    assert plan([A1], [found(kept=True, stopping=True)]) == (Start(A1),)
