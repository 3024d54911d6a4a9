"""Mux: resets, draining, loss, and the search for forgotten streams."""

import pytest

from mesh.link.events import (
    Draining,
    Headed,
    Opened,
    ProbeAnswered,
    Probed,
    Received,
    Reset,
)
from mesh.link.frames import (
    MAX_STREAM,
    Kind,
    Probe,
    ResetCode,
    pack_credit,
    pack_probe,
    pack_reset,
)
from mesh.link.mux import Mux, OpenRefused
from tests.unit.link.frames import frame, frames_of
from tests.unit.link.pair import SMALL, Pair

# Reset


def test_a_reset_discards_what_is_queued_and_reaches_the_other_side(pair: Pair) -> None:
    stream = pair.open()
    pair.hub.send(stream, b"never sent")
    pair.hub.reset(stream, ResetCode.CANCEL)
    assert frames_of(batch := pair.hub.outgoing()) == [(Kind.RESET, stream, bytes([ResetCode.CANCEL]))]
    assert pair.agent.receive(batch) == [Reset(stream, ResetCode.CANCEL)]
    assert (len(pair.hub), len(pair.agent)) == (0, 0)
    assert pair.hub.outstanding == 0


def test_a_stream_the_peer_never_heard_of_is_given_up_in_silence(pair: Pair) -> None:
    stream = pair.hub.open(b"")
    pair.hub.send(stream, b"x")
    pair.hub.reset(stream, ResetCode.CANCEL)
    assert not pair.hub.pending


def test_a_head_that_has_not_left_is_taken_back(pair: Pair) -> None:
    stream = pair.open()
    pair.agent.respond(stream, b"head")
    pair.agent.reset(stream, ResetCode.UPSTREAM_FAILED)
    assert [k for k, _, _ in frames_of(pair.agent.outgoing())] == [Kind.RESET]


def test_resetting_twice_is_resetting_once(pair: Pair) -> None:
    stream = pair.open()
    pair.hub.reset(stream, ResetCode.CANCEL)
    pair.hub.reset(stream, ResetCode.TIMEOUT)
    assert len(frames_of(pair.hub.outgoing())) == 1


def test_resets_that_cross_end_the_stream_once_on_each_side(pair: Pair) -> None:
    stream = pair.open()
    pair.hub.reset(stream, ResetCode.CANCEL)
    pair.agent.reset(stream, ResetCode.UPSTREAM_LOST)
    down, up = pair.hub.outgoing(), pair.agent.outgoing()
    assert pair.agent.receive(down) == []
    assert pair.hub.receive(up) == []
    assert (pair.hub.late, pair.agent.late) == (1, 1)
    assert not pair.hub.pending
    assert not pair.agent.pending


def test_a_reset_that_has_not_left_is_not_needed_once_the_other_side_gave_up(pair: Pair) -> None:
    stream = pair.open()
    pair.hub.reset(stream, ResetCode.CANCEL)
    pair.agent.reset(stream, ResetCode.UPSTREAM_LOST)
    assert pair.down() == []
    assert not pair.agent.pending


def test_frames_for_a_dead_stream_are_counted_and_dropped(pair: Pair) -> None:
    stream = pair.answered()
    pair.hub.reset(stream, ResetCode.CANCEL)
    pair.agent.send(stream, b"late")
    pair.agent.end(stream)
    assert pair.up() == []
    assert pair.hub.receive(frame(Kind.HEAD, stream) + pack_credit(stream, 1)) == []
    assert pair.hub.late == 4


def test_a_stream_that_is_over_and_unread_goes_quietly_when_reset(small: Pair) -> None:
    stream = small.answered()
    small.hub.end(stream)
    small.agent.send(stream, bytes(40))
    small.agent.end(stream)
    small.up()
    small.down()
    assert small.agent.receive(pack_reset(stream, ResetCode.CANCEL)) == []
    assert len(small.agent) == 0


# How many, and how long


def test_a_full_link_opens_no_more(small: Pair) -> None:
    for _ in range(4):
        small.open()
    with pytest.raises(OpenRefused) as caught:
        small.hub.open(b"")
    assert caught.value.code is ResetCode.TOO_MANY


def test_a_side_with_less_room_refuses() -> None:
    pair = Pair()
    pair.agent = Mux(initiator=False, limits=SMALL)
    streams = [pair.open() for _ in range(4)]
    fifth = pair.hub.open(b"")
    assert pair.down() == []
    assert pair.up() == [Reset(fifth, ResetCode.TOO_MANY)]
    assert pair.agent.refused == 1
    assert len(pair.agent) == len(streams)


def test_a_refusal_that_has_not_left_is_not_needed_once_the_asker_gave_up(small: Pair) -> None:
    small.agent.receive(b"".join(frame(Kind.OPEN, s) for s in range(1, 6)))
    assert small.agent.pending
    assert small.agent.receive(pack_reset(5, ResetCode.CANCEL)) == []
    assert not small.agent.pending


def test_out_of_ids_means_a_new_link_is_due(pair: Pair) -> None:
    pair.hub._highest = MAX_STREAM
    with pytest.raises(OpenRefused) as caught:
        pair.hub.open(b"")
    assert caught.value.code is ResetCode.DRAINING


def test_a_draining_side_takes_no_new_streams_and_finishes_the_old(pair: Pair) -> None:
    stream = pair.open()
    pair.agent.drain()
    pair.agent.drain()
    crossed = pair.hub.open(b"")
    assert pair.down() == []
    assert pair.up() == [Draining(), Reset(crossed, ResetCode.DRAINING)]
    assert pair.hub.draining
    with pytest.raises(OpenRefused) as caught:
        pair.hub.open(b"")
    assert caught.value.code is ResetCode.DRAINING
    pair.hub.send(stream, b"goes on")
    assert pair.down() == [Received(stream, b"goes on")]


def test_a_lost_link_ends_every_stream_once(small: Pair) -> None:
    stream, whole = small.answered(), small.answered()
    small.hub.end(whole)
    small.agent.send(whole, b"all of it")
    small.agent.end(whole)
    small.down()
    small.up()
    small.hub.send(stream, b"queued")
    assert small.hub.lost() == [Reset(stream, ResetCode.LINK_LOST)]
    assert sorted(small.hub.retired()) == [stream, whole]
    assert small.hub.lost() == []
    assert (len(small.hub), small.hub.outstanding, small.hub.held) == (0, 0, 0)
    assert not small.hub.pending
    with pytest.raises(OpenRefused) as caught:
        small.hub.open(b"")
    assert caught.value.code is ResetCode.LINK_LOST


# Probes


def test_a_probe_is_answered_with_its_nonce(pair: Pair) -> None:
    pair.open()
    nonce = pair.hub.probe()
    assert pair.down() == [Probed(nonce)]
    assert pair.up() == [ProbeAnswered(nonce)]
    assert (len(pair.hub), len(pair.agent)) == (1, 1)


def test_the_answering_side_may_probe_too(pair: Pair) -> None:
    pair.open()
    unheard = pair.hub.open(b"")
    nonce = pair.agent.probe()
    assert pair.up() == [Probed(nonce)]
    assert len(pair.hub) == 2, "a stream whose open is on its way is not forgotten"
    assert pair.down() == [Opened(unheard, b""), ProbeAnswered(nonce)]


def test_an_answer_to_an_older_probe_is_ignored(pair: Pair) -> None:
    old, new = pair.hub.probe(), pair.hub.probe()
    assert pair.down() == [Probed(new)]
    assert pair.hub.receive(pack_probe(Probe(True, old, 0, frozenset()))) == []


def test_a_stream_opened_after_the_probe_is_not_compared(pair: Pair) -> None:
    pair.hub.probe()
    pair.down()
    stream = pair.hub.open(b"")
    pair.up()
    assert pair.down() == [Opened(stream, b"")]


def test_what_the_initiator_forgot_is_reset_at_the_acceptor(pair: Pair) -> None:
    kept, forgotten = pair.open(), pair.open()
    pair.hub.reset(forgotten, ResetCode.CANCEL)
    pair.hub.outgoing()  # the reset is lost, which an honest link never does
    nonce = pair.hub.probe()
    assert pair.down() == [Probed(nonce), Reset(forgotten, ResetCode.FORGOTTEN)]
    assert len(pair.agent) == 1
    pair.up()
    pair.agent.respond(kept, b"")
    assert pair.up() == [Headed(kept, b"")]


def test_what_the_acceptor_forgot_is_reset_at_the_initiator(pair: Pair) -> None:
    forgotten = pair.open()
    pair.agent.reset(forgotten, ResetCode.CANCEL)
    pair.agent.outgoing()
    nonce = pair.hub.probe()
    pair.down()
    assert pair.up() == [ProbeAnswered(nonce), Reset(forgotten, ResetCode.FORGOTTEN)]
    assert len(pair.hub) == 0


def test_a_stream_that_is_over_here_may_be_gone_there(small: Pair) -> None:
    stream = small.answered()
    small.hub.end(stream)
    small.agent.send(stream, b"unread")
    small.agent.end(stream)
    small.down()
    small.up()
    assert (len(small.hub), len(small.agent)) == (1, 0)
    nonce = small.hub.probe()
    small.down()
    assert small.up() == [ProbeAnswered(nonce)]
    assert len(small.hub) == 1
