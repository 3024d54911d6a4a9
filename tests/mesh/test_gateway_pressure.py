"""A gateway with many clients, large ones and slow ones."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.wire.stream import Stream
from tests.fakes.clock import settle
from tests.fakes.patience import eventually
from tests.mesh.gateway_engines import ANSWER, DONE, Scripted, body_of, chunk, last_chunk, respond, talk
from tests.mesh.gateway_harness import Site, ask, chat, http_request, model, node, route, site, until


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway whose model ``m`` has a worker on each of two nodes."""
    routes = (route("w-1", node="n-1"), route("w-2", node="n-2"))
    async with site(tmp_path, model(*routes, policy=pb.ROUTING_POLICY_ROUND_ROBIN)) as found:
        yield found


async def test_counters_of_outstanding_requests_come_back_to_nothing(one: Site) -> None:
    engine = Scripted()
    async with node(one, talk), node(one, engine, name="n-2"):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(one, chat(stream=True))) for _ in range(12)]
            await engine.get()
            await eventually(lambda: sum(task.done() for task in tasks) >= 6)
            for task in tasks:
                task.cancel()
        await until(one, "mesh_gateway_live_requests 0.0")
        records = await one.records(12)
    assert {record.outcome for record in records} == {pb.USAGE_OUTCOME_COMPLETED, pb.USAGE_OUTCOME_CANCELLED}


async def test_many_streams_at_once_each_get_their_own_answer(one: Site) -> None:
    async def echo(stream: Stream) -> None:
        asked = json.loads(await body_of(stream))
        respond(stream, kind="text/event-stream")
        for at in range(5):
            await stream.write(chunk(f"{asked['user']}-{at}", at))
            await asyncio.sleep(0)
        await stream.write(last_chunk(5) + DONE)
        stream.end()

    async def talks(user: str) -> None:
        _, got = await ask(one, chat(stream=True, user=user))
        assert got == b"".join(chunk(f"{user}-{at}") for at in range(5)) + DONE

    async with node(one, echo), node(one, echo, name="n-2"), asyncio.TaskGroup() as group:
        for at in range(100):
            group.create_task(talks(f"u{at}"))


async def test_a_large_body_and_a_large_answer_pass_whole(one: Site) -> None:
    content = "é" * 600_000  # six octets each as JSON

    async def mirror(stream: Stream) -> None:
        asked = json.loads(await body_of(stream))
        respond(stream)
        await stream.write(json.dumps({"choices": [asked["messages"][0]["content"]]}).encode())
        stream.end()

    async with node(one, mirror):
        status, got = await ask(one, {"model": "m", "messages": [{"role": "user", "content": content}]})
    assert status == 200
    assert json.loads(got) == {"choices": [content]}


async def test_a_client_that_reads_slowly_gets_every_byte(one: Site) -> None:
    words = [f"{at}-" + "x" * 1000 for at in range(2000)]

    async def pours(stream: Stream) -> None:
        await body_of(stream)
        respond(stream, kind="text/event-stream")
        for at, word in enumerate(words):
            await stream.write(chunk(word, at))
        await stream.write(last_chunk(len(words)) + DONE)
        stream.end()

    async with node(one, pours), one.post(chat(stream=True)) as answer:
        got = bytearray()
        while octets := await answer.content.read(20_000):
            got += octets
            await settle(3)
    assert bytes(got) == b"".join(map(chunk, words)) + DONE


async def test_a_client_that_takes_nothing_for_a_minute_is_given_up(one: Site) -> None:
    poured = 0

    async def pours(stream: Stream) -> None:
        nonlocal poured
        await body_of(stream)
        respond(stream, kind="text/event-stream")
        while True:
            await stream.write(chunk("x" * 10_000, 1))
            poured += 10_000

    async with node(one, pours) as attached:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.http.port, limit=1024)
        writer.write(http_request(one, chat(stream=True)))
        await reader.readuntil(b"\r\n\r\n")
        stream = await attached.stream()
        before = -1
        while before != poured:  # until everything that can hold something is full
            before = poured
            await asyncio.sleep(0.1)
        assert poured < 24 * 1024 * 1024
        await one.pass_time(80)
        await eventually(lambda: stream.code)
        writer.close()
        record = await one.record()
    assert record.outcome == pb.USAGE_OUTCOME_CANCELLED


async def test_the_connection_is_kept_for_the_next_request(one: Site) -> None:
    async with node(one, talk):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.http.port)
        for streamed in (False, True, False, True):
            writer.write(http_request(one, chat(stream=streamed)))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close" not in head
            await (reader.readuntil(b"\r\n0\r\n\r\n") if streamed else reader.readexactly(len(ANSWER)))
        writer.close()
