"""The simulator's HTTP/1.1: requests in, answers out, and what goes wrong with answers on purpose.

Callbacks only, no task per request: in benchmarks this process must never be what is measured.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

if TYPE_CHECKING:
    from node_agent.engines.simulator_options import Fault

SERVER = "inventiv-mesh simulator"
MAX_BODY = 64 << 20  # octets
MAX_HEAD = 64 << 10
PIPELINED = 16  # requests that may wait on one connection
JSON, EVENTS = "application/json", "text/event-stream; charset=utf-8"
NOISE = b"\x00\xff\xfe<garbage>\x80\r\n\x1b[31m{{{\xc3\x28}}}\xf0\x28\x8c\x28 not what you asked for \xff\xff"
DIED = 9  # exit code of a process that ends on purpose


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Handler = Callable[[Request, "Reply"], None]


class Reply:
    """One answer: ``whole``; or ``begin``, some ``send``, ``end``. After a loss all of them do nothing."""

    __slots__ = ("_chunked", "_connection", "_mute", "_sent", "_size", "fault", "gone", "over")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.fault: Fault | None = None
        self.gone: Callable[[], None] | None = None
        """Called once when the client leaves before the end."""
        self.over = False
        self._mute = False
        self._sent = 0
        self._chunked = False
        self._size = 0

    def whole(self, status: int, body: bytes, content_type: str = JSON) -> None:
        """All at once."""
        head = f"{_start(status, content_type)}content-length: {len(body)}\r\n\r\n".encode("latin-1")
        if self.fault is None:
            self._write(head + body)
        else:
            self._size = len(body)
            self._write(head)
            self._spoilt(body)
        self.end()

    def begin(self, content_type: str = EVENTS) -> None:
        """The head of an answer in pieces."""
        self._chunked = True
        self._write(f"{_start(200, content_type)}transfer-encoding: chunked\r\n\r\n".encode("latin-1"))
        if self.fault is not None:
            self._spoilt(b"")

    def send(self, data: bytes) -> None:
        """Some of the body, at least one octet."""
        if self.fault is None:
            self._write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._spoilt(data)

    def end(self) -> None:
        """That was all."""
        if self._mute or self.over:
            return
        self.over = True
        truncated = self.fault is not None and self.fault.truncated
        if self._chunked and not truncated:
            self._connection.write(b"0\r\n\r\n")
        self._connection.finished(close=bool(truncated))

    def hang(self) -> None:
        """Say nothing more, and keep the connection."""
        self._mute = True

    def _write(self, data: bytes) -> None:
        if not self._mute and not self.over:
            self._connection.write(data)

    def _framed(self, data: bytes) -> None:
        if data:
            self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _spoilt(self, data: bytes) -> None:
        """Write as much as the fault lets through, and let it happen when that much is out."""
        fault = self.fault
        assert fault is not None
        limits = (
            fault.die_after_bytes,
            fault.close_after_bytes,
            fault.stall_after_bytes,
            fault.garbage_after_bytes,
            fault.unframed_after_bytes,
        )
        limit = min((one for one in limits if one is not None), default=None)
        if limit is None:
            self._framed(data[:-1] if fault.truncated and not self._chunked else data)
            return
        if self._mute or self.over:
            return
        piece = data[: limit - self._sent]
        self._framed(piece)
        self._sent += len(piece)
        if self._sent < limit:
            return
        if fault.garbage_after_bytes == limit:
            self._framed(NOISE if self._chunked else (NOISE * (self._size // len(NOISE) + 1))[limit : self._size])
            self.end()
            return
        if fault.unframed_after_bytes == limit:
            self._write(NOISE)
        if fault.stall_after_bytes == limit:
            self.hang()
            return
        self.over = True
        self._connection.flushed(_die if fault.die_after_bytes == limit else self._connection.close)


def _die() -> None:
    os._exit(DIED)


def _start(status: int, content_type: str) -> str:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\nserver: {SERVER}\r\ncontent-type: {content_type}\r\n"


class Connection(asyncio.Protocol):
    """One client. Requests on it are answered one after another."""

    def __init__(self, handler: Handler, connections: set["Connection"], draining: Callable[[], bool]) -> None:
        self._handler, self._connections, self._draining = handler, connections, draining
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._reply: Reply | None = None
        self._ready: deque[tuple[Request, bool]] = deque()  # at most PIPELINED
        self._keep = True
        self._clear()

    def _clear(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._size = 0
        self._head = 0
        self._headed = False
        self._body: list[bytes] = []

    @property
    def busy(self) -> bool:
        """Whether a request is here whose answer is not all out."""
        return self._reply is not None

    # What a reply calls

    def write(self, data: bytes) -> None:
        """Some octets; after a loss nothing happens."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def finished(self, *, close: bool) -> None:
        """The answer is out."""
        self._reply = None
        if close or not self._keep or self._draining():
            self.close()
        elif self._ready:
            self._next()

    def flushed(self, then: Callable[[], None]) -> None:
        """Call ``then`` when the kernel has every octet."""
        transport = self._transport
        if transport is None or transport.is_closing():
            then()
            return
        loop = asyncio.get_running_loop()

        def look(rounds: int) -> None:
            # The loop may hold writes back to the end of its turn, where they count nowhere: so look twice.
            rest = transport.get_write_buffer_size()
            if rest == 0 and rounds >= 2:
                then()
            else:
                loop.call_later(0.001, look, rounds + 1)

        look(0)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        reply, self._reply, self._transport = self._reply, None, None
        if reply is not None:
            reply.over = True
            if reply.gone is not None:
                reply.gone()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
            if not self._headed:  # the parser hands headers over whole; this bounds one that never ends
                self._grow(len(data))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError):
            head = f"{_start(400, 'text/plain')}content-length: 0\r\nconnection: close\r\n\r\n"
            self.write(head.encode("latin-1"))
            self.close()
            return
        # Not from within the parser, which would take a mistake of ours for the client's.
        if self._reply is None and self._ready:
            self._next()

    # What httptools calls

    def on_message_begin(self) -> None:
        self._clear()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._headed = True
        if self._headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY:
            raise httptools.HttpParserError("body too large")
        self._body.append(body)

    def on_message_complete(self) -> None:
        path = self._url.partition(b"?")[0].decode("latin-1")
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, path, self._headers, b"".join(self._body))
        self._ready.append((request, self._parser.should_keep_alive()))
        if len(self._ready) > PIPELINED:  # reading goes on while one is answered: a client that leaves is seen
            raise httptools.HttpParserError("too many requests ahead")

    def _grow(self, octets: int) -> None:
        self._head += octets
        if self._head > MAX_HEAD:
            raise httptools.HttpParserError("header too large")

    def _next(self) -> None:
        assert self._transport is not None
        request, self._keep = self._ready.popleft()
        self._reply = reply = Reply(self)
        self._handler(request, reply)
