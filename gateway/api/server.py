"""The HTTP listener: which handler a request goes to, and what every answer has in common.

aiohttp's low-level server with a table of our own: an Application's router, middlewares and signals cost a request
more than all that we do with it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from gateway.api import chat, errors, models
from gateway.api.chat import ChatCompletions
from gateway.api.health import Health
from gateway.api.models import Models
from gateway.api.visit import REQUEST_ID, Handler, Visit
from gateway.control.usage import new_request_id
from gateway.core.errors import Draining, MethodNotAllowed, Overloaded, UnknownRoute
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from mesh.kit.settings import Address

log = logging.getLogger(__name__)

BACKLOG = 1024  # connections that wait for us to accept them; a burst of clients, not a flood
IDLE_S = 75.0  # a connection without a request is closed; proxies keep theirs for 60 s
LINGER_S = 2.0  # how long the rest of a refused body is read, so that the refusal is not lost with it


_CROWDED = "this gateway has as many connections as it can hold"


class _Protocol(web.RequestHandler):
    """aiohttp's, but what goes wrong before a handler is asked is told in our shape too."""

    __slots__ = ("_headers", "_taken")

    def __init__(self, server: "_Server", *, headers: Callable[[], dict[str, str]]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way of saying none
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )
        self._headers = headers
        self._taken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._manager
        assert isinstance(server, _Server), "made by it"
        if server.open_connections < server.max_connections:
            self._taken = True
            server.open_connections += 1
            super().connection_made(transport)
        else:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(errors.whole_answer(Overloaded(_CROWDED), self._headers()))
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._taken:
            self._taken = False
            assert isinstance(self._manager, _Server)
            self._manager.open_connections -= 1
            super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        if status >= 500:
            log.error("request failed", extra={F.CODE: status}, exc_info=exc)
            body = errors.internal_body()
        else:
            body = errors.malformed_body("this is not an HTTP request that can be understood")
        response = web.Response(status=status, body=body, content_type="application/json", headers=self._headers())
        response.force_close()
        return response


class _Server(web.Server):
    """Makes our protocol for each connection, and requests whose bodies are bounded."""

    def __init__(
        self, handler: Any, *, max_body: int, max_connections: int, headers: Callable[[], dict[str, str]]
    ) -> None:
        super().__init__(handler, request_factory=self._request, handler_cancellation=True)
        self.max_connections = max_connections
        self.open_connections = 0
        self._max_body = max_body
        self._headers = headers

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, headers=self._headers)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._loop, client_max_size=self._max_body
        )


@dataclass(slots=True)
class HttpServer:
    """Listens, dispatches, and ends gracefully."""

    completions: ChatCompletions
    models: Models
    health: Health
    clock: Clock
    max_body: int
    max_connections: int
    _server: _Server | None = field(init=False, default=None)
    _listener: "asyncio.Server | None" = field(init=False, default=None)
    _routes: Mapping[str, Mapping[str, Handler]] = field(init=False)

    def __post_init__(self) -> None:
        self._routes = {
            chat.PATH: {"POST": self.completions},
            models.PATH: {"GET": self.models.list},
            "/healthz": {"GET": self.health.healthz},
            "/readyz": {"GET": self.health.readyz},
            "/metrics": {"GET": self.health.show_metrics},
        }

    async def listen(self, address: Address) -> Address:
        """Accept connections from now on; returns where. OSError when the address cannot be had."""
        self._server = _Server(
            self._dispatch, max_body=self.max_body, max_connections=self.max_connections, headers=self._headers
        )
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, address.host, address.port, backlog=BACKLOG)
        return Address(address.host, self._listener.sockets[0].getsockname()[1])

    @property
    def open_connections(self) -> int:
        """Connections of clients."""
        return 0 if self._server is None else self._server.open_connections

    def drain(self) -> None:
        """Accept no new connections, refuse new completions, and let idle connections go."""
        self.health.draining = True
        if self._listener is not None:
            self._listener.close()
        if self._server is not None:
            self._server.pre_shutdown()

    async def close(self, grace_s: float) -> None:
        """Return when every answer is given, or cut off after the grace."""
        self.drain()
        if self._server is not None:
            await self._server.shutdown(grace_s)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        visit = Visit(request, self._headers(), self.clock.monotonic())
        status = errors.CLIENT_LEFT
        try:
            response = await self._handler(visit)(visit)
            status = response.status
        except MeshError as exc:
            status = errors.status_of(exc)
            response = web.Response(
                status=status,
                body=errors.body_of(exc),
                content_type="application/json",
                headers={**visit.headers, **errors.headers_of(exc)},
            )
            if status >= 500:
                log.warning(
                    "request refused", extra={F.REQUEST: visit.request_id, F.CODE: exc.code, F.REASON: str(exc)}
                )
        except ConnectionError:
            raise  # the client has gone; aiohttp knows what to do
        except Exception:  # edge: one request must not end the connection of others, nor tell what went wrong
            status = 500
            log.exception("request failed", extra={F.REQUEST: visit.request_id})
            if request.writer.output_size > 0:
                raise ConnectionResetError("an answer has begun already") from None
            response = web.Response(
                status=500, body=errors.internal_body(), content_type="application/json", headers=visit.headers
            )
        finally:
            self.health.metrics.answered(visit.model, status)
        if self.health.draining:
            response.force_close()
        return response

    def _headers(self) -> dict[str, str]:
        """What every answer carries."""
        return {REQUEST_ID: new_request_id(self.clock.now()), "Server": "inventiv-mesh"}

    def _handler(self, visit: Visit) -> Handler:
        """Who answers. Raises UnknownRoute, MethodNotAllowed or Draining."""
        request = visit.request
        path = request.raw_path.partition("?")[0]
        method = "GET" if request.method == "HEAD" else request.method
        methods = self._routes.get(path)
        if methods is None:
            if not path.startswith(f"{models.PATH}/"):
                raise UnknownRoute(f"unknown request URL: {request.method} {path[:200]}")
            methods = {"GET": self._model}
        handler = methods.get(method)
        if handler is None:
            allowed = ", ".join(methods)
            raise MethodNotAllowed(f"{request.method} is not allowed here; allowed: {allowed}", allowed=allowed)
        if self.health.draining and method == "POST":
            raise Draining("this gateway is stopping; ask another")
        return handler

    async def _model(self, visit: Visit) -> web.StreamResponse:
        return await self.models.get(visit, visit.request.path.removeprefix(f"{models.PATH}/"))
