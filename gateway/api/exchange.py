"""One HTTP request as it comes in, and the way its answer goes out. No rule of ours, only HTTP's."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.api.connection import Connection

_REASONS = {status.value: status.phrase for status in HTTPStatus}


class Request:
    """A request as it comes, and the way its answer goes."""

    __slots__ = (
        "_body",
        "_chunked",
        "_head",
        "begun",
        "body_size",
        "broken",
        "closing",
        "complete",
        "connection",
        "content_length",
        "ended",
        "expects",
        "headers",
        "keep_alive",
        "method",
        "target",
        "too_large",
        "version",
    )

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.method = ""
        self.target = b""
        self.version = "1.1"
        self.headers: dict[bytes, bytes] = {}
        self.content_length: int | None = None
        self.expects = False
        self.keep_alive = True
        self.body_size = 0
        self.complete = False
        self.too_large = False
        self.broken = False
        """What should be its body is none."""
        self.begun = False
        """Whether the answer's head has left, so that it can be no other."""
        self.ended = False
        self.closing = False
        """The connection ends with this answer."""
        self._head = b""
        self._chunked = False
        self._body: bytes | bytearray = b""

    def header(self, name: bytes) -> str | None:
        """A header's value; its name in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self) -> bytes:
        """All of the body. Ends early when it is ``too_large`` or ``broken``."""
        while not (self.complete or self.too_large or self.broken):
            await self.connection.wait()
        self._body = body = bytes(self._body)
        return body

    def add(self, octets: bytes) -> None:
        """More of the body. In one piece: a list of pieces of two octets each would weigh thirty times as much."""
        if isinstance(self._body, bytearray):
            self._body += octets
        else:
            self._body = bytearray(self._body) + octets if self._body else octets

    def drop(self) -> None:
        """Nobody wants this body any more."""
        self.too_large = True
        self._body = b""

    def go_on(self) -> None:
        """Tell a client that asked first to send its body."""
        if self.expects and not self.complete:
            self.expects = False
            self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """The whole answer at once; False as in ``send``. Nothing happens when the client has gone."""
        self.begun = self.ended = True
        if not self.complete:
            self.closing = True
        head = self._line(status, headers) + b"Content-Length: %d\r\n\r\n" % len(body)
        return self.connection.write(head if self.method == "HEAD" else head + body)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of an answer whose length nobody knows; it leaves with the first octets."""
        self.begun = True
        if not self.complete:
            self.closing = True
        self._chunked = self.version != "1.0"
        if not self._chunked:
            self.closing = True
        line = self._line(status, headers)
        self._head = line + (b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n")

    def send(self, octets: bytes) -> bool:
        """Some of the body, not empty. False: let the client catch up first (``drain``)."""
        head, self._head = self._head, b""
        return self.connection.write(
            b"%b%x\r\n%b\r\n" % (head, len(octets), octets) if self._chunked else head + octets
        )

    def end(self, octets: bytes = b"") -> bool:
        """The rest of the body. False as in ``send``."""
        self.ended = True
        if not self._chunked:
            octets = self._head + octets
        elif octets:
            octets = b"%b%x\r\n%b\r\n0\r\n\r\n" % (self._head, len(octets), octets)
        else:
            octets = self._head + b"0\r\n\r\n"
        self._head = b""
        return self.connection.write(octets)

    def _line(self, status: int, headers: Mapping[str, str]) -> bytes:
        if self.connection.host.draining or not self.keep_alive:
            self.closing = True
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if self.closing:
            lines.append("Connection: close\r\n")
        elif self.version == "1.0":
            lines.append("Connection: keep-alive\r\n")
        return "".join(lines).encode("latin-1", "replace")
