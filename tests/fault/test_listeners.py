"""Who listens where, and who dials whom, in a running mesh (what ``ss -ltn`` would show)."""

import contextlib
import ipaddress

import psutil
import pytest

from tests.fault.harness import Mesh

pytestmark = pytest.mark.real


def listening(pid: int) -> set[tuple[str, int]]:
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process(pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def dialled(pid: int) -> set[tuple[str, int]]:
    """Remote ends of connections that this process opened (those at its own listeners were opened by others)."""
    own = {port for _, port in listening(pid)}
    return {
        (connection.raddr.ip, connection.raddr.port)
        for connection in psutil.Process(pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port not in own
    }


async def test_agent_and_engine_listen_on_loopback_only(mesh: Mesh) -> None:
    for pid in (mesh.pid("agent"), int(str(mesh.engine()["pid"]))):
        found = listening(pid)
        assert found
        assert all(ipaddress.ip_address(address).is_loopback for address, _ in found), found


async def test_the_agent_dials_the_hubs_and_nobody_dials_the_agent(mesh: Mesh) -> None:
    hubs = {port for hub in ("control-plane", "gateway") for _, port in listening(mesh.pid(hub))}
    engine_ports = {port for _, port in listening(int(str(mesh.engine()["pid"])))}
    agent_ports = {port for _, port in listening(mesh.pid("agent"))}
    out = {port for _, port in dialled(mesh.pid("agent"))}
    assert out & hubs
    assert out <= hubs | engine_ports
    for hub in ("control-plane", "gateway"):
        assert not {port for _, port in dialled(mesh.pid(hub))} & (agent_ports | engine_ports)


async def test_no_secret_is_in_an_argument_or_a_variable(mesh: Mesh) -> None:
    secret = mesh.key.rsplit("-", 1)[-1]
    for process in psutil.Process(mesh.up.pid).children(recursive=True):
        assert secret not in " ".join(process.cmdline())
        # Root of a container may not look into the database, which another user runs.
        with contextlib.suppress(psutil.AccessDenied):
            assert secret not in str(process.environ())
    assert secret not in mesh.last_words()
