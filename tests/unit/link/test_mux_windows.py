"""Mux: how much a stream and a link may hold."""

import pytest

from mesh.link.events import (
    Credited,
    Received,
    Reset,
)
from mesh.link.frames import (
    MAX_DATA,
    Kind,
    ResetCode,
    pack_credit,
)
from mesh.link.limits import Limits
from mesh.link.mux import Misuse, Mux
from tests.unit.link.frames import frame, frames_of
from tests.unit.link.pair import SMALL, Pair, faults

# Windows


def test_a_sender_stops_at_the_window_and_goes_on_with_credit(small: Pair) -> None:
    stream = small.open()
    assert small.hub.send(stream, bytes(100)) == 64
    assert small.hub.send(stream, bytes(36)) == 0
    small.down()
    small.agent.consumed(stream, 31)
    assert small.agent.outgoing() == b""
    small.agent.consumed(stream, 1)
    assert small.up() == [Credited(stream)]
    assert small.hub.send(stream, bytes(36)) == 32


def test_credit_is_not_announced_to_a_stream_that_did_not_wait(small: Pair) -> None:
    stream = small.open()
    small.hub.send(stream, bytes(64))
    small.down()
    small.agent.consumed(stream, 64)
    assert small.up() == []
    assert small.hub.send(stream, bytes(64)) == 64


def test_credit_is_not_announced_after_the_end(small: Pair) -> None:
    stream = small.open()
    assert small.hub.send(stream, bytes(65)) == 64
    small.hub.end(stream)
    small.down()
    small.agent.consumed(stream, 64)
    assert small.up() == []


def test_a_stream_that_nobody_reads_does_not_hold_up_another(pair: Pair) -> None:
    stuck, lively = pair.answered(), pair.answered()
    while pair.agent.send(stuck, bytes(MAX_DATA)):
        pass
    pair.up()
    pair.up()
    for _ in range(100):
        assert pair.agent.send(lively, bytes(20_000)) == 20_000
        assert sum(len(e.data) for e in pair.up() if isinstance(e, Received)) == 20_000
        pair.hub.consumed(lively, 20_000)
        pair.down()


def test_octets_beyond_the_window_reset_that_stream_only(small: Pair) -> None:
    stream, other = small.answered(), small.answered()
    small.hub.receive(frame(Kind.DATA, stream, bytes(60)))
    events = small.hub.receive(frame(Kind.DATA, stream, bytes(5)) + frame(Kind.DATA, other, b"fine"))
    assert faults(events) == [(stream, ResetCode.FLOW_CONTROL)]
    assert events[1:] == [Reset(stream, ResetCode.FLOW_CONTROL), Received(other, b"fine")]
    assert frames_of(small.hub.outgoing()) == [(Kind.RESET, stream, bytes([ResetCode.FLOW_CONTROL]))]


@pytest.mark.parametrize("octets", [0, 11, 2**32 - 1])
def test_credit_for_octets_that_were_never_sent_resets_the_stream(small: Pair, octets: int) -> None:
    stream = small.open()
    small.hub.send(stream, bytes(10))
    small.down()
    events = small.hub.receive(pack_credit(stream, octets))
    assert faults(events) == [(stream, ResetCode.FLOW_CONTROL)]
    assert events[1:] == [Reset(stream, ResetCode.FLOW_CONTROL)]


def test_credit_for_octets_still_in_the_queue_is_a_lie(small: Pair) -> None:
    stream = small.open()
    small.hub.send(stream, bytes(10))
    assert faults(small.hub.receive(pack_credit(stream, 10))) == [(stream, ResetCode.FLOW_CONTROL)]


def test_no_more_can_be_consumed_than_was_received(small: Pair) -> None:
    stream = small.open()
    small.hub.send(stream, bytes(10))
    small.down()
    with pytest.raises(Misuse):
        small.agent.consumed(stream, 11)


def test_consuming_nothing_says_nothing(small: Pair) -> None:
    stream = small.open()
    small.agent.consumed(stream, 0)
    small.agent.consumed(stream + 1, 5)
    assert not small.agent.pending


# What a link may hold


def fill(small: Pair, streams: list[int]) -> list[int]:
    return [small.agent.send(stream, bytes(64)) for stream in streams]


def test_when_the_common_half_is_used_up_every_stream_still_has_its_share(small: Pair) -> None:
    streams = [small.answered() for _ in range(4)]
    assert fill(small, streams) == [64, 64, 32, 32]
    assert small.agent.outstanding <= SMALL.octets
    assert fill(small, streams) == [0, 0, 0, 0]


def test_a_stream_within_its_share_notices_nothing_of_the_others(small: Pair) -> None:
    streams = [small.answered() for _ in range(4)]
    fill(small, streams[:2])
    assert small.agent.send(streams[2], bytes(32)) == 32


def test_streams_that_lacked_the_links_room_are_named_once_there_is_some(small: Pair) -> None:
    streams = [small.answered() for _ in range(4)]
    fill(small, streams)
    assert small.agent.relieved() == []
    small.agent.reset(streams[0], ResetCode.CANCEL)
    assert small.agent.relieved() == []
    small.agent.reset(streams[1], ResetCode.CANCEL)
    assert small.agent.relieved() == streams[2:]
    assert small.agent.relieved() == []
    assert small.agent.send(streams[2], bytes(64)) == 32


def test_under_pressure_credit_returns_at_once(small: Pair) -> None:
    quiet, loud, other = small.answered(), small.answered(), small.answered()
    small.agent.send(quiet, bytes(10))
    small.up()
    small.hub.consumed(quiet, 10)
    assert not small.hub.pending
    small.agent.send(loud, bytes(64))
    small.agent.send(other, bytes(5))
    small.up()  # more than half of the common half: what was owed is returned
    assert frames_of(small.hub.outgoing()) == [(Kind.CREDIT, quiet, (10).to_bytes(4, "big"))]
    small.hub.consumed(loud, 1)
    assert frames_of(small.hub.outgoing()) == [(Kind.CREDIT, loud, (1).to_bytes(4, "big"))]


def test_more_than_a_link_may_hold_resets_the_stream_that_brought_it() -> None:
    limits = Limits(streams=4, window=100, octets=256)
    hub = Mux(initiator=True, limits=limits)
    streams = [hub.open(b"") for _ in range(4)]
    hub.receive(b"".join(frame(Kind.HEAD, s) for s in streams))
    events = hub.receive(b"".join(frame(Kind.DATA, s, bytes(80)) for s in streams))
    assert faults(events) == [(streams[3], ResetCode.FLOW_CONTROL)]
    assert hub.held == 240


def test_a_long_answer_counts_until_its_reader_is_done(small: Pair) -> None:
    stream = small.answered()
    small.hub.end(stream)
    small.agent.send(stream, bytes(40))  # more than a share
    small.agent.end(stream)
    small.up()
    small.down()
    assert (len(small.hub), len(small.agent)) == (1, 1)
    assert small.agent.outstanding == 40
    small.hub.consumed(stream, 20)
    assert len(small.hub) == 1
    small.hub.consumed(stream, 20)
    assert len(small.hub) == 0
    assert small.down() == []
    assert len(small.agent) == 0
    assert (small.agent.outstanding, small.hub.held) == (0, 0)


def test_credit_below_half_a_window_is_returned_where_it_lets_the_sender_go(pair: Pair) -> None:
    stream = pair.answered()
    pair.hub.end(stream)
    pair.agent.send(stream, bytes(20_000))  # more than a share, less than half a window
    pair.agent.end(stream)
    pair.up()
    pair.down()
    pair.hub.consumed(stream, 20_000)
    assert (len(pair.hub), len(pair.agent)) == (0, 1)
    assert pair.down() == []
    assert len(pair.agent) == 0


def test_giving_up_an_answer_that_came_whole_tells_nobody(small: Pair) -> None:
    stream = small.answered()
    small.hub.end(stream)
    small.agent.send(stream, b"short")
    small.agent.end(stream)
    small.down()
    small.up()
    small.hub.reset(stream, ResetCode.CANCEL)
    assert not small.hub.pending
    assert (len(small.hub), len(small.agent)) == (0, 0)
