"""A stream as an HTTP request to a worker: what goes through, unchanged, and what ends with which code."""

import asyncio

import pytest

from mesh.link.frames import ResetCode
from mesh.wire.errors import StreamReset
from node_agent.tunnel.pool import IDLE_S
from tests.fakes.upstream import SOON_S, Visit, echo, tunnelled, until, upstream, whole


async def test_request_and_answer_pass_unchanged() -> None:
    seen: list[bytes] = []

    async def engine(visit: Visit) -> None:
        head, body = await visit.request()
        seen.extend((head, body))
        await visit.answer(
            b'{"ok":1}', b"content-type: application/json", b"x-request-id: abc", status=b"201 Created"
        )
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open(
            "/v1/chat/completions?a=b%20c", ("content-type", "application/json"), ("content-length", "9")
        )
        await stream.write(b'{"say":1}')
        stream.end()
        status, headers, body = await whole(stream)
    assert (status, body) == (201, b'{"ok":1}')
    assert headers == {"content-length": "8", "content-type": "application/json", "x-request-id": "abc"}
    head, sent = seen
    assert head.startswith(b"POST /v1/chat/completions?a=b%20c HTTP/1.1\r\nhost: localhost\r\n")
    assert b"content-type: application/json\r\n" in head
    assert b"content-length: 9\r\n" in head
    assert sent == b'{"say":1}'


async def test_what_concerns_one_hop_ends_there_in_both_directions() -> None:
    seen: list[bytes] = []

    async def engine(visit: Visit) -> None:
        seen.append(await visit.head())
        await visit.send(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nkeep-alive: timeout=5\r\n"
            b"connection: keep-alive, x-hop\r\nx-hop: 1\r\nx-end: 2\r\n\r\n"
            b"5;ext=1\r\nhello\r\n0\r\nx-trailer: 3\r\n\r\n"
        )
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open(
            "/health", ("connection", "x-mine"), ("x-mine", "1"), ("te", "trailers"), ("x-kept", "2"), method="GET"
        )
        stream.end()
        status, headers, body = await whole(stream)
    assert (status, headers, body) == (200, {"x-end": "2"}, b"hello")
    assert b"x-kept: 2\r\n" in seen[0]
    assert b"x-mine" not in seen[0]
    assert b"te:" not in seen[0]


async def test_a_short_answer_leaves_in_one_batch() -> None:
    async with upstream(echo) as server, tunnelled(server.endpoint) as tunnel:
        await tunnel.ask(b"warm up")
        before = tunnel.agent_link.messages
        assert (await tunnel.ask(b"hello"))[2] == b"hello"
        assert tunnel.agent_link.messages == before + 1


async def test_connections_are_used_again() -> None:
    async with upstream(echo) as server, tunnelled(server.endpoint) as tunnel:
        for number in range(5):
            assert (await tunnel.ask(b"%d" % number))[2] == b"%d" % number
        assert len(server.visits) == 1


async def test_an_engine_that_closes_after_a_stream_it_promised_to_keep_costs_one_more_connection() -> None:
    served = 0

    async def llamacpp(visit: Visit) -> None:
        nonlocal served
        await visit.request()
        served += 1
        await visit.send(
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n"
        )
        closing.clear()
        await closing.wait()  # the next request is on its way already

    closing = asyncio.Event()
    async with upstream(llamacpp) as server, tunnelled(server.endpoint) as tunnel:
        for number in range(4):
            waiting = asyncio.create_task(tunnel.ask(b"again"))
            if number:
                await until(lambda: tunnel.local.pool.idle == 0)
                closing.set()
            assert (await waiting)[2] == b"hello"
            await until(lambda: tunnel.local.pool.idle == 1)
        assert served == 4
        assert len(server.visits) == 4


async def test_what_broke_after_its_first_octet_is_not_sent_twice() -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"fine")
        await visit.request()
        await visit.send(b"HTT")

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        await tunnel.ask(b"one")
        with pytest.raises(StreamReset) as caught:
            await tunnel.ask(b"two")
        assert caught.value.reason is ResetCode.UPSTREAM_FAILED
        assert len(server.visits) == 1


async def test_an_engine_that_dies_of_a_request_gets_it_once_more_at_most() -> None:
    async def engine(visit: Visit) -> None:
        if len(server.visits) == 1:
            await visit.request()
            await visit.answer(b"fine")
        await visit.request()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        await tunnel.ask(b"one")
        with pytest.raises(StreamReset) as caught:
            await tunnel.ask(b"deadly")
        assert caught.value.reason is ResetCode.UPSTREAM_FAILED
        assert len(server.visits) == 2


async def test_an_answer_to_nothing_never_reaches_the_next_request() -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"one")
        if len(server.visits) == 1:
            await visit.answer(b"forged")
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        assert (await tunnel.ask())[2] == b"one"
        assert (await tunnel.ask())[2] == b"one"


async def test_headers_that_come_octet_by_octet_are_one_head() -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        for octet in b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok":
            await visit.send(bytes([octet]))
            await asyncio.sleep(0)
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        assert await tunnel.ask() == (200, {"content-type": "text/plain", "content-length": "2"}, b"ok")


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\nto the ")
        await visit.send(b"end")

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        assert (await tunnel.ask())[2] == b"to the end"
        assert (await tunnel.ask())[2] == b"to the end"


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", 304, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 103 Hint\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", 500, b"no"),
    ],
)
async def test_answers_of_every_shape(sent: bytes, status: int, body: bytes) -> None:
    async def engine(visit: Visit) -> None:
        while True:
            await visit.request()
            await visit.send(sent)

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        for _ in range(2):
            answer = await tunnel.ask()
            assert (answer[0], answer[2]) == (status, body)
            assert "link" not in answer[1]
        assert len(server.visits) == 1


async def test_an_answer_to_head_has_no_body_whatever_its_headers_say() -> None:
    async def engine(visit: Visit) -> None:
        assert (await visit.head()).startswith(b"HEAD /health ")
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/health", method="HEAD")
        stream.end()
        assert await whole(stream) == (200, {"content-length": "500"}, b"")


async def test_connections_that_idle_are_closed_before_the_engine_does() -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"")
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        await tunnel.ask()
        await until(lambda: tunnel.local.pool.idle == 1)
        await tunnel.clock.forward(IDLE_S + 1)
        assert tunnel.local.pool.idle == 0
        async with asyncio.timeout(SOON_S):
            await server.visits[0].left.wait()
