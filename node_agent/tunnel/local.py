"""A tunnel's stream ⇄ an HTTP/1.1 request to a worker on loopback.

Each request is one task, which dials, sends, and passes the answer on; the tunnel's own loop only starts it. The
answer is read from the engine no faster than the hub gives credit for it. A stream that is cut off closes the
engine's connection at once, so that the engine stops working on it; an engine that breaks ends the stream with the
code that says whether an answer had begun. Every request ends exactly once.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput
from mesh.kit.logs import F
from mesh.link.frames import ResetCode
from mesh.tunnel.v1.tunnel_pb2 import Head, Header
from mesh.wire.errors import StreamReset
from mesh.wire.stream import Stream
from node_agent.core.worker import LoopbackEndpoint, WorkerUnknown, WorkerUnready
from node_agent.engines.connection import Connection, EngineFailed, connect
from node_agent.tunnel.http1 import NotAllowed, RequestHead, request_head, response_headers
from node_agent.tunnel.pool import Pool

log = logging.getLogger(__name__)

OWN_LIMIT_S = 3600.0  # for a request whose hub sets none: longer than any answer that someone still waits for

Lease = Callable[[str], AbstractContextManager[LoopbackEndpoint]]
"""Hold a worker for one request; entering raises WorkerUnknown or WorkerUnready."""


@dataclass(slots=True, eq=False)
class Local:
    """Serves the streams of every tunnel. A part: ``open`` takes a stream, ``run`` owns the tasks."""

    lease: Lease
    clock: Clock
    max_requests: int = 2048
    """At once, over all tunnels: each needs an open file, and room for what is unread."""

    pool: Pool = field(init=False)
    live: int = field(init=False, default=0)
    _group: asyncio.TaskGroup | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.pool = Pool(self.clock)

    async def run(self) -> None:
        """Until cancelled; then every request is given up."""
        self.live = 0  # a task that was cancelled before its first step could not count itself out
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self.pool.run()
            finally:
                self._group = None  # before the group waits for those that are being cancelled

    def open(self, stream: Stream) -> None:
        """Take a stream that a hub opened; refuse it at once when there is no room. Never waits."""
        if self._group is None:
            stream.reset(ResetCode.DRAINING)
        elif self.live >= self.max_requests:
            stream.reset(ResetCode.TOO_MANY)
        else:
            self.live += 1
            self._group.create_task(self._serve(stream))

    async def _serve(self, stream: Stream) -> None:
        request = stream.request
        code: ResetCode | None = ResetCode.DRAINING  # if this task is cancelled
        exchange: _Exchange | None = None
        why = ""
        try:
            async with asyncio.timeout((request.timeout_ms / 1000) or OWN_LIMIT_S):
                with self.lease(request.worker_id) as endpoint:
                    exchange = _Exchange(stream, endpoint, self.pool)
                    await exchange.run()
            code = None
        except StreamReset:
            code = None  # they know
        except WorkerUnknown:
            code = ResetCode.WORKER_UNKNOWN
        except WorkerUnready:
            code = ResetCode.WORKER_UNREADY
        except NotAllowed as exc:
            code, why = ResetCode.REFUSED, str(exc)
        except EngineFailed as exc:
            begun = exchange is not None and exchange.responded
            code, why = (ResetCode.UPSTREAM_LOST if begun else ResetCode.UPSTREAM_FAILED), str(exc)
        except TimeoutError:
            code = ResetCode.TIMEOUT
        except Exception:  # edge: one request must not end the others
            log.exception("request failed", extra={F.REQUEST: request.request_id, F.WORKER: request.worker_id})
            code = ResetCode.UPSTREAM_FAILED
        finally:
            self.live -= 1
            if code is not None:
                stream.reset(code)
        if why and code is not None:
            log.warning(
                "request ended early",
                extra={
                    F.REQUEST: request.request_id,
                    F.WORKER: request.worker_id,
                    F.CODE: code.name.lower(),
                    F.REASON: why,
                },
            )


@dataclass(slots=True, eq=False)
class _Exchange:
    """One request and its answer."""

    stream: Stream
    endpoint: LoopbackEndpoint
    pool: Pool
    responded: bool = field(init=False, default=False)
    """The hub has the head of an answer."""

    _connection: Connection | None = field(init=False, default=None)
    _uploaded: bool = field(init=False, default=True)

    async def run(self) -> None:
        """To the end of the answer. Whatever happens, the connection is given back or closed."""
        request = self.stream.request
        head = request_head(request.method, request.path, [(h.name, h.value) for h in request.headers])
        self.stream.when_cut_off(self._cut_off)
        try:
            body = await self.stream.read()
            if not body or head.declared == len(body):
                await self._answer(await self._sent_whole(head, body))
            else:
                await self._send_in_pieces(head, body)
        finally:
            connection, self._connection = self._connection, None  # it may serve another stream from here on
            if connection is not None and self._uploaded:
                self.pool.give_back(self.endpoint, connection)
            elif connection is not None:
                connection.abort()
        if not self._uploaded:
            # The engine answered before it had read everything. The hub will end or reset its side when it sees
            # that; a reset from here would discard what of the answer has not left yet.
            while await self.stream.read():
                pass

    def _cut_off(self, code: ResetCode) -> None:
        if self._connection is not None:
            self._connection.fail(StreamReset(code))

    async def _sent_whole(self, head: RequestHead, body: bytes) -> Connection:
        """The connection on which an answer to the whole request has begun."""
        octets = head.whole(body)
        kept = self.pool.take(self.endpoint)
        if kept is not None:
            self._connection = kept
            kept.begin(head.method, octets)
            try:
                await kept.head()
            except EngineFailed as exc:
                # llama.cpp closes after every streamed answer, although it promises to keep the connection. Where
                # not one octet came back the request was not read, and goes out once more.
                if not exc.silent:
                    raise
            else:
                return kept
        fresh = await self._connect()
        fresh.begin(head.method, octets)
        await fresh.head()
        return fresh

    async def _send_in_pieces(self, head: RequestHead, first: bytes) -> None:
        """A body that is not all here goes over a new connection, since it could not be sent a second time."""
        connection = await self._connect()
        self._uploaded = False
        connection.begin(head.method, head.opening())
        broken: Exception | None = None
        async with asyncio.TaskGroup() as group:
            upload = group.create_task(self._upload(connection, head, first))
            try:
                await connection.head()
                await self._answer(connection)
            except (EngineFailed, NotAllowed, StreamReset) as exc:
                broken = exc  # raised below: a group would wrap it
            upload.cancel()
        if broken is not None:
            raise broken

    async def _upload(self, connection: Connection, head: RequestHead, first: bytes) -> None:
        """Pass the body on, no faster than the engine reads it, and exactly as long as announced."""
        data, sent = first, 0
        try:
            while data:
                sent += len(data)
                if head.declared is not None and sent > head.declared:
                    raise NotAllowed("the body is longer than announced")
                await connection.write(head.piece(data))
                data = await self.stream.read()
            if head.declared is not None and sent < head.declared:
                raise NotAllowed("the body is shorter than announced")
            await connection.write(head.closing())
            self._uploaded = True
        except (NotAllowed, StreamReset) as exc:
            connection.fail(exc)

    async def _answer(self, connection: Connection) -> None:
        """Pass the answer on. Nothing here waits while octets are there and the hub has room for them, so that a
        short answer leaves whole, in one batch.
        """
        headers = [Header(name=name, value=value) for name, value in response_headers(connection.headers)]
        try:
            self.stream.respond(Head(status=connection.status, headers=headers))
        except InvalidInput as exc:
            raise EngineFailed("engine sent too large a header") from exc
        self.responded = True
        while data := await connection.read():
            await self.stream.write(data)
        self.stream.end()

    async def _connect(self) -> Connection:
        self._connection = connection = await connect(self.endpoint)
        if self.stream.code is not None:  # cut off while we dialled
            raise StreamReset(self.stream.code)
        return connection
