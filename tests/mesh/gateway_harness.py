"""A whole gateway in this process: real HTTP, real mTLS tunnels; a control plane and nodes that a test directs.

Time is a ``FakeClock``: limits pass when a test says so. Engines are coroutines that answer a stream of the real
Session, at the other end of a real tunnel.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from gateway.app import serve
from gateway.settings import Settings
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from mesh.kit.settings import Address, parse_address
from mesh.link.frames import ResetCode
from mesh.tunnel.v1.tunnel_pb2_grpc import TunnelServiceStub
from mesh.types.v1 import worker_pb2
from mesh.wire.channel import CONTROL_SERVER_OPTIONS, DATA_CHANNEL_OPTIONS, secure_channel
from mesh.wire.errors import StreamReset
from mesh.wire.grpc_link import ClientLink
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from pki.api_keys import ApiKey, new_api_key
from pki.files import write_atomic, write_private
from pki.names import Kind
from pki.policy import Role
from pki.tls import TlsFiles, channel_credentials, server_credentials
from tests.fakes.clock import FakeClock
from tests.fakes.patience import eventually
from tests.fakes.pki import Mesh as Authorities
from tests.mesh.gateway_engines import Engine

PEPPER = b"p" * 32
ORGANIZATION = "org-1"
READY = worker_pb2.WORKER_PHASE_READY


def chat(model: str = "m", **fields: object) -> dict[str, object]:
    """A request's body."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **fields}


def route(
    worker: str,
    *,
    node: str = "n-1",
    engine: str = "vllm",
    phase: worker_pb2.WorkerPhase = READY,
    slots: int = 16,
) -> pb.Route:
    return pb.Route(worker_id=worker, node_id=node, deployment_id="d-1", engine=engine, slots=slots, phase=phase)


def model(*routes: pb.Route, name: str = "m", organization: str = "", **more: Any) -> pb.Model:
    return pb.Model(name=name, organization_id=organization, context_length=4096, routes=routes, **more)


@dataclass(slots=True)
class FakeControlPlane(GatewayServiceServicer):
    """Pushes the snapshot a test sets; stores usage like the real one: once per request id."""

    snapshot: pb.Snapshot
    usage: dict[str, pb.UsageRecord] = field(default_factory=dict)
    calls: int = 0
    refuse: grpc.StatusCode | None = None
    """Answer ReportUsage with this instead."""
    poison: set[str] = field(default_factory=set)
    """Models whose records are invalid."""
    silent_on: set[str] = field(default_factory=set)
    """Models whose records are neither stored nor refused."""
    watches: int = 0
    endpoint: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    loads: list[pb.WorkerLoad] = field(default_factory=list)
    said: asyncio.Event = field(default_factory=asyncio.Event)
    demand: dict[str, pb.ModelDemand] = field(default_factory=dict)

    def push(self, **fields: Any) -> None:
        """A new revision with these fields replaced."""
        old = self.snapshot
        merged = {
            "api_keys": list(old.api_keys),
            "models": list(old.models),
            "revoked_nodes": list(old.revoked_nodes),
            **fields,
        }
        self.snapshot = pb.Snapshot(revision=old.revision + 1, key_pepper=PEPPER, **merged)
        self.changed.set()

    async def WatchSnapshot(
        self, request: pb.WatchSnapshotRequest, _context: object
    ) -> AsyncIterator[pb.WatchSnapshotResponse]:
        self.watches += 1
        self.endpoint = request.tunnel_endpoint
        while True:
            self.changed.clear()
            yield pb.WatchSnapshotResponse(snapshot=self.snapshot)
            await self.changed.wait()

    async def WatchLoad(
        self, _request: pb.WatchLoadRequest, _context: object
    ) -> AsyncIterator[pb.WatchLoadResponse]:
        while True:
            self.said.clear()
            yield pb.WatchLoadResponse(workers=self.loads)
            await self.said.wait()

    async def LeaseQuota(self, request: pb.LeaseQuotaRequest, _context: object) -> pb.LeaseQuotaResponse:
        """All that is asked for: this gateway is the only one."""
        grants = [
            pb.QuotaGrant(granted=max(ask.wanted, ask.used), left=1000, lease_ms=30_000) for ask in request.asks
        ]
        return pb.LeaseQuotaResponse(grants=grants)

    async def ReportDemand(self, request: pb.ReportDemandRequest, _context: object) -> pb.ReportDemandResponse:
        self.demand.update((one.model, one) for one in request.models)
        return pb.ReportDemandResponse()

    async def ReportUsage(self, request: pb.ReportUsageRequest, context: Any) -> pb.ReportUsageResponse:
        self.calls += 1
        assert len(request.records) <= 500
        if self.refuse is not None:
            await context.abort(self.refuse, "not now")
        if any(one.model in self.poison for one in request.records):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "records: not like this")
        stored = [one for one in request.records if one.model not in self.silent_on]
        for one in stored:
            self.usage.setdefault(one.request_id, one)
        return pb.ReportUsageResponse(stored_request_ids=[one.request_id for one in stored])


@dataclass(slots=True)
class Site:
    """One gateway, and what a test needs around it."""

    folder: Path
    clock: FakeClock
    authorities: Authorities
    control_plane: FakeControlPlane
    key: ApiKey
    control_plane_at: Address
    group: asyncio.TaskGroup
    settings: dict[str, Any] = field(default_factory=dict)
    http: Address = field(init=False)
    tunnel: Address = field(init=False)
    peer: Address | None = field(init=False, default=None)
    stop: asyncio.Event = field(init=False)
    running: "asyncio.Task[None]" = field(init=False)
    client: aiohttp.ClientSession = field(init=False)

    async def start(self) -> None:
        """Start the gateway, or start it again over what an earlier one left."""
        settings = Settings(
            state_dir=self.folder,
            tls_dir=self.folder / "tls",
            node_trust=self.folder / "node-ca.pem",
            control_plane=self.control_plane_at,
            http_listen=Address("127.0.0.1", 0),
            tunnel_listen=Address("127.0.0.1", 0),
            **self.settings,
        )
        self.stop = asyncio.Event()
        self.running = self.group.create_task(serve(settings, self.clock, self.stop))
        listening = self.folder / "listening.json"
        await eventually(lambda: listening.exists() or self.running.done())
        if self.running.done():
            await self.running
        found = json.loads(listening.read_text())
        self.http, self.tunnel = parse_address(found["http"]), parse_address(found["tunnel"])
        self.peer = parse_address(found["peer"]) if "peer" in found else None

    async def end(self) -> None:
        """Stop it gracefully; the clock is not needed for that."""
        self.stop.set()
        await self.running

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key.reveal()}"}

    def post(self, body: object, **more: Any) -> Any:
        """A completion request; use with ``async with``."""
        headers = {**self.headers, "Content-Type": "application/json", **more.pop("headers", {})}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        # aiohttp warns of large bodies as bytes.
        return self.client.post(f"{self.url}/v1/chat/completions", data=BytesIO(data), headers=headers, **more)

    async def records(self, count: int) -> list[pb.UsageRecord]:
        """Exactly so many usage records, once they are delivered."""
        usage = self.control_plane.usage
        for _ in range(200):
            await self.clock.forward(1.0)
            if len(usage) >= count:
                break
            await asyncio.sleep(0.005)
        assert len(usage) == count
        return sorted(usage.values(), key=lambda one: one.request_id)

    async def pass_time(self, seconds: float) -> None:
        """Let the clock run in small steps, and the network keep up: links probe each other by the same clock."""
        for _ in range(round(seconds / 2)):
            await self.clock.forward(2.0)
            await asyncio.sleep(0.005)

    async def record(self) -> pb.UsageRecord:
        """The only one."""
        (one,) = await self.records(1)
        return one

    async def metrics(self) -> str:
        async with self.client.get(f"{self.url}/metrics") as answer:
            assert answer.status == 200
            return await answer.text()


@dataclass(slots=True)
class Node:
    """A node's end of a tunnel: every stream goes to the engine."""

    session: Session
    task: "asyncio.Task[None]"
    streams: list[Stream] = field(default_factory=list)

    async def stream(self, at: int = 0) -> Stream:
        """A stream the gateway opened, once it has."""
        await eventually(lambda: len(self.streams) > at)
        return self.streams[at]


@asynccontextmanager
async def node(
    site: Site, engine: Engine, *, name: str = "n-1", epoch: int = 1, files: TlsFiles | None = None
) -> AsyncIterator[Node]:
    """A node attached to the gateway for as long as the block lasts."""
    files = files or site.authorities.files(Kind.NODE, name)
    credentials = channel_credentials(files.trust_bundle_pem, key_pem=files.key_pem, chain_pem=files.chain_pem)
    async with (
        secure_channel(
            str(site.tunnel), credentials, server_name="gateway.mesh.local", options=DATA_CHANNEL_OPTIONS
        ) as channel,
        asyncio.TaskGroup() as group,
    ):
        call = TunnelServiceStub(channel).Attach()
        link = ClientLink(call)
        await link.greet(epoch)
        streams: list[Stream] = []
        tasks: list[asyncio.Task[None]] = []

        async def answer(stream: Stream) -> None:
            try:
                await engine(stream)
            except StreamReset:
                pass
            finally:
                stream.reset(ResetCode.CANCEL)

        def opened(stream: Stream) -> None:
            streams.append(stream)
            tasks.append(group.create_task(answer(stream)))

        session = Session(link, initiator=False, clock=site.clock, on_open=opened)
        attached = Node(session, group.create_task(session.run()), streams)
        yield attached
        session.close()
        for task in tasks:
            task.cancel()
        await attached.task
        call.cancel()


@asynccontextmanager
async def site(
    folder: Path,
    *models: pb.Model,
    authorities: Authorities | None = None,
    gateway_id: str = "g-1",
    **settings: Any,
) -> AsyncIterator[Site]:
    """A gateway with a control plane that knows these models."""
    authorities = authorities or Authorities()
    key = new_api_key()
    entry = pb.ApiKey(key_id=key.id, secret_mac=key.mac(PEPPER), organization_id=ORGANIZATION)
    control_plane = FakeControlPlane(pb.Snapshot(revision=1, key_pepper=PEPPER, api_keys=[entry], models=models))
    put_tls(folder / "tls", authorities.files(Kind.GATEWAY, gateway_id))
    write_atomic(folder / "node-ca.pem", authorities.ca_pem(Role.NODE))
    async with control_plane_server(authorities, control_plane) as (at, _), asyncio.TaskGroup() as group:
        found = Site(folder, FakeClock(datetime.now(UTC)), authorities, control_plane, key, at, group, settings)
        await found.start()
        async with aiohttp.ClientSession() as found.client:
            revision = "mesh_gateway_snapshot_revision 1.0"
            while revision not in await found.metrics():
                # On a busy machine the first connect may fail, and the next one waits by the clock.
                await found.clock.forward(0.5)
            yield found
        if not found.running.done():
            await found.end()


@asynccontextmanager
async def control_plane_server(
    authorities: Authorities, servicer: FakeControlPlane, at: Address | None = None
) -> AsyncIterator[tuple[Address, grpc.aio.Server]]:
    """The servicer behind mTLS, for gateways only."""
    server = grpc.aio.server(options=CONTROL_SERVER_OPTIONS)
    add_GatewayServiceServicer_to_server(servicer, server)
    files = authorities.files(Kind.CONTROL_PLANE, "c-1")
    port = server.add_secure_port(
        str(at or "127.0.0.1:0"), server_credentials(files, authorities.ca_pem(Role.CONTROL))
    )
    await server.start()
    try:
        yield Address("127.0.0.1", port), server
    finally:
        await server.stop(None)


def put_tls(folder: Path, files: TlsFiles) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_private(folder / "tls.key", files.key_pem)
    write_atomic(folder / "tls.crt", files.chain_pem)
    write_atomic(folder / "trust-bundle.pem", files.trust_bundle_pem)


# Clients ---------------------------------------------------------------------------------------------------------


async def ask(one: Site, body: object) -> tuple[int, bytes]:
    async with one.post(body) as answer:
        return answer.status, await answer.read()


async def until(one: Site, line: str) -> None:
    """Until the gateway's metrics hold that line."""
    async with asyncio.timeout(10):
        while line not in await one.metrics():
            pass


def http_request(one: Site, body: object) -> bytes:
    """The octets of a completion request."""
    octets = json.dumps(body).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {one.key.reveal()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(octets)}\r\n\r\n"
    ).encode() + octets
