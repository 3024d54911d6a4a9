"""How often strangers may knock: token buckets by address and for all, and a block after many failures.

Values only: the caller brings the time. The table of addresses is bounded; when it is full the one unheard
of for longest is forgotten, so an attacker with many addresses buys no memory of ours, and the limit for all
still holds.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from mesh.kit.errors import TooManyRequests

FAILURE_WINDOW_S = 900.0  # failures are counted this long ...
BLOCK_S = 900.0  # ... and too many shut the address out this long
ALL_PER_SECOND = 50.0  # of all addresses: signing and the database stay free for the nodes that are in
ADDRESSES = 10_000  # remembered at once, about 2 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one address may do."""

    per_second: float = 1.0
    burst: int = 5
    failures: int = 10


@dataclass(slots=True)
class _Bucket:
    """A token bucket."""

    rate: float
    size: float
    level: float
    filled_at: float

    def take(self, now: float) -> float:
        """Take one; return zero, or how long until there is one."""
        self.level = min(self.size, self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.level >= 1.0:
            self.level -= 1.0
            return 0.0
        return (1.0 - self.level) / self.rate


@dataclass(slots=True)
class _Address:
    bucket: _Bucket
    failures: int = 0
    failing_since: float = 0.0
    blocked_until: float = 0.0


@dataclass(slots=True)
class Limiter:
    """Admission of strangers. One per listener."""

    limits: Limits
    per_second_in_all: float = ALL_PER_SECOND
    capacity: int = ADDRESSES
    _known: "OrderedDict[str, _Address]" = field(init=False, default_factory=OrderedDict)
    _all: _Bucket | None = field(init=False, default=None)

    def admit(self, source: str, now: float) -> None:
        """Count one call; TooManyRequests when this address, or all together, call too often."""
        known = self._address(source, now)
        if now < known.blocked_until:
            raise TooManyRequests("too many failures", retry_after_s=known.blocked_until - now)
        if wait := known.bucket.take(now):
            raise TooManyRequests("too many attempts", retry_after_s=wait)
        if self._all is None:
            self._all = _Bucket(self.per_second_in_all, self.per_second_in_all, self.per_second_in_all, now)
        if wait := self._all.take(now):
            raise TooManyRequests("too many attempts", retry_after_s=wait)

    def failed(self, source: str, now: float) -> None:
        """Count one refused attempt; the last one allowed shuts the address out."""
        known = self._address(source, now)
        if now - known.failing_since > FAILURE_WINDOW_S:
            known.failures, known.failing_since = 0, now
        known.failures += 1
        if known.failures >= self.limits.failures:
            known.blocked_until, known.failures = now + BLOCK_S, 0

    def __len__(self) -> int:
        """Addresses remembered now."""
        return len(self._known)

    def _address(self, source: str, now: float) -> _Address:
        known = self._known.get(source)
        if known is None:
            limits = self.limits
            known = self._known[source] = _Address(
                _Bucket(limits.per_second, limits.burst, limits.burst, now), failing_since=now
            )
            if len(self._known) > self.capacity:
                self._known.popitem(last=False)
        self._known.move_to_end(source)
        return known
