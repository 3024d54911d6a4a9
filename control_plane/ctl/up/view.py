"""What a person sees while the mesh comes up: a line per finished step, and what is going on right now.

On a terminal the current step has a spinner and its elapsed time; elsewhere every change is a line of its own.
All of it is on stderr, so that stdout holds only the answer and how to use the mesh.
"""

import sys
from typing import Protocol

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from control_plane.ctl.output import printable
from control_plane.ctl.progress import describe, short
from mesh.admin.v1 import deployment_pb2
from mesh.kit.clock import Clock


class View(Protocol):
    """Shows steps, one at a time."""

    def begin(self, title: str) -> None:
        """A step starts."""

    def progress(self, words: str) -> None:
        """What it is doing now."""

    def done(self, detail: str) -> None:
        """It is finished."""

    def pause(self) -> None:
        """Draw nothing until the next change: others write now."""

    def abandon(self) -> None:
        """It will not be finished; what went wrong is said elsewhere."""

    def note(self, line: str) -> None:
        """Something worth knowing, at any time."""


class PlainView:
    """A line per event, for logs and pipes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._title, self._began, self._said = "", 0.0, ""

    def begin(self, title: str) -> None:
        self._title, self._began, self._said = title, self._clock.monotonic(), ""

    def progress(self, words: str) -> None:
        if self._title and words != self._said:
            self._said = words
            self._print(f"  ..  {self._title}: {words}")

    def done(self, detail: str) -> None:
        seconds = self._clock.monotonic() - self._began
        self._print(f"  ok  {self._title}{f': {detail}' if detail else ''} ({seconds:.1f} s)")
        self._title = ""

    def pause(self) -> None:
        pass

    def abandon(self) -> None:
        self._title = ""

    def note(self, line: str) -> None:
        self._print(f"   !  {line}")

    def _print(self, line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)


class TerminalView:
    """A spinner for the step that runs, a tick for each that is done."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._console = Console(stderr=True, highlight=False)
        self._live: Progress | None = None
        self._title, self._began = "", 0.0

    def begin(self, title: str) -> None:
        self._title, self._began = title, self._clock.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[words]}", style="dim", markup=False),
            TimeElapsedColumn(),
        )
        self._live = Progress(*columns, console=self._console, transient=True)
        self._live.add_task(title, words="", total=None)
        self._live.start()

    def progress(self, words: str) -> None:
        if self._live is not None:
            self._live.update(self._live.task_ids[0], words=printable(words))

    def done(self, detail: str) -> None:
        self.abandon()
        seconds = self._clock.monotonic() - self._began
        line = Text("✓ ", style="green").append(self._title, style="bold")
        line.append(f"  {printable(detail)}" if detail else "", style="default not bold")
        self._console.print(line.append(f"  {seconds:.1f} s", style="dim"))

    def pause(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def abandon(self) -> None:
        self.pause()

    def note(self, line: str) -> None:
        self._console.print(Text("! ", style="yellow").append(printable(line), style="default"))


def for_stderr(clock: Clock) -> View:
    """The view that suits where stderr goes."""
    return TerminalView(clock) if sys.stderr.isatty() else PlainView(clock)


class WorkersInStep:
    """Shows a deployment's workers as the progress of the current step."""

    def __init__(self, view: View) -> None:
        self._view = view

    def update(self, deployment: deployment_pb2.Deployment) -> None:
        words = [f"worker {short(one.worker_id)} {describe(one)}" for one in deployment.workers]
        if not words:
            words = [deployment.pending_reason or "waiting to be placed"]
        self._view.progress(", ".join(words))
