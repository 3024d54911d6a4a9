"""What a routing decision is made of: who can take the request, what is asked, and what came of it.

Named tuples, not dataclasses: a gateway makes one ``Candidate`` for each worker and request, and the flight
recorder keeps them as they are.
"""

from typing import Final, NamedTuple

BALANCED: Final = "balanced"
PREFIX: Final = "prefix"
SESSION: Final = "session"
ROUND_ROBIN: Final = "round_robin"
CHEAPEST: Final = "cheapest"
POLICIES: Final = (BALANCED, PREFIX, SESSION, ROUND_ROBIN, CHEAPEST)

ONLY: Final = "only"
LEAST_LOAD: Final = "least_load"
PREFIX_SPILL: Final = "prefix_spill"
SESSION_SPILL: Final = "session_spill"
REASONS: Final = (ONLY, LEAST_LOAD, PREFIX, PREFIX_SPILL, SESSION, SESSION_SPILL, ROUND_ROBIN, CHEAPEST)
"""Why a worker was chosen. A spill: the one that has the cache, or the session, is too busy."""


class Candidate(NamedTuple):
    """A worker that can take the request now: live, ready, not tried yet, not cut off by its circuit breaker."""

    worker_id: str
    node_id: str
    outstanding: int
    """Requests that whoever decides has with it."""
    foreign: float
    """Requests of others, as last reported: running and waiting. Not below zero."""
    slots: int
    """Requests its engine works on at once; at least one."""
    weight: float
    """What it can do beside others of the model; above zero."""
    kv: float
    """How much of its cache is in use, 0 to 1."""
    cost: int
    """Of its machine; only compared."""


class Ask(NamedTuple):
    """What the decision depends on besides the candidates."""

    policy: str
    """One of ``POLICIES``."""
    prefix: int | None
    """64-bit hash of the conversation's beginning; None when there is nothing to gain from it."""
    session: int | None
    """64-bit hash of the session that the client named."""
    draw: tuple[int, int]
    """Two random numbers from 0 to 2**32 - 1."""
    turn: int
    """Rises by one with every decision for the model; from zero."""
    last: str = ""
    """The worker that last took this session or, without one, this prefix; empty: not known."""


class Decision(NamedTuple):
    """Who takes the request, and why: one of ``REASONS``."""

    worker_id: str
    reason: str


def load_of(candidate: Candidate) -> float:
    """Requests that the worker has, of whoever."""
    return candidate.outstanding + candidate.foreign
