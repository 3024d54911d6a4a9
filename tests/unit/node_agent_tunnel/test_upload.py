"""Bodies that do not arrive in one piece: passed on as fast as the engine reads, exactly as long as announced."""

import asyncio
import hashlib
from collections.abc import Awaitable

import pytest

from mesh.link.frames import ResetCode
from mesh.wire.errors import StreamReset
from mesh.wire.stream import Stream
from tests.fakes.upstream import SOON_S, Visit, tunnelled, until, upstream, whole

BODY = hashlib.sha256(b"body").digest() * (1 << 15)  # 1 MiB: four windows
LENGTH = ("content-length", str(len(BODY)))


async def send_and_ask(stream: Stream) -> None:
    await stream.write(BODY)
    stream.end()
    await whole(stream)


async def reason_of(work: Awaitable[object]) -> ResetCode:
    """Why the stream was reset, as the work on it found out."""
    with pytest.raises(StreamReset) as caught:
        await work
    return caught.value.reason


async def digest(visit: Visit) -> None:
    """An engine that answers with the digest of what it got."""
    while True:
        head, body = await visit.request()
        kind = b"chunked" if b"transfer-encoding: chunked" in head else b"length"
        await visit.answer(hashlib.sha256(body).hexdigest().encode(), b"x-kind: " + kind)


@pytest.mark.parametrize(("headers", "kind"), [([LENGTH], "length"), ([], "chunked")])
async def test_a_long_body_arrives_whole(headers: list[tuple[str, str]], kind: str) -> None:
    async with upstream(digest) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/v1/embeddings", *headers)
        for at in range(0, len(BODY), 100_000):
            await stream.write(BODY[at : at + 100_000])
        stream.end()
        status, answered, body = await whole(stream)
        assert (status, answered["x-kind"], body) == (200, kind, hashlib.sha256(BODY).hexdigest().encode())
        await until(lambda: tunnel.local.pool.idle == 1)  # it was read whole, so the connection is good


async def test_a_body_that_comes_later_than_its_head_is_waited_for() -> None:
    async with upstream(digest) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/v1/embeddings", ("content-length", "4"))
        await until(lambda: tunnel.local.live == 1)
        await stream.write(b"ab")
        await server.arrived.wait()
        await stream.write(b"cd")
        stream.end()
        assert (await whole(stream))[2] == hashlib.sha256(b"abcd").hexdigest().encode()


async def test_an_engine_that_does_not_read_holds_the_sender() -> None:
    async def engine(visit: Visit) -> None:
        await visit.head()
        visit.writer.transport.pause_reading()
        await read.wait()
        visit.writer.transport.resume_reading()
        got = b""
        while len(got) < len(BODY) * 16:
            got += await visit.reader.read(1 << 20)
        await visit.answer(hashlib.sha256(got).hexdigest().encode())
        await visit.until_left()

    read = asyncio.Event()
    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/v1/embeddings", ("content-length", str(len(BODY) * 16)))
        written = 0

        async def write() -> None:
            nonlocal written
            for _ in range(16):
                await stream.write(BODY)
                written += 1
            stream.end()

        writing = asyncio.create_task(write())
        before = -1
        while before != tunnel.hub_link.sent:  # until it no longer moves
            before = tunnel.hub_link.sent
            await asyncio.sleep(0.05)
        assert written < 16
        read.set()
        await writing
        assert (await whole(stream))[2] == hashlib.sha256(BODY * 16).hexdigest().encode()


@pytest.mark.parametrize("announced", [len(BODY) - 1, len(BODY) + 1], ids=["too long", "too short"])
async def test_a_body_of_another_length_than_announced_is_cut_off(announced: int) -> None:
    async def engine(visit: Visit) -> None:
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/v1/embeddings", ("content-length", str(announced)))
        assert await reason_of(send_and_ask(stream)) is ResetCode.REFUSED
        async with asyncio.timeout(SOON_S):
            await server.visits[0].left.wait()


@pytest.mark.parametrize("body", [b"", b"abc"], ids=["none", "less"])
async def test_an_announced_body_that_does_not_come_is_not_waited_for(body: bytes) -> None:
    async with upstream(digest) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/v1/embeddings", ("content-length", "4"))
        await stream.write(body)
        stream.end()
        assert await reason_of(whole(stream)) is ResetCode.REFUSED
        assert tunnel.local.pool.idle == 0


async def test_an_answer_may_come_before_the_body_is_through() -> None:
    async def engine(visit: Visit) -> None:
        await visit.head()
        await visit.answer(b"too large", status=b"413 Payload Too Large")
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/v1/embeddings", LENGTH)
        await stream.write(BODY[:1000])
        status, _, body = await whole(stream)
        assert (status, body) == (413, b"too large")
        await stream.write(BODY[1000:])  # nobody wants it, and nobody is stuck with it
        stream.end()
        await until(lambda: tunnel.local.live == 0)
        assert tunnel.local.pool.idle == 0


async def test_a_caller_who_leaves_while_sending_closes_the_engines_connection() -> None:
    async def engine(visit: Visit) -> None:
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/v1/embeddings", LENGTH)
        await stream.write(BODY[:1000])
        await server.arrived.wait()
        stream.reset(ResetCode.CANCEL)
        async with asyncio.timeout(SOON_S):
            await server.visits[0].left.wait()
        await until(lambda: tunnel.local.live == 0)


async def test_an_engine_that_dies_while_the_body_comes_is_reported() -> None:
    async def engine(visit: Visit) -> None:
        await visit.head()
        visit.cut()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open("/v1/embeddings", LENGTH)
        assert await reason_of(send_and_ask(stream)) is ResetCode.UPSTREAM_FAILED
