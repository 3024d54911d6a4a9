"""The embedded Postgres: made once, started as our child, adopted when it outlived us, restarted when it dies.

    password          of the only role; ours alone
    data/             the cluster; the server's user alone
    run/              its socket; nothing listens on TCP
    server.log        what it says
    lock              held while a control plane uses this folder

A control plane that is killed leaves its server running; the next one adopts it, so clients of an orderly restart
and of a crash wait equally little.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

import asyncpg

from control_plane.store import postgres_home as home
from control_plane.store.postgres_home import PORT, PostgresFailed, RunAs
from mesh.kit.backoff import Backoff
from mesh.kit.clock import Clock
from mesh.kit.logs import F
from pki.files import write_private

log = getLogger(__name__)

ROLE, DATABASE = "mesh", "mesh"
ANSWER_S = 60.0  # for a server that lives and says nothing; while it says "starting up", we wait on
STOP_S, STOP_HARD_S = 15.0, 5.0  # an orderly stop takes a tenth of a second; after it, a stop like a crash
CHECK_S = 0.5  # how late a death is noticed
TURN_S = 0.05  # between two looks at a server that is coming up or going down
COMPLAINT_MAX = 64 * 1024  # octets of a failed start that are searched for its reason
LOG_MAX = 8 * 2**20  # octets of server.log kept at a start; one older file is kept beside it

# Small, because it shares a machine with models; durable, because it is the truth.
_OPTIONS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "off",
}
_ENVIRON = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/"}
_COMPLAINT = re.compile(r"(?:FATAL|PANIC|ERROR|initdb: error|error):\s+(?P<text>.*)")
_DETAIL = re.compile(r"(?:DETAIL|HINT|initdb: detail):\s+(?P<text>.*)")


@dataclass(slots=True)
class _Server:
    """A running server: our child, or one that we adopted."""

    pid: int
    data: Path
    child: "subprocess.Popen[bytes] | None" = None

    @property
    def gone(self) -> bool:
        return self.child.poll() is not None if self.child else not home.is_server_of(self.pid, self.data)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class EmbeddedPostgres:
    """One server in one folder. ``start`` first, then keep ``run`` running, then ``stop``.

    ``options`` overrides server settings. ``user`` matters only when we are root.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        bin_dir: Path | None = None,
        user: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._directory, self._clock = directory.resolve(), clock
        self._bin_dir, self._user = bin_dir, user
        self._options = {**_OPTIONS, **(options or {})}
        self._lock: IO[bytes] | None = None
        self._run_as: RunAs | None = None
        self._server: _Server | None = None
        self._sockets = self._directory / "run"

    @property
    def dsn(self) -> str:
        """How to connect, once it has started. It stays the same over restarts of the server."""
        return self._dsn(DATABASE)

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._server is not None, "start first"
        return self._server.pid

    async def start(self) -> None:
        """Return when the database answers. PostgresFailed says in one line why it does not."""
        try:
            self._run_as = home.run_as(self._user)
            home.make_home(self._directory, self._run_as)
            self._hold()
            await self._bring_up()
        except OSError as exc:
            await self.stop()
            raise PostgresFailed(f"embedded Postgres: {exc.strerror or exc}: {exc.filename}") from exc
        except BaseException:  # edge: whatever ended the start, neither server nor lock stays behind
            await self.stop()
            raise

    async def run(self) -> None:
        """Start it again whenever it dies, until cancelled."""
        while True:
            await self._clock.sleep(CHECK_S)
            if self._server is not None and self._server.gone:
                log.error("database died", extra={F.PID: self._server.pid, F.PATH: str(self._log_path)})
                async for _ in Backoff(self._clock, first_s=0.5, cap_s=10.0).attempts():
                    try:
                        await self._launch()
                        break
                    except PostgresFailed as exc:
                        log.error("database does not start", extra={F.REASON: str(exc)})

    async def stop(self) -> None:
        """Stop the server and let go of the folder. Connections still open are cut."""
        server, self._server = self._server, None
        if server is not None:
            for number, patience_s in ((signal.SIGINT, STOP_S), (signal.SIGQUIT, STOP_HARD_S)):
                server.signal(number)
                if await self._until_gone(server, patience_s):
                    break
            else:
                log.error("database does not stop", extra={F.PID: server.pid})
        self._let_go()

    # -- how it comes up

    async def _bring_up(self) -> None:
        self._sockets = home.socket_dir(self._directory, self._run_as)
        self._bin_dir = await asyncio.to_thread(
            home.reachable_bin_dir, home.find_bin_dir(self._bin_dir), self._directory, self._run_as
        )
        if not self._data.exists():
            await self._initialise()
        if not await self._adopt():
            await self._launch()
        await self._make_database()

    async def _initialise(self) -> None:
        """Make the cluster beside its place and move it there: half a cluster never counts as one."""
        scratch = self._directory / "data.new"
        if scratch.exists():
            shutil.rmtree(scratch)
        password = self._directory / "password"
        if not password.exists():
            write_private(password, secrets.token_urlsafe(24).encode())
        home.own_dir(scratch, self._run_as)
        handover = self._sockets / "password"  # in a folder that the server's user can read
        write_private(handover, password.read_bytes())
        if self._run_as is not None:
            os.chown(handover, self._run_as.uid, self._run_as.gid)
        try:
            await self._initdb(scratch / "cluster", handover)
        finally:
            handover.unlink()
        (scratch / "cluster").rename(self._data)
        scratch.rmdir()
        log.info("database made", extra={F.PATH: str(self._data)})

    async def _initdb(self, data: Path, password: Path) -> None:
        # fmt: off
        arguments = [
            "-D", str(data), "-U", ROLE, "--pwfile", str(password), "-A", "scram-sha-256",
            "-E", "UTF8", "--locale", "C.UTF-8", "--data-checksums",
        ]
        # fmt: on
        since = self._log_size()
        maker = self._spawn("initdb", arguments)
        try:
            while maker.poll() is None:
                await self._clock.sleep(TURN_S)
        except BaseException:  # edge: whatever ended the wait, the child does not outlive it
            maker.kill()
            maker.wait()
            raise
        if maker.returncode != 0:
            raise PostgresFailed(f"embedded Postgres cannot be made: {self._complaint(since)}")

    async def _adopt(self) -> bool:
        """Take over a server of this folder that is still running."""
        lines = self._pid_file()
        if not lines:
            return False
        server = _Server(int(lines[0]), self._data)
        if server.gone:
            return False
        if len(lines) > 7 and lines[7].strip() == "stopping" and await self._until_gone(server, STOP_S):
            return False
        if len(lines) > 4 and lines[4]:
            self._sockets = Path(lines[4])
        await self._until_it_answers(server, since=self._log_size())
        self._server = server
        log.info("database adopted", extra={F.PID: server.pid})
        return True

    async def _launch(self) -> None:
        """Start the server as our child."""
        await self._make_way()
        self._turn_log()
        since = self._log_size()
        options = {**self._options, "unix_socket_directories": str(self._sockets)}
        arguments = ["-D", str(self._data)]
        for name, value in options.items():
            arguments += ["-c", f"{name}={value}"]
        child = self._spawn("postgres", arguments)
        server = _Server(child.pid, self._data, child)
        try:
            await self._until_it_answers(server, since=since)
        except BaseException:  # edge: whatever ended the wait, the child does not outlive it
            server.signal(signal.SIGQUIT)
            child.wait()
            raise
        self._server = server
        log.info("database started", extra={F.PID: child.pid})

    async def _make_way(self) -> None:
        """Clear what a dead server left behind, once nothing of it runs any more."""
        deadline = self._clock.monotonic() + STOP_S
        while holders := home.working_in(self._data):
            if self._clock.monotonic() > deadline:
                raise PostgresFailed(
                    f"processes {holders} of a dead server still hold {self._data}; end them first"
                )
            await self._clock.sleep(TURN_S)
        lines = self._pid_file()
        if lines and home.exists(int(lines[0])):
            # Postgres refuses to start while any process has that number, and this one is not Postgres.
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    async def _until_it_answers(self, server: _Server, *, since: int) -> None:
        deadline = self._clock.monotonic() + ANSWER_S
        while True:
            try:
                db = await self._connect("postgres")
            except asyncpg.CannotConnectNowError:  # recovering after a crash takes as long as it takes
                deadline = self._clock.monotonic() + ANSWER_S
            except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
                pass
            except asyncpg.PostgresError as exc:
                raise PostgresFailed(f"embedded Postgres refuses us: {exc}") from exc
            else:
                await db.close()
                return
            if server.gone:
                raise PostgresFailed(f"embedded Postgres does not start: {self._complaint(since)}")
            if self._clock.monotonic() > deadline:
                raise PostgresFailed(f"embedded Postgres (pid {server.pid}) runs but does not answer")
            await self._clock.sleep(TURN_S)

    async def _make_database(self) -> None:
        db = await self._connect("postgres")
        try:
            if not await db.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await db.execute(f"CREATE DATABASE {DATABASE}")
        except (asyncpg.PostgresError, OSError) as exc:
            raise PostgresFailed(f"embedded Postgres: {exc}") from exc
        finally:
            await db.close()

    # -- the small things

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _dsn(self, database: str) -> str:
        password = quote((self._directory / "password").read_text(), safe="")
        where = urlencode({"host": str(self._sockets), "port": PORT})
        return f"postgresql://{ROLE}:{password}@/{database}?{where}"

    async def _connect(self, database: str) -> Any:
        return await asyncpg.connect(self._dsn(database), timeout=5, command_timeout=30)

    def _spawn(self, program: str, arguments: list[str]) -> "subprocess.Popen[bytes]":
        assert self._bin_dir is not None
        user = self._run_as
        # A session of its own: Ctrl-C at a terminal is for us, and we still need the database while we stop.
        with self._log_path.open("ab") as output:
            return subprocess.Popen(
                [self._bin_dir / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_ENVIRON,
                cwd="/",
                start_new_session=True,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )

    async def _until_gone(self, server: _Server, patience_s: float) -> bool:
        deadline = self._clock.monotonic() + patience_s
        while not server.gone:
            if self._clock.monotonic() > deadline:
                return False
            await self._clock.sleep(TURN_S)
        return True

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _hold(self) -> None:
        self._lock = (self._directory / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise PostgresFailed(f"another control plane uses {self._directory}") from exc

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _log_path(self) -> Path:
        return self._directory / "server.log"

    def _log_size(self) -> int:
        return self._log_path.stat().st_size if self._log_path.exists() else 0

    def _turn_log(self) -> None:
        if self._log_size() > LOG_MAX:
            self._log_path.rename(self._log_path.with_suffix(".log.1"))

    def _complaint(self, since: int) -> str:
        """What the server complained of since then, as one line."""
        with self._log_path.open("rb") as file:
            file.seek(since)
            lines = file.read(COMPLAINT_MAX).decode(errors="replace").splitlines()
        return complaint_in(lines) or f"see {self._log_path}"


def complaint_in(lines: list[str]) -> str:
    """The complaint behind a failed start: a full disk, else the first, with its detail; else the last word."""
    told = [
        (place, match["text"].strip()) for place, line in enumerate(lines) if (match := _COMPLAINT.search(line))
    ]
    if not told:
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    place, text = next((one for one in told if "No space left" in one[1]), told[0])
    detail = _DETAIL.search(lines[place + 1]) if place + 1 < len(lines) else None
    return f"{text} ({detail['text'].strip()})" if detail else text
