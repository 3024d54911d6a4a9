"""When an engine counts as sick, and how long to wait before starting it again. Times are passed in."""

from dataclasses import dataclass, replace
from enum import StrEnum

SICK_AFTER = 5  # probes failed in a row: an overloaded engine answers late, a stuck one never
FIRST_DELAY_S = 1.0
CAP_S = 60.0
FORGIVEN_AFTER_S = 300.0  # healthy this long: the next failure is a first one again


class Health(StrEnum):
    """What the probes so far say."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    SICK = "sick"


@dataclass(frozen=True, slots=True)
class Probes:
    """The history of one engine's liveness probes, as far as it matters."""

    answered: bool = False
    failed_in_a_row: int = 0

    def after(self, *, alive: bool) -> "Probes":
        """The history with one more probe."""
        if alive:
            return Probes(answered=True)
        return replace(self, failed_in_a_row=self.failed_in_a_row + 1)

    @property
    def health(self) -> Health:
        """SICK after five failures in a row; HEALTHY while the last probe was answered."""
        if self.failed_in_a_row >= SICK_AFTER:
            return Health.SICK
        return Health.HEALTHY if self.answered and not self.failed_in_a_row else Health.UNKNOWN


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a worker failed of late, and since when it has been healthy."""

    failures: int = 0
    healthy_since: float | None = None

    def healthy(self, *, now: float) -> "Restarts":
        """It answers; the first such moment counts."""
        return self if self.healthy_since is not None else replace(self, healthy_since=now)

    def failed(self, *, now: float) -> "Restarts":
        """It failed; five healthy minutes before that wipe the slate."""
        lasted = self.healthy_since is not None and now - self.healthy_since >= FORGIVEN_AFTER_S
        return Restarts(failures=1 if lasted else self.failures + 1)

    @property
    def delay_s(self) -> float:
        """Seconds until the next start: 1, 2, 4 … 60 after the first, second, third … failure."""
        if not self.failures:
            return 0.0
        return min(FIRST_DELAY_S * 2.0 ** min(self.failures - 1, 10), CAP_S)
