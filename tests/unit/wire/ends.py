"""Two sessions over a link, with an application at each end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest

from mesh.kit.clock import Clock
from mesh.link.limits import Limits
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire.errors import StreamReset
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from tests.fakes.clock import FakeClock, settle
from tests.fakes.link import MemoryLink, memory_links

WINDOW = Limits().window
NOISE = Random(7).randbytes(1_500_000)

Handler = Callable[[Stream], Awaitable[None]]


@dataclass
class Ends:
    """The hub asks, the agent answers."""

    hub: Session
    agent: Session
    hub_link: MemoryLink
    agent_link: MemoryLink
    clock: Clock
    taken: list[Stream] = field(default_factory=list)
    """Streams the agent was given."""
    resets: list[StreamReset] = field(default_factory=list)
    """What handlers were cut off with."""

    async def ask(self, body: bytes = b"", worker: str = "w") -> Stream:
        """A stream, open at both ends, with that body."""
        stream = self.hub.open(pb.Open(worker_id=worker))
        await stream.write(body)
        return stream


async def echo(stream: Stream) -> None:
    """Answer with the body, as it comes."""
    stream.respond(pb.Head(status=200))
    while data := await stream.read():
        await stream.write(data)
    stream.end()


async def leave_it(stream: Stream) -> None:
    """Do nothing; the test does."""


@asynccontextmanager
async def ends(
    handler: Handler = echo,
    *,
    limits: Limits | None = None,
    room: int = 4,
    clock: Clock | None = None,
    on_open: Callable[[Stream], None] | None = None,
) -> AsyncIterator[Ends]:
    """Both sessions running; at the end, both are closed and every task has ended."""
    hub_link, agent_link = memory_links(room=room)
    clock = clock or FakeClock()
    async with asyncio.TaskGroup() as group:

        async def handle(stream: Stream) -> None:
            try:
                await handler(stream)
            except StreamReset as exc:
                both.resets.append(exc)

        def taken(stream: Stream) -> None:
            both.taken.append(stream)
            group.create_task(handle(stream))

        async def run(session: Session, link: MemoryLink) -> None:
            await session.run()
            await link.hang_up()

        hub = Session(hub_link, initiator=True, clock=clock, limits=limits)
        agent = Session(agent_link, initiator=False, clock=clock, limits=limits, on_open=on_open or taken)
        both = Ends(hub, agent, hub_link, agent_link, clock)
        tasks = [group.create_task(run(hub, hub_link)), group.create_task(run(agent, agent_link))]
        await settle()
        try:
            yield both
        finally:
            agent.close("test over")
            hub.close("test over")
            await asyncio.wait(tasks, timeout=5)


async def read_all(stream: Stream) -> bytes:
    """Everything up to the end."""
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def pour(stream: Stream, poured: list[int]) -> None:
    """Write for ever, noting how much was taken."""
    stream.respond(pb.Head(status=200))
    while True:
        await stream.write(bytes(8192))
        poured[0] += 8192


async def cancelled_while_waiting(work: asyncio.Task[object]) -> None:
    """Let it come to its wait, then cancel it."""
    await settle()
    assert not work.done()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
