"""Which models gateways are told of, with whose routes, and by whose policy."""

from dataclasses import replace
from datetime import timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.fleet import WorkerPhase
from control_plane.core.model import Adapter, Deployment, Engine, Model, Price, RoutingPolicy
from control_plane.core.snapshot import ModelEntry, Route, model_entries
from mesh.kit.ids import DeploymentId, NodeId, WorkerId
from tests.unit.control_plane.fleets import NOW, deployment, model

BASE = replace(
    model("base"),
    aliases=("gpt",),
    price=Price(1, 2, 3),
    adapters=(Adapter("base-de", "simulator:seed=1"), Adapter("base-fr", "simulator:seed=2")),
)


def route(worker: str, of: str) -> Route:
    return Route(WorkerId(worker), NodeId("n"), DeploymentId(of), "simulator", 4, WorkerPhase.READY)


def simulated(name: str, of: Model = BASE, **fields: object) -> Deployment:
    return replace(deployment(name, of), engine=Engine.SIMULATOR, **fields)  # type: ignore[arg-type]  # of its fields


def by_name(*deployments: Deployment, **routes: Route) -> dict[str, ModelEntry]:
    of: dict[str, list[Route]] = {}
    for one in routes.values():
        of.setdefault(one.deployment_id, []).append(one)
    return {entry.name: entry for entry in model_entries([BASE], deployments, of)}


def test_a_model_that_is_not_deployed_is_not_told() -> None:
    assert by_name() == {}


def test_an_adapter_is_a_model_of_its_own_with_the_routes_of_its_base() -> None:
    told = by_name(simulated("d"), w=route("w", "d"))
    assert list(told) == ["base", "base-de", "base-fr"]
    base, adapter = told["base"], told["base-fr"]
    assert (base.aliases, base.engine_name, base.base_model) == (("gpt",), "", "")
    assert (adapter.aliases, adapter.engine_name, adapter.base_model) == ((), "base-fr", "base")
    assert base.routes == adapter.routes == (route("w", "d"),)
    assert base.price == adapter.price == Price(1, 2, 3)
    assert base.can_start
    assert adapter.can_start


def test_an_adapter_has_only_routes_of_engines_that_can_serve_it() -> None:
    plain = deployment("plain", BASE)
    assert list(by_name(plain, w=route("w", "plain"))) == ["base"]
    told = by_name(plain, simulated("able"), v=route("v", "able"), w=route("w", "plain"))
    assert [one.worker_id for one in told["base"].routes] == ["v", "w"]
    assert [one.worker_id for one in told["base-de"].routes] == ["v"]


def test_the_oldest_deployment_says_how_and_the_paths_of_all_are_open() -> None:
    old = simulated("b-old", policy=RoutingPolicy.PREFIX, pass_through=("/v1/b",), created_at=NOW)
    new = simulated(
        "a-new",
        policy=RoutingPolicy.SESSION,
        pass_through=("/v1/a", "/v1/b"),
        created_at=NOW + timedelta(seconds=1),
    )
    told = by_name(new, old)["base"]
    assert (told.policy, told.pass_through) == (RoutingPolicy.PREFIX, ("/v1/a", "/v1/b"))


def test_nothing_can_start_where_no_replica_is_wanted() -> None:
    assert not by_name(simulated("d", replicas=0))["base"].can_start


@given(
    st.lists(
        st.tuples(st.sampled_from(Engine), st.sampled_from(RoutingPolicy), st.integers(0, 3), st.integers(0, 5)),
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_in_which_rows_come_changes_nothing(
    rows: list[tuple[Engine, RoutingPolicy, int, int]], shuffle: Random
) -> None:
    made = [
        replace(
            deployment(f"d{place}", BASE), engine=engine, policy=policy, created_at=NOW + timedelta(seconds=age)
        )
        for place, (engine, policy, _, age) in enumerate(rows)
    ]
    routes = {
        f"d{place}": [route(f"w{place}-{number}", f"d{place}") for number in range(row[2])]
        for place, row in enumerate(rows)
    }
    other = list(made)
    shuffle.shuffle(other)
    told = model_entries([BASE], made, routes)
    assert told == model_entries([BASE], other, {name: found[::-1] for name, found in routes.items()})
    assert bool(told) == bool(made)
    for entry in told:
        expected = [one for one in made if not entry.base_model or one.engine is Engine.SIMULATOR]
        assert len(entry.routes) == sum(len(routes[one.deployment_id]) for one in expected)
