"""Through a whole gateway: answers, byte for byte, and one usage record for every way a request can end."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.link.frames import ResetCode
from mesh.wire.stream import Stream
from tests.fakes.clock import settle
from tests.fakes.patience import eventually
from tests.mesh.gateway_engines import (
    ANSWER,
    DONE,
    PLAIN,
    Scripted,
    body_of,
    chunk,
    events,
    last_chunk,
    refusing,
    respond,
    talk,
)
from tests.mesh.gateway_harness import Site, ask, chat, model, node, route, site, until


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway whose model ``m`` has a worker on each of two nodes."""
    routes = (route("w-1", node="n-1"), route("w-2", node="n-2"))
    async with site(tmp_path, model(*routes), model(route("w-3"), name="own", organization="org-2")) as found:
        yield found


async def test_an_answer_in_one_piece_arrives_byte_for_byte_and_is_recorded(one: Site) -> None:
    async with node(one, talk), one.post(chat()) as answer:
        assert answer.status == 200
        assert await answer.read() == ANSWER
        assert answer.headers["Content-Type"] == "application/json"
        record = await one.record()
    assert record.request_id == answer.headers["X-Request-Id"]
    assert record.outcome == pb.USAGE_OUTCOME_COMPLETED
    assert (record.status, record.streamed, record.model) == (200, False, "m")
    assert (record.prompt_tokens, record.completion_tokens) == (5, 3)
    assert (record.key_id, record.organization_id) == (one.key.id, "org-1")
    assert (record.worker_id, record.node_id) == ("w-1", "n-1")
    assert not record.HasField("first_token_ms"), "nobody knows when it began"


async def test_a_stream_arrives_as_the_engine_sent_it_without_what_the_client_did_not_ask_for(one: Site) -> None:
    async with node(one, talk), one.post(chat(stream=True)) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert await answer.read() == PLAIN
        record = await one.record()
    assert record.outcome == pb.USAGE_OUTCOME_COMPLETED
    assert (record.prompt_tokens, record.completion_tokens, record.streamed) == (5, 3, True)
    assert record.HasField("first_token_ms")


async def test_a_client_who_asks_for_usage_gets_it(one: Site) -> None:
    async with node(one, talk), one.post(chat(stream=True, stream_options={"include_usage": True})) as answer:
        assert await answer.read() == PLAIN.removesuffix(DONE) + last_chunk(3) + DONE


async def test_fields_we_do_not_know_reach_the_engine(one: Site) -> None:
    engine = Scripted()
    async with node(one, engine), asyncio.TaskGroup() as group:
        group.create_task(ask(one, chat(stream=True, later={"a": [1.5, None]}, seed=7)))
        stream = await engine.get()
        respond(stream, kind="text/event-stream")
        await stream.write(DONE)
        stream.end()
    (asked,) = engine.asked
    assert asked == {
        **chat(stream=True, later={"a": [1.5, None]}, seed=7),
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }


async def test_a_client_who_leaves_half_way_stops_the_engine_and_is_counted(one: Site) -> None:
    engine = Scripted(chunk("one", 1) + chunk("two", 2))
    async with node(one, engine):
        async with one.post(chat(stream=True)) as answer:
            stream = await engine.get()
            assert await answer.content.readuntil(b"two") is not None
            answer.close()
        await eventually(lambda: stream.code)
        assert stream.code is ResetCode.CANCEL
        record = await one.record()
    assert record.outcome == pb.USAGE_OUTCOME_CANCELLED
    assert (record.status, record.prompt_tokens, record.completion_tokens) == (499, 5, 2)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_who_leaves_before_the_answer_stops_the_engine(one: Site, streamed: bool) -> None:
    engine = Scripted()
    async with node(one, engine):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(one, chat(stream=streamed)))
            stream = await engine.get()
            asking.cancel()
        await eventually(lambda: stream.code)
        assert stream.code is ResetCode.CANCEL
        record = await one.record()
    assert record.outcome == pb.USAGE_OUTCOME_CANCELLED
    assert not record.HasField("completion_tokens"), "the engine said nothing, so nobody does"


async def test_a_stream_that_breaks_off_ends_with_an_error_event_and_no_done(one: Site) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(one, engine):
        async with one.post(chat(stream=True)) as answer:
            stream = await engine.get()
            await answer.content.readuntil(b"one")
            stream.reset(ResetCode.UPSTREAM_LOST)
            rest = await answer.read()
        record = await one.record()
    (error,) = [event["error"] for event in events(b"data: {" + rest.partition(b"data: {")[2])]
    assert (error["code"], error["type"], error["param"]) == ("upstream_lost", "server_error", None)
    assert b"[DONE]" not in rest
    assert record.outcome == pb.USAGE_OUTCOME_FAILED
    assert (record.status, record.completion_tokens) == (200, 1)


async def test_an_engine_that_ends_without_done_has_broken_off(one: Site) -> None:
    async def forgets(stream: Stream) -> None:
        await body_of(stream)
        respond(stream, kind="text/event-stream")
        await stream.write(chunk("one", 1) + b"data: half")
        stream.end()

    async with node(one, forgets):
        status, got = await ask(one, chat(stream=True))
        record = await one.record()
    assert status == 200
    assert got.startswith(chunk("one") + b"data: {"), "half an event is said by nobody"
    assert b'"upstream_lost"' in got
    assert record.outcome == pb.USAGE_OUTCOME_FAILED


async def test_a_link_that_is_lost_ends_the_stream_with_an_error_event(one: Site) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(one, engine) as attached:
        async with one.post(chat(stream=True)) as answer:
            await answer.content.readuntil(b"one")
            attached.session.close()
            rest = await answer.read()
        record = await one.record()
    assert b'"upstream_lost"' in rest
    assert record.outcome == pb.USAGE_OUTCOME_FAILED
    assert record.completion_tokens == 1


async def test_an_engine_that_never_begins_is_a_timeout(one: Site) -> None:
    engine = Scripted()
    async with node(one, engine):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(one, chat()))
            stream = await engine.get()
            await one.pass_time(598)
            assert not asking.done()
            await one.pass_time(4)
        record = await one.record()
        await eventually(lambda: stream.code)
    status, body = asking.result()
    assert status == 504
    assert json.loads(body)["error"]["code"] == "upstream_timeout"
    assert (record.outcome, record.status) == (pb.USAGE_OUTCOME_FAILED, 504)


async def test_while_a_stream_waits_for_its_first_token_the_client_hears_that_we_live(one: Site) -> None:
    engine = Scripted()
    async with node(one, engine), asyncio.TaskGroup() as group:
        asking = group.create_task(ask(one, chat(stream=True)))
        stream = await engine.get()
        await one.clock.forward(9)
        await one.clock.forward(2)
        await one.clock.forward(10)
        respond(stream, kind="text/event-stream")
        await stream.write(chunk("one", 1) + DONE)
        stream.end()
    status, got = asking.result()
    assert status == 200
    assert got == b": waiting for the engine\n\n" * 2 + chunk("one") + DONE


async def test_a_stream_that_was_kept_alive_in_vain_ends_with_an_error_event(one: Site) -> None:
    engine = Scripted()
    async with node(one, engine):
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(one, chat(stream=True)))
            await engine.get()
            await one.pass_time(124)
        record = await one.record()
    status, got = asking.result()
    assert status == 200
    assert b'"upstream_timeout"' in got
    assert (record.outcome, record.status) == (pb.USAGE_OUTCOME_FAILED, 200)


async def test_an_engine_that_falls_silent_is_a_timeout_in_the_stream(one: Site) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(one, engine):
        async with one.post(chat(stream=True)) as answer:
            stream = await engine.get()
            await answer.content.readuntil(b"one")
            await one.pass_time(62)
            assert b'"upstream_timeout"' in await answer.read()
        await eventually(lambda: stream.code)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_engines_error_is_the_clients_answer(one: Site, streamed: bool) -> None:
    error = b'{"error":{"code":400,"message":"too long","type":"invalid_request_error"}}'

    async def refuses(stream: Stream) -> None:
        await body_of(stream)
        respond(stream, 400)
        await stream.write(error)
        stream.end()

    async with node(one, refuses):
        assert await ask(one, chat(stream=streamed)) == (400, error)
        record = await one.record()
    assert (record.outcome, record.status) == (pb.USAGE_OUTCOME_FAILED, 400)


async def test_an_engines_error_after_a_wait_comes_as_an_event(one: Site) -> None:
    engine = Scripted()
    async with node(one, engine), asyncio.TaskGroup() as group:
        asking = group.create_task(ask(one, chat(stream=True)))
        stream = await engine.get()
        await one.clock.forward(11)
        respond(stream, 500)
        await stream.write(b'{"error":{"message":"out of memory"}}')
        stream.end()
    assert asking.result()[1].endswith(b'data: {"error":{"message":"out of memory"}}\n\n')


async def test_another_worker_is_asked_when_one_refuses_and_the_record_names_who_answered(one: Site) -> None:
    one.control_plane.push(models=[model(route("w-1"), route("w-2", node="n-2"))])
    async with node(one, refusing(ResetCode.WORKER_UNREADY)), node(one, talk, name="n-2"):
        for _ in range(8):  # whichever is drawn first
            status, got = await ask(one, chat(stream=True))
            assert (status, got) == (200, PLAIN)
        records = await one.records(8)
    assert {record.worker_id for record in records} == {"w-2"}


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (ResetCode.WORKER_UNREADY, 503, "no_ready_worker"),
        (ResetCode.WORKER_UNKNOWN, 503, "no_ready_worker"),
        (ResetCode.REFUSED, 503, "no_ready_worker"),
        (ResetCode.TOO_MANY, 429, "workers_busy"),
        (ResetCode.UPSTREAM_FAILED, 502, "upstream_failed"),
        (ResetCode.UPSTREAM_LOST, 502, "upstream_lost"),
        (ResetCode.TIMEOUT, 504, "upstream_timeout"),
        (ResetCode.PROTOCOL, 502, "upstream_failed"),
    ],
)
async def test_when_nobody_can_answer_the_client_is_told_why(
    one: Site, code: ResetCode, status: int, name: str
) -> None:
    async with node(one, refusing(code)), one.post(chat()) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == name
        assert ("Retry-After" in answer.headers) == (status != 504)


async def test_no_more_than_three_workers_see_one_request(one: Site) -> None:
    seen: list[Stream] = []

    async def count_and_refuse(stream: Stream) -> None:
        seen.append(stream)
        stream.reset(ResetCode.WORKER_UNREADY)

    one.control_plane.push(models=[model(*(route(f"w-{at}") for at in range(9)))])
    async with node(one, count_and_refuse):
        await eventually(lambda: one.control_plane.snapshot.revision == 2 or None)
        await until(one, "mesh_gateway_snapshot_revision 2.0")
        status, _ = await ask(one, chat())
    assert status == 503
    assert len({stream.request.worker_id for stream in seen}) == len(seen) == 3


async def test_an_answer_in_one_piece_that_breaks_off_is_asked_for_again(one: Site) -> None:
    calls = 0

    async def breaks_once(stream: Stream) -> None:
        nonlocal calls
        calls += 1
        await body_of(stream)
        respond(stream)
        await stream.write(ANSWER[:10] if calls == 1 else ANSWER)
        if calls == 1:
            await settle()
            stream.reset(ResetCode.UPSTREAM_FAILED)
        stream.end()

    async with node(one, breaks_once), node(one, breaks_once, name="n-2"):
        assert await ask(one, chat()) == (200, ANSWER)


async def test_a_stream_in_another_convention_of_lines_passes_too(one: Site) -> None:
    sent = b'data: {"choices":[{"delta":{"content":"x"}}]}\r\n\r\ndata: [DONE]\r\n\r\n'

    async def crlf(stream: Stream) -> None:
        await body_of(stream)
        respond(stream, kind="text/event-stream; charset=utf-8")
        await stream.write(sent)
        stream.end()

    async with node(one, crlf):
        assert await ask(one, chat(stream=True)) == (200, sent)
