"""Mux: what a peer must not say, and what it costs."""

import pytest

from mesh.link.events import (
    Reset,
)
from mesh.link.frames import (
    MAX_BATCH,
    MAX_DATA,
    MAX_HEAD,
    Kind,
    LinkError,
    Probe,
    ResetCode,
    pack_credit,
    pack_probe,
    pack_reset,
)
from mesh.link.mux import Mux
from tests.unit.link.frames import frame, frames_of
from tests.unit.link.pair import SMALL, Pair, faults

# Bad order


def out_of_order(kind: Kind, payload: bytes = b"") -> list[tuple[int, ResetCode]]:
    """What the hub says to that frame before the head of the answer."""
    pair = Pair()
    stream = pair.open()
    events = pair.hub.receive(frame(kind, stream, payload))
    assert events[1:] == [Reset(stream, ResetCode.PROTOCOL)]
    assert frames_of(pair.hub.outgoing()) == [(Kind.RESET, stream, bytes([ResetCode.PROTOCOL]))]
    return faults(events)


def test_an_answer_begins_with_its_head() -> None:
    assert out_of_order(Kind.DATA, b"x") == [(1, ResetCode.PROTOCOL)]
    assert out_of_order(Kind.END) == [(1, ResetCode.PROTOCOL)]


def test_the_side_that_answers_opens_nothing() -> None:
    assert out_of_order(Kind.OPEN) == [(1, ResetCode.PROTOCOL)]


def test_an_answer_has_one_head(pair: Pair) -> None:
    stream = pair.answered()
    assert faults(pair.hub.receive(frame(Kind.HEAD, stream))) == [(stream, ResetCode.PROTOCOL)]


def test_the_side_that_asks_sends_no_head(pair: Pair) -> None:
    stream = pair.open()
    assert faults(pair.agent.receive(frame(Kind.HEAD, stream))) == [(stream, ResetCode.PROTOCOL)]


@pytest.mark.parametrize("late", [frame(Kind.DATA, 1, b"x"), frame(Kind.END, 1)])
def test_nothing_follows_the_end(pair: Pair, late: bytes) -> None:
    stream = pair.open()
    pair.hub.end(stream)
    pair.down()
    assert faults(pair.agent.receive(late)) == [(stream, ResetCode.PROTOCOL)]


def test_data_after_both_ends_drops_the_stream_without_a_second_ending(small: Pair) -> None:
    stream = small.answered()
    small.hub.end(stream)
    small.agent.send(stream, b"unread")
    small.agent.end(stream)
    small.down()
    small.up()
    events = small.hub.receive(frame(Kind.DATA, stream, b"x"))
    assert faults(events) == [(stream, ResetCode.PROTOCOL)]
    assert len(events) == 1
    assert len(small.hub) == 0


def test_a_stream_is_opened_once(pair: Pair) -> None:
    stream = pair.open()
    events = pair.agent.receive(frame(Kind.OPEN, stream))
    assert faults(events) == [(stream, ResetCode.PROTOCOL)]
    assert events[1:] == [Reset(stream, ResetCode.PROTOCOL)]


@pytest.mark.parametrize(
    "stray",
    [
        frame(Kind.DATA, 9, b"x"),
        frame(Kind.END, 9),
        frame(Kind.HEAD, 9),
        pack_credit(9, 1),
    ],
)
def test_a_frame_for_a_stream_never_opened_is_a_fault(pair: Pair, stray: bytes) -> None:
    pair.open()
    assert faults(pair.agent.receive(stray)) == [(9, ResetCode.PROTOCOL)]
    assert frames_of(pair.agent.outgoing()) == [(Kind.RESET, 9, bytes([ResetCode.PROTOCOL]))]


def test_a_reset_of_a_stream_never_opened_is_a_fault_and_stays_unanswered(pair: Pair) -> None:
    assert faults(pair.agent.receive(pack_reset(9, ResetCode.CANCEL))) == [(9, ResetCode.PROTOCOL)]
    assert not pair.agent.pending


def test_a_stream_numbered_zero_is_a_fault_and_stays_unanswered(pair: Pair) -> None:
    assert faults(pair.agent.receive(frame(Kind.DATA, 0, b"x"))) == [(0, ResetCode.PROTOCOL)]
    assert not pair.agent.pending


@pytest.mark.parametrize(
    "payload",
    [frame(Kind.DRAIN, 1), pack_probe(Probe(False, 1, 1, frozenset())).replace(b"\0\0\0\0", b"\0\0\0\1", 1)],
)
def test_frames_about_the_link_name_no_stream(pair: Pair, payload: bytes) -> None:
    pair.open()
    assert faults(pair.agent.receive(payload)) == [(1, ResetCode.PROTOCOL)]
    assert len(pair.agent) == 0


# Batches that are none


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (b"\x04\0\0\0\1\0\0\0", "truncated_header"),
        (frame(Kind.END, 1) + b"\x04", "truncated_header"),
        (frame(0, 1), "unknown_kind"),
        (frame(9, 1), "unknown_kind"),
        (frame(Kind.DATA, 1, b"abc", length=4), "truncated_payload"),
        (frame(Kind.DATA, 1), "bad_length"),
        (frame(Kind.DATA, 1, bytes(MAX_DATA + 1)), "bad_length"),
        (frame(Kind.OPEN, 1, bytes(MAX_HEAD + 1)), "bad_length"),
        (frame(Kind.END, 1, b"x"), "bad_length"),
        (frame(Kind.RESET, 1), "bad_length"),
        (frame(Kind.CREDIT, 1, b"xyz"), "bad_length"),
        (frame(Kind.PROBE, 0, b"xyz"), "bad_length"),
        (frame(Kind.PROBE, 0, bytes(14)), "malformed_probe"),
        (bytes(MAX_BATCH + 1), "batch_too_long"),
    ],
)
def test_a_malformed_batch_ends_the_link(pair: Pair, batch: bytes, reason: str) -> None:
    with pytest.raises(LinkError) as caught:
        pair.agent.receive(batch)
    assert caught.value.reason == reason


def test_a_peer_that_sends_and_does_not_read_ends_the_link() -> None:
    agent = Mux(initiator=False, limits=SMALL)
    with pytest.raises(LinkError) as caught:
        agent.receive(b"".join(frame(Kind.OPEN, s) for s in range(1, 4 + SMALL.frames + 2)))
    assert caught.value.reason == "peer_does_not_read"
