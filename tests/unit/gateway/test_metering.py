"""Token counts from what engines really send; what clients did not ask for is gone, and nothing else.

The chunks are those of llama.cpp's server (xllamacpp 2026.10) and of vLLM with ``continuous_usage_stats``.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.endpoints import ENDPOINTS
from gateway.core.metering import StreamMeter, Usage, capped, from_timings, from_usage, of_answer
from gateway.core.request import InferenceRequest, parse
from gateway.core.sse import Scanner

TAIL = b'"created":1,"id":"c-1","model":"m","object":"chat.completion.chunk"'
DONE = b"data: [DONE]\n\n"


def timings(predicted: int) -> bytes:
    return (
        b'"timings":{"cache_n":31,"prompt_n":1,"prompt_ms":11.071,"prompt_per_second":90.3,'
        b'"predicted_n":%d,"predicted_ms":0.001,"predicted_per_second":0.0}' % predicted
    )


def text(content: str, more: bytes = b"") -> bytes:
    delta = json.dumps({"content": content}, ensure_ascii=False).encode()
    return b'data: {"choices":[{"finish_reason":null,"index":0,"delta":%b}],%b%b}\n\n' % (delta, TAIL, more)


def llamacpp_last(*, cached: int = 31) -> bytes:
    usage = (
        b'"usage":{"completion_tokens":3,"prompt_tokens":32,"total_tokens":35,'
        b'"prompt_tokens_details":{"cached_tokens":%d}}'
    )
    return b'data: {"choices":[],%b,%b,%b}\n\n' % (TAIL, usage % cached, timings(3))


def vllm_usage(completion: int) -> bytes:
    return b',"usage":{"prompt_tokens":32,"total_tokens":%d,"completion_tokens":%d}' % (
        32 + completion,
        completion,
    )


LLAMACPP = [text("", b""), text("I", b"," + timings(1)), text("'m", b"," + timings(2)), llamacpp_last(), DONE]
VLLM = [
    text("", vllm_usage(0) + b',"prompt_token_ids":null'),
    text("I", vllm_usage(1)),
    text("'m", vllm_usage(2)),
    b'data: {"choices":[],%b%b}\n\n' % (TAIL, vllm_usage(3)),
    DONE,
]


def request(**fields: object) -> InferenceRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, **fields}
    return parse(ENDPOINTS["/v1/chat/completions"], json.dumps(body).encode())


ASKED = {"stream_options": {"include_usage": True}}
PLAIN = [text(""), text("I"), text("'m"), DONE]


def test_a_client_who_asked_for_nothing_sees_no_counts_of_llamacpp() -> None:
    meter = StreamMeter(request(), "llamacpp")
    assert [meter.show(event) for event in LLAMACPP] == [text(""), text("I"), text("'m"), b"", DONE]
    assert meter.usage() == Usage(32, 3, 31)
    assert meter.finished


def test_a_client_who_asked_for_nothing_sees_no_counts_of_vllm() -> None:
    meter = StreamMeter(request(), "vllm")
    shown = [meter.show(event) for event in VLLM]
    assert shown == [text("", b',"prompt_token_ids":null'), text("I"), text("'m"), b"", DONE]
    assert meter.usage() == Usage(32, 3, None)


@pytest.mark.parametrize(("engine", "events"), [("llamacpp", LLAMACPP), ("vllm", VLLM)])
def test_who_asked_for_usage_gets_the_last_chunk_as_the_engine_sent_it(engine: str, events: list[bytes]) -> None:
    meter = StreamMeter(request(**ASKED), engine)
    shown = [meter.show(event) for event in events]
    assert shown[-2:] == events[-2:]
    assert all(b'"usage"' not in event and b'"timings"' not in event for event in shown[:-2])


def test_who_asked_for_everything_gets_every_byte() -> None:
    everything = {
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "timings_per_token": True,
    }
    for engine, events in (("llamacpp", LLAMACPP), ("vllm", VLLM)):
        meter = StreamMeter(request(**everything), engine)
        assert [meter.show(event) for event in events] == events


@pytest.mark.parametrize(
    ("engine", "events", "expected"),
    [("llamacpp", LLAMACPP, Usage(32, 2, 31)), ("vllm", VLLM, Usage(32, 2, None))],
)
def test_who_leaves_half_way_is_counted_by_the_engines_last_word(
    engine: str, events: list[bytes], expected: Usage
) -> None:
    meter = StreamMeter(request(), engine)
    for event in events[:3]:
        meter.show(event)
    assert not meter.finished
    assert meter.usage() == expected


def test_an_engine_that_says_nothing_is_not_invented_for() -> None:
    meter = StreamMeter(request(), "other")
    assert [meter.show(event) for event in PLAIN] == PLAIN
    assert meter.usage() == Usage()


@pytest.mark.parametrize("engine", ["llamacpp", "vllm", "other"])
@pytest.mark.parametrize(
    "words",
    [
        ',"timings":{"prompt_n":9}}',
        ',"usage":{"prompt_tokens":9}}',
        '"choices":[]',
        '","usage":{"prompt_tokens":9}},"x":"',
        "[DONE]",
    ],
)
def test_words_that_look_like_counts_are_words(engine: str, words: str) -> None:
    meter = StreamMeter(request(), engine)
    assert meter.show(text(words)) == text(words)
    assert meter.usage() == Usage()
    assert not meter.finished


def test_counts_that_are_not_at_the_outermost_level_are_left_alone() -> None:
    event = b'data: {"choices":[{"index":0,"usage":{"prompt_tokens":1}}],"id":"x"}\n\n'
    meter = StreamMeter(request(), "vllm")
    assert meter.show(event) == event


def test_a_broken_chunk_passes_and_breaks_nothing() -> None:
    for event in (b'data: {"choices":[{}],"usage":{"prompt\n\n', b'data: {"a":1,"timings":{"x\n\n'):
        for engine in ("llamacpp", "vllm"):
            meter = StreamMeter(request(), engine)
            assert meter.show(event) == event
            assert meter.usage() == Usage()


@pytest.mark.parametrize("event", [b'data: {"error":{"message":"x"}}\n\n', b"event: error\ndata: {}\n\n"])
def test_an_error_event_of_the_engine_is_noticed(event: bytes) -> None:
    meter = StreamMeter(request(), "vllm")
    assert meter.show(event) == event
    assert meter.failed
    assert not meter.finished


@pytest.mark.parametrize("done", [b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n"])
def test_the_end_is_noticed(done: bytes) -> None:
    meter = StreamMeter(request(), "vllm")
    meter.show(done)
    assert meter.finished


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, Usage(1, 2, None)),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}, Usage(1, None, 1)),
        ({"prompt_tokens": 1, "prompt_tokens_details": None}, Usage(1, None, None)),
        ({"prompt_tokens": 4, "total_tokens": 4}, Usage(4, None, None)),
        ({"total_tokens": 4}, Usage(4, None, None)),
        ({"total_tokens": 4, "completion_tokens": 1}, Usage(None, 1, None)),
        ({"prompt_tokens": True, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": 2**31, "completion_tokens": "7"}, Usage()),
        (None, Usage()),
        ([], Usage()),
    ],
)
def test_only_numbers_that_can_be_counts_are_counts(fields: object, expected: Usage) -> None:
    assert from_usage(fields) == expected
    assert of_answer(json.dumps({"usage": fields}).encode()) == expected


def test_counts_beyond_the_context_are_cut_and_others_are_the_same() -> None:
    told = Usage(4096, 8192, 4096)
    assert capped(told, context=4096, choices=2) is told
    assert capped(told, context=4096, choices=1) == Usage(4096, 4096, 4096)
    assert capped(Usage(2**31 - 1, 2**31 - 1, 2**31 - 1), context=8, choices=3) == Usage(8, 24, 8)
    assert capped(told, context=0, choices=1) is told, "nobody knows the length"
    assert capped(Usage(), context=8, choices=1) == Usage()
    assert capped(Usage(None, 9, None), context=8, choices=10**12) == Usage(None, 9, None)


def test_an_answer_that_is_no_json_has_no_counts() -> None:
    assert of_answer(b"") == of_answer(b"[]") == of_answer(b"{") == Usage()


def test_timings_may_lack_what_they_lack() -> None:
    assert from_timings({"prompt_n": 5}) == Usage(5, None, None)
    assert from_timings({"cache_n": 5, "predicted_n": 1}) == Usage(None, 1, 5)
    assert from_timings(7) == Usage()


contents = st.text() | st.sampled_from(
    ['","timings":{"a":1}}', ',"usage":{"b":2}}', '"choices":[]', "\\", '"', "\n\n"]
)


@given(st.lists(contents, max_size=6), st.sampled_from(["llamacpp", "vllm"]), st.booleans(), st.data())
def test_however_a_stream_is_cut_the_client_gets_what_the_engine_said_without_what_we_asked(
    words: list[str], engine: str, asked: bool, data: st.DataObject
) -> None:
    def more(at: int) -> bytes:
        return b"," + timings(at) if engine == "llamacpp" else vllm_usage(at)

    last = llamacpp_last() if engine == "llamacpp" else VLLM[3]
    sent = b"".join([*(text(word, more(at)) for at, word in enumerate(words)), last, DONE])
    expected = b"".join([*(text(word) for word in words), last if asked else b"", DONE])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    meter = StreamMeter(request(**(ASKED if asked else {})), engine)
    scanner = Scanner(meter.show)
    got = [scanner.feed(sent[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert b"".join([*got, scanner.finish()]) == expected
    assert meter.finished
    assert meter.usage().completion_tokens == 3
