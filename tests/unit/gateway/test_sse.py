"""The event-stream scanner: what comes out does not depend on how the input was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import sse
from gateway.core.sse import Scanner


def through(pieces: list[bytes], seen: list[bytes] | None = None) -> bytes:
    shown: list[bytes] = [] if seen is None else seen

    def show(event: bytes) -> bytes:
        shown.append(event)
        return event

    scanner = Scanner(show)
    return b"".join([*map(scanner.feed, pieces), scanner.finish()])


def test_each_event_is_shown_with_its_blank_line() -> None:
    seen: list[bytes] = []
    assert through([b"data: 1\n\ndata: 2\n", b"\ndata: 3\n\n"], seen) == b"data: 1\n\ndata: 2\n\ndata: 3\n\n"
    assert seen == [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]


def test_lines_may_end_like_on_a_typewriter() -> None:
    seen: list[bytes] = []
    through([b"data: 1\r\n\r", b"\ndata: 2\r\n\r\n"], seen)
    assert seen == [b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"]


def test_an_event_that_never_ends_is_passed_at_the_end_as_it_is() -> None:
    seen: list[bytes] = []
    assert through([b"data: 1\n\ndata: hal"], seen) == b"data: 1\n\ndata: hal"
    assert seen == [b"data: 1\n\n"]


def test_an_event_may_be_taken_away() -> None:
    scanner = Scanner(lambda event: b"" if b"2" in event else event)
    assert scanner.feed(b"data: 1\n\ndata: 2\n\ndata: 3\n\n") == b"data: 1\n\ndata: 3\n\n"
    assert scanner.feed(b"data: 2\n\n") == b""


@pytest.mark.parametrize("cut", [1, 7, 50, 99, 100, 101, 1000])
def test_an_event_that_is_too_long_passes_unseen_and_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 100)
    sent = b"data: 1\n\n" + b"x" * 300 + b"\n\ndata: 2\n\n"
    seen: list[bytes] = []
    pieces = [sent[at : at + cut] for at in range(0, len(sent), cut)]
    assert through(pieces, seen) == sent
    assert seen == [b"data: 1\n\n", b"data: 2\n\n"]


def test_no_more_than_one_event_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 100)
    scanner = Scanner(lambda event: event)
    fed = given_back = 0
    for _ in range(1000):
        given_back += len(scanner.feed(b"no blank line "))
        fed += 14
        assert fed - given_back <= 100


pieces_of_streams = st.lists(
    st.sampled_from([b"\n", b"\n\n", b"\r\n\r\n", b"\r", b"a", b"data: x", b"y" * 30]), max_size=40
)


@given(pieces_of_streams, st.data())
def test_how_the_bytes_were_cut_makes_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    before, sse.MAX_EVENT = sse.MAX_EVENT, 40
    try:
        sent = b"".join(parts)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
        pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
        whole: list[bytes] = []
        split: list[bytes] = []
        assert through([sent], whole) == through(pieces, split) == sent
        assert whole == split
    finally:
        sse.MAX_EVENT = before


def test_an_event_that_passed_unseen_is_remembered() -> None:
    scanner = Scanner(lambda event: event)
    scanner.feed(b"data: a\n\n")
    assert not scanner.unseen
    huge = b"data: " + b"x" * sse.MAX_EVENT + b"\n\n"
    assert scanner.feed(huge + b"data: b\n\n") == huge + b"data: b\n\n"
    assert scanner.unseen
    assert not scanner.inside
