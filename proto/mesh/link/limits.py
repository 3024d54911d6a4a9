"""How much one link may hold, and how much wrong it may do.

Why a link never buffers more than ``octets`` in one direction, although each of 2048 streams has a window of
256 KiB: *outstanding* octets are those taken from a sender and not yet credited by the reader, wherever they
are (queued to go out, on the way, unread). A sender takes more for a stream only

* up to the stream's window, and
* while all streams together have less than ``common`` (half of ``octets``) outstanding, or else
* while this stream alone has less than its ``share`` (the other half, divided by ``streams``).

So the sum stays under common + streams × share = octets. A few streams that nobody reads can use up the common
half; every other stream still moves, one share at a time, and readers return credit at once instead of at half
a window while more than half of the common half is outstanding. An honest sender therefore never meets the
reader's own limit; a dishonest one is reset there.
"""

from collections import deque
from dataclasses import dataclass, field

from mesh.link.frames import AMOUNT, MAX_HEAD, PROBE

MAX_FAULTS = 20  # a peer that breaks the rules more often ...
FAULT_WINDOW_S = 60.0  # ... within this long is not worth a link


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What both ends of a link must agree on."""

    streams: int = 2048
    """Open at once; beyond it the answer is TOO_MANY, and routing looks elsewhere."""

    window: int = 256 * 1024
    """Octets outstanding per stream and direction: 5 MB/s at 50 ms round trip; tokens need 1 % of it."""

    octets: int = 16 * 1024 * 1024
    """Octets outstanding per link and direction."""

    common: int = field(init=False)
    share: int = field(init=False)
    frames: int = field(init=False)
    """Control frames waiting to go out. An honest peer causes a few per stream; more means it does not read."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "common", self.octets // 2)
        object.__setattr__(self, "share", min(self.window, self.octets // 2 // self.streams))
        object.__setattr__(self, "frames", 4 * self.streams + 64)
        if not 0 < self.share <= self.window <= self.common:
            raise ValueError("octets must hold two windows, and a share for every stream")
        if PROBE.size + self.streams * AMOUNT.size > MAX_HEAD:
            raise ValueError("a probe must be able to name every stream")


class FaultBudget:
    """Counts what a peer does wrong."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_FAULTS)

    def spend(self, now: float) -> bool:
        """Note a fault at that moment; True while the peer may go on."""
        self._times.append(now)
        return len(self._times) < MAX_FAULTS or now - self._times[0] > FAULT_WINDOW_S
