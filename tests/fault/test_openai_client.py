"""The official OpenAI client against a whole mesh with a real model."""

import asyncio
import json

import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam

from tests.fault.harness import MODEL, Mesh, eventually

pytestmark = pytest.mark.real

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is 7 times 8?"}]
LONG: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Write a very long story about the sea."}]
TOOLS: list[ChatCompletionFunctionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def client(mesh: Mesh, key: str | None = None) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=mesh.endpoint, api_key=key or mesh.key, max_retries=0, timeout=60)


async def test_models_are_listed(mesh: Mesh) -> None:
    async with client(mesh) as api:
        assert [model.id for model in (await api.models.list()).data] == [MODEL]
        assert (await api.models.retrieve(MODEL)).id == MODEL


async def test_a_chat_is_answered_with_usage(mesh: Mesh) -> None:
    async with client(mesh) as api:
        answer = await api.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=64, temperature=0)
    assert "56" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 64
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream_comes_token_by_token_with_usage_for_who_asks(mesh: Mesh) -> None:
    async with client(mesh) as api:
        chunks = [
            chunk
            async for chunk in await api.chat.completions.create(
                model=MODEL,
                messages=QUESTION,
                max_tokens=64,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
    assert "56" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(chunks) > 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_usage_is_not_told_to_who_did_not_ask(mesh: Mesh) -> None:
    async with client(mesh) as api:
        chunks = [
            chunk
            async for chunk in await api.chat.completions.create(
                model=MODEL, messages=QUESTION, max_tokens=4, stream=True
            )
        ]
    assert all(chunk.choices for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks)
    assert all("timings" not in (chunk.model_extra or {}) for chunk in chunks)


async def test_a_client_that_leaves_stops_the_engine_and_is_billed_for_what_it_got(mesh: Mesh) -> None:
    async with client(mesh) as api:
        stream = await api.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=1500, temperature=0.9, stream=True
        )
        got = 0
        async for _ in stream:
            got += 1
            if got == 10:
                break
        request_id = stream.response.headers["x-request-id"]
        await stream.close()
    row = (await mesh.usage_rows({request_id}))[request_id]
    assert row["outcome"] == "cancelled"
    assert row["prompt_tokens"] > 0
    assert 8 <= row["completion_tokens"] < 1000


async def test_a_wrong_key_is_refused(mesh: Mesh) -> None:
    for key in ("wrong", mesh.key[:-1] + ("a" if mesh.key[-1] != "a" else "b")):
        async with client(mesh, key) as api:
            with pytest.raises(openai.AuthenticationError) as caught:
                await api.chat.completions.create(model=MODEL, messages=QUESTION)
        assert caught.value.code == "invalid_api_key"


async def test_an_unknown_model_is_not_found(mesh: Mesh) -> None:
    async with client(mesh) as api:
        with pytest.raises(openai.NotFoundError) as caught:
            await api.chat.completions.create(model="no-such-model", messages=QUESTION)
    assert caught.value.code == "model_not_found"


async def test_a_bad_field_is_named(mesh: Mesh) -> None:
    async with client(mesh) as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await api.chat.completions.create(model=MODEL, messages=[])
    assert caught.value.param == "messages"


async def test_completions_are_answered_whole_and_as_a_stream(mesh: Mesh) -> None:
    async with client(mesh) as api:
        whole = await api.completions.create(model=MODEL, prompt="The sea is", max_tokens=8, temperature=0)
        both = await api.completions.create(model=MODEL, prompt=["The sea is", "The sky is"], max_tokens=2)
        stream = await api.completions.create(
            model=MODEL,
            prompt="The sea is",
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].text
    assert [choice.index for choice in both.choices] == [0, 1]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    for usage in (whole.usage, chunks[-1].usage):
        assert usage is not None
        assert usage.completion_tokens == 8


async def test_responses_are_answered_whole_and_as_a_stream(mesh: Mesh) -> None:
    async with client(mesh) as api:
        whole = await api.responses.create(model=MODEL, input="What is 7 times 8?", max_output_tokens=8)
        stream = await api.responses.create(
            model=MODEL, input="What is 7 times 8?", max_output_tokens=8, temperature=0, stream=True
        )
        events = [event async for event in stream]
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens == 8
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert "response.output_text.delta" in {event.type for event in events}


async def test_what_the_engine_does_not_have_is_an_error_with_the_engines_words(mesh: Mesh) -> None:
    async with client(mesh) as api:
        with pytest.raises(openai.InternalServerError) as caught:
            await api.embeddings.create(model=MODEL, input="the sea")
    assert caught.value.status_code == 501
    assert "embeddings" in caught.value.message


async def test_a_path_that_nobody_has_is_not_found(mesh: Mesh) -> None:
    async with client(mesh) as api:
        with pytest.raises(openai.NotFoundError) as caught:
            await api.images.generate(model=MODEL, prompt="the sea")
    assert caught.value.code == "unknown_url"


async def test_a_turn_with_a_tools_result_is_read(mesh: Mesh) -> None:
    """Whether so small a model calls a tool is its own affair."""
    ask: ChatCompletionMessageParam = {"role": "user", "content": "Weather in Paris?"}
    turn: list[ChatCompletionMessageParam] = [
        ask,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    async with client(mesh) as api:
        bare = await api.chat.completions.create(model=MODEL, messages=[ask], max_tokens=1)
        told = await api.chat.completions.create(model=MODEL, messages=turn, tools=TOOLS, max_tokens=1)
    assert bare.usage is not None
    assert told.usage is not None
    assert told.usage.prompt_tokens > bare.usage.prompt_tokens


async def test_a_schema_binds_the_answer(mesh: Mesh) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "boolean"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    async with client(mesh) as api:
        answer = await api.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            max_tokens=64,
            temperature=0,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            },
        )
    assert json.loads(answer.choices[0].message.content or "")["answer"] in (True, False)


async def test_logprobs_come_whole_and_in_a_stream(mesh: Mesh) -> None:
    async with client(mesh) as api:
        whole = await api.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
        )
        stream = await api.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2, stream=True
        )
        streamed = [chunk.choices[0].logprobs async for chunk in stream]
    assert whole.choices[0].logprobs is not None
    tokens = whole.choices[0].logprobs.content or []
    assert [len(token.top_logprobs) for token in tokens] == [2, 2, 2]
    told = [token.token for one in streamed if one is not None for token in one.content or []]
    assert told == [token.token for token in tokens]


async def test_a_clients_own_timeout_ends_its_request_and_no_other(mesh: Mesh) -> None:
    async with client(mesh) as api:
        with pytest.raises(openai.APITimeoutError):
            await api.with_options(timeout=0.2).chat.completions.create(
                model=MODEL, messages=LONG, max_tokens=1500, temperature=1
            )
        after = await api.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2)
    assert after.choices[0].finish_reason == "length"


async def test_a_prompt_longer_than_the_context_is_the_clients_fault(mesh: Mesh) -> None:
    async with client(mesh) as api:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as caught:
                await api.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "word " * 9000}], stream=stream
                )
            assert "context" in caught.value.message


async def test_a_wait_beyond_the_longest_is_refused(mesh: Mesh) -> None:
    async with client(mesh) as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await api.chat.completions.create(
                model=MODEL, messages=QUESTION, extra_headers={"X-Inventiv-Max-Wait": "99999"}
            )
    assert caught.value.param == "x-inventiv-max-wait"


async def test_200_streams_in_parallel_all_complete(mesh: Mesh) -> None:
    async with client(mesh) as api:

        async def one() -> int:
            stream = await api.chat.completions.create(
                model=MODEL, messages=QUESTION, max_tokens=4, temperature=0, stream=True
            )
            return len([chunk async for chunk in stream])

        counts = await asyncio.gather(*(one() for _ in range(200)))
    assert len(counts) == 200
    assert min(counts) >= 4


async def test_nothing_stays_behind(mesh: Mesh) -> None:
    async with mesh.client() as http:

        async def metric(name: str) -> float:
            root = mesh.endpoint.removesuffix("/v1")
            async with http.get(f"{root}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

        live = 1.0
        for _ in range(100):
            live = await metric("mesh_gateway_live_requests")
            if not live:
                break
            await asyncio.sleep(0.05)
    assert live == 0
    assert await eventually(5, "the engine is alive", lambda: bool(mesh.engine()["pid"]))
