"""From a model's routes and what is known of them now to the worker that takes the request.

What is eligible is decided here; who of them is best by ``mesh.routing``, which also replays what was recorded.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.core.snapshot import Route, WorkerPhase
from mesh.routing.choose import choose as decide
from mesh.routing.values import Ask, Candidate, Decision

READY: Final = frozenset({WorkerPhase.READY})
DOUBTFUL: Final = frozenset(WorkerPhase) - {WorkerPhase.READY, WorkerPhase.DRAINING, WorkerPhase.FAILED}
"""Phases that may have become READY since a control plane that is away told us."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker's node said of it. Build it with ``reported``."""

    foreign: float = 0.0
    """Requests that are not ours."""
    kv: float = 0.0
    """How much of its cache is in use, 0 to 1."""


IDLE: Final = Load()


class Choice(NamedTuple):
    """The worker that takes the request, and all that led to it."""

    route: Route
    decision: Decision
    ask: Ask
    candidates: tuple[Candidate, ...]

    @property
    def header(self) -> str:
        """What ``x-inventiv-route`` says, to those who may see it."""
        return f"worker={self.route.worker_id}; node={self.route.node_id}; reason={self.decision.reason}"


def reported(running: int | None, waiting: int | None, kv: float | None, *, ours: int) -> Load:
    """The load in a node's report. What is absent is nothing.

    ``ours``: what this gateway had there when the report came. Not later: an old report would make requests of
    others out of those of ours that ended since.
    """
    return Load(
        foreign=float(max(0, (running or 0) + (waiting or 0) - ours)),
        kv=min(max(kv, 0.0), 1.0) if kv is not None and kv == kv else 0.0,
    )


def choose(
    routes: Iterable[Route],
    ask: Ask,
    *,
    live: Callable[[str], bool],
    outstanding: Mapping[str, int],
    loads: Mapping[str, Load],
    excluded: Container[str] = (),
    admits: Callable[[str], bool] | None = None,
    phases: Container[WorkerPhase] = READY,
) -> Choice | None:
    """Who takes the request; None when nobody can.

    Only routes in one of the ``phases`` count, whose node has a session (``live``, by node), that were not tried
    yet (``excluded``, by worker) and whose circuit lets a request through (``admits``, by worker; None: all do).
    ``outstanding`` counts this gateway's own requests by worker, ``loads`` holds what nodes said; a worker that is
    in neither has nothing to do.
    """
    eligible = [
        route
        for route in routes
        if route.phase in phases
        and route.worker_id not in excluded
        and live(route.node_id)
        and (admits is None or admits(route.worker_id))
    ]
    candidates = tuple([_candidate(route, outstanding, loads) for route in eligible])
    decision = decide(candidates, ask)
    if decision is None:
        return None
    taken = next(route for route in eligible if route.worker_id == decision.worker_id)
    return Choice(taken, decision, ask, candidates)


def _candidate(route: Route, outstanding: Mapping[str, int], loads: Mapping[str, Load]) -> Candidate:
    load = loads.get(route.worker_id, IDLE)
    return Candidate(
        route.worker_id,
        route.node_id,
        outstanding.get(route.worker_id, 0),
        load.foreign,
        route.slots,
        route.weight,
        load.kv,
        route.cost_per_hour,
    )
