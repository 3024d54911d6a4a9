"""What clients and engines may send to break the cores: bodies, forms and events no honest one would write."""

import contextlib
import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import multipart
from gateway.core.continuation import Splicer, continue_body
from gateway.core.endpoints import ENDPOINTS, Body
from gateway.core.errors import MalformedBody, UnsupportedMediaType
from gateway.core.metering import MAX_COUNT, StreamMeter, Usage
from gateway.core.request import LLAMACPP, MAX_CHOICES, MAX_TOKENS, VLLM, InferenceRequest, parse
from gateway.core.sse import MAX_EVENT, Scanner
from gateway.core.transcript import Transcript
from mesh.kit.errors import InvalidInput

CHAT = ENDPOINTS["/v1/chat/completions"]
REFUSALS = (InvalidInput, MalformedBody, UnsupportedMediaType)
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, -1, 10**30, True, 1e308])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KNOWN = ("model", "messages", "prompt", "input", "n", "max_tokens", "stream", "stream_options", "system", "tools")
FIELDS = st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=5), VALUES, max_size=6)


def request(**more: object) -> InferenceRequest:
    fields = {"model": "m", "messages": [{"role": "user", "content": "x"}], **more}
    return parse(CHAT, json.dumps(fields).encode())


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def begun(text: bytes = b"half of it", **first: object) -> Transcript:
    """A stream that was lost after its first event."""
    transcript = Transcript(request(stream=True), VLLM)
    delta = {"role": "assistant", "content": text.decode()}
    chunk = {"id": "c", "created": 1, **first, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    transcript.see(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    return transcript


# Bodies ------------------------------------------------------------


@given(st.sampled_from(list(ENDPOINTS.values())), FIELDS)
@settings(max_examples=200)
def test_any_json_is_a_request_or_refused(endpoint: object, fields: dict[str, object]) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user"}], **fields}).encode()
    with contextlib.suppress(*REFUSALS):
        found = parse(endpoint, body)  # type: ignore[arg-type]
        assert 1 <= found.choices <= MAX_CHOICES
        assert found.max_tokens is None or 1 <= found.max_tokens <= MAX_TOKENS
        for engine in (VLLM, LLAMACPP, "other"):
            orjson.loads(found.body_for(engine, "another name"))


@given(st.sampled_from(list(ENDPOINTS.values())), st.binary(max_size=200), st.text(max_size=40))
def test_any_octets_are_a_request_or_refused(endpoint: object, body: bytes, kind: str) -> None:
    with contextlib.suppress(*REFUSALS):
        parse(endpoint, body, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [MAX_CHOICES + 1, 2**63, 2**64 - 1])
def test_more_answers_at_once_than_can_be_counted_are_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match="at most 1024"):
        request(n=number)
    assert request(n=MAX_CHOICES).choices == MAX_CHOICES


def test_an_answer_without_bound_is_as_long_as_can_be_counted() -> None:
    assert request(max_tokens=2**64 - 1).max_tokens == MAX_TOKENS


@pytest.mark.parametrize("engine", [VLLM, LLAMACPP, "other"])
def test_what_is_nested_too_deep_to_be_written_anew_is_refused(engine: str) -> None:
    body = (
        b'{"model":"m","stream":true,"stream_options":{"x":%b},"messages":[{"role":"user","content":"x"}]}'
        % nested(300)
    )
    with pytest.raises(InvalidInput, match="nested too deep"):
        parse(CHAT, body).body_for(engine)


def test_what_is_nested_deep_goes_on_as_it_is_where_nothing_is_written() -> None:
    body = b'{"model":"m","x":%b,"messages":[{"role":"user","content":"x"}]}' % nested(300)
    assert parse(CHAT, body).body_for(VLLM) == body


# Forms ------------------------------------------------------------


@st.composite
def mutated_forms(draw: st.DrawFn) -> bytes:
    """A good form with some of its octets replaced, repeated or gone."""
    form = bytearray(
        b'--b0\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
        b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF\r\n--b0--\r\n'
    )
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(form)))
        length = draw(st.integers(0, 12))
        form[at : at + length] = draw(
            st.binary(max_size=6) | st.sampled_from([b"\r\n", b"--b0", b"\0", b'"', b";", bytes(form[at:])])
        )
    return bytes(form)


@given(mutated_forms(), st.sampled_from(["b0", '"b0"', "b", "", "b0; boundary=b1", "b\xff"]))
@settings(max_examples=200)
def test_a_mutated_form_is_read_or_refused(body: bytes, boundary: str) -> None:
    with contextlib.suppress(*REFUSALS):
        for begin, end in multipart.spans(body, f"multipart/form-data; boundary={boundary}").values():
            assert 0 <= begin <= end <= len(body)


@given(mutated_forms())
def test_a_form_that_was_read_can_be_written_for_an_engine(body: bytes) -> None:
    with contextlib.suppress(*REFUSALS):
        endpoint = next(one for one in ENDPOINTS.values() if one.body is Body.MULTIPART)
        found = parse(endpoint, body, "multipart/form-data; boundary=b0")
        assert b"another name" in found.body_for(VLLM, "another name")


# Events ------------------------------------------------------------

PIECES = st.lists(
    st.binary(max_size=40)
    | st.sampled_from(
        [
            b"\n\n",
            b"\r\n\r\n",
            b"\r\r",
            b"data: [DONE]\n\n",
            b'data: {"choices":[],"usage":{"prompt_tokens":99999999999999999999,"completion_tokens":-1}}\n\n',
            b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}],"usage":{',
            b'data: {"id":"\\ud800","created":1e400,"choices":[{"delta":{"role":"a","content":"\\udfff"}}]}\n\n',
            b'data: {"x":1,"timings":{"prompt_n":1e5}}\n\n',
            b"data: " + nested(2000) + b"\n\n",
            b'event: error\ndata: {"error":1}\n\n',
            b"x" * 1000,
        ]
    ),
    max_size=12,
)


@given(PIECES, st.sampled_from([VLLM, LLAMACPP, "other"]))
@settings(max_examples=150)
def test_an_engine_may_say_anything(pieces: list[bytes], engine: str) -> None:
    transcript, first = Transcript(request(stream=True), engine), StreamMeter(request(stream=True), engine)

    def show(event: bytes) -> bytes:
        shown = first.show(event)
        transcript.see(shown)
        return shown

    scanner = Scanner(show)
    for piece in pieces:
        scanner.feed(piece)
    scanner.finish()
    first.over()
    transcript.lost(first.usage())
    if transcript.ending() or transcript.refusal(engine):
        return
    continue_body(transcript.request, engine, "m", transcript)
    meter = StreamMeter(transcript.request, engine)
    again = Scanner(Splicer(transcript, meter).show)
    for piece in pieces:
        again.feed(piece)
    for count in (meter.usage().prompt_tokens, meter.usage().completion_tokens):
        assert count is None or 0 <= count <= MAX_COUNT


@given(st.lists(st.binary(min_size=1, max_size=3), max_size=30))
def test_events_are_held_back_only_so_far(pieces: list[bytes]) -> None:
    scanner = Scanner(lambda event: event)
    out = b"".join(scanner.feed(piece) for piece in pieces) + scanner.finish()
    assert out == b"".join(pieces)


def test_an_event_without_end_is_not_held() -> None:
    scanner = Scanner(lambda event: event)
    came = sum(len(scanner.feed(b"x" * 65536)) for _ in range(64))
    assert came > 64 * 65536 - MAX_EVENT - 65536
    assert scanner.inside


@pytest.mark.parametrize(
    "first",
    [{"id": "\ud800"}, {"created": 10**30}, {"system_fingerprint": json.loads(nested(300))}, {"id": "a\nb"}],
)
def test_what_cannot_be_said_again_is_not_kept_of_a_first_chunk(first: dict[str, object]) -> None:
    transcript = begun(**first)
    transcript.finish = "stop"
    transcript.lost(Usage(3, 4))
    assert transcript.ending().endswith(b"data: [DONE]\n\n")
    splicer = Splicer(transcript, StreamMeter(transcript.request, VLLM))
    assert b"more" in splicer.show(b'data: {"id":"d","created":2,"choices":[{"delta":{"content":"more"}}]}\n\n')


@pytest.mark.parametrize("bad", [b'"x":' + nested(300), b'"x":"\\ud800"'])
def test_a_further_worker_may_say_what_cannot_be_written_anew(bad: bytes) -> None:
    transcript = begun()
    transcript.lost(Usage(3, 4))
    asks = request(stream=True, stream_options={"include_usage": True})
    splicer = Splicer(transcript, StreamMeter(asks, VLLM))
    first = b'data: {%b,"choices":[{"delta":{"role":"a","content":"more"},"finish_reason":null}]}\n\n' % bad
    assert b"more" in splicer.show(first)
    counted = b'data: {"choices":[{"delta":{"content":"y"}}],"usage": {"prompt_tokens":1,%b}}\n\n' % bad
    assert b'"y"' in splicer.show(counted)
