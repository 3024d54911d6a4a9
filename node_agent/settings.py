"""What an owner may set. Read once, complete and frozen; every field is ``MESH_AGENT_`` plus its name."""

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from mesh.kit.settings import Address

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration of one node agent."""

    state_dir: Path
    """Where the agent keeps identity, last desired state and its engines' records. One agent per folder."""

    control_plane: Address | None = None
    """Where the control stream is; without it the address that joining gave."""

    http_listen: Address = Address("127.0.0.1", 7460)
    """/healthz, /readyz, /info and /metrics. Loopback only: there is no TLS and no authentication."""

    models_dir: Path | None = None
    """The only folder that ``file://`` models may come from; without it they are refused."""

    max_requests: int = 2048
    """Requests at once over all tunnels; beyond it a request is refused. Each needs one open file."""

    drain_grace: timedelta = timedelta(seconds=10)
    """How long requests may go on when the agent is told to stop."""

    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        problems = []
        if not is_loopback(self.http_listen.host):
            problems.append("MESH_AGENT_HTTP_LISTEN: must be a loopback address, such as 127.0.0.1:7460")
        if not 1 <= self.max_requests <= 65536:
            problems.append("MESH_AGENT_MAX_REQUESTS: from 1 to 65536")
        if self.log_level.lower() not in _LEVELS:
            problems.append(f"MESH_AGENT_LOG_LEVEL: one of {', '.join(_LEVELS)}")
        if problems:
            raise ValueError("\n".join(problems))


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine reaches a listener there. Of names only ``localhost`` is believed."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
