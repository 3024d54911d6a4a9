"""Bad input ends with 2, an unreachable control plane with 1; both say in exactly one line what to do."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from control_plane.core import bounds
from control_plane.core.limits import SCOPES
from control_plane.ctl import limits
from control_plane.ctl.admin import path_of
from mesh.admin.v1 import (
    api_key_pb2,
    deployment_pb2,
    join_token_pb2,
    model_pb2,
    node_pb2,
    organization_pb2,
    project_pb2,
)
from pki import __main__ as pki_command
from tests.unit.ctl.conftest import Meshctl
from tests.unit.ctl.double import AdminDouble, make_identities

BAD = {
    ("nothing-like-this",): "nothing-like-this",
    ("node", "shout"): "shout",
    ("node", "get"): "NODE_ID",
    ("node", "list", "--bogus"): "--bogus",
    ("organization", "create", ""): "1 to 64 characters",
    ("organization", "create", "a b"): "letters, digits",
    ("organization", "create", "x" * 65): "1 to 64 characters, not 65",
    ("key", "create", "k"): "--organization",
    ("key", "create", "k", "-o", "demo", "--ttl", "soon"): "'soon' is not a duration",
    ("key", "create", "k", "-o", "demo", "--ttl", "4000d"): "1s to 3650d, not 4000d",
    ("key", "create", "a\x1b[2J", "-o", "demo"): "printable characters",
    ("key", "create", "k", "-o", "demo", "--scope", "everything"): "'everything' is not one of 'chat'",
    ("key", "create", "k", "-o", "demo", "--rpm", "-1"): "-1 is not in the range 0<=x<=1000000000",
    ("key", "create", "k", "-o", "demo", "--weight", "0"): "0 is not in the range 1<=x<=1000",
    ("key", "create", "k", "-o", "demo", "--priority", "top"): "'top' is not one of 'low', 'normal', 'high'",
    ("key", "update", "k", "--eur-per-day", "1e3"): "'1e3' is not an amount",
    ("key", "update", "k", "--eur-per-day", "0.0000000001"): "at most 9 decimals",
    ("key", "update", "k", "--eur-per-month", "1000000001"): "0 to 1000000000, not 1000000001",
    ("key", "update", "k", "--allow-model", "a b"): "letters, digits",
    ("project", "create", "p"): "--organization",
    ("project", "create", "a/b", "-o", "demo"): "letters, digits",
    ("project", "update", "demo/p", "--tpm", "lots"): "'lots' is not a valid integer",
    ("model", "create", "m", "--source", "file:///x", "--adapter", "fr"): "'fr' is not NAME=SOURCE",
    ("model", "create", "m", "--source", "file:///x", "--adapter", "a b=file:///x"): "letters, digits",
    ("model", "update", "m", "--price-prompt", "free"): "'free' is not an amount",
    ("model", "update", "m", "--price-cached", "1000001"): "0 to 1000000, not 1000001",
    ("deployment", "create", "--model", "m", "--policy", "best"): "'best' is not one of 'balanced'",
    ("deployment", "update", "d", "--pass-through", "/v1/a?b"): "letters, digits",
    ("token", "create", "-o", "demo", "--ttl", "25h"): "1s to 24h, not 25h",
    ("token", "create", "-o", "demo", "--ttl", "0"): "1s to 24h, not 0",
    ("token", "create", "-o", "demo", "--uses", "51"): "51 is not in the range 1<=x<=50",
    ("model", "create", "m"): "--source",
    ("model", "create", "m", "--source", "file:///x", "--memory", "much"): "'much' is not a size",
    ("model", "create", "m", "--source", "file:///x", "--memory", "1KiB"): "1MiB to 64TiB, not 1KiB",
    ("model", "create", "m", "--source", "file:///x", "--context-length", "64"): "128<=x<=1048576",
    ("deployment", "create", "--model", "m", "--replicas", "65"): "65 is not in the range 1<=x<=64",
    ("deployment", "create", "--model", "m", "--replicas", "0"): "0 is not in the range 1<=x<=64",
    ("deployment", "create", "--model", "m", "--slots", "many"): "--slots",
    ("deployment", "wait", "d", "--timeout", "0s"): "1s to 24h",
    ("--endpoint", "nowhere", "node", "list"): "'nowhere' is not host:port",
    ("node", "list", "--endpoint", "h:0"): "1 to 65535",
    ("chat", "m", " "): "PROMPT: 1 to 1048576 characters",
    ("chat", "m", "hello", "--temperature", "3"): "0<=x<=2",
    ("up", "--http-port", "65536"): "0<=x<=65535",
    ("up", "--model", "gpt-9"): "--model: one of smollm2-135m-instruct",
    ("up", "--ask", "x" * 2001): "1 to 2000 characters",
    ("up", "--open-ports", "no such host"): "letters, digits",
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_is_one_line_that_names_the_field_and_its_limit(
    bare: Meshctl, arguments: tuple[str, ...]
) -> None:
    refused = bare(*arguments)
    assert refused.code == 2
    assert refused.out == ""
    [line] = refused.lines
    assert line.startswith("meshctl: ")
    assert BAD[arguments] in line


def test_the_limits_typed_are_those_of_the_server() -> None:
    assert limits.NAME.longest == bounds.NAME_MAX
    assert limits.MODEL_NAME.longest == bounds.MODEL_NAME_MAX
    assert limits.REFERENCE.longest == bounds.LOOKUP_MAX
    assert limits.SOURCE.longest == bounds.SOURCE_MAX
    assert limits.TOKEN_TTL.longest_s == bounds.TOKEN_TTL_MAX_S
    assert limits.KEY_TTL.longest_s <= bounds.KEY_TTL_MAX_S
    assert limits.TOKEN_USES.max == bounds.TOKEN_USES_MAX
    assert (limits.CONTEXT_LENGTH.min, limits.CONTEXT_LENGTH.max) == (bounds.CONTEXT_MIN, bounds.CONTEXT_MAX)
    assert (limits.MIN_BYTES, limits.MAX_BYTES) == (bounds.MEMORY_MIN, bounds.MEMORY_MAX)
    assert limits.GPU_COUNT.max == bounds.GPUS_MAX
    assert limits.REPLICAS.max == bounds.REPLICAS_MAX
    assert limits.SLOTS.max == bounds.SLOTS_MAX
    assert limits.PROJECT.longest == bounds.PROJECT_LOOKUP_MAX
    assert limits.WEIGHT.max == bounds.WEIGHT_MAX
    assert limits.REQUESTS.max == bounds.REQUESTS_MAX
    assert limits.TOKENS.max == bounds.TOKENS_MAX
    assert limits.MONEY.most * limits.NANO == bounds.MONEY_MAX
    assert limits.PRICE.most * limits.NANO == bounds.PRICE_MAX
    assert limits.PATH.longest == bounds.PATH_MAX
    assert tuple(limits.SCOPE.choices) == SCOPES


def test_a_command_without_a_verb_shows_its_help_and_succeeds(bare: Meshctl) -> None:
    assert "deployment" in bare().out
    helped = bare("deployment")
    assert (helped.code, helped.err) == (0, "")
    assert "wait" in helped.out


def test_without_a_mesh_the_next_step_is_named(bare: Meshctl, tmp_path: Path) -> None:
    refused = bare("node", "list")
    assert refused.code == 1
    [line] = refused.lines
    assert str(tmp_path / "up") in line
    assert "`meshctl up`" in line
    assert "--endpoint" in line


def test_an_unreachable_control_plane_is_one_line_with_the_next_step(meshctl: Meshctl) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused = meshctl("node", "list", "--endpoint", f"127.0.0.1:{taken.getsockname()[1]}")
    assert refused.code == 1
    [line] = refused.lines
    assert "unreachable (nothing listens there)" in line
    assert "`meshctl up`" in line


def test_something_that_is_no_control_plane_is_told_apart(meshctl: Meshctl) -> None:
    def hang_up(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = threading.Thread(target=hang_up, args=(listener,))
        other.start()
        refused = meshctl("node", "list", "--endpoint", f"127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
        other.join()
    assert refused.code == 1
    assert len(refused.lines) == 1
    assert "is unreachable" in refused.err


def test_an_identity_of_another_mesh_is_refused_in_one_line(meshctl: Meshctl, tmp_path: Path) -> None:
    make_identities(tmp_path)
    refused = meshctl("node", "list", "--identity", str(tmp_path / "operator"))
    assert refused.code == 1
    [line] = refused.lines
    assert "not signed by this identity's trust bundle" in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "tls.key").unlink(), "cannot read"),
        (lambda folder: (folder / "tls.crt").write_text("no certificate"), "not PEM certificates"),
        (lambda folder: (folder / "trust-bundle.pem").write_bytes(b"\xff"), "not PEM certificates"),
    ],
    ids=["no key", "no certificate", "no bundle"],
)
def test_a_damaged_identity_says_which_file(
    meshctl: Meshctl, identities: Path, tmp_path: Path, change, words
) -> None:
    for name in ("tls.crt", "tls.key", "trust-bundle.pem"):
        (tmp_path / name).write_bytes((identities / "operator" / name).read_bytes())
    change(tmp_path)
    refused = meshctl("node", "list", "--identity", str(tmp_path))
    assert refused.code == 2
    [line] = refused.lines
    assert line.startswith("meshctl: --identity: ")
    assert words in line


def test_only_an_operator_may_call(meshctl: Meshctl, identities: Path) -> None:
    refused = meshctl("node", "list", "--identity", str(identities / "gateway"))
    assert refused.code == 2
    assert refused.lines == [f"meshctl: --identity: {identities / 'gateway'} is gateway 'test', not an operator"]


def test_an_expired_identity_says_when_and_how_to_renew(
    meshctl: Meshctl, identities: Path, tmp_path: Path
) -> None:
    issue = [
        "issue",
        "operator",
        "--id",
        "late",
        "--dir",
        str(identities / "pki"),
        "--out",
        str(tmp_path),
        "--ttl",
    ]
    assert pki_command.main([*issue, "1ms"]) == 0
    refused = meshctl("node", "list", "--identity", str(tmp_path))
    assert refused.code == 1
    [line] = refused.lines
    assert "expired at" in line
    assert "`mesh-pki issue operator`" in line


def test_a_delete_asks_a_person_and_nobody_else(
    meshctl: Meshctl, double: AdminDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert meshctl("organization", "create", "demo").code == 0

    class Person:
        answer = "n\n"

        def isatty(self) -> bool:
            return True

        def readline(self, *_: int) -> str:
            return self.answer

    monkeypatch.setattr("sys.stdin", Person())
    kept = meshctl("organization", "delete", "demo")
    assert kept.code == 1
    assert kept.err.endswith("meshctl: nothing was deleted\n")
    assert double.rows.organizations
    assert meshctl("organization", "delete", "demo", "--yes").code == 0
    assert not double.rows.organizations


def test_every_method_of_the_admin_api_is_found_by_its_request() -> None:
    modules = (api_key_pb2, deployment_pb2, join_token_pb2, model_pb2, node_pb2, organization_pb2, project_pb2)
    for module in modules:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                request = getattr(module, method.input_type.name)()
                assert path_of(request) == f"/{service.full_name}/{method.name}"
