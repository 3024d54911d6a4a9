"""Settings: complete, bounded, and every problem at once."""

import pytest

from gateway.settings import Settings
from mesh.kit.settings import Address, BadSettings, load

REQUIRED = {"MESH_GW_STATE_DIR": "/s", "MESH_GW_TLS_DIR": "/t", "MESH_GW_NODE_TRUST": "/n"}


def test_what_must_be_said_is_little() -> None:
    settings = load(Settings, REQUIRED, prefix="MESH_GW_")
    assert settings.http_listen == Address("127.0.0.1", 8080)
    assert settings.advertise_tunnel is None


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(BadSettings) as caught:
        load(Settings, {"MESH_GW_HTTP_LISTEN": "x", "MESH_GW_HTP": "1"}, prefix="MESH_GW_")
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_BODY_BYTES", "10"),
        ("MAX_HELD_BYTES", "4000000"),
        ("MAX_REQUESTS", "0"),
        ("MAX_CONNECTIONS", "0"),
        ("FIRST_BYTE_TIMEOUT", "0s"),
        ("ANSWER_TIMEOUT", "2h"),
        ("IDLE_TIMEOUT", "0"),
        ("STOP_GRACE", "2h"),
        ("LOG_LEVEL", "loud"),
        ("ADVERTISE_PEER", "h:1"),
    ],
)
def test_a_value_out_of_bounds_is_named(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=f"MESH_GW_{name}"):
        load(Settings, {**REQUIRED, f"MESH_GW_{name}": value}, prefix="MESH_GW_")
