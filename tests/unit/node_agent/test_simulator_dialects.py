"""The simulator's other dialects: responses, messages, embeddings, ranks, scores, tokens, audio."""

import base64
import json
import struct
from typing import Any

import pytest

from tests.fakes.simulator import World

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello there"}]


def test_responses_whole_and_as_events() -> None:
    world = World()
    question = {"input": "hello", "instructions": "be brief"}
    whole = world.answer("/v1/responses", question).json
    text = whole["output"][0]["content"][0]["text"]
    assert (whole["object"], whole["status"]) == ("response", "completed")
    assert whole["usage"]["output_tokens"] == len(text.split())
    events = world.answer("/v1/responses", {**question, "stream": True}).events
    kinds = list(dict.fromkeys(event["type"].removeprefix("response.") for event in events))
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == text
    assert events[-1]["response"]["usage"] | {"input_tokens_details": {}} == whole["usage"] | {
        "input_tokens_details": {}
    }
    assert world.answer("/v1/responses", {**question, "max_output_tokens": 2}).json["status"] == "incomplete"
    wanted = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    parts = world.answer("/v1/responses", {"input": HELLO, "text": wanted}).json["output"][0]["content"]
    assert parts[0]["text"] == "{}"


def test_no_response_is_stored() -> None:
    world = World()
    for answer in (
        world.answer("/v1/responses/resp_1"),
        world.answer("/v1/responses/resp_1/cancel", {}),
        world.answer("/v1/responses", {"input": "x", "previous_response_id": "resp_1"}),
    ):
        assert answer.status == 404
        assert "resp_1" in answer.json["error"]["message"]


def test_messages_whole_and_as_events() -> None:
    world = World()
    question: dict[str, object] = {"messages": HELLO, "system": "be brief", "max_tokens": 100}
    whole = world.answer("/v1/messages", question).json
    text = whole["content"][0]["text"]
    assert (whole["type"], whole["stop_reason"]) == ("message", "end_turn")
    assert whole["usage"]["output_tokens"] == len(text.split())
    events = world.answer("/v1/messages", {**question, "stream": True}).events
    assert list(dict.fromkeys(event["type"] for event in events)) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(deltas) == text
    assert events[-2]["usage"]["output_tokens"] == len(deltas)
    assert events[0]["message"]["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    begun = "".join(deltas[:5])
    longer = {**question, "messages": [*HELLO, {"role": "assistant", "content": begun}]}
    assert begun + world.answer("/v1/messages", longer).json["content"][0]["text"] == text


def test_messages_end_for_a_reason_and_call_tools() -> None:
    world = World()
    question: dict[str, object] = {"messages": HELLO, "max_tokens": 2}
    assert world.answer("/v1/messages", question).json["stop_reason"] == "max_tokens"
    stopped = world.answer("/v1/messages", {**question, "max_tokens": 50, "stop_sequences": [" "]}).json
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", " ")
    tool = {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    for choice in ({"type": "any"}, {"type": "tool", "name": "f"}):
        asked = {**question, "max_tokens": 50, "tools": [tool], "tool_choice": choice}
        whole = world.answer("/v1/messages", asked).json
        assert (whole["stop_reason"], set(whole["content"][0]["input"])) == ("tool_use", {"a"})
        events = world.answer("/v1/messages", {**asked, "stream": True}).events
        parts = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
        assert json.loads("".join(parts)) == whole["content"][0]["input"]
    error = world.answer("/v1/messages", {**question, "tool_choice": {"type": "tool", "name": "g"}})
    assert (error.status, error.json["type"]) == (400, "error")


def test_embeddings_are_unit_vectors_and_texts_that_share_words_are_near() -> None:
    world = World()
    answer = world.answer("/v1/embeddings", {"input": ["a b c", "a b d", "x y z"]}).json
    near, other, far = (row["embedding"] for row in answer["data"])
    assert sum(value * value for value in near) == pytest.approx(1)
    dot = [sum(x * y for x, y in zip(near, one, strict=True)) for one in (other, far)]
    assert dot[0] > 0.4 > dot[1]
    assert answer["usage"]["prompt_tokens"] == 9
    packed = world.answer("/v1/embeddings", {"input": "a b c", "encoding_format": "base64"}).json
    floats = struct.unpack("<64f", base64.b64decode(packed["data"][0]["embedding"]))
    assert floats == pytest.approx(near)
    assert (
        len(world.answer("/v1/embeddings", {"input": "a", "dimensions": 100}).json["data"][0]["embedding"]) == 100
    )
    for wrong in ({"dimensions": 0}, {"encoding_format": "hex"}, {"input": 3}):
        assert world.answer("/v1/embeddings", {"input": "a", **wrong}).status == 400
    assert world.answer("/pooling", {"messages": HELLO}).json["data"][0]["object"] == "pooling"


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked_by_likeness(path: str) -> None:
    world = World()
    answer = world.answer(path, {"query": "red fox", "documents": ["blue sky", "red fox", "red"], "top_n": 2}).json
    assert [row["index"] for row in answer["results"]] == [1, 2]
    assert answer["results"][0]["relevance_score"] == pytest.approx(1)
    assert world.answer(path, {"query": "x", "documents": []}).status == 400


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_pairs_are_scored(path: str) -> None:
    world = World()
    rows = world.answer(path, {"text_1": "a", "text_2": ["a", "b"]}).json["data"]
    assert rows[0]["score"] == pytest.approx(1)
    assert rows[1]["score"] < 1
    assert world.answer(path, {"text_1": ["a", "b"], "text_2": ["a"]}).status == 400
    assert world.answer(path, {"text_1": "a"}).status == 400


def test_texts_are_classified() -> None:
    (row,) = World().answer("/classify", {"input": "a"}).json["data"]
    assert sum(row["probs"]) == pytest.approx(1)


def test_tokens_become_numbers_and_back() -> None:
    world = World()
    answer = world.answer("/tokenize", {"prompt": "amber hello  東京", "return_token_strs": True}).json
    assert answer["count"] == 3
    assert answer["token_strs"] == ["amber", "hello", "東京"]
    assert world.answer("/detokenize", {"tokens": answer["tokens"]}).json == {"prompt": "amber hello 東京"}
    talk = world.answer("/tokenize", {"messages": HELLO}).json
    assert (
        talk["count"] == world.answer("/v1/chat/completions", {"messages": HELLO}).json["usage"]["prompt_tokens"]
    )
    assert world.answer("/detokenize", {"tokens": "x"}).status == 400


def test_a_sound_is_transcribed_into_its_size_and_checksum() -> None:
    world = World()
    parts = '--xx\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
    form = parts.format("model", "", "tiny") + parts.format("file", '; filename="a.wav"', "sound")
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
        answer = world.answer(
            path, f"{form}--xx--\r\n".encode(), content_type='multipart/form-data; boundary="xx"'
        )
        assert answer.json["text"].startswith("A file of 5 octets whose checksum begins with ")
    for kind in ("stream", "response_format"):
        value = "true" if kind == "stream" else "text"
        longer = f"{form}{parts.format(kind, '', value)}--xx--\r\n".encode()
        answer = world.answer("/v1/audio/transcriptions", longer, content_type="multipart/form-data; boundary=xx")
        assert b"octets" in answer.body
    assert world.answer("/v1/audio/transcriptions", {"model": "tiny"}).status == 400
    empty = b"--xx--\r\n"
    assert (
        world.answer("/v1/audio/transcriptions", empty, content_type="multipart/form-data; boundary=xx").status
        == 400
    )
