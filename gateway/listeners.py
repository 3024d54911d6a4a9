"""Everything this process listens on, and the one line when it cannot. StartFailed names the setting to change."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from gateway.api.server import HttpServer
from gateway.api.siblings import Siblings
from gateway.settings import Settings
from gateway.start import StartFailed
from gateway.tunnel import peer_service
from gateway.tunnel.acceptor import METHODS, Acceptor
from gateway.tunnel.peer_service import PeerService
from mesh.kit.clock import Clock
from mesh.kit.logs import F
from mesh.kit.settings import Address
from mesh.tunnel.v1.peer_pb2_grpc import add_PeerServiceServicer_to_server
from mesh.tunnel.v1.tunnel_pb2_grpc import add_TunnelServiceServicer_to_server
from mesh.wire.channel import DATA_SERVER_OPTIONS
from pki.peer import Guard
from pki.tls import ServerTls

log = logging.getLogger(__name__)


@asynccontextmanager
async def tunnel(
    settings: Settings, trust_domain: str, tls: ServerTls, acceptor: Acceptor, clock: Clock
) -> AsyncIterator[Address]:
    """The listener for nodes; its address."""
    guard = Guard(table=METHODS, trust_domain=trust_domain, clock=clock, still_allowed=acceptor.still_allowed)
    acceptor.cell.watchers.append(lambda _snapshot: guard.recheck())
    server = grpc.aio.server(interceptors=[guard], options=DATA_SERVER_OPTIONS)
    add_TunnelServiceServicer_to_server(acceptor, server)
    async with _served(server, "tunnel", settings.tunnel_listen, tls, acceptor.close) as at:
        yield at


@asynccontextmanager
async def peer(
    address: Address, trust_domain: str, tls: ServerTls, service: PeerService, clock: Clock
) -> AsyncIterator[Address]:
    """The listener for other gateways; its address."""
    guard = Guard(
        table=peer_service.METHODS, trust_domain=trust_domain, clock=clock, still_allowed=service.still_allowed
    )
    service.cell.watchers.append(lambda _snapshot: guard.recheck())
    server = grpc.aio.server(interceptors=[guard], options=DATA_SERVER_OPTIONS)
    add_PeerServiceServicer_to_server(service, server)
    async with _served(server, "peer", address, tls, service.close) as at:
        yield at


@asynccontextmanager
async def _served(
    server: grpc.aio.Server, name: str, address: Address, tls: ServerTls, close: Callable[[], None]
) -> AsyncIterator[Address]:
    """A gRPC server that listens while the block lasts; its address."""
    try:
        port = server.add_secure_port(str(address), tls.credentials())
    except RuntimeError as exc:
        raise StartFailed(
            f"cannot listen on {address}; is the port in use? Choose another with MESH_GW_{name.upper()}_LISTEN"
        ) from exc
    await server.start()
    try:
        at = Address(address.host, port)
        log.info("listening", extra={F.PART: name, F.ADDRESS: str(at)})
        yield at
    finally:
        close()
        await server.stop(1.0)


@asynccontextmanager
async def telling(siblings: Siblings) -> AsyncIterator[None]:
    """Our metrics for the other processes of this gateway."""
    async with AsyncExitStack() as held:
        try:
            await held.enter_async_context(siblings.answering())
        except OSError as exc:
            raise StartFailed(f"MESH_GW_STATE_DIR: no socket in {siblings.state_dir}: {exc}") from exc
        yield


@asynccontextmanager
async def clients(http: HttpServer, address: Address) -> AsyncIterator[Address]:
    """The listener for clients; its address."""
    try:
        at = http.listen(address)
    except OSError as exc:
        raise StartFailed(
            f"cannot listen on {address}: {exc.strerror}; choose another with MESH_GW_HTTP_LISTEN"
        ) from exc
    try:
        log.info("listening", extra={F.PART: "http", F.ADDRESS: str(at)})
        yield at
    finally:
        await http.close(0.0)
