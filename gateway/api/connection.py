"""One client's connection: HTTP/1.1 octets in and out, one request after the other. No rule of ours, only HTTP's.

httptools takes octets apart; one task per connection answers its requests in their order. What is read is bounded:
heads, bodies, and what a client sends ahead. A client that leaves cancels the task.
"""

import asyncio
import struct
import sys
from collections import deque
from fcntl import ioctl
from typing import Protocol, cast

import httptools

from gateway.api.exchange import Request

if sys.platform == "linux":
    from termios import TIOCOUTQ

MAX_HEAD = 32 * 1024  # octets of a request's line and headers; a key and a dozen headers are one thousand
MAX_AHEAD = 16  # requests that a client may send before it has its answers
AHEAD_OCTETS = 64 * 1024  # and what they may weigh before we stop reading
HIGH_WATER = 64 * 1024  # octets that wait for a slow client before its answer pauses
HEAD_S = 30.0  # for a head, once it has begun
IDLE_S = 75.0  # a connection without a request is closed; proxies keep theirs for 60 s
TAKE_S = 60.0  # for a client to take what waits for it, before its next request is looked at or it is let go
LINGER_S = 2.0  # how long the rest of a refused body is read, so that the refusal is not lost with it

_TOO_LARGE = f"the request's head is larger than {MAX_HEAD} bytes"
_VERSIONS = ("1.1", "1.0")
_NEVER = float("inf")


class Host(Protocol):
    """What a connection needs of its listener."""

    max_body: int

    def monotonic(self) -> float:
        """Seconds."""

    def has_room(self) -> bool:
        """Whether one more connection may stay."""

    def start(self, connection: "Connection") -> "asyncio.Task[None]":
        """It is made: have a task answer its requests."""

    def gone(self, connection: "Connection") -> None:
        """It is over."""

    def crowded(self) -> bytes:
        """The answer to a connection too many."""

    def malformed(self, status: int, problem: str) -> bytes:
        """The answer to octets that are no request."""

    @property
    def draining(self) -> bool:
        """Whether connections are to end with the answer they have."""


class Connection(asyncio.Protocol):
    """Made by the listener for each client."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.due = _NEVER
        """When the listener's sweep ends it."""
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._incoming: Request | None = None  # whose octets come now
        self._ahead: deque[Request] = deque()
        self._current: Request | None = None  # who is being answered
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._writable = True
        self._fed = 0  # octets of the last read
        self._unused = 0  # octets that have come since the last head, or piece of a body, was complete
        self._stopped = False  # nothing more is taken in
        self._closing = False
        self._paused = False
        self._lingers = False

    # For the task that answers

    async def next(self) -> Request | None:
        """The next request, once its head is there; None when there will be none."""
        self._current = None
        if not self._writable:  # else one that only asks would have us hold answers without end
            self.due = self.host.monotonic() + TAKE_S
            await self.drain()
            self.due = _NEVER
        while not self._ahead:
            if self._stopped or self.lost:
                return None
            if self._incoming is None:
                self.due = self.host.monotonic() + IDLE_S
            elif self.due == _NEVER:  # its head began while another request was answered
                self.due = self.host.monotonic() + HEAD_S
            await self.wait()
        self._current = request = self._ahead.popleft()
        self.due = _NEVER
        if self._paused and not self.lost:
            self._paused = False
            assert self._transport is not None
            self._transport.resume_reading()
        return request

    async def wait(self) -> None:
        """Until something has come."""
        if self.lost:
            raise ConnectionResetError("the client left")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def write(self, octets: bytes) -> bool:
        """Hand octets over; False when the client should catch up first."""
        if not self.lost and self._transport is not None:
            self._transport.write(octets)
        return self._writable

    async def drain(self) -> None:
        """Until the client has caught up. ConnectionError: it has gone."""
        if not self._writable and not self.lost:
            if self._drained is None or self._drained.done():
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)
        if self.lost:
            raise ConnectionResetError("the client left")

    def finish(self, request: Request) -> bool:
        """The answer was given (or could not be). False: this connection takes no more requests."""
        if not request.ended:  # it broke off: only a closed connection can say so
            self.abort()
            return False
        if request.complete and not (request.closing or self._stopped):
            return True
        if request.complete or request.expects:
            self.close()
            return False
        # The client is still sending. Closing now would reset the connection, and the answer with it.
        self._lingers = self._stopped = True
        self.due = self.host.monotonic() + LINGER_S
        return False

    def close(self) -> None:
        """Take no more, close when what was written has left."""
        if not self._closing:
            self._stopped = self._closing = True
            self.due = self.host.monotonic() + TAKE_S
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what was not taken is lost."""
        self._stopped = True
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self) -> None:
        """Close when no request is under way."""
        if self._current is None and not self._ahead and self._incoming is None:
            self.close()

    def sweep(self) -> None:
        """Its time is up: idle, too slow with a head, done lingering, or not taking what it was given."""
        self.due = _NEVER
        if self._closing or not self._writable:
            self.abort()
        elif self._current is None and self._incoming is not None and not self._lingers:
            self._refuse(408, "the request's head did not come in time")
        else:
            self.close()

    def backlog(self) -> int:
        """Octets handed over that the client's machine has not acknowledged."""
        transport = self._transport
        if transport is None or self.lost:
            raise ConnectionResetError("the client left")
        buffered: int = transport.get_write_buffer_size()
        connection = transport.get_extra_info("socket")
        if sys.platform != "linux" or connection is None:
            return buffered
        (in_kernel,) = struct.unpack("i", ioctl(connection.fileno(), TIOCOUTQ, bytes(4)))
        return buffered + int(in_kernel)

    @property
    def peer(self) -> tuple[object, ...] | None:
        """The address at the other end."""
        return None if self._transport is None else self._transport.get_extra_info("peername")

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self.host.has_room():
            self._stopped = self.lost = True
            self._transport.write(self.host.crowded())
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self.due = self.host.monotonic() + HEAD_S
        self._task = self.host.start(self)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or (self._stopped and not self._lingers):
            return
        self._fed = len(data)
        self._unused += self._fed
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "this endpoint does not switch protocols")
        except httptools.HttpParserError:
            self._refuse(400, "this is not an HTTP request that can be understood")
        if self._unused > MAX_HEAD and self._incoming is not None:  # a head, or what follows a body's last chunk
            self._refuse(431, _TOO_LARGE)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self._stopped = True
        self.host.gone(self)
        if self._task is not None:
            self._task.cancel()
        self.resume_writing()
        # The parser holds us, we hold it, and both hold bodies: the collector of such rings comes by seldom.
        self._lingers = False
        self._parser = self._task = self._incoming = None
        self._ahead.clear()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # What httptools calls

    def on_message_begin(self) -> None:
        self._incoming = Request(self)
        self._unused = self._fed
        self.due = min(self.due, self.host.monotonic() + HEAD_S) if self._current is None else self.due

    def on_url(self, url: bytes) -> None:
        if self._incoming is not None:
            self._incoming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._incoming
        if request is not None and not request.method:  # else a trailer
            request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        request, parser = self._incoming, self._parser
        if request is None or parser is None:
            return
        version = parser.get_http_version()
        if version not in _VERSIONS:
            return self._refuse(505, "this endpoint speaks HTTP/1.1")
        if self._unused > MAX_HEAD and _size(request) > MAX_HEAD:
            return self._refuse(431, _TOO_LARGE)
        self._unused = 0
        if not request.target.startswith(b"/"):
            request.target = _origin_form(request.target)
        request.method = parser.get_method().decode("ascii")
        request.version = version
        request.keep_alive = parser.should_keep_alive()
        length = request.headers.get(b"content-length")
        request.content_length = int(length) if length is not None else None
        if length is None and b"transfer-encoding" not in request.headers:
            request.content_length = 0
        request.expects = request.headers.get(b"expect", b"").lower() == b"100-continue"
        if self._lingers or self._stopped:
            return
        if len(self._ahead) >= MAX_AHEAD:
            self._refuse(400, f"more than {MAX_AHEAD} requests were sent ahead")
            return
        self._ahead.append(request)

    def on_body(self, body: bytes) -> None:
        request = self._incoming
        self._unused = 0
        if request is None:
            return
        request.body_size += len(body)
        if request.body_size > self.host.max_body or request.ended:
            request.drop()
            return
        request.add(body)
        if request is not self._current and request.body_size > AHEAD_OCTETS and not self._paused:
            self._paused = True
            assert self._transport is not None
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._incoming is not None:
            self._incoming.complete = True
            self._incoming = None
        if self._lingers:
            self.close()

    def _refuse(self, status: int, problem: str) -> None:
        """What came is no request. Who is being answered may have that answer first; nothing follows it."""
        if self._stopped:
            return
        self._stopped = True
        incoming, self._incoming = self._incoming, None
        if incoming is not None and incoming.method:
            incoming.broken = incoming.closing = True
        elif self._current is None and not self._ahead:
            self.write(self.host.malformed(status, problem))
            self.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _size(request: Request) -> int:
    """Octets of a request's head, nearly."""
    return len(request.target) + sum([len(name) + len(value) + 4 for name, value in request.headers.items()])


def _origin_form(target: bytes) -> bytes:
    """The path and query of a target in absolute form, as clients write it to a proxy; any other as it is."""
    scheme, mark, rest = target.partition(b"://")
    if not mark or scheme.lower() not in (b"http", b"https"):
        return target
    return b"/" + rest.partition(b"/")[2]
