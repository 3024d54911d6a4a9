"""The two ways of answering a chat completion: in one piece, or as a stream of events."""

import logging
from dataclasses import dataclass, field
from typing import Final

from gateway.api import errors
from gateway.api.bodies import Place
from gateway.api.delivery import Delivery
from gateway.api.metrics import Metrics
from gateway.control.usage import Entry, UsageBook
from gateway.core import metering
from gateway.core.admission import Caller
from gateway.core.chat import ChatRequest
from gateway.core.errors import UpstreamFailed, UpstreamLost
from gateway.core.metering import StreamMeter, Usage
from gateway.core.snapshot import Model, Route
from gateway.core.sse import Scanner
from gateway.core.usage import Outcome
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F

log = logging.getLogger(__name__)

MAX_ANSWER = 8 * 1024 * 1024  # octets of an answer in one piece, held until it is complete; text has thousands
MAX_ERROR = 64 * 1024  # octets of an engine's error; they are sentences

_JSON: Final = "application/json"
_KEEP_ALIVE: Final = b": waiting for the engine\n\n"
_EVENTS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(slots=True, kw_only=True)
class Ledger:
    """What is recorded of one request, by whichever way it ends."""

    request_id: str
    caller: Caller
    model: Model
    request: ChatRequest
    arrived: float
    book: UsageBook
    clock: Clock
    metrics: Metrics
    entry: Entry | None = None
    first_token_s: float | None = None

    def take(self, route: Route) -> None:
        """Written down before the first worker hears of it. SpoolUnavailable: it must not."""
        if self.entry is None:
            self.entry = self.book.open(
                self.request_id,
                self.caller,
                model=self.model.name,
                route=route,
                at=self.clock.now(),
                streamed=self.request.stream,
            )
        else:
            self.entry.take(route)

    def begun(self) -> None:
        """The first of a stream has come. Of an answer in one piece nobody knows when it began."""
        if self.first_token_s is None:
            self.first_token_s = self.clock.monotonic() - self.arrived
            self.metrics.first_token(self.model.name, self.first_token_s)

    def close(self, outcome: Outcome, *, status: int, usage: Usage) -> None:
        """Only the first call counts."""
        if self.entry is not None and self.entry.is_open:
            lasted = self.clock.monotonic() - self.arrived
            first = self.first_token_s
            usage = self._believable(usage)
            self.entry.close(outcome, status=status, duration_s=lasted, first_token_s=first, usage=usage)
            self.metrics.ended(self.model.name, outcome, lasted, usage)

    def _believable(self, told: Usage) -> Usage:
        """The counts are a node's word, and are billed: no more than the model's context can hold."""
        usage = metering.capped(told, context=self.model.context_length, choices=self.request.choices)
        if usage is not told and self.entry is not None:
            log.warning(
                "token counts cut to the model's context",
                extra={F.REQUEST: self.request_id, F.WORKER: self.entry.opening.worker_id, F.REASON: str(told)},
            )
        return usage


@dataclass(slots=True)
class PlainAnswer:
    """Holds the answer until it is complete: a worker that fails half-way can be replaced unnoticed."""

    request_id: str
    request: ChatRequest
    ledger: Ledger
    delivery: Delivery
    path: str
    place: Place
    streamed: bool = field(init=False, default=False)
    begun: bool = field(init=False, default=False)
    usage: Usage = field(init=False, default=Usage())
    _status: int = field(init=False, default=0)
    _parts: list[bytes] = field(init=False, default_factory=list)
    _size: int = field(init=False, default=0)

    def take(self, route: Route) -> bytes:
        self.ledger.take(route)
        self._parts.clear()
        self._size = 0
        self.place.hold(len(self.request.body))
        return self.request.body_for(route.engine)

    def head(self, status: int) -> None:
        self._status = status

    async def data(self, octets: bytes, *, last: bool) -> None:
        self._parts.append(octets)
        self._size += len(octets)
        if self._size > MAX_ANSWER:
            raise UpstreamFailed(f"the engine's answer is larger than {MAX_ANSWER} bytes; ask for a stream")
        self.place.hold(len(self.request.body) + self._size)

    async def keep_alive(self) -> None:
        """There is nothing to say before the status."""

    async def finish(self) -> None:
        """The engine has said all."""
        body = b"".join(self._parts)
        status = self._status
        if status >= 400:
            status, body = errors.answer_of_engine(status, body)
        else:
            self.usage = metering.of_answer(body)
        outcome = Outcome.COMPLETED if status < 400 else Outcome.FAILED
        # Before the client can have it: nobody has an answer that is not accounted for.
        self.ledger.close(outcome, status=status, usage=self.usage)
        self.begun = True
        # Of the engine's head only the status goes on: a node must not write into our answers' heads.
        await self.delivery.begin(status, {"Content-Type": _JSON, "Content-Length": str(len(body))})
        await self.delivery.end(body)

    async def fail(self, exc: MeshError) -> None:
        """It went wrong after the client was given a part."""
        raise exc


@dataclass(slots=True)
class StreamAnswer:
    """Passes events on as they come, without what the client did not ask for."""

    request_id: str
    request: ChatRequest
    ledger: Ledger
    delivery: Delivery
    path: str
    streamed: bool = field(init=False, default=True)
    begun: bool = field(init=False, default=False)
    _meter: StreamMeter = field(init=False)
    _scanner: Scanner = field(init=False)
    _status: int = field(init=False, default=0)
    _error: bytes = field(init=False, default=b"")
    _ended: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._start_over("")

    @property
    def usage(self) -> Usage:
        """The engine's last word so far."""
        return self._meter.usage()

    def take(self, route: Route) -> bytes:
        self.ledger.take(route)
        self._start_over(route.engine)
        return self.request.body_for(route.engine)

    def head(self, status: int) -> None:
        self._status = status

    async def data(self, octets: bytes, *, last: bool) -> None:
        if self._status >= 400:
            self._error = (self._error + octets)[:MAX_ERROR]
            return
        self.ledger.begun()
        meter = self._meter
        octets = self._scanner.feed(octets)
        if meter.finished:
            # Before the client can see the end: nobody has an answer that is not accounted for.
            self.ledger.close(Outcome.COMPLETED, status=200, usage=meter.usage())
            if last:
                octets += self._scanner.finish()
                await self._begin()
                self.begun = self._ended = True
                await self.delivery.end(octets)
                return
        if octets:
            await self._begin()
            self.begun = True
            await self.delivery.send(octets)

    async def keep_alive(self) -> None:
        if self._scanner.inside or self._meter.finished or self._status >= 400:
            return  # a comment would tear an event, come too late, or make an error a stream
        await self._begin()
        await self.delivery.send(_KEEP_ALIVE)

    async def finish(self) -> None:
        """The engine has said all."""
        if self._ended:
            return
        if self._status >= 400:
            return await self._pass_error()
        await self._begin()
        if not self._meter.finished:
            if not self._meter.failed:
                raise UpstreamLost("the answer broke off: the engine ended the stream before its end")
            self.ledger.close(Outcome.FAILED, status=200, usage=self.usage)
        await self.delivery.end(self._scanner.finish())

    async def fail(self, exc: MeshError) -> None:
        """It went wrong after the headers: say so in the stream, and end it without ``[DONE]``."""
        if self._meter.finished:  # the client has all of it; what failed was only the way of ending
            return await self.delivery.end(self._scanner.finish())
        await self.delivery.end(self._scanner.finish() + errors.event_of(exc))

    async def _begin(self) -> None:
        if self.delivery.response is None:
            await self.delivery.begin(200, _EVENTS)

    async def _pass_error(self) -> None:
        status, body = errors.answer_of_engine(self._status, self._error)
        self.ledger.close(Outcome.FAILED, status=status, usage=self.usage)
        if self.delivery.response is None:
            headers = {"Content-Type": _JSON, "Content-Length": str(len(body))}
            await self.delivery.begin(status, headers)
            await self.delivery.end(body)
        else:
            await self.delivery.end(b"data: " + body + b"\n\n")

    def _start_over(self, engine: str) -> None:
        self._meter = StreamMeter(self.request, engine)
        self._scanner = Scanner(self._meter.show)
        self._status = 0
        self._error = b""
