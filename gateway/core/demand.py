"""How much a model is asked for: who waits and for how long. The autoscaler's signal, and the gateway's metrics.

Waits are counted in buckets that grow with the wait: 95 % of them were no longer than what is told, and what is
told is at most an eighth too long. Those who went straight through count as waits of nothing.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

RETRY_S: Final = (1.0, 60.0)  # the soonest and the latest that a client is asked to come again
_SPAN_S: Final = 15.0  # service is looked at over one to two of these
_MOST_MS: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Demand:
    """What was seen of one model. ``waiting``, ``active`` and ``oldest_wait_ms`` are of now."""

    model: str
    waiting: int
    active: int
    admitted: int
    refused: int
    wait_mean_ms: int
    wait_p95_ms: int
    oldest_wait_ms: int


@dataclass(slots=True)
class Tally:
    """Counts since the start, which never go back, and the waits since the last report."""

    straight: int = 0
    """Admitted without a wait. Whoever admits counts it here."""
    called: int = 0
    """Admitted after a wait."""
    refused: int = 0
    """Found no place, lost it, or waited too long."""
    waits: int = 0
    """Waits that ended, whether with a place at a worker or not."""
    waited_s: float = 0.0
    _buckets: dict[int, int] = field(init=False, default_factory=dict)
    _before: tuple[int, int, int, int, float] = field(init=False, default=(0, 0, 0, 0, 0.0))

    @property
    def admitted(self) -> int:
        """Since the start."""
        return self.straight + self.called

    def waited(self, seconds: float) -> None:
        """A wait has ended."""
        self.waits += 1
        self.waited_s += seconds
        bucket = _bucket(_ms(seconds))
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def demand(self, model: str, *, waiting: int, active: int, oldest_s: float) -> Demand:
        """What was seen since the last report, and what is now."""
        straight, called, refused, waits, waited_s = self._before
        through = self.straight - straight
        count = through + self.waits - waits
        return Demand(
            model=model,
            waiting=waiting,
            active=active,
            admitted=through + self.called - called,
            refused=self.refused - refused,
            wait_mean_ms=_ms((self.waited_s - waited_s) / count) if count else 0,
            wait_p95_ms=self._p95(through, count),
            oldest_wait_ms=_ms(oldest_s),
        )

    def reported(self) -> None:
        """What was seen until now has been told."""
        self._before = (self.straight, self.called, self.refused, self.waits, self.waited_s)
        self._buckets = {}

    def _p95(self, through: int, count: int) -> int:
        left = -(-count * 95 // 100) - through  # of the waits, from the shortest
        if left <= 0:
            return 0
        buckets = sorted(self._buckets)
        so_far = list(accumulate(self._buckets[bucket] for bucket in buckets))
        return _longest_in(buckets[bisect_left(so_far, left)])


@dataclass(slots=True)
class Pace:
    """How fast requests were admitted of late, from a count that only grows."""

    _older: tuple[float, int] | None = None
    _newer: tuple[float, int] | None = None

    def note(self, now: float, admitted: int) -> None:
        """So many were admitted until now. To be called at least while somebody waits."""
        if self._newer is None or now - self._newer[0] >= 2 * _SPAN_S:  # nobody waited for long: look anew
            self._older = self._newer = (now, admitted)
        elif now - self._newer[0] >= _SPAN_S:
            self._older, self._newer = self._newer, (now, admitted)

    def retry_after_s(self, now: float, admitted: int, depth: int) -> float:
        """When so many that wait will have been admitted at the pace of late, within ``RETRY_S``."""
        soonest, latest = RETRY_S
        since, before = self._older or (now, admitted)
        if admitted <= before:
            return latest  # nobody was, so nobody knows
        return min(latest, max(soonest, depth * (now - since) / (admitted - before)))


def _ms(seconds: float) -> int:
    return min(max(0, round(seconds * 1000)), _MOST_MS)


def _bucket(ms: int) -> int:
    """Eight for each doubling, one for each millisecond below sixteen."""
    shift = max(0, ms.bit_length() - 4)
    return 8 * shift + (ms >> shift)


def _longest_in(bucket: int) -> int:
    if bucket < 16:
        return bucket
    return ((bucket % 8 + 9) << (bucket // 8 - 1)) - 1
