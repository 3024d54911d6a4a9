"""Who goes next while a model has no room: priorities first, fair between keys, within a bound.

Three bands, the highest first. A band below which somebody waits hands on every eighth of its turns, and so does
the next, so that LOW moves at 1/64 of the pace at the worst. Inside a band start-time fair queuing: each key has a
start on a virtual clock, the lowest start goes next and moves on by 1/weight, and the clock shows the start served
last. A key that comes back begins at the clock, or where its last turn ended: idling earns nothing, and leaving
saves nothing. Inside a key the earliest deadline goes first, then the first to come.

Whatever is removed stays in its heap, dead, until it comes up or the dead are the majority: no operation costs
more than O(log n) of the tickets, spread over all.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, TypeVar

from gateway.core.snapshot import Priority
from mesh.kit.errors import TooManyRequests, Unavailable

PASS_ON: Final = 8  # the turn of a band that goes to those below
_ONE: Final = 1 << 40  # a turn of weight 1 in virtual time: integers, so that nothing is lost however long it runs
_SLACK: Final = 32  # dead entries that are not worth a sweep

T = TypeVar("T")


class QueueFull(TooManyRequests):
    """As many wait for the model as may, or as many of this key as is fair."""

    code = "queue_full"

    def __init__(self, model: str, *, retry_after_s: float) -> None:
        super().__init__(f"too many requests wait for the model {model!r}", retry_after_s=retry_after_s)


class QueueTimeout(Unavailable):
    """The model had no room for the request in the time that it could wait."""

    code = "queue_timeout"

    def __init__(self, model: str, *, retry_after_s: float) -> None:
        super().__init__(f"the model {model!r} had no room in time")
        self.retry_after_s = retry_after_s


class Full(Exception):
    """No place for this ticket. The queue is as before."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket(Generic[T]):
    """A request's place in a queue, itself its only equal. Times are seconds on one monotonic clock."""

    key_id: str
    weight: int
    """Of the key beside others; less than 1 counts as 1."""
    priority: Priority
    deadline: float
    """From then on it must not be served; ``inf``: none."""
    arrived: float
    payload: T


@dataclass(slots=True, eq=False)
class _Account(Generic[T]):
    """What a key holds in all bands."""

    weight: int
    tickets: OrderedDict[Ticket[T], None] = field(default_factory=OrderedDict)
    load: float = 0.0
    """Places per weight at its valid entry in the heap of loads: at least what it has now."""
    mark: int = 0
    """The number of that entry; 0: none."""


@dataclass(slots=True, eq=False)
class _Flow(Generic[T]):
    """What a key has waiting in one band. Once empty it is never used again."""

    key_id: str
    band: "_Band[T]"
    start: int
    live: int = 0
    heap: list[tuple[float, float, int, Ticket[T]]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Band(Generic[T]):
    """The keys of one priority. ``most``: keys remembered that have nothing waiting."""

    most: int
    clock: int = 0
    turns: int = 0
    """Since it last handed one on, while somebody waited below."""
    flows: dict[str, _Flow[T]] = field(default_factory=dict)
    heap: list[tuple[int, int, _Flow[T]]] = field(default_factory=list)
    ended: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Where the last turn of a key ended, if that is still to come."""

    def schedule(self, flow: _Flow[T], number: int) -> None:
        if len(self.heap) > 2 * len(self.flows) + _SLACK:
            self.heap = [entry for entry in self.heap if entry[2].live]
            heapify(self.heap)
        heappush(self.heap, (flow.start, number, flow))

    def retire(self, flow: _Flow[T]) -> None:
        """The flow is empty."""
        del self.flows[flow.key_id]
        if not self.flows:  # nobody was kept waiting: all begin anew
            self.clock = 0
            self.heap.clear()
            self.ended.clear()
        elif flow.start > self.clock:
            ended = self.ended
            while ended and next(iter(ended.values())) <= self.clock:
                ended.popitem(last=False)
            ended[flow.key_id] = flow.start
            if len(ended) > self.most:
                ended.popitem(last=False)  # it may come a turn too early


@dataclass(slots=True, eq=False)
class FairQueue(Generic[T]):
    """At most ``capacity`` tickets, and who is next. Deterministic."""

    capacity: int
    _bands: dict[Priority, _Band[T]] = field(init=False)
    _waiting: OrderedDict[Ticket[T], _Flow[T]] = field(init=False, default_factory=OrderedDict)
    _late: dict[Ticket[T], None] = field(init=False, default_factory=dict)
    _accounts: dict[str, _Account[T]] = field(init=False, default_factory=dict)
    _deadlines: list[tuple[float, int, Ticket[T]]] = field(init=False, default_factory=list)
    _loads: list[tuple[float, int, _Account[T]]] = field(init=False, default_factory=list)
    _number: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._bands = {priority: _Band(self.capacity) for priority in sorted(Priority, reverse=True)}

    @property
    def depth(self) -> int:
        """Tickets that have a place, those that expired and were not collected among them."""
        return len(self._waiting) + len(self._late)

    def depth_of(self, key_id: str) -> int:
        """Tickets of that key that may still be popped."""
        account = self._accounts.get(key_id)
        return len(account.tickets) if account else 0

    def oldest(self, now: float) -> float:
        """Seconds since the first of those who wait came; 0 when nobody waits."""
        return now - next(iter(self._waiting)).arrived if self._waiting else 0.0

    def push(self, ticket: Ticket[T]) -> Ticket[T] | None:
        """Give it a place; returns who lost theirs for it, if somebody did. Raises Full.

        When full, the newest ticket of the key that holds most for its weight makes way for a key that will still
        hold less for its own, or holds nothing yet. A key's only ticket never makes way.
        """
        evicted = None
        if self.depth >= self.capacity:
            evicted = self._victim(ticket)
            self._drop(evicted)
        self._number = number = self._number + 1
        account = self._accounts.get(ticket.key_id)
        if account is None:
            account = self._accounts[ticket.key_id] = _Account(1)
        account.weight = max(1, ticket.weight)
        account.tickets[ticket] = None
        self._weigh(account, number)
        band = self._bands[ticket.priority]
        flow = band.flows.get(ticket.key_id)
        if flow is None:
            start = max(band.clock, band.ended.pop(ticket.key_id, 0))
            flow = band.flows[ticket.key_id] = _Flow(ticket.key_id, band, start)
            band.schedule(flow, number)
        flow.live += 1
        heappush(flow.heap, (ticket.deadline, ticket.arrived, number, ticket))
        self._waiting[ticket] = flow
        if ticket.deadline != float("inf"):
            if len(self._deadlines) > 2 * len(self._waiting) + _SLACK:
                self._deadlines = [entry for entry in self._deadlines if entry[2] in self._waiting]
                heapify(self._deadlines)
            heappush(self._deadlines, (ticket.deadline, number, ticket))
        return evicted

    def pop(self, now: float) -> Ticket[T] | None:
        """Who is next; None when nobody may be served."""
        self._sweep(now)
        band = self._next_band()
        if band is None:
            return None
        flow = heappop(band.heap)[2]
        while not flow.live:
            flow = heappop(band.heap)[2]
        ticket = heappop(flow.heap)[3]
        while ticket not in self._waiting:
            ticket = heappop(flow.heap)[3]
        band.clock = flow.start
        flow.start += max(1, _ONE // max(1, ticket.weight))
        self._drop(ticket)
        if flow.live:
            self._number += 1
            band.schedule(flow, self._number)
        return ticket

    def remove(self, ticket: Ticket[T]) -> bool:
        """It waits no longer. False when it did not wait here."""
        if ticket in self._waiting:
            self._drop(ticket)
        elif ticket in self._late:
            del self._late[ticket]
        else:
            return False
        return True

    def expired(self, now: float) -> list[Ticket[T]]:
        """Take out all whose deadline has come, the earliest first. Each is returned once."""
        self._sweep(now)
        late = list(self._late)
        self._late.clear()
        return late

    def _sweep(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            ticket = heappop(self._deadlines)[2]
            if ticket in self._waiting:
                self._drop(ticket)
                self._late[ticket] = None

    def _next_band(self) -> _Band[T] | None:
        """Whose turn it is. A band whose turn is handed on leaves it to those below, by the same rule."""
        waiting = [band for band in self._bands.values() if band.flows]
        for band in waiting[:-1]:
            band.turns += 1
            if band.turns < PASS_ON:
                return band
            band.turns = 0
        return waiting[-1] if waiting else None

    def _drop(self, ticket: Ticket[T]) -> None:
        """It waits no longer. Its entries in heaps are dead from now on."""
        flow = self._waiting.pop(ticket)
        account = self._accounts[ticket.key_id]
        del account.tickets[ticket]
        if not account.tickets:
            del self._accounts[ticket.key_id]
        flow.live -= 1
        if not flow.live:
            flow.band.retire(flow)
        elif len(flow.heap) > 2 * flow.live + _SLACK:
            flow.heap = [entry for entry in flow.heap if entry[3] in self._waiting]
            heapify(flow.heap)
        if not self._waiting:
            self._deadlines.clear()
            self._loads.clear()

    def _victim(self, ticket: Ticket[T]) -> Ticket[T]:
        """Who makes way for this one. Raises Full."""
        heaviest = self._heaviest()
        held = self.depth_of(ticket.key_id)
        weight = max(1, ticket.weight)
        if heaviest is None or (held and (held + 1) * heaviest.weight >= len(heaviest.tickets) * weight):
            raise Full
        return next(reversed(heaviest.tickets))

    def _weigh(self, account: _Account[T], number: int) -> None:
        """The account holds one more. Only growth is noted at once; what shrank is seen when it comes up."""
        held = len(account.tickets)
        if held < 2 or held / account.weight <= account.load:
            return
        if len(self._loads) > 2 * len(self._accounts) + _SLACK:
            self._loads = [entry for entry in self._loads if entry[1] == entry[2].mark and entry[2].tickets]
            heapify(self._loads)
        account.load, account.mark = held / account.weight, number
        heappush(self._loads, (-account.load, number, account))

    def _heaviest(self) -> _Account[T] | None:
        """Who holds most places for its weight, among those who hold two or more."""
        while self._loads:
            _, mark, account = self._loads[0]
            load = len(account.tickets) / account.weight
            if mark != account.mark:
                heappop(self._loads)
            elif len(account.tickets) < 2:
                heappop(self._loads)
                account.load, account.mark = 0.0, 0
            elif load < account.load:
                account.load = load
                heapreplace(self._loads, (-load, mark, account))
            else:
                return account
        return None
