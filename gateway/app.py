"""Builds the gateway and keeps it running. The only file that knows every part."""

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc
import orjson

from gateway.api.auth import Door
from gateway.api.bodies import Intake
from gateway.api.chat import ChatCompletions
from gateway.api.health import Health
from gateway.api.metrics import Metrics
from gateway.api.models import Models
from gateway.api.server import HttpServer
from gateway.control.certificate import CertificateWatch
from gateway.control.link import ControlPlane
from gateway.control.spool import Spool, SpoolInUse, open_spool
from gateway.control.usage import UsageBook, UsageReporter
from gateway.control.watch import SnapshotWatch, load_kept
from gateway.core.admission import Admission
from gateway.core.snapshot import Cell
from gateway.settings import Settings
from gateway.tunnel.acceptor import METHODS, Acceptor
from gateway.tunnel.forward import Forwarder, Limits
from gateway.tunnel.patience import WaitingRoom
from gateway.tunnel.registry import Registry
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput
from mesh.kit.logs import F
from mesh.kit.settings import Address
from mesh.kit.tasks import Part, PartKeepsFailing, keep_running
from mesh.tunnel.v1.tunnel_pb2_grpc import add_TunnelServiceServicer_to_server
from mesh.wire.channel import DATA_SERVER_OPTIONS
from pki.files import make_private_dir, write_atomic
from pki.names import Kind
from pki.peer import Guard
from pki.tls import ServerTls, TlsFiles, load_tls

log = logging.getLogger(__name__)

LISTENING = "listening.json"
FILES_KEPT = 512  # open files that clients never get
LAST_WORDS_S = 1.0  # for the error events of answers that outlast the grace
LAST_REPORT_S = 2.0  # for the records of the last requests; what is not delivered stays on disk


class StartFailed(Exception):
    """The gateway cannot start as asked; the text is one line that says what to do."""


async def serve(settings: Settings, clock: Clock, stop: asyncio.Event) -> None:
    """Run until ``stop`` is set, then end gracefully. StartFailed when it cannot begin."""
    files = _identity(settings, clock)
    cell, registry, metrics = Cell(), Registry(), Metrics()
    async with AsyncExitStack() as held:  # opened in order, closed in reverse
        spool = _spool(settings)
        held.callback(spool.close)
        kept = settings.state_dir / "snapshot.bin"
        load_kept(kept, cell)
        control_plane = ControlPlane(str(settings.control_plane), settings.control_plane_server_name)
        await control_plane.connect(files)
        held.push_async_callback(control_plane.close)

        acceptor = Acceptor(registry, cell, files.identity.id, clock)
        tls = _tunnel_tls(settings, files)
        trust_domain = files.identity.trust_domain
        tunnel_at = await held.enter_async_context(_tunnel(settings, trust_domain, tls, acceptor, clock))
        room = WaitingRoom(clock)
        http = _http(settings, clock, cell=cell, registry=registry, spool=spool, room=room, metrics=metrics)
        http_at = await held.enter_async_context(_listening(http, settings.http_listen))
        held.enter_context(_announced(settings.state_dir, http=http_at, tunnel=tunnel_at))

        reporter = UsageReporter(spool, control_plane, clock)
        parts: list[Part] = [
            SnapshotWatch(
                cell=cell,
                control_plane=control_plane,
                kept=kept,
                tunnel_endpoint=str(settings.advertise_tunnel or tunnel_at),
                version=_version(),
                clock=clock,
            ),
            reporter,
            room,
            CertificateWatch(settings.tls_dir, files, tls, control_plane, clock),
        ]
        await _run(parts, clock, stop, lambda: _end(acceptor, http, settings))
        await _last_report(reporter)


async def _run(
    parts: list[Part], clock: Clock, stop: asyncio.Event, end: Callable[[], Coroutine[None, None, None]]
) -> None:
    """Keep the parts running until ``stop``, and while ``end`` lasts. PartKeepsFailing when one does."""
    failing: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(keep_running(part, clock)) for part in parts]
            await stop.wait()
            await end()
            for task in running:
                task.cancel()
    except* PartKeepsFailing as several:
        failing = several.exceptions[0]
    if failing is not None:
        raise failing


async def _end(acceptor: Acceptor, http: HttpServer, settings: Settings) -> None:
    """Say that we are going, let answers finish within the grace, tell the others that they will not."""
    grace_s = settings.stop_grace.total_seconds()
    log.info("stopping", extra={F.SECONDS: grace_s})
    acceptor.drain()
    async with asyncio.TaskGroup() as group:
        ending = group.create_task(http.close(grace_s + LAST_WORDS_S))
        await asyncio.wait([ending], timeout=grace_s)
        acceptor.close()  # what still runs has lost its link now, and says so to its client


def _identity(settings: Settings, clock: Clock) -> TlsFiles:
    try:
        files = load_tls(settings.tls_dir)
    except OSError as exc:
        raise StartFailed(f"{exc.filename}: {exc.strerror}; make it with: mesh-pki issue gateway") from exc
    except (InvalidInput, ValueError) as exc:
        raise StartFailed(f"{settings.tls_dir}: {exc}") from exc
    if files.identity.kind is not Kind.GATEWAY:
        raise StartFailed(f"{settings.tls_dir / 'tls.crt'}: names {files.identity}, which is no gateway")
    if not files.trust_bundle_pem:
        raise StartFailed(
            f"{settings.tls_dir / 'trust-bundle.pem'}: missing; make it with: mesh-pki issue gateway"
        )
    if files.not_after <= clock.now():
        raise StartFailed(
            f"{settings.tls_dir / 'tls.crt'}: expired at {files.not_after:%Y-%m-%d %H:%M} UTC;"
            " make a new one with: mesh-pki issue gateway"
        )
    return files


def _spool(settings: Settings) -> Spool:
    try:
        make_private_dir(settings.state_dir)
        return open_spool(settings.state_dir / "spool")
    except SpoolInUse as exc:
        raise StartFailed(f"{exc}: another gateway uses this folder; give each its own MESH_GW_STATE_DIR") from exc
    except OSError as exc:
        raise StartFailed(f"MESH_GW_STATE_DIR: {exc.strerror}: {exc.filename or settings.state_dir}") from exc


def _tunnel_tls(settings: Settings, files: TlsFiles) -> ServerTls:
    try:
        return ServerTls(files, settings.node_trust.read_bytes())
    except OSError as exc:
        raise StartFailed(f"MESH_GW_NODE_TRUST: {exc.strerror}: {settings.node_trust}") from exc
    except (InvalidInput, ValueError) as exc:
        raise StartFailed(f"MESH_GW_NODE_TRUST: {settings.node_trust}: {exc}") from exc


@asynccontextmanager
async def _tunnel(
    settings: Settings, trust_domain: str, tls: ServerTls, acceptor: Acceptor, clock: Clock
) -> AsyncIterator[Address]:
    """The listener for nodes; its address."""
    guard = Guard(table=METHODS, trust_domain=trust_domain, clock=clock, still_allowed=acceptor.still_allowed)
    acceptor.cell.watchers.append(lambda _snapshot: guard.recheck())
    server = grpc.aio.server(interceptors=[guard], options=DATA_SERVER_OPTIONS)
    add_TunnelServiceServicer_to_server(acceptor, server)
    address = settings.tunnel_listen
    try:
        port = server.add_secure_port(str(address), tls.credentials())
    except RuntimeError as exc:
        raise StartFailed(
            f"cannot listen on {address}; is the port in use? Choose another with MESH_GW_TUNNEL_LISTEN"
        ) from exc
    await server.start()
    try:
        at = Address(address.host, port)
        log.info("listening", extra={F.PART: "tunnel", F.ADDRESS: str(at)})
        yield at
    finally:
        acceptor.close()
        await server.stop(1.0)


@asynccontextmanager
async def _listening(http: HttpServer, address: Address) -> AsyncIterator[Address]:
    """The listener for clients; its address."""
    try:
        at = await http.listen(address)
    except OSError as exc:
        raise StartFailed(
            f"cannot listen on {address}: {exc.strerror}; choose another with MESH_GW_HTTP_LISTEN"
        ) from exc
    try:
        log.info("listening", extra={F.PART: "http", F.ADDRESS: str(at)})
        yield at
    finally:
        await http.close(0.0)


def _http(
    settings: Settings,
    clock: Clock,
    *,
    cell: Cell,
    registry: Registry,
    spool: Spool,
    room: WaitingRoom,
    metrics: Metrics,
) -> HttpServer:
    door = Door(Admission(cell), clock)
    intake = Intake(settings.max_body_bytes, settings.max_requests, settings.max_held_bytes)
    limits = Limits(
        first_byte_s=settings.first_byte_timeout.total_seconds(),
        answer_s=settings.answer_timeout.total_seconds(),
        idle_s=settings.idle_timeout.total_seconds(),
    )
    forwarder = Forwarder(registry, limits, clock, metrics.attempt_failed)
    metrics.gauge("live_requests", "Requests under way.", lambda: intake.requests)
    metrics.gauge("tunnel_sessions", "Nodes attached.", lambda: len(registry.roster))
    metrics.gauge("usage_spool_bytes", "Usage on disk, not yet forgotten.", lambda: spool.octets)
    metrics.gauge(
        "snapshot_revision",
        "Revision of the snapshot in force; 0 without one.",
        lambda: 0 if cell.current is None else cell.current.revision,
    )
    server = HttpServer(
        completions=ChatCompletions(door, intake, UsageBook(spool), forwarder, room, metrics, clock),
        models=Models(door, registry),
        health=Health(cell, registry, spool, metrics),
        clock=clock,
        max_body=settings.max_body_bytes,
        max_connections=_room_for(settings.max_connections),
    )
    metrics.gauge("client_connections", "Connections of clients.", lambda: server.open_connections)
    return server


def _room_for(connections: int) -> int:
    """So many connections of clients, or fewer: tunnels, the control plane and the spool need open files too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or connections <= files - FILES_KEPT:
        return connections
    fewer = max(files - FILES_KEPT, files // 2)
    log.warning("too few open files for max_connections; raise ulimit -n", extra={F.COUNT: fewer})
    return fewer


@contextmanager
def _announced(state_dir: Path, *, http: Address, tunnel: Address) -> Iterator[None]:
    """``listening.json`` while the block lasts: where we really listen."""
    path = state_dir / LISTENING
    write_atomic(path, orjson.dumps({"http": str(http), "tunnel": str(tunnel)}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


async def _last_report(reporter: UsageReporter) -> None:
    try:
        async with asyncio.timeout(LAST_REPORT_S):
            await reporter.once()
    except TimeoutError:
        log.info("usage stays on disk")


def _version() -> str:
    try:
        return version("inventiv-mesh")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0"
