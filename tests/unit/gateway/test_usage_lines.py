"""Openings and records as lines, and back."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.core import usage
from gateway.core.usage import Outcome, interrupted, milliseconds, moved
from tests.unit.gateway.values import NOW, opening, record


def test_what_is_written_is_read() -> None:
    lines = [usage.write(opening("a")), usage.write(opening("b")), usage.write(record("a"))]
    found = usage.read(lines)
    assert found.closed == [record("a")]
    assert found.open == {"b": opening("b")}
    assert found.unreadable == 0


def test_records_are_found_among_openings() -> None:
    lines = [usage.write(opening("a")), usage.write(record("a")), usage.write(opening("b"))]
    assert usage.records(lines) == [record("a")]


def test_each_entry_is_one_line() -> None:
    elsewhere = moved(opening("a"), worker_id="w\n2", node_id="n", deployment_id="d")
    for entry in (opening("a"), record("a"), elsewhere):
        assert usage.write(entry).count(b"\n") == 1


def test_reading_goes_on_where_it_stopped() -> None:
    found = usage.read([usage.write(opening("a"))])
    assert usage.read([usage.write(record("a"))], found).open == {}


@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_torn_line_is_counted_and_hurts_no_other(noise: bytes, cut: int) -> None:
    whole = usage.write(record("a"))
    found = usage.read([whole, whole[: min(cut, len(whole) - 2)], noise, whole])
    assert found.closed == [record("a"), record("a")]
    assert found.unreadable == 2


def test_lines_of_another_shape_are_unreadable() -> None:
    assert usage.read([b'open {"request_id":"a"}\n', b"close []\n", b'close {"started_at":7}\n']).unreadable == 3


def test_a_request_that_ran_when_the_gateway_died_is_a_record_until_the_last_sign_of_life() -> None:
    found = interrupted(opening("a"), last_sign=NOW + timedelta(seconds=2))
    assert (found.outcome, found.status, found.duration_ms) == (Outcome.INTERRUPTED, 0, 2000)
    assert (found.first_token_ms, found.prompt_tokens) == (None, None)
    assert interrupted(opening("a"), last_sign=NOW - timedelta(seconds=2)).duration_ms == 0


def test_milliseconds_fit_into_a_record() -> None:
    assert milliseconds(timedelta(days=400)) == 2**31 - 1


def test_another_worker_takes_the_request_over() -> None:
    assert moved(opening("a"), worker_id="w-2", node_id="n-2", deployment_id="d").worker_id == "w-2"
