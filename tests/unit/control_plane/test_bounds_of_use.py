"""What keys, projects, prices, names and routing may be: the limits, their edges, errors that name the field."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core import bounds
from control_plane.core.limits import ANYTHING, LIMITS, ROUTE_DEBUG, SCOPES, UNLIMITED, KeyPolicy, Limits, Priority
from control_plane.core.model import Adapter, Deployment, Engine, Model, Price, RoutingPolicy
from gateway.core import endpoints
from gateway.core import snapshot as gateway_values
from mesh.gateway.v1 import gateway_pb2
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import DeploymentId, ModelId, OrganizationId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORG = OrganizationId("org")


def refused(field: str, call: Callable[..., object], *args: object, **values: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call(*args, **values)
    assert caught.value.field == field
    return caught.value


def model(**values: Any) -> Model:
    given: dict[str, Any] = {
        "model_id": ModelId("m1"),
        "name": "base",
        "source": "simulator:seed=7",
        "context_length": 0,
        "memory_bytes": 0,
        "vram_bytes": 0,
        "gpu_count": 0,
        "now": NOW,
    }
    return bounds.model(**{**given, **values})


def deployment(of: Model, engine: str, **values: Any) -> Deployment:
    return bounds.deployment(
        deployment_id=DeploymentId("d1"),
        name="",
        model=of,
        engine=engine,
        replicas=0,
        slots=0,
        now=NOW,
        **values,
    )


def test_what_we_know_of_limits_and_scopes_is_what_gateways_and_the_schema_know() -> None:
    assert set(SCOPES) == endpoints.SCOPES | {endpoints.ROUTE_DEBUG}
    assert endpoints.ROUTE_DEBUG == ROUTE_DEBUG
    assert tuple(gateway_values.Limits.__dataclass_fields__) == LIMITS
    assert list(LIMITS) == [field.name for field in gateway_pb2.Limits.DESCRIPTOR.fields]
    assert [str(one) for one in RoutingPolicy] == [str(one) for one in gateway_values.Policy]
    assert [one.name for one in Priority] == [one.name for one in gateway_values.Priority]


def test_a_key_may_do_anything_unless_said_otherwise() -> None:
    made = bounds.api_key(key_id="k", organization_id=ORG, name="ci", ttl_s=0, now=NOW)
    assert (made.project_id, made.policy) == (None, ANYTHING)
    assert bounds.key_policy(KeyPolicy(weight=0)) == KeyPolicy(weight=1)


def test_what_a_key_is_allowed_twice_counts_once() -> None:
    said = KeyPolicy(scopes=("models", "chat", "models"), allowed_models=("b", "a", "b"))
    kept = bounds.key_policy(said)
    assert (kept.scopes, kept.allowed_models) == (("models", "chat"), ("b", "a"))


@pytest.mark.parametrize(
    ("field", "policy"),
    [
        ("policy.scopes", KeyPolicy(scopes=("chat", "everything"))),
        ("policy.scopes", KeyPolicy(scopes=("",))),
        ("policy.allowed_models", KeyPolicy(allowed_models=("a b",))),
        ("policy.allowed_models", KeyPolicy(allowed_models=tuple(f"m{n}" for n in range(201)))),
        ("policy.weight", KeyPolicy(weight=1001)),
        ("policy.weight", KeyPolicy(weight=-1)),
        ("policy.limits.tokens_per_day", KeyPolicy(limits=Limits(tokens_per_day=-1))),
    ],
)
def test_a_key_beyond_its_bounds_is_refused(field: str, policy: KeyPolicy) -> None:
    refused(field, bounds.key_policy, policy)


def test_200_models_may_be_named() -> None:
    assert (
        len(bounds.key_policy(KeyPolicy(allowed_models=tuple(f"m{n}" for n in range(200)))).allowed_models) == 200
    )


MOST = {
    name: 10**15 if name.startswith("tokens") else 10**18 if name.startswith("money") else 10**9 for name in LIMITS
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_goes_from_none_of_it_to_a_most(name: str) -> None:
    for value in (0, MOST[name]):
        assert bounds.limits("limits", Limits(**{name: value})) == Limits(**{name: value})
    said = refused(f"limits.{name}", bounds.limits, "limits", Limits(**{name: MOST[name] + 1}))
    assert str(MOST[name]) in said.problem


@given(st.builds(Limits, **{name: st.none() | st.integers(-1, 2**64) for name in LIMITS}))
def test_limits_that_are_taken_are_those_that_were_said_and_fit_a_column(said: Limits) -> None:
    values = {name: getattr(said, name) for name in LIMITS}
    if all(value is None or 0 <= value <= MOST[name] for name, value in values.items()):
        assert bounds.limits("limits", said) is said
        assert all(value is None or value < 2**63 for value in values.values())
    else:
        with pytest.raises(InvalidInput):
            bounds.limits("limits", said)


def test_a_project_has_a_name_and_limits() -> None:
    made = bounds.project(project_id="p1", organization_id=ORG, name="apps", wanted=UNLIMITED, now=NOW)
    assert (made.project_id, made.name, made.limits) == ("p1", "apps", UNLIMITED)
    rest: dict[str, Any] = {"project_id": "p1", "organization_id": ORG, "now": NOW}
    refused("name", bounds.project, name="a/b", wanted=UNLIMITED, **rest)
    refused("limits.money_per_day", bounds.project, name="a", wanted=Limits(money_per_day=-1), **rest)


@pytest.mark.parametrize("text", ["0199-aa", "acme/apps", "a" * 64 + "/" + "b" * 64])
def test_a_project_is_looked_up_by_id_or_by_owner_and_name(text: str) -> None:
    assert bounds.project_lookup("project", text) == text


@pytest.mark.parametrize("text", ["", "a b", "x" * 130, "a:b", "\x00"])
def test_anything_else_is_no_project(text: str) -> None:
    refused("project", bounds.project_lookup, "project", text)


@pytest.mark.parametrize("name", ["prompt", "cached", "completion"])
def test_a_price_goes_from_nothing_to_a_million(name: str) -> None:
    assert model(price=Price(**{name: 10**15})).price == Price(**{name: 10**15})
    refused(f"price.{name}", model, price=Price(**{name: 10**15 + 1}))
    refused(f"price.{name}", bounds.model_price, Price(**{name: -1}))


def test_other_names_are_kept_in_order() -> None:
    made = model(aliases=["b", "A", "a/1"], adapters=[Adapter("z", "file:///z"), Adapter("y", "simulator:")])
    assert made.aliases == ("A", "a/1", "b")
    assert [one.name for one in made.adapters] == ["y", "z"]
    assert bounds.model_aliases([], made) == ()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("aliases", {"aliases": ["a b"]}),
        ("aliases", {"aliases": ["base"]}),
        ("aliases", {"aliases": ["x", "x"]}),
        ("aliases", {"aliases": [f"m{n}" for n in range(17)]}),
        ("aliases", {"aliases": ["fr"], "adapters": [Adapter("fr", "file:///fr")]}),
        ("adapters", {"adapters": [Adapter("base", "file:///fr")]}),
        ("adapters", {"adapters": [Adapter("fr", "file:///a"), Adapter("fr", "file:///b")]}),
        ("adapters", {"adapters": [Adapter(f"a{n}", "file:///a") for n in range(65)]}),
        ("adapters[1].name", {"adapters": [Adapter("fr", "file:///a"), Adapter("a b", "file:///b")]}),
        ("adapters[0].source", {"adapters": [Adapter("fr", "a/b")]}),
        ("adapters[0].source", {"source": "file:///m", "adapters": [Adapter("fr", "simulator:seed=1")]}),
    ],
)
def test_names_of_a_model_that_cannot_be_are_refused(field: str, values: dict[str, Any]) -> None:
    refused(field, model, **values)


@pytest.mark.parametrize(
    "source",
    [
        "simulator:",
        "simulator:seed=7",
        "simulator:seed=7,token_ms=5",
        "simulator:fault=stall_after_bytes:200,x=0.5",
    ],
)
def test_a_simulators_source_has_options(source: str) -> None:
    made = model(source=source)
    assert (made.source, made.simulated) == (source, True)


@pytest.mark.parametrize(
    "source",
    [
        "simulator",
        "simulator:seed",
        "simulator:seed=",
        "simulator:=7",
        "simulator:Seed=7",
        "simulator:seed=7,",
        "simulator:,seed=7",
        "simulator:seed=7,seed=8",
        "simulator:seed=7 8",
        "simulator:seed=7\n",
        "simulator:a=" + "x" * 1020,
    ],
)
def test_bad_options_of_a_simulator_are_refused(source: str) -> None:
    refused("source", model, source=source)


def test_a_simulated_model_needs_the_simulator_and_a_real_one_a_real_engine() -> None:
    simulated, real = model(), model(source="file:///m.gguf")
    assert deployment(simulated, "simulator").engine is Engine.SIMULATOR
    assert deployment(real, "").engine is Engine.LLAMACPP
    for engine in ("", "llamacpp"):
        assert 'must be "simulator"' in refused("engine", deployment, simulated, engine).problem
    assert 'must not be "simulator"' in refused("engine", deployment, real, "simulator").problem


def test_a_deployment_says_how_requests_are_routed() -> None:
    made = deployment(
        model(), "simulator", policy=RoutingPolicy.CHEAPEST, pass_through=["/v1/b", "/v1/a", "/v1/b"]
    )
    assert (made.policy, made.pass_through) == (RoutingPolicy.CHEAPEST, ("/v1/a", "/v1/b"))
    plain = deployment(model(), "simulator")
    assert plain == replace(made, policy=RoutingPolicy.BALANCED, pass_through=())


@pytest.mark.parametrize(
    "path", ["", "v1/a", "/", "//a", "/a/", "/a//b", "/a/../b", "/.", "/a?b", "/a b", "/a\n", "/" + "a" * 128]
)
def test_bad_paths_are_refused(path: str) -> None:
    refused("pass_through", bounds.paths, [path])


def test_32_paths_are_the_most() -> None:
    many = [f"/v1/{n}" for n in range(33)]
    assert len(bounds.paths(many[:32])) == 32
    refused("pass_through", bounds.paths, many)


def test_a_gateway_has_64_processes_at_most_and_may_have_no_peers() -> None:
    assert (bounds.process(0), bounds.process(63)) == (0, 63)
    refused("process", bounds.process, 64)
    assert (bounds.peer_endpoint(""), bounds.peer_endpoint("gw:1")) == ("", "gw:1")
    refused("peer_endpoint", bounds.peer_endpoint, "gw")
