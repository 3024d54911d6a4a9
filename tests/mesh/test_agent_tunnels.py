"""The agent's tunnels against real hubs over real mTLS: who is dialled, when, as whom, and what they carry."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.link.frames import ResetCode
from mesh.tunnel.v1.tunnel_pb2 import AttachResponse, Open
from mesh.tunnel.v1.tunnel_pb2_grpc import TunnelServiceServicer, add_TunnelServiceServicer_to_server
from mesh.wire.channel import DATA_SERVER_OPTIONS
from mesh.wire.errors import StreamReset
from mesh.wire.grpc_link import ServerLink
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from node_agent.core.desired import Hub
from node_agent.core.worker import LoopbackEndpoint
from node_agent.disk import Disk
from node_agent.tunnel.dialer import Dialer
from node_agent.tunnel.local import Local
from pki.names import Kind
from pki.policy import Role
from pki.tls import server_credentials
from tests.fakes.clock import FakeClock
from tests.fakes.node_service import enrolled, put_tls
from tests.fakes.pki import Mesh
from tests.fakes.upstream import SOON_S, Visit, echo, leasing, until, upstream, whole


@dataclass(slots=True)
class Attached:
    """One tunnel, from the hub's side."""

    node: str
    epoch: int
    session: Session
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, path: str = "/v1/x") -> Stream:
        return self.session.open(Open(worker_id="w-1", method="POST", path=path, request_id="r-1"))

    async def ask(self, body: bytes) -> bytes:
        stream = self.open()
        await stream.write(body)
        stream.end()
        return (await whole(stream))[2]


@dataclass(slots=True)
class HubService(TunnelServiceServicer):
    """A gateway's tunnel service that takes every node in, unless a test says otherwise."""

    hub_id: str
    clock: FakeClock = field(default_factory=FakeClock)
    tunnels: "asyncio.Queue[Attached]" = field(default_factory=lambda: asyncio.Queue(16))  # a test has a handful
    endpoint: str = ""
    least_epoch: int = 0
    mumbles: bool = False
    came: int = 0

    async def Attach(self, _: Any, context: Any) -> None:
        self.came += 1
        link = ServerLink(context)
        hello = await link.hello()
        if hello.epoch < self.least_epoch:
            await context.abort(grpc.StatusCode.ABORTED, "old", (("mesh-reason", "stale_epoch"),))
        if self.mumbles:
            await context.write(AttachResponse(frames=b""))
            return
        await link.welcome(self.hub_id)
        session = Session(link, initiator=True, clock=self.clock)
        node = context.auth_context()["peer_spiffe_id"][0].decode()
        attached = Attached(node, hello.epoch, session)
        self.tunnels.put_nowait(attached)
        try:
            await session.run()
        finally:
            attached.over.set()

    @property
    def hub(self) -> Hub:
        return Hub(hub_id=self.hub_id, endpoint=self.endpoint, server_name="gateway.mesh.local")

    async def next(self) -> Attached:
        async with asyncio.timeout(SOON_S):
            return await self.tunnels.get()


@asynccontextmanager
async def hub(
    mesh: Mesh, name: str = "g-1", *, address: str = "127.0.0.1:0", kind: Kind = Kind.GATEWAY
) -> AsyncIterator[HubService]:
    server = grpc.aio.server(options=DATA_SERVER_OPTIONS)
    service = HubService(name)
    add_TunnelServiceServicer_to_server(service, server)
    port = server.add_secure_port(address, server_credentials(mesh.files(kind), mesh.ca_pem(Role.NODE)))
    service.endpoint = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield service
    finally:
        await server.stop(0)


@dataclass(slots=True)
class Agent:
    """The agent's data path: tunnels and what serves them."""

    dialer: Dialer
    local: Local
    clock: FakeClock

    async def again(self, to: HubService) -> Attached:
        """The next tunnel to that hub; time passes until it comes."""
        while to.tunnels.empty():
            await self.clock.forward(0.5)
            await asyncio.sleep(0.005)
        return await to.next()

    async def waits(self, seconds: float) -> None:
        """Let that much time pass, and what it causes happen."""
        await self.clock.forward(seconds)
        await asyncio.sleep(0.05)


@asynccontextmanager
async def agent(disk: Disk, *endpoints: LoopbackEndpoint, epoch: int = 1) -> AsyncIterator[Agent]:
    clock = FakeClock(datetime.now(UTC))
    local = Local(leasing(*endpoints), clock)
    dialer = Dialer(disk, clock, local.open, epoch)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part.run()) for part in (local, dialer)]
        yield Agent(dialer, local, clock)
        for task in tasks:
            task.cancel()


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture
def disk(tmp_path: Path, mesh: Mesh) -> Disk:
    return enrolled(tmp_path, mesh)


async def test_requests_come_through_the_tunnel(disk: Disk, mesh: Mesh) -> None:
    async with hub(mesh) as gateway, upstream(echo) as engine, agent(disk, engine.endpoint, epoch=7) as node:
        node.dialer.apply([gateway.hub])
        tunnel = await gateway.next()
        assert (tunnel.node, tunnel.epoch) == ("spiffe://mesh.local/node/n-1", 7)
        await until(lambda: node.dialer.up == ("g-1",))
        assert await tunnel.ask(b"hello") == b"hello"
        big = bytes(range(256)) * 8192
        assert await tunnel.ask(big) == big
        answers = await asyncio.gather(*(tunnel.ask(b"%d" % number) for number in range(100)))
        assert answers == [b"%d" % number for number in range(100)]


async def test_there_is_one_tunnel_to_each_hub_that_is_wanted(disk: Disk, mesh: Mesh) -> None:
    async with (
        hub(mesh, "g-1") as one,
        hub(mesh, "g-2") as two,
        upstream(echo) as engine,
        agent(disk, engine.endpoint) as node,
    ):
        node.dialer.apply([one.hub, two.hub, one.hub])
        tunnels = [await one.next(), await two.next()]
        node.dialer.apply([two.hub, one.hub])  # the same ones again
        assert [await tunnel.ask(b"x") for tunnel in tunnels] == [b"x", b"x"]
        assert sorted(node.dialer.up) == ["g-1", "g-2"]
        node.dialer.apply([two.hub])
        async with asyncio.timeout(SOON_S):
            await tunnels[0].over.wait()
        assert await tunnels[1].ask(b"x") == b"x"
        assert node.dialer.up == ("g-2",)
        assert (one.came, two.came) == (1, 1)


class BrokenDisk(Disk):
    """A disk that fails as nobody expected, once."""

    reads = 0

    @property
    def identity_dir(self) -> Path:
        BrokenDisk.reads += 1
        if BrokenDisk.reads == 2:
            raise RuntimeError("nobody expected this")
        return super().identity_dir


async def test_a_surprise_in_one_tunnel_does_not_end_the_others(
    disk: Disk, mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        hub(mesh, "g-1") as one,
        hub(mesh, "g-2") as two,
        upstream(echo) as engine,
        agent(BrokenDisk(disk.root), engine.endpoint) as node,
    ):
        node.dialer.apply([one.hub])
        tunnel = await one.next()
        node.dialer.apply([one.hub, two.hub])
        await until(lambda: "nobody expected this" in caplog.text)
        assert await tunnel.ask(b"x") == b"x"
        assert await (await node.again(two)).ask(b"y") == b"y"
        assert one.came == 1


async def test_a_hub_that_is_left_gets_its_last_answers(disk: Disk, mesh: Mesh) -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await answer.wait()
        await visit.answer(b"at last")

    answer = asyncio.Event()
    async with hub(mesh) as gateway, upstream(engine) as server, agent(disk, server.endpoint) as node:
        node.dialer.apply([gateway.hub])
        tunnel = await gateway.next()
        stream = tunnel.open()
        stream.end()
        await server.arrived.wait()
        node.dialer.apply([])
        await until(lambda: tunnel.session.draining)
        assert node.dialer.up == ()
        answer.set()
        assert (await whole(stream))[2] == b"at last"
        async with asyncio.timeout(SOON_S):
            await tunnel.over.wait()
        assert gateway.came == 1


async def test_an_agent_that_stops_lets_requests_end_and_then_goes(disk: Disk, mesh: Mesh) -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await answer.wait()
        await visit.answer(b"at last")

    answer = asyncio.Event()
    async with hub(mesh) as gateway, upstream(engine) as server, agent(disk, server.endpoint) as node:
        node.dialer.apply([gateway.hub])
        tunnel = await gateway.next()
        stream = tunnel.open()
        stream.end()
        await server.arrived.wait()
        leaving = asyncio.create_task(node.dialer.leave(SOON_S))
        await until(lambda: tunnel.session.draining)
        assert not leaving.done()
        answer.set()
        assert (await whole(stream))[2] == b"at last"
        await leaving
        async with asyncio.timeout(SOON_S):
            await tunnel.over.wait()
        await node.waits(60)
        assert gateway.came == 1


async def test_an_agent_that_stops_does_not_wait_for_ever(disk: Disk, mesh: Mesh) -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.until_left()

    async with hub(mesh) as gateway, upstream(engine) as server, agent(disk, server.endpoint) as node:
        node.dialer.apply([gateway.hub])
        stream = (await gateway.next()).open()
        stream.end()
        await server.arrived.wait()
        await node.dialer.leave(0.05)
        with pytest.raises(StreamReset) as caught:
            await whole(stream)
        assert caught.value.reason is ResetCode.LINK_LOST
        async with asyncio.timeout(SOON_S):
            await server.visits[0].left.wait()


async def test_a_hub_that_restarts_is_attached_to_again(disk: Disk, mesh: Mesh) -> None:
    async with upstream(echo) as engine, agent(disk, engine.endpoint) as node:
        async with hub(mesh) as first:
            node.dialer.apply([first.hub])
            tunnel = await first.next()
            stuck = tunnel.open()
            await until(lambda: node.local.live == 1)
        with pytest.raises(StreamReset):
            await whole(stuck)
        await until(lambda: node.local.live == 0)
        await node.waits(20)
        async with hub(mesh, address=first.endpoint) as second:
            tunnel = await node.again(second)
            assert await tunnel.ask(b"back") == b"back"


async def test_a_tunnel_that_is_lost_closes_its_engine_connections(disk: Disk, mesh: Mesh) -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.until_left()

    async with upstream(engine) as server, agent(disk, server.endpoint) as node:
        async with hub(mesh) as gateway:
            node.dialer.apply([gateway.hub])
            stream = (await gateway.next()).open()
            stream.end()
            await server.arrived.wait()
        async with asyncio.timeout(SOON_S):
            await server.visits[0].left.wait()
        await until(lambda: node.local.live == 0)


async def test_a_hub_that_knows_a_newer_session_is_told_the_newer_epoch(disk: Disk, mesh: Mesh) -> None:
    async with hub(mesh) as gateway, agent(disk, epoch=3) as node:
        gateway.least_epoch = 4
        node.dialer.apply([gateway.hub])
        await until(lambda: gateway.came == 1)
        assert node.dialer.up == ()
        node.dialer.epoch = 4  # what the control session does on Welcome
        assert (await node.again(gateway)).epoch == 4


async def test_whoever_does_not_greet_is_no_hub(disk: Disk, mesh: Mesh) -> None:
    async with hub(mesh) as gateway, agent(disk) as node:
        gateway.mumbles = True
        node.dialer.apply([gateway.hub])
        await until(lambda: gateway.came == 1)
        gateway.mumbles = False
        await node.again(gateway)


@pytest.mark.parametrize("kind", [Kind.CONTROL_PLANE, Kind.GATEWAY], ids=["no gateway", "another mesh"])
async def test_only_gateways_of_this_mesh_are_hubs(disk: Disk, mesh: Mesh, kind: Kind) -> None:
    of = mesh if kind is Kind.CONTROL_PLANE else Mesh()
    async with hub(of, kind=kind) as gateway, agent(disk) as node:
        node.dialer.apply([gateway.hub])
        for _ in range(5):
            await node.waits(5)
        assert gateway.came == 0
        assert node.dialer.up == ()


async def test_an_expired_certificate_is_not_shown_and_a_new_one_is_found(disk: Disk, mesh: Mesh) -> None:
    put_tls(disk, mesh.files(Kind.NODE, "n-1", ttl=timedelta(minutes=1)))
    async with hub(mesh) as gateway, agent(disk) as node:
        await node.clock.forward(120)
        node.dialer.apply([gateway.hub])
        await node.waits(10)
        assert gateway.came == 0
        put_tls(disk, mesh.files(Kind.NODE, "n-1"))
        await node.again(gateway)


async def test_a_hub_with_a_nonsense_address_harms_no_other(disk: Disk, mesh: Mesh) -> None:
    async with hub(mesh) as gateway, agent(disk) as node:
        nonsense = Hub(hub_id="g-0", endpoint="not an address", server_name="gateway.mesh.local")
        node.dialer.apply([nonsense, gateway.hub])
        await gateway.next()
        await until(lambda: node.dialer.up == ("g-1",))
