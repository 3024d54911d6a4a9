"""Session and Stream over a link in memory: requests, answers, and readers who take their time."""

import asyncio
import hashlib

import pytest

from mesh.kit.errors import InvalidInput
from mesh.link.frames import ResetCode
from mesh.link.limits import Limits
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire.errors import SessionDraining, StreamReset, TooManyStreams
from mesh.wire.stream import Stream
from tests.fakes.clock import settle
from tests.unit.wire.ends import NOISE, WINDOW, echo, ends, leave_it, pour, read_all

# Requests and answers


async def test_a_request_and_its_answer_arrive_whole() -> None:
    async with ends() as both:
        stream = await both.ask(NOISE[:1000])
        stream.end()
        assert (await stream.head()).status == 200
        assert await read_all(stream) == NOISE[:1000]
        assert stream.done
        assert stream.code is None
        await both.hub.idle()
        await both.agent.idle()
        assert (both.hub.live, both.agent.live) == (0, 0)
        assert both.taken[0].request.worker_id == "w"
        assert both.taken[0].done


async def test_bodies_beyond_the_window_arrive_byte_for_byte_at_a_reader_that_takes_its_time() -> None:
    async def slow(stream: Stream) -> None:
        stream.respond(pb.Head(status=200))
        seen = hashlib.sha256()
        while data := await stream.read():
            seen.update(data)
            await settle(3)
        await stream.write(seen.digest())
        stream.end()

    async with ends(slow) as both:
        stream = await both.ask(NOISE)
        stream.end()
        assert await read_all(stream) == hashlib.sha256(NOISE).digest()


async def test_both_directions_flow_at_once() -> None:
    async with ends() as both, asyncio.TaskGroup() as group:
        stream = both.hub.open(pb.Open())

        async def talk() -> None:
            await stream.write(NOISE)
            stream.end()

        group.create_task(talk())
        assert await read_all(stream) == NOISE


async def test_reading_gives_all_that_is_there_in_one_piece_or_as_it_came() -> None:
    async with ends(leave_it) as both:
        stream = await both.ask()
        await settle()
        for piece in (b"a", b"b", b"c"):
            await stream.write(piece)
            await settle()
        assert await both.taken[0].read() == b"abc"
        for piece in (b"d", b"e"):
            await stream.write(piece)
            await settle()
        assert await both.taken[0].read_chunks() == [b"d", b"e"]
        stream.end()
        assert await both.taken[0].read() == b""
        assert await both.taken[0].read_chunks() == []


async def test_whoever_knows_that_it_has_all_need_not_read_on() -> None:
    async with ends(leave_it) as both:
        stream = await both.ask(b"request")
        stream.end()
        await settle()
        answering = both.taken[0]
        answering.respond(pb.Head(status=200))
        await answering.write(bytes(1000))
        assert len(await stream.read()) == 1000
        answering.end()
        await settle()
        assert stream.done
        assert both.hub.live == 0
        assert await answering.read() == b"request"
        assert both.agent.live == 0


async def test_what_is_ready_in_one_turn_leaves_in_one_message() -> None:
    async with ends(leave_it) as both:
        before = both.hub_link.messages
        for _ in range(50):
            (await both.ask(b"hello")).end()
        await settle()
        assert both.hub_link.messages == before + 1
        assert len(both.taken) == 50


async def test_an_answer_may_come_before_the_request_is_complete() -> None:
    async def hasty(stream: Stream) -> None:
        stream.respond(pb.Head(status=413))
        stream.end()

    async with ends(hasty) as both:
        stream = await both.ask(b"beginning")
        assert (await stream.head()).status == 413
        assert await read_all(stream) == b""
        assert not stream.done
        stream.reset(ResetCode.CANCEL)
        await both.agent.idle()
        assert (both.hub.live, both.agent.live) == (0, 0)


async def test_headers_that_do_not_fit_are_refused_at_once() -> None:
    async with ends(leave_it) as both:
        huge = [pb.Header(name="x", value="y" * 40_000)]
        with pytest.raises(InvalidInput, match="headers"):
            both.hub.open(pb.Open(headers=huge))
        await both.ask()
        await settle()
        with pytest.raises(InvalidInput, match="headers"):
            both.taken[0].respond(pb.Head(headers=huge))


async def test_writing_nothing_and_ending_twice_change_nothing() -> None:
    async with ends() as both:
        stream = await both.ask()
        await stream.write(b"")
        stream.end()
        stream.end()
        assert await read_all(stream) == b""
        stream.reset(ResetCode.CANCEL)
        assert stream.code is None


# Slow readers


async def test_an_unread_stream_takes_a_window_from_its_producer_and_no_more() -> None:
    poured = [0]
    async with ends(lambda stream: pour(stream, poured)) as both:
        stream = await both.ask()
        await stream.head()
        await settle(500)
        assert poured[0] <= WINDOW
        first = await stream.read()
        await settle(500)
        assert len(first) + poured[0] <= 2 * WINDOW, "what is in the reader's hands is not consumed yet"
        assert poured[0] <= WINDOW
        await stream.read()
        await settle(500)
        assert WINDOW < poured[0] <= 2 * WINDOW
        stream.reset(ResetCode.CANCEL)
        await both.agent.idle()
        assert both.resets[0].reason is ResetCode.CANCEL


async def test_the_neighbour_of_an_unread_stream_is_unharmed() -> None:
    poured = [0]

    async def by_name(stream: Stream) -> None:
        await (echo(stream) if stream.request.worker_id == "echo" else pour(stream, poured))

    async with ends(by_name) as both:
        stuck = [await both.ask() for _ in range(8)]
        await settle(500)
        for _ in range(4):
            stream = await both.ask(NOISE[:WINDOW], worker="echo")
            stream.end()
            assert await read_all(stream) == NOISE[:WINDOW]
        assert poured[0] <= 8 * WINDOW
        for stream in stuck:
            stream.reset(ResetCode.CANCEL)
        await both.agent.idle()


async def test_many_unread_streams_stay_within_what_a_link_may_hold_and_the_others_still_move() -> None:
    limits = Limits(streams=16, window=64 * 1024, octets=512 * 1024)
    poured = [0]

    async def by_name(stream: Stream) -> None:
        await (echo(stream) if stream.request.worker_id == "echo" else pour(stream, poured))

    async with ends(by_name, limits=limits) as both:
        stuck = [await both.ask() for _ in range(14)]
        await settle(500)
        assert poured[0] <= limits.octets
        stream = await both.ask(worker="echo")
        async with asyncio.TaskGroup() as group:

            async def talk() -> None:
                await stream.write(NOISE[:300_000])
                stream.end()

            group.create_task(talk())
            assert await read_all(stream) == NOISE[:300_000]
        del stuck


async def test_what_one_stream_gives_back_goes_to_those_who_lacked_it() -> None:
    limits = Limits(streams=16, window=64 * 1024, octets=256 * 1024)  # two windows are all that is common
    poured: dict[str, list[int]] = {name: [0] for name in "abc"}
    async with ends(lambda stream: pour(stream, poured[stream.request.worker_id]), limits=limits) as both:
        first = await both.ask(worker="a")
        await both.ask(worker="b")
        await settle(200)
        await both.ask(worker="c")
        await settle(200)
        assert [n for (n,) in poured.values()] == [limits.window, limits.window, limits.share]
        first.reset(ResetCode.CANCEL)
        await settle(200)
        assert poured["c"] == [limits.window]


async def test_a_link_that_does_not_move_takes_no_more_than_windows_allow() -> None:
    poured = [0]
    limits = Limits(streams=16, window=64 * 1024, octets=512 * 1024)
    async with ends(lambda stream: pour(stream, poured), limits=limits) as both:
        await both.agent_link.stall()
        streams = [await both.ask() for _ in range(16)]
        await settle(500)
        assert poured[0] <= limits.octets
        await both.agent_link.stall(stalled=False)
        for stream in streams:
            assert await stream.read()
            stream.reset(ResetCode.CANCEL)


# Draining, and how many


async def test_draining_lets_what_is_open_end_and_takes_nothing_new() -> None:
    async with ends() as both:
        stream = await both.ask(b"goes ")
        await settle()
        both.agent.drain()
        crossed = both.hub.open(pb.Open())
        await settle()
        with pytest.raises(SessionDraining):
            both.hub.open(pb.Open())
        with pytest.raises(StreamReset) as caught:
            await crossed.head()
        assert caught.value.reason is ResetCode.DRAINING
        assert both.hub.draining
        async with asyncio.TaskGroup() as group:
            idle = group.create_task(both.agent.idle())
            await settle()
            assert not idle.done()
            await stream.write(b"on")
            stream.end()
            assert await read_all(stream) == b"goes on"
        assert len(both.taken) == 1


async def test_a_full_link_says_so() -> None:
    async with ends(leave_it, limits=Limits(streams=2)) as both:
        stream = await both.ask()
        await both.ask()
        with pytest.raises(TooManyStreams):
            both.hub.open(pb.Open())
        stream.reset(ResetCode.CANCEL)
        await both.ask()
