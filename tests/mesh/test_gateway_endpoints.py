"""Every endpoint through a whole gateway: what the engine gets, what the client gets, what is recorded."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.wire.stream import Stream
from tests.mesh.gateway_engines import Engine, body_of, respond
from tests.mesh.gateway_harness import ORGANIZATION, PEPPER, Site, chat, model, node, route, site, until

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    models = (
        model(
            route("w-1"),
            aliases=["nick"],
            pass_through=["/v1/audio/speech"],
            price=pb.Price(prompt=2_000_000, cached=1_000_000, completion=10_000_000),
        ),
        model(route("w-1"), name="adapter", engine_name="adapter-7", base_model="m"),
        model(route("w-1"), name="org/code"),
    )
    async with site(tmp_path, *models) as found:
        yield found


def echo(answer: bytes, seen: list[tuple[str, bytes, str]], *, kind: str = "application/json") -> Engine:
    """An engine that keeps path, body and content type, and says that."""

    async def say(stream: Stream) -> None:
        headers = {one.name: one.value for one in stream.request.headers}
        seen.append((stream.request.path, await body_of(stream), headers["content-type"]))
        respond(stream, kind=kind)
        await stream.write(answer)
        stream.end()

    return say


async def post(one: Site, path: str, body: object, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    shown = {**one.headers, "Content-Type": "application/json", **headers}
    async with one.client.post(f"{one.url}{path}", data=data, headers=shown) as answer:
        return answer.status, await answer.read(), dict(answer.headers)


@pytest.mark.parametrize(
    ("path", "body", "endpoint"),
    [
        ("/v1/completions", {"prompt": "once"}, "completions"),
        ("/v1/embeddings", {"input": ["a", "b"]}, "embeddings"),
        ("/v1/rerank", {"query": "q", "documents": ["a"]}, "rerank"),
        ("/v2/rerank", {"query": "q", "documents": ["a"]}, "rerank"),
        ("/rerank", {"query": "q", "documents": ["a"]}, "rerank"),
        ("/v1/score", {"text_1": "a", "text_2": "b"}, "score"),
        ("/score", {"text_1": "a", "text_2": "b"}, "score"),
    ],
)
async def test_an_endpoint_passes_byte_for_byte_and_is_counted(
    one: Site, path: str, body: dict[str, Any], endpoint: str
) -> None:
    seen: list[tuple[str, bytes, str]] = []
    said = json.dumps({"data": [], "usage": USAGE}).encode()
    sent = json.dumps({"model": "m", "surprise": {"kept": 1.50}, **body}).encode()
    async with node(one, echo(said, seen)):
        assert (await post(one, path, sent))[:2] == (200, said)
        record = await one.record()
    assert seen == [(path, sent, "application/json")]
    assert (record.endpoint, record.prompt_tokens, record.completion_tokens) == (endpoint, 7, 2)
    assert (record.charged_tokens, record.charged_money) == (9, 7 * 2 + 2 * 10)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/messages/count_tokens"])
async def test_tokenizing_costs_nothing(one: Site, path: str) -> None:
    asked = {"model": "m", "prompt": "x", "tokens": [1], "messages": [{"role": "user", "content": "x"}]}
    async with node(one, echo(b'{"tokens":[1,2]}', [])):
        assert (await post(one, path, asked))[0] == 200
        record = await one.record()
    assert (record.endpoint, record.reserved_tokens, record.charged_tokens) == ("tokenize", 0, 0)


async def test_responses_are_counted_by_their_own_names(one: Site) -> None:
    usage = {"input_tokens": 5, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 4}}
    said = json.dumps({"id": "r", "object": "response", "usage": usage}).encode()
    async with node(one, echo(said, [])):
        assert (await post(one, "/v1/responses", {"model": "m", "input": "hi"}))[:2] == (200, said)
        record = await one.record()
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (5, 3, 4)
    assert record.charged_money == 1 * 2 + 4 * 1 + 3 * 10


async def test_a_stream_of_responses_passes_as_it_is_and_ends_without_done(one: Site) -> None:
    events = (
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n'
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n'
        b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r",'
        b'"usage":{"input_tokens":5,"output_tokens":3}}}\n\n'
    )
    async with node(one, echo(events, [], kind="text/event-stream")):
        got = await post(one, "/v1/responses", {"model": "m", "input": "hi", "stream": True})
        record = await one.record()
    assert got[:2] == (200, events)
    assert record.outcome == pb.USAGE_OUTCOME_COMPLETED
    assert (record.prompt_tokens, record.completion_tokens) == (5, 3)


async def test_messages_pass_in_anthropics_shape(one: Site) -> None:
    events = (
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":6}}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":2}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with node(one, echo(events, [], kind="text/event-stream")):
        got = await post(one, "/v1/messages", body)
        record = await one.record()
    assert got[:2] == (200, events)
    assert (record.endpoint, record.prompt_tokens, record.completion_tokens) == ("messages", 6, 2)


async def test_a_stream_of_messages_that_breaks_off_ends_with_an_event_that_anthropics_clients_know(
    one: Site,
) -> None:
    begun = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":6}}}\n\n'
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with node(one, echo(begun, [], kind="text/event-stream")):
        status, got, *_ = await post(one, "/v1/messages", body)
        record = await one.record()
    assert status == 200
    assert got.startswith(begun + b"event: error\ndata: {")
    assert json.loads(got.rpartition(b"data: ")[2])["error"]["code"] == "upstream_lost"
    assert record.outcome == pb.USAGE_OUTCOME_FAILED


async def test_a_form_with_a_file_passes_whole(one: Site) -> None:
    seen: list[tuple[str, bytes, str]] = []
    form = aiohttp.FormData()
    form.add_field("model", "m")
    form.add_field("file", bytes(range(256)) * 500, filename="a.wav", content_type="audio/wav")
    url = f"{one.url}/v1/audio/transcriptions"
    async with node(one, echo(b"said", seen, kind="text/plain; charset=utf-8")):
        async with one.client.post(url, data=form, headers=one.headers) as answer:
            assert (answer.status, await answer.read()) == (200, b"said")
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        record = await one.record()
    (path, body, kind) = seen[0]
    assert path == "/v1/audio/transcriptions"
    assert bytes(range(256)) * 500 in body
    assert kind.startswith("multipart/form-data; boundary=")
    assert record.endpoint == "audio"


async def test_a_form_without_its_file_is_refused_by_name(one: Site) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("model", "m")
    url = f"{one.url}/v1/audio/transcriptions"
    async with one.client.post(url, data=form, headers=one.headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "file"


async def test_only_declared_paths_pass_through(one: Site) -> None:
    seen: list[tuple[str, bytes, str]] = []
    async with node(one, echo(b"\x00\x01RIFF", seen, kind="audio/wav")):
        status, body, headers = await post(one, "/v1/audio/speech", {"model": "m", "input": "hi"})
        assert (status, body, headers["Content-Type"]) == (200, b"\x00\x01RIFF", "audio/wav")
        for path, name in (("/v1/audio/speech", "adapter"), ("/v1/fine_tuning", "m"), ("/admin", "m")):
            status, body, _ = await post(one, path, {"model": name, "input": "hi"})
            assert (status, json.loads(body)["error"]["code"]) == (404, "unknown_url")
        assert (await one.record()).endpoint == "pass_through"
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("asked", "told"), [("m", "m"), ("nick", "m"), ("adapter", "adapter-7"), ("org/code", "org/code")]
)
async def test_a_model_is_known_by_its_aliases_and_its_engine_by_its_own_name(
    one: Site, asked: str, told: str
) -> None:
    seen: list[tuple[str, bytes, str]] = []
    async with node(one, echo(b'{"usage":{}}', seen)):
        assert (await post(one, "/v1/chat/completions", chat(asked)))[0] == 200
    assert json.loads(seen[0][1])["model"] in (told, asked if asked == "nick" else told)


async def test_a_key_is_for_its_scopes_and_models_only(one: Site) -> None:
    entry = pb.ApiKey(
        key_id=one.key.id,
        secret_mac=one.key.mac(PEPPER),
        organization_id=ORGANIZATION,
        scopes=["embeddings", "models"],
        allowed_models=["adapter"],
    )
    one.control_plane.push(api_keys=[entry])
    await until(one, "mesh_gateway_snapshot_revision 2.0")
    async with node(one, echo(b'{"usage":{}}', [])):
        status, body, _ = await post(one, "/v1/chat/completions", chat())
        assert (status, json.loads(body)["error"]["code"]) == (403, "scope_missing")
        status, body, _ = await post(one, "/v1/embeddings", {"model": "m", "input": "x"})
        assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
        assert (await post(one, "/v1/embeddings", {"model": "adapter", "input": "x"}))[0] == 200
        async with one.client.get(f"{one.url}/v1/models", headers=one.headers) as answer:
            assert [entry["id"] for entry in (await answer.json())["data"]] == ["adapter"]
