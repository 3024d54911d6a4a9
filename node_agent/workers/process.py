"""Engines as processes of their own: in their own session, with a log, a record and a label each.

They outlive the agent. Rules: the intent is on disk before anything is spawned; a record is believed only when
pid, start time and label agree; whatever carries our label without a record that fits is a leftover.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from mesh.kit.errors import InvalidInput
from mesh.kit.logs import F
from node_agent.core.command import Command
from node_agent.workers import enginelog, proc, record
from node_agent.workers.port import CannotStart, Compose, Running
from node_agent.workers.record import Record

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
KILLED_WITHIN_S = 5.0  # the kernel ends a killed process at once, unless it hangs in a driver
KEPT_FOLDERS = 20  # folders of workers that are no more, kept for their logs
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(slots=True)
class ProcessRuntime:
    """Implements ``Runtime``. One agent per ``state_dir``; ``environment`` is what engines inherit."""

    state_dir: Path
    environment: Mapping[str, str] = field(repr=False)  # it may hold secrets
    _ports: set[int] = field(init=False, default_factory=set)

    @property
    def _folders(self) -> Path:
        return self.state_dir / "workers"

    def _folder(self, worker_id: str) -> Path:
        if not _FOLDER.fullmatch(worker_id):  # it comes from outside and becomes a path
            raise InvalidInput("worker_id", f"{worker_id!r} cannot name a folder")
        return self._folders / worker_id

    def _label(self, worker_id: str) -> str:
        digest = hashlib.sha256(os.fsencode(self.state_dir.resolve())).hexdigest()[:16]
        return f"{digest}:{worker_id}"

    async def found(self) -> tuple[Running, ...]:
        label = self._label("")
        alive = await asyncio.to_thread(proc.labelled, label)
        found = []
        for folder in self._kept_folders():
            kept = record.read(folder)
            if kept is not None and (running := _believed(kept, alive)) is not None:
                found.append(running)
                self._ports.add(running.port)
        families = {running.pid for running in found}
        strays = {
            process.label.removeprefix(label): process
            for process in alive.values()
            if not _belongs(process, families, alive)
        }
        for worker_id, process in strays.items():
            found.append(
                Running(
                    key=f"stray.{process.pid}.{process.ticks}",
                    worker_id=worker_id,
                    spec_hash="",
                    pid=process.pid,
                    port=0,
                    starts=0,
                    adoptable=False,
                )
            )
        return tuple(found)

    async def start(self, worker_id: str, spec_hash: str, compose: Compose) -> Running:
        folder = self._folder(worker_id)
        try:
            port = self._free_port()
        except OSError as exc:
            raise CannotStart(f"cannot get a port: {exc.strerror}") from exc
        command = compose(port)
        before = record.read(folder)
        intent = Record(
            worker_id=worker_id,
            spec_hash=spec_hash,
            label=self._label(worker_id),
            port=port,
            command=command.argv,
            starts=before.starts + 1 if before is not None and before.spec_hash == spec_hash else 1,
        )
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._prune(keep=folder)
            enginelog.trim(folder, cap=enginelog.TAIL)
            record.write(folder, intent)
            pid = self._spawn(folder, command, intent.label)
        except OSError as exc:
            raise CannotStart(f"cannot start {command.argv[0]}: {exc.strerror}: {exc.filename or folder}") from exc
        # Our child, not waited for yet: even if it has ended, the kernel keeps its entry.
        written = replace(intent, pid=pid, start_time=proc.start_ticks(pid))
        try:
            record.write(folder, written)
        except OSError as exc:
            os.killpg(pid, signal.SIGKILL)
            raise CannotStart(f"cannot note the engine: {exc.strerror}: {exc.filename or folder}") from exc
        self._ports.add(port)
        return _running(written)

    async def exited(self, running: Running) -> str:
        return await proc.ended(running.pid, _ticks(running))

    async def stop(self, running: Running, *, grace_s: float) -> None:
        await self._signal(running, signal.SIGTERM)
        if not await self._gone_within(running, grace_s):
            log.warning("engine did not stop when asked", extra={F.WORKER: running.worker_id, F.PID: running.pid})
        # Also what it left behind: a child that lost its parent may still hold the accelerator's memory.
        await self._signal(running, signal.SIGKILL)
        if not await self._gone_within(running, KILLED_WITHIN_S):
            log.error(
                "engine does not even end when killed", extra={F.WORKER: running.worker_id, F.PID: running.pid}
            )
        self._ports.discard(running.port)
        self._note(running, pid=None, start_time=None)

    def owns_port(self, running: Running) -> bool:
        try:
            engine = psutil.Process(running.pid)
            return any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == running.port
                for process in (engine, *engine.children(recursive=True))
                for connection in process.net_connections("tcp4")
            )
        except psutil.Error:
            return False

    def remember_ready(self, running: Running) -> Running:
        self._note(running, was_ready=True)
        return replace(running, was_ready=True)

    def last_line(self, worker_id: str) -> str:
        return enginelog.last_line(self._folder(worker_id))

    def trim_log(self, worker_id: str) -> None:
        try:
            enginelog.trim(self._folder(worker_id))
        except OSError as exc:
            log.warning("cannot shorten an engine's log", extra={F.WORKER: worker_id, F.REASON: exc.strerror})

    def _note(self, running: Running, **changes: object) -> None:
        """Change the record, if it is still that engine's."""
        folder = self._folder(running.worker_id)
        try:
            kept = record.read(folder)
            if kept is not None and (kept.pid, kept.start_time) == (running.pid, _ticks(running)):
                record.write(folder, replace(kept, **changes))  # type: ignore[arg-type]  # names are written above
        except OSError as exc:  # a full disk: adopting works without it, only less well
            log.warning("cannot note an engine's state", extra={F.WORKER: running.worker_id, F.REASON: str(exc)})

    def _free_port(self) -> int:
        """A loopback port that nobody listens on now and that none of our engines was given."""
        while True:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                port: int = probe.getsockname()[1]
            if port not in self._ports:
                return port

    def _spawn(self, folder: Path, command: Command, label: str) -> int:
        inherited = {name: value for name, value in self.environment.items() if not name.startswith("MESH_")}
        with enginelog.path(folder).open("ab") as output:
            child = subprocess.Popen(
                command.argv,
                cwd=folder,
                env={**inherited, **command.environment, proc.LABEL: label},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # The engine is waited for through its pidfd, by whoever looks after it, perhaps another agent. To this
        # object it is over; otherwise it would warn, when collected, of a child that lives on. It is meant to.
        child.returncode = 0
        return child.pid

    async def _signal(self, running: Running, number: signal.Signals) -> None:
        """Send it to the engine's process group and to everything else that is of this engine."""
        if proc.start_ticks(running.pid) == _ticks(running):
            with contextlib.suppress(ProcessLookupError):  # not a leader: a leftover's child
                os.killpg(running.pid, number)
        for process in await asyncio.to_thread(self._condemned, running):
            proc.send(process, number)

    def _condemned(self, running: Running) -> list[proc.Process]:
        """Everything of this worker that lives, but another engine that is on record."""
        alive = proc.labelled(self._label(""))
        label, kept = self._label(running.worker_id), record.read(self._folder(running.worker_id))
        spared = {kept.pid} if kept and kept.pid not in (None, running.pid) and _believed(kept, alive) else set()
        return [
            process
            for process in alive.values()
            if process.label == label and not _belongs(process, spared, alive)
        ]

    async def _gone_within(self, running: Running, budget_s: float) -> bool:
        try:
            async with asyncio.timeout(budget_s):
                await self.exited(running)
        except TimeoutError:
            return False
        return True

    def _kept_folders(self) -> list[Path]:
        """Folders of workers, the one written to last first."""
        try:
            with os.scandir(self._folders) as entries:
                written = [(entry.stat().st_mtime, Path(entry.path)) for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return []
        return [folder for _, folder in sorted(written, reverse=True)]

    def _prune(self, *, keep: Path) -> None:
        """Drop the oldest folders of workers that no engine runs for."""
        for folder in self._kept_folders()[KEPT_FOLDERS:]:
            kept = record.read(folder)
            if folder != keep and (
                kept is None or kept.pid is None or proc.start_ticks(kept.pid) != kept.start_time
            ):
                shutil.rmtree(folder, ignore_errors=True)


def _believed(kept: Record, alive: Mapping[int, proc.Process]) -> Running | None:
    """The engine of a record, if pid, start time and label agree that it is alive."""
    process = alive.get(kept.pid or 0)
    if process is None or process.ticks != kept.start_time or process.label != kept.label:
        return None
    return _running(kept)


def _belongs(
    process: proc.Process, families: set[int | None] | set[int], alive: Mapping[int, proc.Process]
) -> bool:
    """Whether it is, or descends from, one of these engines."""
    seen: set[int] = set()
    while process.pid not in seen:
        if process.pid in families or process.session in families:
            return True
        seen.add(process.pid)
        process = alive.get(process.parent, process)
    return False


def _running(kept: Record) -> Running:
    return Running(
        key=f"{kept.worker_id}.{kept.pid}.{kept.start_time}",
        worker_id=kept.worker_id,
        spec_hash=kept.spec_hash,
        pid=kept.pid or 0,
        port=kept.port,
        starts=kept.starts,
        was_ready=kept.was_ready,
    )


def _ticks(running: Running) -> int:
    """The start time, which is the last part of the key."""
    return int(running.key.rpartition(".")[2])
