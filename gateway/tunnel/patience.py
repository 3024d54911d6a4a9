"""How long a request may wait for the next thing. One timer for all requests, because there is one per chunk.

A request's own task waits; when its time is up it is woken by a cancellation, which ``is_up`` tells from the one
of a client that left. This is what ``asyncio.timeout`` does, but setting a new limit here is one assignment.
"""

import asyncio
from dataclasses import dataclass, field

from mesh.kit.clock import Clock

TICK_S = 0.5  # how late a limit may be noticed


@dataclass(slots=True, eq=False)
class Patience:
    """One request's limit. Use as a context manager in the task that waits."""

    room: "WaitingRoom"
    task: "asyncio.Task[object] | None" = field(init=False, default=None)
    due: float = field(init=False, default=float("inf"))
    _woken: bool = field(init=False, default=False)

    def __enter__(self) -> "Patience":
        self.task = asyncio.current_task()
        self.room.waiting.add(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.room.waiting.discard(self)
        self.task = None

    def allow(self, seconds: float) -> None:
        """From now on, that long."""
        self.due = self.room.clock.monotonic() + seconds

    def forever(self) -> None:
        """No limit until the next ``allow``."""
        self.due = float("inf")

    def wake(self) -> None:
        """Time is up."""
        assert self.task is not None
        self.due, self._woken = float("inf"), True
        self.task.cancel()

    def is_up(self) -> bool:
        """In an ``except CancelledError``: whether it was the limit, and nothing else; the task then goes on."""
        if not self._woken or self.task is None:
            return False
        self._woken = False
        return self.task.uncancel() == 0


@dataclass(slots=True)
class WaitingRoom:
    """All requests that wait. A part."""

    clock: Clock
    waiting: set[Patience] = field(init=False, default_factory=set)

    async def run(self) -> None:
        """Wake whoever's time is up, until cancelled."""
        while True:
            await self.clock.sleep(TICK_S)
            self.once()

    def once(self) -> None:
        """One look at everyone."""
        now = self.clock.monotonic()
        for patience in [one for one in self.waiting if one.due <= now]:
            patience.wake()
