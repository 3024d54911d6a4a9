"""What a gateway must have before it can start, or one line that says what to do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

from gateway.api.metrics import Metrics
from gateway.api.story import Tracing
from gateway.control.spool import Spool, SpoolInUse, open_spool
from gateway.settings import Settings
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput
from pki.files import make_private_dir
from pki.names import Kind
from pki.tls import ServerTls, TlsFiles, load_tls


class StartFailed(Exception):
    """The gateway cannot start as asked; the text is one line that says what to do."""


def identity(settings: Settings, clock: Clock) -> TlsFiles:
    """Our certificate. StartFailed."""
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


def hub_id(settings: Settings, gateway_id: str) -> str:
    """What this process is called as a hub: the gateway's id, with a number from the second process on."""
    return f"{gateway_id}~{settings.process}" if settings.process else gateway_id


def spool(settings: Settings) -> Spool:
    """The usage spool, with what an earlier run left. StartFailed."""
    try:
        make_private_dir(settings.state_dir)
        return open_spool(settings.state_dir / "spool")
    except SpoolInUse as exc:
        raise StartFailed(f"{exc}: another gateway uses this folder; give each its own MESH_GW_STATE_DIR") from exc
    except OSError as exc:
        raise StartFailed(f"MESH_GW_STATE_DIR: {exc.strerror}: {exc.filename or settings.state_dir}") from exc


def tunnel_tls(settings: Settings, files: TlsFiles) -> ServerTls:
    """What the listener for nodes shows and trusts. StartFailed."""
    try:
        return ServerTls(files, settings.node_trust.read_bytes())
    except OSError as exc:
        raise StartFailed(f"MESH_GW_NODE_TRUST: {exc.strerror}: {settings.node_trust}") from exc
    except (InvalidInput, ValueError) as exc:
        raise StartFailed(f"MESH_GW_NODE_TRUST: {settings.node_trust}: {exc}") from exc


def peer_tls(settings: Settings, files: TlsFiles) -> ServerTls:
    """What the listener for other gateways shows and trusts: whoever signed our own certificate. StartFailed."""
    try:
        return ServerTls(files, files.trust_bundle_pem)
    except (InvalidInput, ValueError) as exc:
        raise StartFailed(f"{settings.tls_dir / 'trust-bundle.pem'}: {exc}") from exc


@asynccontextmanager
async def tracing(
    settings: Settings, clock: Clock, metrics: Metrics, hub_id: str, version: str
) -> AsyncIterator[Tracing | None]:
    """Where traces go while the block lasts; None when that is nowhere. StartFailed."""
    if not settings.otlp_endpoint:
        yield None
        return
    try:
        # Loaded only where it is used: OpenTelemetry is a dozen packages that most gateways do without.
        module = import_module("gateway.api.tracing")
    except ModuleNotFoundError as exc:
        raise StartFailed(
            f"MESH_GW_OTLP_ENDPOINT: the package {exc.name!r} is missing;"
            " install it with: pip install 'inventiv-mesh[tracing]'"
        ) from exc
    exporter: Tracing = module.Exporter(settings.otlp_endpoint, settings.trace_share, clock, hub_id, version)
    metrics.count("traces_sent", "Requests whose spans the collector has taken.", lambda: exporter.sent)
    metrics.count("traces_dropped", "Requests whose spans it has not, or had no room.", lambda: exporter.dropped)
    try:
        yield exporter
    finally:
        await exporter.close()
