"""A gateway and a node as processes, in front of an upstream that a test controls from within its own loop."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.fakes.spine import READY, Spine, gateway_environ, lay_out

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Coroutine[Any, Any, None]]
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def event(text: str) -> bytes:
    """A chunk of an answer, as engines write it."""
    choices = f'[{{"index":0,"delta":{{"content":"{text}"}}}}]'
    return f'data: {{"id":"c","object":"chat.completion.chunk","choices":{choices}}}\n\n'.encode()


def framed(data: bytes) -> bytes:
    """Octets as one chunk of HTTP's chunked coding."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@dataclass(slots=True)
class Running:
    """The processes of one spine."""

    folder: Path
    plan: Spine
    gateway: subprocess.Popen[bytes]
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    prefix: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return (self.folder / "key").read_text().strip()

    def start_node(
        self, *, epoch: int = 1, prefix: tuple[str, ...] = (), node_id: str = ""
    ) -> subprocess.Popen[bytes]:
        """One more process with the identity of that node, or of the first."""
        environ = {"SPINE_EPOCH": str(epoch), "SPINE_NODE": node_id or self.plan.node_id}
        node = spawn(self.folder, f"node-{len(self.nodes)}", *prefix, *role("node", self.folder), **environ)
        self.nodes.append(node)
        return node

    def rss_mib(self) -> dict[str, float]:
        """Resident memory of gateway and node now."""
        pids = {"gateway": self.gateway.pid, "node": self.nodes[-1].pid}
        return {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in pids.items()}

    async def request(
        self, model: str = "mock", *, stream: bool = True
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send one chat request over a connection of its own; the answer is the test's to read."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plan.http_port, limit=2**16)
        flag = "true" if stream else "false"
        body = f'{{"model":"{model}","stream":{flag},"messages":[{{"role":"user","content":"hello"}}]}}'.encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
            b"content-type: application/json\r\nconnection: close\r\n"
            + f"authorization: Bearer {self.key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return reader, writer

    async def ask(self, model: str = "mock", *, stream: bool = True, within_s: float = 10.0) -> tuple[int, bytes]:
        """One request to its end: status and all that followed the head."""
        reader, writer = await self.request(model, stream=stream)
        try:
            async with asyncio.timeout(within_s):
                octets = await reader.read(-1)
        finally:
            writer.close()
        head, _, body = octets.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body


def role(name: str, folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.fakes.spine", name, str(folder))


def spawn(folder: Path, name: str, *argv: str, **environ: str) -> subprocess.Popen[bytes]:
    """A process whose output goes to the folder."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environ}
        )


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def upstream(handle: Handler) -> AsyncIterator[int]:
    """A server on loopback that reads one request per connection and lets the test answer it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            await handle(reader, writer, await reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side is done with us, which is what many tests are about
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@asynccontextmanager
async def running(upstream_port: int, **other_models: int) -> AsyncIterator[Running]:
    """Control-plane double, gateway and one node, ready."""
    plan = Spine(
        control_plane_port=free_port(),
        http_port=free_port(),
        tunnel_port=free_port(),
        upstream_port=upstream_port,
        other_models=other_models,
    )
    with tempfile.TemporaryDirectory(prefix="mesh-spine-") as name:
        folder = Path(name)
        lay_out(folder, plan)
        control_plane = spawn(folder, "control-plane", *role("control-plane", folder))
        gateway = spawn(folder, "gateway", sys.executable, "-m", "gateway", **gateway_environ(folder, plan))
        spine = Running(folder, plan, gateway, others=[control_plane])
        try:
            spine.start_node()
            await until_ready(spine)
            yield spine
        finally:
            for process in (*spine.nodes, gateway, control_plane):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.wait()


async def ready(spine: Running) -> bool:
    """Whether the gateway has its snapshot and a node attached, by its own metrics."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", spine.plan.http_port)
    except OSError:
        return False
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
    try:
        metrics = await reader.read(-1)
        return all(line in metrics for line in READY)
    except OSError:
        return False
    finally:
        writer.close()


async def until_ready(spine: Running, within_s: float = 30.0) -> None:
    """Until a request can be routed."""
    try:
        async with asyncio.timeout(within_s):
            while not await ready(spine):
                pass
    except TimeoutError:
        logs = "\n".join(log.read_text(errors="replace")[-1500:] for log in spine.folder.glob("*.log"))
        raise AssertionError(f"the spine did not become ready: {logs}") from None
