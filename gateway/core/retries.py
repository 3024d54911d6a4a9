"""How often other workers may be asked: retries are a part of the traffic, so that a failing fleet is spared."""

from dataclasses import dataclass, field
from typing import Final

SHARE: Final = 0.2  # of requests
MOST: Final = 100.0  # saved up in quiet times
FLOOR_PER_S: Final = 5.0  # so that a quiet gateway may retry as well


@dataclass(slots=True)
class RetryBudget:
    """Requests pay in, retries are paid for. Moments are seconds of a clock that never goes back."""

    _balance: float = field(init=False, default=MOST / 2)
    _at: float | None = field(init=False, default=None)

    def request(self) -> None:
        """A request has come."""
        self._balance = min(self._balance + SHARE, MOST)

    def spend(self, now: float) -> bool:
        """Whether one more retry may be made; it counts."""
        if self._at is not None:
            self._balance = min(self._balance + (now - self._at) * FLOOR_PER_S, MOST)
        self._at = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
