"""How a request ends that does not end well, with which code, and that it harms nobody else."""

import asyncio
import hashlib
import socket

import pytest

from mesh.link.frames import ResetCode
from mesh.wire.errors import StreamReset
from node_agent.core.worker import LoopbackEndpoint
from tests.fakes.upstream import SOON_S, Visit, echo, tunnelled, until, upstream, whole


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with tunnelled(LoopbackEndpoint("127.0.0.1", unused.getsockname()[1])) as tunnel:
            with pytest.raises(StreamReset) as caught:
                await tunnel.ask(b"hello")
            assert caught.value.reason is ResetCode.UPSTREAM_FAILED


async def test_a_slow_connect_of_one_request_leaves_its_neighbour_alone() -> None:
    with socket.socket() as deaf, socket.socket() as filler:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        filler.connect(deaf.getsockname())  # its queue is full: the next connect gets no answer
        async with (
            upstream(echo) as server,
            tunnelled(server.endpoint, LoopbackEndpoint("127.0.0.1", deaf.getsockname()[1])) as tunnel,
        ):
            stuck = tunnel.open(worker="w-2")
            await stuck.write(b"x")
            stuck.end()
            await until(lambda: tunnel.local.live == 1)
            assert (await tunnel.ask(b"hello"))[2] == b"hello"
            assert tunnel.local.live == 1
            stuck.reset(ResetCode.CANCEL)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nraw",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 40_000 + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 1_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 5_300 + b"\r\n",
    ],
    ids=[
        "nothing",
        "half a head",
        "not HTTP",
        "bad length",
        "upgrade",
        "long header",
        "endless head",
        "grows in the frame",
    ],
)
async def test_an_engine_that_gives_no_proper_answer_is_reported_as_failed(sent: bytes) -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.send(sent)
        if len(sent) > 1_000:
            await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        with pytest.raises(StreamReset) as caught:
            await tunnel.ask(b"hello")
        assert caught.value.reason is ResetCode.UPSTREAM_FAILED
        await until(lambda: tunnel.local.live == 0)


@pytest.mark.parametrize(
    "head",
    [b"content-length: 100\r\n\r\nbegun", b"transfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n", b"\r\nbegun"],
    ids=["length", "chunked", "reset without either"],
)
async def test_an_engine_that_dies_in_the_middle_is_reported_as_lost(head: bytes) -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\n" + head)
        await die.wait()
        visit.cut()

    die = asyncio.Event()
    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open()
        stream.end()
        assert (await stream.head()).status == 200
        assert await stream.read() == b"begun"
        die.set()
        with pytest.raises(StreamReset) as caught:
            await whole(stream)
        assert caught.value.reason is ResetCode.UPSTREAM_LOST


@pytest.mark.parametrize(
    ("worker", "code"), [("w-9", ResetCode.WORKER_UNKNOWN), ("unready", ResetCode.WORKER_UNREADY)]
)
async def test_only_workers_that_are_ready_here_are_reached(worker: str, code: ResetCode) -> None:
    async with upstream(echo) as server, tunnelled(server.endpoint) as tunnel:
        with pytest.raises(StreamReset) as caught:
            await tunnel.ask(b"hello", worker=worker)
        assert caught.value.reason is code
        assert not server.visits


@pytest.mark.parametrize(
    ("path", "method", "header"),
    [
        ("http://169.254.169.254/latest/meta-data", "GET", ("x", "y")),
        ("//169.254.169.254/v1/models", "GET", ("x", "y")),
        ("/v1/../admin", "POST", ("x", "y")),
        ("/slots", "GET", ("x", "y")),
        ("/v1/models HTTP/1.1\r\nx: y\r\n\r\nGET /slots", "GET", ("x", "y")),
        ("/v1/models", "GET", ("upgrade", "websocket")),
        ("/v1/models", "GET", ("connection", "Upgrade, x")),
        ("/v1/models", "GET", ("x", "1\r\ny: 2")),
        ("/v1/models", "GET", ("x\r\ny", "1")),
        ("/v1/models", "CONNECT", ("x", "y")),
        ("/v1/models", "GET /slots HTTP/1.1\r\n\r\nGET", ("x", "y")),
    ],
)
async def test_what_may_not_pass_touches_no_engine(path: str, method: str, header: tuple[str, str]) -> None:
    async with upstream(echo) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open(path, header, method=method)
        stream.end()
        with pytest.raises(StreamReset) as caught:
            await whole(stream)
        assert caught.value.reason is ResetCode.REFUSED
        assert not server.visits


async def test_beyond_its_bound_a_node_refuses_and_serves_the_others() -> None:
    async with upstream(echo) as server, tunnelled(server.endpoint, max_requests=2) as tunnel:
        held = [tunnel.open(), tunnel.open()]
        await until(lambda: tunnel.local.live == 2)
        with pytest.raises(StreamReset) as caught:
            await tunnel.ask(b"one too many")
        assert caught.value.reason is ResetCode.TOO_MANY
        for stream in held:
            stream.end()
            assert (await whole(stream))[0] == 200
        assert (await tunnel.ask(b"room again"))[2] == b"room again"


async def test_an_engine_that_takes_longer_than_the_request_may_is_let_go() -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        with pytest.raises(StreamReset) as caught:
            await tunnel.ask(b"hello", timeout_ms=50)
        assert caught.value.reason is ResetCode.TIMEOUT
        async with asyncio.timeout(SOON_S):
            await server.visits[0].left.wait()


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "in the middle"])
async def test_a_caller_who_leaves_closes_the_engines_connection(begun: bool) -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        if begun:
            await visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open()
        stream.end()
        await server.arrived.wait()
        if begun:
            await stream.head()
        stream.reset(ResetCode.CANCEL)
        async with asyncio.timeout(SOON_S):
            await server.visits[0].left.wait()
        await until(lambda: tunnel.local.live == 0)


async def test_a_stream_that_ended_cannot_harm_the_one_that_has_its_connection_now() -> None:
    release = asyncio.Event()

    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"one")
        await visit.request()
        await release.wait()
        await visit.answer(b"two")
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        first = tunnel.open("/v1/x", ("content-length", "3"))
        await first.write(b"abc")  # and no end: the stream is half open after its answer
        assert (await whole(first))[2] == b"one"
        second = asyncio.create_task(tunnel.ask(b"next"))
        await until(lambda: tunnel.local.pool.idle == 0)
        first.reset(ResetCode.CANCEL)
        await tunnel.clock.forward(0)
        release.set()
        assert (await second)[2] == b"two"
        assert len(server.visits) == 1


async def test_an_unread_answer_of_500_megabytes_holds_the_engine_not_the_memory() -> None:
    sent = 0

    async def engine(visit: Visit) -> None:
        nonlocal sent
        await visit.request()
        visit.writer.transport.set_write_buffer_limits(0)
        await visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 524288000\r\n\r\n")
        for _ in range(8000):
            await visit.send(bytes(65536))
            sent += 65536

    async with (
        upstream(engine) as server,
        upstream(echo) as neighbour,
        tunnelled(server.endpoint, neighbour.endpoint) as tunnel,
    ):
        stuck = tunnel.open()
        stuck.end()
        await stuck.head()
        before = -1
        while before != sent:  # until it no longer moves, while others are served
            before = sent
            for _ in range(20):
                await asyncio.sleep(0.005)
                assert (await tunnel.ask(b"hello", worker="w-2"))[2] == b"hello"
        assert sent < 16 << 20  # the sockets' own buffers, and a window
        stuck.reset(ResetCode.CANCEL)
        await until(lambda: tunnel.local.live == 0)


async def test_a_slow_reader_gets_every_octet() -> None:
    size = 3 << 20
    pattern = hashlib.sha256(b"").digest() * (size // 32)

    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for at in range(0, size, 50_000):
            piece = pattern[at : at + 50_000]
            await visit.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await visit.send(b"0\r\n\r\n")
        await visit.until_left()

    async with upstream(engine) as server, tunnelled(server.endpoint) as tunnel:
        stream = tunnel.open()
        stream.end()
        got = b""
        while data := await stream.read():
            got += data
            await asyncio.sleep(0.001)
        assert got == pattern


async def test_cancelling_the_part_gives_every_request_up() -> None:
    async def engine(visit: Visit) -> None:
        await visit.request()
        await visit.until_left()

    async with upstream(engine) as server:
        async with tunnelled(server.endpoint) as tunnel:
            stream = tunnel.open()
            stream.end()
            await server.arrived.wait()
        async with asyncio.timeout(SOON_S):
            await server.visits[0].left.wait()
        assert tunnel.local.live == 0
