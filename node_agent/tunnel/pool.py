"""Connections to engines that wait for their next request."""

from collections import deque
from dataclasses import dataclass, field

from mesh.kit.clock import Clock
from node_agent.core.worker import LoopbackEndpoint
from node_agent.engines.connection import Connection

IDLE_S = 3.0  # engines close idle connections after 5 s (llama.cpp); going first avoids the race
MAX_IDLE = 256  # kept per engine: as many as an engine answers at once, and then some


@dataclass(slots=True)
class Pool:
    """Idle connections by engine. A part: its ``run`` drops those that idled too long."""

    clock: Clock
    _idle: dict[LoopbackEndpoint, deque[Connection]] = field(init=False, default_factory=dict)

    def take(self, endpoint: LoopbackEndpoint) -> Connection | None:
        """The connection used last, if one is fit for another request."""
        waiting = self._idle.get(endpoint)
        while waiting:
            connection = waiting.pop()
            if connection.reusable and not connection.closed and not self._stale(connection):
                return connection
            connection.abort()
        return None

    def give_back(self, endpoint: LoopbackEndpoint, connection: Connection) -> None:
        """Keep it for the next request when it is fit for one; close it otherwise."""
        waiting = self._idle.setdefault(endpoint, deque())
        if not connection.reusable or connection.closed or len(waiting) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since = self.clock.monotonic()
        waiting.append(connection)

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return sum(len(waiting) for waiting in self._idle.values())

    async def run(self) -> None:
        """Until cancelled; then nothing is left open."""
        try:
            while True:
                await self.clock.sleep(IDLE_S / 3)
                self.sweep()
        finally:
            for waiting in self._idle.values():
                for connection in waiting:
                    connection.abort()
            self._idle.clear()

    def sweep(self) -> None:
        """Close what idled too long, forget what closed by itself, and engines that have nothing left."""
        for endpoint, waiting in list(self._idle.items()):
            fresh: deque[Connection] = deque()
            for connection in waiting:
                if connection.closed or self._stale(connection):
                    connection.abort()
                else:
                    fresh.append(connection)
            if fresh:
                self._idle[endpoint] = fresh
            else:
                del self._idle[endpoint]

    def _stale(self, connection: Connection) -> bool:
        return self.clock.monotonic() - connection.idle_since >= IDLE_S
