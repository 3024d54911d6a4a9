"""A client's connection, octet by octet: requests in their order, its end, and time."""

import asyncio

import pytest

from gateway.api import connection as module
from gateway.api.connection import MAX_AHEAD, MAX_HEAD
from gateway.api.exchange import Request
from tests.fakes.clock import settle
from tests.unit.gateway.connection_scene import GET, HALF, POST, echo, ok, scene

# One after the other ------------------------------------------------------------


async def test_a_connection_stays_for_the_next_request() -> None:
    async with scene() as one:
        assert await one.get(GET % b"a") == ok(b"/a ")
        assert await one.get(POST % (b"b", 3) + b"abc") == ok(b"/b abc")
        assert not one.wire.closed
        assert one.connection.peer == ("127.0.0.1", 5)
        assert one.wire.high == module.HIGH_WATER


async def test_requests_sent_ahead_are_answered_in_their_order() -> None:
    async with scene() as one:
        sent = [POST % (b"%d" % at, 2) + b"%02d" % at for at in range(MAX_AHEAD)]
        want = b"".join(ok(b"/%d %02d" % (at, at)) for at in range(MAX_AHEAD))
        assert await one.get(b"".join(sent)) == want
        assert await one.get(*(bytes([octet]) for octet in b"".join(sent[:3]))) == want[: len(ok(b"/0 00")) * 3]


async def test_more_requests_than_may_be_sent_ahead_end_the_connection_after_what_runs() -> None:
    async with scene() as one:
        out = await one.get(GET % b"a" * (MAX_AHEAD + 1))
        assert out.count(b"HTTP/1.1") == 1
        assert one.wire.closed


async def test_a_body_that_comes_in_pieces_is_one() -> None:
    async with scene() as one:
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await one.get(head, b"1\r\na\r\n", b"2\r\nbc\r\n1\r\nd\r\n", b"0\r\n\r\n") == ok(b"/a abcd")
        (request,) = one.host.seen
        assert request.content_length is None
        assert await request.body() is await request.body()


async def test_trailers_are_no_headers() -> None:
    async with scene() as one:
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert await one.get(head + b"1\r\na\r\n0\r\nAuthorization: x\r\n\r\n") == ok(b"/a a")
        assert one.host.seen[0].header(b"authorization") is None
        assert one.host.seen[0].header(b"host") == "x"


async def test_trailers_without_end_are_not_taken() -> None:
    async with scene() as one:
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: "
        out = await one.get(head, *[b"x" * 8192] * 5)
        assert out.startswith(b"HTTP/1.1 400 ")


async def test_a_large_body_is_no_large_head() -> None:
    async with scene(max_body=10 * MAX_HEAD) as one:
        size = 3 * MAX_HEAD
        out = await one.get(POST % (b"a", size) + b"x" * 10, *[b"x" * (size - 10)], GET % b"b")
        assert out == ok(b"/a " + b"x" * size) + ok(b"/b ")


async def test_a_head_has_no_body() -> None:
    async with scene() as one:
        assert await one.get(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n") == ok(b"/a ").removesuffix(b"/a ")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://x/a?b", b"/a?b"),
        (b"HTTPS://x:1/a", b"/a"),
        (b"http://x", b"/"),
        (b"*", b"*"),
        (b"ftp://x/a", b"ftp://x/a"),
    ],
)
async def test_a_target_may_be_absolute(target: bytes, path: bytes) -> None:
    async with scene() as one:
        assert await one.get(b"OPTIONS %b HTTP/1.1\r\nHost: x\r\n\r\n" % target) == ok(path + b" ")


# The end of a connection ------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "more", "closed"),
    [
        (b"GET /a HTTP/1.0\r\n\r\n", b"Connection: close\r\n", True),
        (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"Connection: keep-alive\r\n", False),
        (b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", b"Connection: close\r\n", True),
    ],
)
async def test_whether_a_connection_ends_is_for_the_client_to_say(head: bytes, more: bytes, closed: bool) -> None:
    async with scene() as one:
        assert await one.get(head) == ok(b"/a ", more)
        assert one.wire.closed is closed


async def test_a_listener_that_drains_ends_connections_with_their_answers() -> None:
    async with scene() as one:
        one.host.draining = True
        assert b"Connection: close\r\n" in await one.get(GET % b"a")
        assert one.wire.closed


async def test_idle_connections_are_closed_when_asked_and_others_are_not() -> None:
    async with scene() as one:
        await one.get(HALF)
        one.connection.close_if_idle()
        assert not one.wire.closed
    async with scene() as one:
        one.connection.close_if_idle()
        assert one.wire.closed
        await settle()
        assert await one.get(GET % b"a") == b""


async def test_one_too_many_is_told_so() -> None:
    async with scene(room=False) as one:
        assert one.wire.out == b"crowded"
        assert one.wire.closed
        assert await one.get(GET % b"a") == b""
        with pytest.raises(ConnectionResetError):
            one.connection.backlog()


async def test_who_leaves_cancels_the_answer() -> None:
    cancelled = []

    async def never(request: Request) -> None:
        try:
            await request.connection.wait()
        except asyncio.CancelledError:
            cancelled.append(request)
            raise

    async with scene(never) as one:
        await one.get(GET % b"a")
    assert len(cancelled) == 1
    assert one.host.left == 1
    with pytest.raises(ConnectionResetError):
        await one.connection.wait()
    with pytest.raises(ConnectionResetError):
        await one.connection.drain()


async def test_an_answer_that_breaks_off_cuts_the_connection() -> None:
    async def half(request: Request) -> None:
        request.begin(200, {})
        request.send(b"half")

    async with scene(half) as one:
        assert (await one.get(GET % b"a")).endswith(b"4\r\nhalf\r\n")
        assert one.wire.aborted


# Time ------------------------------------------------------------


async def test_an_idle_connection_ends() -> None:
    async with scene() as one:
        await one.get(GET % b"a")
        await one.pass_time(module.IDLE_S - 1)
        assert not one.wire.closed
        await one.pass_time(1)
        assert one.wire.closed


@pytest.mark.parametrize("begun", [b"", GET % b"a"])
async def test_a_slow_head_is_told_so(begun: bytes) -> None:
    async with scene() as one:
        await one.get(begun + HALF)
        await one.pass_time(module.HEAD_S - 1)
        assert not one.wire.closed
        await one.get(b"st: x\r\n")
        await one.pass_time(1)
        assert bytes(one.wire.out).startswith(b"malformed 408")
        assert one.wire.closed


async def test_a_head_that_begins_behind_another_request_is_not_waited_for_without_end() -> None:
    go_on = asyncio.Event()

    async def slow(request: Request) -> None:
        await go_on.wait()
        await echo(request)

    async with scene(slow) as one:
        await one.get(GET % b"a", HALF)
        await one.pass_time(1000)
        assert not one.wire.closed
        go_on.set()
        await settle(5)
        assert one.wire.out == ok(b"/a ")
        await one.pass_time(module.HEAD_S)
        assert bytes(one.wire.out).endswith(b"malformed 408 the request's head did not come in time")


async def test_who_takes_no_answers_gets_no_more_of_them() -> None:
    async with scene() as one:
        one.connection.pause_writing()
        assert (await one.get(GET % b"a" * 5)) == ok(b"/a ")
        one.connection.resume_writing()
        await settle(5)
        assert one.wire.out == ok(b"/a ") * 5
        assert one.connection.due == one.host.now + module.IDLE_S
        one.connection.pause_writing()
        await one.get(GET % b"b")
        await one.pass_time(module.TAKE_S)
        assert one.wire.aborted


async def test_who_takes_not_even_the_last_answer_is_cut_off() -> None:
    async with scene() as one:
        await one.get(b"GET /a HTTP/1.0\r\n\r\n")
        assert one.wire.closed
        one.connection.close()
        await one.pass_time(module.TAKE_S)
        assert one.wire.aborted
