"""A connection of a client with a transport that only remembers, and a listener of one connection."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.api.connection import Connection
from gateway.api.exchange import Request
from tests.fakes.clock import settle

HALF = b"GET /a HTTP/1.1\r\nHo"
GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
Answers = Callable[[Request], Awaitable[None]]


@dataclass(slots=True)
class Wire:
    """A transport."""

    out: bytearray = field(default_factory=bytearray)
    closed: bool = False
    aborted: bool = False
    reading: bool = True
    high: int = 0

    def write(self, octets: bytes) -> None:
        self.out += octets

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, *, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return len(self.out)

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else None


@dataclass(slots=True)
class Host:
    """A listener of one connection."""

    answers: Answers
    group: asyncio.TaskGroup
    max_body: int = 1000
    room: bool = True
    draining: bool = False
    now: float = 100.0
    seen: list[Request] = field(default_factory=list)
    left: int = 0
    broke: bool = False

    def monotonic(self) -> float:
        return self.now

    def has_room(self) -> bool:
        return self.room

    def start(self, connection: Connection) -> "asyncio.Task[None]":
        return self.group.create_task(self._serve(connection))

    def gone(self, connection: Connection) -> None:
        del connection
        self.left += 1

    def crowded(self) -> bytes:
        return b"crowded"

    def malformed(self, status: int, problem: str) -> bytes:
        return b"malformed %d %s" % (status, problem.encode())

    async def _serve(self, connection: Connection) -> None:
        try:
            while (request := await connection.next()) is not None:
                self.seen.append(request)
                await self.answers(request)
                if not connection.finish(request):
                    return
        except ConnectionError:
            self.broke = True
            connection.abort()


async def echo(request: Request) -> None:
    """The path, and the body."""
    request.go_on()
    body = await request.body()
    status = 413 if request.too_large else 400 if request.broken else 200
    request.answer(status, {"X": "y"}, request.target + b" " + body)


async def at_once(request: Request) -> None:
    request.answer(401, {}, b"no")


@dataclass(slots=True)
class Scene:
    host: Host
    wire: Wire
    connection: Connection

    async def get(self, *octets: bytes) -> bytes:
        """What comes back for these."""
        self.wire.out.clear()
        for some in octets:
            self.connection.data_received(some)
            await settle(5)
        return bytes(self.wire.out)

    async def pass_time(self, seconds: float) -> None:
        """As the listener does."""
        self.host.now += seconds
        if self.connection.due <= self.host.now:
            self.connection.sweep()
        await settle(5)


@asynccontextmanager
async def scene(answers: Answers = echo, **of_host: Any):  # type: ignore[no-untyped-def]
    async with asyncio.TaskGroup() as group:
        host, wire = Host(answers, group, **of_host), Wire()
        connection = Connection(host)
        connection.connection_made(cast("asyncio.Transport", wire))
        await settle(5)
        yield Scene(host, wire, connection)
        connection.connection_lost(None)


def ok(body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nX: y\r\n%bContent-Length: %d\r\n\r\n%b" % (more, len(body), body)
