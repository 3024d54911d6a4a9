"""One request through one stream of a node's session: cancel, limits, and another worker before the first byte.

The task that serves the client does all of it; nothing runs beside it. Whatever ends it, the stream is reset if it
is not over, and the worker's counter goes down.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.core import routing
from gateway.core.errors import NoReadyWorker, UpstreamFailed, UpstreamLost, UpstreamTimeout, WorkersBusy
from gateway.core.snapshot import Model, Route, WorkerPhase
from gateway.tunnel.patience import Patience
from gateway.tunnel.registry import Registry
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from mesh.link.frames import ResetCode
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire.errors import LinkLost, SessionDraining, StreamReset, TooManyStreams
from mesh.wire.session import Session
from mesh.wire.stream import Stream

log = logging.getLogger(__name__)

TRIES = 3  # workers that may see one request, one after the other
DEATHS = 2  # of engines that may die under one request: it may be the request's fault
KEEP_ALIVE_S = 10.0  # silence after which a waiting client is shown that we live; proxies cut at 30 to 60 s
ANSWER_LIMIT_MS = 3_600_000  # an hour for a whole answer, enforced by the node: beyond it nobody listens

# Reasons to ask somebody else, while the client has seen nothing: nothing was done, or the way there broke.
_MAY_RETRY = frozenset(
    {
        ResetCode.REFUSED,
        ResetCode.WORKER_UNKNOWN,
        ResetCode.WORKER_UNREADY,
        ResetCode.UPSTREAM_FAILED,
        ResetCode.LINK_LOST,
        ResetCode.DRAINING,
        ResetCode.TOO_MANY,
    }
)
_BUSY_OR_BROKEN = (429, 502, 503)  # an engine's statuses after which somebody else may do better


class Errand(Protocol):
    """A client's request, and where its answer goes."""

    request_id: str
    streamed: bool
    path: str

    @property
    def begun(self) -> bool:
        """Whether the client has seen something of an answer, so that nobody else may give another."""

    def take(self, route: Route) -> bytes:
        """This worker has it now; returns the body for its engine. Called again for each further worker."""

    def head(self, status: int) -> None:
        """The answer's head has come: 200, or an error's status."""

    async def data(self, octets: bytes, *, last: bool) -> None:
        """Some of the answer has come; not empty. Returns when the client may be given more."""

    async def keep_alive(self) -> None:
        """Nothing has come for a while. Only of streams."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait, in seconds."""

    first_byte_s: float
    """Until a streamed answer begins."""
    answer_s: float
    """Until an answer in one piece begins: engines send nothing before it is complete."""
    idle_s: float
    """Between two pieces of an answer."""


class _Refused(Exception):
    """An attempt failed in a way that leaves the request to somebody else."""

    def __init__(self, code: ResetCode, status: int = 0) -> None:
        self.code = code
        self.why = f"status_{status}" if status else code.name.lower()
        super().__init__(self.why)


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Sends errands to workers."""

    registry: Registry
    limits: Limits
    clock: Clock
    on_failed_attempt: Callable[[str], None]

    async def forward(self, errand: Errand, model: Model, patience: Patience) -> None:
        """Have a worker answer. Raises NoReadyWorker, WorkersBusy, UpstreamFailed, -Lost or -Timeout."""
        tried: set[str] = set()
        failure: MeshError | None = None
        deaths = 0
        for tries in range(1, TRIES + 1):
            route = self.registry.choose(model.routes, tried)
            if route is None:
                # A control plane that is away tells nobody that a worker is ready again. Asking costs one frame.
                route = self.registry.choose(model.routes, tried, routing.DOUBTFUL)
                if route is None:
                    break
            session = self.registry.session(route.node_id)
            assert session is not None, "chosen because it is there"
            body = errand.take(route)
            try:
                with self.registry.lease(route.worker_id):
                    may_go_on = partial(self._may_go_on, model, route, tried, tries)
                    return await self._attempt(errand, route, session, body, patience, may_go_on)
            except _Refused as exc:
                log.info(
                    "worker did not answer",
                    extra={F.REQUEST: errand.request_id, F.WORKER: route.worker_id, F.CODE: exc.why},
                )
                self.on_failed_attempt(exc.why)
                if failure is None or route.phase is WorkerPhase.READY:
                    failure = _error(exc.code, model.name)
                deaths += exc.code is ResetCode.UPSTREAM_FAILED
                if deaths == DEATHS:
                    break
                # A worker behind a link that was lost may be tried again when its node has come back meanwhile.
                if self.registry.session(route.node_id) in (None, session):
                    tried.add(route.worker_id)
        raise failure or NoReadyWorker(model.name)

    def _may_go_on(self, model: Model, route: Route, tried: set[str], tries: int) -> bool:
        """Whether somebody else is ready to take the request."""
        return tries < TRIES and self.registry.choose(model.routes, tried | {route.worker_id}) is not None

    async def _attempt(
        self,
        errand: Errand,
        route: Route,
        session: Session,
        body: bytes,
        patience: Patience,
        may_go_on: Callable[[], bool],
    ) -> None:
        try:
            stream = session.open(_open(errand, route, body))
        except SessionDraining:
            raise _Refused(ResetCode.DRAINING) from None
        except TooManyStreams:
            raise _Refused(ResetCode.TOO_MANY) from None
        except LinkLost:
            raise _Refused(ResetCode.LINK_LOST) from None
        step_s = self._step(errand, self.limits.idle_s)
        try:
            status, data = await self._first(stream, body, errand, patience)
            if status in _BUSY_OR_BROKEN and may_go_on():
                raise _Refused(ResetCode.TOO_MANY if status == 429 else ResetCode.WORKER_UNREADY, status)
            if status != 200 and not 400 <= status <= 599:
                # A node must not choose among the statuses that make our answer's body another answer's head.
                raise UpstreamFailed(f"the engine answered with the status {status}")
            errand.head(status)
            while data:
                last = stream.done
                await errand.data(data, last=last)
                if last:
                    return
                patience.allow(step_s)
                try:
                    data = await stream.read()
                except asyncio.CancelledError:
                    if not patience.is_up():
                        raise
                    data = await self._later(stream, errand, patience, step_s)
        except StreamReset as exc:
            if errand.begun:
                raise _lost(exc.reason) from exc
            if exc.reason in _MAY_RETRY:
                raise _Refused(exc.reason) from exc
            raise _error(exc.reason, route.worker_id) from exc
        finally:
            stream.reset(ResetCode.CANCEL)  # the engine stops at once; nothing happens to a stream that is over

    async def _first(self, stream: Stream, body: bytes, errand: Errand, patience: Patience) -> tuple[int, bytes]:
        """Send the request; wait for the status and the first octets of the answer, which may be none."""
        limit = self.limits.first_byte_s if errand.streamed else self.limits.answer_s
        give_up = self.clock.monotonic() + limit
        patience.allow(limit)
        try:
            await stream.write(body)
        except asyncio.CancelledError:
            if patience.is_up():
                raise UpstreamTimeout("the engine did not read the request in time") from None
            raise
        stream.end()
        while True:
            patience.allow(self._step(errand, give_up - self.clock.monotonic()))
            try:
                head = await stream.head()
                data = await stream.read()
            except asyncio.CancelledError:
                if not patience.is_up():
                    raise
            else:
                return head.status, data
            if self.clock.monotonic() >= give_up:
                raise UpstreamTimeout("the engine did not begin to answer in time")
            await errand.keep_alive()

    async def _later(self, stream: Stream, errand: Errand, patience: Patience, waited_s: float) -> bytes:
        """The next octets of an answer, for which we have waited so long already."""
        give_up = self.clock.monotonic() + self.limits.idle_s - waited_s
        while (left := give_up - self.clock.monotonic()) > 0:
            await errand.keep_alive()
            patience.allow(self._step(errand, left))
            try:
                return await stream.read()
            except asyncio.CancelledError:
                if not patience.is_up():
                    raise
        raise UpstreamTimeout("the engine fell silent in the middle of its answer")

    @staticmethod
    def _step(errand: Errand, left_s: float) -> float:
        """How long to wait before the client is to hear something."""
        return min(left_s, KEEP_ALIVE_S) if errand.streamed else left_s


def _open(errand: Errand, route: Route, body: bytes) -> pb.Open:
    return pb.Open(
        worker_id=route.worker_id,
        method="POST",
        path=errand.path,
        headers=(
            pb.Header(name="content-type", value="application/json"),
            pb.Header(name="content-length", value=str(len(body))),
            pb.Header(name="accept", value="text/event-stream" if errand.streamed else "application/json"),
        ),
        timeout_ms=ANSWER_LIMIT_MS,
        request_id=errand.request_id,
    )


def _lost(code: ResetCode) -> MeshError:
    """Why an answer that the client has begun to read goes no further."""
    if code is ResetCode.TIMEOUT:
        return UpstreamTimeout("the answer took longer than the node allows")
    return UpstreamLost(f"the answer broke off: {code.name.lower()}")


def _error(code: ResetCode, name: str) -> MeshError:
    """What the client is told when nobody else can be asked."""
    match code:
        case ResetCode.REFUSED | ResetCode.WORKER_UNKNOWN | ResetCode.WORKER_UNREADY | ResetCode.DRAINING:
            return NoReadyWorker(name)
        case ResetCode.TOO_MANY:
            return WorkersBusy(name)
        case ResetCode.TIMEOUT:
            return UpstreamTimeout("the engine did not answer in time")
        case ResetCode.UPSTREAM_LOST | ResetCode.LINK_LOST | ResetCode.FORGOTTEN:
            return UpstreamLost("the engine was lost before it answered")
        case _:
            return UpstreamFailed("the engine could not answer")
