"""``mesh-gateway --workers N`` as real processes: one port, several gateways, no orphans."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.kit.settings import Address, parse_address
from mesh.wire.stream import Stream
from pki.api_keys import new_api_key
from pki.files import write_atomic
from pki.names import Kind
from pki.policy import Role
from tests.fakes.clock import FakeClock
from tests.fakes.patience import eventually
from tests.fakes.pki import Mesh as Authorities
from tests.mesh.gateway_engines import ANSWER, DONE, Engine, Scripted, chunk, talk
from tests.mesh.gateway_harness import (
    ORGANIZATION,
    PEPPER,
    FakeControlPlane,
    chat,
    control_plane_server,
    model,
    node,
    put_tls,
    route,
)

pytestmark = pytest.mark.real


@dataclass(slots=True)
class Place:
    """What ``node`` needs to know of a gateway."""

    authorities: Authorities
    tunnel: Address
    clock: FakeClock = field(default_factory=FakeClock)


@dataclass(slots=True)
class Crew:
    """A supervisor and its processes, in front of a control plane in this process."""

    folder: Path
    authorities: Authorities
    control_plane: FakeControlPlane
    environ: dict[str, str]
    headers: dict[str, str]
    supervisor: "subprocess.Popen[bytes] | None" = None

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def spawn(self, *arguments: str, **environ: str) -> "subprocess.Popen[bytes]":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                (sys.executable, "-m", "gateway", *arguments),
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={**inherited, **self.environ, **environ},
            )

    async def start(self, **environ: str) -> None:
        self.supervisor = supervisor = self.spawn("--workers", "2", **environ)
        listening = self.state / "listening.json"
        await eventually(lambda: listening.exists() or supervisor.poll() is not None)
        assert supervisor.poll() is None, self.said

    async def refused(self, *arguments: str, **environ: str) -> list[str]:
        """What it says when it exits with 2."""
        process = self.spawn(*arguments, **environ)
        await eventually(lambda: process.poll() is not None)
        assert process.returncode == 2, self.said
        return self.said.splitlines()

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def listening(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "listening.json").read_text())
        return found

    @property
    def processes(self) -> dict[int, psutil.Process]:
        """By number, as they run now."""
        assert self.supervisor is not None
        found = {}
        for child in psutil.Process(self.supervisor.pid).children():
            try:
                found[int(child.environ()["MESH_GW_PROCESS"])] = child
            except (psutil.Error, KeyError):
                continue  # on its way to being one, or to its end
        return found

    @asynccontextmanager
    async def attached(self, number: int, engine: Engine) -> AsyncIterator[None]:
        place: Any = Place(self.authorities, parse_address(self.listening["tunnel"][number]))
        async with node(place, engine):
            yield

    async def answers(self, count: int) -> Counter[int]:
        """How often which status came; each request over a connection of its own."""
        seen: Counter[int] = Counter()
        async with self.client() as client:
            for _ in range(count):
                async with self.post(client) as answer:
                    assert answer.status != 200 or await answer.read() == ANSWER
                    seen[answer.status] += 1
        return seen

    def client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), headers=self.headers)

    def post(self, client: aiohttp.ClientSession, **more: object) -> Any:
        return client.post(f"http://{self.listening['http']}/v1/chat/completions", json=chat(**more))

    async def page(self) -> str:
        async with self.client() as client, client.get(f"http://{self.listening['http']}/metrics") as answer:
            assert answer.status == 200
            return await answer.text()

    async def shows(self, *lines: str) -> None:
        """Until the metrics hold those lines."""
        async with asyncio.timeout(20):
            page = await self.page()
            while not all(line in page for line in lines):
                page = await self.page()

    async def refuses_connections(self) -> None:
        """Until nobody accepts any more."""
        at = parse_address(self.listening["http"])
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection(at.host, at.port)
                except ConnectionRefusedError:
                    return
                except ConnectionResetError:
                    continue  # taken by a listener that closed in that moment
                writer.close()

    async def has_snapshots(self, revision: int = 1) -> None:
        await self.shows(*(f'mesh_gateway_snapshot_revision{{process="{one}"}} {revision}.0' for one in (0, 1)))


@pytest_asyncio.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Crew]:
    authorities, key = Authorities(), new_api_key()
    entry = pb.ApiKey(key_id=key.id, secret_mac=key.mac(PEPPER), organization_id=ORGANIZATION)
    models = [model(route("w-1"))]
    double = FakeControlPlane(pb.Snapshot(revision=1, key_pepper=PEPPER, api_keys=[entry], models=models))
    put_tls(tmp_path / "tls", authorities.files(Kind.GATEWAY, "g-1"))
    write_atomic(tmp_path / "node-ca.pem", authorities.ca_pem(Role.NODE))
    async with control_plane_server(authorities, double) as (at, _):
        environ = {
            "MESH_GW_STATE_DIR": str(tmp_path / "state"),
            "MESH_GW_TLS_DIR": str(tmp_path / "tls"),
            "MESH_GW_NODE_TRUST": str(tmp_path / "node-ca.pem"),
            "MESH_GW_CONTROL_PLANE": str(at),
            "MESH_GW_HTTP_LISTEN": "127.0.0.1:0",
            "MESH_GW_TUNNEL_LISTEN": "127.0.0.1:0",
            "MESH_GW_LOG_LEVEL": "warning",
        }
        found = Crew(tmp_path, authorities, double, environ, {"Authorization": f"Bearer {key.reveal()}"})
        try:
            yield found
        finally:
            if found.supervisor is not None and found.supervisor.poll() is None:
                children = list(found.processes.values())
                found.supervisor.kill()
                found.supervisor.wait()
                for child in children:
                    await eventually(lambda child=child: not child.is_running())  # type: ignore[misc]


@dataclass(slots=True)
class Counting:
    """An engine that counts."""

    asked: int = 0

    async def __call__(self, stream: Stream) -> None:
        self.asked += 1
        await talk(stream)


def sums(page: str, name: str) -> dict[str, float]:
    """A metric's sum by process."""
    found: Counter[str] = Counter()
    for process, value in re.findall(rf'^{name}{{[^}}]*process="(\d)"[^}}]*}} (\S+)$', page, re.MULTILINE):
        found[process] += float(value)  # type: ignore[assignment]
    return dict(found)


async def test_connections_land_on_both_and_either_shows_the_numbers_of_all(crew: Crew) -> None:
    await crew.start()
    assert crew.listening["processes"] == len(crew.listening["tunnel"]) == 2
    await crew.has_snapshots()
    engines = Counting(), Counting()
    async with crew.attached(0, engines[0]), crew.attached(1, engines[1]):
        await crew.shows(*(f'mesh_gateway_tunnel_sessions{{process="{one}"}} 1.0' for one in (0, 1)))
        assert await crew.answers(60) == {200: 60}
    assert engines[0].asked
    assert engines[1].asked
    assert engines[0].asked + engines[1].asked == 60
    page = await crew.page()
    assert page.count("# TYPE mesh_gateway_tunnel_sessions gauge") == 1
    assert set(sums(page, "mesh_gateway_live_requests")) == {"0", "1"}
    assert not sum(sums(page, "mesh_gateway_processes_left_out_total").values())
    mode = (crew.state / "process-1" / "metrics.sock").stat().st_mode
    assert mode & 0o777 == 0o600


async def test_a_request_reaches_the_node_whichever_process_has_its_tunnel(crew: Crew) -> None:
    await crew.start(MESH_GW_PEER_LISTEN="127.0.0.1:0")
    await crew.has_snapshots()
    ends = zip(("g-1", "g-1~1"), crew.listening["peer"], strict=True)
    peers = [pb.Peer(hub_id=hub, endpoint=at, server_name="gateway.mesh.local") for hub, at in ends]
    crew.control_plane.push(peers=peers)
    await crew.shows(*(f'mesh_gateway_peer_links{{process="{one}"}} 1.0' for one in (0, 1)))
    engine = Counting()
    async with crew.attached(1, engine):
        async with asyncio.timeout(20):
            while await crew.answers(10) != {200: 10}:
                pass
        before = engine.asked
        assert await crew.answers(40) == {200: 40}
        assert engine.asked == before + 40


async def test_a_process_that_is_killed_comes_back_and_the_others_serve_meanwhile(crew: Crew) -> None:
    await crew.start()
    await crew.has_snapshots()
    victim, tunnels = crew.processes[1], crew.listening["tunnel"]
    async with crew.attached(0, talk):
        victim.kill()
        await eventually(lambda: not psutil.pid_exists(victim.pid))
        seen = await crew.answers(20)
        # The new one may be there already, and its nodes not yet.
        assert seen[200]
        assert set(seen) <= {200, 503}
        page = await crew.page()
        assert "1" in sums(page, "mesh_gateway_tunnel_sessions") or sum(
            sums(page, "mesh_gateway_processes_left_out_total").values()
        )
        await eventually(lambda: crew.listening["tunnel"][1] != tunnels[1])
        assert crew.listening["tunnel"][0] == tunnels[0]
        assert crew.processes[1].pid != victim.pid
        await crew.has_snapshots()


async def test_told_to_stop_all_let_their_answers_end(crew: Crew) -> None:
    await crew.start()
    await crew.has_snapshots()
    engine = Scripted(chunk("one", 1))
    supervisor = crew.supervisor
    assert supervisor is not None
    async with crew.attached(0, engine), crew.attached(1, engine), crew.client() as client:
        await crew.shows(*(f'mesh_gateway_tunnel_sessions{{process="{one}"}} 1.0' for one in (0, 1)))
        async with crew.post(client, stream=True) as answer:
            await answer.content.readuntil(b"one")
            children = list(crew.processes.values())
            supervisor.send_signal(signal.SIGTERM)
            stream = await engine.get()
            await crew.refuses_connections()
            assert supervisor.poll() is None
            await stream.write(chunk("two", 2) + DONE)
            stream.end()
            assert (await answer.read()).endswith(DONE)
        await eventually(lambda: supervisor.poll() is not None)
    assert supervisor.returncode == 0, crew.said
    assert not any(child.is_running() for child in children)
    assert not (crew.state / "listening.json").exists()


async def test_nobody_outlives_a_supervisor_that_is_killed(crew: Crew) -> None:
    await crew.start()
    children = crew.processes
    assert crew.supervisor is not None
    crew.supervisor.kill()
    crew.supervisor.wait()
    await eventually(lambda: not any(child.is_running() for child in children.values()))


async def test_after_five_deaths_in_a_minute_it_gives_up(crew: Crew) -> None:
    await crew.start()
    supervisor = crew.supervisor
    assert supervisor is not None

    def over() -> bool:
        if supervisor.poll() is not None:
            return True
        for child in crew.processes.values():
            child.kill()
        return False

    await eventually(over, within_s=40)
    assert supervisor.returncode == 1, crew.said
    assert "5 deaths in 60 s" in crew.said


@pytest.mark.parametrize("count", ["0", "65", "many"])
async def test_a_count_out_of_bounds_is_refused_in_one_line(crew: Crew, count: str) -> None:
    (line,) = await crew.refused("--workers", count)
    assert "from 1 to 64" in line


async def test_bad_settings_are_told_once_for_all(crew: Crew) -> None:
    (line,) = await crew.refused("--workers", "2", MESH_GW_LOG_LEVEL="loud")
    assert line.startswith("mesh-gateway: MESH_GW_LOG_LEVEL")


async def test_what_a_process_cannot_do_is_told_once_for_all(crew: Crew) -> None:
    (crew.folder / "tls" / "tls.crt").unlink()
    (line,) = await crew.refused("--workers", "2")
    assert "tls.crt" in line


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        yield int(listener.getsockname()[1])


async def test_a_port_of_somebody_else_is_not_shared_with_them(crew: Crew, taken: int) -> None:
    (line,) = await crew.refused("--workers", "2", MESH_GW_HTTP_LISTEN=f"127.0.0.1:{taken}")
    assert line.endswith("choose another with MESH_GW_HTTP_LISTEN")


async def test_ports_must_leave_room(crew: Crew) -> None:
    (line,) = await crew.refused("--workers", "2", MESH_GW_TUNNEL_LISTEN="127.0.0.1:65535")
    assert "MESH_GW_TUNNEL_LISTEN" in line
