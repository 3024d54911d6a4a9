"""A tiny HTTP/1.1 server for loopback: GET and HEAD on a handful of paths, one answer per connection.

Lean on purpose: a web framework would be a fifth of the agent's memory, for four pages. No request has a body,
no connection carries two requests, and nobody holds one longer than DEADLINE_S. A request for any other host name
is refused, so that a web page cannot reach us through a browser by pointing a name at loopback.
"""

import asyncio
import http
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import httptools

from mesh.kit.logs import F
from mesh.kit.settings import Address
from node_agent.settings import is_loopback

log = logging.getLogger(__name__)

MAX_HEAD = 8 * 1024  # octets; a browser's is about one thousand
DEADLINE_S = 5.0  # from the connection's first moment to its last
MAX_CONNECTIONS = 64  # at once: an owner, a Prometheus, and whoever forgot to close
METHODS = (b"GET", b"HEAD")


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


Routes = Mapping[str, Callable[[], Reply]]
"""What answers each path. It is asked anew for every request, and must answer at once."""


@asynccontextmanager
async def serving(routes: Routes, address: Address) -> AsyncIterator[Address]:
    """Answer while the block runs; gives the real address. ValueError for other than loopback."""
    if not is_loopback(address.host):
        raise ValueError(f"{address} is not a loopback address")
    visitors: set[_Visitor] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Visitor(routes, visitors), address.host, address.port
    )
    try:
        yield Address(address.host, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for visitor in tuple(visitors):
            visitor.abort()
        await server.wait_closed()


@dataclass(slots=True, eq=False)
class _Visitor(asyncio.Protocol):
    """One connection: hears one request, answers it, and waits for the other side to close."""

    routes: Routes
    visitors: "set[_Visitor]"
    _transport: asyncio.Transport | None = field(init=False, default=None)
    _deadline: asyncio.TimerHandle | None = field(init=False, default=None)
    _octets: int = field(init=False, default=0)
    _target: bytes = field(init=False, default=b"")
    _hosts: list[bytes] = field(init=False, default_factory=list)
    _headed: bool = field(init=False, default=False)
    _answered: bool = field(init=False, default=False)
    _parser: httptools.HttpRequestParser = field(init=False)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self.visitors) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        self.visitors.add(self)
        self._deadline = asyncio.get_running_loop().call_later(DEADLINE_S, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.visitors.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        if self._answered:  # a body, or another request: nobody asked for it
            return
        self._octets += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # we may answer as if it had not been asked for
        except httptools.HttpParserError:
            if not self._headed:  # what follows a whole head does not matter
                self._answer(_plain(400))
                return
        if self._headed:
            self._answer(self._reply())
        elif self._octets > MAX_HEAD:
            self._answer(_plain(431))

    # What httptools calls

    def on_url(self, url: bytes) -> None:
        if not self._headed:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed and name.lower() == b"host":
            self._hosts.append(value)

    def on_headers_complete(self) -> None:
        self._headed = True

    # The answer

    def _reply(self) -> Reply:
        if self._octets > MAX_HEAD:
            return _plain(431)
        if not all(is_loopback(_name(host.decode("latin-1"))) for host in self._hosts):
            return Reply(b"this listener answers to loopback names only\n", status=403)
        ask = self.routes.get(self._target.decode("latin-1").partition("?")[0])
        if ask is None:
            return _plain(404)
        if self._parser.get_method() not in METHODS:
            return _plain(405)
        try:
            return ask()
        except Exception:  # edge: one request must not end the others
            log.exception("request failed", extra={F.PATH: self._target.decode("latin-1")})
            return _plain(500)

    def _answer(self, reply: Reply) -> None:
        assert self._transport is not None
        self._answered = True
        lines = [
            f"HTTP/1.1 {reply.status} {http.HTTPStatus(reply.status).phrase}",
            f"content-type: {reply.content_type}",
            f"content-length: {len(reply.body)}",
            "connection: close",
        ]
        if reply.status == 405:
            lines.append("allow: GET, HEAD")
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        bodiless = self._headed and self._parser.get_method() == b"HEAD"
        self._transport.write(head if bodiless else head + reply.body)
        # Closing with octets unread would make the kernel drop the answer: let the other side close first.
        self._transport.write_eof()


def _plain(status: int) -> Reply:
    return Reply(f"{status} {http.HTTPStatus(status).phrase}\n".encode(), status=status)


def _name(host: str) -> str:
    """The host of a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
