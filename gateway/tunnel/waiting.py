"""Requests that wait for room at a model's workers, and who of them is called when there is some.

A request that finds room, and nobody waiting, goes straight through: no ticket, no timer, no turn of the event
loop. Whoever is called holds a promise until it has taken a worker's slot or left, so that a slot is never given
twice between the call and the moment when the task that was called runs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from gateway.core.demand import Demand, Pace, Tally
from gateway.core.queue import FairQueue, Full, QueueFull, QueueTimeout, Ticket
from gateway.core.snapshot import Priority
from gateway.tunnel.patience import Patience
from mesh.kit.clock import Clock

CAPACITY: Final = 1000  # waiting per model: with ten slots and a second each, the last would wait 100 s already
MAX_WAIT_S: Final = 60.0  # a client and its proxies seldom wait longer for a first byte
KEEP_ALIVE_S: Final = 10.0  # silence after which a waiting client is shown that we live; proxies cut at 30 to 60 s
REPORTED: Final = 1000  # models in one report, by its contract

KeepAlive = Callable[[], Awaitable[None]]


class _State(Enum):
    WAITING = auto()
    PROMISED = auto()
    TAKEN = auto()
    EVICTED = auto()
    LATE = auto()
    OVER = auto()


@dataclass(slots=True, eq=False)
class _Line:
    """One model's queue and counts."""

    model: str
    clock: Clock
    room: Callable[[str], int]
    queue: "FairQueue[Turn]"
    tally: Tally = field(default_factory=Tally)
    pace: Pace = field(default_factory=Pace)
    promised: int = 0
    active: int = 0

    def join(self, ticket: "Ticket[Turn]") -> None:
        """Raises QueueFull."""
        try:
            evicted = self.queue.push(ticket)
        except Full:
            self.tally.refused += 1
            raise QueueFull(self.model, retry_after_s=self.retry_after_s()) from None
        if evicted is not None:
            evicted.payload.settle(_State.EVICTED)

    def dispatch(self) -> None:
        """Call as many as there is room for, and send away whose time is over."""
        now = self.clock.monotonic()
        for ticket in self.queue.expired(now):
            ticket.payload.settle(_State.LATE)
        free = self.room(self.model) - self.promised
        while free > 0 and (called := self.queue.pop(now)) is not None:
            self.promised += 1
            self.active += 1
            free -= 1
            called.payload.settle(_State.PROMISED)
        self.pace.note(now, self.tally.admitted)

    def retry_after_s(self) -> float:
        return self.pace.retry_after_s(self.clock.monotonic(), self.tally.admitted, self.queue.depth)

    def demand(self) -> Demand:
        queue = self.queue
        oldest_s = queue.oldest(self.clock.monotonic())
        return self.tally.demand(self.model, waiting=queue.depth, active=self.active, oldest_s=oldest_s)


@dataclass(slots=True, eq=False)
class Turn:
    """One request's turn: an async context manager that is entered when the request may go to a worker.

    Entering raises QueueFull or QueueTimeout. Inside, call ``taken`` once a worker's slot is leased, with no await
    between the two. Leaving gives back whatever is still held, and calls who is next.
    """

    _line: _Line
    _patience: Patience
    _key_id: str
    _weight: int
    _priority: Priority
    _deadline: float
    _max_wait_s: float
    _keep_alive: KeepAlive | None
    waited_s: float = 0.0
    """How long it waited for its turn; 0 when it went straight through."""
    _state: _State = _State.WAITING
    _called: "asyncio.Future[None] | None" = None

    async def __aenter__(self) -> "Turn":
        line = self._line
        if not line.queue.depth and line.room(line.model) > line.promised:
            line.promised += 1
            line.active += 1
            line.tally.straight += 1
            self._state = _State.PROMISED
            return self
        await self._wait()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._leave()

    def taken(self) -> None:
        """A worker's slot is leased and shows in ``room``: the promise ends. More calls do nothing."""
        if self._state is _State.PROMISED:
            self._line.promised -= 1
            self._state = _State.TAKEN

    def settle(self, state: _State) -> None:
        """The line has decided."""
        self._state = state
        if self._called is not None and not self._called.done():
            self._called.set_result(None)

    async def _wait(self) -> None:
        line = self._line
        since = line.clock.monotonic()
        give_up = min(self._deadline, since + self._max_wait_s)
        ticket = Ticket(self._key_id, self._weight, self._priority, give_up, since, self)
        line.join(ticket)
        admitted = False
        try:
            line.dispatch()
            while self._state is _State.WAITING:
                await self._sleep(give_up)
            admitted = self._state is _State.PROMISED
        finally:
            self._patience.forever()
            self.waited_s = line.clock.monotonic() - since
            line.tally.waited(self.waited_s)
            if not admitted:  # refused below, or the client has left: at any moment, even after it was called
                state = self._state
                line.queue.remove(ticket)
                self._leave()
        if admitted:
            line.tally.called += 1
            return
        line.tally.refused += 1
        error = QueueFull if state is _State.EVICTED else QueueTimeout
        raise error(line.model, retry_after_s=line.retry_after_s())

    async def _sleep(self, give_up: float) -> None:
        """Until the line has decided, or it is time to show that we live."""
        line = self._line
        self._called = asyncio.get_running_loop().create_future()
        self._patience.allow(min(KEEP_ALIVE_S, give_up - line.clock.monotonic()))
        try:
            await self._called
        except asyncio.CancelledError:
            if not self._patience.is_up():
                raise
            line.dispatch()  # ends this wait if its time is over; finds room that nobody told of
            if self._state is _State.WAITING and self._keep_alive is not None:
                await self._keep_alive()

    def _leave(self) -> None:
        line, held = self._line, self._state
        self._state = _State.OVER
        if held is _State.PROMISED:
            line.promised -= 1
        elif held is not _State.TAKEN:
            return
        line.active -= 1
        if line.queue.depth:
            line.dispatch()


@dataclass(slots=True)
class Waiting:
    """The lines of all models.

    ``room`` says how many slots of that model's workers are free now, promises not counted; it is asked on the way
    of every request and must be cheap. Models that share workers share their slots but not their promises:
    ``promised`` lets ``room`` allow for the others'.
    """

    clock: Clock
    room: Callable[[str], int]
    capacity: int = CAPACITY
    max_wait_s: float = MAX_WAIT_S
    _lines: dict[str, _Line] = field(init=False, default_factory=dict)

    def turn(
        self,
        model: str,
        patience: Patience,
        *,
        key_id: str,
        weight: int = 1,
        priority: Priority = Priority.NORMAL,
        deadline: float = float("inf"),
        max_wait_s: float | None = None,
        keep_alive: KeepAlive | None = None,
    ) -> Turn:
        """To be entered with ``async with`` in the task that entered ``patience``.

        It waits until ``deadline`` (seconds on the clock) or for ``max_wait_s``, whichever ends first, but goes
        straight through whatever they say. ``keep_alive`` is awaited every ``KEEP_ALIVE_S`` meanwhile; what it
        raises ends the wait.
        """
        line = self._lines.get(model)
        if line is None:
            line = self._lines[model] = _Line(model, self.clock, self.room, FairQueue(self.capacity))
        longest = self.max_wait_s if max_wait_s is None else max_wait_s
        return Turn(line, patience, key_id, weight, priority, deadline, longest, keep_alive)

    def room_made(self, model: str) -> None:
        """There may be room where there was none. Cheap when nobody waits."""
        line = self._lines.get(model)
        if line is not None and line.queue.depth:
            line.dispatch()

    def look_again(self) -> None:
        """Something has changed for who knows which models."""
        for line in self._lines.values():
            if line.queue.depth:
                line.dispatch()

    def follow(self, models: Container[str]) -> None:
        """Those are the models from now on: others are forgotten, except where somebody waits or is served."""
        self.look_again()
        self.keep_only(models)

    def waiting(self, model: str) -> int:
        """How many wait for that model."""
        line = self._lines.get(model)
        return line.queue.depth if line is not None else 0

    def promised(self, model: str) -> int:
        """How many were called and have not yet taken a slot."""
        line = self._lines.get(model)
        return line.promised if line is not None else 0

    def demand(self, model: str) -> Demand:
        """What was seen of it since the last report."""
        line = self._lines.get(model)
        return line.demand() if line is not None else Demand(model, 0, 0, 0, 0, 0, 0, 0)

    def tallies(self) -> dict[str, Tally]:
        """Counts since the start, by model: for metrics, which keep their own differences."""
        return {line.model: line.tally for line in self._lines.values()}

    def report(self) -> list[Demand]:
        """What was seen of every model, which now counts as told. The busiest ``REPORTED``, if there are more."""
        demands = [line.demand() for line in self._lines.values()]
        if len(demands) > REPORTED:
            demands.sort(key=lambda one: (one.waiting, one.active, one.admitted + one.refused), reverse=True)
            del demands[REPORTED:]
        for demand in demands:
            self._lines[demand.model].tally.reported()
        return demands

    def keep_only(self, models: Container[str]) -> None:
        """Forget the lines of other models, except where somebody waits or is served."""
        for line in list(self._lines.values()):
            if line.model not in models and not line.queue.depth and not line.active:
                del self._lines[line.model]
