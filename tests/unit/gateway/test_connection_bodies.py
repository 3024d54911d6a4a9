"""A client's connection, octet by octet: bodies, octets that are no request, and streams."""

import asyncio

import pytest

from gateway.api import connection as module
from gateway.api.exchange import Request
from tests.fakes.clock import settle
from tests.unit.gateway.connection_scene import GET, HALF, POST, at_once, echo, ok, scene

# Bodies that are not wanted, or none ------------------------------------------------------------


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n"
    async with scene() as one:
        assert await one.get(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert await one.get(b"x") == ok(b"/a x")
    async with scene() as one:
        assert await one.get(head + b"x") == ok(b"/a x")
    async with scene(at_once) as one:
        assert (await one.get(head)).startswith(b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n")
        assert one.wire.closed


async def test_the_rest_of_a_refused_body_is_read_for_a_while() -> None:
    async with scene(at_once) as one:
        assert b"Connection: close" in await one.get(POST % (b"a", 100), b"x" * 50)
        assert not one.wire.closed
        await one.get(b"x" * 49)
        assert not one.wire.closed
        assert await one.get(b"x" + GET % b"b") == b""
        assert one.wire.closed
    async with scene(at_once) as one:
        await one.get(POST % (b"a", 100))
        await one.pass_time(module.LINGER_S)
        assert one.wire.closed
    async with scene(at_once) as one:
        await one.get(POST % (b"a", 9) + b"x" * 8, b"x" + GET % b"b" + b"\0")
        assert one.wire.closed


async def test_a_body_that_is_too_large_is_not_kept() -> None:
    async with scene(max_body=10) as one:
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await one.get(head, b"8\r\n12345678\r\n", b"4\r\n1234\r\n")).startswith(b"HTTP/1.1 413 ")
        await one.get(b"4\r\n1234\r\n0\r\n\r\n")
        assert one.wire.closed
        assert await one.host.seen[0].body() == b""


async def test_a_body_sent_far_ahead_waits_outside() -> None:
    go_on = asyncio.Event()

    async def slow(request: Request) -> None:
        await go_on.wait()
        await echo(request)

    async with scene(slow, max_body=10**6) as one:
        size = 2 * module.AHEAD_OCTETS
        await one.get(GET % b"a", POST % (b"b", size), b"x" * (size - 1))
        assert not one.wire.reading
        go_on.set()
        await settle(5)
        assert one.wire.reading
        assert (await one.get(b"x")).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"\0\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000, 431),
        (b"POST / HTTP/2.0\r\nContent-Length: 1\r\n\r\nx", 505),
    ],
)
async def test_octets_that_are_no_request_are_told_so_once(octets: bytes, status: int) -> None:
    async with scene() as one:
        assert (await one.get(octets)).startswith(b"malformed %d " % status)
        assert one.wire.closed
        assert await one.get(GET % b"a") == b""
        assert not one.host.seen


async def test_a_head_of_many_small_reads_is_bounded_too() -> None:
    async with scene() as one:
        out = await one.get(b"GET / HTTP/1.1\r\n", *[b"X: %b\r\n" % (b"x" * 1000)] * 40)
        assert out.startswith(b"malformed 431")


async def test_blank_lines_between_requests_count_for_no_head() -> None:
    async with scene() as one:
        assert await one.get(*[b"\r\n" * 5000] * 4, HALF) == b""
        assert await one.get(b"st: x\r\n\r\n") == ok(b"/a ")


async def test_what_follows_a_good_request_does_not_spoil_its_answer() -> None:
    async with scene() as one:
        assert await one.get(GET % b"a" + b"\0nonsense") == ok(b"/a ")
        assert one.wire.closed


async def test_nonsense_after_an_answer_is_told_so() -> None:
    async with scene() as one:
        await one.get(GET % b"a")
        assert (await one.get(b"\0nonsense")).startswith(b"malformed 400")
        assert one.wire.closed


async def test_a_body_that_is_none_ends_with_its_request() -> None:
    async with scene() as one:
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        out = await one.get(head, b"zz\r\n")
        assert out.startswith(b"HTTP/1.1 400 Bad Request\r\nX: y\r\nConnection: close\r\n")
        await one.pass_time(module.LINGER_S)
        assert one.wire.closed


async def test_nobody_switches_protocols() -> None:
    async with scene() as one:
        asks = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello"
        assert (await one.get(asks)).startswith(b"HTTP/1.1 200 OK")
        assert one.wire.closed


# Streams ------------------------------------------------------------


@pytest.mark.parametrize("last", [b"", b"end"])
async def test_a_stream_is_chunked(last: bytes) -> None:
    async def stream(request: Request) -> None:
        request.begin(200, {"A": "b"})
        assert request.send(b"one")
        request.send(b"two")
        request.end(last)

    async with scene(stream) as one:
        head = b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n"
        end = b"3\r\nend\r\n" if last else b""
        want = head + b"3\r\none\r\n3\r\ntwo\r\n" + end + b"0\r\n\r\n"
        assert await one.get(GET % b"a" + GET % b"b") == want * 2


async def test_a_stream_for_an_old_client_ends_with_the_connection() -> None:
    async def stream(request: Request) -> None:
        request.begin(200, {})
        request.send(b"one")
        request.end(b"two")

    async with scene(stream) as one:
        out = await one.get(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert out == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nonetwo"
        assert one.wire.closed


async def test_a_stream_that_begins_before_its_request_is_complete_is_the_last() -> None:
    async def stream(request: Request) -> None:
        request.begin(299, {})
        request.end()

    async with scene(stream) as one:
        out = await one.get(POST % (b"a", 5))
        assert out.startswith(b"HTTP/1.1 299 Unknown\r\nConnection: close\r\n")


async def test_a_stream_waits_for_a_slow_client() -> None:
    async def stream(request: Request) -> None:
        request.begin(200, {})
        if not request.send(b"one"):
            assert request.connection.backlog() > 0
            async with asyncio.TaskGroup() as both:
                both.create_task(request.connection.drain())
                both.create_task(request.connection.drain())
        request.end(b"two")

    async with scene(stream) as one:
        await settle()
        one.connection.data_received(GET % b"a")
        one.connection.pause_writing()
        await settle()
        assert b"two" not in one.wire.out
        one.connection.resume_writing()
        await settle()
        assert bytes(one.wire.out).endswith(b"3\r\ntwo\r\n0\r\n\r\n")
