"""Counts and ends of what is not a chat completion: responses, messages, speech, and what is passed through."""

import json

import pytest

from gateway.core.endpoints import ENDPOINTS, Counts, Endpoint, passed_through
from gateway.core.metering import StreamMeter, Usage, of_answer
from gateway.core.request import InferenceRequest, parse

RESPONSES, MESSAGES = ENDPOINTS["/v1/responses"], ENDPOINTS["/v1/messages"]
DONE = b"data: [DONE]\n\n"


def meter(endpoint: Endpoint) -> StreamMeter:
    said = [{"role": "user", "content": "x"}]
    body = {"model": "m", "stream": True, "input": "x", "messages": said}
    return StreamMeter(parse(endpoint, json.dumps(body).encode()), "vllm")


def event(kind: str, *, spaced: bool = False, **fields: object) -> bytes:
    data = json.dumps({"type": kind, **fields}, separators=None if spaced else (",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


INPUT = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3, "total_tokens": 12}


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize(("end", "failed"), [("completed", False), ("incomplete", False), ("failed", True)])
def test_a_response_ends_with_its_counts(end: str, failed: bool, spaced: bool) -> None:
    watch = meter(RESPONSES)
    words = '"type":"response.completed"'
    events = [
        event("response.created", response={"usage": None}),
        event("response.output_text.delta", delta=words),
        event("response.output_text.done", text=words),
        event(f"response.{end}", spaced=spaced, response={"usage": INPUT}),
    ]
    for one in events[:-1]:
        assert watch.show(one) == one
        assert not watch.finished
    assert watch.usage() == Usage()
    assert watch.show(events[-1]) == events[-1]
    assert (watch.finished, watch.failed) == (not failed, failed)
    assert watch.usage() == Usage(9, 3, 4)


def test_a_response_that_says_no_counts_or_says_them_badly_has_none() -> None:
    for broken in (event("response.completed"), b'data: {"type":"response.completed",\n\n'):
        watch = meter(RESPONSES)
        watch.show(broken)
        assert watch.finished
        assert watch.usage() == Usage()


def test_a_message_tells_its_prompt_at_the_start_and_its_answer_at_the_end() -> None:
    watch = meter(MESSAGES)
    used = {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 1}
    watch.show(event("message_start", message={"usage": used}))
    watch.show(event("content_block_delta", delta={"text": '"type":"message_stop"'}))
    watch.show(event("ping"))
    assert watch.usage() == Usage(9, 1, 4)
    watch.show(event("message_delta", usage={"output_tokens": 7}))
    assert not watch.finished
    assert watch.usage() == Usage(9, 7, 4)
    assert watch.show(event("message_stop")) == event("message_stop")
    assert watch.finished
    assert watch.usage() == Usage(9, 7, 4)


def test_a_later_word_on_the_prompt_counts() -> None:
    watch = meter(MESSAGES)
    watch.show(event("message_start", message={"usage": {"input_tokens": 5}}))
    watch.show(
        event("message_delta", usage={"input_tokens": 6, "output_tokens": 7, "cache_creation_input_tokens": 1})
    )
    assert watch.usage() == Usage(7, 7, None)


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("error", [event("error", message="x"), b'data: {"type":"error","error":{}}\n\n'])
def test_an_error_of_the_engine_is_noticed(endpoint: Endpoint, error: bytes) -> None:
    watch = meter(endpoint)
    assert watch.show(error) == error
    assert watch.failed
    watch.over()
    assert not watch.finished


def test_where_nobody_says_the_end_the_end_of_the_transport_is_the_end() -> None:
    watch = meter(passed_through("/v1/own"))
    assert watch.show(b"data: x\n\n") == b"data: x\n\n"
    assert not watch.finished
    watch.over()
    assert watch.finished


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES, ENDPOINTS["/v1/completions"]])
def test_where_an_event_says_the_end_the_end_of_the_transport_says_nothing(endpoint: Endpoint) -> None:
    body = json.dumps({"model": "m", "stream": True, "input": "x", "prompt": "x", "messages": [{"role": "u"}]})
    watch = StreamMeter(parse(endpoint, body.encode()), "vllm")
    watch.over()
    assert not watch.finished


def test_an_error_in_what_is_passed_through_is_no_good_end() -> None:
    watch = meter(passed_through("/v1/own"))
    watch.show(b'data: {"error":{}}\n\n')
    watch.over()
    assert (watch.finished, watch.failed) == (False, True)


def test_counts_that_nobody_asked_for_stay_where_the_engine_sent_them() -> None:
    chunk = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
    request = InferenceRequest(ENDPOINTS["/v1/audio/transcriptions"], "m", True, b"")
    for watch in (StreamMeter(request, "llamacpp"), meter(passed_through("/v1/own"))):
        assert watch.show(chunk) == chunk
        assert watch.usage() == Usage(3, 4, None)
        assert watch.show(DONE) == DONE
        assert watch.finished


def test_an_answer_in_one_piece_has_its_counts_where_its_kind_has_them() -> None:
    assert of_answer(json.dumps({"usage": INPUT}).encode(), Counts.RESPONSES) == Usage(9, 3, 4)
    used = {"input_tokens": 5, "cache_read_input_tokens": None, "output_tokens": 2}
    assert of_answer(json.dumps({"usage": used}).encode(), Counts.MESSAGES) == Usage(5, 2, None)
    assert of_answer(json.dumps({"usage": {"total_tokens": 8}}).encode(), Counts.OPENAI) == Usage(8, None, None)
    assert of_answer(json.dumps({"usage": {"total_tokens": 8}}).encode(), Counts.NONE) == Usage()
    for counts in Counts:
        assert of_answer(b"[", counts) == of_answer(b"[]", counts) == Usage()
