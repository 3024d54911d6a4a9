"""``mesh-gateway --workers N``: starts the processes of one gateway, starts again what dies, ends them together.

Each is a whole gateway (``python -m gateway``) with a folder, a tunnel port and a spool of its own; the kernel
spreads clients' connections over them. Nothing is forked. Each holds the read end of a pipe as its standard input
and stops when that ends, so that none outlives this process, however it ended.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.api.siblings import MAX_PATH, socket_of
from gateway.settings import Settings
from gateway.start import StartFailed
from mesh.kit.clock import Clock
from mesh.kit.logs import F
from mesh.kit.settings import Address
from pki.files import make_private_dir, write_atomic

log = logging.getLogger(__name__)

LISTENING: Final = "listening.json"
MOST: Final = 64
DEATHS, WITHIN_S = 5, 60.0  # so many deaths in so long, of all together: starting again does not help
LOOK_S: Final = 0.05  # how often it is looked whether a process listens by now
LAST_S: Final = 15.0  # beyond their grace, for the last report and for closing
CLOSED_WITHIN_S: Final = 1.0
BAD_INPUT: Final = 2


@dataclass(frozen=True, slots=True)
class Ended:
    """A process ended in a way that ends all. ``code`` is what we exit with."""

    code: int
    why: str


def environ_of(
    environ: Mapping[str, str], settings: Settings, http: Address, number: int, count: int
) -> dict[str, str]:
    """What one of the processes is started with. Its ports are the settings' plus its number; 0 stays 0."""
    found = {
        **environ,
        "MESH_GW_PROCESS": str(number),
        "MESH_GW_PROCESS_COUNT": str(count),
        "MESH_GW_STATE_DIR": str(folder_of(settings, number)),
        "MESH_GW_HTTP_LISTEN": str(http),
    }
    for name in ("tunnel_listen", "advertise_tunnel", "peer_listen", "advertise_peer"):
        address: Address | None = getattr(settings, name)
        if address is not None:
            port = address.port + number if address.port else 0
            found[f"MESH_GW_{name.upper()}"] = str(Address(address.host, port))
    return found


def folder_of(settings: Settings, number: int) -> Path:
    """What is one process's own."""
    return settings.state_dir / f"process-{number}"


def check(settings: Settings, count: int) -> None:
    """StartFailed when so many cannot be made of these settings."""
    for name in ("tunnel_listen", "advertise_tunnel", "peer_listen", "advertise_peer"):
        address: Address | None = getattr(settings, name)
        if address is not None and address.port + count - 1 > 65_535:
            raise StartFailed(f"MESH_GW_{name.upper()}: port {address.port} leaves no room for {count} processes")
    path = socket_of(folder_of(settings, count - 1))
    if len(str(path).encode()) > MAX_PATH:
        raise StartFailed(f"MESH_GW_STATE_DIR: {path} is longer than a socket's path may be; choose a shorter one")
    left = [path for path in settings.state_dir.glob("process-*") if _number(path) >= count]
    if (settings.state_dir / "spool").exists():
        left.append(settings.state_dir)
    for path in left:  # of a run with more processes, or with one
        log.warning("usage that lies here is not reported by so many processes", extra={F.PATH: str(path)})


@contextmanager
def shared_port(address: Address) -> Iterator[Address]:
    """The port for clients, ours while the block lasts. StartFailed when somebody else has it."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as alone, socket.socket(family) as shared:
        try:
            # Without SO_REUSEPORT first: another gateway's port would be shared with it, and nobody would notice.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((address.host, address.port))
            port = int(alone.getsockname()[1])
            alone.close()
            # Bound and never listening: it gets no connections, and keeps the port while all are starting again.
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            shared.bind((address.host, port))
        except OSError as exc:
            raise StartFailed(
                f"cannot listen on {address}: {exc.strerror}; choose another with MESH_GW_HTTP_LISTEN"
            ) from exc
        yield Address(address.host, port)


@dataclass(slots=True)
class Workers:
    """The processes of one gateway."""

    settings: Settings
    count: int
    environ: Mapping[str, str]
    clock: Clock
    _http: Address = field(init=False)
    _running: dict[int, asyncio.subprocess.Process] = field(init=False, default_factory=dict)
    _listening: dict[int, dict[str, Any]] = field(init=False, default_factory=dict)
    _deaths: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=DEATHS))
    _stopping: bool = field(init=False, default=False)

    async def run(self, stop: asyncio.Event) -> int:
        """Until ``stop`` is set and all have ended; the exit code. StartFailed when it cannot begin."""
        check(self.settings, self.count)
        try:
            make_private_dir(self.settings.state_dir)
        except OSError as exc:
            raise StartFailed(f"MESH_GW_STATE_DIR: {exc.strerror}: {self.settings.state_dir}") from exc
        announced = self.settings.state_dir / LISTENING
        announced.unlink(missing_ok=True)
        with shared_port(self.settings.http_listen) as self._http:
            try:
                return await self._together(stop)
            finally:
                announced.unlink(missing_ok=True)

    async def _together(self, stop: asyncio.Event) -> int:
        ended: Ended | None = None
        async with asyncio.TaskGroup() as group:
            # The first one alone: what is wrong with the settings is said once.
            first_is_up = asyncio.Event()
            keeping = [group.create_task(self._keep(0, first_is_up.set))]
            told, up = group.create_task(stop.wait()), group.create_task(first_is_up.wait())
            await asyncio.wait([told, up, *keeping], return_when=asyncio.FIRST_COMPLETED)
            if first_is_up.is_set() and not stop.is_set():
                keeping += [group.create_task(self._keep(number)) for number in range(1, self.count)]
            await asyncio.wait([told, *keeping], return_when=asyncio.FIRST_COMPLETED)
            self._stopping = True
            await self._end()
            done, late = await asyncio.wait(keeping, timeout=CLOSED_WITHIN_S)
            for task in (told, up, *late):  # late: those that were to be started again later
                task.cancel()
            for one in done:
                ended = one.result() or ended
        if ended is None:
            return 0
        if ended.code != BAD_INPUT:
            log.error("ended together", extra={F.REASON: ended.why})
        return ended.code

    async def _keep(self, number: int, up: Callable[[], None] = lambda: None) -> Ended | None:
        """One process, started again whenever it dies, until all end; why they do, if it is this one's doing."""
        while not self._stopping:
            process = await self._start(number)
            code = await self._watch(number, process, up)
            self._running.pop(number, None)
            self._listening.pop(number, None)
            if self._stopping:
                return None
            if code == BAD_INPUT:  # it has said why
                return Ended(BAD_INPUT, f"process {number} cannot do what was asked")
            now = self.clock.monotonic()
            self._deaths.append(now)
            while now - self._deaths[0] >= WITHIN_S:
                self._deaths.popleft()
            facts: dict[str, object] = {F.PART: f"process {number}", F.CODE: code, F.COUNT: len(self._deaths)}
            log.error("process died", extra=facts)
            if len(self._deaths) == DEATHS:
                return Ended(1, f"{DEATHS} deaths in {WITHIN_S:.0f} s")
            await self.clock.sleep(0.2 * 2 ** len(self._deaths))
        return None

    async def _start(self, number: int) -> asyncio.subprocess.Process:
        (folder_of(self.settings, number) / LISTENING).unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            "--stop-at-eof",
            stdin=asyncio.subprocess.PIPE,
            env=environ_of(self.environ, self.settings, self._http, number, self.count),
        )
        self._running[number] = process
        if self._stopping:  # while it was started
            _signal(process, signal.SIGTERM)
        return process

    async def _watch(self, number: int, process: asyncio.subprocess.Process, up: Callable[[], None]) -> int:
        """Its whole life; the exit code. On the way it is noted where it listens."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look(number, up))
            code = await process.wait()
            looking.cancel()
        return code

    async def _look(self, number: int, up: Callable[[], None]) -> None:
        path = folder_of(self.settings, number) / LISTENING
        while not path.exists():
            await self.clock.sleep(LOOK_S)
        self._listening[number] = orjson.loads(path.read_bytes())
        log.info("process listens", extra={F.PART: f"process {number}"})
        up()
        if len(self._listening) == self.count:
            self._announce()

    def _announce(self) -> None:
        """``listening.json`` of the whole; once more when a process has come back on another port."""
        rows = [self._listening[number] for number in range(self.count)]
        whole: dict[str, object] = {"http": str(self._http), "tunnel": [row["tunnel"] for row in rows]}
        if self.settings.peer_listen is not None:
            whole["peer"] = [row["peer"] for row in rows]
        write_atomic(self.settings.state_dir / LISTENING, orjson.dumps({**whole, "processes": self.count}))

    async def _end(self) -> None:
        """All are told to stop; who does not within its grace is killed."""
        for process in list(self._running.values()):
            _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.stop_grace.total_seconds() + LAST_S):
                for process in list(self._running.values()):
                    await process.wait()
        for process in list(self._running.values()):
            _signal(process, signal.SIGKILL)


def _signal(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _number(path: Path) -> int:
    text = path.name.removeprefix("process-")
    return int(text) if text.isdigit() else -1
