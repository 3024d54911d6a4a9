"""Builds the gateway and keeps it running. The only file that knows every part."""

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import orjson

from gateway import listeners, start
from gateway.api import metrics_gauges, models, openapi
from gateway.api.auth import Door
from gateway.api.bodies import Intake
from gateway.api.health import Health
from gateway.api.inference import Inference
from gateway.api.metrics import Metrics
from gateway.api.models import Models
from gateway.api.seeing import RequestLog, Seeing
from gateway.api.server import HttpServer
from gateway.api.siblings import Siblings
from gateway.api.story import Tracing
from gateway.api.visit import Handler, Visit
from gateway.control import quota_redis
from gateway.control.certificate import CertificateWatch
from gateway.control.demand import DemandReporter
from gateway.control.lease import Lessor
from gateway.control.link import ControlPlane
from gateway.control.load import LoadWatch
from gateway.control.quota import LeasedQuota, Quota
from gateway.control.quota_redis import RedisQuota
from gateway.control.spool import Spool
from gateway.control.usage import UsageBook, UsageReporter
from gateway.control.watch import SnapshotWatch, load_kept
from gateway.core.admission import Admission
from gateway.core.endpoints import ENDPOINTS, Endpoint, passed_through
from gateway.core.errors import UnknownRoute
from gateway.core.limits import Meter
from gateway.core.snapshot import Cell
from gateway.settings import Settings
from gateway.start import StartFailed
from gateway.tunnel.acceptor import Acceptor
from gateway.tunnel.errand import Limits
from gateway.tunnel.forward import Forwarder
from gateway.tunnel.patience import WaitingRoom
from gateway.tunnel.peer_service import PeerService
from gateway.tunnel.peers import Peers
from gateway.tunnel.registry import Registry
from gateway.tunnel.waiting import Waiting
from mesh.kit.clock import Clock
from mesh.kit.logs import F
from mesh.kit.settings import Address
from mesh.kit.tasks import Part, PartKeepsFailing, keep_running
from pki.files import write_atomic

log = logging.getLogger(__name__)

LISTENING = "listening.json"
FILES_KEPT = 512  # open files that clients never get
LAST_WORDS_S = 1.0  # for the error events of answers that outlast the grace
LAST_REPORT_S = 2.0  # for the records of the last requests; what is not delivered stays on disk


async def serve(settings: Settings, clock: Clock, stop: asyncio.Event) -> None:
    """Run until ``stop`` is set, then end gracefully. StartFailed when it cannot begin."""
    files = start.identity(settings, clock)
    cell, registry, metrics = Cell(), Registry(clock), Metrics(clock)
    cell.watchers += [registry.follow, metrics.follow]
    async with AsyncExitStack() as held:  # opened in order, closed in reverse
        spool = start.spool(settings)
        held.callback(spool.close)
        kept = settings.state_dir / "snapshot.bin"
        load_kept(kept, cell)
        control_plane = ControlPlane(str(settings.control_plane), settings.control_plane_server_name)
        await control_plane.connect(files)
        held.push_async_callback(control_plane.close)

        room = WaitingRoom(clock)
        waiting = Waiting(
            clock,
            lambda name: registry.room(cell.model(name)),
            settings.queue_capacity,
            settings.max_wait.total_seconds(),
        )

        hub_id = start.hub_id(settings, files.identity.id)
        service = PeerService(registry, cell, hub_id, clock)
        peers = Peers(hub_id, settings.tls_dir, registry, clock, waiting.look_again)

        def nodes_changed() -> None:
            service.nodes_changed()
            waiting.look_again()

        acceptor = Acceptor(registry, cell, hub_id, clock, nodes_changed, service.nodes_changed)
        tls = start.tunnel_tls(settings, files)
        trust_domain = files.identity.trust_domain
        tunnel_at = await held.enter_async_context(listeners.tunnel(settings, trust_domain, tls, acceptor, clock))
        shown = [tls]
        peer_at = None
        if settings.peer_listen is not None:
            shown.append(start.peer_tls(settings, files))
            peer_at = await held.enter_async_context(
                listeners.peer(settings.peer_listen, trust_domain, shown[-1], service, clock)
            )
        registry.released = lambda model: waiting.room_made(model.name)
        cell.watchers.append(lambda snapshot: waiting.follow(snapshot.models))
        quota = await held.enter_async_context(_quota(settings, cell, control_plane, clock))
        tracing = await held.enter_async_context(start.tracing(settings, clock, metrics, hub_id, _version()))
        known = _Known(cell, registry, spool, room, waiting, quota, metrics, tracing)
        cell.watchers.append(peers.follow)
        if cell.current is not None:
            peers.follow(cell.current)
        metrics.gauge("peer_links", "Other gateways that can be sent requests.", lambda: peers.up)
        metrics.gauge("relayed_requests", "Requests passed on for other gateways.", lambda: service.streams)
        siblings = None
        if settings.process_count > 1:
            siblings = Siblings(settings.state_dir, settings.process, settings.process_count, metrics.text)
            await held.enter_async_context(listeners.telling(siblings))
        http = _http(settings, clock, known, siblings)
        http_at = await held.enter_async_context(listeners.clients(http, settings.http_listen))
        held.enter_context(_announced(settings.state_dir, http=http_at, tunnel=tunnel_at, peer=peer_at))

        reporter = UsageReporter(spool, control_plane, clock)
        parts: list[Part] = [
            SnapshotWatch(
                cell=cell,
                control_plane=control_plane,
                kept=kept,
                tunnel_endpoint=str(settings.advertise_tunnel or tunnel_at),
                version=_version(),
                process=settings.process,
                clock=clock,
                peer_endpoint=str(settings.advertise_peer or peer_at or ""),
            ),
            peers,
            LoadWatch(registry.hear, control_plane, clock),
            DemandReporter(waiting.report, settings.process, control_plane, clock),
            reporter,
            room,
            http,
            quota,
            CertificateWatch(settings.tls_dir, files, shown, control_plane, clock),
        ]
        parts += [] if tracing is None else [tracing]
        await _run(parts, clock, stop, lambda: _end(acceptor, service, peers, http, settings))
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


async def _end(
    acceptor: Acceptor, service: PeerService, peers: Peers, http: HttpServer, settings: Settings
) -> None:
    """Say that we are going, let answers finish within the grace, tell the others that they will not."""
    grace_s = settings.stop_grace.total_seconds()
    log.info("stopping", extra={F.SECONDS: grace_s})
    acceptor.drain()
    service.drain()
    async with asyncio.TaskGroup() as group:
        ending = group.create_task(http.close(grace_s + LAST_WORDS_S))
        async with asyncio.TaskGroup() as waiting:
            both = waiting.create_task(_both(ending, service))
            await asyncio.wait([both], timeout=grace_s)
            both.cancel()
        peers.close()
        acceptor.close()  # what still runs has lost its link now, and says so to its client


async def _both(ending: "asyncio.Task[None]", service: PeerService) -> None:
    """Our clients have their answers, and those of our peers that we pass on."""
    await service.idle()
    await asyncio.wait([ending])


@dataclass(frozen=True, slots=True)
class _Known:
    """What the listener for clients is made of."""

    cell: Cell
    registry: Registry
    spool: Spool
    room: WaitingRoom
    waiting: Waiting
    quota: Quota
    metrics: Metrics
    tracing: Tracing | None


@asynccontextmanager
async def _quota(
    settings: Settings, cell: Cell, control_plane: ControlPlane, clock: Clock
) -> AsyncIterator[Quota]:
    """Limits counted in Redis where one is configured, else by shares from the control plane."""

    def gateways() -> int:
        return max(1, len(cell.current.peers)) if cell.current is not None else 1

    if settings.redis is None:
        yield LeasedQuota(Meter(), clock, Lessor(control_plane, settings.process), gateways)
        return
    try:
        redis = quota_redis.open_redis(settings.redis.read_text().strip())
    except (OSError, ValueError) as exc:
        raise StartFailed(f"MESH_GW_REDIS: {exc}") from exc
    try:
        yield RedisQuota(redis, clock, gateways)
    finally:
        await redis.aclose()


def _http(settings: Settings, clock: Clock, known: _Known, siblings: Siblings | None) -> HttpServer:
    cell, registry, metrics = known.cell, known.registry, known.metrics
    door = Door(Admission(cell), clock)
    intake = Intake(settings.max_body_bytes, settings.max_requests, settings.max_held_bytes)
    limits = Limits(
        first_byte_s=settings.first_byte_timeout.total_seconds(),
        answer_s=settings.answer_timeout.total_seconds(),
        idle_s=settings.idle_timeout.total_seconds(),
    )
    forwarder = Forwarder(registry, known.waiting, limits, clock)
    metrics_gauges.watch(metrics, cell, registry, known.waiting)
    metrics.gauge("live_requests", "Requests under way.", lambda: intake.requests)
    metrics.gauge("tunnel_sessions", "Nodes attached.", lambda: len(registry.roster))
    metrics.gauge("usage_spool_bytes", "Usage on disk, not yet forgotten.", lambda: known.spool.octets)
    metrics.gauge(
        "snapshot_revision",
        "Revision of the snapshot in force; 0 without one.",
        lambda: 0 if cell.current is None else cell.current.revision,
    )
    inference = Inference(
        door,
        intake,
        UsageBook(known.spool),
        known.quota,
        forwarder,
        known.room,
        metrics,
        clock,
        registry.news,
        known.tracing,
    )
    listing = Models(door, registry)
    health = Health(cell, registry, known.spool, metrics, lambda: server.draining, siblings)
    routes: dict[str, dict[str, Handler]] = {
        path: {"POST": partial(_posted, inference, endpoint)} for path, endpoint in ENDPOINTS.items()
    }
    routes |= {
        models.PATH: {"GET": listing.list},
        openapi.PATH: {"GET": openapi.made(_version()).show},
        "/healthz": {"GET": health.healthz},
        "/readyz": {"GET": health.readyz},
        "/metrics": {"GET": health.show_metrics},
        "/debug/routes": {"GET": health.show_routes},
    }

    async def declared(visit: Visit) -> None:
        """A path that some deployment may have declared."""
        if cell.current is None or visit.path not in cell.current.pass_through:
            raise UnknownRoute(f"unknown request URL: {visit.request.method} {visit.path[:200]}")
        await inference(visit, passed_through(visit.path))

    server = HttpServer(
        routes=routes,
        prefixes={f"{models.PATH}/": {"GET": listing.get}},
        otherwise={"POST": declared},
        answered=Seeing(metrics, clock, RequestLog(settings.request_log), known.tracing).answered,
        clock=clock,
        max_body=settings.max_body_bytes,
        max_connections=_room_for(settings.max_connections),
        reuse_port=settings.process_count > 1,
    )
    metrics.gauge("client_connections", "Connections of clients.", lambda: len(server.connections))
    return server


async def _posted(inference: Inference, endpoint: Endpoint, visit: Visit) -> None:
    await inference(visit, endpoint)


def _room_for(connections: int) -> int:
    """So many connections of clients, or fewer: tunnels, the control plane and the spool need open files too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or connections <= files - FILES_KEPT:
        return connections
    fewer = max(files - FILES_KEPT, files // 2)
    log.warning("too few open files for max_connections; raise ulimit -n", extra={F.COUNT: fewer})
    return fewer


@contextmanager
def _announced(state_dir: Path, **listeners: Address | None) -> Iterator[None]:
    """``listening.json`` while the block lasts: where we really listen."""
    path = state_dir / LISTENING
    write_atomic(path, orjson.dumps({name: str(at) for name, at in listeners.items() if at is not None}))
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
