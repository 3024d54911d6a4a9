"""Waiting for a deployment, worker by worker: bars on a terminal, a line per change elsewhere. All on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from control_plane.ctl.admin import Admin
from control_plane.ctl.commands.phases import phase_of
from control_plane.ctl.errors import CommandFailed, Unreachable
from control_plane.ctl.output import printable, say
from mesh.admin.v1 import deployment_pb2 as pb
from mesh.kit.clock import Clock

POLL_S = 0.3  # an admin call is a millisecond; people see a bar move three times a second
POLL_BUDGET_S = 5.0


class Display(Protocol):
    """Where the state of a deployment's workers is shown while someone waits."""

    def update(self, deployment: pb.Deployment) -> None:
        """Show it as it is now."""


def ready_count(deployment: pb.Deployment) -> int:
    """How many of its workers answer requests."""
    return sum(phase_of(worker.phase) == "ready" for worker in deployment.workers)


def short(worker_id: str) -> str:
    """Enough of an id to tell workers apart; a UUIDv7 begins with time, so its end."""
    return worker_id[-8:]


def describe(worker: pb.Worker) -> str:
    """One worker in words: ``starting 40 % (loading weights)``."""
    phase = phase_of(worker.phase)
    percent = f" {worker.progress_percent} %" if 0 < worker.progress_percent < 100 else ""
    detail = f" ({printable(worker.detail)})" if worker.detail and phase != "ready" else ""
    return f"{phase}{percent}{detail}"


async def until_ready(
    admin: Admin, deployment: str, display: Display, clock: Clock, *, budget_s: float
) -> pb.Deployment:
    """The deployment once as many workers are ready as it wants. CommandFailed when the budget is spent first.

    A control plane that is away for a moment is waited for, too.
    """
    deadline = clock.monotonic() + budget_s
    request = pb.GetDeploymentRequest(deployment=deployment)
    last: str = "nothing is known of it"
    while True:
        try:
            found = (await admin.call(request, pb.GetDeploymentResponse, budget_s=POLL_BUDGET_S)).deployment
        except Unreachable as exc:
            last = str(exc)
        else:
            display.update(found)
            if ready_count(found) >= found.replicas:
                return found
            last = _why(found)
        if clock.monotonic() >= deadline:
            raise CommandFailed(f"deployment {deployment!r} is not ready: {last}")
        await clock.sleep(POLL_S)


def _why(deployment: pb.Deployment) -> str:
    counts = f"{ready_count(deployment)} of {deployment.replicas} workers ready"
    workers = [describe(worker) for worker in deployment.workers if phase_of(worker.phase) != "ready"]
    return "; ".join((counts, *workers[:3], *filter(None, (printable(deployment.pending_reason),))))


class Lines:
    """One line per worker and change, for logs and pipes."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def update(self, deployment: pb.Deployment) -> None:
        rows = {short(worker.worker_id): describe(worker) for worker in deployment.workers}
        if deployment.pending_reason:
            rows["pending"] = printable(deployment.pending_reason)
        for name, words in rows.items():
            if self._shown.get(name) != words:
                say(f"  {name}: {words}" if name == "pending" else f"  worker {name}: {words}")
        self._shown = rows


class Bars:
    """A bar per worker, redrawn in place."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, deployment: pb.Deployment) -> None:
        rows = {
            f"worker {short(one.worker_id)}": (one.progress_percent, describe(one)) for one in deployment.workers
        }
        if deployment.pending_reason:
            rows["pending"] = (0, printable(deployment.pending_reason))
        for gone in self._tasks.keys() - rows.keys():
            self._progress.remove_task(self._tasks.pop(gone))
        for name, (percent, words) in rows.items():
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=100, words="")
            self._progress.update(
                self._tasks[name], completed=100 if words.startswith("ready") else percent, words=words
            )


@contextmanager
def display() -> Iterator[Display]:
    """Bars when a person watches stderr, lines otherwise."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[words]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as progress:
        yield Bars(progress)
