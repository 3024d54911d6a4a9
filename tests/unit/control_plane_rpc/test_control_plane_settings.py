"""A wrong environment is told all at once."""

from datetime import timedelta

import pytest

from control_plane.settings import NOT_A_URL, Settings
from mesh.kit.settings import BadSettings, load

_LEAST = {"MESH_CP_STATE_DIR": "/s", "MESH_CP_PKI_DIR": "/p", "MESH_CP_TLS_DIR": "/t"}


def _problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        load(Settings, environ, prefix="MESH_CP_")
    return [line for problem in caught.value.problems for line in problem.splitlines()]


def test_three_folders_are_enough() -> None:
    settings = load(Settings, _LEAST, prefix="MESH_CP_")
    assert str(settings.node_listen) == "127.0.0.1:7441"
    assert settings.heartbeat_grace == timedelta(seconds=30)


def test_every_missing_malformed_and_unknown_variable_is_named() -> None:
    assert _problems({"MESH_CP_NODE_LISTEN": "here", "MESH_CP_NODE_LISTN": "1"}) == [
        "MESH_CP_STATE_DIR: required",
        "MESH_CP_PKI_DIR: required",
        "MESH_CP_TLS_DIR: required",
        "MESH_CP_NODE_LISTEN: not a valid address",
        "MESH_CP_NODE_LISTN: unknown",
    ]


def test_values_out_of_their_limits_are_all_named() -> None:
    out_of_limits = {
        "MESH_CP_HEARTBEAT_INTERVAL": "10ms",
        "MESH_CP_HEARTBEAT_GRACE": "1ms",
        "MESH_CP_JOIN_RATE": "0",
        "MESH_CP_LOG_LEVEL": "loud",
    }
    named = [problem.partition(":")[0] for problem in _problems({**_LEAST, **out_of_limits})]
    assert named == list(out_of_limits)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:hush/hush@h/d",
        "postgres://u:hush#hush@h/d",
        "postgres://u:hush?hush@h/d",
        "postgres://u:12/hush@h/d",
        "postgres://u:12#hush@h/d",
        "postgres://u:12?hush@h/d",
        "postgres://u:hush#@h",
        "postgres://u:hush@h:port/d",
        "postgres://u:hush@[::1/d",
        "hush",
        "hush://u:hush@h/d",
        "host=h password=hush",
    ],
)
def test_a_database_address_that_would_be_misread_is_one_line_without_a_piece_of_it(url: str) -> None:
    [line] = _problems({**_LEAST, "MESH_CP_DATABASE_URL": url})
    assert line == f"MESH_CP_DATABASE_URL: {NOT_A_URL}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hu%2Fsh%40%23@h:5432/d?sslmode=require",
        "postgres://u@h1:1,h2:2/d",
        "postgresql://u:p@[::1]:5432/d",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://postgres@/d?host=/tmp/x&port=1",
    ],
)
def test_a_database_address_of_any_good_form_is_taken(url: str) -> None:
    settings = load(Settings, {**_LEAST, "MESH_CP_DATABASE_URL": url}, prefix="MESH_CP_")
    assert settings.database_url is not None
    assert settings.database_url.reveal() == url


def test_the_address_of_the_database_is_not_printed() -> None:
    settings = load(Settings, {**_LEAST, "MESH_CP_DATABASE_URL": "postgres://u:hush@h/d"}, prefix="MESH_CP_")
    assert "hush" not in repr(settings)
