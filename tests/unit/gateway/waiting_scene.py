"""A model with so many slots, and requests that come for them: what the tests of waiting play with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.core.queue import QueueFull, QueueTimeout
from gateway.core.snapshot import Priority
from gateway.tunnel.patience import Patience, WaitingRoom
from gateway.tunnel.waiting import Turn, Waiting
from tests.fakes.clock import FakeClock

INF = float("inf")


@dataclass
class Scene:
    """A model ``m`` with so many slots, and what became of its requests."""

    slots: int = 1
    capacity: int = 1000
    clock: FakeClock = field(default_factory=FakeClock)
    used: int = 0
    most_used: int = 0
    asked: int = 0
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.room = WaitingRoom(self.clock)
        self.waiting = Waiting(self.clock, self.free, capacity=self.capacity)

    def free(self, _model: str) -> int:
        self.asked += 1
        return self.slots - self.used

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """Waiting, promised, active, and slots in use."""
        waiting = self.waiting
        return waiting.waiting("m"), waiting.promised("m"), waiting.demand("m").active, self.used

    async def request(
        self,
        key: str,
        service_s: float = 1.0,
        *,
        priority: Priority = Priority.NORMAL,
        deadline: float = INF,
        max_wait_s: float | None = None,
        keep_alive: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """One request, from its coming to its end."""
        with Patience(self.room) as patience:
            turn = self.waiting.turn(
                "m",
                patience,
                key_id=key,
                priority=priority,
                deadline=deadline,
                max_wait_s=max_wait_s,
                keep_alive=keep_alive,
            )
            try:
                async with turn:
                    self.log.append(f"{key}@{self.clock.monotonic():g}")
                    await self.serve(turn, service_s)
            except (QueueFull, QueueTimeout) as exc:
                self.log.append(f"{key} {exc.code} {exc.retry_after_s:g}")

    async def serve(self, turn: Turn, service_s: float) -> None:
        self.used += 1
        turn.taken()
        turn.taken()
        self.most_used = max(self.most_used, self.used)
        try:
            await self.clock.sleep(service_s)
        finally:
            self.used -= 1
            self.waiting.room_made("m")

    @asynccontextmanager
    async def ticking(self) -> AsyncIterator[asyncio.TaskGroup]:
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(self.room.run())
            yield group
            ticking.cancel()
