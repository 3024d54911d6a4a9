"""Gives an answer to a client at the client's pace, and gives up on one that takes nothing."""

import asyncio
from dataclasses import dataclass, field

from gateway.api.visit import Visit
from gateway.core.errors import ClientStalled
from gateway.tunnel.patience import Patience
from mesh.kit.clock import Clock

STALL_S = 60.0  # a client that takes no octet for so long is gone, or as good as
_LOOK_S = 5.0  # how often we look whether one that keeps us waiting takes anything


@dataclass(slots=True)
class Delivery:
    """One answer. Raises ClientStalled, or ConnectionError when the client has gone."""

    visit: Visit
    patience: Patience
    clock: Clock
    begun: bool = field(init=False, default=False)
    """Whether the client has been given a status."""

    async def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """The whole answer. Returns when little enough waits to be taken."""
        self.begun = True
        if not self.visit.answer(status, body, headers):
            await self._wait_for_client()

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """The status and the headers; they leave with the first octets."""
        self.begun = True
        self.visit.status = status
        self.visit.request.begin(status, {**self.visit.headers, **headers})

    async def send(self, octets: bytes) -> None:
        """Some of the body, not empty. Returns when little enough waits to be taken."""
        if not self.visit.request.send(octets):
            await self._wait_for_client()

    async def end(self, octets: bytes = b"") -> None:
        """The rest of the body."""
        if not self.visit.request.end(octets):
            await self._wait_for_client()

    async def _wait_for_client(self) -> None:
        """Until what was handed over is nearly all taken, as long as some is taken every minute."""
        connection = self.visit.request.connection
        left, since = connection.backlog(), self.clock.monotonic()
        while True:
            self.patience.allow(_LOOK_S)
            try:
                return await connection.drain()
            except asyncio.CancelledError:
                if not self.patience.is_up():
                    raise
            now_left, now = connection.backlog(), self.clock.monotonic()
            if now_left < left:
                left, since = now_left, now
            elif now - since >= STALL_S:
                connection.abort()
                raise ClientStalled(f"the client took nothing for {STALL_S:.0f} s")
