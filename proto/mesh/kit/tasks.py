"""Keeps a part running: log, back off, and give up loudly when it does not help."""

import asyncio
import logging
from collections import deque
from typing import Protocol

from mesh.kit.clock import Clock
from mesh.kit.logs import F

log = logging.getLogger(__name__)

GIVE_UP_AFTER = 5  # unexpected ends ...
GIVE_UP_WITHIN_S = 60.0  # ... within this long: the supervisor outside starts the process afresh


class Part(Protocol):
    """A long-lived piece of a process. Its fields are its dependencies."""

    async def run(self) -> None:
        """Work until cancelled."""


class PartKeepsFailing(RuntimeError):
    """A part ended unexpectedly too often; the process should end too."""


async def keep_running(part: Part, clock: Clock) -> None:
    """Run the part until cancelled, again after every unexpected end.

    Raises PartKeepsFailing after five unexpected ends in a minute.
    """
    ends: deque[float] = deque(maxlen=GIVE_UP_AFTER)
    name = type(part).__name__
    while True:
        try:
            await part.run()
            log.error("part returned", extra={F.PART: name})
        except asyncio.CancelledError:
            raise
        except Exception:  # edge: one bad round must not end the process
            log.exception("part failed", extra={F.PART: name})
        ends.append(clock.monotonic())
        while ends[-1] - ends[0] >= GIVE_UP_WITHIN_S:
            ends.popleft()  # long ago: neither a reason to give up nor one to wait
        if len(ends) == GIVE_UP_AFTER:
            raise PartKeepsFailing(name)
        await clock.sleep(min(0.2 * 2 ** len(ends), 5.0))
