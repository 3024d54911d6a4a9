"""The link over a real gRPC stream on loopback: greetings, bodies, and every way a call can be over."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import grpc
import pytest

from mesh.kit.clock import WallClock
from mesh.link.frames import LinkError, ResetCode
from mesh.link.limits import Limits
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.tunnel.v1.tunnel_pb2_grpc import (
    TunnelServiceServicer,
    TunnelServiceStub,
    add_TunnelServiceServicer_to_server,
)
from mesh.wire.channel import DATA_CHANNEL_OPTIONS, DATA_SERVER_OPTIONS
from mesh.wire.errors import LinkLost, StreamReset
from mesh.wire.grpc_link import ClientCall, ClientLink, ServerContext, ServerLink
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from tests.fakes.patience import eventually
from tests.unit.wire.ends import Handler, echo, leave_it, read_all

NOISE = random.Random(11).randbytes(5_000_000)

Serve = Callable[[ServerLink], Awaitable[None]]


class Hub(TunnelServiceServicer):
    """Hands every call's link to the test."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve

    async def Attach(self, _requests: AsyncIterator[pb.AttachRequest], context: ServerContext) -> None:
        await self._serve(ServerLink(context))


@asynccontextmanager
async def hub(serve: Serve) -> AsyncIterator[ClientCall]:
    """A hub that treats links so, and a call to it."""
    server = grpc.aio.server(options=DATA_SERVER_OPTIONS)
    add_TunnelServiceServicer_to_server(Hub(serve), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=DATA_CHANNEL_OPTIONS) as channel:
            yield TunnelServiceStub(channel).Attach()
    finally:
        await server.stop(None)


@dataclass
class Tunnel:
    """Both sessions, and the call between them."""

    hub: Session
    agent: Session
    call: ClientCall
    taken: list[Stream]


@asynccontextmanager
async def tunnel(handler: Handler = echo) -> AsyncIterator[Tunnel]:
    """An agent attached to a hub."""
    attached: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
    left = asyncio.Event()

    async def serve(link: ServerLink) -> None:
        hello = await link.hello()
        await link.welcome(f"hub of epoch {hello.epoch}")
        session = Session(link, initiator=True, clock=WallClock())
        attached.set_result(session)
        try:
            await session.run()
        finally:
            left.set()

    async with hub(serve) as call, asyncio.TaskGroup() as group:

        async def handle(stream: Stream) -> None:
            with suppress(StreamReset):
                await handler(stream)

        def taken(stream: Stream) -> None:
            both.taken.append(stream)
            group.create_task(handle(stream))

        link = ClientLink(call)
        assert await link.greet(epoch=7) == "hub of epoch 7"
        agent = Session(link, initiator=False, clock=WallClock(), on_open=taken)
        both = Tunnel(await attached, agent, call, [])
        group.create_task(agent.run())
        try:
            yield both
        finally:
            agent.close("test over")
            async with asyncio.timeout(10):
                await left.wait()


async def test_bodies_arrive_byte_for_byte_both_ways() -> None:
    async with tunnel() as both, asyncio.TaskGroup() as group:
        stream = both.hub.open(pb.Open(worker_id="w"))

        async def talk() -> None:
            await stream.write(NOISE)
            stream.end()

        group.create_task(talk())
        assert (await stream.head()).status == 200
        assert await read_all(stream) == NOISE
        await both.hub.idle()
        await both.agent.idle()
        assert (both.hub.live, both.agent.live) == (0, 0)


async def test_a_hundred_requests_at_once_each_get_their_own_answer() -> None:
    async with tunnel() as both, asyncio.TaskGroup() as group:

        async def one(number: int) -> None:
            stream = both.hub.open(pb.Open())
            body = NOISE[number * 1000 : number * 1500 + 10]
            await stream.write(body)
            stream.end()
            assert await read_all(stream) == body

        for number in range(100):
            group.create_task(one(number))


async def test_an_endless_stream_that_nobody_reads_costs_its_window_and_harms_no_neighbour() -> None:
    poured = [0]

    async def by_name(stream: Stream) -> None:
        if stream.request.worker_id == "echo":
            return await echo(stream)
        stream.respond(pb.Head(status=200))
        while poured[0] < 500_000_000:
            await stream.write(bytes(100_000))
            poured[0] += 100_000

    async with tunnel(by_name) as both:
        stuck = both.hub.open(pb.Open())
        await stuck.head()
        for _ in range(5):
            stream = both.hub.open(pb.Open(worker_id="echo"))
            await stream.write(NOISE[:200_000])
            stream.end()
            assert hashlib.sha256(await read_all(stream)).digest() == hashlib.sha256(NOISE[:200_000]).digest()
        assert poured[0] <= Limits().window
        stuck.reset(ResetCode.CANCEL)
        await both.agent.idle()


async def test_an_agent_that_closes_ends_the_call_without_a_cancel() -> None:
    async with tunnel() as both:
        stream = both.hub.open(pb.Open())
        await stream.write(b"last words")
        stream.end()
        assert await read_all(stream) == b"last words"
        both.agent.drain()
        await both.agent.idle()
        both.agent.close("left")
        assert await both.call.code() is grpc.StatusCode.OK
        assert both.hub.why == "peer_ended"


async def test_an_agent_that_is_gone_ends_every_stream_at_the_hub() -> None:
    async with tunnel(leave_it) as both:
        stream = both.hub.open(pb.Open())
        await eventually(lambda: bool(both.taken))
        both.call.cancel()
        with pytest.raises(StreamReset) as caught:
            await stream.head()
        assert caught.value.reason is ResetCode.LINK_LOST
        await eventually(lambda: both.agent.closed)
        assert both.taken[0].code is ResetCode.LINK_LOST


async def test_a_hub_that_closes_ends_every_stream_at_the_agent() -> None:
    async with tunnel(leave_it) as both:
        both.hub.open(pb.Open())
        await eventually(lambda: bool(both.taken))
        both.hub.close("replaced")
        await eventually(lambda: both.agent.closed)
        assert both.taken[0].code is ResetCode.LINK_LOST
        assert both.agent.why == "peer_ended"


async def test_a_call_that_is_aborted_says_why() -> None:
    async def refuse(link: ServerLink) -> None:
        await link._context.abort(grpc.StatusCode.UNAUTHENTICATED, "certificate expired")

    async with hub(refuse) as call:
        with pytest.raises(LinkLost, match="unauthenticated: certificate expired"):
            await ClientLink(call).greet(epoch=1)


async def test_everything_on_a_call_that_is_over_is_a_lost_link() -> None:
    ended = asyncio.Event()
    links: list[ServerLink] = []

    async def serve(link: ServerLink) -> None:
        links.append(link)
        await link.hello()
        await link.welcome("h")
        ended.set()

    async with hub(serve) as call:
        link = ClientLink(call)
        await link.greet(epoch=1)
        await ended.wait()
        assert await link.receive() is None
        await call.code()
        with pytest.raises(LinkLost):
            await link.send(b"x")
        assert await link.close()
        with pytest.raises(LinkLost):
            await links[0].send(b"x")
        with pytest.raises(LinkLost):
            await links[0].receive()
        assert not await links[0].close()


async def test_after_goodbye_nothing_more_can_be_sent() -> None:
    async def serve(link: ServerLink) -> None:
        await link.hello()
        await link.welcome("h")
        assert await link.receive() is None

    async with hub(serve) as call:
        link = ClientLink(call)
        await link.greet(epoch=1)
        assert await link.close()
        with pytest.raises(LinkLost):
            await link.send(b"x")
        assert await call.code() is grpc.StatusCode.OK


async def test_cancelling_whoever_waits_is_not_a_lost_link() -> None:
    async def serve(link: ServerLink) -> None:
        await link.hello()
        await link.receive()

    async with hub(serve) as call:
        waiting = asyncio.ensure_future(ClientLink(call).greet(epoch=1))
        await call.wait_for_connection()
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(LinkLost):  # grpc.aio cancels the call with whoever waited on it
            await ClientLink(call).receive()
        assert not await ClientLink(BrokenCall()).close()  # type: ignore[arg-type]  # stands in for a call


class BrokenCall:
    """A call whose half-close fails, as gRPC's can when the connection breaks in that moment."""

    async def done_writing(self) -> None:
        raise grpc.aio.InternalError("broken")


@pytest.mark.parametrize(
    ("first", "reason"),
    [(pb.AttachRequest(frames=b""), "no_hello"), (pb.AttachRequest(), "no_hello")],
)
async def test_an_agent_says_hello_first(first: pb.AttachRequest, reason: str) -> None:
    seen: list[str] = []

    async def serve(link: ServerLink) -> None:
        try:
            await link.hello()
        except LinkError as exc:
            seen.append(exc.reason)

    async with hub(serve) as call:
        await call.write(first)
        await call.code()
        assert seen == [reason]


async def test_an_agent_that_says_nothing_is_gone() -> None:
    lost = asyncio.Event()

    async def serve(link: ServerLink) -> None:
        with pytest.raises(LinkLost):
            await link.hello()
        lost.set()

    async with hub(serve) as call:
        await call.done_writing()
        await call.code()
        assert lost.is_set()


async def test_a_hub_answers_with_welcome() -> None:
    async def frames_at_once(link: ServerLink) -> None:
        await link.hello()
        await link.send(b"x")

    async with hub(frames_at_once) as call:
        with pytest.raises(LinkError) as caught:
            await ClientLink(call).greet(epoch=1)
        assert caught.value.reason == "no_welcome"

    async def nothing(link: ServerLink) -> None:
        await link.hello()

    async with hub(nothing) as call:
        with pytest.raises(LinkLost):
            await ClientLink(call).greet(epoch=1)


async def test_after_the_greetings_there_are_only_frames() -> None:
    seen: list[str] = []

    async def serve(link: ServerLink) -> None:
        await link.hello()
        await link.welcome("h")
        await link.welcome("again")
        try:
            await link.receive()
        except LinkError as exc:
            seen.append(exc.reason)

    async with hub(serve) as call:
        link = ClientLink(call)
        await link.greet(epoch=1)
        with pytest.raises(LinkError) as caught:
            await link.receive()
        assert caught.value.reason == "no_frames"
        await call.write(pb.AttachRequest(hello=pb.Hello(epoch=2)))
        await call.code()
        assert seen == ["no_frames"]
