"""Workers that lie, break or stay silent, and clients in numbers: what it costs them, and nobody else."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.api import answers
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.link.frames import ResetCode
from mesh.types.v1 import worker_pb2
from mesh.wire.stream import Stream
from pki.names import Kind
from tests.fakes.clock import settle
from tests.fakes.patience import eventually
from tests.mesh.gateway_engines import (
    ANSWER,
    DONE,
    PLAIN,
    Engine,
    Scripted,
    body_of,
    chunk,
    last_chunk,
    refusing,
    respond,
    talk,
)
from tests.mesh.gateway_harness import (
    Site,
    ask,
    chat,
    http_request,
    model,
    node,
    put_tls,
    route,
    site,
    until,
)

MIB = 1024 * 1024


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway whose model ``m`` has a worker on each of three nodes."""
    routes = [route(f"w-{at}", node=f"n-{at}") for at in (1, 2, 3)]
    async with site(tmp_path, model(*routes)) as found:
        yield found


def saying(status: int, octets: bytes, *, kind: str = "application/json", seen: list[str] | None = None) -> Engine:
    async def say(stream: Stream) -> None:
        if seen is not None:
            seen.append(stream.request.worker_id)
        await body_of(stream)
        respond(stream, status, kind)
        await stream.write(octets)
        stream.end()

    return say


# What a node says of itself ------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 201, 204, 301, 304, 399, 600, 99999])
async def test_a_node_cannot_choose_a_status_that_makes_its_body_another_answer(
    one: Site, status: int, streamed: bool
) -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    async with node(one, saying(status, forged)):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.http.port)
        writer.write(http_request(one, chat(stream=streamed)))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 ")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["error"]["code"] == "upstream_failed"
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        rest = await reader.read()
        assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"forged" not in rest
        writer.close()
        record = await one.record()
    assert (record.outcome, record.status) == (pb.USAGE_OUTCOME_FAILED, 502)


@pytest.mark.parametrize("kind", ["text/html", "x\r\nSet-Cookie: a=b", "x\0", ""])
async def test_a_node_writes_nothing_into_the_head_of_an_answer(one: Site, kind: str) -> None:
    async with node(one, saying(200, ANSWER, kind=kind)), one.post(chat()) as answer:
        assert (answer.status, await answer.read()) == (200, ANSWER)
        assert answer.headers["Content-Type"] == "application/json"
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_node_cannot_bill_more_tokens_than_the_context_holds(one: Site, streamed: bool) -> None:
    huge = 2**31 - 6
    said = (
        chunk("x", huge) + last_chunk(huge) + DONE if streamed else ANSWER.replace(b":3}", f":{huge}}}".encode())
    )
    async with node(one, saying(200, said)):
        assert (await ask(one, chat(stream=streamed, n=2)))[0] == 200
        record = await one.record()
    assert (record.prompt_tokens, record.completion_tokens) == (5, 2 * 4096)


# Who is asked, and who else ------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("status", [429, 502, 503])
async def test_an_engine_that_is_busy_or_broken_leaves_the_request_to_another(
    one: Site, status: int, streamed: bool
) -> None:
    seen: list[str] = []
    busy = saying(status, b'{"error":{"message":"not now"}}', seen=seen)
    in_turn = [route(f"w-{at}", node=f"n-{at}") for at in (1, 2, 3)]
    one.control_plane.push(models=[model(*in_turn, policy=pb.ROUTING_POLICY_ROUND_ROBIN)])
    await until(one, "mesh_gateway_snapshot_revision 2.0")
    async with node(one, busy), node(one, busy, name="n-2"), node(one, talk, name="n-3"):
        for _ in range(10):
            assert await ask(one, chat(stream=streamed)) == (200, PLAIN if streamed else ANSWER)
        records = await one.records(10)
    assert {record.worker_id for record in records} == {"w-3"}
    assert set(seen) == {"w-1", "w-2"}


@pytest.mark.parametrize("status", [429, 503])
async def test_the_last_engine_that_is_busy_says_so_itself(one: Site, status: int) -> None:
    said = b'{"error":{"message":"not now"}}'
    seen: list[str] = []
    busy = saying(status, said, seen=seen)
    async with node(one, busy), node(one, busy, name="n-2"):
        assert await ask(one, chat()) == (status, said)
    assert sorted(seen) == ["w-1", "w-2"]


async def test_a_request_that_kills_engines_kills_two_and_no_third(one: Site) -> None:
    seen: list[str] = []

    async def dies(stream: Stream) -> None:
        seen.append(stream.request.worker_id)
        await body_of(stream)
        stream.reset(ResetCode.UPSTREAM_FAILED)

    async with node(one, dies), node(one, dies, name="n-2"), node(one, dies, name="n-3"):
        assert (await ask(one, chat()))[0] == 502
    assert len(seen) == 2


async def test_a_worker_that_became_ready_while_the_control_plane_was_away_is_asked_last(one: Site) -> None:
    stale = [
        route("w-1", node="n-1", phase=worker_pb2.WORKER_PHASE_STARTING),
        route("w-2", node="n-2", phase=worker_pb2.WORKER_PHASE_FAILED),
        route("w-3", node="n-3"),
    ]
    one.control_plane.push(models=[model(*stale)])
    await until(one, "mesh_gateway_snapshot_revision 2.0")
    refused: list[str] = []
    async with node(one, talk), node(one, saying(200, b"", seen=refused), name="n-2"):
        assert await ask(one, chat(stream=True)) == (200, PLAIN)
        async with node(one, talk, name="n-3"):
            assert await ask(one, chat(stream=True)) == (200, PLAIN)
        records = await one.records(2)
    assert sorted(record.worker_id for record in records) == ["w-1", "w-3"]
    assert not refused


async def test_a_worker_that_is_still_starting_does_not_change_why_the_ready_one_refused(one: Site) -> None:
    routes = [route("w-1"), route("w-2", node="n-2", phase=worker_pb2.WORKER_PHASE_STARTING)]
    one.control_plane.push(models=[model(*routes)])
    await until(one, "mesh_gateway_snapshot_revision 2.0")
    async with (
        node(one, refusing(ResetCode.TOO_MANY)),
        node(one, refusing(ResetCode.WORKER_UNREADY), name="n-2"),
        one.post(chat()) as answer,
    ):
        assert (await answer.json())["error"]["code"] == "workers_busy"


# Silence ------------------------------------------------------------


async def test_a_client_hears_in_the_middle_of_a_silent_stream_that_we_live(one: Site) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(one, engine), one.post(chat(stream=True)) as answer:
        stream = await engine.get()
        await answer.content.readuntil(b"one")
        for _ in range(3):
            await one.pass_time(12)
            assert await answer.content.readuntil(b": waiting for the engine\n\n")
        await stream.write(chunk("two", 2)[:20])  # a begun event is not torn
        await settle(50)
        await one.pass_time(12)
        await answer.content.readuntil(b": waiting for the engine\n\n")
        await stream.write(chunk("two", 2)[20:] + DONE)
        stream.end()
        assert await answer.read() == chunk("two") + DONE


async def test_silence_is_counted_from_the_last_octet_however_often_the_client_was_told(one: Site) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(one, engine), one.post(chat(stream=True)) as answer:
        stream = await engine.get()
        await answer.content.readuntil(b"one")
        await one.pass_time(56)
        assert stream.code is None
        await one.pass_time(8)
        assert b'"upstream_timeout"' in await answer.read()


# Numbers ------------------------------------------------------------


async def test_bodies_of_unknown_length_take_no_more_room_than_they_turned_out_to_need(tmp_path: Path) -> None:
    waiting: list[Stream] = []
    go_on = asyncio.Event()

    async def slow(stream: Stream) -> None:
        waiting.append(stream)
        await go_on.wait()
        await talk(stream)

    async def asks(one: Site) -> tuple[int, bytes]:
        async def chunked() -> AsyncIterator[bytes]:
            yield json.dumps(chat(stream=True)).encode()

        headers = {**one.headers, "Content-Type": "application/json"}
        url = f"{one.url}/v1/chat/completions"
        async with one.client.post(url, data=chunked(), headers=headers) as answer:
            return answer.status, await answer.read()

    async with (
        site(tmp_path, model(route("w-1")), max_held_bytes=8 * MIB, max_body_bytes=4 * MIB) as one,
        node(one, slow),
        asyncio.TaskGroup() as group,
    ):
        asking: list[asyncio.Task[tuple[int, bytes]]] = []
        while len(asking) < 5:
            asking.append(group.create_task(asks(one)))
            await eventually(lambda: len(waiting) + sum(task.done() for task in asking) == len(asking))
        go_on.set()
    assert [task.result() for task in asking] == [(200, PLAIN)] * 5


async def test_answers_in_one_piece_are_held_within_the_same_bound_as_bodies(tmp_path: Path) -> None:
    whole = b'{"x":"' + b"x" * MIB + b'"}'
    go_on = asyncio.Event()

    async def in_halves(stream: Stream) -> None:
        await body_of(stream)
        respond(stream)
        await stream.write(whole[:-5])
        await go_on.wait()
        await stream.write(whole[-5:])
        stream.end()

    async with (
        site(tmp_path, model(route("w-1")), max_held_bytes=3 * MIB, max_body_bytes=MIB) as one,
        node(one, in_halves),
    ):
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(ask(one, chat())) for _ in range(4)]
            await eventually(lambda: sum(task.done() for task in asking) == 2)
            go_on.set()
        assert sorted(task.result()[0] for task in asking) == [200, 200, 503, 503]
        assert await ask(one, chat()) == (200, whole)


async def test_an_answer_in_one_piece_that_is_too_large_is_refused_with_a_reason(
    one: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWER", 100_000)
    async with node(one, saying(200, b"x" * 100_001)), one.post(chat()) as answer:
        assert answer.status == 502
        error = (await answer.json())["error"]
    assert error["code"] == "upstream_failed"
    assert "larger than 100000 bytes" in error["message"]


async def test_more_connections_than_there_is_room_for_are_told_so(tmp_path: Path) -> None:
    async with site(tmp_path, model(route("w-1")), max_connections=3) as one, node(one, talk):
        await until(one, "mesh_gateway_client_connections 1.0")
        held = [await asyncio.open_connection("127.0.0.1", one.http.port) for _ in range(2)]
        await until(one, "mesh_gateway_client_connections 3.0")
        reader, refused = await asyncio.open_connection("127.0.0.1", one.http.port)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"Retry-After: " in head
        assert b"X-Request-Id: " in head
        assert json.loads(body)["error"]["code"] == "gateway_overloaded"
        refused.close()
        for _, writer in held:
            writer.close()
        await until(one, "mesh_gateway_client_connections 1.0")
        assert await ask(one, chat(stream=True)) == (200, PLAIN)


# What is not for everyone ------------------------------------------------------------


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
async def test_what_a_proxy_passes_on_does_not_get_the_metrics(one: Site, header: str) -> None:
    async with one.client.get(f"{one.url}/metrics", headers={header: "192.0.2.1"}) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "unknown_url"


async def test_the_tunnel_listener_shows_a_new_certificate(one: Site) -> None:
    async def shown() -> bytes | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("127.0.0.1", one.tunnel.port, ssl=context)
        found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return found

    before = await shown()
    put_tls(one.folder / "tls", one.authorities.files(Kind.GATEWAY, "g-1"))
    async with asyncio.timeout(20):
        while await shown() == before:
            await one.pass_time(4)
    async with node(one, talk):
        assert await ask(one, chat(stream=True)) == (200, PLAIN)
