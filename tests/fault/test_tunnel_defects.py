"""The tunnel defects that peers have, as tests against ours: real gateway, real agent tunnel, real mTLS."""

import asyncio
import hashlib
import os
import signal
import socket

import pytest

from tests.fault.spine import LAST_CHUNK, SSE_HEAD, Running, event, framed, ready, running, until_ready, upstream

pytestmark = pytest.mark.real

LONG = int(os.environ.get("CHAOS_ROUNDS", "1")) > 1
UNREAD = 500 * 2**20
MAY_GROW_MIB = 16


async def answer_shortly(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _body: bytes) -> None:
    writer.write(SSE_HEAD + framed(event("hello")) + framed(b"data: [DONE]\n\n") + LAST_CHUNK)
    await writer.drain()


async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _body: bytes) -> None:
    """A token now and then, for ever."""
    writer.write(SSE_HEAD)
    while True:
        writer.write(framed(event("tick")))
        await writer.drain()
        await asyncio.sleep(0.02)


async def first_event(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        await reader.readuntil(b"tick")


async def test_an_unread_stream_costs_a_window_and_harms_nobody() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
        nonlocal sent
        if b'"stream":true' not in body.replace(b" ", b""):
            text = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
                + text
            )
            await writer.drain()
            return
        del reader
        piece = framed(event("x" * 8000))
        writer.write(SSE_HEAD)
        while sent < UNREAD:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async with upstream(flood) as port, running(port) as spine:
        for _ in range(20):  # what a first request costs once is not the stream's
            assert (await spine.ask(stream=False))[0] == 200
        before = spine.rss_mib()
        reader, writer = await spine.request()
        await reader.readuntil(b"\r\n\r\n")  # the head, and from here on nothing
        last = -1
        async with asyncio.timeout(60):
            while sent != last:  # until nothing moves any more
                last = sent
                for _ in range(10):
                    assert (await spine.ask(stream=False))[0] == 200, "a neighbour is unharmed"
                    await asyncio.sleep(0.05)
        after = spine.rss_mib()
        writer.close()
    assert 0 < sent < UNREAD / 10
    grown = {name: after[name] - before[name] for name in after}
    assert max(grown.values()) < MAY_GROW_MIB, grown


@pytest.mark.parametrize(("number", "within_s"), [(signal.SIGKILL, 5), (signal.SIGSTOP, 15)])
async def test_a_tunnel_that_dies_ends_its_streams(number: signal.Signals, within_s: int) -> None:
    async with upstream(trickle) as port, running(port) as spine:
        reader, writer = await spine.request()
        await first_event(reader)
        os.kill(spine.nodes[0].pid, number)
        async with asyncio.timeout(within_s):
            rest = await reader.read(-1)
        writer.close()
    assert b'"error"' in rest
    assert b"[DONE]" not in rest


async def test_after_a_fenced_reconnect_no_request_fails() -> None:
    async with upstream(answer_shortly) as port, running(port) as spine:
        old = spine.nodes[0]
        # The old session hangs, unnoticed yet; the node comes back beside it with a newer epoch.
        os.kill(old.pid, signal.SIGSTOP)
        spine.start_node(epoch=2)
        await until_served_by_new(spine)
        # Now the old one wakes, finds itself replaced, and tries to come back with its old epoch.
        os.kill(old.pid, signal.SIGCONT)
        statuses = []
        for _ in range(60):
            status, body = await spine.ask()
            statuses.append(status if b"[DONE]" in body else -1)
            await asyncio.sleep(0.05)
        assert set(statuses) == {200}
        log = (spine.folder / "node-0.log").read_text()
        assert "stale_epoch" in log or old.poll() is None
        # And a kill of the old process takes nothing with it.
        old.kill()
        for _ in range(20):
            assert (await spine.ask())[0] == 200


async def until_served_by_new(spine: Running) -> None:
    """Until a request is answered although the old session is frozen."""
    async with asyncio.timeout(30):
        while True:
            try:
                status, _ = await spine.ask(within_s=1)
            except TimeoutError:
                continue
            if status == 200:
                return


async def test_a_slow_connect_of_one_request_does_not_delay_another() -> None:
    # A listener whose queue is full: the kernel lets further connects wait.
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = []
    for _ in range(4):
        waiting.append(filler := socket.socket())
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
    try:
        async with upstream(answer_shortly) as port, running(port, stuck=full.getsockname()[1]) as spine:
            _, writer = await spine.request("stuck")
            for _ in range(20):
                status, body = await spine.ask(within_s=2)
                assert status == 200
                assert body.count(b"hello") == 1
            writer.close()
    finally:
        for each in (full, *waiting):
            each.close()


async def test_a_slow_reader_gets_every_octet() -> None:
    """1 kB/s, for ten seconds in the short form and a minute in the long one; then all the rest at once."""
    pieces = [event(f"{number:06d}" * 40) for number in range(4000)]

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _body: bytes) -> None:
        writer.write(SSE_HEAD)
        for piece in pieces:
            writer.write(framed(piece))
            await writer.drain()
        writer.write(framed(b"data: [DONE]\n\n") + LAST_CHUNK)
        await writer.drain()

    async with upstream(answer) as port, running(port) as spine:
        reader, writer = await spine.request()
        await reader.readuntil(b"\r\n\r\n")
        digest = hashlib.sha256()
        slow_reads = 60 if LONG else 10
        while size := int((await reader.readline()) or b"0", 16):
            for at in range(0, size, 1024):
                digest.update(await reader.readexactly(min(1024, size - at)))
                if slow_reads:
                    slow_reads -= 1
                    await asyncio.sleep(1.0)
            await reader.readexactly(2)
        writer.close()
    assert not slow_reads
    assert digest.digest() == hashlib.sha256(b"".join(pieces) + b"data: [DONE]\n\n").digest()


async def test_a_client_that_leaves_frees_the_engine() -> None:
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
        try:
            await trickle(reader, writer, body)
        except OSError:
            gone.set()
            raise

    async with upstream(answer) as port, running(port) as spine:
        reader, writer = await spine.request()
        await first_event(reader)
        writer.transport.abort()
        async with asyncio.timeout(5):
            await gone.wait()
        assert await ready(spine)
        await until_ready(spine)
