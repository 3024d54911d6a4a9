"""The official OpenAI client against a whole mesh with a real model."""

import asyncio

import openai
import pytest

from tests.fault.harness import MODEL, Mesh, eventually

pytestmark = pytest.mark.real

QUESTION = [{"role": "user", "content": "What is 7 times 8?"}]


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
