"""A guarded gRPC server over mTLS with one method of each shape, for the tests of TLS and of the guard."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from mesh.kit.clock import Clock, WallClock
from mesh.kit.errors import MeshError
from pki.names import Kind
from pki.peer import ANONYMOUS, Allowed, Caller, Context, Guard
from pki.policy import Role
from pki.tls import TlsFiles, channel_credentials, server_credentials
from tests.fakes.pki import Mesh

SERVICE = "mesh.test.v1.Test"
BRIEFLY = timedelta(seconds=3)  # certificates have whole seconds, so this lives for 2 to 3
NODES = frozenset({Kind.NODE})

TABLE: dict[str, Allowed] = {
    **{f"/{SERVICE}/{name}": NODES for name in ("Unary", "Up", "Down", "Talk", "Converse", "Stubborn")},
    f"/{SERVICE}/ForGateways": frozenset({Kind.GATEWAY}),
    f"/{SERVICE}/ForAnyone": ANONYMOUS,
    f"/{SERVICE}/ForNobody": frozenset(),
}


@dataclass(slots=True)
class Methods:
    """Handlers of every shape. ``answer`` is what the unary one does; ``ended`` says what became of streams."""

    answer: Callable[[bytes, Context], Awaitable[bytes]] | None = None
    ended: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(64))  # a test opens a handful

    async def unary(self, request: bytes, context: Context) -> bytes:
        return await self.answer(request, context) if self.answer else request

    async def up(self, requests: AsyncIterator[bytes], _context: Context) -> bytes:
        return b",".join([one async for one in requests])

    async def down(self, request: bytes, _context: Context) -> AsyncIterator[bytes]:
        """An async generator: two responses, then it stays open."""
        try:
            yield request + b"1"
            yield request + b"2"
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.put_nowait("down")

    async def talk(self, requests: AsyncIterator[bytes], _context: Context) -> AsyncIterator[bytes]:
        """An async generator that echoes."""
        try:
            async for one in requests:
                yield one
        finally:
            self.ended.put_nowait("talk")

    async def converse(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        """A coroutine that echoes, reading and writing through the context, with a child task of its own."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._echo(context))
        finally:
            self.ended.put_nowait("converse")

    async def _echo(self, context: Context) -> None:
        while (one := await context.read()) is not grpc.aio.EOF:
            await context.write(one)

    async def stubborn(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        """Ends well when it is cancelled, which no handler should."""
        await context.write(b"open")
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.ended.put_nowait("stubborn")

    def handler(self) -> grpc.GenericRpcHandler:
        unary: Any = grpc.unary_unary_rpc_method_handler(self.unary, request_deserializer=_decode)
        shapes: dict[str, Any] = {
            **dict.fromkeys(("Unary", "ForGateways", "ForAnyone", "ForNobody", "Forgotten"), unary),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "Converse": grpc.stream_stream_rpc_method_handler(self.converse),
            "Stubborn": grpc.stream_stream_rpc_method_handler(self.stubborn),
        }
        return grpc.method_handlers_generic_handler(SERVICE, shapes)


def _decode(octets: bytes) -> bytes:
    if octets == b"undecodable":
        raise RuntimeError(octets)
    return octets


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens, and how to call it."""

    mesh: Mesh
    port: int
    guard: Guard
    methods: Methods

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def channel(self, files: TlsFiles | None, *more: tuple[str, Any]) -> grpc.aio.Channel:
        """A channel of its own connection, showing that certificate or none."""
        credentials = channel_credentials(
            self.mesh.bundle_pem,
            key_pem=files.key_pem if files else None,
            chain_pem=files.chain_pem if files else None,
        )
        options = (
            ("grpc.ssl_target_name_override", "control-plane.mesh.local"),
            ("grpc.use_local_subchannel_pool", 1),
            *more,
        )
        return grpc.aio.secure_channel(self.address, credentials, options)


@asynccontextmanager
async def serving(
    mesh: Mesh,
    *,
    clock: Clock | None = None,
    still_allowed: Callable[[Caller], MeshError | None] = lambda _caller: None,
    client_cas_pem: bytes | None = None,
    credentials: grpc.ServerCredentials | None = None,
    table: Mapping[str, Allowed] = TABLE,
) -> AsyncIterator[Running]:
    """Serve as a control plane; clients of the node CA are let in unless told otherwise."""
    guard = Guard(
        table=table, trust_domain=mesh.trust_domain, clock=clock or WallClock(), still_allowed=still_allowed
    )
    methods = Methods()
    server = grpc.aio.server(interceptors=[guard])
    server.add_generic_rpc_handlers((methods.handler(),))
    port = server.add_secure_port(
        "127.0.0.1:0",
        credentials
        or server_credentials(mesh.files(Kind.CONTROL_PLANE), client_cas_pem or mesh.ca_pem(Role.NODE)),
    )
    await server.start()
    try:
        yield Running(mesh, port, guard, methods)
    finally:
        await server.stop(0)


async def expiry_of(files: TlsFiles) -> None:
    """Return once TLS too holds the certificate for expired: it counts the last second in."""
    left = files.not_after + timedelta(seconds=1) - datetime.now(UTC)
    await asyncio.sleep(max(left.total_seconds(), 0) + 0.02)
