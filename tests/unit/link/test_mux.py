"""Mux: requests and answers, how they lie on the wire, and what its driver must not ask."""

import pytest

from mesh.link.events import (
    Ended,
    Headed,
    Opened,
    Received,
)
from mesh.link.frames import (
    MAX_BATCH,
    MAX_DATA,
    MAX_HEAD,
    Kind,
    ResetCode,
)
from mesh.link.mux import Misuse
from tests.unit.link.frames import frames_of
from tests.unit.link.pair import Pair

# A request and its answer


def test_a_request_and_its_answer_arrive_whole_and_leave_nothing_behind(pair: Pair) -> None:
    stream = pair.hub.open(b"request")
    assert pair.hub.send(stream, b"body") == 4
    pair.hub.end(stream)
    assert pair.down() == [Opened(stream, b"request"), Received(stream, b"body"), Ended(stream)]
    pair.agent.consumed(stream, 4)
    pair.agent.respond(stream, b"answer")
    pair.agent.send(stream, b"some")
    pair.agent.send(stream, b" text")
    pair.agent.end(stream)
    assert pair.up() == [Headed(stream, b"answer"), Received(stream, b"some text"), Ended(stream)]
    assert len(pair.hub) == 1
    pair.hub.consumed(stream, 9)
    assert (len(pair.hub), len(pair.agent)) == (0, 0)
    assert (pair.hub.retired(), pair.agent.retired()) == ([stream], [stream])
    assert not pair.hub.pending
    assert not pair.agent.pending
    assert pair.hub.outgoing() == b""


def test_what_is_queued_together_leaves_as_one_frame(pair: Pair) -> None:
    stream = pair.open()
    for piece in (b"a", b"b", b"c"):
        pair.hub.send(stream, piece)
    pair.hub.end(stream)
    assert frames_of(pair.hub.outgoing()) == [(Kind.DATA, stream, b"abc"), (Kind.END, stream, b"")]


def test_both_directions_flow_at_the_same_time(pair: Pair) -> None:
    stream = pair.answered()
    pair.hub.send(stream, b"up")
    pair.agent.send(stream, b"down")
    assert pair.down() == [Received(stream, b"up")]
    assert pair.up() == [Received(stream, b"down")]


def test_a_direction_that_has_ended_leaves_the_other_open(pair: Pair) -> None:
    stream = pair.answered()
    pair.agent.end(stream)
    assert pair.up() == [Ended(stream)]
    pair.hub.send(stream, b"still talking")
    assert pair.down() == [Received(stream, b"still talking")]


def test_ids_rise_and_are_never_used_again(pair: Pair) -> None:
    first = pair.open()
    pair.hub.reset(first, ResetCode.CANCEL)
    assert pair.hub.open(b"") == first + 1


# Frames on the wire


def test_data_is_cut_to_frames_of_sixteen_kibibytes(pair: Pair) -> None:
    stream = pair.open()
    data = bytes(range(256)) * 160  # 40 KiB
    assert pair.hub.send(stream, data) == len(data)
    sent = frames_of(pair.hub.outgoing())
    assert [len(payload) for _, _, payload in sent] == [MAX_DATA, MAX_DATA, len(data) - 2 * MAX_DATA]
    assert b"".join(payload for _, _, payload in sent) == data


def test_pieces_that_cross_a_frames_border_stay_in_order(pair: Pair) -> None:
    stream = pair.open()
    pieces = [bytes([i]) * 7_000 for i in range(9)]
    for piece in pieces:
        pair.hub.send(stream, piece)
    sent = [payload for _, _, payload in frames_of(pair.hub.outgoing())]
    assert [len(payload) for payload in sent] == [MAX_DATA, MAX_DATA, MAX_DATA, 63_000 - 3 * MAX_DATA]
    assert b"".join(sent) == b"".join(pieces)


def test_a_batch_never_exceeds_its_limit_and_the_rest_follows(pair: Pair) -> None:
    streams = [pair.open() for _ in range(3)]
    for stream in streams:
        pair.hub.send(stream, bytes(200_000))
        pair.hub.end(stream)
    sizes, total = [], 0
    while batch := pair.hub.outgoing():
        sizes.append(len(batch))
        total += sum(len(p) for _, _, p in frames_of(batch))
        pair.agent.receive(batch)
    assert all(size <= MAX_BATCH for size in sizes)
    assert total == 600_000


def test_streams_take_turns_of_one_frame(pair: Pair) -> None:
    bulk, small = pair.open(), pair.open()
    pair.hub.send(bulk, bytes(200_000))
    pair.hub.send(small, b"quick")
    order = [stream for _, stream, _ in frames_of(pair.hub.outgoing())]
    assert order[:3] == [bulk, small, bulk]


def test_a_stream_whose_turn_is_cut_short_goes_on_in_the_next_batch(pair: Pair) -> None:
    a, b = pair.open(), pair.open()
    pair.hub.send(a, bytes(30_000))
    pair.hub.send(b, bytes(30_000))
    limit = 9 + MAX_HEAD  # two frames of 16 KiB do not fit
    first = frames_of(pair.hub.outgoing(limit))
    assert [(s, len(p)) for _, s, p in first] == [(a, MAX_DATA), (b, limit - MAX_DATA - 18)]
    second = frames_of(pair.hub.outgoing(limit))
    assert [s for _, s, _ in second] == [a, b]


def test_an_end_that_does_not_fit_waits_for_the_next_batch(pair: Pair) -> None:
    stream = pair.open()
    limit = 9 + MAX_HEAD
    pair.hub.send(stream, bytes(limit - 18))
    pair.hub.end(stream)
    assert [k for k, _, _ in frames_of(pair.hub.outgoing(limit))] == [Kind.DATA, Kind.DATA]
    assert frames_of(pair.hub.outgoing(limit)) == [(Kind.END, stream, b"")]


def test_control_frames_go_first(pair: Pair) -> None:
    a = pair.open()
    pair.hub.send(a, b"data")
    b = pair.hub.open(b"")
    assert [(k, s) for k, s, _ in frames_of(pair.hub.outgoing())] == [(Kind.OPEN, b), (Kind.DATA, a)]


def test_control_frames_that_do_not_fit_keep_their_order_and_hold_data_back(pair: Pair) -> None:
    a, b = pair.hub.open(bytes(MAX_HEAD)), pair.hub.open(bytes(MAX_HEAD))
    pair.hub.send(a, b"x")
    limit = 9 + MAX_HEAD
    assert [(k, s) for k, s, _ in frames_of(pair.hub.outgoing(limit))] == [(Kind.OPEN, a)]
    assert [(k, s) for k, s, _ in frames_of(pair.hub.outgoing(limit))] == [(Kind.OPEN, b)]
    assert [(k, s) for k, s, _ in frames_of(pair.hub.outgoing(limit))] == [(Kind.DATA, a)]


def test_credit_and_probes_that_do_not_fit_wait(pair: Pair) -> None:
    stream = pair.answered()
    pair.agent.send(stream, bytes(200_000))
    pair.up()
    pair.hub.consumed(stream, 200_000)
    limit = 9 + MAX_HEAD
    pair.hub.open(bytes(MAX_HEAD))
    pair.hub.probe()
    assert [k for k, _, _ in frames_of(pair.hub.outgoing(limit))] == [Kind.OPEN]
    pair.hub.open(bytes(MAX_HEAD - 13))
    assert [k for k, _, _ in frames_of(pair.hub.outgoing(limit))] == [Kind.OPEN, Kind.CREDIT]
    assert [k for k, _, _ in frames_of(pair.hub.outgoing(limit))] == [Kind.PROBE]


def test_a_batch_must_be_able_to_hold_the_largest_frame(pair: Pair) -> None:
    with pytest.raises(Misuse):
        pair.hub.outgoing(MAX_HEAD)


# Misuse by the driver


def test_only_the_initiator_opens(pair: Pair) -> None:
    with pytest.raises(Misuse):
        pair.agent.open(b"")


def test_only_the_acceptor_responds_and_once(pair: Pair) -> None:
    stream = pair.open()
    with pytest.raises(Misuse):
        pair.hub.respond(stream, b"")
    pair.agent.respond(stream, b"")
    with pytest.raises(Misuse):
        pair.agent.respond(stream, b"")


def test_nothing_is_said_before_the_head_or_after_the_end(pair: Pair) -> None:
    stream = pair.open()
    with pytest.raises(Misuse):
        pair.agent.send(stream, b"x")
    with pytest.raises(Misuse):
        pair.agent.end(stream)
    pair.hub.end(stream)
    with pytest.raises(Misuse):
        pair.hub.send(stream, b"x")
    with pytest.raises(Misuse):
        pair.hub.end(stream)


def test_nothing_is_said_on_a_stream_that_is_gone(pair: Pair) -> None:
    with pytest.raises(Misuse):
        pair.hub.send(7, b"x")


def test_a_head_has_a_limit(pair: Pair) -> None:
    with pytest.raises(ValueError, match="too long"):
        pair.hub.open(bytes(MAX_HEAD + 1))
    assert len(pair.hub) == 0
    assert pair.hub.open(b"") == 1
