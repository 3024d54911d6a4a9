"""The process: what it says when it cannot start, and what is left when it is stopped or killed."""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.admin.v1 import node_pb2
from pki.names import Kind
from tests.mesh.control_plane_clients import SOON_S, eventually
from tests.mesh.control_plane_harness import Plane, open_folder, plane_in, show

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
LISTENERS = ("ENROLL", "NODE", "GATEWAY", "ADMIN", "HTTP")


@pytest.fixture
def plane() -> Iterator[Plane]:
    """A folder with everything in it that a control plane needs."""
    with open_folder() as folder:
        yield plane_in(folder)


def environment(plane: Plane, **changes: str | None) -> dict[str, str]:
    settings = plane.settings
    said: dict[str, str | None] = {
        **{f"{name}_LISTEN": "127.0.0.1:0" for name in LISTENERS},
        "STATE_DIR": str(settings.state_dir),
        "PKI_DIR": str(settings.pki_dir),
        "TLS_DIR": str(settings.tls_dir),
        "JOIN_BURST": "100",
        **changes,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
    ours = {f"MESH_CP_{name}": value for name, value in said.items() if value is not None}
    return {**kept, **ours, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}


@asynccontextmanager
async def process(environ: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "control_plane", env=environ, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
            await started.communicate()


async def refusal(plane: Plane, **changes: str | None) -> list[str]:
    """The lines of a start that must fail with exit code 2, without the log."""
    async with process(environment(plane, **changes)) as started, asyncio.timeout(SOON_S):
        _, said = await started.communicate()
    assert started.returncode == 2, said
    return [line for line in said.decode().splitlines() if not line.startswith("{")]


async def listening(plane: Plane) -> Plane:
    announced = plane.state / "listening.json"

    async def look() -> bool:
        return announced.exists()

    await eventually(look, bool)
    plane.addresses = json.loads(announced.read_text())
    return plane


async def test_every_problem_of_the_settings_is_a_line(plane: Plane) -> None:
    assert await refusal(plane, STATE_DIR=None, NODE_LISTEN="nowhere", HEARTBEAT_GRACE="soon", NOD_LISTEN="x") == [
        "mesh-control-plane: MESH_CP_STATE_DIR: required",
        "mesh-control-plane: MESH_CP_NODE_LISTEN: not a valid address",
        "mesh-control-plane: MESH_CP_HEARTBEAT_GRACE: not a valid timedelta",
        "mesh-control-plane: MESH_CP_NOD_LISTEN: unknown",
    ]


@pytest.mark.parametrize("name", LISTENERS)
async def test_a_port_in_use_is_one_line(plane: Plane, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert await refusal(plane, **{f"{name}_LISTEN": address}) == [
            f"mesh-control-plane: cannot listen on {address}: address already in use"
        ]


async def test_a_missing_file_of_identity_is_named(plane: Plane) -> None:
    (plane.settings.pki_dir / "node-ca.key").unlink()
    [line] = await refusal(plane)
    assert "node-ca.key: no such file or directory; make it with: mesh-pki init" in line


async def test_files_that_do_not_belong_together_are_refused(plane: Plane) -> None:
    show(plane.settings.tls_dir, plane.mesh.files(Kind.GATEWAY, "gw-1"))
    [line] = await refusal(plane)
    assert "is for spiffe://mesh.local/gateway/gw-1, not for a control plane" in line


async def test_a_pepper_that_was_damaged_is_not_replaced(plane: Plane) -> None:
    plane.state.mkdir(mode=0o711)
    (plane.state / "pepper").write_text("short")
    [line] = await refusal(plane)
    assert "pepper is not 64 hex digits" in line
    assert (plane.state / "pepper").read_text() == "short"


async def test_a_database_address_that_is_none_is_one_line(plane: Plane) -> None:
    [line] = await refusal(plane, DATABASE_URL="mysql://elsewhere")
    assert line.startswith("mesh-control-plane: MESH_CP_DATABASE_URL: not postgresql://")


async def test_it_may_open_as_many_files_as_it_is_allowed_to(plane: Plane) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        async with process(environment(plane)) as started:
            await listening(plane)
            assert resource.prlimit(started.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_two_control_planes_do_not_share_a_state_folder(plane: Plane) -> None:
    async with process(environment(plane)):
        await listening(plane)
        [line] = await refusal(plane)
        assert "another control plane uses" in line


async def test_a_term_signal_ends_it_cleanly(plane: Plane) -> None:
    async with process(environment(plane)) as started:
        await listening(plane)
        started.terminate()
        async with asyncio.timeout(SOON_S):
            await started.communicate()
        assert started.returncode == 0
    assert not (plane.state / "listening.json").exists()
    assert not (plane.state / "postgres/data/postmaster.pid").exists()


async def test_after_a_kill_the_next_one_takes_over_and_nodes_return(plane: Plane) -> None:
    async with process(environment(plane)) as first:
        await listening(plane)
        joined = await plane.join()
        node = await plane.connect(joined)
        assert (await node.welcome()).epoch == 1
        deployment = await plane.deploy("smol")
        await node.desired(lambda state: bool(state.workers))
        first.send_signal(signal.SIGKILL)
        await first.communicate()
    database = (plane.state / "postgres/data/postmaster.pid").read_text().split()[0]
    (plane.state / "listening.json").unlink()  # it had no time to
    await plane.stop()
    async with process(environment(plane)) as second:
        await listening(plane)
        assert (plane.state / "postgres/data/postmaster.pid").read_text().split()[0] == database
        node = await plane.connect(joined)
        assert (await node.welcome()).epoch == 2
        [spec] = (await node.desired()).workers
        assert spec.deployment_id == deployment.deployment_id
        found = await plane.nodes.GetNode(node_pb2.GetNodeRequest(node_id=joined.node_id))
        assert found.node.state == node_pb2.NODE_STATE_ONLINE
        await plane.stop()
        second.terminate()
        async with asyncio.timeout(SOON_S):
            await second.communicate()
        assert second.returncode == 0
