"""What an operator may set. Read once, complete and frozen; every field is ``MESH_GW_`` plus its name."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from mesh.kit.settings import Address

_LEVELS = ("debug", "info", "warning", "error")
_REQUEST_LOGS = ("off", "errors", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration of one gateway. Its id is the one in its certificate."""

    state_dir: Path
    """Where this process keeps what is its own: the usage spool, the last snapshot, ``listening.json``."""

    tls_dir: Path
    """What ``mesh-pki issue gateway`` made: tls.crt, tls.key, trust-bundle.pem."""

    node_trust: Path
    """A PEM file with the node CA: whose nodes may attach. A root in it is left out."""

    control_plane: Address = Address("127.0.0.1", 7442)
    """The control plane's listener for gateways."""

    control_plane_server_name: str = "control-plane.mesh.local"
    """The name in the control plane's certificate."""

    http_listen: Address = Address("127.0.0.1", 8080)
    """The OpenAI endpoint, /healthz, /readyz; /metrics for this machine. No TLS: put a proxy in front of it."""

    tunnel_listen: Address = Address("127.0.0.1", 7450)
    """Where nodes attach: mTLS, node CA."""

    advertise_tunnel: Address | None = None
    """Where nodes reach ``tunnel_listen``; without it the listen address."""

    peer_listen: Address | None = None
    """Where other gateways send requests for nodes that are attached here: mTLS, gateways of this mesh only.
    Without it, none do."""

    advertise_peer: Address | None = None
    """Where other gateways reach ``peer_listen``; without it the listen address."""

    max_body_bytes: int = 4 * 1024 * 1024
    """The longest request body; a longer one is answered 413."""

    max_held_bytes: int = 256 * 1024 * 1024
    """Request bodies, and answers in one piece, in memory at once; beyond them the answer is 503."""

    max_requests: int = 4096
    """Requests under way at once; beyond them the answer is 503."""

    max_connections: int = 4096
    """Connections of clients at once; a further one is answered 503 and closed. Less where open files are few."""

    first_byte_timeout: timedelta = timedelta(seconds=120)
    """How long a streamed answer may take to begin; it is answered 504."""

    answer_timeout: timedelta = timedelta(minutes=10)
    """How long an answer in one piece may take: nothing of it comes before it is complete."""

    idle_timeout: timedelta = timedelta(seconds=60)
    """Silence in the middle of an answer after which the engine counts as lost."""

    stop_grace: timedelta = timedelta(seconds=30)
    """How long answers may go on when the gateway is told to stop."""

    queue_capacity: int = 1000
    """Requests that may wait for one model; beyond them the answer is 429."""

    max_wait: timedelta = timedelta(seconds=60)
    """How long a request may wait for a worker; then it is answered 503."""

    redis: Path | None = None
    """A file with the URL of the Redis in which all gateways count limits, e.g. ``redis://:password@host:6379/0``.
    Without it, the control plane grants each gateway its share."""

    process: int = 0
    """Which process of this gateway this is; ``mesh-gateway --workers`` sets it."""

    process_count: int = 1
    """How many there are; they share the port for clients."""

    request_log: str = "errors"
    """Which requests get a line in the log: off, errors (failed, or left by their client), all."""

    otlp_endpoint: str = ""
    """Where traces go, e.g. ``http://127.0.0.1:4318/v1/traces``; empty: nowhere. Needs the extra ``tracing``."""

    trace_share: float = 1.0
    """Which share of the requests is traced whose client does not say whether it is: 0 to 1."""

    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        problems = []
        if self.advertise_peer is not None and self.peer_listen is None:
            problems.append("MESH_GW_ADVERTISE_PEER: only with MESH_GW_PEER_LISTEN")
        if not 1024 <= self.max_body_bytes <= 256 * 1024 * 1024:
            problems.append("MESH_GW_MAX_BODY_BYTES: from 1024 to 268435456")
        if not self.max_body_bytes <= self.max_held_bytes <= 64 * 1024**3:
            problems.append("MESH_GW_MAX_HELD_BYTES: from max_body_bytes to 68719476736")
        if not 1 <= self.max_requests <= 1_000_000:
            problems.append("MESH_GW_MAX_REQUESTS: from 1 to 1000000")
        if not 1 <= self.queue_capacity <= 100_000:
            problems.append("MESH_GW_QUEUE_CAPACITY: from 1 to 100000")
        if not 1 <= self.process_count <= 64:
            problems.append("MESH_GW_PROCESS_COUNT: from 1 to 64")
        if not 0 <= self.process < max(self.process_count, 1):
            problems.append("MESH_GW_PROCESS: below MESH_GW_PROCESS_COUNT, from zero")
        if not 1 <= self.max_connections <= 1_000_000:
            problems.append("MESH_GW_MAX_CONNECTIONS: from 1 to 1000000")
        problems.extend(
            f"MESH_GW_{name.upper()}: more than zero, at most 1h"
            for name in ("first_byte_timeout", "answer_timeout", "idle_timeout", "max_wait")
            if not timedelta(0) < getattr(self, name) <= timedelta(hours=1)
        )
        if not timedelta(0) <= self.stop_grace <= timedelta(hours=1):
            problems.append("MESH_GW_STOP_GRACE: at most 1h")
        if self.request_log not in _REQUEST_LOGS:
            problems.append(f"MESH_GW_REQUEST_LOG: one of {', '.join(_REQUEST_LOGS)}")
        if self.otlp_endpoint and not self.otlp_endpoint.startswith(("http://", "https://")):
            problems.append("MESH_GW_OTLP_ENDPOINT: a URL, e.g. http://127.0.0.1:4318/v1/traces")
        if not 0 <= self.trace_share <= 1:
            problems.append("MESH_GW_TRACE_SHARE: from 0 to 1")
        if self.log_level.lower() not in _LEVELS:
            problems.append(f"MESH_GW_LOG_LEVEL: one of {', '.join(_LEVELS)}")
        if problems:
            raise ValueError("\n".join(problems))
