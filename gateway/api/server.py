"""The HTTP listener: which handler a request goes to, and what every answer has in common."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import format_datetime
from urllib.parse import unquote

from gateway.api import errors
from gateway.api.connection import Connection
from gateway.api.exchange import Request
from gateway.api.visit import REQUEST_ID, Handler, Visit
from gateway.control.usage import RequestIds
from gateway.core.errors import Draining, MethodNotAllowed, Overloaded, UnknownRoute
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from mesh.kit.settings import Address

log = logging.getLogger(__name__)

BACKLOG = 1024  # connections that wait for us to accept them; a burst of clients, not a flood
SWEEP_S = 1.0  # how late an idle or slow connection may be ended

_CROWDED = "this gateway has as many connections as it can hold"

Routes = Mapping[str, Mapping[str, Handler]]
"""Path → method → who answers."""


@dataclass(slots=True, eq=False)
class HttpServer:
    """Listens, dispatches, and ends gracefully. A part."""

    routes: Routes
    prefixes: Routes
    """For paths of which only the beginning is known; the longest one counts."""
    otherwise: Mapping[str, Handler]
    """For all other paths, by method; a method that is not here does not make them known."""
    answered: Callable[[Visit], None]
    """Told of every answer."""
    clock: Clock
    max_body: int
    max_connections: int
    reuse_port: bool = False
    draining: bool = field(init=False, default=False)
    connections: set[Connection] = field(init=False, default_factory=set)
    _socket: socket.socket | None = field(init=False, default=None)
    _group: asyncio.TaskGroup | None = field(init=False, default=None)
    _listener: "asyncio.Server | None" = field(init=False, default=None)
    _idle: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _ids: RequestIds = field(init=False, default_factory=RequestIds)
    _date: tuple[int, str] = field(init=False, default=(0, ""))

    def listen(self, address: Address) -> Address:
        """Have the address; connections wait there until ``run`` takes them. OSError: it cannot be had."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._socket = socket.create_server(
            (address.host, address.port), family=family, backlog=BACKLOG, reuse_port=self.reuse_port
        )
        return Address(address.host, self._socket.getsockname()[1])

    async def run(self) -> None:
        """Accept connections, and end those whose time is up, until cancelled."""
        assert self._socket is not None, "listening"
        async with asyncio.TaskGroup() as group:
            self._group = group
            loop = asyncio.get_running_loop()
            if not self.draining:
                listener = self._socket.dup()
                self._listener = await loop.create_server(lambda: Connection(self), sock=listener, backlog=BACKLOG)
            try:
                while True:
                    await self.clock.sleep(SWEEP_S)
                    now = self.clock.monotonic()
                    for connection in [one for one in self.connections if one.due <= now]:
                        connection.sweep()
            finally:
                if self._listener is not None:
                    self._listener.close()

    def drain(self) -> None:
        """Accept no new connections, refuse new requests, and let idle connections go."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        if self._socket is not None:
            self._socket.close()
        for connection in list(self.connections):
            connection.close_if_idle()

    async def close(self, grace_s: float) -> None:
        """Return when every answer is given, or cut off after the grace."""
        self.drain()
        self._idle.clear()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._idle.wait()
        for connection in list(self.connections):
            connection.abort()

    # What a connection needs

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def has_room(self) -> bool:
        return len(self.connections) < self.max_connections

    def start(self, connection: Connection) -> "asyncio.Task[None]":
        assert self._group is not None, "listening"
        self.connections.add(connection)
        return self._group.create_task(self._serve(connection))

    def gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._idle.set()

    def crowded(self) -> bytes:
        return errors.whole_answer(Overloaded(_CROWDED), self._headers())

    def malformed(self, status: int, problem: str) -> bytes:
        return errors.whole_malformed(status, problem, self._headers())

    # The story of a connection

    async def _serve(self, connection: Connection) -> None:
        try:
            while (request := await connection.next()) is not None:
                await self._dispatch(request)
                if not connection.finish(request):
                    return
        except ConnectionError:
            connection.abort()

    async def _dispatch(self, request: Request) -> None:
        path = request.target.partition(b"?")[0].decode("latin-1")
        visit = Visit(request, self._headers(), self.clock.monotonic(), path)
        try:
            await self._handler(visit)(visit)
        except MeshError as exc:
            self._refused(visit, exc)
        except ConnectionError:
            raise  # the client has gone
        except Exception:  # edge: one request must not end the connections of others, nor tell what went wrong
            log.exception("request failed", extra={F.REQUEST: visit.request_id})
            visit.broke = True
            if request.begun:
                return  # and is cut off, since it has not ended
            visit.answer(500, errors.internal_body())
        finally:
            visit.status = visit.status or errors.CLIENT_LEFT
            self.answered(visit)
            visit.failure = None  # its traceback holds the body, and us: a ring until the collector comes

    def _refused(self, visit: Visit, exc: MeshError) -> None:
        visit.failure = exc
        status = errors.status_of(exc)
        if status >= 500:
            log.warning(
                "request refused", extra={F.REQUEST: visit.request_id, F.CODE: exc.code, F.REASON: str(exc)}
            )
        visit.answer(status, errors.body_of(exc), errors.headers_of(exc))

    def _headers(self) -> dict[str, str]:
        """What every answer carries."""
        now = self.clock.now()
        second = int(now.timestamp())
        if second != self._date[0]:
            self._date = second, format_datetime(now, usegmt=True)
        return {REQUEST_ID: self._ids.new(now), "Date": self._date[1], "Server": "inventiv-mesh"}

    def _handler(self, visit: Visit) -> Handler:
        """Who answers. Raises UnknownRoute, MethodNotAllowed or Draining."""
        method = "GET" if visit.request.method == "HEAD" else visit.request.method
        methods = self.routes.get(visit.path)
        if methods is None:
            known = [prefix for prefix in self.prefixes if visit.path.startswith(prefix)]
            if not known and method not in self.otherwise:
                raise UnknownRoute(f"unknown request URL: {visit.request.method} {visit.path[:200]}")
            methods = self.prefixes[max(known, key=len)] if known else self.otherwise
        handler = methods.get(method)
        if handler is None:
            allowed = ", ".join(methods)
            raise MethodNotAllowed(
                f"{visit.request.method} is not allowed here; allowed: {allowed}", allowed=allowed
            )
        if self.draining and method == "POST":
            raise Draining("this gateway is stopping; ask another")
        return handler


def rest_of(visit: Visit, prefix: str) -> str:
    """What follows the prefix in the path, decoded."""
    return unquote(visit.path.removeprefix(prefix))
