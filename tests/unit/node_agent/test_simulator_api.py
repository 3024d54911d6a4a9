"""The simulator's HTTP: vLLM's paths, shapes, errors and metric names."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.simulator import Wire, World, octets

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello there"}]
# Out of a real vLLM 0.32's /metrics.
VLLM_NAMES = """
    num_requests_running num_requests_waiting num_requests_waiting_by_reason
    kv_cache_usage_perc prefix_cache_queries_total prefix_cache_hits_total
    num_preemptions_total prompt_tokens_total prompt_tokens_by_source_total
    prompt_tokens_cached_total generation_tokens_total request_success_total
    request_prompt_tokens request_generation_tokens time_to_first_token_seconds
    inter_token_latency_seconds request_time_per_output_token_seconds e2e_request_latency_seconds
    request_queue_time_seconds request_inference_time_seconds request_prefill_time_seconds
    request_decode_time_seconds cache_config_info
"""


def chat(**more: object) -> dict[str, object]:
    return {"model": "tiny", "messages": HELLO, **more}


def test_it_says_what_it_is_everywhere() -> None:
    world = World()
    version = world.answer("/version")
    assert version.headers["server"] == "inventiv-mesh simulator"
    assert version.json["version"].startswith("0.32.0")
    assert version.json["simulator"] == "inventiv-mesh simulator"
    assert world.answer("/v1/chat/completions", chat()).json["system_fingerprint"] == "inventiv-mesh simulator"
    assert world.answer("/health").status == world.answer("/ping").status == 200


def test_it_lists_its_model_and_adapters_with_their_parent() -> None:
    world = World(adapters=("a", "b"))
    rows = world.answer("/v1/models").json["data"]
    assert [(row["id"], row["parent"]) for row in rows] == [("tiny", None), ("a", "tiny"), ("b", "tiny")]
    assert world.answer("/v1/models/a").json["id"] == "a"
    assert world.answer("/v1/models/c").status == 404
    assert world.answer("/v1/chat/completions", chat(model="b")).json["model"] == "b"


async def test_it_is_unwell_while_it_loads() -> None:
    world = World("loading_ms=2000")
    assert world.answer("/health").status == 503
    await world.clock.forward(2)
    assert world.answer("/health").status == 200


def test_a_chat_is_answered_with_counts() -> None:
    answer = World().answer("/v1/chat/completions", chat(), x_request_id="r-1").json
    (choice,) = answer["choices"]
    assert (answer["id"], answer["object"]) == ("chatcmpl-r-1", "chat.completion")
    assert choice["finish_reason"] == "stop"
    words = len(choice["message"]["content"].split())
    assert answer["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": words,
        "total_tokens": 4 + words,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_budget_ends_it(field: str) -> None:
    answer = World().answer("/v1/chat/completions", chat(**{field: 3})).json
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_stream_says_the_same_token_by_token() -> None:
    world = World()
    whole = world.answer("/v1/chat/completions", chat()).json
    answer = world.answer("/v1/chat/completions", chat(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.whole
    assert answer.text == whole["choices"][0]["message"]["content"]
    first, *tokens, last, done = answer.events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(tokens) == whole["usage"]["completion_tokens"]
    assert (last["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
    assert not any("usage" in event for event in (first, *tokens, last))
    assert len({event["id"] for event in (first, *tokens, last)}) == 1


def test_counts_come_at_the_end_of_a_stream_or_all_along_when_asked() -> None:
    world = World()
    *events, last, _ = world.answer(
        "/v1/chat/completions", chat(stream=True, max_tokens=3, stream_options={"include_usage": True})
    ).events
    assert last["choices"] == []
    assert (last["usage"]["completion_tokens"], last["usage"]["prompt_tokens"]) == (3, 4)
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    asked = {"include_usage": True, "continuous_usage_stats": True}
    *events, last, _ = world.answer(
        "/v1/chat/completions", chat(stream=True, max_tokens=3, stream_options=asked)
    ).events
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 2, 3]


@given(st.integers(0, 60), st.booleans(), st.integers(0, 5))
@settings(max_examples=40)
def test_a_chat_cut_anywhere_is_continued_to_the_letter_by_any_other(at: int, stream: bool, seed: int) -> None:
    whole = World(f"seed={seed}").answer("/v1/chat/completions", chat()).json["choices"][0]["message"]["content"]
    begun = whole[: [0, *(i for i, c in enumerate(whole) if c == " "), len(whole)][: at + 1][-1]]
    question = chat(
        messages=[*HELLO, {"role": "assistant", "content": begun}],
        continue_final_message=True,
        add_generation_prompt=False,
        stream=stream,
    )
    answer = World(f"seed={seed}").answer("/v1/chat/completions", question)
    rest = answer.text if stream else answer.json["choices"][0]["message"]["content"]
    assert begun + rest == whole


def test_an_answer_cannot_be_both_begun_anew_and_continued() -> None:
    answer = World().answer("/v1/chat/completions", chat(continue_final_message=True))
    assert answer.status == 400
    assert "add_generation_prompt" in answer.json["error"]["message"]


def test_several_choices_differ_and_each_ends() -> None:
    world = World()
    choices = world.answer("/v1/chat/completions", chat(n=3)).json["choices"]
    assert len({choice["message"]["content"] for choice in choices}) == 3
    events = world.answer("/v1/chat/completions", chat(n=3, stream=True)).events[:-1]
    for choice in choices:
        mine = [event["choices"][0] for event in events if event["choices"][0]["index"] == choice["index"]]
        assert "".join(one["delta"]["content"] for one in mine) == choice["message"]["content"]
        assert mine[-1]["finish_reason"] == "stop"


def test_stop_strings_and_logprobs() -> None:
    world = World()
    whole = world.answer("/v1/chat/completions", chat()).json["choices"][0]["message"]["content"]
    stop = whole.split()[2]
    (choice,) = world.answer("/v1/chat/completions", chat(stop=stop, logprobs=True)).json["choices"]
    assert choice["message"]["content"] == whole.partition(stop)[0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert len(choice["logprobs"]["content"]) == len((whole.partition(stop)[0] + stop).split())
    events = world.answer("/v1/chat/completions", chat(stop=[stop], logprobs=True, stream=True)).events
    assert events[-2]["choices"][0]["stop_reason"] == stop
    assert events[1]["choices"][0]["logprobs"]["content"][0]["token"] == whole.split()[0]


def test_a_json_object_is_answered_when_asked_for() -> None:
    world = World()
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "array"}}}
    for wanted in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": schema}}):
        answer = world.answer("/v1/chat/completions", chat(response_format=wanted)).json
        assert isinstance(json.loads(answer["choices"][0]["message"]["content"]), dict)
        assert (
            world.answer("/v1/chat/completions", chat(response_format=wanted, stream=True)).text
            == (answer["choices"][0]["message"]["content"])
        )
    assert world.answer("/v1/chat/completions", chat(response_format={"type": "text"})).status == 200
    assert world.answer("/v1/chat/completions", chat(response_format={"type": "xml"})).status == 400


TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_is_called_when_the_request_insists(choice: object) -> None:
    world = World()
    question = chat(tools=[{"type": "function", "function": TOOL}], tool_choice=choice)
    (one,) = world.answer("/v1/chat/completions", question).json["choices"]
    (call,) = one["message"]["tool_calls"]
    assert (one["finish_reason"], call["function"]["name"]) == ("tool_calls", "weather")
    assert set(json.loads(call["function"]["arguments"])) == {"town"}
    events = world.answer("/v1/chat/completions", {**question, "stream": True}).events[:-1]
    deltas = [event["choices"][0]["delta"] for event in events]
    parts = [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if delta.get("tool_calls")]
    assert "".join(parts) == call["function"]["arguments"]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_no_tool_is_called_otherwise_and_a_missing_one_is_named() -> None:
    world = World()
    tools = [{"type": "function", "function": TOOL}]
    assert world.answer("/v1/chat/completions", chat(tools=tools)).json["choices"][0]["message"]["content"]
    named = {"type": "function", "function": {"name": "other"}}
    assert world.answer("/v1/chat/completions", chat(tools=tools, tool_choice=named)).status == 400
    assert world.answer("/v1/chat/completions", chat(tool_choice="required")).status == 400


def test_completions_whole_streamed_and_continued() -> None:
    world = World()
    question: dict[str, object] = {"prompt": "Once upon", "max_tokens": 12}
    whole = world.answer("/v1/completions", question).json
    text = whole["choices"][0]["text"]
    assert (whole["object"], whole["usage"]["completion_tokens"]) == ("text_completion", 12)
    streamed = world.answer("/v1/completions", {**question, "stream": True, "logprobs": 1})
    assert streamed.text == text
    assert streamed.events[-2]["choices"][0]["finish_reason"] == "length"
    half = " ".join(text.split(" ")[:6])
    rest = world.answer("/v1/completions", {"prompt": "Once upon" + half, "max_tokens": 7}).json
    assert half + rest["choices"][0]["text"] == text
    assert world.answer("/v1/completions", {"prompt": "x"}).json["usage"]["completion_tokens"] == 16


def test_completions_of_several_prompts_of_token_ids_and_with_echo() -> None:
    world = World()
    answer = world.answer("/v1/completions", {"prompt": ["a", "b"], "n": 2, "echo": True, "logprobs": 1}).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["choices"][3]["text"].startswith("b ")
    for prompt in ([1, 2], [[1], [2]]):
        assert world.answer("/v1/completions", {"prompt": prompt}).status == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "other", "messages": HELLO}, 404, "The model `other` does not exist."),
        ({"model": "tiny"}, 400, "messages: field required"),
        ({"messages": []}, 400, "at least one message"),
        ({"messages": ["x"]}, 400, "an object with a role"),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "a string or a list of parts"),
        ({"messages": HELLO, "max_tokens": "x"}, 400, "valid integer"),
        ({"messages": HELLO, "max_tokens": 0}, 400, "at least 1"),
        ({"messages": HELLO, "max_tokens": 1000}, 400, "maximum context length is 100 tokens"),
        ({"messages": HELLO, "n": 0}, 400, "n must be between"),
        ({"messages": HELLO, "n": True}, 400, "not of the right type"),
        ({"messages": HELLO, "stop": 3}, 400, "a string or a list of strings"),
        ({"messages": HELLO, "stream": "yes"}, 400, "not of the right type"),
        ({"messages": HELLO, "simulator_fault": "crash"}, 400, "'crash' is not known"),
        ([], 400, "valid dictionary"),
        (b"{", 400, "JSON decode error"),
        (b"\xff", 400, "JSON decode error"),
        (b"[" * 100_000, 400, "JSON decode error"),
    ],
)
def test_errors_have_vllms_shape(body: object, status: int, said: str) -> None:
    answer = World(context=100).answer("/v1/chat/completions", body)
    assert answer.status == status
    error = answer.json["error"]
    assert said in error["message"]
    assert (error["code"], error["type"]) == (status, {400: "BadRequestError", 404: "NotFoundError"}[status])


def test_an_answer_ends_where_the_context_does() -> None:
    answer = World(context=10).answer("/v1/chat/completions", chat()).json
    assert answer["usage"]["total_tokens"] == 10
    assert answer["choices"][0]["finish_reason"] == "length"


def test_other_paths_and_methods_are_refused() -> None:
    world = World()
    assert world.answer("/v1/nothing").status == 404
    assert world.answer("/v1/chat/completions").status == 405
    assert world.answer("/health", {}).status == 404


def test_pictures_and_earlier_tool_calls_are_part_of_the_conversation() -> None:
    world = World()
    told = []
    for url in ("data:a", "data:b"):
        parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}, "x"]
        messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": [{}]}]
        told.append(world.answer("/v1/chat/completions", chat(messages=messages)).json["choices"][0]["message"])
    assert told[0] != told[1]


def test_metrics_have_vllms_names_and_count() -> None:
    world = World("ttft_ms=10,token_ms=1", slots=1)
    asked = [world.ask("/v1/chat/completions", chat(max_tokens=5, stream=True)) for _ in range(3)]
    assert world.metric("vllm:num_requests_running") == 1
    assert world.metric("vllm:num_requests_waiting") == 2
    assert world.metric("vllm:kv_cache_usage_perc") > 0
    asked[0].leave()
    world.timer.forward(10)
    text = world.answer("/metrics").body.decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    ours = {name for name in names if name.startswith("simulator:")}
    assert names - ours == {f"vllm:{name}" for name in VLLM_NAMES.split()}
    assert world.metric("vllm:generation_tokens_total") == 10
    assert world.metric("vllm:prompt_tokens_total") == 12
    assert world.metric("vllm:time_to_first_token_seconds_count") == 2
    assert world.metric("vllm:inter_token_latency_seconds_sum") == pytest.approx(0.008)
    assert world.metric("simulator:aborted_requests_total") == 1
    assert 'vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 2.0' in text
    assert 'vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 0.0' in text
    assert 'vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="tiny"} 2.0' in text


def test_a_known_beginning_is_told_in_the_counts() -> None:
    world = World()
    long = [{"role": "user", "content": "word " * 40}]
    world.answer("/v1/chat/completions", chat(messages=long))
    again = world.answer("/v1/chat/completions", chat(messages=long)).json
    assert again["usage"]["prompt_tokens_details"] == {"cached_tokens": 32}
    assert world.metric("vllm:prefix_cache_hits_total") == 32


def test_requests_on_one_connection_are_answered_in_order() -> None:
    world = World("ttft_ms=10")
    wire = Wire(world.simulator)
    one = octets("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
    wire.send(one[:20])
    wire.send(one[20:] + octets("GET", "/health"))
    assert wire.octets == b""
    world.timer.forward(1)
    assert wire.octets.count(b"HTTP/1.1 200 OK") == 2
    assert not wire.closed
    wire.send(octets("GET", "/health", headers={"connection": "close"}))
    assert wire.closed


@pytest.mark.parametrize(
    "nonsense",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000,
        octets("POST", "/v1/completions", {"prompt": "a"}) * 30,
    ],
)
def test_who_does_not_keep_to_the_protocol_is_cut_off(nonsense: bytes) -> None:
    wire = Wire(World("ttft_ms=10").simulator)
    wire.send(nonsense)
    assert wire.closed
    assert b"400 Bad Request" in wire.octets


def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    wire = Wire(World().simulator)
    wire.send(b"POST /tokenize HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 14\r\n\r\n")
    assert wire.octets == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(b'{"prompt":"a"}')
    assert b"200 OK" in wire.octets


def test_while_it_drains_a_connection_ends_with_its_answer() -> None:
    wire = Wire(World().simulator, draining=True)
    wire.send(octets("GET", "/health"))
    assert wire.answer().whole
    assert wire.closed
