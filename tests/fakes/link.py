"""Two ends of a link in memory, with the faults a network has.

An honest fake of ``mesh.wire.session.Link``: ordered and lossless until it is cut; a sender waits while more than
``room`` batches are under way; a stalled direction holds what is sent; a cut ends both directions at once.
"""

import asyncio
from collections import deque

from mesh.wire.errors import LinkLost


class _Pipe:
    """One direction."""

    def __init__(self, room: int) -> None:
        self.batches: deque[bytes] = deque()
        self.room = room
        self.stalled = False
        self.ended = False
        self.broken = False
        self.carried = 0  # octets that went through, ever
        self.messages = 0
        self.changed = asyncio.Condition()

    async def put(self, batch: bytes) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.broken or len(self.batches) < self.room)
            if self.broken:
                raise LinkLost("cut")
            self.batches.append(batch)
            self.messages += 1
            self.changed.notify_all()

    async def get(self) -> bytes | None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.broken or (not self.stalled and (self.batches or self.ended)))
            if self.broken:
                raise LinkLost("cut")
            if not self.batches:
                return None
            batch = self.batches.popleft()
            self.carried += len(batch)
            self.changed.notify_all()
            return batch

    async def change(self, **facts: bool) -> None:
        async with self.changed:
            for name, value in facts.items():
                setattr(self, name, value)
            self.changed.notify_all()


class MemoryLink:
    """One end. ``initiator`` and ``acceptor`` of ``memory_links`` are each other's peer."""

    def __init__(self, out: _Pipe, into: _Pipe, *, tells_its_end: bool) -> None:
        self._out, self._into = out, into
        self._tells_its_end = tells_its_end

    @property
    def sent(self) -> int:
        """Octets of this end that have arrived at the other."""
        return self._out.carried

    @property
    def messages(self) -> int:
        """Batches this end has sent."""
        return self._out.messages

    async def receive(self) -> bytes | None:
        return await self._into.get()

    async def send(self, batch: bytes) -> None:
        await self._out.put(batch)

    async def close(self) -> bool:
        """Like gRPC: the client's end is told, the server's is seen only when its handler is gone."""
        if self._tells_its_end:
            await self._out.change(ended=True)
        return self._tells_its_end

    async def hang_up(self) -> None:
        """What a handler that returns does: the other side reads what is there, and then the end."""
        await self._out.change(ended=True)

    async def cut(self) -> None:
        """Break both directions; what is under way is lost."""
        await self._out.change(broken=True)
        await self._into.change(broken=True)

    async def stall(self, *, stalled: bool = True) -> None:
        """Hold, or let go, what this end sends."""
        await self._out.change(stalled=stalled)


def memory_links(*, room: int = 4) -> tuple[MemoryLink, MemoryLink]:
    """The hub's end and the agent's end of one link; ``room`` batches fit into each direction."""
    down, up = _Pipe(room), _Pipe(room)
    return MemoryLink(down, up, tells_its_end=False), MemoryLink(up, down, tells_its_end=True)
