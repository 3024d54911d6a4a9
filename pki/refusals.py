"""Which refused calls are worth a line in the log. Strangers may call as often as they like; our disk is finite.

Values only: the caller brings the time, and writes the line.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field
from urllib.parse import unquote

EVERY_S = 60.0  # between two lines about one caller and reason
CALLERS = (
    512  # remembered at once; lines a minute at most, about 150 MB a day for an attacker with a whole network
)


@dataclass(slots=True)
class _Said:
    at: float
    since: int = 0


@dataclass(slots=True)
class Refusals:
    """What was said about whom. One per listener."""

    every_s: float = EVERY_S
    capacity: int = CALLERS
    _said: "OrderedDict[tuple[str, str], _Said]" = field(init=False, default_factory=OrderedDict)

    def count(self, who: str, reason: str, now: float) -> int:
        """Count one refusal. How many there were since the last line about it, or 0: not worth a line now."""
        said = self._said.get((who, reason))
        if said is None:
            if len(self._said) >= self.capacity and not self._made_room(now):
                return 0  # many at once: those that are remembered tell the story
            said = self._said[who, reason] = _Said(now)
        elif now - said.at < self.every_s:
            said.since += 1
            return 0
        told, said.since, said.at = said.since + 1, 0, now
        self._said.move_to_end((who, reason))
        return told

    def __len__(self) -> int:
        """Callers remembered now."""
        return len(self._said)

    def _made_room(self, now: float) -> bool:
        """Forget the oldest, unless it counts still."""
        key, oldest = next(iter(self._said.items()))
        if now - oldest.at < self.every_s:
            return False
        del self._said[key]
        return True


def source_of(peer: str) -> str:
    """Whom a gRPC peer ("ipv4:1.2.3.4:5", "ipv6:%5B::1%5D:5") counts as: a v4 address or a v6 /64."""
    family, _, rest = peer.partition(":")
    host = unquote(rest.rpartition(":")[0]).strip("[]").partition("%")[0]
    if family == "ipv4":
        return host
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return peer  # a unix socket or something new: itself
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
