"""One HTTP/1.1 connection to an engine: what requests of users and our own questions both go through.

Lean on purpose: httptools parses, one protocol object per connection, one waiting future per exchange. What one
``data_received`` brings comes out of ``read`` in one piece. Nothing is buffered without bound: above HIGH_WATER
octets unread the socket is not read any further, and the engine feels it.
"""

import asyncio
from typing import cast

import httptools

from node_agent.core.worker import LoopbackEndpoint

MAX_HEAD = 32 * 1024  # octets of an answer's header; an engine's has a few hundred
HIGH_WATER = 64 * 1024  # octets unread before the socket is paused: several hundred tokens
CONNECT_TIMEOUT_S = 5.0  # on loopback a listener answers at once or not at all


class EngineFailed(Exception):
    """The engine's side of an exchange broke. ``silent``: no octet of an answer had come."""

    def __init__(self, why: str, *, silent: bool = False) -> None:
        super().__init__(why)
        self.silent = silent


class Connection(asyncio.Protocol):
    """Carries one exchange at a time: ``begin``, then ``head``, then ``read`` until it gives nothing."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._writable = True
        self._lost = False
        self._paused = False
        self.idle_since = 0.0
        self._clear("")

    def _clear(self, method: str) -> None:
        self._method = method
        self._fed = False
        self._raw_octets = 0
        self._head_octets = 0
        self._headed = False
        self._complete = False
        self._to_eof = False
        self._keep = False
        self._spoilt = False
        self._body: list[bytes] = []
        self._unread = 0
        self._failure: Exception | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    # What the exchange calls

    def begin(self, method: str, octets: bytes) -> None:
        """Send the request, or its beginning. The connection must be new or ``reusable``."""
        assert self._transport is not None
        self._clear(method)
        self._parser = httptools.HttpResponseParser(self)
        if self.closed:
            self._failure = EngineFailed("engine closed the connection", silent=True)
            return
        self._transport.write(octets)

    async def write(self, octets: bytes) -> None:
        """Send more of the request; wait while the engine does not read. After a loss it does nothing."""
        assert self._transport is not None
        while not self._writable and not self.closed:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        if not self.closed:
            self._transport.write(octets)

    async def head(self) -> None:
        """Return when ``status`` and ``headers`` are there. EngineFailed, or what ``fail`` was given."""
        while not self._headed:
            if self._failure is not None:
                raise self._failure
            await self._wait()

    async def read(self) -> bytes:
        """All of the body that has come, at least one octet; nothing at its end. EngineFailed if it was cut."""
        while not self._body:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return b""
            await self._wait()
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._unread = 0
        if self._paused and not self.closed:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()
        return data

    def fail(self, why: Exception) -> None:
        """End the exchange now: close the socket, drop what is unread, let its reader raise ``why``."""
        if self._failure is None:
            self._failure = why
        self._body.clear()
        self.abort()

    def abort(self) -> None:
        """Close the socket at once; the engine stops working on the request."""
        self._spoilt = True
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    @property
    def reusable(self) -> bool:
        """Whether the next request may go over it."""
        return self._complete and self._keep and not (self._spoilt or self._lost or self._body)

    @property
    def closed(self) -> bool:
        """Whether the socket is gone, or going."""
        return self._lost or self._spoilt or (self._transport is not None and self._transport.is_closing())

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._complete or self._failure is not None:
            self.abort()  # an engine speaks when it is asked; what this is nobody can say
            return
        self._fed = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("engine switched protocols")
        except httptools.HttpParserError:
            self._break("engine sent something that is not HTTP")
        if not self._headed:
            self._raw_octets += len(data)  # whole headers are counted one by one; this bounds one that never ends
            self._check_head()
        if self._unread > HIGH_WATER and not self._paused and not self.closed:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._to_eof and self._headed and not self._spoilt and exc is None:
            self._complete = True
        elif self._failure is None and not self._complete:
            self._failure = EngineFailed("engine closed the connection", silent=not self._fed)
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # What httptools calls. It goes on to a second answer, which nobody asked for and nobody may get: whatever
    # comes after the first spoils the connection.

    def on_message_begin(self) -> None:
        if self._complete:
            self._spoilt = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_octets += len(name) + len(value) + 4
        self._check_head()
        if not self._headed:  # else a trailer, or a second answer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200 or self._headed:  # an interim answer: the real one follows; or a second one
            return
        self.status = status
        self._headed = True
        self._keep = self._parser.should_keep_alive()
        framed = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        if self._method == "HEAD":
            # The parser would wait for the body that the headers describe; there is none.
            self._complete, self._keep = True, False
        else:
            self._to_eof = not framed and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        if self._complete:
            self._spoilt = True
            return
        self._body.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        if self._headed:
            self._complete = True
        else:
            self.headers.clear()

    def _check_head(self) -> None:
        if max(self._head_octets, self._raw_octets) > MAX_HEAD:
            self._break("engine sent too large a header")

    def _break(self, why: str) -> None:
        self._failure = self._failure or EngineFailed(why)
        self.abort()


async def connect(endpoint: LoopbackEndpoint) -> Connection:
    """A new connection. EngineFailed when nobody accepts it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(Connection, endpoint.host, endpoint.port)
    except TimeoutError:
        raise EngineFailed("engine does not accept connections", silent=True) from None
    except OSError as exc:
        raise EngineFailed(f"engine cannot be reached: {exc.strerror}", silent=True) from exc
    return connection
