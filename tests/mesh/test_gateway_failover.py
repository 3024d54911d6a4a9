"""Workers that fail while a client watches: who goes on, who is left alone, and who is told what."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.link.frames import ResetCode
from mesh.wire.stream import Stream
from tests.fakes.clock import settle
from tests.mesh.gateway_engines import (
    DONE,
    PLAIN,
    Engine,
    body_of,
    chunk,
    events,
    last_chunk,
    refusing,
    respond,
    talk,
)
from tests.mesh.gateway_harness import (
    ORGANIZATION,
    PEPPER,
    Site,
    ask,
    chat,
    model,
    node,
    route,
    site,
    until,
)

WORDS = [f" word{at}" for at in range(12)]


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway whose model has a worker on each of two nodes, asked in turn."""
    routes = [route(f"w-{at}", node=f"n-{at}") for at in (1, 2)]
    async with site(tmp_path, model(*routes, policy=pb.ROUTING_POLICY_ROUND_ROBIN)) as found:
        yield found


def teller(dies_after: int | None = None, asked: list[dict[str, Any]] | None = None) -> Engine:
    """An engine that says the words from where the conversation ends, and is lost after so many of them."""

    async def tell(stream: Stream) -> None:
        request = json.loads(await body_of(stream))
        if asked is not None:
            asked.append(request)
        last = request["messages"][-1]
        said = last["content"] if last["role"] == "assistant" else ""
        begin = len(said.split())
        respond(stream, kind="text/event-stream")
        for at, word in enumerate(WORDS[begin:], 1):
            if dies_after is not None and at > dies_after:
                await stream.write(chunk(word, at)[:30])
                await settle(50)  # what was said has left
                stream.reset(ResetCode.UPSTREAM_LOST)
                return
            await stream.write(chunk(word, at))
        await stream.write(last_chunk(len(WORDS) - begin) + DONE)
        stream.end()

    return tell


def text(body: bytes) -> str:
    return "".join(event["choices"][0]["delta"]["content"] for event in events(body) if event["choices"])


@pytest.mark.parametrize("dies_after", [1, 5, 11])
async def test_another_worker_goes_on_and_the_text_is_whole(one: Site, dies_after: int) -> None:
    asked: list[dict[str, Any]] = []
    dying, healthy = teller(dies_after, asked), teller(None, asked)
    async with node(one, dying), node(one, healthy, name="n-2"):
        bodies = [await ask(one, chat(stream=True, stream_options={"include_usage": True})) for _ in range(2)]
        records = await one.records(2)
    for status, body in bodies:
        assert (status, text(body)) == (200, "".join(WORDS))
        assert body.count(DONE) == 1
        assert [event["usage"]["completion_tokens"] for event in events(body) if not event["choices"]] == [12]
        assert body.count(b": continued on another worker\n\n") == 1
    assert [record.completion_tokens for record in records] == [12, 12]
    assert [record.continuations for record in records] == [1, 1]
    for again in (one["messages"] for one in asked if "continue_final_message" in one):
        assert again[-1] == {"role": "assistant", "content": "".join(WORDS[:dies_after])}


@pytest.mark.parametrize(
    "refused", [{"n": 2}, {"logprobs": True}, {"tools": [{"type": "function"}]}, {"guided_regex": "x"}]
)
async def test_what_cannot_be_joined_ends_with_an_error_and_never_in_silence(
    one: Site, refused: dict[str, object]
) -> None:
    async with node(one, teller(3)), node(one, teller(3), name="n-2"):
        status, body = await ask(one, chat(stream=True, **refused))
        record = await one.record()
    assert status == 200
    assert b'"upstream_lost"' in body
    assert DONE not in body
    assert record.outcome == pb.USAGE_OUTCOME_FAILED


async def test_an_answer_that_every_worker_loses_ends_with_an_error(one: Site) -> None:
    async with node(one, teller(2)), node(one, teller(2), name="n-2"):
        status, body = await ask(one, chat(stream=True))
        record = await one.record()
    assert (status, text(body.split(b'data: {"error"')[0])) == (200, "".join(WORDS[:4]))
    assert b'"upstream_lost"' in body
    assert (record.outcome, record.completion_tokens) == (pb.USAGE_OUTCOME_FAILED, 4)


async def test_a_worker_that_fails_again_and_again_is_left_alone_and_asked_again_later(one: Site) -> None:
    seen: list[str] = []

    async def dies(stream: Stream) -> None:
        seen.append(stream.request.worker_id)
        await body_of(stream)
        stream.reset(ResetCode.UPSTREAM_FAILED)

    async with node(one, dies), node(one, talk, name="n-2"):
        for _ in range(20):
            assert await ask(one, chat(stream=True)) == (200, PLAIN)
        assert len(seen) == 5
        await one.pass_time(6)
        for _ in range(4):
            assert await ask(one, chat(stream=True)) == (200, PLAIN)
        assert len(seen) == 6, "one probe"
        await one.records(24)


async def test_a_client_error_is_never_held_against_a_worker(one: Site) -> None:
    async def complains(stream: Stream) -> None:
        await body_of(stream)
        respond(stream, 400)
        await stream.write(b'{"error":{"message":"no"}}')
        stream.end()

    async with node(one, complains), node(one, complains, name="n-2"):
        for _ in range(30):
            assert (await ask(one, chat()))[0] == 400
        await one.records(30)


async def test_only_an_operators_key_is_told_who_answered(one: Site) -> None:
    async with node(one, talk), node(one, refusing(ResetCode.WORKER_UNREADY), name="n-2"):
        async with one.post(chat(stream=True)) as answer:
            assert "X-Inventiv-Route" not in answer.headers
        entry = pb.ApiKey(
            key_id=one.key.id,
            secret_mac=one.key.mac(PEPPER),
            organization_id=ORGANIZATION,
            scopes=["chat", "route_debug"],
        )
        one.control_plane.push(api_keys=[entry])
        await until(one, "mesh_gateway_snapshot_revision 2.0")
        for stream in (True, False):
            async with one.post(chat(stream=stream)) as answer:
                assert answer.status == 200
                assert answer.headers["X-Inventiv-Route"].startswith("worker=w-1; node=n-1; reason=")


async def test_a_session_stays_with_its_worker_and_the_decisions_can_be_had(one: Site) -> None:
    seen: list[str] = []

    async def notes(stream: Stream) -> None:
        seen.append(stream.request.worker_id)
        await talk(stream)

    async with node(one, notes), node(one, notes, name="n-2"):
        for _ in range(8):
            async with one.post(chat(stream=True), headers={"X-Inventiv-Session": "s-1"}) as answer:
                await answer.read()
        async with one.client.get(f"{one.url}/debug/routes") as answer:
            rows = [json.loads(line) for line in (await answer.text()).splitlines()]
        await one.records(8)
    assert len(set(seen)) == 1
    assert [row["decision"]["worker_id"] for row in rows] == seen
    assert {row["decision"]["reason"] for row in rows} == {"session"}
