"""Where a prefix or a session is at home: weighted rendezvous hashing, with a bound on load.

Each worker draws a number for the key, and the one with the best draw for its size is its home. Whoever computes
it gets the same home without talking to others. When a worker joins or leaves, only the keys move that it wins or
loses.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from math import ceil, fsum, log
from typing import Final

from mesh.routing.values import Candidate, load_of

BOUND: Final = 1.25
"""How far above the average load for its size a worker may be, and still take a request for its cache."""
ROOM: Final = 0.75
"""The part of its slots below which a worker is not too busy, whatever the others have to do."""

_MASK: Final = (1 << 64) - 1


@lru_cache(maxsize=4096)
def _seed(worker_id: str) -> int:
    return int.from_bytes(blake2b(worker_id.encode(), digest_size=8).digest(), "big")


def home(candidates: Iterable[Candidate], key: int) -> Candidate:
    """The key's home among them; there is at least one. Bigger ones (slots times weight) win more keys."""
    best: Candidate | None = None
    least = 0.0
    for one in candidates:
        drawn = _seed(one.worker_id) ^ key
        drawn = ((drawn ^ drawn >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        drawn = ((drawn ^ drawn >> 27) * 0x94D049BB133111EB) & _MASK
        drawn ^= drawn >> 31
        # The logarithm of an even draw between 0 and 1, by size: of these the least wins in proportion to size.
        wait = -log(((drawn >> 12) + 0.5) * 2.0**-52) / (one.slots * one.weight)
        if best is None or wait < least or (wait == least and one.worker_id < best.worker_id):
            best, least = one, wait
    assert best is not None, "somebody is there"
    return best


def within_bound(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that are not too busy to take one more request for their cache: always at least one."""
    # fsum: the order of the candidates must not show, not even in the last bit.
    total = 1.0 + fsum([one.outstanding + one.foreign for one in candidates])
    share = BOUND * total / fsum([one.slots * one.weight for one in candidates])
    return [one for one in candidates if load_of(one) < bound(one, share)]


def bound(one: Candidate, share: float) -> float:
    """The load at which the worker is too busy. ``share``: the load that is fair for a size of one, with slack."""
    return max(ceil(one.slots * one.weight * share), one.slots * ROOM)


def homes(candidates: Sequence[Candidate], key: int, last: str) -> tuple[Candidate, Candidate]:
    """The worker the prefix should go to, and the one it can go to: another one when the first is too busy.

    ``last``, who had it last, is where its cache is. Without it, it is the home that every gateway computes.
    """
    wanted = find(candidates, last) or home(candidates, key)
    free = within_bound(candidates)
    return wanted, wanted if wanted in free else home(free, key)


def find(candidates: Iterable[Candidate], worker_id: str) -> Candidate | None:
    """The candidate of that name."""
    for one in candidates:
        if one.worker_id == worker_id:
            return one
    return None
