"""A worker as the node sees it: what is asked for, what is so, and the life in between as data.

Rule 1: every phase change goes through ``advance``; nothing else makes a new phase.
Rule 2: this file knows no process, no socket and no clock. It mirrors mesh/types/v1/worker.proto; the
translation is ``node_agent/control``'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from mesh.kit.errors import NotFound, Unavailable


class WorkerPhase(StrEnum):
    """What is."""

    PENDING = "pending"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Signal(StrEnum):
    """What happened."""

    BEGUN = "begun"  # an engine was spawned or taken over
    LISTED = "listed"  # it lists the expected model
    WARMED = "warmed"  # it drew its first token
    LOST = "lost"  # it could not start, died, or stopped answering
    DRAIN_ASKED = "drain_asked"  # nobody wants it any more


P, S = WorkerPhase, Signal
# fmt: off
NEXT: Mapping[WorkerPhase, Mapping[Signal, WorkerPhase]] = {
    P.PENDING:  {S.BEGUN: P.STARTING, S.LOST: P.FAILED, S.DRAIN_ASKED: P.DRAINING},
    P.STARTING: {S.LISTED: P.WARMING, S.LOST: P.FAILED, S.DRAIN_ASKED: P.DRAINING},
    P.WARMING:  {S.WARMED: P.READY,   S.LOST: P.FAILED, S.DRAIN_ASKED: P.DRAINING},
    P.READY:    {                     S.LOST: P.FAILED, S.DRAIN_ASKED: P.DRAINING},
    P.FAILED:   {S.BEGUN: P.STARTING, S.LOST: P.FAILED, S.DRAIN_ASKED: P.DRAINING},
    P.DRAINING: {},  # the way out: the worker is gone when its engine is
}
# fmt: on

PROGRESS: Mapping[WorkerPhase, int] = {P.STARTING: 10, P.WARMING: 90, P.READY: 100}
LOADING, LISTED = 60, 75  # milestones inside STARTING: it listens; it lists the model


class UnexpectedSignal(RuntimeError):
    """Our own mistake: the table has no such step."""

    def __init__(self, phase: WorkerPhase, signal: Signal) -> None:
        super().__init__(f"{signal} while {phase}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One engine this node should run. Two specs with one ``spec_hash`` are the same worker."""

    worker_id: str
    deployment_id: str
    model: str
    engine: str
    source: str
    context_length: int
    slots: int
    memory_bytes: int
    spec_hash: str
    gpu_uuids: tuple[str, ...] = ()
    adapters: tuple[tuple[str, str], ...] = ()
    """Names served beside the model's, each with its source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """What the node reports of one worker."""

    worker_id: str
    spec_hash: str
    phase: WorkerPhase = WorkerPhase.PENDING
    progress_percent: int = 0
    detail: str = ""
    starts: int = 0
    adopted: bool = False
    requests_running: int | None = None
    requests_waiting: int | None = None
    kv_cache_usage: float | None = None
    """Share of the engine's KV cache in use, 0 to 1."""


@dataclass(frozen=True, slots=True)
class LoopbackEndpoint:
    """Where an engine listens; never anything but this machine."""

    host: str
    port: int

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker for those who show it: ``/info``, ``/metrics``, support."""

    model: str
    status: WorkerStatus
    endpoint: LoopbackEndpoint | None

    @property
    def ready(self) -> bool:
        return self.status.phase is WorkerPhase.READY


class WorkerUnknown(NotFound):
    """No such worker in this node's desired state."""

    code = "worker_unknown"

    def __init__(self, worker_id: str) -> None:
        super().__init__("worker", worker_id)


class WorkerUnready(Unavailable):
    """The worker is wanted here, but takes no requests now."""

    code = "worker_unready"

    def __init__(self, worker_id: str, phase: WorkerPhase, detail: str) -> None:
        super().__init__(
            f"worker {worker_id!r} is {phase}: {detail}" if detail else f"worker {worker_id!r} is {phase}"
        )
        self.worker_id, self.phase = worker_id, phase


def advance(status: WorkerStatus, signal: Signal, *, detail: str) -> WorkerStatus:
    """The status after ``signal``. A new start begins at its own progress; within one start it only grows."""
    after = NEXT[status.phase].get(signal)
    if after is None:
        raise UnexpectedSignal(status.phase, signal)
    progress = PROGRESS.get(after, status.progress_percent)
    if signal is not Signal.BEGUN:
        progress = max(progress, status.progress_percent)
    return replace(status, phase=after, progress_percent=progress, detail=detail)


def further(status: WorkerStatus, progress_percent: int, *, detail: str) -> WorkerStatus:
    """The status a step further inside its phase; progress never falls."""
    return replace(status, progress_percent=max(progress_percent, status.progress_percent), detail=detail)
