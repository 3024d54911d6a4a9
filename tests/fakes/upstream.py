"""A real HTTP server on loopback that does exactly what a test says, octet for octet; and a tunnel to it."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from mesh.link.limits import Limits
from mesh.tunnel.v1.tunnel_pb2 import Header, Open
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from node_agent.core.worker import LoopbackEndpoint, WorkerPhase, WorkerUnknown, WorkerUnready
from node_agent.tunnel.local import Lease, Local
from tests.fakes.clock import FakeClock
from tests.fakes.link import MemoryLink, memory_links

SOON_S = 10.0  # how long a test waits for what must happen; nothing is measured by it


@dataclass(slots=True)
class Visit:
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side closed."""

    async def head(self) -> bytes:
        """The next request's head; IncompleteReadError at the connection's end."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: its head and its body."""
        head = await self.head()
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        if fields.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
            return head, body
        return head, await self.reader.readexactly(int(fields.get(b"content-length", b"0")))

    async def send(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    async def answer(self, body: bytes, *headers: bytes, status: bytes = b"200 OK") -> None:
        """A plain answer with a length."""
        lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
        await self.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    async def until_left(self) -> None:
        """Wait until the other side closes."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.left.set()

    def cut(self) -> None:
        """Close with a reset, as the kernel does for a process that dies with octets unread."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Handler = Callable[[Visit], Awaitable[Any]]


@dataclass(slots=True)
class Upstream:
    """The server of one test."""

    endpoint: LoopbackEndpoint
    visits: list[Visit] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[Upstream]:
    """Serve while the block runs; the handler gets each connection, which is closed when it returns."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer)
        server.visits.append(visit)
        server.arrived.set()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handler(visit)
        writer.transport.abort() if writer.transport.is_closing() else writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    server = Upstream(LoopbackEndpoint("127.0.0.1", listener.sockets[0].getsockname()[1]))
    try:
        yield server
    finally:
        listener.close()
        for visit in server.visits:
            visit.cut()


async def echo(visit: Visit) -> None:
    """Answers every request with its own body, for as long as the connection lives."""
    while True:
        _, body = await visit.request()
        await visit.answer(body)


@dataclass(slots=True)
class Tunnelled:
    """A hub's session whose other end is the agent's real ``Local``."""

    hub: Session
    local: Local
    clock: FakeClock
    agent_link: MemoryLink
    hub_link: MemoryLink

    def open(
        self,
        path: str = "/v1/chat/completions",
        *headers: tuple[str, str],
        method: str = "POST",
        worker: str = "w-1",
        timeout_ms: int = 0,
    ) -> Stream:
        """Open a request; its body is still to be written."""
        return self.hub.open(
            Open(
                worker_id=worker,
                method=method,
                path=path,
                headers=[Header(name=name, value=value) for name, value in headers],
                timeout_ms=timeout_ms,
                request_id="r-1",
            )
        )

    async def ask(self, body: bytes = b"", **more: Any) -> tuple[int, dict[str, str], bytes]:
        """A whole request and its whole answer: status, headers, body."""
        stream = self.open("/v1/chat/completions", ("content-length", str(len(body))), **more)
        await stream.write(body)
        stream.end()
        return await whole(stream)


async def whole(stream: Stream) -> tuple[int, dict[str, str], bytes]:
    """The whole answer: status, headers, body."""
    async with asyncio.timeout(SOON_S):
        head = await stream.head()
        body = b""
        while data := await stream.read():
            body += data
    return head.status, {header.name: header.value for header in head.headers}, body


def leasing(*endpoints: LoopbackEndpoint) -> Lease:
    """Leases of the workers w-1, w-2 … at those endpoints, and of one named ``unready`` that is what it says."""
    workers = {f"w-{number}": endpoint for number, endpoint in enumerate(endpoints, 1)}

    @contextmanager
    def lease(worker_id: str) -> Iterator[LoopbackEndpoint]:
        if worker_id == "unready":
            raise WorkerUnready(worker_id, WorkerPhase.STARTING, "loads")
        if worker_id not in workers:
            raise WorkerUnknown(worker_id)
        yield workers[worker_id]

    return lease


@asynccontextmanager
async def tunnelled(
    *endpoints: LoopbackEndpoint, max_requests: int = 64, limits: Limits | None = None
) -> AsyncIterator[Tunnelled]:
    """Hub and agent back to back, with those engines as workers (``leasing``)."""
    clock = FakeClock()
    local = Local(leasing(*endpoints), clock, max_requests)
    hub_link, agent_link = memory_links()
    hub = Session(hub_link, initiator=True, clock=clock, limits=limits)
    agent = Session(agent_link, initiator=False, clock=clock, on_open=local.open, limits=limits)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part.run()) for part in (local, hub, agent)]
        await asyncio.sleep(0)  # the parts are at work
        yield Tunnelled(hub, local, clock, agent_link, hub_link)
        for task in tasks:
            task.cancel()


async def until(ask: Callable[[], bool]) -> None:
    """Return when it is so; AssertionError if it never is."""
    try:
        async with asyncio.timeout(SOON_S):
            while not ask():  # noqa: ASYNC110 - what is waited for has no event, or belongs to the product
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError("it did not become so") from None
