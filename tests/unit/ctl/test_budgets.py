"""meshctl's budgets: projects, what keys may do, prices and routing; over the real wire protocol."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.ctl import limits, output
from control_plane.ctl.commands import phases
from mesh.admin.v1 import api_key_pb2, deployment_pb2, model_pb2, project_pb2
from mesh.gateway.v1 import gateway_pb2
from mesh.types.v1 import worker_pb2
from tests.unit.ctl.conftest import Meshctl
from tests.unit.ctl.double import AdminDouble

ALL_LIMITS = (
    *("--rpm", "60", "--tpm", "10000", "--concurrent", "4", "--tokens-per-day", "1000000"),
    *("--tokens-per-month", "20000000", "--eur-per-day", "0.5", "--eur-per-month", "12.000000001"),
)
LIMITS = gateway_pb2.Limits(
    requests_per_minute=60,
    tokens_per_minute=10_000,
    concurrent_requests=4,
    tokens_per_day=1_000_000,
    tokens_per_month=20_000_000,
    money_per_day=500_000_000,
    money_per_month=12_000_000_001,
)
WORDS = (
    "60 rpm, 10000 tpm, 4 at once, 1000000 tokens/day, 20000000 tokens/month, 0.5 EUR/day, 12.000000001 EUR/month"
)


@pytest.fixture
def demo(meshctl: Meshctl) -> Meshctl:
    assert meshctl("organization", "create", "demo").code == 0
    return meshctl


def test_a_project_is_made_shown_listed_changed_and_deleted(demo: Meshctl, double: AdminDouble) -> None:
    made = demo("project", "create", "apps", "-o", "demo", *ALL_LIMITS)
    assert made.code == 0
    assert double.rows.asked[-1] == project_pb2.CreateProjectRequest(
        organization="demo", name="apps", limits=LIMITS
    )
    assert WORDS in made.out
    [found] = double.rows.projects.values()
    found.charged_tokens, found.charged_money = 1234, 1_500_000_000
    listed = demo("project", "list").out
    assert "demo/apps" in listed
    assert "1234" in listed
    assert "1.5" in listed
    assert "1234 tokens, 1.5 EUR" in demo("project", "get", "demo/apps").out
    changed = demo("project", "update", "demo/apps", "--rpm", "0", "--json")
    assert changed.json["limits"] == {"requests_per_minute": "0"}
    assert double.rows.asked[-1] == project_pb2.UpdateProjectRequest(
        project="demo/apps", limits=gateway_pb2.Limits(requests_per_minute=0)
    )
    assert demo("project", "delete", "demo/apps").code == 0
    assert demo("project", "list", "--json").json == {"projects": []}


def test_a_key_says_what_it_may_do(demo: Meshctl, double: AdminDouble) -> None:
    assert demo("project", "create", "apps", "-o", "demo").code == 0
    made = demo(
        *("key", "create", "ci", "-o", "demo", "-p", "apps", "--scope", "chat", "--scope", "models", *ALL_LIMITS),
        *("--allow-model", "small", "--allow-model", "org/big:1", "--weight", "5", "--priority", "high"),
    )
    assert made.code == 0
    assert double.rows.asked[-1] == api_key_pb2.CreateApiKeyRequest(
        organization="demo",
        name="ci",
        project="apps",
        policy=api_key_pb2.ApiKeyPolicy(
            scopes=["chat", "models"],
            allowed_models=["small", "org/big:1"],
            limits=LIMITS,
            weight=5,
            priority=gateway_pb2.PRIORITY_HIGH,
        ),
    )
    key_id = made.out.split("-")[1]
    row = demo("key", "list").out.splitlines()[1]
    for words in (key_id, f"inv-{key_id}", "apps", WORDS):
        assert words in row
    shown = demo("key", "get", key_id).out
    for words in (f"inv-{key_id}", "chat, models", "small, org/big:1", WORDS, "high"):
        assert words in shown


def test_a_keys_update_replaces_all_and_shows_what_is_in_force(demo: Meshctl, double: AdminDouble) -> None:
    key_id = demo("key", "create", "ci", "-o", "demo", "--scope", "chat", "--rpm", "1").out.split("-")[1]
    changed = demo("key", "update", key_id, "--tpm", "9")
    assert changed.code == 0
    assert double.rows.asked[-1] == api_key_pb2.UpdateApiKeyRequest(
        key_id=key_id,
        policy=api_key_pb2.ApiKeyPolicy(
            limits=gateway_pb2.Limits(tokens_per_minute=9), weight=1, priority=gateway_pb2.PRIORITY_NORMAL
        ),
    )
    assert "every endpoint" in changed.out
    assert "9 tpm" in changed.out
    assert "rpm" not in changed.out
    policy = demo("key", "update", key_id, "--json").json["policy"]
    assert (policy["scopes"], policy["limits"], policy["priority"]) == ([], {}, "PRIORITY_NORMAL")
    assert demo("key", "update", "nokey").code == 1


def test_a_model_has_other_names_prices_and_adapters(demo: Meshctl, double: AdminDouble) -> None:
    made = demo(
        *("model", "create", "base", "--source", "simulator:seed=7", "--alias", "gpt", "--alias", "best"),
        *("--price-prompt", "0.15", "--price-cached", "0.075", "--price-completion", "2"),
        *("--adapter", "base-fr=simulator:seed=8", "--adapter", "base-de=file:///lora/de"),
    )
    assert made.code == 0
    assert double.rows.asked[-1] == model_pb2.CreateModelRequest(
        name="base",
        source="simulator:seed=7",
        context_length=4096,
        memory_bytes=2**30,
        aliases=["gpt", "best"],
        price=gateway_pb2.Price(prompt=150_000_000, cached=75_000_000, completion=2_000_000_000),
        adapters=[
            worker_pb2.Adapter(name="base-fr", source="simulator:seed=8"),
            worker_pb2.Adapter(name="base-de", source="file:///lora/de"),
        ],
    )
    assert "prompt 0.15, cached 0.075, completion 2 EUR for a million tokens" in made.out
    assert "gpt, best" in made.out
    assert "base-fr (simulator:seed=8)" in made.out
    changed = demo("model", "update", "base", "--alias", "new")
    assert double.rows.asked[-1] == model_pb2.UpdateModelRequest(
        model="base", aliases=["new"], price=gateway_pb2.Price()
    )
    assert "nothing" in changed.out
    assert "gpt" not in changed.out
    assert demo("model", "update", "base", "--json").json["aliases"] == []


def test_a_deployment_says_how_it_is_routed(demo: Meshctl, double: AdminDouble) -> None:
    assert demo("model", "create", "m", "--source", "file:///m.gguf").code == 0
    made = demo(
        *("deployment", "create", "d", "--model", "m", "--policy", "round-robin"),
        *("--pass-through", "/v1/audio/speech", "--pass-through", "/v1/images"),
    )
    asked = double.rows.asked[-1]
    assert isinstance(asked, deployment_pb2.CreateDeploymentRequest)
    assert asked.policy == gateway_pb2.ROUTING_POLICY_ROUND_ROBIN
    assert list(asked.pass_through) == ["/v1/audio/speech", "/v1/images"]
    assert "round-robin" in made.out
    assert "/v1/audio/speech, /v1/images" in made.out
    kept = demo("deployment", "update", "d", "--json").json
    assert double.rows.asked[-1] == deployment_pb2.UpdateDeploymentRequest(deployment="d")
    assert (kept["policy"], kept["pass_through"]) == ("ROUTING_POLICY_ROUND_ROBIN", [])
    assert "cheapest" in demo("deployment", "update", "d", "--policy", "cheapest").out


@given(st.integers(0, 10**18))
def test_an_amount_that_is_shown_can_be_typed_and_is_the_same(nano: int) -> None:
    assert limits.MONEY.convert(output.euros(nano), None, None) == nano


def test_every_value_of_an_enum_has_a_word_and_unknown_ones_are_unknown() -> None:
    for word in phases.POLICIES:
        assert phases.word_for_policy(gateway_pb2.RoutingPolicy.Value(phases.policy_of(word))) == word
    for word in phases.PRIORITIES:
        assert phases.word_for_priority(gateway_pb2.Priority.Value(phases.priority_of(word))) == word
    assert {phases.word_for_policy(99), phases.word_for_priority(99), phases.word_for_policy(0)} == {"unknown"}
