"""Which worker takes a request: one pure function, so that a recorded decision can be made again.

Score: what a worker has to do for its size, plus the pressure on its cache, minus a bonus where the prefix is at
home. The least wins; among equals two are drawn and the one with more free slots is taken, so that gateways which
cannot see each other do not all choose the same.
"""

from collections.abc import Sequence
from typing import Final

from mesh.routing.affinity import find, home, homes
from mesh.routing.values import (
    BALANCED,
    CHEAPEST,
    LEAST_LOAD,
    ONLY,
    PREFIX,
    PREFIX_SPILL,
    ROUND_ROBIN,
    SESSION,
    SESSION_SPILL,
    Ask,
    Candidate,
    Decision,
    load_of,
)

AFFINITY: Final = 0.75
"""What a cached prefix is worth: so much of a worker's slots may it be busier than others, and still be better."""
KV_FREE: Final = 0.75
"""A cache that is used less than this presses nobody; engines begin to push requests out when it is full."""
KV_WEIGHT: Final = 1.0
"""A full cache counts as much as slots that are all busy."""


def choose(candidates: Sequence[Candidate], ask: Ask) -> Decision | None:
    """Who takes the request; None when there are no candidates.

    The same candidates, in any order, and the same ask give the same decision. A session that the client named
    goes before every policy.
    """
    if len(candidates) < 2:
        return Decision(candidates[0].worker_id, ONLY) if candidates else None
    policy = ask.policy
    # Where the policy is to stay and the client named no session, the conversation is one.
    session = ask.prefix if ask.session is None and policy == SESSION else ask.session
    if session is not None:
        return _stay(candidates, session, ask.last)
    if policy == ROUND_ROBIN:
        return Decision(sorted(one.worker_id for one in candidates)[ask.turn % len(candidates)], ROUND_ROBIN)
    if policy == CHEAPEST:
        return _cheapest(candidates, ask)
    if ask.prefix is None:
        return Decision(_least(candidates, ask.draw), LEAST_LOAD)
    wanted, can = homes(candidates, ask.prefix, ask.last)
    chosen = _least(candidates, ask.draw, can.worker_id) if policy == BALANCED else can.worker_id
    return Decision(chosen, PREFIX if chosen == wanted.worker_id else PREFIX_SPILL)


def _stay(candidates: Sequence[Candidate], session: int, last: str) -> Decision:
    """Where the session was, or is at home; elsewhere only when that one is full and somebody else is not."""
    wanted = find(candidates, last) or home(candidates, session)
    if load_of(wanted) >= wanted.slots:
        free = [one for one in candidates if load_of(one) < one.slots]
        if free:
            return Decision(home(free, session).worker_id, SESSION_SPILL)
    return Decision(wanted.worker_id, SESSION)


def _cheapest(candidates: Sequence[Candidate], ask: Ask) -> Decision:
    """Of those with a free slot the cheapest; of several such, and when all are full, by score."""
    free = [one for one in candidates if load_of(one) < one.slots]
    if not free:
        return Decision(_least(candidates, ask.draw), LEAST_LOAD)
    price = min(one.cost for one in free)
    cheap = [one for one in free if one.cost == price]
    at_home = "" if ask.prefix is None else homes(cheap, ask.prefix, ask.last)[1].worker_id
    return Decision(_least(cheap, ask.draw, at_home), CHEAPEST)


def pressure(kv: float) -> float:
    """How much a cache in use presses: 0 to 1, for a use of 0 to 1."""
    return (kv - KV_FREE) / (1.0 - KV_FREE) if kv > KV_FREE else 0.0


def _least(candidates: Sequence[Candidate], draw: tuple[int, int], at_home: str = "") -> str:
    """The worker with the least score; ``at_home`` has the prefix."""
    best: list[Candidate] = []
    least = 0.0
    for one in candidates:
        score = (one.outstanding + one.foreign) / (one.slots * one.weight)
        if one.kv > KV_FREE:
            score += KV_WEIGHT * pressure(one.kv)
        if one.worker_id == at_home:
            score -= AFFINITY
        if not best or score < least:
            best, least = [one], score
        elif score == least:
            best.append(one)
    if len(best) == 1:
        return best[0].worker_id
    best.sort()  # by name: their order must not matter
    first = draw[0] % len(best)
    second = draw[1] % (len(best) - 1)
    second += second >= first  # two different ones
    one, other = best[first], best[second]
    return (other if other.slots - load_of(other) > one.slots - load_of(one) else one).worker_id
