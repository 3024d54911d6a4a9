"""Session: peers that misbehave, fall silent or forget."""

import asyncio

import pytest

from mesh.link.frames import Kind, ResetCode, pack
from mesh.link.limits import MAX_FAULTS
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire.errors import StreamReset
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from tests.fakes.clock import FakeClock, settle
from tests.fakes.link import memory_links
from tests.unit.wire.ends import Ends, ends, leave_it

# Peers that misbehave


async def said_by_hub(*batches: bytes) -> tuple[Session, list[Stream]]:
    """An agent's session after a hub has said that; the link goes on for as long as the agent likes."""
    hub_link, agent_link = memory_links(room=100)
    taken: list[Stream] = []
    agent = Session(agent_link, initiator=False, clock=FakeClock(), on_open=taken.append)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agent.run())
        for batch in batches:
            await hub_link.send(batch)
        await settle(100)
        await hub_link.hang_up()
        await running
    return agent, taken


async def test_a_malformed_batch_ends_the_link() -> None:
    agent, _ = await said_by_hub(b"\xff" * 20)
    assert agent.why == "unknown_kind"


async def test_a_peer_that_breaks_too_many_rules_loses_its_link() -> None:
    stray = pack(Kind.END, 9)
    agent, _ = await said_by_hub(*[stray] * (MAX_FAULTS - 1))
    assert agent.why == "peer_ended"
    agent, _ = await said_by_hub(*[stray] * MAX_FAULTS)
    assert agent.why == "too_many_faults"


async def test_the_last_fault_ends_the_link_in_the_middle_of_a_batch() -> None:
    agent, taken = await said_by_hub(
        pack(Kind.OPEN, 1) + pack(Kind.END, 9) * MAX_FAULTS + pack(Kind.DATA, 1, b"x") + pack(Kind.END, 1)
    )
    assert agent.why == "too_many_faults"
    assert taken[0].code is ResetCode.LINK_LOST


async def test_an_open_that_cannot_be_read_is_reset_and_the_rest_goes_on() -> None:
    frames = pack(Kind.OPEN, 1, b"\xff") + pack(Kind.DATA, 1, b"x") + pack(Kind.END, 1) + pack(Kind.OPEN, 2)
    agent, taken = await said_by_hub(frames)
    assert [stream.id for stream in taken] == [2]
    assert agent.why == "peer_ended"


async def test_what_follows_in_the_batch_that_made_us_give_up_is_not_kept() -> None:
    def give_up(stream: Stream) -> None:
        taken.append(stream)
        stream.reset(ResetCode.WORKER_UNKNOWN)

    taken: list[Stream] = []
    hub_link, agent_link = memory_links()
    agent = Session(agent_link, initiator=False, clock=FakeClock(), on_open=give_up)
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.run())
        await hub_link.send(pack(Kind.OPEN, 1) + pack(Kind.DATA, 1, b"x") + pack(Kind.END, 1))
        await settle()
        assert taken[0].code is ResetCode.WORKER_UNKNOWN
        assert agent.live == 0
        await hub_link.hang_up()


async def test_a_stream_opened_and_given_up_in_one_batch_is_not_begun() -> None:
    _, taken = await said_by_hub(pack(Kind.OPEN, 1) + pack(Kind.RESET, 1, b"\1"))
    assert taken == []


async def test_a_head_that_cannot_be_read_resets_the_stream() -> None:
    hub_link, agent_link = memory_links()
    hub = Session(hub_link, initiator=True, clock=FakeClock())
    async with asyncio.TaskGroup() as group:
        group.create_task(hub.run())
        stream = hub.open(pb.Open())
        await agent_link.receive()
        await agent_link.send(pack(Kind.HEAD, 1, b"\xff"))
        with pytest.raises(StreamReset) as caught:
            await stream.head()
        assert caught.value.reason is ResetCode.PROTOCOL
        hub.close()


async def test_what_follows_in_the_batch_that_ended_the_link_is_not_heard() -> None:
    hub_link, agent_link = memory_links()
    hub = Session(hub_link, initiator=True, clock=FakeClock())
    async with asyncio.TaskGroup() as group:
        group.create_task(hub.run())
        stream = hub.open(pb.Open())
        await agent_link.receive()
        rest = pack(Kind.HEAD, 1) + pack(Kind.DATA, 1, b"x") + pack(Kind.END, 1)
        await agent_link.send(pack(Kind.END, 9) * MAX_FAULTS + rest)
        with pytest.raises(StreamReset) as caught:
            await stream.head()
        assert caught.value.reason is ResetCode.LINK_LOST
    assert hub.why == "too_many_faults"


async def test_a_request_that_cannot_be_taken_up_harms_no_other() -> None:
    taken: list[Stream] = []

    def refuse_first(stream: Stream) -> None:
        taken.append(stream)
        if len(taken) == 1:
            raise RuntimeError("a mistake")
        stream.respond(pb.Head(status=204))
        stream.end()

    async with ends(on_open=refuse_first) as both:
        first, second = await both.ask(), await both.ask()
        with pytest.raises(StreamReset) as caught:
            await first.head()
        assert caught.value.reason is ResetCode.UPSTREAM_FAILED
        assert (await second.head()).status == 204


async def test_a_side_that_takes_no_requests_refuses_them() -> None:
    hub_link, agent_link = memory_links()
    hub = Session(hub_link, initiator=True, clock=FakeClock())
    agent = Session(agent_link, initiator=False, clock=FakeClock())
    async with asyncio.TaskGroup() as group:
        group.create_task(hub.run())
        group.create_task(agent.run())
        with pytest.raises(StreamReset) as caught:
            await hub.open(pb.Open()).head()
        assert caught.value.reason is ResetCode.REFUSED
        await hub_link.cut()


# Probes


async def test_a_peer_that_answers_probes_keeps_its_link() -> None:
    clock = FakeClock()
    async with ends(leave_it, clock=clock) as both:
        stream = await both.ask()
        for _ in range(5):
            await clock.forward(30)
        assert not both.hub.closed
        assert not both.agent.closed
        assert not stream.done


async def test_a_peer_that_does_not_answer_a_probe_loses_its_link() -> None:
    clock = FakeClock()
    async with ends(leave_it, clock=clock) as both:
        stream = await both.ask()
        await both.agent_link.stall()
        await clock.forward(30)
        assert not both.hub.closed
        await clock.forward(30)
        assert both.hub.why == "peer_silent"
        with pytest.raises(StreamReset) as caught:
            await stream.head()
        assert caught.value.reason is ResetCode.LINK_LOST
        await both.agent_link.stall(stalled=False)


async def test_a_stream_the_peer_has_forgotten_is_reset() -> None:
    clock = FakeClock()
    hub_link, agent_link = memory_links()
    hub = Session(hub_link, initiator=True, clock=clock)
    async with asyncio.TaskGroup() as group:
        group.create_task(hub.run())
        stream = hub.open(pb.Open())
        await settle()
        agent = Session(agent_link, initiator=False, clock=clock, on_open=forgetful)
        group.create_task(agent.run())
        await settle()
        await clock.forward(30)
        with pytest.raises(StreamReset) as caught:
            await stream.head()
        assert caught.value.reason is ResetCode.FORGOTTEN
        await hub_link.cut()


def forgetful(stream: Stream) -> None:
    """Loses the stream without a word, as only a defect could."""
    stream._mux._books.drop(stream._mux._flows[stream.id])


async def test_the_rig_itself_ends_every_task() -> None:
    async with ends(leave_it) as both:
        assert isinstance(both, Ends)
    assert both.hub.closed
    assert both.agent.closed
