"""The agent's own little HTTP server, octet by octet."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.kit.settings import Address
from node_agent import responder
from node_agent.responder import MAX_CONNECTIONS, MAX_HEAD, Reply, Routes, serving

ROUTES: Routes = {"/page": lambda: Reply(b"hello\n"), "/bad": lambda: Reply(b"", status=int("x"))}


@asynccontextmanager
async def server(routes: Routes = ROUTES) -> AsyncIterator[Address]:
    async with asyncio.timeout(20), serving(routes, Address("127.0.0.1", 0)) as address:
        yield address


async def said(address: Address, *octets: bytes) -> bytes:
    """Everything that is answered to these pieces, up to the end."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        with contextlib.suppress(ConnectionError):
            for piece in octets:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        return await reader.read()
    finally:
        writer.transport.abort()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_an_answer_has_a_length_and_ends_the_connection() -> None:
    async with server() as address:
        answer = await said(address, b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 6\r\n"
        b"connection: close\r\n\r\nhello\n"
    )


async def test_head_has_the_same_headers_and_no_body() -> None:
    async with server() as address:
        answer = await said(address, b"HEAD /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"content-length: 6\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_request_may_come_in_pieces() -> None:
    async with server() as address:
        assert (
            status(await said(address, b"GET /pa", b"ge?a=b HTTP/1.1\r\nHo", b"st: [::1]:1\r\n\r", b"\n")) == 200
        )


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET http://localhost/page HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /page/../page HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"DELETE /page HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"POST /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /page HTTP/1.0\r\n\r\n", 200),
        (b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
async def test_what_is_not_a_page_is_refused(request_: bytes, expected: int) -> None:
    async with server() as address:
        assert status(await said(address, request_)) == expected


async def test_a_second_request_and_a_body_are_not_heard() -> None:
    request = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with server() as address:
        assert (await said(address, request + request + b"\x00nonsense")).count(b"HTTP/1.1") == 1


async def test_a_header_without_end_is_refused() -> None:
    async with server() as address:
        for piece in (b"GET /page HTTP/1.1\r\nHost: localhost\r\nX: ", b"GET /page?"):
            assert status(await said(address, piece, b"x" * MAX_HEAD)) == 431
        whole = b"GET /page HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n"
        assert status(await said(address, whole)) == 431


async def test_one_page_that_breaks_is_an_answer_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with server() as address:
        with caplog.at_level(logging.ERROR):
            assert status(await said(address, b"GET /bad HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 500
        assert status(await said(address, b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 200
    assert "request failed" in caplog.text


async def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "DEADLINE_S", 0.05)
    async with server() as address:
        for piece in (b"", b"GET /page HTTP/1.1\r\n"):
            with contextlib.suppress(ConnectionError):
                assert await said(address, piece) == b""


async def test_connections_are_bounded_and_there_is_room_again_when_one_ends() -> None:
    request = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with server() as address:
        silent = [await asyncio.open_connection(address.host, address.port) for _ in range(MAX_CONNECTIONS)]
        with contextlib.suppress(ConnectionError):
            assert await said(address, request) == b""
        _, leaving = silent.pop()
        leaving.transport.abort()
        answer = b""
        while not answer:
            with contextlib.suppress(ConnectionError):
                answer = await said(address, request)
        assert status(answer) == 200
        for _, writer in silent:
            writer.transport.abort()


async def test_the_end_of_the_server_waits_for_nobody() -> None:
    async with server() as address:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET ")
        await writer.drain()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.transport.abort()
