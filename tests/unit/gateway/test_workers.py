"""What each process of a gateway is started with, and when so many cannot be started."""

import socket
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.start import StartFailed, hub_id
from gateway.workers import check, environ_of, shared_port
from mesh.kit.settings import Address, load

HTTP = Address("127.0.0.1", 4711)


def settings(state: Path = Path("/s"), **more: str) -> Settings:
    named = {"MESH_GW_STATE_DIR": str(state), "MESH_GW_TLS_DIR": "/t", "MESH_GW_NODE_TRUST": "/n", **more}
    return load(Settings, named, prefix="MESH_GW_")


def test_ports_count_up_and_folders_lie_side_by_side() -> None:
    base = settings(MESH_GW_TUNNEL_LISTEN="[::1]:7450", MESH_GW_ADVERTISE_TUNNEL="gw.example:443")
    found = environ_of({"PATH": "/bin", "MESH_GW_REDIS": "/r"}, base, HTTP, 2, 3)
    assert found == {
        "PATH": "/bin",
        "MESH_GW_REDIS": "/r",
        "MESH_GW_PROCESS": "2",
        "MESH_GW_PROCESS_COUNT": "3",
        "MESH_GW_STATE_DIR": "/s/process-2",
        "MESH_GW_HTTP_LISTEN": "127.0.0.1:4711",
        "MESH_GW_TUNNEL_LISTEN": "[::1]:7452",
        "MESH_GW_ADVERTISE_TUNNEL": "gw.example:445",
    }


def test_a_port_that_the_kernel_chooses_stays_so() -> None:
    base = settings(MESH_GW_TUNNEL_LISTEN="127.0.0.1:0", MESH_GW_PEER_LISTEN="127.0.0.1:0")
    found = environ_of({}, base, HTTP, 1, 2)
    assert found["MESH_GW_TUNNEL_LISTEN"] == found["MESH_GW_PEER_LISTEN"] == "127.0.0.1:0"


def test_each_process_is_a_hub_of_its_own() -> None:
    assert hub_id(settings(), "g-1") == "g-1"
    assert hub_id(settings(MESH_GW_PROCESS="1", MESH_GW_PROCESS_COUNT="2"), "g-1") == "g-1~1"


@pytest.mark.parametrize("name", ["TUNNEL_LISTEN", "ADVERTISE_TUNNEL", "PEER_LISTEN"])
def test_ports_that_leave_no_room_are_named(name: str) -> None:
    with pytest.raises(StartFailed, match=name):
        check(settings(**{f"MESH_GW_{name}": "h:65534"}), 3)
    check(settings(**{f"MESH_GW_{name}": "h:65534"}), 2)


def test_a_folder_too_deep_for_a_socket_is_named() -> None:
    with pytest.raises(StartFailed, match="MESH_GW_STATE_DIR"):
        check(settings(Path("/" + "x" * 90)), 2)


def test_usage_of_an_earlier_run_that_nobody_reports_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "s"
    for name in ("spool", "process-1", "process-2", "process-x"):
        (state / name).mkdir(parents=True)
    check(settings(state), 2)
    assert {record.path for record in caplog.records} == {str(state), str(state / "process-2")}


def test_the_port_is_held_and_taken_by_nobody_else() -> None:
    with shared_port(Address("127.0.0.1", 0)) as at:
        with socket.create_server(("127.0.0.1", at.port), reuse_port=True), socket.socket() as client:
            client.connect(("127.0.0.1", at.port))
            with pytest.raises(StartFailed, match="MESH_GW_HTTP_LISTEN"), shared_port(at):
                pass
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", at.port), reuse_port=False)
