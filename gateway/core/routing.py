"""Which worker takes a request: the one with the least to do for its size, as this gateway counts it."""

from collections.abc import Callable, Container, Iterable
from typing import Final

from gateway.core.snapshot import Route, WorkerPhase

READY: Final = frozenset({WorkerPhase.READY})
DOUBTFUL: Final = frozenset(WorkerPhase) - {WorkerPhase.READY, WorkerPhase.DRAINING, WorkerPhase.FAILED}
"""Phases that may have become READY since a control plane that is away told us."""


def choose(
    routes: Iterable[Route],
    *,
    live: Callable[[str], bool],
    outstanding: Callable[[str], int],
    excluded: Container[str],
    pick: Callable[[int], int],
    phases: Container[WorkerPhase] = READY,
) -> Route | None:
    """The route with the fewest outstanding requests per slot, or None when nobody can be reached.

    Only routes in one of the ``phases`` count. ``live`` says whether a node has a session, ``excluded`` holds the
    workers already tried. ``pick(n)`` is a random number below n: among equals two are drawn and the one with more
    free slots is taken, so that gateways which cannot see each other do not all choose the first.
    """
    best: list[Route] = []
    least = 0.0
    for route in routes:
        if route.phase not in phases or route.worker_id in excluded or not live(route.node_id):
            continue
        load = outstanding(route.worker_id) / route.slots
        if not best or load < least:
            best, least = [route], load
        elif load == least:
            best.append(route)
    if len(best) < 2:
        return best[0] if best else None
    first = pick(len(best))
    second = pick(len(best) - 1)
    second += second >= first  # two different ones
    one, other = best[first], best[second]
    free_one, free_other = (route.slots - outstanding(route.worker_id) for route in (one, other))
    return other if free_other > free_one else one
