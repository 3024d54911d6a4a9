"""A runtime whose engines are entries in a table. It keeps every promise of the port, and shows what it did."""

import asyncio
import errno
from dataclasses import dataclass, field, replace

from node_agent.core.command import Command
from node_agent.workers.port import CannotStart, Compose, Running


@dataclass(eq=False)
class FakeProcess:
    """One engine in the table."""

    running: Running
    command: Command
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    how: str = ""


@dataclass(eq=False)
class Host:
    """What outlives a runtime: the machine with its processes and records."""

    processes: dict[str, FakeProcess] = field(default_factory=dict)
    starts: dict[str, tuple[str, int]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def at(self, port: int) -> FakeProcess | None:
        """The living process that listens there."""
        return next((p for p in self.processes.values() if p.running.port == port), None)


@dataclass(eq=False)
class FakeRuntime:
    """Implements ``Runtime``."""

    host: Host = field(default_factory=Host)
    refusal: str = ""
    """If set, nothing can be started, for this reason."""

    stolen: set[int] = field(default_factory=set)
    """Ports on which a stranger answers."""

    stopped: list[str] = field(default_factory=list)
    """Workers whose engines were told to stop, in order."""

    graces: list[float] = field(default_factory=list)
    """What each of them was given to end, in order."""

    trimmed: int = 0

    blind: bool = False
    """Nobody can look at processes now, as when there are no file descriptors left."""

    hidden: set[str] = field(default_factory=set)
    """The same, for the processes of these workers."""

    async def found(self) -> tuple[Running, ...]:
        self._look("")
        return tuple(process.running for process in self.host.processes.values())

    async def start(self, worker_id: str, spec_hash: str, compose: Compose) -> Running:
        if self.refusal:
            raise CannotStart(self.refusal)
        command = compose(20000 + self.host.count)
        before, starts = self.host.starts.get(worker_id, ("", 0))
        starts = starts + 1 if before == spec_hash else 1
        self.host.starts[worker_id] = (spec_hash, starts)
        return self._enter(worker_id, spec_hash, starts, command)

    async def exited(self, running: Running) -> str:
        self._look(running.worker_id)
        process = self.host.processes.get(running.key)
        if process is None:
            return "ended unseen"
        await process.ended.wait()
        return process.how

    async def stop(self, running: Running, *, grace_s: float) -> None:
        self._look(running.worker_id)
        self.stopped.append(running.worker_id)
        self.graces.append(grace_s)
        self.end(running, "killed by signal 15")

    def owns_port(self, running: Running) -> bool:
        return running.key in self.host.processes and running.port not in self.stolen

    def remember_ready(self, running: Running) -> Running:
        process = self.host.processes.get(running.key)
        ready = replace(running, was_ready=True)
        if process is not None:
            process.running = ready
        return ready

    def last_line(self, worker_id: str) -> str:
        return self.host.words.get(worker_id, "")

    def trim_log(self, worker_id: str) -> None:
        self.trimmed += 1

    # What a test makes happen

    def end(self, running: Running, how: str = "exit code 0") -> None:
        """The engine ends, for whatever reason."""
        process = self.host.processes.pop(running.key, None)
        if process is not None:
            process.how = how
            process.ended.set()

    def only(self, worker_id: str) -> Running:
        """The one living engine of that worker."""
        (running,) = (p.running for p in self.host.processes.values() if p.running.worker_id == worker_id)
        return running

    def leave(self, worker_id: str, spec_hash: str, *, adoptable: bool = True, was_ready: bool = True) -> Running:
        """An engine that an earlier agent left here."""
        running = self._enter(worker_id, spec_hash, 1, Command(("engine",), {}))
        self.host.starts[worker_id] = (spec_hash, 1)
        process = self.host.processes[running.key]
        process.running = replace(running, adoptable=adoptable, was_ready=was_ready)
        return process.running

    def _look(self, worker_id: str) -> None:
        if self.blind or worker_id in self.hidden:
            raise OSError(errno.EMFILE, "Too many open files")

    def _enter(self, worker_id: str, spec_hash: str, starts: int, command: Command) -> Running:
        self.host.count += 1
        running = Running(
            key=f"{worker_id}.{self.host.count}",
            worker_id=worker_id,
            spec_hash=spec_hash,
            pid=1000 + self.host.count,
            port=20000 + self.host.count - 1,
            starts=starts,
        )
        self.host.processes[running.key] = FakeProcess(running, command)
        return running
