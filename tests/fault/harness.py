"""A whole mesh of real processes for fault tests: ``meshctl up``, and hands to hurt it with."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp
import asyncpg
import psutil

MODEL = "smollm2-135m-instruct"
START_S = 120.0
T = TypeVar("T")


class NotInTime(AssertionError):
    """Something that had to happen did not, within its bound."""


async def eventually(within_s: float, what: str, ask: Callable[[], T | None]) -> T:
    """The first answer that is neither None nor False, asked again and again; NotInTime after the bound."""
    deadline = time.monotonic() + within_s
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {within_s:.0f} s: {what}")
        await asyncio.sleep(0.05)


@dataclass(slots=True)
class Outcome:
    """What one client saw of one streamed request."""

    request_id: str = ""
    status: int = 0
    text: str = ""
    chunks: int = 0
    completed: bool = False
    error: str = ""

    @property
    def ended_cleanly(self) -> bool:
        """It completed, or the client was told that it did not."""
        return self.completed or bool(self.error)


@dataclass(slots=True)
class Mesh:
    """``meshctl up`` on a folder of its own."""

    state: Path
    up: subprocess.Popen[bytes]
    endpoint: str = ""
    key: str = field(default="", repr=False)

    # Whom to hurt

    def pid(self, process: str) -> int:
        """Of ``control-plane``, ``gateway``, ``agent``, as it runs now."""
        row = json.loads((self.state / "up.json").read_text())["processes"][process]
        return int(row["pid"])

    def engine(self) -> dict[str, object]:
        """The record of the one engine: pid, starts, port."""
        (record,) = (self.state / "agent" / "workers").glob("*/worker.json")
        row: dict[str, object] = json.loads(record.read_text())
        return row

    def postgres_pid(self) -> int:
        (file,) = (self.state / "control-plane" / "postgres").rglob("postmaster.pid")
        return int(file.read_text().splitlines()[0])

    @contextmanager
    def unsupervised(self) -> Iterator[None]:
        """While this lasts, nobody restarts what dies."""
        os.kill(self.up.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.up.pid, signal.SIGCONT)

    # What clients see

    @asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            yield session

    async def stream(
        self,
        client: aiohttp.ClientSession,
        *,
        max_tokens: int,
        on_chunk: Callable[[Outcome], None] | None = None,
        max_wait_s: int = 60,
    ) -> Outcome:
        """One streamed chat; never raises for what a fault does to it. ``max_wait_s``: in the gateway's queue."""
        seen = Outcome()
        body = {
            "model": MODEL,
            "stream": True,
            "max_tokens": max_tokens,
            "temperature": 0,
            "messages": [{"role": "user", "content": "Count from one to one hundred."}],
        }
        try:
            headers = {"X-Inventiv-Max-Wait": str(max_wait_s)}
            async with client.post(f"{self.endpoint}/chat/completions", json=body, headers=headers) as answer:
                seen.status = answer.status
                seen.request_id = answer.headers.get("x-request-id", "")
                if answer.status != 200:
                    seen.error = (await answer.text())[:300] or str(answer.status)
                    return seen
                async for line in answer.content:
                    take(seen, line)
                    if on_chunk is not None:
                        on_chunk(seen)
        except (aiohttp.ClientError, OSError) as exc:
            seen.error = type(exc).__name__
        return seen

    async def answers(self, client: aiohttp.ClientSession) -> bool:
        """Whether a short chat works now."""
        try:
            async with asyncio.timeout(10):
                return (await self.stream(client, max_tokens=2)).completed
        except TimeoutError:
            return False

    async def until_routable(self, client: aiohttp.ClientSession, within_s: float = 15.0) -> None:
        """Wait until a chat works."""
        deadline = time.monotonic() + within_s
        while not await self.answers(client):
            if time.monotonic() > deadline:
                raise NotInTime(f"not routable within {within_s:.0f} s: {self.last_words()}")
            await asyncio.sleep(0.1)

    # What the books say

    async def usage_rows(self, request_ids: set[str], within_s: float = 45.0) -> dict[str, asyncpg.Record]:
        """The usage record of each of those requests, once all have come in; exactly one each by primary key."""
        deadline = time.monotonic() + within_s
        while True:
            rows = await self._query(
                "SELECT * FROM usage_records WHERE request_id::text = ANY($1::text[])", sorted(request_ids)
            )
            if len(rows) == len(request_ids):
                return {str(row["request_id"]): row for row in rows}
            if time.monotonic() > deadline:
                missing = request_ids - {str(row["request_id"]) for row in rows}
                raise NotInTime(
                    f"{len(missing)} of {len(request_ids)} usage records missing: {sorted(missing)[:3]}"
                )
            await asyncio.sleep(0.2)

    async def until_online(self, after_epoch: int, within_s: float = 15.0) -> None:
        """Wait until the control plane has a session of the node that is newer than that."""
        deadline = time.monotonic() + within_s
        while await self.epoch(online=True) <= after_epoch:
            if time.monotonic() > deadline:
                raise NotInTime(f"the node is not online again within {within_s:.0f} s: {self.last_words()}")
            await asyncio.sleep(0.1)

    async def epoch(self, *, online: bool = False) -> int:
        """Number of the node's newest session; 0 while it is not online (if asked), or nobody can say."""
        rows = await self._query("SELECT state, session_epoch FROM nodes WHERE state <> 'revoked'")
        return max((row["session_epoch"] for row in rows if row["state"] == "online" or not online), default=0)

    async def _query(self, sql: str, *args: object) -> list[asyncpg.Record]:
        folder = self.state / "control-plane" / "postgres"
        password = (folder / "password").read_text().strip()
        try:
            connection = await asyncpg.connect(
                host=postgres_socket(folder), user="mesh", password=password, database="mesh", timeout=5
            )
        except (OSError, asyncpg.PostgresError):
            return []
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args)
            return rows
        finally:
            await connection.close()

    def last_words(self) -> str:
        """The end of every log."""
        logs = sorted((self.state / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)


def postgres_socket(folder: Path) -> str:
    """The folder of the socket, as the running server's lock file names it (line 5)."""
    (file,) = folder.rglob("postmaster.pid")
    return file.read_text().splitlines()[4]


def take(seen: Outcome, line: bytes) -> None:
    """One line of an event stream."""
    if not line.startswith(b"data: "):
        return
    data = line[6:].strip()
    if data == b"[DONE]":
        seen.completed = not seen.error
        return
    event = json.loads(data)
    if "error" in event:
        seen.error = str(event["error"].get("code") or event["error"].get("message"))
        return
    seen.chunks += 1
    for choice in event.get("choices", []):
        seen.text += choice["delta"].get("content") or ""


@contextmanager
def running_mesh() -> Iterator[Mesh]:
    """Start a mesh and wait until it is ready; afterwards end it and everything it started."""
    # Not pytest's own folder: the embedded Postgres runs as another user, who may not enter there.
    state = Path(tempfile.mkdtemp(prefix="mesh-fault-", dir="/tmp"))
    state.chmod(0o755)
    with (state / "up.out").open("wb") as out:
        up = subprocess.Popen(
            [sys.executable, "-m", "control_plane.ctl", "up", "--state", state / "up", "--http-port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    mesh = Mesh(state / "up", up)
    try:
        until_ready(mesh, state / "up.out")
        yield mesh
    finally:
        family = psutil.Process(up.pid).children(recursive=True) if up.poll() is None else []
        up.send_signal(signal.SIGCONT)
        up.send_signal(signal.SIGINT)
        try:
            up.wait(40)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            process.kill()
        shutil.rmtree(state, ignore_errors=True)


def until_ready(mesh: Mesh, out: Path) -> None:
    """Until ``up`` says where it is and its first answer has come."""
    deadline = time.monotonic() + START_S
    told = mesh.state / "meshctl.json"
    while not (told.exists() and "curl" in out.read_text(errors="replace")):
        if mesh.up.poll() is not None or time.monotonic() > deadline:
            raise NotInTime(f"meshctl up: {out.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)
    row = json.loads(told.read_text())
    mesh.endpoint = str(row["base_url"])
    mesh.key = (mesh.state / "api-key").read_text().strip()
