"""Many streams over one ordered, lossless link, each with its own window: the rules of a tunnel, as code.

Sans-I/O: batches in, events out; this file never waits, opens no socket, reads no clock. Hub and node run the
same class; the hub is the *initiator*: it alone opens streams. Contract: after any call, send ``outgoing()`` down
the link and wake the streams that ``relieved()`` names. A stream opened and reset in one batch yields both events,
and is gone when the first is read.

Rules
1. Ids rise and are never reused. A frame for a dead stream is late: counted, dropped. A frame for one that was
   never opened is a fault.
2. A stream carries OPEN, then DATA, then END one way; HEAD, then DATA, then END the other. CREDIT and RESET go
   both ways. Anything out of this order, and any octet beyond a window, resets that stream and no other.
3. Reset: what waits to go out for the stream is discarded, and it is gone here at once.
4. A batch that is not whole frames of known kinds ends the link (LinkError).
5. Octets outstanding are bounded per stream and per link; ``limits.py`` says how and why.
6. A probe carries the streams its sender knows, so that neither side keeps one that the other has forgotten.
"""

from collections.abc import Callable

from mesh.link import events as on
from mesh.link.events import Event, Received, Reset
from mesh.link.flow import Flow
from mesh.link.frames import (
    AMOUNT,
    HEADER,
    LENGTHS,
    MAX_BATCH,
    MAX_HEAD,
    MAX_STREAM,
    Kind,
    LinkError,
    Probe,
    ResetCode,
    pack,
    pack_reset,
    read_code,
    read_probe,
)
from mesh.link.ledger import Ledger
from mesh.link.limits import Limits
from mesh.link.outbox import Outbox

_Handler = Callable[[int, bytes, list[Event]], None]
_DATA = int(Kind.DATA)
_HEADER = HEADER.size


class OpenRefused(Exception):
    """No new stream: the link is full, draining or lost. ``code`` says which."""

    def __init__(self, code: ResetCode) -> None:
        super().__init__(code.name)
        self.code = code


class Misuse(RuntimeError):
    """The driver asked for what the stream's state does not allow."""


class Mux:
    """One end of a link."""

    def __init__(self, *, initiator: bool, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.late = 0  # frames for streams that are dead already
        self.refused = 0  # streams the peer asked for in vain
        self._initiator = initiator
        self._out = Outbox()
        self._books = Ledger(self.limits, self._out)
        self._flows = self._books.flows
        self._highest = 0  # stream opened last, by whichever side
        self._asked = 0  # nonce of our newest probe
        self._draining = False
        self._lost = False
        self._handlers: dict[int, _Handler] = {
            Kind.OPEN: self._on_open,
            Kind.HEAD: self._on_head,
            Kind.END: self._on_end,
            Kind.RESET: self._on_reset,
            Kind.CREDIT: self._on_credit,
            Kind.PROBE: self._on_probe,
            Kind.DRAIN: self._on_drain,
        }

    def __len__(self) -> int:
        """How many streams count against the limit."""
        return len(self._flows)

    def __contains__(self, stream: int) -> bool:
        return stream in self._flows

    @property
    def pending(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._out)

    @property
    def draining(self) -> bool:
        """Whether either side takes no new streams."""
        return self._draining

    @property
    def outstanding(self) -> int:
        """Octets taken from senders here, not yet credited by the peer."""
        return self._books.outstanding

    @property
    def held(self) -> int:
        """Octets received here that the peer has not been credited."""
        return self._books.held

    # Streams, from this side

    def open(self, head: bytes) -> int:
        """Open a stream and return its id. OpenRefused if the link takes none."""
        if not self._initiator:
            raise Misuse("only the initiator opens streams")
        if self._lost:
            raise OpenRefused(ResetCode.LINK_LOST)
        if self._draining or self._highest == MAX_STREAM:  # out of ids: a new link starts afresh
            raise OpenRefused(ResetCode.DRAINING)
        if len(self._flows) >= self.limits.streams:
            raise OpenRefused(ResetCode.TOO_MANY)
        frame = _head_frame(Kind.OPEN, self._highest + 1, head)
        self._highest += 1
        self._flows[self._highest] = Flow(self._highest, self.limits.window, initiator=True)
        self._out.control(Kind.OPEN, self._highest, frame)
        return self._highest

    def respond(self, stream: int, head: bytes) -> None:
        """Send the answer's head; its body may follow."""
        flow = self._flow(stream)
        if self._initiator or flow.headed:
            raise Misuse("one head per stream, from the side that answers")
        self._out.control(Kind.HEAD, stream, _head_frame(Kind.HEAD, stream, head))
        flow.headed = flow.sending = True

    def send(self, stream: int, data: bytes | memoryview) -> int:
        """Queue what there is room for; returns how many octets were taken.

        The data must not change before it has gone out. If not all was taken, ``Credited`` or ``relieved()`` will
        name the stream when it is worth trying again.
        """
        flow = self._flow(stream)
        if not flow.sending:
            raise Misuse("no data before the head, none after the end")
        return self._books.take(flow, data)

    def end(self, stream: int) -> None:
        """Say, after what is queued, that this direction is complete."""
        flow = self._flow(stream)
        if not flow.sending:
            raise Misuse("an end needs a beginning, and there is one of each")
        flow.sending = False
        flow.ending = True
        self._out.ready(flow)

    def reset(self, stream: int, code: ResetCode) -> None:
        """Give the stream up, both directions. Nothing happens if it is gone already."""
        flow = self._flows.get(stream)
        if flow is not None:
            self._books.cut_off(flow, code)

    def consumed(self, stream: int, octets: int) -> None:
        """The reader is done with that many octets; the peer learns of it when it matters."""
        flow = self._flows.get(stream)
        if flow is None or not octets:
            return
        if octets > flow.unread:
            raise Misuse("more octets consumed than received")
        self._books.consume(flow, octets)

    # The link, from this side

    def probe(self) -> int:
        """Ask the peer which streams it knows; returns the nonce that ``ProbeAnswered`` will carry."""
        self._asked += 1
        nonce = self._asked
        self._out.probe(answer=False, make=lambda: self._known(nonce, answer=False))
        return nonce

    def drain(self) -> None:
        """Take no new streams from now on; those that are open go on."""
        if not self._draining:
            self._draining = True
            self._out.control(Kind.DRAIN, 0, pack(Kind.DRAIN, 0))

    def outgoing(self, limit: int = MAX_BATCH) -> bytes:
        """The next batch to send, of at most that many octets; empty when there is nothing."""
        if limit < _HEADER + MAX_HEAD:
            raise Misuse("a batch must be able to hold the largest frame")
        batch, ended = self._out.take(limit)
        for flow in ended:
            self._books.sent_all(flow)
        return batch

    def relieved(self) -> list[int]:
        """Streams that lacked room on the link and may try to send again; each is named once."""
        return self._books.relieved()

    def retired(self) -> list[int]:
        """Streams that are gone since the last call; no event will name them again."""
        books = self._books
        streams, books.retired = books.retired, []
        return streams

    def lost(self) -> list[Event]:
        """The link is gone: every stream that is not over ends with LINK_LOST. Nothing goes in or out any more."""
        events: list[Event] = [Reset(s, ResetCode.LINK_LOST) for s, flow in self._flows.items() if not flow.over]
        for flow in list(self._flows.values()):
            self._books.drop(flow)
        self._out.clear()
        self._lost = True
        return events

    # What the peer sent

    def receive(self, batch: bytes) -> list[Event]:
        """Take a batch apart. LinkError if it is none; the link must end then."""
        end = len(batch)
        if end > MAX_BATCH:
            raise LinkError("batch_too_long")
        events: list[Event] = []
        flows, books, handlers, unpack = self._flows, self._books, self._handlers, HEADER.unpack_from
        at = 0
        while at < end:
            if end - at < _HEADER:
                raise LinkError("truncated_header")
            kind, stream, length = unpack(batch, at)
            start = at + _HEADER
            at = start + length
            bounds = LENGTHS.get(kind)
            if bounds is None:
                raise LinkError("unknown_kind")
            if not bounds[0] <= length <= bounds[1]:
                raise LinkError("bad_length")
            if at > end:
                raise LinkError("truncated_payload")
            # Payloads are copied out: a view would keep the whole batch alive for as long as one slow reader
            # holds a few octets of it, and windows would no longer bound memory.
            if kind == _DATA:
                flow = flows.get(stream)
                if flow is not None and flow.receiving and length <= flow.room:
                    flow.room -= length
                    books.held += length
                    events.append(Received(stream, batch[start:at]))
                    if books.held > books.eager_above and not books.press(length):
                        self._fault(stream, ResetCode.FLOW_CONTROL, "data beyond the link's limit", events)
                else:
                    self._bad_data(stream, flow, events)
            else:
                handlers[kind](stream, batch[start:at], events)
        if self._out.frames > self.limits.frames:
            raise LinkError("peer_does_not_read")
        return events

    def _on_open(self, stream: int, payload: bytes, events: list[Event]) -> None:
        if self._initiator:
            self._fault(stream, ResetCode.PROTOCOL, "open from the side that answers", events)
        elif stream <= self._highest:
            self._fault(stream, ResetCode.PROTOCOL, "stream opened twice", events)
        else:
            self._highest = stream
            full = len(self._flows) >= self.limits.streams
            if full or self._draining:
                self.refused += 1
                code = ResetCode.TOO_MANY if full else ResetCode.DRAINING
                self._out.control(Kind.RESET, stream, pack_reset(stream, code))
                return
            self._flows[stream] = Flow(stream, self.limits.window, initiator=False)
            events.append(on.Opened(stream, payload))

    def _on_head(self, stream: int, payload: bytes, events: list[Event]) -> None:
        flow = self._known_flow(stream, events)
        if flow is None:
            return
        if not self._initiator or flow.headed:
            self._fault(stream, ResetCode.PROTOCOL, "head out of place", events)
            return
        flow.headed = flow.receiving = True
        events.append(on.Headed(stream, payload))

    def _on_end(self, stream: int, _payload: bytes, events: list[Event]) -> None:
        flow = self._known_flow(stream, events)
        if flow is None:
            return
        if not flow.receiving:
            self._fault(stream, ResetCode.PROTOCOL, "end out of place", events)
            return
        flow.receiving = False
        flow.received_all = True
        events.append(on.Ended(stream))
        self._books.settle(flow)

    def _on_reset(self, stream: int, payload: bytes, events: list[Event]) -> None:
        flow = self._flows.get(stream)
        if flow is None:
            if 0 < stream <= self._highest:
                self.late += 1
                self._out.recall(stream)  # a refusal of ours that has not left yet: no longer needed
            else:
                events.append(on.ProtocolFault(stream, ResetCode.PROTOCOL, "reset of a stream never opened"))
            return
        if not flow.over:
            events.append(Reset(stream, read_code(payload[0])))
        self._out.recall(stream)
        self._books.drop(flow)

    def _on_credit(self, stream: int, payload: bytes, events: list[Event]) -> None:
        flow = self._known_flow(stream, events)
        if flow is None:
            return
        (octets,) = AMOUNT.unpack(payload)
        # Octets still queued here cannot have been consumed there.
        if not 0 < octets <= flow.outstanding - flow.queued:
            self._fault(stream, ResetCode.FLOW_CONTROL, "credit for octets never sent", events)
            return
        if self._books.credited(flow, octets):
            events.append(on.Credited(stream))

    def _on_probe(self, stream: int, payload: bytes, events: list[Event]) -> None:
        probe = read_probe(payload)
        if stream:
            self._fault(stream, ResetCode.PROTOCOL, "probe with a stream", events)
            return
        if not probe.answer:
            nonce = probe.nonce
            events.append(on.Probed(nonce))
            self._out.probe(answer=True, make=lambda: self._known(nonce, answer=True))
        elif probe.nonce == self._asked:
            events.append(on.ProbeAnswered(probe.nonce))
        for flow in list(self._flows.values()):
            # A stream that is over here may rightly be gone there. Frames are ordered: whatever the peer sent
            # before this probe, a reset or an end, has been taken in already.
            if flow.id <= probe.highest and flow.id not in probe.streams and not flow.over:
                events.append(Reset(flow.id, ResetCode.FORGOTTEN))
                self._books.cut_off(flow, ResetCode.FORGOTTEN)

    def _on_drain(self, stream: int, _payload: bytes, events: list[Event]) -> None:
        if stream:
            self._fault(stream, ResetCode.PROTOCOL, "drain with a stream", events)
            return
        self._draining = True
        events.append(on.Draining())

    # Helpers-----------

    def _flow(self, stream: int) -> Flow:
        flow = self._flows.get(stream)
        if flow is None:
            raise Misuse("the stream is gone")
        return flow

    def _known_flow(self, stream: int, events: list[Event]) -> Flow | None:
        """The flow a frame is for. If there is none, the frame is late or a fault, and that is noted."""
        flow = self._flows.get(stream)
        if flow is None:
            if 0 < stream <= self._highest:
                self.late += 1
            else:
                self._fault(stream, ResetCode.PROTOCOL, "frame for a stream never opened", events)
        return flow

    def _known(self, nonce: int, *, answer: bool) -> Probe:
        return Probe(answer, nonce, self._highest, frozenset(self._flows))

    def _bad_data(self, stream: int, flow: Flow | None, events: list[Event]) -> None:
        """DATA that cannot be taken."""
        if flow is None:
            self._known_flow(stream, events)
        elif not flow.receiving:
            self._fault(stream, ResetCode.PROTOCOL, "data out of place", events)
        else:
            self._fault(stream, ResetCode.FLOW_CONTROL, "data beyond the stream's window", events)

    def _fault(self, stream: int, code: ResetCode, why: str, events: list[Event]) -> None:
        """The peer broke a rule: tell the driver, and reset the stream if there is one."""
        events.append(on.ProtocolFault(stream, code, why))
        flow = self._flows.get(stream)
        if flow is not None:
            if not flow.over:
                events.append(Reset(stream, code))
            self._books.cut_off(flow, code)
        elif stream:
            self._out.control(Kind.RESET, stream, pack_reset(stream, code))


def _head_frame(kind: Kind, stream: int, head: bytes) -> bytes:
    if len(head) > MAX_HEAD:
        raise ValueError("head too long")
    return pack(kind, stream, head)
