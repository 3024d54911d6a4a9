"""The moments of a request that is traced, and the header that joins its trace to others'."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.story import Story, begin
from gateway.core.routing import Choice
from mesh.routing.values import Ask, Decision
from tests.unit.gateway import values

REQUEST = "0199c0de-0000-7000-8000-0000000000ff"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def choice(worker: str = "w-1") -> Choice:
    return Choice(values.route(worker), Decision(worker, "only"), Ask("balanced", None, None, (0, 0), 0, None), ())


def test_a_client_s_trace_goes_on_as_it_wishes() -> None:
    story = begin(REQUEST, PARENT, 0.0)
    assert (story.trace, story.parent) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    assert story.sampled
    story = begin(REQUEST, PARENT[:-2] + "00", 1.0)
    story.take(choice(), 1.0)
    assert not story.sampled
    assert not story.tries
    assert story.header == PARENT[:-2] + "00"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        "ff" + PARENT[2:],
        PARENT.upper(),
        PARENT + "-more",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        PARENT + "\r\nx: y",
        f"00-{'g' * 32}-b7ad6b7169203331-01",
    ],
)
def test_a_header_that_is_none_begins_a_trace_whose_id_is_the_request_s(header: str | None) -> None:
    story = begin(REQUEST, header, 1.0)
    assert f"{story.trace:032x}" == REQUEST.replace("-", "")
    assert (story.parent, story.sampled, story.header) == (0, True, "")


def test_a_later_version_s_header_may_say_more() -> None:
    assert begin(REQUEST, "01" + PARENT[2:] + "-more", 0.0).parent == 0xB7AD6B7169203331


@given(st.integers(0, 2**62 - 1), st.floats(0, 1))
def test_the_share_is_that_of_the_ids(noise: int, share: float) -> None:
    value = f"{(0x0199C0DE00007000 << 2 | 0b10) << 62 | noise:032x}"
    assert begin(value, None, share).sampled is (noise < share * 2**62)
    assert begin(value, None, 1.0).sampled
    assert not begin(value, None, 0.0).sampled


def test_each_try_has_ids_of_its_own_and_the_engine_is_told_the_newest() -> None:
    story = begin(REQUEST, None, 1.0)
    story.heard(0.5)
    story.failed("nobody had it", 0.5)
    for at in range(3):
        story.take(choice(f"w-{at}"), float(at))
    story.heard(2.5)
    story.heard(2.75)
    ids = [story.span, story.span + 1, *(number for one in story.tries for number in (one.span, one.span + 1))]
    assert len(set(ids)) == 8
    assert all(0 < number < 2**64 for number in ids)
    assert story.header == f"00-{story.trace:032x}-{story.tries[-1].span:016x}-01"
    assert re.fullmatch("[0-9a-f-]{55}", story.header)
    assert [one.heard for one in story.tries] == [None, None, 2.5], "only the first octets count"


def test_a_try_that_failed_says_why_and_when() -> None:
    story = Story(1, 2, 0, True)
    story.take(choice(), 1.0)
    story.failed("refused", 3.0)
    assert (story.tries[0].why, story.tries[0].ended) == ("refused", 3.0)
