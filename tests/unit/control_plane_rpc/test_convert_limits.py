"""Limits, policies, prices and adapters are the same on both sides of the wire."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.fleet import WorkerPhase
from control_plane.core.limits import LIMITS, SCOPES, KeyPolicy, Limits, Priority
from control_plane.core.model import Adapter, Price, RoutingPolicy
from control_plane.core.projects import Project
from control_plane.core.snapshot import KeyEntry, ModelEntry, Peer, Route, Snapshot
from control_plane.rpc import convert_limits
from control_plane.rpc.convert_snapshot import snapshot
from mesh.admin.v1 import api_key_pb2
from mesh.gateway.v1 import gateway_pb2
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import DeploymentId, NodeId, OrganizationId, WorkerId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
U64 = st.integers(0, 2**64 - 1)
LIMITS_OF_ALL_KINDS = st.builds(Limits, **{name: st.none() | U64 for name in LIMITS})
NAMES = st.text("abc/.-", min_size=1, max_size=9)
POLICIES = st.builds(
    KeyPolicy,
    scopes=st.lists(st.sampled_from(SCOPES)).map(tuple),
    allowed_models=st.lists(NAMES).map(tuple),
    limits=LIMITS_OF_ALL_KINDS,
    weight=st.integers(0, 2**32 - 1),
    priority=st.sampled_from(Priority),
)


@given(POLICIES)
def test_what_a_key_may_do_comes_back_as_it_went(policy: KeyPolicy) -> None:
    assert convert_limits.key_policy_in(convert_limits.key_policy_out(policy)) == policy


@given(st.builds(Price, U64, U64, U64), st.lists(st.builds(Adapter, NAMES, NAMES)).map(tuple))
def test_prices_and_adapters_come_back_as_they_went(price: Price, adapters: tuple[Adapter, ...]) -> None:
    assert convert_limits.price_in(convert_limits.price_out(price)) == price
    assert convert_limits.adapters_in(convert_limits.adapters_out(adapters)) == adapters


def test_none_of_something_is_not_the_same_as_no_limit() -> None:
    said = convert_limits.limits_out(Limits(tokens_per_day=0))
    assert [field.name for field, _ in said.ListFields()] == ["tokens_per_day"]
    assert convert_limits.limits_in(said) == Limits(tokens_per_day=0)


def test_a_key_of_which_nothing_is_said_is_normal() -> None:
    assert convert_limits.key_policy_in(api_key_pb2.ApiKeyPolicy()) == KeyPolicy(weight=0)


def test_every_routing_policy_has_its_number() -> None:
    numbers = [gateway_pb2.RoutingPolicy.Value(convert_limits.routing_policy_out(one)) for one in RoutingPolicy]
    assert [convert_limits.routing_policy_in(one) for one in numbers] == list(RoutingPolicy)
    assert sorted(numbers) == sorted(gateway_pb2.RoutingPolicy.values())[1:]
    assert convert_limits.routing_policy_in(0) is None


def test_what_a_newer_operator_may_say_is_refused_by_its_field() -> None:
    with pytest.raises(InvalidInput, match=r"^policy: must be one of: balanced, "):
        convert_limits.routing_policy_in(99)
    with pytest.raises(InvalidInput, match=r"^policy\.priority: must be one of: low, normal, high"):
        convert_limits.key_policy_in(api_key_pb2.ApiKeyPolicy(priority=99))  # type: ignore[arg-type]  # the point


def test_a_snapshot_says_all_that_it_holds() -> None:
    policy = KeyPolicy(("chat",), ("m",), Limits(requests_per_minute=1), 5, Priority.HIGH)
    route = Route(WorkerId("w"), NodeId("n"), DeploymentId("d"), "simulator", 4, WorkerPhase.READY, 864)
    model = ModelEntry(
        name="m-fr",
        created_at=NOW,
        context_length=4096,
        routes=(route,),
        aliases=("a",),
        engine_name="m-fr",
        base_model="m",
        policy=RoutingPolicy.PREFIX,
        price=Price(1, 2, 3),
        pass_through=("/v1/x",),
        can_start=True,
    )
    project = Project("p", OrganizationId("o"), "apps", NOW, Limits(money_per_day=7))
    key = KeyEntry("k", bytes(32), OrganizationId("o"), None, "p", policy)
    said = snapshot(Snapshot(9, (key,), (model,), ("r",), (project,), (Peer("g~1", "h:1", "s"),)), pepper=b"p")
    [told] = said.api_keys
    assert (told.project_id, list(told.scopes), list(told.allowed_models)) == ("p", ["chat"], ["m"])
    assert (told.limits.requests_per_minute, told.weight, told.priority) == (1, 5, gateway_pb2.PRIORITY_HIGH)
    assert said.projects[0] == gateway_pb2.Project(
        project_id="p", organization_id="o", limits=gateway_pb2.Limits(money_per_day=7)
    )
    assert said.peers[0] == gateway_pb2.Peer(hub_id="g~1", endpoint="h:1", server_name="s")
    [entry] = said.models
    assert (list(entry.aliases), entry.engine_name, entry.base_model) == (["a"], "m-fr", "m")
    assert (entry.policy, entry.can_start) == (gateway_pb2.ROUTING_POLICY_PREFIX, True)
    assert entry.price == gateway_pb2.Price(prompt=1, cached=2, completion=3)
    assert (list(entry.pass_through), entry.routes[0].weight) == (["/v1/x"], 864)
    assert (
        snapshot(Snapshot(1, (KeyEntry("k", b"", OrganizationId("o"), None),), (), ()), pepper=b"")
        .api_keys[0]
        .project_id
        == ""
    )
