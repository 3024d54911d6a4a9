"""Drives a Mux over a Link: one task takes batches apart and never waits for anything else, one writes.

The writer lets one turn of the event loop pass before it takes what is queued, so that everything that is ready
in this turn leaves in one message; a message costs fifty times what a frame does. While a write is blocked the
streams' windows bound what gathers here (``mesh/link/limits.py``).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput
from mesh.kit.logs import F
from mesh.link import events as on
from mesh.link.frames import MAX_HEAD, LinkError, ResetCode
from mesh.link.limits import FaultBudget, Limits
from mesh.link.mux import Mux, OpenRefused
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire.errors import LinkLost, SessionDraining, TooManyStreams
from mesh.wire.stream import Stream

log = logging.getLogger(__name__)

PROBE_EVERY_S = 30.0  # the path through both event loops; the transport has its own keep-alive
CLOSE_WITHIN_S = 1.0  # how long the peer may take to say that it too has ended


class Link(Protocol):
    """An ordered, lossless, two-way stream of batches. Both coroutines raise LinkLost when it is broken."""

    async def receive(self) -> bytes | None:
        """The next batch; None when the peer has ended. One task at a time."""

    async def send(self, batch: bytes) -> None:
        """Send a batch; returns when the transport has room for another. One task at a time."""

    async def close(self) -> bool:
        """Say that nothing more comes; True if the peer will then end too, and is worth waiting for."""


class Session:
    """One link, from either end. ``run`` it once; when it returns, the link is over and so is every stream."""

    def __init__(
        self,
        link: Link,
        *,
        initiator: bool,
        clock: Clock,
        on_open: Callable[[Stream], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """``on_open`` is called for each stream the peer opens; it must not block, and cannot wait."""
        self.why = ""  # a code: what ended the link
        self._link = link
        self._clock = clock
        self._on_open = on_open
        self._mux = Mux(initiator=initiator, limits=limits)
        self._streams: dict[int, Stream] = {}
        self._faults = FaultBudget()
        self._unanswered: int | None = None  # nonce of a probe
        self._queued = asyncio.Event()
        self._over = asyncio.Event()
        self._writing = False
        self._idlers: set[asyncio.Future[None]] = set()

    @property
    def live(self) -> int:
        """Streams that count against the link's limit."""
        return len(self._mux)

    @property
    def closed(self) -> bool:
        """Whether the link is over."""
        return self._over.is_set()

    @property
    def draining(self) -> bool:
        """Whether either side takes no new streams."""
        return self._mux.draining

    def open(self, request: pb.Open) -> Stream:
        """Open a stream at once. SessionDraining, TooManyStreams or LinkLost if the link takes none."""
        payload = request.SerializeToString()
        if len(payload) > MAX_HEAD:
            raise InvalidInput("headers", f"longer than {MAX_HEAD} octets")
        try:
            number = self._mux.open(payload)
        except OpenRefused as exc:
            match exc.code:
                case ResetCode.LINK_LOST:
                    raise LinkLost from exc
                case ResetCode.DRAINING:
                    raise SessionDraining from exc
                case _:
                    raise TooManyStreams from exc
        stream = self._streams[number] = Stream(number, request, self._mux, self._queued.set)
        self._queued.set()
        return stream

    def drain(self) -> None:
        """Take no new streams, on either side; those that are open go on."""
        self._mux.drain()
        self._queued.set()

    def close(self, why: str = "closed") -> None:
        """End the link: every stream ends with LINK_LOST now, and ``run`` returns soon."""
        if self._over.is_set():
            return
        self.why = why
        self._over.set()
        for event in self._mux.lost():
            self._deliver(event)
        self._tidy()
        self._settle_idlers()

    async def idle(self) -> None:
        """Wait until no stream is live and all is sent, or the link is over."""
        while not (self.closed or self._is_idle()):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idlers.add(future)
            try:
                await future
            finally:
                self._idlers.discard(future)

    async def run(self) -> None:
        """Work until the link is over, for whatever reason; ``why`` then says which."""
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._take_apart())
                others = [group.create_task(self._write()), group.create_task(self._probe())]
                await self._over.wait()
                for task in others:
                    task.cancel()
                if not reader.done() and await self._link.close():
                    await asyncio.wait([reader], timeout=CLOSE_WITHIN_S)
                reader.cancel()
        finally:
            self.close("stopped")

    # The three tasks

    async def _take_apart(self) -> None:
        """Batches into events, events to streams. Only the link is awaited."""
        try:
            while (batch := await self._link.receive()) is not None:
                if self._over.is_set():
                    continue  # waiting for the peer's end; nobody is left to hear what it says
                for event in self._mux.receive(batch):
                    self._deliver(event)
                self._tidy()
                self._settle_idlers()
                if self._mux.pending:
                    self._queued.set()
            self.close("peer_ended")
        except LinkError as exc:
            log.warning("link broken by peer", extra={F.REASON: exc.reason})
            self.close(exc.reason)
        except LinkLost as exc:
            log.info("link lost", extra={F.REASON: str(exc)})
            self.close("link_lost")

    async def _write(self) -> None:
        """Whatever is queued, in as few messages as the loop allows."""
        queued = self._queued
        try:
            while True:
                await queued.wait()
                await asyncio.sleep(0)
                batch = self._mux.outgoing()
                self._tidy()
                if batch:
                    self._writing = True
                    await self._link.send(batch)
                    self._writing = False
                if not self._mux.pending:
                    queued.clear()
                    self._settle_idlers()
        except LinkLost as exc:
            log.info("link lost", extra={F.REASON: str(exc)})
            self.close("link_lost")

    async def _probe(self) -> None:
        """Every half minute: is the whole path alive, and do both ends know the same streams?"""
        while True:
            await self._clock.sleep(PROBE_EVERY_S)
            if self._unanswered is not None:
                log.warning("peer silent", extra={F.SECONDS: PROBE_EVERY_S})
                self.close("peer_silent")
                return
            self._unanswered = self._mux.probe()
            self._queued.set()

    # What events mean

    def _deliver(self, event: on.Event) -> None:
        # A stream may be missing: refused, or cut off, by an earlier event of the same batch.
        match event:
            case on.Received(number, data):
                if (stream := self._streams.get(number)) is not None:
                    stream.received(data)
            case on.Ended(number):
                if (stream := self._streams.get(number)) is not None:
                    stream.ended()
            case on.Credited(number):
                if (stream := self._streams.get(number)) is not None:
                    stream.credited()
            case on.Reset(number, code):
                if (stream := self._streams.get(number)) is not None:
                    stream.cut_off(code)
            case on.Opened():
                self._opened(event)
            case on.Headed():
                self._headed(event)
            case on.ProbeAnswered():
                self._unanswered = None
            case on.ProtocolFault():
                self._fault(event.why)

    def _opened(self, event: on.Opened) -> None:
        if event.stream not in self._mux:
            return  # given up in the same batch: not worth beginning
        try:
            request = pb.Open.FromString(event.head)
        except DecodeError:
            self._mux.reset(event.stream, ResetCode.PROTOCOL)
            self._fault("open that cannot be read")
            return
        stream = self._streams[event.stream] = Stream(event.stream, request, self._mux, self._queued.set)
        if self._on_open is None:
            stream.reset(ResetCode.REFUSED)
            return
        try:
            self._on_open(stream)
        except Exception:  # edge: one request that cannot be taken up must not end the others
            log.exception("request not taken up", extra={F.REQUEST: request.request_id})
            stream.reset(ResetCode.UPSTREAM_FAILED)

    def _headed(self, event: on.Headed) -> None:
        stream = self._streams.get(event.stream)
        if stream is None:
            return
        try:
            stream.headed(pb.Head.FromString(event.head))
        except DecodeError:
            stream.reset(ResetCode.PROTOCOL)
            self._fault("head that cannot be read")

    def _fault(self, why: str) -> None:
        log.warning("peer broke a rule", extra={F.REASON: why})
        if not self._faults.spend(self._clock.monotonic()):
            self.close("too_many_faults")

    def _tidy(self) -> None:
        """Let go of streams that are gone; wake those for whom the link has room again."""
        for number in self._mux.retired():
            self._streams.pop(number, None)
        for number in self._mux.relieved():
            self._streams[number].credited()

    def _is_idle(self) -> bool:
        return not (len(self._mux) or self._mux.pending or self._writing)

    def _settle_idlers(self) -> None:
        if self._idlers and (self.closed or self._is_idle()):
            for future in self._idlers:
                if not future.done():
                    future.set_result(None)
