"""Recorded decisions: written, read, and made again."""

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kit.errors import InvalidInput
from mesh.routing.choose import choose
from mesh.routing.record import Difference, Record, from_row, replay, to_row
from mesh.routing.values import LEAST_LOAD, ONLY, ROUND_ROBIN, Ask, Candidate, Decision
from tests.unit.routing.values import ASKS, ask, candidate, fleets

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)


def recorded(fleet: list[Candidate], asked: Ask) -> Record:
    decision = choose(fleet, asked)
    assert decision is not None
    return Record(AT, "r-1", "m", asked, tuple(fleet), decision)


BUSY = recorded([candidate("a", outstanding=1), candidate("b")], ask(prefix=2**64 - 1, session=None))


@given(fleets(), ASKS)
def test_what_was_recorded_is_read_as_it_was_and_decided_as_it_was(fleet: list[Candidate], asked: Ask) -> None:
    record = recorded(fleet, asked)
    again = from_row(json.loads(json.dumps(to_row(record))))
    assert again == record
    assert replay([again]).differences == []


def test_a_decision_that_comes_out_otherwise_is_reported() -> None:
    record = recorded([candidate("a", outstanding=1), candidate("b")], ask())
    changed = record._replace(decision=Decision("a", LEAST_LOAD))
    report = replay([record, changed])
    assert report.decisions == 2
    assert report.differences == [Difference("r-1", "m", Decision("a", LEAST_LOAD), Decision("b", LEAST_LOAD))]
    assert report.workers == (Counter(a=1, b=1), Counter(b=2))


def test_another_policy_shows_what_it_would_have_done() -> None:
    fleet = [candidate("a", outstanding=1), candidate("b"), candidate("c", outstanding=1)]
    report = replay([recorded(fleet, ask(turn=turn)) for turn in range(6)], ROUND_ROBIN)
    assert report.workers == (Counter(b=6), Counter(a=2, b=2, c=2))
    assert report.reasons == (Counter({LEAST_LOAD: 6}), Counter({ROUND_ROBIN: 6}))
    assert len(report.differences) == 6, "the reason differs too"


def test_a_row_holds_hashes_as_text() -> None:
    row = to_row(BUSY)
    assert (row["ask"]["prefix"], row["ask"]["session"]) == ("f" * 16, None)
    assert row["at"] == "2026-11-25T12:00:00+00:00"


def with_value(path: str, value: object) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(json.dumps(to_row(BUSY)))
    *folders, name = path.split(".")
    place: Any = row
    for folder in folders:
        place = place[int(folder) if folder.isdigit() else folder]
    place[name] = value
    return row


WRONG = [
    ("at", 7, "at: must be a string"),
    ("at", "soon", "at: must be a moment"),
    ("request_id", None, "request_id: must be a string"),
    ("ask", [], "ask: must be an object"),
    ("ask.policy", "best", "ask.policy: must be one of balanced, cheapest"),
    ("ask.prefix", 12, "ask.prefix: must be 64 bits in hexadecimal"),
    ("ask.prefix", "xyz", "ask.prefix: must be 64 bits"),
    ("ask.session", "1" + "0" * 16, "ask.session: must be 64 bits"),
    ("ask.draw", [1], "ask.draw: must be two whole numbers"),
    ("ask.draw", [1, -1], "ask.draw: must be two whole numbers"),
    ("ask.turn", -1, "ask.turn: must be a whole number from 0"),
    ("ask.turn", True, "ask.turn: must be a whole number"),
    ("ask.last", None, "ask.last: must be a string"),
    ("candidates", [], "candidates: must be a list that is not empty"),
    ("candidates", [3], "candidates[0]: must be an object"),
    ("candidates.0.slots", 0, "candidates[0].slots: must be a whole number from 1"),
    ("candidates.0.slots", 10**400, "candidates[0].slots: must be a whole number"),
    ("candidates.0.weight", 0, "candidates[0].weight: must be at least 0.001"),
    ("candidates.0.foreign", float("nan"), "candidates[0].foreign: must be a number"),
    ("candidates.0.foreign", 10**400, "candidates[0].foreign: must be a number"),
    ("candidates.0.kv", "much", "candidates[0].kv: must be a number"),
    ("candidates.0.worker_id", "b", "candidates: name a worker twice"),
    ("decision.worker_id", "c", "decision.worker_id: must be one of a, b"),
    ("decision.reason", "luck", "decision.reason: must be one of"),
]


@pytest.mark.parametrize(("path", "value", "problem"), WRONG, ids=lambda value: str(value)[:40])
def test_a_row_that_is_wrong_is_refused_by_the_name_of_its_field(path: str, value: object, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_row(with_value(path, value))
    assert problem in str(caught.value)


def test_fields_of_newer_versions_are_left() -> None:
    assert from_row(with_value("ask.mood", "good")) == BUSY
    with pytest.raises(InvalidInput, match="the record: must be an object"):
        from_row("text")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
)


@given(st.sampled_from([path for path, *_ in WRONG]), JSON)
def test_whatever_stands_in_a_row_it_is_decided_or_refused(path: str, value: object) -> None:
    try:
        record = from_row(with_value(path, value))
    except InvalidInput:
        return
    assert replay([record]).decisions == 1


def test_alone_is_alone() -> None:
    assert recorded([candidate("a")], ask()).decision.reason == ONLY
