"""What is sent to workers: a client's request, where its answer goes, whose turn it is, how long it may take."""

from dataclasses import dataclass
from typing import Protocol

from gateway.core.routing import Choice
from gateway.core.snapshot import Priority, Route
from gateway.tunnel.registry import Wish


class Errand(Protocol):
    """A client's request, and where its answer goes."""

    request_id: str
    streamed: bool
    path: str
    content_type: str

    @property
    def begun(self) -> bool:
        """Whether the client has seen something of an answer, so that nobody else may give another."""

    def queued(self, waited_s: float) -> None:
        """It has waited so long for its turn."""

    def take(self, choice: Choice) -> bytes:
        """This worker has it now; returns the body for its engine. Called again for each further worker."""

    def may_go_on(self, engine: str) -> bool:
        """Whether a worker with that engine could continue the answer that has begun."""

    def interrupted(self) -> bool:
        """The worker was lost after the answer had begun. True: the client has all of it, nobody need go on."""

    def missed(self, route: Route, why: str) -> None:
        """That worker did not answer, or not to the end; somebody else may."""

    @property
    def trace(self) -> str:
        """``traceparent`` for the worker that has it; empty: none."""

    def head(self, status: int, kind: str) -> None:
        """The answer's head has come: 200, or an error's status; and its content type, which a node chose."""

    async def data(self, octets: bytes, *, last: bool) -> None:
        """Some of the answer has come; not empty. Returns when the client may be given more."""

    def complete(self) -> bool:
        """The engine says no more. False: its answer was cut short."""

    async def keep_alive(self) -> None:
        """Nothing has come for a while. Only of streams."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait, in seconds."""

    first_byte_s: float
    """Until a streamed answer begins."""
    answer_s: float
    """Until an answer in one piece begins: engines send nothing before it is complete."""
    idle_s: float
    """Between two pieces of an answer."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose turn it is, and what it wishes of routing."""

    wish: Wish
    key_id: str = ""
    weight: int = 1
    priority: Priority = Priority.NORMAL
    max_wait_s: float | None = None
