"""Two muxes back to back, in every order Hypothesis can think of (model M4), and bytes that are no link at all.

The link between them is ordered and lossless, and cuts and joins batches as it likes. Limits are tiny, so that
every bound is met all the time.
"""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesh.link import events as on
from mesh.link.frames import MAX_DATA, Kind, LinkError, ResetCode
from mesh.link.limits import Limits
from mesh.link.mux import Mux, OpenRefused
from tests.unit.link.frames import frame, frames_of

TINY = Limits(streams=8, window=64, octets=256)  # common 128, share 16: three full windows are too many
ENDLESS = 500  # rounds; far more than any run needs to come to rest


class Side:
    """One mux, and what its application knows of each stream."""

    def __init__(self, *, initiator: bool) -> None:
        self.mux = Mux(initiator=initiator, limits=TINY)
        self.wire: deque[bytes] = deque()  # single frames, on their way to the other side
        self.sent: dict[int, bytearray] = {}
        self.backlog: dict[int, bytes] = {}  # what send() did not take
        self.got: dict[int, bytearray] = {}
        self.unread: dict[int, int] = {}
        self.speaking: set[int] = set()
        self.waiting_to_end: set[int] = set()
        self.ended_here: set[int] = set()
        self.ended_there: set[int] = set()
        self.resets: dict[int, int] = {}
        self.retired: list[int] = []
        self.stuck: set[int] = set()  # streams that nobody reads until the very end

    @property
    def live(self) -> list[int]:
        """Streams the application may still use."""
        return [s for s in self.got if s not in self.resets and not self.over(s)]

    def over(self, stream: int) -> bool:
        return stream in self.ended_here and stream in self.ended_there

    def begin(self, stream: int, *, speaking: bool) -> None:
        assert stream not in self.got, "a stream begins once"
        self.got[stream], self.sent[stream], self.unread[stream] = bytearray(), bytearray(), 0
        if speaking:
            self.speaking.add(stream)

    def respond(self, stream: int) -> None:
        self.mux.respond(stream, b"head")
        self.speaking.add(stream)

    def say(self, stream: int, data: bytes) -> None:
        taken = self.mux.send(stream, data)
        self.sent[stream] += data[:taken]
        if taken < len(data):
            self.backlog[stream] = data[taken:]

    def try_again(self, stream: int) -> None:
        if stream in self.backlog and stream not in self.resets:
            self.say(stream, self.backlog.pop(stream))
        if stream in self.waiting_to_end and stream not in self.backlog and stream not in self.resets:
            self.finish(stream)

    def finish(self, stream: int) -> None:
        if stream in self.backlog:
            self.waiting_to_end.add(stream)
            return
        self.waiting_to_end.discard(stream)
        self.mux.end(stream)
        self.ended_here.add(stream)
        self.speaking.discard(stream)

    def give_up(self, stream: int, code: ResetCode) -> None:
        self.mux.reset(stream, code)
        self.cut(stream)

    def cut(self, stream: int) -> None:
        assert stream not in self.resets, "a stream ends once"
        self.resets[stream] = 1
        self.speaking.discard(stream)
        self.backlog.pop(stream, None)

    def read(self, stream: int, octets: int) -> None:
        octets = min(octets, self.unread[stream])
        self.unread[stream] -= octets
        self.mux.consumed(stream, octets)

    def flush(self, limit: int = 256 * 1024) -> None:
        self.wire.extend(frame(k, s, p) for k, s, p in frames_of(self.mux.outgoing(limit)))
        self.tidy()

    def tidy(self) -> None:
        self.retired += self.mux.retired()
        for stream in self.mux.relieved():
            self.try_again(stream)

    def take(self, batch: bytes) -> None:
        credited: list[int] = []
        for event in self.mux.receive(batch):
            if isinstance(event, on.Credited):
                credited.append(event.stream)
            else:
                self.hear(event)
        for stream in credited:  # like any writer: woken once the whole batch is taken in
            self.try_again(stream)
        self.tidy()

    def hear(self, event: on.Event) -> None:
        match event:
            case on.Opened(stream, head):
                self.begin(stream, speaking=False)
                if head == b"at once" and stream in self.mux:  # not reset in the same batch
                    self.respond(stream)
            case on.Headed(stream, head):
                assert head == b"head"
            case on.Received(stream, data):
                assert stream not in self.resets
                assert stream not in self.ended_there
                self.got[stream] += data
                self.unread[stream] += len(data)
            case on.Ended(stream):
                assert stream not in self.ended_there, "a direction ends once"
                self.ended_there.add(stream)
            case on.Reset(stream, code):
                assert code is not ResetCode.FORGOTTEN, "honest sides forget nothing"
                assert code not in (ResetCode.PROTOCOL, ResetCode.FLOW_CONTROL)
                self.cut(stream)
            case on.ProtocolFault():
                raise AssertionError(event)
            case on.Probed() | on.ProbeAnswered() | on.Draining():
                pass


SIDES = st.sampled_from([0, 1])
PICK = st.integers(0, 7)


def pick(which: int, among: list[int]) -> list[int]:
    """One of them, or none if there is none."""
    return [among[which % len(among)]] if among else []


class MuxMachine(RuleBasedStateMachine):
    """Rules do what applications and links do; invariants say what must never be."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = (Side(initiator=True), Side(initiator=False))

    @initialize(streams=st.integers(1, 8))
    def some_streams(self, streams: int) -> None:
        for _ in range(streams):
            self.open(at_once=True)
        self.exchange()

    @rule(at_once=st.booleans())
    def open(self, at_once: bool) -> None:
        hub = self.sides[0]
        try:
            stream = hub.mux.open(b"at once" if at_once else b"later")
        except OpenRefused:
            assert hub.mux.draining or len(hub.mux) == TINY.streams
        else:
            hub.begin(stream, speaking=True)

    @rule(which=PICK)
    def respond(self, which: int) -> None:
        agent = self.sides[1]
        for stream in pick(which, [s for s in agent.live if s not in agent.speaking | agent.ended_here]):
            agent.respond(stream)

    @rule(side=SIDES, which=PICK, data=st.integers(1, 150).map(lambda n: bytes(i % 251 for i in range(n))))
    def send(self, side: int, which: int, data: bytes) -> None:
        speaker = self.sides[side]
        able = [s for s in speaker.live if s in speaker.speaking and s not in speaker.waiting_to_end]
        for stream in pick(which, [s for s in able if s not in speaker.backlog]):
            speaker.say(stream, data)

    @rule(side=SIDES, size=st.integers(30, 150))
    def send_everywhere(self, side: int, size: int) -> None:
        speaker = self.sides[side]
        for stream in speaker.live:
            if stream in speaker.speaking - speaker.waiting_to_end and stream not in speaker.backlog:
                speaker.say(stream, bytes(size))

    @rule(side=SIDES, which=PICK)
    def end(self, side: int, which: int) -> None:
        speaker = self.sides[side]
        able = [s for s in speaker.live if s in speaker.speaking and s not in speaker.waiting_to_end]
        for stream in pick(which, able):
            speaker.finish(stream)

    @rule(side=SIDES, which=PICK, code=st.sampled_from([ResetCode.CANCEL, ResetCode.UPSTREAM_LOST]))
    def reset(self, side: int, which: int, code: ResetCode) -> None:
        for stream in pick(which, self.sides[side].live):
            self.sides[side].give_up(stream, code)

    @rule(side=SIDES, which=PICK)
    def stop_reading(self, side: int, which: int) -> None:
        self.sides[side].stuck.update(pick(which, self.sides[side].live))

    @rule(side=SIDES, which=PICK, octets=st.integers(1, 64))
    def read(self, side: int, which: int, octets: int) -> None:
        reader = self.sides[side]
        ready = [s for s, n in reader.unread.items() if n and s not in reader.resets and s not in reader.stuck]
        for stream in pick(which, ready):
            reader.read(stream, octets)

    @rule(side=SIDES)
    def flush(self, side: int) -> None:
        self.sides[side].flush()

    @rule(side=SIDES, frames=st.integers(1, 12))
    def carry(self, side: int, frames: int) -> None:
        wire = self.sides[side].wire
        batch = b"".join(wire.popleft() for _ in range(min(frames, len(wire))))
        self.sides[1 - side].take(batch)

    @rule()
    def exchange(self) -> None:
        for side in (0, 1):
            self.flush(side)
            self.carry(side, frames=len(self.sides[side].wire))

    @rule(side=SIDES)
    def probe(self, side: int) -> None:
        self.sides[side].mux.probe()

    @precondition(lambda self: len(self.sides[0].got) > 12)
    @rule(side=SIDES)
    def drain(self, side: int) -> None:
        self.sides[side].mux.drain()

    @invariant()
    def what_is_buffered_stays_within_the_windows(self) -> None:
        for side in self.sides:
            assert all(n <= TINY.window for s, n in side.unread.items() if s not in side.resets)
            assert sum(n for s, n in side.unread.items() if s not in side.resets) <= TINY.octets
            assert 0 <= side.mux.held <= TINY.octets
            assert 0 <= side.mux.outstanding <= TINY.octets
            assert len(side.mux) <= TINY.streams

    @invariant()
    def octets_arrive_in_order_and_complete(self) -> None:
        for here, there in (self.sides, self.sides[::-1]):
            for stream, got in there.got.items():
                sent = here.sent.get(stream, b"")
                assert sent.startswith(got)
                if stream in there.ended_there:
                    assert sent == got

    @invariant()
    def streams_leave_once(self) -> None:
        for side in self.sides:
            assert len(set(side.retired)) == len(side.retired)

    def teardown(self) -> None:
        """Everybody finishes. While some streams stay unread the others arrive whole; then nothing is left."""
        hub, agent = self.sides
        self.come_to_rest()
        for here, there in (self.sides, self.sides[::-1]):
            for stream in there.got:
                if stream not in there.stuck and stream not in there.resets and stream not in here.resets:
                    assert stream in there.ended_there, "a stream that is read waits for one that is not"
        for side in self.sides:
            side.stuck.clear()
        self.come_to_rest()
        for side in self.sides:
            assert not side.live
            assert (len(side.mux), side.mux.held, side.mux.outstanding) == (0, 0, 0)
            assert sorted(side.retired) == sorted(side.got)
        assert set(agent.got) <= set(hub.got)

    def come_to_rest(self) -> None:
        """Respond, say all, read all that is not stuck, until nothing moves any more."""
        moved, turns = True, 0
        while moved:
            turns += 1
            assert turns < ENDLESS
            moved = False
            agent = self.sides[1]
            for stream in agent.live:
                if stream not in agent.speaking | agent.ended_here:
                    agent.respond(stream)
            for side in self.sides:
                for stream in side.live:
                    if stream in side.speaking and stream not in side.waiting_to_end:
                        side.finish(stream)
                for stream, octets in side.unread.items():
                    if octets and stream not in side.resets and stream not in side.stuck:
                        side.read(stream, octets)
                        moved = True
                side.flush()
            for number in (0, 1):
                moved = moved or bool(self.sides[number].wire)
                self.carry(number, frames=len(self.sides[number].wire))
        self.octets_arrive_in_order_and_complete()
        self.streams_leave_once()


MuxMachine.TestCase.settings = settings(max_examples=500, stateful_step_count=100, deadline=None)
TestMuxMachine = MuxMachine.TestCase


# Fairness


@given(
    sizes=st.lists(st.integers(1, 5 * MAX_DATA), min_size=2, max_size=6),
    limits=st.lists(st.integers(9 + 32 * 1024, 256 * 1024), min_size=1, max_size=8),
)
@settings(deadline=None, max_examples=50)
def test_between_two_turns_of_a_stream_every_other_has_at_most_one(sizes: list[int], limits: list[int]) -> None:
    hub = Mux(initiator=True)
    streams = [hub.open(b"") for _ in sizes]
    hub.outgoing()
    for stream, size in zip(streams, sizes, strict=True):
        assert hub.send(stream, bytes(size)) == size
    left = dict(zip(streams, sizes, strict=True))
    since: dict[int, list[int]] = {stream: [] for stream in streams}
    turn = 0
    while hub.pending:
        for _, stream, payload in frames_of(hub.outgoing(limits[turn % len(limits)])):
            for waiting in streams:
                if left[waiting] and waiting != stream:
                    since[waiting].append(stream)
                    assert since[waiting].count(stream) == 1, "one stream had two turns while another waited"
            since[stream].clear()
            left[stream] -= len(payload)
        turn += 1
    assert not any(left.values())


# Fuzz

KINDS = st.integers(0, 10)
STREAMS = st.sampled_from([0, 1, 2, 3, 7, 2**32 - 1])
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 2**32 - 1).map(lambda n: n.to_bytes(4, "big")),
    st.integers(0, 255).map(lambda n: bytes([n])),
    st.integers(1, 3).map(lambda n: b"\0" * 8 + bytes(5) + n.to_bytes(4, "big")),
)
FRAMES = st.builds(frame, KINDS, STREAMS, PAYLOADS)
BATCHES = st.one_of(st.binary(max_size=60), st.lists(FRAMES, max_size=12).map(b"".join))


@given(initiator=st.booleans(), batches=st.lists(BATCHES, max_size=12), cut=st.integers(0, 8))
@settings(deadline=None, max_examples=200)
def test_whatever_a_peer_sends_is_an_event_or_the_end_of_the_link(
    initiator: bool, batches: list[bytes], cut: int
) -> None:
    mux = Mux(initiator=initiator, limits=TINY)
    if initiator:
        for _ in range(3):
            mux.send(mux.open(b""), bytes(30))
    ended: set[int] = set()
    for batch in batches:
        try:
            events = mux.receive(batch[: max(0, len(batch) - cut)] if len(batch) % 3 == 0 else batch)
        except LinkError:
            mux.lost()
            break
        for event in events:
            if isinstance(event, on.Reset):
                assert event.stream not in ended
                ended.add(event.stream)
            elif isinstance(event, on.Opened):
                mux.respond(event.stream, b"")
                mux.send(event.stream, b"answer")
        assert mux.held <= TINY.octets
        assert len(mux) <= TINY.streams
        for kind, _, _ in frames_of(mux.outgoing()):
            assert kind in set(Kind)
    mux.lost()
    assert (mux.held, mux.outstanding, len(mux)) == (0, 0, 0)
