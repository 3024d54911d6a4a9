"""Which worker takes a request."""

from collections import Counter
from collections.abc import Container
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.routing import DOUBTFUL, READY, choose
from gateway.core.snapshot import Route, WorkerPhase
from tests.unit.gateway.values import route


def chosen(
    *routes: Route,
    busy: dict[str, int] | None = None,
    excluded: tuple[str, ...] = (),
    seed: int = 0,
    phases: Container[WorkerPhase] = READY,
) -> str:
    found = choose(
        routes,
        live=lambda node: node != "gone",
        outstanding=Counter(busy or {}).__getitem__,
        excluded=excluded,
        pick=Random(seed).randrange,
        phases=phases,
    )
    return found.worker_id if found else ""


def test_nobody_is_chosen_when_nobody_is_there() -> None:
    assert chosen() == ""
    assert (
        chosen(route("a", node="gone"), route("b", phase=WorkerPhase.STARTING), route("c"), excluded=("c",)) == ""
    )


def test_the_only_one_that_can_be_reached_is_chosen() -> None:
    assert chosen(route("a", node="gone"), route("b"), route("c", phase=WorkerPhase.DRAINING)) == "b"


def test_who_may_have_become_ready_is_doubtful_and_who_goes_is_not() -> None:
    fleet = {phase: route(phase.value, phase=phase) for phase in WorkerPhase}
    doubtful = {chosen(*fleet.values(), phases=DOUBTFUL, seed=seed) for seed in range(100)}
    assert doubtful == {"unknown", "pending", "starting", "warming"}


def test_the_one_with_the_least_to_do_is_chosen() -> None:
    assert chosen(route("a"), route("b"), route("c"), busy={"a": 2, "b": 1, "c": 3}) == "b"


def test_what_a_worker_has_to_do_is_measured_by_its_slots() -> None:
    assert chosen(route("small", slots=2), route("big", slots=16), busy={"small": 1, "big": 4}) == "big"


def test_among_equals_the_one_with_more_free_slots_wins() -> None:
    for seed in range(20):
        assert chosen(route("small", slots=2), route("big", slots=16), seed=seed) == "big"


def test_equals_share_the_load() -> None:
    routes = [route(name) for name in "abcd"]
    taken = Counter(chosen(*routes, seed=seed) for seed in range(4000))
    assert all(800 < taken[name] < 1200 for name in "abcd"), taken


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.booleans(), st.booleans()), max_size=8),
    st.integers(),
)
def test_no_reachable_worker_has_less_to_do_than_the_chosen_one(
    fleet: list[tuple[int, int, bool, bool]], seed: int
) -> None:
    routes = [
        route(f"w{at}", node="n" if alive else "gone", slots=slots)
        for at, (_, slots, alive, _) in enumerate(fleet)
    ]
    load = {f"w{at}": busy for at, (busy, *_) in enumerate(fleet)}
    excluded = tuple(f"w{at}" for at, (*_, out) in enumerate(fleet) if out)
    best = chosen(*routes, busy=load, excluded=excluded, seed=seed)
    fit = [one for one in routes if one.node_id != "gone" and one.worker_id not in excluded]
    assert (best == "") == (not fit)
    if fit:
        one = next(one for one in fit if one.worker_id == best)
        assert all(load[best] * other.slots <= load[other.worker_id] * one.slots for other in fit)
