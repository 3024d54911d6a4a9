"""What we need from anything that serves a model over HTTP. Nothing here names an engine.

Relations: ``workers`` runs engines and asks these questions of them; ``registry`` chooses one by name; each
adapter answers for one engine. Every method that asks a running engine has a budget of its own, because it is
the edge, and raises EngineUnreachable or EngineWrong, never its client's errors.
"""

from dataclasses import dataclass
from typing import Protocol

from mesh.kit.errors import MeshError, Unavailable
from node_agent.core.command import Command
from node_agent.core.worker import LoopbackEndpoint, WorkerSpec


class EngineUnreachable(Unavailable):
    """Nobody answers there, or not within the budget."""

    code = "engine_unreachable"


class EngineWrong(MeshError):
    """It answers, but not what was promised; the text says what."""

    code = "engine_wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do beside answering. Said in values, never found out by trying."""

    drains: bool
    """On SIGTERM it finishes what it has. If not, the supervisor waits for the requests before it asks."""

    cpu: bool
    """It runs without an accelerator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """What the engine's own metrics say; None for what they do not."""

    running: int | None = None
    waiting: int | None = None
    kv_cache_usage: float | None = None
    """Share of the KV cache in use, 0 to 1."""


class Engine(Protocol):
    """One kind of engine."""

    @property
    def name(self) -> str:
        """As specifications call it."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def version(self) -> str | None:
        """The version installed on this node; None when it is not installed."""

    def command(self, spec: WorkerSpec, *, port: int) -> Command:
        """How to start it for that spec, listening on that loopback port.

        Raises MeshError in words for the owner: the model or the engine is missing, or cannot do what is asked.
        """

    async def alive(self, endpoint: LoopbackEndpoint) -> bool:
        """True once it can serve, False while it loads. EngineUnreachable when nobody answers."""

    async def models(self, endpoint: LoopbackEndpoint) -> frozenset[str]:
        """The names it serves under."""

    async def warm_up(self, endpoint: LoopbackEndpoint, model: str) -> None:
        """Draw one token from the model. EngineWrong when none comes."""

    async def load(self, endpoint: LoopbackEndpoint) -> EngineLoad:
        """How busy it is, from its own metrics."""
