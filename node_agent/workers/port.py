"""What we need from whatever runs engines on this node: processes today, containers later.

Relations: ``keeper`` looks after one engine through this port; ``supervisor`` asks it what is left over from an
earlier agent. An engine outlives the agent: nothing here ends one but ``stop``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mesh.kit.errors import Unavailable
from node_agent.core.command import Command
from node_agent.core.worker import LoopbackEndpoint

Compose = Callable[[int], Command]
"""The engine's command for the port the runtime chose."""


class CannotStart(Unavailable):
    """The engine could not even be spawned; the text says why and what to do."""

    code = "cannot_start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One engine that was started, by this agent or by one before it."""

    key: str
    """Tells engines apart, also two of the same worker."""

    worker_id: str
    spec_hash: str
    pid: int
    port: int
    starts: int
    """Times this node started an engine for this spec, this one included."""

    was_ready: bool = False
    """It has answered before: an engine taken over must answer soon, it has no model to load."""

    adoptable: bool = True
    """Its record is whole, so that it can be looked after."""

    @property
    def endpoint(self) -> LoopbackEndpoint:
        return LoopbackEndpoint("127.0.0.1", self.port)


class Runtime(Protocol):
    """Runs engines."""

    async def found(self) -> tuple[Running, ...]:
        """Every engine of this node that lives, whoever started it.

        What cannot be adopted is among them, and says so: a leftover whose record is lost or of another process.
        """

    async def start(self, worker_id: str, spec_hash: str, compose: Compose) -> Running:
        """Spawn one engine on a free loopback port. CannotStart, or what ``compose`` raises.

        Whatever happens to us meanwhile, the engine can be found again.
        """

    async def exited(self, running: Running) -> str:
        """Wait until it is gone; say how it ended, e.g. ``exit code 0`` (which is a crash, too)."""

    async def stop(self, running: Running, *, grace_s: float) -> None:
        """Ask it to end, force it after the grace, and forget it. Stopping what is gone succeeds."""

    def owns_port(self, running: Running) -> bool:
        """Whether it is this engine that listens there, and not a stranger."""

    def remember_ready(self, running: Running) -> Running:
        """Note that it has answered, for an agent that takes it over later."""

    def last_line(self, worker_id: str) -> str:
        """The last line of its log; empty when there is none."""

    def trim_log(self, worker_id: str) -> None:
        """Keep its log within bounds."""
