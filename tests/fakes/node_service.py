"""A control plane's node service that says what a test tells it to, over real mTLS; and what runs on a node."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from mesh.node.v1 import node_pb2 as pb
from mesh.node.v1.node_pb2_grpc import NodeServiceServicer, add_NodeServiceServicer_to_server
from mesh.wire.channel import CONTROL_SERVER_OPTIONS
from node_agent.core.desired import Hub
from node_agent.core.report import GpuSample, Hardware, HostSample
from node_agent.core.worker import WorkerSpec, WorkerStatus
from node_agent.disk import Disk, NodeIdentity
from pki.names import Kind
from pki.policy import Role
from pki.tls import TlsFiles, server_credentials
from tests.fakes.pki import Mesh
from tests.fakes.upstream import SOON_S

HARDWARE = Hardware(hostname="box", os="Debian 12", arch="x86_64", cpu_count=2, memory_bytes=8, disk_bytes=9)


@dataclass(slots=True)
class Talk:
    """One node's stream, from the control plane's side. ``stop`` ends it."""

    context: Any
    node: str
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ending: tuple[grpc.StatusCode, str, str] | None = None

    async def hears(self) -> pb.ConnectRequest:
        """The next message of the node."""
        async with asyncio.timeout(SOON_S):
            message = await self.context.read()
        assert message is not grpc.aio.EOF, "the node hung up"
        assert isinstance(message, pb.ConnectRequest)
        return message

    async def hello(self) -> pb.Hello:
        return (await self.hears()).hello

    async def report(self) -> pb.Report:
        message = await self.hears()
        assert message.HasField("report")
        return message.report

    async def welcome(self, epoch: int = 1, interval_s: int = 300, **more: Any) -> None:
        await self.says(welcome=pb.Welcome(epoch=epoch, heartbeat_interval_s=interval_s, **more))

    async def desire(self, revision: int, *, hubs: Iterable[pb.Hub] = (), workers: Iterable[Any] = ()) -> None:
        await self.says(desired_state=pb.DesiredState(revision=revision, hubs=hubs, workers=workers))

    async def says(self, **message: Any) -> None:
        await self.context.write(pb.ConnectResponse(**message))

    def end(self, status: grpc.StatusCode = grpc.StatusCode.OK, text: str = "", reason: str = "") -> None:
        self.ending = (status, text, reason)
        self.over.set()


@dataclass(slots=True)
class Plane(NodeServiceServicer):
    """Hands each stream to the test that waits for it."""

    mesh: Mesh
    talks: "asyncio.Queue[Talk]" = field(default_factory=lambda: asyncio.Queue(16))  # a test has a handful
    address: str = ""
    came: int = 0

    async def Connect(self, _: Any, context: Any) -> None:
        self.came += 1
        talk = Talk(context, context.auth_context()["peer_spiffe_id"][0].decode())
        self.talks.put_nowait(talk)
        await talk.over.wait()
        if talk.ending is not None and talk.ending[0] is not grpc.StatusCode.OK:
            status, text, reason = talk.ending
            await context.abort(status, text, (("mesh-reason", reason),) if reason else ())

    async def next(self) -> Talk:
        """The next node that connects."""
        async with asyncio.timeout(SOON_S):
            return await self.talks.get()


@asynccontextmanager
async def plane(mesh: Mesh, address: str = "127.0.0.1:0") -> AsyncIterator[Plane]:
    """Serve while the block runs."""
    server = grpc.aio.server(options=CONTROL_SERVER_OPTIONS)
    service = Plane(mesh)
    add_NodeServiceServicer_to_server(service, server)
    files = mesh.files(Kind.CONTROL_PLANE)
    port = server.add_secure_port(address, server_credentials(files, mesh.ca_pem(Role.NODE)))
    service.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield service
    finally:
        await server.stop(0)


def put_tls(disk: Disk, files: TlsFiles) -> None:
    """Make that the node's certificate."""
    disk.identity_dir.mkdir(parents=True, exist_ok=True)
    (disk.identity_dir / "tls.key").write_bytes(files.key_pem)
    (disk.identity_dir / "tls.crt").write_bytes(files.chain_pem)
    (disk.identity_dir / "trust-bundle.pem").write_bytes(files.trust_bundle_pem)


def enrolled(root: Path, mesh: Mesh, address: str = "127.0.0.1:1", node_id: str = "n-1") -> Disk:
    """The state folder of a node that joined that mesh."""
    disk = Disk(root)
    files = mesh.files(Kind.NODE, node_id)
    disk.keep_joining_key(files.key_pem)
    disk.keep_identity(
        NodeIdentity(
            node_id=node_id,
            trust_domain=mesh.trust_domain,
            node_endpoint=address,
            server_name=f"control-plane.{mesh.trust_domain}",
        ),
        chain_pem=files.chain_pem.decode(),
        trust_bundle_pem=files.trust_bundle_pem.decode(),
    )
    return disk


@dataclass(slots=True)
class FakeWorkers:
    """Implements ``Workers``: runs nothing, says what a test wants to hear."""

    now: tuple[WorkerStatus, ...] = ()
    applied: list[tuple[WorkerSpec, ...]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def apply(self, specs: Sequence[WorkerSpec]) -> None:
        self.applied.append(tuple(specs))

    def statuses(self) -> tuple[WorkerStatus, ...]:
        return self.now

    async def wait_changed(self) -> None:
        await self._news.wait()

    def become(self, *statuses: WorkerStatus) -> None:
        """Change, and say so."""
        self.now = statuses
        news, self._news = self._news, asyncio.Event()
        news.set()


@dataclass(slots=True)
class FakeTunnels:
    """Implements ``Tunnels``: remembers what it was told."""

    epoch: int = 0
    applied: list[tuple[Hub, ...]] = field(default_factory=list)

    def apply(self, hubs: Sequence[Hub]) -> None:
        self.applied.append(tuple(hubs))


@dataclass(slots=True)
class FakeProbes:
    """Implements ``Probes``: a machine without a driver."""

    sample: HostSample | None = None

    async def hardware(self) -> Hardware:
        return HARDWARE

    def host(self) -> HostSample | None:
        return self.sample

    def gpus(self) -> tuple[GpuSample, ...]:
        return ()
