"""Session and Stream: cut off, cancelled, or without a link all at once."""

import asyncio

import pytest

from mesh.kit.errors import Unavailable
from mesh.link.frames import Kind, ResetCode, pack
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire import session as session_module
from mesh.wire.errors import LinkLost, StreamReset
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from tests.fakes.clock import FakeClock, settle
from tests.fakes.link import memory_links
from tests.unit.wire.ends import NOISE, cancelled_while_waiting, ends, leave_it, pour, read_all

# Cutting off


async def test_a_reset_reaches_whoever_reads_or_writes_at_the_other_end() -> None:
    poured = [0]
    async with ends(lambda stream: pour(stream, poured)) as both:
        stream = await both.ask()
        await settle(500)
        stream.reset(ResetCode.CANCEL)
        stream.reset(ResetCode.TIMEOUT)
        await both.agent.idle()
        assert [exc.reason for exc in both.resets] == [ResetCode.CANCEL]
        assert stream.code is ResetCode.CANCEL
        with pytest.raises(StreamReset):
            await stream.read()
        with pytest.raises(StreamReset):
            await stream.write(b"x")
        with pytest.raises(StreamReset):
            await stream.head()
        stream.end()
        assert stream.done


async def test_what_was_received_before_a_reset_is_forgotten() -> None:
    async with ends(leave_it) as both:
        stream = await both.ask(b"unread")
        await settle()
        stream.reset(ResetCode.CANCEL)
        await settle()
        with pytest.raises(StreamReset):
            await both.taken[0].read()
        with pytest.raises(StreamReset):
            both.taken[0].respond(pb.Head(status=200))


async def test_a_worker_that_fails_is_told_to_the_one_who_waits_for_the_head() -> None:
    async def fail(stream: Stream) -> None:
        stream.reset(ResetCode.UPSTREAM_FAILED)

    async with ends(fail) as both:
        stream = await both.ask()
        with pytest.raises(StreamReset) as caught:
            await stream.head()
        assert caught.value.reason is ResetCode.UPSTREAM_FAILED
        assert caught.value.code == Unavailable.code
        assert str(caught.value) == "stream reset: upstream_failed"


async def test_whoever_waits_for_something_else_is_called_when_the_stream_is_cut_off() -> None:
    codes: list[ResetCode] = []
    async with ends(leave_it) as both:
        stream = await both.ask()
        await settle()
        both.taken[0].when_cut_off(codes.append)
        stream.reset(ResetCode.TIMEOUT)
        await settle()
        both.taken[0].when_cut_off(codes.append)
        assert codes == [ResetCode.TIMEOUT, ResetCode.TIMEOUT]


async def test_a_stream_given_up_before_it_left_is_never_seen_at_the_other_end() -> None:
    async with ends(leave_it) as both:
        both.hub.open(pb.Open()).reset(ResetCode.CANCEL)
        await settle()
        assert both.taken == []
        assert both.hub.live == 0


# The link ends


@pytest.mark.parametrize("cut", ["cut", "hub closes", "agent closes", "hub stops"])
async def test_the_end_of_the_link_ends_every_stream_at_both_ends(cut: str) -> None:
    poured = [0]
    async with ends(lambda stream: pour(stream, poured)) as both, asyncio.TaskGroup() as group:
        reading, waiting = await both.ask(), both.hub.open(pb.Open())
        await reading.head()
        await settle()

        async def expect_loss(stream: Stream) -> None:
            with pytest.raises(StreamReset) as caught:
                await read_all(stream)
            assert caught.value.reason is ResetCode.LINK_LOST

        group.create_task(expect_loss(reading))
        group.create_task(expect_loss(waiting))
        await settle()
        match cut:
            case "cut":
                await both.hub_link.cut()
            case "hub closes":
                both.hub.close()
            case "agent closes":
                both.agent.close()
            case "hub stops":
                await both.hub_link.hang_up()
        await both.hub.idle()
        await both.agent.idle()
        await settle()
        assert {exc.reason for exc in both.resets} == {ResetCode.LINK_LOST}
        assert (both.hub.live, both.agent.live) == (0, 0)
        assert both.hub.closed
        assert both.agent.closed
        with pytest.raises(LinkLost):
            both.hub.open(pb.Open())


async def test_what_arrived_whole_can_still_be_read_after_the_link_is_gone() -> None:
    async with ends() as both:
        stream = await both.ask(b"all of it")
        stream.end()
        await settle()
        await both.hub_link.cut()
        await both.hub.idle()
        assert await read_all(stream) == b"all of it"


async def test_a_blocked_writer_learns_of_the_end() -> None:
    async with ends(leave_it, room=1) as both:
        await both.hub_link.stall()
        async with asyncio.TaskGroup() as group:

            async def talk() -> None:
                with pytest.raises(StreamReset) as caught:
                    await (await both.ask()).write(NOISE)
                assert caught.value.reason is ResetCode.LINK_LOST

            group.create_task(talk())
            await settle(100)
            await both.hub_link.cut()


async def test_closing_says_goodbye_and_waits_for_the_peers() -> None:
    async with ends() as both:
        stream = await both.ask(b"x")
        stream.end()
        assert await read_all(stream) == b"x"
        await both.agent.idle()
        both.agent.close("left")
        await settle()
        assert (both.agent.why, both.hub.why) == ("left", "peer_ended")
        both.agent.close("again")
        assert both.agent.why == "left"


async def test_a_peer_that_does_not_say_goodbye_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "CLOSE_WITHIN_S", 0.01)
    _, agent_link = memory_links()
    agent = Session(agent_link, initiator=False, clock=FakeClock())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agent.run())
        await settle()
        agent.close()
        await running
    assert agent.why == "closed"


async def test_what_a_peer_says_after_our_goodbye_is_not_heard() -> None:
    hub_link, agent_link = memory_links()
    taken: list[Stream] = []
    agent = Session(agent_link, initiator=False, clock=FakeClock(), on_open=taken.append)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agent.run())
        await settle()
        agent.close()
        await settle()
        await hub_link.send(pack(Kind.OPEN, 1))
        await hub_link.hang_up()
        await running
    assert taken == []


async def test_a_session_that_is_cancelled_ends_its_streams_and_holds_nothing() -> None:
    hub_link, _ = memory_links()
    hub = Session(hub_link, initiator=True, clock=FakeClock())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(hub.run())
        stream = hub.open(pb.Open())
        await settle()
        running.cancel()
    with pytest.raises(StreamReset):
        await stream.head()
    assert hub.closed
    assert hub.why == "stopped"
    await hub.idle()


async def test_a_session_closed_before_it_runs_ends_at_once() -> None:
    hub_link, _ = memory_links()
    hub = Session(hub_link, initiator=True, clock=FakeClock())
    hub.close("replaced")
    await hub.run()
    assert hub.why == "replaced"


# Cancelling at every wait


async def test_a_cancelled_read_leaves_a_stream_that_can_be_read_or_reset() -> None:
    async with ends(leave_it) as both:
        stream = await both.ask()
        await settle()
        answering = both.taken[0]
        await cancelled_while_waiting(asyncio.ensure_future(answering.read()))
        await stream.write(b"now")
        assert await answering.read() == b"now"
        await cancelled_while_waiting(asyncio.ensure_future(answering.read_chunks()))
        answering.reset(ResetCode.CANCEL)
        await both.hub.idle()
        assert (both.hub.live, both.agent.live) == (0, 0)


async def test_a_cancelled_wait_for_the_head_leaves_a_stream_that_can_be_reset() -> None:
    async with ends(leave_it) as both:
        stream = await both.ask()
        await cancelled_while_waiting(asyncio.ensure_future(stream.head()))
        stream.reset(ResetCode.CANCEL)
        await both.agent.idle()
        assert (both.hub.live, both.agent.live) == (0, 0)


async def test_a_cancelled_write_leaves_a_stream_that_can_be_reset() -> None:
    async with ends(leave_it) as both:
        stream = await both.ask()
        await cancelled_while_waiting(asyncio.ensure_future(stream.write(NOISE)))
        stream.reset(ResetCode.CANCEL)
        await both.agent.idle()
        assert (both.hub.live, both.agent.live) == (0, 0)


async def test_a_cancelled_wait_for_idleness_leaves_nothing() -> None:
    async with ends(leave_it) as both:
        stream = await both.ask()
        await cancelled_while_waiting(asyncio.ensure_future(both.hub.idle()))
        stream.reset(ResetCode.CANCEL)
        await both.hub.idle()


async def test_a_wake_up_that_meets_a_cancelled_waiter_is_lost_on_nobody() -> None:
    """Cancelled and woken in one turn of the loop: the cancellation wins, the octets stay."""
    async with ends(leave_it) as both:
        stream = await both.ask()
        await settle()
        answering = both.taken[0]
        reading = asyncio.ensure_future(answering.read())
        await settle()
        reading.cancel()
        answering.received(b"x")
        answering.received(b"y")
        with pytest.raises(asyncio.CancelledError):
            await reading
        writing = asyncio.ensure_future(stream.write(NOISE))
        await settle()
        writing.cancel()
        stream.credited()
        with pytest.raises(asyncio.CancelledError):
            await writing
        waiting = asyncio.ensure_future(both.hub.idle())
        await settle()
        waiting.cancel()
        both.hub.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_one_task_reads_and_one_writes() -> None:
    async with ends(leave_it) as both:
        stream = await both.ask()
        reading = asyncio.ensure_future(stream.read())
        writing = asyncio.ensure_future(stream.write(NOISE))
        await settle()
        with pytest.raises(RuntimeError, match="read"):
            await stream.head()
        with pytest.raises(RuntimeError, match="write"):
            await stream.write(NOISE)
        for task in (reading, writing):
            await cancelled_while_waiting(task)
