"""One circuit breaker per worker: who fails again and again is left alone for a while, then asked by one request.

Closed: everything goes through. Open: nothing does, for a time that doubles with every probe that fails.
Half-open: one probe is out; what comes of it decides. What counts as a failure is the caller's word: connections
that fail or break, statuses of 500 and more, time-outs; never one of 400 to 499, which is the request's fault.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

IN_A_ROW: Final = 5
"""Failures one after the other that open it."""
WINDOW: Final = 20
"""Results among which more than half are failures open it as well, when they came within ``WINDOW_S``."""
WINDOW_S: Final = 30.0
OPEN_S: Final = 5.0
"""How long it is open first; twice as long after every probe that fails, up to ``LONGEST_S``."""
LONGEST_S: Final = 60.0
PROBE_S: Final = 120.0
"""A probe that nothing was heard of for so long does not keep out the next one."""


class State(StrEnum):
    """Of one worker's breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class _Circuit:
    state: State = State.CLOSED
    era: int = 0
    """Rises with every change of state: what began in an earlier one says nothing of this one."""
    in_a_row: int = 0
    results: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    open_s: float = OPEN_S
    until: float = 0.0
    """When the next probe may go."""

    def turn(self, state: State, until: float = 0.0) -> None:
        self.state, self.until = state, until
        self.era += 1
        self.in_a_row = 0
        self.results.clear()


class Breaker:
    """The circuits of all workers. Moments are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._circuits: dict[str, _Circuit] = {}

    def admits(self, worker_id: str, now: float) -> bool:
        """Whether a request may go to that worker. Changes nothing: most of those asked about are not chosen."""
        circuit = self._circuits.get(worker_id)
        return circuit is None or circuit.state is State.CLOSED or now >= circuit.until

    def begin(self, worker_id: str, now: float) -> int:
        """A request that was admitted goes there now. Returns the ticket for ``end`` or ``abandon``."""
        circuit = self._circuits.get(worker_id)
        if circuit is None:
            circuit = self._circuits[worker_id] = _Circuit()
        if circuit.state is not State.CLOSED:
            circuit.turn(State.HALF_OPEN, now + PROBE_S)
        return circuit.era

    def end(self, worker_id: str, ticket: int, now: float, *, failed: bool) -> bool:
        """What came of it, once that is known: the first octet is a success. True when this opens the circuit.

        Each ticket is ended or abandoned once. One that began before the circuit last changed does not count.
        """
        circuit = self._circuits.get(worker_id)
        if circuit is None or circuit.era != ticket:
            return False
        if circuit.state is State.HALF_OPEN:
            return self._probed(circuit, now, failed)
        circuit.in_a_row = circuit.in_a_row + 1 if failed else 0
        circuit.results.append((now, failed))
        if not failed or (circuit.in_a_row < IN_A_ROW and not _mostly_failed(circuit.results, now)):
            return False
        circuit.turn(State.OPEN, now + circuit.open_s)
        return True

    def abandon(self, worker_id: str, ticket: int, now: float) -> None:
        """It ended without saying anything of the worker: the client left. Another one may probe at once."""
        circuit = self._circuits.get(worker_id)
        if circuit is not None and circuit.era == ticket and circuit.state is State.HALF_OPEN:
            circuit.turn(State.OPEN, now)

    def state(self, worker_id: str) -> State:
        """Where the worker's circuit is; one whose time is over stays open until its probe begins."""
        circuit = self._circuits.get(worker_id)
        return State.CLOSED if circuit is None else circuit.state

    def retry_in(self, worker_id: str, now: float) -> float:
        """Seconds until a request may go there; zero when one may now."""
        circuit = self._circuits.get(worker_id)
        return 0.0 if circuit is None or circuit.state is State.CLOSED else max(0.0, circuit.until - now)

    def keep(self, worker_ids: Collection[str]) -> None:
        """Forget all others: they are gone. To be called with every new snapshot."""
        for gone in self._circuits.keys() - set(worker_ids):
            del self._circuits[gone]

    def __len__(self) -> int:
        return len(self._circuits)

    @staticmethod
    def _probed(circuit: _Circuit, now: float, failed: bool) -> bool:
        if not failed:
            circuit.open_s = OPEN_S
            circuit.turn(State.CLOSED)
            return False
        circuit.open_s = min(2 * circuit.open_s, LONGEST_S)
        circuit.turn(State.OPEN, now + circuit.open_s)
        return True


def _mostly_failed(results: deque[tuple[float, bool]], now: float) -> bool:
    if len(results) < WINDOW or now - results[0][0] > WINDOW_S:
        return False
    return 2 * sum(failed for _, failed in results) > WINDOW
