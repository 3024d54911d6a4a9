"""Reconnecting is one loop: full jitter, capped, reset by success that lasted."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from mesh.kit.clock import Clock

STABLE_AFTER_S = 30.0  # a connection that lasted this long was a success; flapping keeps the delay


def jitter(ceiling_s: float) -> float:
    """A random delay between nothing and the ceiling, so that a fleet does not return as one."""
    return secrets.randbelow(1_000_000) / 1_000_000 * ceiling_s


@dataclass(slots=True)
class Backoff:
    """Delays of a reconnect loop. The first is short (0 to 1 s), each further ceiling doubles up to the cap."""

    clock: Clock
    first_s: float = 1.0
    cap_s: float = 30.0
    _ceiling_s: float = field(init=False, default=0.0)

    async def attempts(self) -> AsyncIterator[None]:
        """Yield at once, then again after each delay, for ever. A turn that lasted resets the delay."""
        while True:
            began = self.clock.monotonic()
            yield
            if self.clock.monotonic() - began >= STABLE_AFTER_S:
                self._ceiling_s = 0.0
            self._ceiling_s = min(self._ceiling_s * 2 or self.first_s, self.cap_s)
            await self.clock.sleep(jitter(self._ceiling_s))
