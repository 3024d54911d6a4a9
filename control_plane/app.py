"""Builds the control plane and keeps it running. The only file that knows every part.

Order: health listener, database, schema, gRPC listeners, loops. Nobody is answered before the schema is there.
When the database goes away later, streams stay, calls are answered UNAVAILABLE, and all resumes when it is back.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg

from control_plane.loops.certificate import CertificateWatch
from control_plane.loops.placer import Placer
from control_plane.loops.sweeper import Sweeper
from control_plane.rpc import access
from control_plane.rpc.health_http import HealthHttp
from control_plane.rpc.limits import Limiter, Limits
from control_plane.rpc.metrics import Metrics
from control_plane.rpc.node_service import Heartbeat
from control_plane.rpc.server import CannotListen, Listener, RpcServer, why_not
from control_plane.rpc.services import Parts, services
from control_plane.rpc.sessions import Sessions
from control_plane.settings import NOT_A_URL, Settings
from control_plane.store import nodes
from control_plane.store import pepper as peppers
from control_plane.store.db import Pool, open_pool, transaction
from control_plane.store.migrate import migrate
from control_plane.store.postgres import EmbeddedPostgres
from control_plane.store.postgres_home import PostgresFailed
from control_plane.store.wake import PostgresWake
from mesh.kit.backoff import Backoff
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError, Unavailable
from mesh.kit.logs import F
from mesh.kit.settings import Address
from mesh.kit.tasks import PartKeepsFailing, keep_running
from mesh.wire.channel import SNAPSHOT_SERVER_OPTIONS
from pki.authority import Authority, load_authority
from pki.bundle import parse_bundle
from pki.files import write_atomic, write_private
from pki.names import Kind
from pki.policy import Role
from pki.tls import ServerTls, TlsFiles, load_tls

log = logging.getLogger(__name__)

CLOSE_S = 2.0  # for sessions to say goodbye, then for connections to be handed back, when we stop
LISTENING = "listening.json"


class StartFailed(Exception):
    """The control plane cannot start as it was asked to; one line says what to do."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Our own identity, the CA that signs nodes, and who may come to which door."""

    authority: Authority
    tls: TlsFiles
    bundle_pem: str
    node_cas: bytes
    control_cas: bytes
    operator_cas: bytes


async def serve(settings: Settings, clock: Clock, stop: asyncio.Event) -> None:
    """Run until ``stop`` is set. StartFailed when it cannot begin; PartKeepsFailing when it cannot go on."""
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(_run(settings, clock))
            await stop.wait()
            log.info("stopping")
            running.cancel()
    except* (StartFailed, PartKeepsFailing, OSError) as failed:
        failure = _first(failed)
    if failure is not None:  # raised out here: Python before 3.11.4 would wrap it into a group again
        raise failure


async def _run(settings: Settings, clock: Clock) -> None:
    async with AsyncExitStack() as held:
        trust = read_trust(settings, clock)
        pepper = _own_files(settings.state_dir)
        metrics = Metrics()
        health = HealthHttp(settings.http_listen, metrics=metrics)
        listeners = _listeners(settings, trust)
        for address in (settings.http_listen, *(one.address for one in listeners)):
            if (problem := why_not(address)) is not None:
                raise StartFailed(problem)
        http_address = await health.start()
        held.push_async_callback(health.stop)

        database = await _database(settings, clock, held)
        pool = await open_pool(database.dsn)
        held.push_async_callback(_close, pool)
        loops = await held.enter_async_context(asyncio.TaskGroup())
        if database.embedded is not None:
            loops.create_task(keep_running(database.embedded, clock))
        await _prepare(pool, clock, pepper, settings.state_dir, alone=database.embedded is not None)
        wake = PostgresWake(database.dsn, clock)
        loops.create_task(keep_running(wake, clock))

        rpc = RpcServer(listeners, trust_domain=trust.authority.trust_domain, clock=clock)
        sessions = Sessions(pool, clock)
        held.push_async_callback(rpc.stop)
        held.push_async_callback(sessions.close, within_s=CLOSE_S)
        try:
            addresses = rpc.bind()
        except CannotListen as exc:
            raise StartFailed(str(exc)) from exc
        parts = Parts(
            pool=pool,
            wake=wake,
            clock=clock,
            metrics=metrics,
            authority=trust.authority,
            trust_bundle_pem=trust.bundle_pem,
            pepper=pepper,
            limiter=Limiter(
                Limits(per_second=settings.join_rate, burst=settings.join_burst, failures=settings.join_failures),
                per_second_in_all=settings.join_rate_in_all,
            ),
            heartbeat=Heartbeat(interval=settings.heartbeat_interval, grace=settings.heartbeat_grace),
            sessions=sessions,
            enroll_endpoint=str(settings.advertise_enroll or addresses["enroll"]),
            node_endpoint=str(settings.advertise_node or addresses["node"]),
        )
        await rpc.start(services(parts))
        for loop in (
            sessions,
            Placer(pool, wake, clock, settings.heartbeat_grace),
            Sweeper(pool, clock, settings.heartbeat_grace),
            CertificateWatch(settings.tls_dir, [one.tls for one in listeners], clock),
        ):
            loops.create_task(keep_running(loop, clock))
        health.started(pool)
        _announce(settings.state_dir, {**addresses, "http": http_address}, held)
        await asyncio.get_running_loop().create_future()  # until cancelled


def read_trust(settings: Settings, clock: Clock) -> Trust:
    """Read every file of identity; StartFailed names the one that is missing or wrong."""
    folder = settings.pki_dir
    try:
        trust = Trust(
            authority=load_authority(folder, Role.NODE),
            tls=load_tls(settings.tls_dir),
            bundle_pem=parse_bundle((folder / "trust-bundle.pem").read_bytes()).pem,
            node_cas=(folder / "node-ca.crt").read_bytes(),
            control_cas=(folder / "control-ca.crt").read_bytes(),
            operator_cas=(folder / "operator-ca.crt").read_bytes(),
        )
        identity = trust.tls.identity
    except OSError as exc:
        hint = "make it with: mesh-pki init, mesh-pki issue control-plane"
        raise StartFailed(f"cannot read {exc.filename}: {(exc.strerror or str(exc)).lower()}; {hint}") from exc
    except MeshError as exc:
        raise StartFailed(f"{folder} or {settings.tls_dir} is not usable: {exc}") from exc
    if identity.kind is not Kind.CONTROL_PLANE or identity.trust_domain != trust.authority.trust_domain:
        raise StartFailed(
            f"{settings.tls_dir}/tls.crt is for {identity}, "
            f"not for a control plane of {trust.authority.trust_domain}"
        )
    if trust.tls.not_after <= clock.now():
        raise StartFailed(
            f"{settings.tls_dir}/tls.crt ended {trust.tls.not_after:%Y-%m-%d %H:%M} UTC; "
            "issue a new one with: mesh-pki issue control-plane"
        )
    return trust


@dataclass(frozen=True, slots=True)
class _Database:
    dsn: str
    embedded: EmbeddedPostgres | None = None


async def _database(settings: Settings, clock: Clock, held: AsyncExitStack) -> _Database:
    """The database's address; starts our own when none is given."""
    if settings.database_url is not None:
        return _Database(settings.database_url.reveal())
    embedded = EmbeddedPostgres(
        settings.state_dir / "postgres", clock, bin_dir=settings.postgres_bin_dir, user=settings.postgres_user
    )
    held.push_async_callback(embedded.stop)
    try:
        await embedded.start()
    except PostgresFailed as exc:
        raise StartFailed(str(exc)) from exc
    return _Database(embedded.dsn, embedded)


async def _prepare(pool: Pool, clock: Clock, pepper: bytes, state_dir: Path, *, alone: bool) -> None:
    """Bring the schema up to date, as soon as the database answers. StartFailed when the pepper is not its own.

    ``alone``: nobody else uses it, so whoever it calls online was connected to our last life.
    """
    async for _ in Backoff(clock, cap_s=5.0).attempts():
        try:
            await migrate(pool)
            async with transaction(pool) as db:
                if not await peppers.agrees(db, pepper):
                    raise StartFailed(
                        f"{state_dir}/pepper is not the one this database's keys and tokens were made with: "
                        "put that one back (replicas share it)"
                    )
                if alone:
                    await nodes.expire_silent(db, seen_before=clock.now())
            return
        except Unavailable as exc:
            if isinstance(exc.__cause__, asyncpg.exceptions.ClientConfigurationError):
                raise StartFailed(f"MESH_CP_DATABASE_URL is not usable: {exc.__cause__}") from exc
            log.warning("waiting for the database", extra={F.REASON: str(exc)})
        except MeshError as exc:
            raise StartFailed(str(exc)) from exc
        except asyncpg.PostgresError as exc:
            raise StartFailed(f"the database refused: {exc}") from exc
        except ValueError:  # the driver's words hold pieces of what it could not read, so perhaps of the password
            raise StartFailed(f"MESH_CP_DATABASE_URL: {NOT_A_URL}") from None


def _listeners(settings: Settings, trust: Trust) -> tuple[Listener, ...]:
    """The four doors. A call is small everywhere; nodes and gateways hand in lists.

    Strangers reach the first one without a certificate, so there a connection must be used, and ends soon: who
    asks for the pin or joins needs a second. Half a call that never ends goes with its connection.
    """
    return (
        Listener(
            name="enroll",
            address=settings.enroll_listen,
            tls=ServerTls(trust.tls),
            table=access.ENROLL,
            most_calls=256,
            most_octets=64 * 1024,
            most_connections=256,
            longest_idle=timedelta(seconds=15),
            longest_life=timedelta(seconds=60),
        ),
        Listener(
            name="node",
            address=settings.node_listen,
            tls=ServerTls(trust.tls, trust.node_cas),
            table=access.NODE,
            most_calls=8192,
            most_octets=1024 * 1024,
            most_connections=8192,
        ),
        Listener(
            name="gateway",
            address=settings.gateway_listen,
            tls=ServerTls(trust.tls, trust.control_cas),
            table=access.GATEWAY,
            most_calls=512,
            most_octets=1024 * 1024,
            most_connections=512,
            options=SNAPSHOT_SERVER_OPTIONS,
        ),
        Listener(
            name="admin",
            address=settings.admin_listen,
            tls=ServerTls(trust.tls, trust.operator_cas),
            table=access.ADMIN,
            most_calls=64,
            most_octets=64 * 1024,
            most_connections=256,
        ),
    )


def _own_files(state_dir: Path) -> bytes:
    """Make the state folder; return the pepper that secrets are hashed with, made at the first start."""
    try:
        # Others may pass through, to the database's folder that is theirs; they may not look.
        state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        path = state_dir / "pepper"
        if not path.exists():
            write_private(path, secrets.token_hex(32).encode())
        pepper = bytes.fromhex(path.read_text().strip())
    except OSError as exc:
        raise StartFailed(f"cannot use {state_dir}: {(exc.strerror or str(exc)).lower()}") from exc
    except ValueError:
        pepper = b""
    if len(pepper) != 32:
        raise StartFailed(
            f"{state_dir}/pepper is not 64 hex digits: put the right one back; a new one ends all keys"
        )
    return pepper


def _announce(state_dir: Path, addresses: Mapping[str, Address], held: AsyncExitStack) -> None:
    """Say where we listen, for whoever started us; taken back on a clean end."""
    for name, address in addresses.items():
        log.info("listening", extra={F.PART: name, F.ADDRESS: str(address)})
    path = state_dir / LISTENING
    write_atomic(path, json.dumps({name: str(address) for name, address in addresses.items()}).encode())
    held.callback(path.unlink, missing_ok=True)


async def _close(pool: Pool) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of what went wrong: the rest are consequences."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
