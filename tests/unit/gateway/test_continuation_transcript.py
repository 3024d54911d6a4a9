"""What a client was shown is known to the letter, or it is known that it is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import transcript as module
from gateway.core.endpoints import ENDPOINTS
from gateway.core.metering import Usage
from gateway.core.request import InferenceRequest, parse
from gateway.core.transcript import Transcript

CHAT, COMPLETIONS = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/v1/completions"]
DONE = b"data: [DONE]\n\n"


def transcript(*, completions: bool = False, **fields: object) -> Transcript:
    return Transcript(request(completions=completions, **fields), "vllm")


def request(*, completions: bool = False, **fields: object) -> InferenceRequest:
    asked = {"prompt": "go"} if completions else {"messages": [{"role": "user", "content": "go"}]}
    body = {"model": "m", "stream": True, **asked, **fields}
    return parse(COMPLETIONS if completions else CHAT, json.dumps(body).encode())


def event(chunk: object, *, spaced: bool = False, ascii: bool = True) -> bytes:
    separators = None if spaced else (",", ":")
    data = json.dumps(chunk, separators=separators, ensure_ascii=ascii)
    return b"data: %b\n\n" % data.encode("utf-8", "surrogatepass")


def said(text: str | None, *, finish: str | None = None, **delta: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text, **delta}, "finish_reason": finish}
    return {"id": "c-1", "created": 5, "model": "m", "choices": [choice]}


@given(st.lists(st.tuples(st.text(), st.booleans(), st.booleans(), st.booleans())), st.booleans())
def test_the_text_is_what_the_events_said_however_it_was_written(
    pieces: list[tuple[str, bool, bool, bool]], completions: bool
) -> None:
    shown = transcript(completions=completions)
    for text, spaced, ascii, first in pieces:
        part = {"text": text} if completions else {"delta": {"content": text}}
        choice = {"finish_reason": None, **part} if first else {**part, "finish_reason": None}
        shown.see(event({"choices": [choice], "id": "c-1"}, spaced=spaced, ascii=ascii))
    assert shown.text() == "".join(piece[0] for piece in pieces)
    assert shown.why_not == ""


def test_halves_of_a_character_become_whole_and_half_a_one_is_not_gone_on_with() -> None:
    for spaced in (False, True):
        shown = transcript()
        shown.see(event(said("a")))
        shown.see(event(said("\ud83d"), spaced=spaced))
        shown.lost(Usage())
        assert shown.refusal("vllm") == "the text so far ends inside a character"
        shown.see(event(said("\ude00"), spaced=spaced))
        assert shown.text() == "a😀"
        assert shown.refusal("vllm") == ""


@pytest.mark.parametrize(
    ("delta", "why"),
    [
        ({"reasoning_content": "hm"}, "the answer has reasoning_content"),
        ({"tool_calls": [{"index": 0}]}, "the answer has tool_calls"),
        ({"tool_calls": [], "reasoning": None, "refusal": ""}, ""),
    ],
)
def test_an_answer_that_is_more_than_text_is_not_gone_on_with(delta: dict[str, object], why: str) -> None:
    shown = transcript()
    shown.see(event(said("a")))
    shown.see(event(said("b", **delta)))
    shown.see(event(said("c")))
    assert shown.refusal("vllm") == why
    assert shown.ending() == b""


@pytest.mark.parametrize(
    "odd",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: " + b"[" * 5000 + b"\n\n",
        b'data: {"error":{"message":"x"},"choices":[]}\n\n',
        b'data: {"choices":null}\n\n',
    ],
)
def test_what_is_no_part_of_an_answer_ends_what_is_known(odd: bytes) -> None:
    shown = transcript()
    shown.see(odd)
    assert shown.refusal("vllm") == "the engine sent what is no part of an answer"


def test_logprobs_that_came_unasked_are_noticed() -> None:
    shown = transcript()
    shown.see(event({"choices": [7, {"delta": {"content": "a"}, "logprobs": {"content": []}}]}))
    assert shown.refusal("vllm") == "the answer has logprobs"


def test_comments_are_no_part_of_the_answer() -> None:
    shown = transcript()
    shown.see(b": still here\n\n")
    shown.see(b"retry: 5\n\n")
    shown.see(event(said("a")))
    assert (shown.why_not, shown.text()) == ("", "a")


def test_a_client_s_own_reason_and_an_edge_s_stay() -> None:
    shown = transcript(n=2)
    shown.see(event(said("a")))
    shown.see(event(said("b")))
    shown.lose("an event too long to be looked at")
    assert shown.refusal("vllm") == "n above 1"
    shown = transcript()
    shown.lose("an event too long to be looked at")
    assert shown.refusal("vllm") == "an event too long to be looked at"


def test_no_more_text_is_held_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXT", 10)
    shown = transcript()
    for _ in range(3):
        shown.see(event(said("12345")))
    assert shown.refusal("vllm") == "an answer of more than 10 bytes"
    assert shown.text() == ""


def test_an_engine_that_is_not_known_to_go_on_with_a_chat_is_not_asked_to() -> None:
    shown = transcript()
    shown.see(event(said("a")))
    shown.lost(Usage(1, 1))
    assert "other" in shown.refusal("other")
    assert shown.refusal("llamacpp") == shown.refusal("simulator") == ""
    prompted = transcript(completions=True, max_tokens=5)
    prompted.see(event({"choices": [{"text": "a", "finish_reason": None}]}))
    prompted.lost(Usage(1, 1))
    assert prompted.refusal("other") == ""


def test_a_limit_without_counts_cannot_be_kept() -> None:
    shown = transcript(max_tokens=9)
    shown.see(event(said("a")))
    shown.lost(Usage())
    assert shown.refusal("vllm") == "it is not known how many tokens are left"


def test_counts_are_added_up_once() -> None:
    shown = transcript()
    shown.see(event(said("a")))
    assert shown.total(Usage(5, 2, 1)) == Usage(5, 2, 1)
    shown.lost(Usage(5, 2, 1))
    assert shown.total(Usage()) == Usage(5, 2, 1)
    assert shown.total(Usage(7, 3, 6)) == Usage(5, 5, 1)
    shown.lost(Usage(7, 3, 6))
    assert shown.total(Usage(10, 1, None)) == Usage(5, 6, 1)
    silent = transcript()
    silent.see(event(said("a")))
    silent.given = Usage(None, None, 2)
    assert silent.total(Usage(7, 3, 6)) == Usage(7, 3, 6), "the first worker said nothing"


# Answers that were complete already.


def test_an_answer_whose_finish_was_shown_is_only_closed() -> None:
    shown = transcript(stream_options={"include_usage": True}, tools=[{"type": "function"}])
    shown.see(event(said("a")))
    shown.see(event(said("", finish="stop")))
    shown.lost(Usage(5, 2, 1))
    counts, end = shown.ending().split(b"\n\n", 1)
    assert json.loads(counts[6:])["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert json.loads(counts[6:])["id"] == "c-1"
    assert end == DONE
    shown.see(event({"choices": [], "usage": {"prompt_tokens": 5}}))
    assert shown.ending() == DONE
    shown.see(DONE)
    assert shown.done
    assert shown.ending() == b""


@pytest.mark.parametrize("completions", [False, True])
def test_an_answer_as_long_as_was_asked_for_is_complete(completions: bool) -> None:
    shown = transcript(completions=completions, max_tokens=2)
    part = {"text": "a"} if completions else {"delta": {"content": "a"}}
    shown.see(event({"choices": [{**part, "finish_reason": None}]}))
    shown.lost(Usage(5, 1, None))
    assert shown.ending() == b""
    shown.lost(Usage(6, 1, None))
    last, end = shown.ending().split(b"\n\n", 1)
    assert json.loads(last[6:])["choices"][0]["finish_reason"] == "length"
    assert end == DONE


def test_a_completion_has_sixteen_tokens_when_nobody_said_how_many_unless_it_is_llamacpp_s() -> None:
    assert transcript(completions=True).most == 16
    assert Transcript(request(completions=True), "llamacpp").most is None
    assert transcript().most is None


def test_of_several_answers_nobody_knows_whether_all_are_complete() -> None:
    shown = transcript(n=2)
    shown.see(event(said("a", finish="stop")))
    assert shown.ending() == b""
    assert transcript().ending() == b""


def test_other_endpoints_are_not_read() -> None:
    sent = parse(ENDPOINTS["/v1/responses"], b'{"model":"m","input":"x","stream":true}')
    shown = Transcript(sent, "vllm")
    shown.see(b"data: {\n\n")
    assert shown.why_not == sent.continuable != ""
