"""Who may take a request, and what the decision is made from."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.breaker import IN_A_ROW, OPEN_S, Breaker
from gateway.core.routing import DOUBTFUL, READY, Choice, Load, choose, reported
from gateway.core.snapshot import Policy, Route, WorkerPhase
from mesh.routing.choose import choose as decide
from mesh.routing.values import CHEAPEST, LEAST_LOAD, ONLY, POLICIES, Ask, Candidate
from tests.unit.gateway.values import route

ASK = Ask(Policy.BALANCED, None, None, (0, 0), 0)


def choice(
    routes: Iterable[Route],
    asked: Ask = ASK,
    *,
    busy: Mapping[str, int] | None = None,
    loads: Mapping[str, Load] | None = None,
    excluded: Container[str] = (),
    phases: Container[WorkerPhase] = READY,
) -> Choice | None:
    return choose(
        routes,
        asked,
        live=lambda node: node != "gone",
        outstanding=busy or {},
        loads=loads or {},
        excluded=excluded,
        phases=phases,
    )


def chosen(*routes: Route, **how: Any) -> str:
    found = choice(routes, **how)
    return found.route.worker_id if found else ""


def test_nobody_is_chosen_when_nobody_is_there() -> None:
    assert chosen() == ""
    assert (
        chosen(route("a", node="gone"), route("b", phase=WorkerPhase.STARTING), route("c"), excluded=("c",)) == ""
    )


def test_the_only_one_that_can_be_reached_is_chosen() -> None:
    found = choice([route("a", node="gone"), route("b", node="n-2"), route("c", phase=WorkerPhase.DRAINING)])
    assert found is not None
    assert (found.route.worker_id, found.decision.reason) == ("b", ONLY)
    assert found.header == "worker=b; node=n-2; reason=only"


def test_who_drains_gets_nothing_not_even_what_it_has_cached() -> None:
    asked = ASK._replace(prefix=1, session=2, last="a")
    found = choice([route("a", phase=WorkerPhase.DRAINING), route("b"), route("c")], asked)
    assert found is not None
    assert found.route.worker_id != "a"


def test_who_may_have_become_ready_is_doubtful_and_who_goes_is_not() -> None:
    fleet = [route(phase.value, phase=phase) for phase in WorkerPhase]
    found = choice(fleet, phases=DOUBTFUL)
    assert found is not None
    assert {one.worker_id for one in found.candidates} == {"unknown", "pending", "starting", "warming"}


def test_who_was_tried_is_not_tried_again() -> None:
    tried: set[str] = set()
    while worker := chosen(*(route(name) for name in "abc"), excluded=tried):
        assert worker not in tried
        tried.add(worker)
    assert tried == set("abc")


def test_an_open_circuit_gets_nothing_until_its_probe() -> None:
    breaker, routes = Breaker(), [route("a")]
    for _ in range(IN_A_ROW):
        breaker.end("a", breaker.begin("a", 0.0), 0.0, failed=True)

    def at(now: float) -> Choice | None:
        return choose(
            routes,
            ASK,
            live=lambda _: True,
            outstanding={},
            loads={},
            admits=lambda worker: breaker.admits(worker, now),
        )

    assert at(1.0) is None
    assert at(OPEN_S) is not None
    breaker.begin("a", OPEN_S)
    assert at(OPEN_S) is None


def test_our_own_counters_come_before_what_was_reported() -> None:
    routes = [route("a"), route("b")]
    assert chosen(*routes, busy={"a": 2, "b": 1}) == "b"
    assert chosen(*routes, busy={"a": 2, "b": 1}, loads={"b": Load(foreign=3.0)}) == "a"
    assert chosen(*routes, busy={"a": 1}, loads={"b": Load(kv=1.0)}) == "a"


def test_weight_slots_and_cost_come_from_the_route() -> None:
    big = Route("big", "n", "d", "vllm", 16, WorkerPhase.READY, weight=2.0, cost_per_hour=9)
    small = Route("small", "n", "d", "vllm", 2, WorkerPhase.READY, cost_per_hour=3)
    found = choice([big, small], busy={"big": 8, "small": 1})
    assert found is not None
    assert (found.route, found.decision.reason) == (big, LEAST_LOAD)
    assert found.candidates[0] == Candidate("big", "n", 8, 0.0, 16, 2.0, 0.0, 9)
    cheap = choice([big, small], ASK._replace(policy=Policy.CHEAPEST))
    assert cheap is not None
    assert (cheap.route, cheap.decision.reason) == (small, CHEAPEST)


def test_what_is_reported_counts_without_what_is_ours() -> None:
    assert reported(5, 3, 0.5, ours=6) == Load(2.0, 0.5)
    assert reported(5, None, None, ours=6) == Load(0.0, 0.0)
    assert reported(None, 2, 1.5, ours=0) == Load(2.0, 1.0)
    assert reported(None, None, -1.0, ours=0) == reported(None, None, float("nan"), ours=0) == Load()


def test_the_policies_of_a_deployment_are_those_that_can_be_decided() -> None:
    assert tuple(Policy) == POLICIES


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.booleans(), st.booleans()), max_size=8),
    st.sampled_from(Policy),
    st.none() | st.integers(0, 2**64 - 1),
)
def test_one_that_can_be_reached_is_chosen_and_the_choice_says_why(
    fleet: list[tuple[int, int, bool, bool]], policy: Policy, prefix: int | None
) -> None:
    routes = [
        route(f"w{at}", node="n" if alive else "gone", slots=slots)
        for at, (_, slots, alive, _) in enumerate(fleet)
    ]
    excluded = {f"w{at}" for at, (*_, out) in enumerate(fleet) if out}
    busy = {f"w{at}": load for at, (load, *_) in enumerate(fleet)}
    fit = [one for one in routes if one.node_id != "gone" and one.worker_id not in excluded]
    found = choice(routes, ASK._replace(policy=policy, prefix=prefix), busy=busy, excluded=excluded)
    assert (found is None) == (not fit)
    if found:
        assert found.route in fit
        assert decide(found.candidates, found.ask) == found.decision
