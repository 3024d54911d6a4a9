"""Keeps processes running: starts them again when they die, gives up loudly when that does not help.

Children have sessions of their own, so that Ctrl-C reaches only us and we decide who stops first. Their output
goes to one log file each. ``up.json`` always says which process has which pid.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.ctl.errors import BAD_INPUT, CommandFailed
from control_plane.ctl.up.layout import Layout, write_json
from control_plane.ctl.up.proc import started_at
from mesh.kit.clock import Clock

GIVE_UP_AFTER = 5  # unexpected ends ...
GIVE_UP_WITHIN_S = 60.0  # ... within this long
LOG_LIMIT = 16 * 2**20  # octets; a log longer than this begins anew at the next start of its process
TAIL_LINES = 8
POLL_S = 0.02  # how often a file is looked for that a child writes within a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What to run. ``environ`` is asked at each start: by then ports may be known that were not before."""

    name: str
    command: tuple[str, ...]
    environ: Callable[[], Mapping[str, str]]
    listening: Path
    """Written by the process when all its listeners are up."""
    stop_budget_s: float


class GaveUp(CommandFailed):
    """A process does not stay up."""

    def __init__(self, name: str, why: str, log: Path) -> None:
        self.tail = tail(log)
        said = _last_words(self.tail)
        super().__init__(f"the {name} {why}{f': {said}' if said else ''} (log: {log})")
        self.name = name


@dataclass(slots=True)
class _Running:
    process: Process
    child: asyncio.subprocess.Process | None = None
    starts: int = 0
    stopping: bool = False
    code: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Supervisor:
    """Processes of one state folder. ``failed`` is set once one of them is given up."""

    layout: Layout
    clock: Clock
    group: asyncio.TaskGroup
    note: Callable[[str], None]
    """Told, in one line, what a person should know."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    failure: GaveUp | None = None
    _running: dict[str, _Running] = field(default_factory=dict)

    def start(self, process: Process) -> None:
        """Run it from now on."""
        process.listening.unlink(missing_ok=True)  # of one that was killed; nobody may read it as this one's
        running = self._running[process.name] = _Running(process)
        self.group.create_task(self._keep(running), name=f"keep {process.name}")

    async def listening(self, name: str) -> dict[str, str]:
        """What it listens on, once it does. GaveUp when it does not get there."""
        path = self._running[name].process.listening
        while True:
            if self.failure is not None:
                raise self.failure
            with contextlib.suppress(FileNotFoundError, ValueError):
                row = json.loads(path.read_text())
                return {str(key): str(value) for key, value in row.items()}
            await self.clock.sleep(POLL_S)

    async def stop(self, name: str) -> bool:
        """SIGTERM, then after its budget SIGKILL. Returns when it is gone: whether it ended as it should."""
        running = self._running.get(name)
        if running is None:
            return False
        running.stopping = True
        _signal(running.child, signal.SIGTERM)
        try:
            async with asyncio.timeout(running.process.stop_budget_s):
                await running.ended.wait()
        except TimeoutError:
            self.note(f"{name} does not stop; ending it")
            _kill(running.child)
            await running.ended.wait()
        return running.code == 0

    def kill_all(self) -> None:
        """End everything at once, unfinished work and all."""
        for running in self._running.values():
            running.stopping = True
            _kill(running.child)

    async def _keep(self, running: _Running) -> None:
        process = running.process
        log = self.layout.log(process.name)
        ends: deque[float] = deque(maxlen=GIVE_UP_AFTER)
        try:
            while not running.stopping:
                code = await self._run_once(running, log)
                if running.stopping:
                    return
                ends.append(self.clock.monotonic())
                if code == BAD_INPUT:  # settings, ports, packages: the same again would fail the same way
                    return self._give_up(GaveUp(process.name, "cannot run", log))
                while ends[-1] - ends[0] >= GIVE_UP_WITHIN_S:
                    ends.popleft()  # long ago: neither a reason to give up nor one to wait
                if len(ends) == GIVE_UP_AFTER:
                    return self._give_up(GaveUp(process.name, f"ended {GIVE_UP_AFTER} times within a minute", log))
                self.note(f"{process.name} {_how(code)}; starting it again")
                await self.clock.sleep(min(0.1 * 2 ** len(ends), 3.0))
        except OSError as exc:  # no memory, no disk, no processes left
            self._give_up(GaveUp(process.name, f"cannot be started ({exc.strerror})", log))
        finally:
            running.ended.set()

    async def _run_once(self, running: _Running, log: Path) -> int:
        process = running.process
        process.listening.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            flags |= os.O_TRUNC
        output = os.open(log, flags, 0o600)
        try:
            running.child = await asyncio.create_subprocess_exec(
                *process.command,
                env=dict(process.environ()),
                cwd=self.layout.root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            os.close(output)
        running.starts += 1
        if running.stopping:  # asked to while it was being made
            _signal(running.child, signal.SIGTERM)
        try:
            self._publish()
            running.code = await running.child.wait()
            return running.code
        except BaseException:  # edge: whatever ends us leaves no child behind
            _kill(running.child)
            raise
        finally:
            running.child = None

    def _give_up(self, failure: GaveUp) -> None:
        self.failure = self.failure or failure
        self.failed.set()

    def _publish(self) -> None:
        rows = {
            name: {"pid": one.child.pid, "started_at": started_at(one.child.pid), "starts": one.starts}
            for name, one in self._running.items()
            if one.child is not None
        }
        write_json(self.layout.up, {"pid": os.getpid(), "processes": rows})


def tail(log: Path) -> list[str]:
    """The last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            return file.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
    except FileNotFoundError:
        return []


def _last_words(lines: list[str]) -> str:
    """What the last line says, be it plain or one of our JSON logs."""
    if not lines:
        return ""
    try:
        row = json.loads(lines[-1])
        return " ".join(str(row[key]) for key in ("message", "reason") if key in row)
    except (ValueError, TypeError, KeyError):
        return lines[-1][:300]


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _kill(child: asyncio.subprocess.Process | None) -> None:
    """End it and what it started in its own process group (the embedded Postgres, not the agent's engines)."""
    if child is not None and child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _signal(child: asyncio.subprocess.Process | None, number: int) -> None:
    if child is not None and child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
