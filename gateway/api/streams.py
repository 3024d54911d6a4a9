"""An answer as a stream of events: passed on as they come, without what the client did not ask for, and
gone on with by another worker when one is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.api import errors
from gateway.api.account import Account
from gateway.api.answers import ROUTE
from gateway.api.delivery import Delivery
from gateway.core.continuation import Splicer, continue_body
from gateway.core.metering import StreamMeter, Usage
from gateway.core.prompts import CONTINUED
from gateway.core.request import InferenceRequest
from gateway.core.routing import Choice
from gateway.core.snapshot import Route
from gateway.core.sse import Scanner
from gateway.core.transcript import Transcript
from gateway.core.usage import Outcome
from mesh.kit.errors import MeshError

MAX_ERROR = 64 * 1024  # octets of an engine's error; they are sentences

_EVENTS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(slots=True)
class StreamAnswer:
    """One errand's. ``news``: what to tell a client that waits."""

    request_id: str
    request: InferenceRequest
    account: Account
    delivery: Delivery
    news: Callable[[], str]
    shows_route: bool = False
    streamed: bool = field(init=False, default=True)
    begun: bool = field(init=False, default=False)
    path: str = field(init=False)
    content_type: str = field(init=False)
    _transcript: Transcript | None = field(init=False, default=None)
    """Only where answers are of a kind that may be continued, or be found to be complete."""
    _meter: StreamMeter = field(init=False)
    _scanner: Scanner = field(init=False)
    _status: int = field(init=False, default=0)
    _route: str = field(init=False, default="")
    _error: bytes = field(init=False, default=b"")
    _ended: bool = field(init=False, default=False)
    _left: bytes = field(init=False, default=b"")
    """What the client lacks of an answer that was complete when its worker was lost."""

    def __post_init__(self) -> None:
        self.path, self.content_type = self.request.endpoint.path, self.request.content_type
        self._start_over("")

    @property
    def usage(self) -> Usage:
        """The engines' last word so far."""
        usage = self._meter.usage()
        return usage if self._transcript is None else self._transcript.total(usage)

    def queued(self, waited_s: float) -> None:
        self.account.queue_s = waited_s

    def missed(self, route: Route, why: str) -> None:
        self.account.missed(route, why)

    @property
    def trace(self) -> str:
        return "" if self.account.story is None else self.account.story.header

    def take(self, choice: Choice) -> bytes:
        self.account.take(choice)
        if self.shows_route:
            self._route = choice.header
        engine, name = choice.route.engine, self.account.model.engine_name
        transcript = self._transcript
        if not self.begun:
            known = self.request.endpoint.scope in CONTINUED
            transcript = self._transcript = Transcript(self.request, engine) if known else None
        self._start_over(engine)
        if transcript is None or not self.begun:
            return self.request.body_for(engine, name)
        self._scanner = Scanner(Splicer(transcript, self._meter).show)
        self.account.continuations += 1
        return continue_body(self.request, engine, name, transcript)

    def may_go_on(self, engine: str) -> bool:
        return self._transcript is not None and not self._transcript.refusal(engine)

    def interrupted(self) -> bool:
        if self._meter.finished:
            return True  # the client has all of it; what failed was only the way of ending
        transcript = self._transcript
        if transcript is None:
            return False
        transcript.lost(self._meter.usage())
        if self._scanner.unseen:
            transcript.lose("an event that is too long to be held")
        self._meter = StreamMeter(self.request, "")  # what was counted is in the transcript now, once
        self._left = transcript.ending()
        self._meter.finished = bool(self._left)
        return self._meter.finished

    def head(self, status: int, kind: str) -> None:
        del kind  # a stream of events, or an error
        self._status = status
        self.account.heard()

    async def data(self, octets: bytes, *, last: bool) -> None:
        if self._status >= 400:
            self._error = (self._error + octets)[:MAX_ERROR]
            return
        self.account.piece()
        meter = self._meter
        octets = self._scanner.feed(octets)
        if meter.finished:
            # Before the client can see the end: nobody has an answer that is not accounted for.
            self.account.close(Outcome.COMPLETED, status=200, usage=self.usage)
            if last:
                octets += self._scanner.finish()
                self._begin()
                self.begun = self._ended = True
                await self.delivery.end(octets)
                return
        if octets:
            self._begin()
            self.begun = True
            await self.delivery.send(octets)

    def complete(self) -> bool:
        if self._status < 400:
            self._meter.over()
        return self._status >= 400 or self._meter.finished or self._meter.failed

    async def keep_alive(self) -> None:
        if self._scanner.inside or self._meter.finished or self._status >= 400:
            return  # a comment would tear an event, come too late, or make an error a stream
        self._begin()
        await self.delivery.send(f": waiting for the engine{self.news()}\n\n".encode())

    async def finish(self) -> None:
        """The engine has said all."""
        if self._ended:
            return
        if self._status >= 400:
            return await self._pass_error()
        self._begin()
        outcome = Outcome.COMPLETED if self._meter.finished else Outcome.FAILED
        self.account.close(outcome, status=200, usage=self.usage)
        await self.delivery.end(self._left or self._scanner.finish())

    async def fail(self, exc: MeshError) -> None:
        """It went wrong after the headers: say so in the stream, and end it without ``[DONE]``."""
        if self._meter.finished:  # the client has all of it; what failed was only the way of ending
            return await self.delivery.end(self._scanner.finish())
        rest = b"" if self._transcript is not None else self._scanner.finish()
        if self._scanner.inside:  # of an event too long to be held: ours must not become a part of it
            rest += b"\n\n"
        await self.delivery.end(rest + errors.event_of(exc, self.request.endpoint.counts))

    def close(self) -> None:
        """All is said. Without this, a ring with the scanner keeps the body until the collector comes."""
        self._scanner.show = _as_it_is

    def _begin(self) -> None:
        if not self.delivery.begun:
            self.delivery.begin(200, {**_EVENTS, ROUTE: self._route} if self._route else _EVENTS)

    async def _pass_error(self) -> None:
        status, body = errors.answer_of_engine(self._status, self._error)
        self.account.close(Outcome.FAILED, status=status, usage=self.usage)
        if not self.delivery.begun:
            await self.delivery.answer(status, {}, body)
        else:
            await self.delivery.end(errors.event(body, self.request.endpoint.counts))

    def _start_over(self, engine: str) -> None:
        self._meter = StreamMeter(self.request, engine)
        self._scanner = Scanner(self._show if self._transcript is not None else self._meter.show)
        self._left = b""
        self._status = 0
        self._error = b""

    def _show(self, event: bytes) -> bytes:
        """The first worker's events, seen by the transcript."""
        assert self._transcript is not None, "of answers that may be continued"
        shown = self._meter.show(event)
        if shown:
            self._transcript.see(shown)
        return shown


def _as_it_is(event: bytes) -> bytes:
    return event
