"""What the simulator does wrong when it is asked to, to the octet."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.engines.simulator_http import NOISE
from tests.fakes.simulator import World

CHAT = "/v1/chat/completions"


def question(stream: bool, fault: object = None) -> dict[str, Any]:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "stream": stream, "max_tokens": 9}
    return asked if fault is None else {**asked, "simulator_fault": fault}


def sound(stream: bool) -> bytes:
    """The answer without the fault. Its id is given, so that it is the same octets."""
    return World().answer(CHAT, question(stream), x_request_id="r").body


@given(st.booleans(), st.integers(0, 200))
def test_it_falls_silent_after_so_many_octets(stream: bool, after: int) -> None:
    wire = World().ask(CHAT, question(stream, {"stall_after_bytes": after}), x_request_id="r")
    answer = wire.answer()
    assert answer.status == 200
    assert answer.body == sound(stream)[:after]
    assert not answer.whole
    assert not wire.closed


@given(st.booleans(), st.integers(0, 200))
def test_noise_takes_the_place_of_the_rest_in_good_framing(stream: bool, after: int) -> None:
    answer = World().answer(CHAT, question(stream, {"garbage_after_bytes": after}), x_request_id="r")
    assert answer.whole
    assert answer.body[:after] == sound(stream)[:after]
    assert answer.body != sound(stream)
    if stream:
        assert answer.body == sound(stream)[:after] + NOISE


@pytest.mark.parametrize("stream", [False, True])
def test_a_truncated_answer_lacks_its_end(stream: bool) -> None:
    wire = World().ask(CHAT, question(stream, "truncated"), x_request_id="r")
    answer = wire.answer()
    assert wire.closed
    assert not answer.whole
    assert answer.body == (sound(stream) if stream else sound(stream)[:-1])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_error_of_any_status_in_place_of_an_answer(status: int) -> None:
    answer = World().answer(CHAT, question(True, {"status": status}))
    assert answer.status == status
    assert answer.json["error"]["code"] == status


def test_the_answer_starts_late() -> None:
    world = World()
    wire = world.ask(CHAT, question(False, {"slow_headers_ms": 500}))
    world.timer.forward(0.49)
    assert wire.octets == b""
    world.timer.forward(0.01)
    assert wire.answer().whole


def test_who_leaves_before_a_late_start_is_not_answered() -> None:
    world = World()
    world.ask(CHAT, question(False, {"slow_headers_ms": 500})).leave()
    world.timer.forward(1)
    assert world.metric("vllm:prompt_tokens_total") == 0


def test_no_answer_at_all() -> None:
    world = World()
    wire = world.ask(CHAT, question(False, "no_headers"))
    world.timer.forward(1000)
    assert (wire.octets, wire.closed) == (b"", False)
    assert wire.connection.busy
    wire.leave()
    assert not wire.connection.busy


def test_a_header_asks_for_a_fault_as_well_and_faults_are_counted() -> None:
    world = World()
    assert world.answer(CHAT, question(False), x_simulator_fault="status:503").status == 503
    assert world.answer(CHAT, question(False)).status == 200
    assert world.metric("simulator:faults_total") == 1


def test_each_so_manieth_request_fails_and_no_probe_ever_does() -> None:
    world = World("fault=status:500,fault_every=3")
    seen = []
    for _ in range(7):
        seen.append(world.answer(CHAT, question(False)).status)
        assert world.answer("/health").status == world.answer("/metrics").status == 200
    assert seen == [200, 200, 500, 200, 200, 500, 200]


def test_a_fault_beyond_the_answers_end_never_happens() -> None:
    answer = World().answer(CHAT, question(True, {"die_after_bytes": 1 << 20}), x_request_id="r")
    assert answer.whole
    assert answer.body == sound(True)
