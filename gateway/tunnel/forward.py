"""One request through the streams of nodes: its turn, its worker, limits, cancel, and who goes on after it.

The task that serves the client does all of it; nothing runs beside it. Whatever ends it, the stream is reset if it
is not over, and the worker's counter goes down.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from gateway.core import routing
from gateway.core.errors import NoReadyWorker, UpstreamFailed, UpstreamLost, UpstreamTimeout, WorkersBusy
from gateway.core.retries import RetryBudget
from gateway.core.routing import Choice
from gateway.core.snapshot import Model, Route, WorkerPhase
from gateway.tunnel.errand import Claim, Errand, Limits
from gateway.tunnel.patience import Patience
from gateway.tunnel.registry import Registry
from gateway.tunnel.waiting import Waiting
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from mesh.link.frames import ResetCode
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire.errors import LinkLost, SessionDraining, StreamReset, TooManyStreams
from mesh.wire.session import Session
from mesh.wire.stream import Stream

log = logging.getLogger(__name__)

TRIES = 3  # workers that may see one request before the client has seen anything, one after the other
DEATHS = 2  # of engines that may die under one request: it may be the request's fault
CONTINUATIONS = 3  # further workers that may go on with an answer the client has begun to read
KEEP_ALIVE_S = 10.0  # silence after which a waiting client is shown that we live; proxies cut at 30 to 60 s
ANSWER_LIMIT_MS = 3_600_000  # an hour for a whole answer, enforced by the node: beyond it nobody listens

# Reasons to ask somebody else, while the client has seen nothing: nothing was done, or the way there broke.
_MAY_RETRY = frozenset(
    {
        ResetCode.REFUSED,
        ResetCode.WORKER_UNKNOWN,
        ResetCode.WORKER_UNREADY,
        ResetCode.UPSTREAM_FAILED,
        ResetCode.UPSTREAM_LOST,
        ResetCode.FORGOTTEN,
        ResetCode.LINK_LOST,
        ResetCode.DRAINING,
        ResetCode.TOO_MANY,
    }
)
# What is held against a worker by its circuit breaker. A link that is lost shows for itself: the node is away.
_ITS_FAULT = frozenset({ResetCode.UPSTREAM_FAILED, ResetCode.UPSTREAM_LOST, ResetCode.TIMEOUT})
_DEATHS = frozenset({ResetCode.UPSTREAM_FAILED, ResetCode.UPSTREAM_LOST})
_BUSY_OR_BROKEN = (429, 502, 503)  # an engine's statuses after which somebody else may do better


class _Refused(Exception):
    """An attempt failed in a way that leaves the request to somebody else."""

    def __init__(self, code: ResetCode, status: int = 0) -> None:
        self.code = code
        self.status = status
        self.why = f"status_{status}" if status else code.name.lower()
        super().__init__(self.why)


class _Interrupted(Exception):
    """The answer broke off after the client had seen some of it."""

    def __init__(self, cause: MeshError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(slots=True)
class _Trail:
    """What was tried for one errand."""

    tried: set[str] = field(default_factory=set)
    tries: int = 0
    deaths: int = 0
    continuations: int = 0
    failure: MeshError | None = None


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Sends errands to workers."""

    registry: Registry
    waiting: Waiting
    limits: Limits
    clock: Clock
    retries: RetryBudget = field(default_factory=RetryBudget)

    async def forward(self, errand: Errand, model: Model, claim: Claim, patience: Patience) -> None:
        """Have a worker answer. Raises QueueFull, QueueTimeout, NoReadyWorker, WorkersBusy, UpstreamFailed, …"""
        self.retries.request()
        turn = self.waiting.turn(
            model.name,
            patience,
            key_id=claim.key_id,
            weight=claim.weight,
            priority=claim.priority,
            max_wait_s=claim.max_wait_s,
            keep_alive=errand.keep_alive if errand.streamed else None,
        )
        async with turn:
            errand.queued(turn.waited_s)
            trail = _Trail()
            while (choice := self._next(errand, model, claim, trail)) is not None:
                session = self.registry.session(choice.route.node_id)
                assert session is not None, "chosen because it is there"
                body = errand.take(choice)
                try:
                    with self.registry.lease(model, choice.route.worker_id):
                        turn.taken()
                        return await self._attempt(errand, model, choice, session, body, patience, trail)
                except _Refused as exc:
                    self._note(errand, choice.route, exc.why)
                    if trail.failure is None or choice.route.phase is WorkerPhase.READY:
                        trail.failure = _error(exc.code, model.name)
                    trail.deaths += exc.code in _DEATHS
                except _Interrupted as exc:
                    self._note(errand, choice.route, "interrupted")
                    trail.failure = exc.cause
                    trail.continuations += 1
                    if errand.interrupted():
                        return None
                # A worker behind a link that was lost may be tried again when its node has come back meanwhile.
                if self.registry.session(choice.route.node_id) in (None, session):
                    trail.tried.add(choice.route.worker_id)
            failure = trail.failure or NoReadyWorker(model.name)
            trail.failure = None
            try:
                raise failure
            finally:
                del failure  # an error that its own frame holds is a ring

    def _next(self, errand: Errand, model: Model, claim: Claim, trail: _Trail) -> Choice | None:
        """Who is asked next; None when nobody may be, or can be."""
        if errand.begun:
            if trail.continuations > CONTINUATIONS:
                return None
            unfit = {one.worker_id for one in model.routes if not errand.may_go_on(one.engine)}
            return self.registry.choose(model, claim.wish, trail.tried | unfit)
        if trail.tries == TRIES or trail.deaths == DEATHS:
            return None
        if trail.tries and not self.retries.spend(self.clock.monotonic()):
            return None
        trail.tries += 1
        # A control plane that is away tells nobody that a worker is ready again. Asking costs one frame.
        return self.registry.choose(model, claim.wish, trail.tried) or self.registry.choose(
            model, claim.wish, trail.tried, routing.DOUBTFUL
        )

    def _note(self, errand: Errand, route: Route, why: str) -> None:
        log.info(
            "worker did not answer",
            extra={F.REQUEST: errand.request_id, F.WORKER: route.worker_id, F.CODE: why},
        )
        errand.missed(route, why)

    async def _attempt(
        self,
        errand: Errand,
        model: Model,
        choice: Choice,
        session: Session,
        body: bytes,
        patience: Patience,
        trail: _Trail,
    ) -> None:
        """One worker's try, and what it says of that worker."""
        worker_id, breaker = choice.route.worker_id, self.registry.breaker
        ticket = breaker.begin(worker_id, self.clock.monotonic()) if len(breaker) else None
        failed: bool | None = None
        try:
            await self._ask(errand, model, choice.route, session, body, patience, trail)
            failed = False
        except _Refused as exc:
            failed = exc.code in _ITS_FAULT or exc.status >= 500 or None
            raise
        except StreamReset as exc:
            failed = exc.reason in _ITS_FAULT or None
            if errand.begun:
                raise _Interrupted(_lost(exc.reason)) from exc
            if exc.reason in _MAY_RETRY:
                raise _Refused(exc.reason) from exc
            raise _error(exc.reason, worker_id) from exc
        except (UpstreamTimeout, UpstreamFailed, UpstreamLost) as exc:
            failed = True
            if errand.begun:
                raise _Interrupted(exc) from exc
            raise
        finally:
            now = self.clock.monotonic()
            if failed and ticket is None:
                ticket = breaker.begin(worker_id, now)
            if ticket is not None and failed is None:
                breaker.abandon(worker_id, ticket, now)
            elif ticket is not None and breaker.end(worker_id, ticket, now, failed=bool(failed)):
                log.warning("worker left alone for a while", extra={F.WORKER: worker_id})

    async def _ask(
        self,
        errand: Errand,
        model: Model,
        route: Route,
        session: Session,
        body: bytes,
        patience: Patience,
        trail: _Trail,
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
            status, kind, data = await self._first(stream, body, errand, patience)
            if status in _BUSY_OR_BROKEN and not errand.begun and self._could_retry(model, route, trail):
                raise _Refused(ResetCode.TOO_MANY if status == 429 else ResetCode.WORKER_UNREADY, status)
            if status != 200 and (not 400 <= status <= 599 or errand.begun):
                # A node must not choose among the statuses that make our answer's body another answer's head.
                raise UpstreamFailed(f"the engine answered with the status {status}")
            errand.head(status, kind)
            while data:
                last = stream.done
                await errand.data(data, last=last)
                if last:
                    break
                patience.allow(step_s)
                try:
                    data = await stream.read()
                except asyncio.CancelledError:
                    if not patience.is_up():
                        raise
                    data = await self._later(stream, errand, patience, step_s)
            if not errand.complete():
                raise UpstreamLost("the answer broke off: the engine ended the stream before its end")
        finally:
            stream.reset(ResetCode.CANCEL)  # the engine stops at once; nothing happens to a stream that is over

    def _could_retry(self, model: Model, route: Route, trail: _Trail) -> bool:
        """Whether somebody else is ready to take the request."""
        return trail.tries < TRIES and self.registry.another(model, trail.tried | {route.worker_id})

    async def _first(
        self, stream: Stream, body: bytes, errand: Errand, patience: Patience
    ) -> tuple[int, str, bytes]:
        """Send the request; wait for status, kind and the first octets of the answer, which may be none."""
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
                kind = next((one.value for one in head.headers if one.name == "content-type"), "")
                return head.status, kind, data
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
    trace = errand.trace
    return pb.Open(
        worker_id=route.worker_id,
        method="POST",
        path=errand.path,
        headers=(
            pb.Header(name="content-type", value=errand.content_type),
            pb.Header(name="content-length", value=str(len(body))),
            pb.Header(name="accept", value="text/event-stream" if errand.streamed else "*/*"),
            *((pb.Header(name="traceparent", value=trace),) if trace else ()),
        ),
        timeout_ms=ANSWER_LIMIT_MS,
        request_id=errand.request_id,
        node_id=route.node_id,
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
