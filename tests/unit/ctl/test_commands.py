"""meshctl's admin commands over the real wire protocol: what they send, print and refuse."""

import json

import grpc
import pytest

from mesh.admin.v1 import deployment_pb2, join_token_pb2, model_pb2, node_pb2
from mesh.gateway.v1 import gateway_pb2
from mesh.types.v1.worker_pb2 import WORKER_PHASE_FAILED
from tests.unit.ctl.conftest import Meshctl
from tests.unit.ctl.double import LOADING, PIN, READY, AdminDouble


@pytest.fixture
def demo(meshctl: Meshctl) -> Meshctl:
    assert meshctl("organization", "create", "demo").code == 0
    return meshctl


@pytest.fixture
def small(demo: Meshctl) -> Meshctl:
    assert demo("model", "create", "small", "--source", "package:p/f.gguf").code == 0
    return demo


def test_an_organization_is_made_listed_shown_and_deleted(meshctl: Meshctl) -> None:
    made = meshctl("organization", "create", "acme", "--json")
    assert made.code == 0
    assert made.json["name"] == "acme"
    listed = meshctl("organization", "list")
    assert "acme" in listed.out
    assert made.json["organization_id"] in listed.out
    assert meshctl("organization", "get", "acme", "--json").json == made.json
    assert meshctl("organization", "delete", "acme").code == 0
    assert meshctl("organization", "list", "--json").json == {"organizations": []}


def test_an_empty_table_says_what_to_do_and_leaves_stdout_empty(meshctl: Meshctl) -> None:
    for things in ("organization", "project", "key", "token", "node", "model", "deployment"):
        listed = meshctl(things, "list")
        assert listed.code == 0
        assert listed.out == ""
        assert "`meshctl " in listed.err


def test_a_key_is_shown_once_and_alone_on_stdout(demo: Meshctl) -> None:
    made = demo("key", "create", "laptop", "--organization", "demo")
    assert made.out.startswith("inv-")
    assert made.out.count("\n") == 1
    assert made.out.strip() not in made.err
    secret = made.out.strip().split("-")[2]
    assert secret not in demo("key", "list").out
    assert secret not in demo("key", "list", "--json").out
    assert demo("key", "list").out.splitlines()[0].split() == [
        *("KEY", "PREFIX", "NAME", "ORGANIZATION", "PROJECT", "LIMITS", "CREATED", "EXPIRES")
    ]
    assert "demo" in demo("key", "list").out
    key_id = made.out.split("-")[1]
    assert "laptop" in demo("key", "get", key_id).out
    assert demo("key", "delete", key_id).code == 0
    assert demo("key", "get", key_id).code == 1


def test_a_join_token_comes_with_the_command_that_uses_it(demo: Meshctl, double: AdminDouble) -> None:
    made = demo("token", "create", "--organization", "demo", "--ttl", "1h", "--uses", "3")
    assert made.out.startswith("inv1_")
    assert made.out.strip() not in made.err
    assert f"mesh-agent enroll --control-plane 127.0.0.1:7440 --ca-pin {PIN}" in made.err
    assert double.rows.asked[-1] == join_token_pb2.CreateJoinTokenRequest(organization="demo", ttl_s=3600, uses=3)
    token_id = made.out.split("_")[1]
    assert "active" in demo("token", "list").out
    assert demo("token", "delete", token_id).code == 0
    assert "revoked" in demo("token", "list").out
    assert "revoked" in demo("token", "get", token_id).out


def test_a_model_is_made_from_sizes_people_write(demo: Meshctl, double: AdminDouble) -> None:
    made = demo(
        *("model", "create", "org/big:1", "--source", "file:///m/big.gguf", "--memory", "1.5GiB"),
        *("--vram", "20GiB", "--gpus", "1", "--context-length", "8192", "--json"),
    )
    assert made.code == 0
    assert double.rows.asked[-1] == model_pb2.CreateModelRequest(
        name="org/big:1",
        source="file:///m/big.gguf",
        context_length=8192,
        memory_bytes=3 * 2**29,
        vram_bytes=20 * 2**30,
        gpu_count=1,
        price=gateway_pb2.Price(),
    )
    assert made.json["memory_bytes"] == str(3 * 2**29)
    assert "1 GPU, 20 GiB" in demo("model", "list").out
    assert "file:///m/big.gguf" in demo("model", "get", "org/big:1").out
    assert demo("model", "delete", "org/big:1").code == 0


def test_a_deployment_is_made_with_what_was_asked_for(small: Meshctl, double: AdminDouble) -> None:
    made = small("deployment", "create", "chat", "--model", "small", "--replicas", "2", "--slots", "8", "--json")
    assert made.code == 0
    assert double.rows.asked[-1] == deployment_pb2.CreateDeploymentRequest(
        name="chat",
        model="small",
        replicas=2,
        slots=8,
        engine="llamacpp",
        policy="ROUTING_POLICY_BALANCED",
    )
    assert "0/2" in small("deployment", "list").out
    assert small("deployment", "delete", "chat").code == 0


def test_waiting_shows_every_worker_and_ends_when_all_are_ready(small: Meshctl, double: AdminDouble) -> None:
    double.rows.phases = [[], [LOADING, LOADING], [READY, LOADING], [READY, READY]]
    made = small("deployment", "create", "--model", "small", "--replicas", "2", "--wait", "--json")
    assert made.code == 0
    assert [worker["phase"] for worker in made.json["workers"]] == ["WORKER_PHASE_READY"] * 2
    assert made.lines == [
        "  worker 00000000: starting 40 % (loading weights)",
        "  worker 00000001: starting 40 % (loading weights)",
        "  worker 00000000: ready",
        "  worker 00000001: ready",
    ]


def test_waiting_too_long_says_why_it_is_not_ready(small: Meshctl, double: AdminDouble) -> None:
    assert small("deployment", "create", "--model", "small").code == 0
    double.rows.phases = [[(WORKER_PHASE_FAILED, 0)]] * 20
    waited = small("deployment", "wait", "small", "--timeout", "1s")
    assert waited.code == 1
    assert waited.lines[-1] == "meshctl: deployment 'small' is not ready: 0 of 1 workers ready; failed"


def test_nodes_are_shown_without_what_a_hostname_would_do_to_a_terminal(
    meshctl: Meshctl, double: AdminDouble
) -> None:
    double.rows.nodes["n-1"] = node_pb2.Node(
        node_id="n-1", hostname="evil\x1b[2Jhost[red]", state=node_pb2.NODE_STATE_ONLINE
    )
    listed = meshctl("node", "list")
    assert "\x1b" not in listed.out
    assert "host[red]" in listed.out
    assert "online" in listed.out
    assert meshctl("node", "get", "n-1").code == 0
    assert meshctl("node", "delete", "n-1").code == 0
    assert "revoked" in meshctl("node", "list").out


def test_json_has_every_field_in_the_order_of_the_schema(demo: Meshctl, double: AdminDouble) -> None:
    listed = demo("organization", "list", "--json")
    assert listed.err == ""
    assert list(listed.json["organizations"][0]) == ["organization_id", "name", "created_at"]
    assert json.loads(listed.out) == listed.json
    demo("token", "create", "-o", "demo")
    [token] = demo("token", "list", "--json").json["join_tokens"]
    assert token["uses_left"] == 1
    assert "revoked_at" not in token


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 2),
        (grpc.StatusCode.NOT_FOUND, 1),
        (grpc.StatusCode.ALREADY_EXISTS, 1),
        (grpc.StatusCode.FAILED_PRECONDITION, 1),
        (grpc.StatusCode.PERMISSION_DENIED, 1),
        (grpc.StatusCode.UNAUTHENTICATED, 1),
        (grpc.StatusCode.UNAVAILABLE, 1),
        (grpc.StatusCode.INTERNAL, 1),
        (grpc.StatusCode.UNIMPLEMENTED, 1),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 1),
    ],
)
def test_a_refusal_is_one_line_with_the_servers_words(
    meshctl: Meshctl, double: AdminDouble, status: grpc.StatusCode, code: int
) -> None:
    double.rows.refuse_next = (status, "some_reason", "ttl_s: must be 1 to 86400,\nnot 9")
    refused = meshctl("node", "list")
    assert refused.code == code
    assert refused.out == ""
    [line] = refused.lines
    assert line.startswith("meshctl: ")
    assert line.endswith("ttl_s: must be 1 to 86400, not 9")


def test_what_is_not_there_and_what_is_in_use_end_with_one(demo: Meshctl) -> None:
    assert demo("organization", "get", "nobody").lines == ["meshctl: no organization 'nobody'"]
    assert demo("organization", "create", "demo").lines == ["meshctl: organization 'demo' exists already"]
    assert demo("key", "create", "k", "-o", "demo").code == 0
    assert demo("organization", "delete", "demo").lines == ["meshctl: organization 'demo' is in use by 1 key"]
