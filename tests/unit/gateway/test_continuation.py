"""A worker is killed at every octet of its answer, and the client has the same text, one end, the same bill."""

import copy
import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.continuation import MARK, Splicer, continue_body
from gateway.core.endpoints import ENDPOINTS
from gateway.core.metering import StreamMeter, Usage
from gateway.core.request import InferenceRequest, parse
from gateway.core.sse import Scanner
from gateway.core.transcript import Transcript
from tests.unit.gateway.deterministic import PROMPT_TOKENS, Engine

CHAT, COMPLETIONS = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/v1/completions"]
ASKED = {"stream_options": {"include_usage": True}}
EVERY = int(os.environ.get("CHAOS_ROUNDS", "1")) > 1
DIALECTS = ("vllm", "simulator", "llamacpp")


def request(*, completions: bool = False, **fields: object) -> InferenceRequest:
    asked = {"prompt": "Say: "} if completions else {"messages": [{"role": "user", "content": "go"}]}
    body = json.dumps({"model": "m", "stream": True, **asked, **fields}).encode()
    return parse(COMPLETIONS if completions else CHAT, body)


@dataclass(slots=True)
class Client:
    """One client's answer, from workers that are lost after so many octets each."""

    request: InferenceRequest
    engine: Engine
    pieces: int = 0
    """In how many octets at a time the stream comes; zero: all at once."""
    received: bytes = field(init=False, default=b"")
    transcript: Transcript = field(init=False)
    usage: Usage = field(init=False, default=Usage())

    def serve(self, cuts: Sequence[int]) -> None:
        """A worker for each cut, which is lost there if it has not ended before, and perhaps a last one."""
        self.transcript = Transcript(self.request, self.engine.dialect)
        meter = StreamMeter(self.request, self.engine.dialect)
        body = self.request.body_for(self.engine.dialect)
        if not self._fed(Scanner(self.first(meter)), meter, body, cuts[:1]):
            self.go_on(meter, cuts[1:])

    def go_on(self, meter: StreamMeter, cuts: Sequence[int]) -> None:
        """After the loss of the worker that this meter is of."""
        dialect = self.engine.dialect
        for worker in range(len(cuts) + 1):
            self.transcript.lost(meter.usage())
            assert self.transcript.refusal(dialect) == ""
            ending = self.transcript.ending()
            if ending or self.transcript.done:
                self.received += ending
                self.usage = self.transcript.total(Usage())
                return
            meter = StreamMeter(self.request, dialect)
            scanner = Scanner(Splicer(self.transcript, meter).show)
            body = continue_body(self.request, dialect, "", self.transcript)
            if self._fed(scanner, meter, body, cuts[worker : worker + 1]):
                return

    def first(self, meter: StreamMeter) -> Callable[[bytes], bytes]:
        """What is done to each event of the first worker."""

        def show(event: bytes) -> bytes:
            shown = meter.show(event)
            if shown:
                self.transcript.see(shown)
            return shown

        return show

    def _fed(self, scanner: Scanner, meter: StreamMeter, body: bytes, cut: Sequence[int]) -> bool:
        """Whether the worker came to its end."""
        stream = self.engine.answer(body)
        data = stream[: cut[0]] if cut else stream
        self._feed(scanner, data)
        if data == stream:
            assert meter.finished
            assert scanner.finish() == b""
            self.usage = self.transcript.total(meter.usage())
        return data == stream

    def _feed(self, scanner: Scanner, data: bytes) -> None:
        step = self.pieces or max(1, len(data))
        for at in range(0, len(data), step):
            self.received += scanner.feed(data[at : at + step])


@lru_cache(maxsize=4)
def chunks(received: bytes) -> list[dict[str, object]]:
    """What a client makes of it."""
    lines = [
        line for event in received.split(b"\n\n") for line in event.split(b"\n") if line.startswith(b"data: ")
    ]
    assert lines.index(b"data: [DONE]") == len(lines) - 1, "one end, at the end"
    return [json.loads(line[6:]) for line in lines[:-1]]


def whole(sent: InferenceRequest, engine: Engine) -> Client:
    client = Client(sent, replace(engine))
    client.serve([])
    return client


def check(client: Client, alone: Client) -> None:
    """The client has what it would have had from one worker."""
    got, expected = chunks(client.received), chunks(alone.received)
    assert text(got) == text(expected)
    assert len({chunk["id"] for chunk in got}) == 1
    assert list(finishes(got)) == list(finishes(expected))
    assert sum("role" in choice.get("delta", {}) for choice in choices(got)) == (client.request.endpoint == CHAT)
    assert counts(got) == counts(expected)
    assert client.usage == alone.usage


def counts(got: list[dict[str, object]]) -> list[object]:
    """The counts the client was told; a stream that was ended here does not know all details."""
    told = [chunk["usage"] for chunk in got if chunk.get("usage")]
    return [{name: count for name, count in one.items() if name.endswith("_tokens")} for one in told]  # type: ignore[attr-defined]


def choices(got: Iterable[dict[str, object]]) -> list[dict[str, dict[str, str]]]:
    return [choice for chunk in got for choice in chunk["choices"]]  # type: ignore[attr-defined]


def text(got: Iterable[dict[str, object]]) -> str:
    return "".join(
        choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices(got)
    )  # type: ignore[misc]


def finishes(got: Iterable[dict[str, object]]) -> Iterable[object]:
    return (choice["finish_reason"] for choice in choices(got) if choice["finish_reason"])


def lost_everywhere(sent: InferenceRequest, engine: Engine, events: Sequence[int] | None = None) -> int:
    """The worker is lost after every octet. Where nothing new was shown, nothing differs from an octet before.

    ``events``: after which of them it is seen how the answer goes on; None: after each. Says after how many.
    """
    alone = whole(sent, engine)
    client = Client(sent, engine)
    client.transcript = Transcript(sent, engine.dialect)
    meter = StreamMeter(sent, engine.dialect)
    shown: list[bytes] = []
    first = client.first(meter)

    def show(event: bytes) -> bytes:
        shown.append(event)
        return first(event)

    scanner = Scanner(show)
    tried = 0
    seen = -1
    for octet in engine.answer(sent.body_for(engine.dialect)):
        if len(shown) == seen:
            out = scanner.feed(bytes([octet]))
            assert not out or len(shown) == seen + 1, "only whole events are shown"
            client.received += out
            continue
        seen = len(shown)
        if events is None or seen in events:
            other = copy.deepcopy(client)
            other.go_on(copy.deepcopy(meter), [])
            check(other, alone)
            assert other.received.count(MARK) == (other.engine.served > client.engine.served)
            tried += 1
        client.received += scanner.feed(bytes([octet]))
    assert client.received == alone.received
    return tried


@pytest.mark.parametrize("fields", [{}, ASKED, {"max_tokens": 41, **ASKED}], ids=["plain", "usage", "length"])
@pytest.mark.parametrize(
    ("dialect", "completions"), [("vllm", False), ("simulator", False), ("llamacpp", False), ("vllm", True)]
)
def test_a_short_answer_survives_the_loss_of_its_worker_at_every_octet(
    dialect: str, completions: bool, fields: dict[str, object]
) -> None:
    engine = Engine(dialect, 60, completions=completions)
    assert lost_everywhere(request(completions=completions, **fields), engine) > 15


@pytest.mark.timeout(600)
@pytest.mark.parametrize("dialect", ["vllm", "llamacpp"])
def test_a_long_answer_survives_the_loss_of_its_worker_at_every_octet(dialect: str) -> None:
    """How it goes on is seen after some events, after each with CHAOS_ROUNDS above 1."""
    events = None if EVERY else random.Random(7).sample(range(2004), 20)
    assert lost_everywhere(request(**ASKED), Engine(dialect, 2000), events) >= 20


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([("vllm", False), ("simulator", False), ("llamacpp", False), ("vllm", True)]),
    st.lists(st.integers(0, 6000), max_size=4),
    st.integers(0, 7),
    st.booleans(),
    st.booleans(),
    st.sampled_from([{}, ASKED, {"max_tokens": 25, **ASKED}]),
)
def test_however_often_it_is_lost_and_however_the_octets_come_the_answer_is_the_same(
    kind: tuple[str, bool], cuts: list[int], pieces: int, ascii: bool, spaced: bool, fields: dict[str, object]
) -> None:
    dialect, completions = kind
    spaced = spaced and dialect != "llamacpp" and not completions and "max_tokens" not in fields
    engine = Engine(dialect, 30, ascii, spaced, completions)
    sent = request(completions=completions, **fields)
    if engine.spaced:  # then counts are not found, and not taken out: what is promised is the text
        client = Client(sent, engine, pieces)
        client.serve(cuts)
        assert text(chunks(client.received)) == text(chunks(whole(sent, engine).received))
        return
    client = Client(sent, engine, pieces)
    client.serve(cuts)
    check(client, whole(sent, engine))


def test_vllm_s_stream_is_the_same_octet_for_octet_but_for_the_mark() -> None:
    engine = Engine("vllm", 40)
    everything = request(stream_options={"include_usage": True, "continuous_usage_stats": True})
    client = Client(everything, engine)
    client.serve([4000])
    assert client.received.replace(MARK, b"") == whole(everything, engine).received
    assert client.received.count(MARK) == 1
    assert client.usage == Usage(PROMPT_TOKENS, 40, None)


def test_the_mark_is_a_comment_that_comes_before_the_first_event_of_the_next_worker() -> None:
    sent = request()
    client = Client(sent, Engine("vllm", 5))
    client.serve([0])
    assert client.received.startswith(MARK + b'data: {"id":"cmpl-2"'), "nothing was shown before"
    client = Client(sent, Engine("vllm", 5))
    client.serve([500, 300])
    assert client.received.count(MARK) == 2
    assert client.transcript.continued == 2


TWO = Usage(11, 2, 3)

# What the next worker is asked.


def shown(sent: InferenceRequest, *texts: str, usage: Usage = TWO, engine: str = "vllm") -> Transcript:
    transcript = Transcript(sent, engine)
    for said in texts:
        part = {"text": said} if sent.endpoint is COMPLETIONS else {"delta": {"content": said}}
        transcript.see(event({"choices": [{"index": 0, **part, "finish_reason": None}]}))
    transcript.lost(usage)
    return transcript


def event(chunk: dict[str, object]) -> bytes:
    return b"data: %b\n\n" % json.dumps({"id": "c-1", "created": 5, **chunk}, separators=(",", ":")).encode()


def asked_to_go_on(sent: InferenceRequest, engine: str, *texts: str) -> dict[str, object]:
    got: dict[str, object] = json.loads(continue_body(sent, engine, "eng", shown(sent, *texts, engine=engine)))
    return got


def test_vllm_is_told_to_go_on_with_the_text_and_everything_else_stays() -> None:
    sent = request(
        seed=7, temperature=0, max_tokens=10, max_completion_tokens=9, min_tokens=5, stop=["x"], own={"a": 1}
    )
    got = asked_to_go_on(sent, "vllm", "He", "y")
    assert got["messages"] == [{"role": "user", "content": "go"}, {"role": "assistant", "content": "Hey"}]
    assert (got["continue_final_message"], got["add_generation_prompt"]) == (True, False)
    assert (got["max_tokens"], got["max_completion_tokens"], got["min_tokens"]) == (8, 7, 3)
    assert (got["seed"], got["temperature"], got["stop"], got["own"]) == (7, 0, ["x"], {"a": 1})
    assert (got["model"], got["stream"]) == ("eng", True)
    assert got["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_llamacpp_goes_on_with_a_last_message_of_the_assistant_unasked() -> None:
    got = asked_to_go_on(request(n_predict=-1), "llamacpp", "Hey")
    assert got["messages"] == [{"role": "user", "content": "go"}, {"role": "assistant", "content": "Hey"}]
    assert "continue_final_message" not in got
    assert got["n_predict"] == -1
    assert got["timings_per_token"] is True


@pytest.mark.parametrize(
    ("content", "longer"),
    [
        ("Say", "Say Hey"),
        (None, " Hey"),
        ([], [{"type": "text", "text": " Hey"}]),
        ([{"type": "text", "text": "Say"}], [{"type": "text", "text": "Say Hey"}]),
        ([{"type": "image_url"}], [{"type": "image_url"}, {"type": "text", "text": " Hey"}]),
    ],
)
@pytest.mark.parametrize(("engine", "flag"), [("vllm", True), ("llamacpp", False), ("llamacpp", True)])
def test_a_clients_own_begun_answer_is_gone_on_with(
    engine: str, flag: bool, content: object, longer: object
) -> None:
    own = [{"role": "user", "content": "go"}, {"role": "assistant", "content": content, "name": "x"}]
    got = asked_to_go_on(request(messages=own, continue_final_message=flag), engine, " Hey")
    assert got["messages"] == [own[0], {"role": "assistant", "content": longer, "name": "x"}]


def test_a_message_of_the_assistant_that_vllm_was_not_to_go_on_with_stays_as_it_is() -> None:
    own = [{"role": "assistant", "content": "Done."}]
    got = asked_to_go_on(request(messages=own), "vllm", "Hey")
    assert got["messages"] == [*own, {"role": "assistant", "content": "Hey"}]


@pytest.mark.parametrize(("prompt", "longer"), [("Say: ", "Say: Hey"), (["Say: "], ["Say: Hey"])])
def test_a_prompt_becomes_longer_by_the_text(prompt: object, longer: object) -> None:
    got = asked_to_go_on(request(completions=True, prompt=prompt, max_tokens=1), "other", "Hey")
    assert (got["prompt"], got["max_tokens"]) == (longer, 1)
    assert "continue_final_message" not in got


def test_a_completion_of_no_stated_length_is_not_longer_for_the_loss() -> None:
    assert asked_to_go_on(request(completions=True), "vllm", "Hey")["max_tokens"] == 14
    assert "max_tokens" not in asked_to_go_on(request(completions=True), "llamacpp", "Hey")


def test_where_nothing_was_said_the_next_worker_is_asked_the_same() -> None:
    sent = request(max_tokens=9)
    transcript = shown(sent, "", usage=Usage(11, 3, None))
    assert continue_body(sent, "vllm", "", transcript) == sent.body_for("vllm")
    assert transcript.refusal("other") == ""
    assert transcript.total(Usage(11, 9, 2)) == Usage(11, 9, None), "what was never shown is not billed"


# What the next worker's events become.


def spliced(transcript: Transcript, *events: bytes, engine: str = "vllm") -> bytes:
    splicer = Splicer(transcript, StreamMeter(transcript.request, engine))
    return b"".join(map(splicer.show, events)).replace(MARK, b"")


def test_a_role_that_comes_with_text_leaves_its_text() -> None:
    transcript = Transcript(request(), "vllm")
    transcript.see(event({"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}]}))
    transcript.see(event({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}))
    transcript.lost(Usage())
    more = {"choices": [{"delta": {"role": "assistant", "content": "b"}, "finish_reason": None}]}
    assert spliced(transcript, event({**more, "id": "c-2", "created": 6})) == event(
        {"choices": [{"delta": {"content": "b"}, "finish_reason": None}]}
    )
    assert transcript.text() == "ab"
    empty = {"choices": [{"delta": {"role": "assistant"}, "finish_reason": "stop"}]}
    assert b'"stop"' in spliced(transcript, event(empty))


@pytest.mark.parametrize(
    "odd", [b'{"choices":[],"role":1}', b'{"choices":7,"role":1}', b'{"choices":[1],"role":1}']
)
def test_a_role_in_an_odd_place_stays_there(odd: bytes) -> None:
    transcript = shown(request(), "a")
    transcript.role = True
    assert spliced(transcript, b"data: " + odd + b"\n\n") == b"data: " + odd + b"\n\n"


def test_a_role_beside_half_a_character_stays_rather_than_the_character_be_lost() -> None:
    transcript = shown(request(), "a")
    transcript.role = True
    half = event({"choices": [{"delta": {"role": "assistant", "content": "\ud83d"}, "finish_reason": None}]})
    assert spliced(transcript, half) == half


def test_counts_that_cannot_be_read_pass() -> None:
    transcript = shown(request(**ASKED), "a")
    odd = b'data: {"choices":[],"usage":{"a"}}\n\n'
    assert spliced(transcript, odd) == odd
    assert (
        spliced(transcript, b'data: {"choices":[],"usage":null}\n\n') == b'data: {"choices":[],"usage":null}\n\n'
    )


def test_comments_and_errors_pass_as_they_are() -> None:
    transcript = shown(request(), "a")
    for other in (b": still here\n\n", b'data: {"error":{"message":"x"}}\n\n'):
        assert spliced(transcript, other) == other
    assert transcript.refusal("vllm") == "the engine sent what is no part of an answer"
