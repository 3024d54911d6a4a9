"""The moments of one request, for its spans: who had it and when. Noted only of requests that are traced.

Moments are seconds of the monotonic clock. The ids are those of W3C Trace Context.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.core.routing import Choice

_HEADER: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1
_SPREAD: Final = 2**62
"""A request id's last 62 bits are random."""


@dataclass(slots=True)
class Try:
    """One worker's. ``heard``: when its first octets came; ``why``: of one that failed."""

    span: int
    choice: Choice
    began: float
    heard: float | None = None
    ended: float | None = None
    why: str = ""


@dataclass(slots=True)
class Story:
    """One request's. ``span`` is the root's; the other spans' ids count on from it."""

    trace: int
    span: int
    parent: int
    """The client's span; zero: none."""
    sampled: bool
    tries: list[Try] = field(default_factory=list)

    def take(self, choice: Choice, now: float) -> None:
        """This worker has it now."""
        if self.sampled:
            # A try takes two ids: its own and its engine's; the queue has the one after the root's.
            self.tries.append(Try(self.span + 2 + 2 * len(self.tries), choice, now))

    def heard(self, now: float) -> None:
        """The worker that has it has begun to answer. Only the first call counts."""
        if self.tries and self.tries[-1].heard is None:
            self.tries[-1].heard = now

    def failed(self, why: str, now: float) -> None:
        """The worker that has it will not answer, or not to the end."""
        if self.tries:
            self.tries[-1].ended, self.tries[-1].why = now, why

    @property
    def header(self) -> str:
        """``traceparent`` for the engine; empty when there is nothing to say."""
        if self.tries:
            return f"00-{self.trace:032x}-{self.tries[-1].span:016x}-01"
        return f"00-{self.trace:032x}-{self.parent:016x}-00" if self.parent else ""


class Tracing(Protocol):
    """Where stories go."""

    share: float
    """Of the requests whose client does not say whether they are traced: 0 to 1."""
    sent: int
    dropped: int
    """Requests."""

    async def run(self) -> None:
        """Hand over what has come. A part."""

    async def close(self) -> None:
        """Hand over what is left, within seconds, and end."""

    def ended(self, story: Story, facts: Mapping[str, object], arrived: float) -> None:
        """A request is over. Never waits; what there is no room for is counted and lost."""


def begin(request_id: str, traceparent: str | None, share: float) -> Story:
    """Go on with the client's trace, as it wishes; else begin one, of that share. Its id is the request's."""
    span = secrets.randbits(63) + 1  # half of the range is left for those that count on from it
    found = None if traceparent is None else _HEADER.fullmatch(traceparent.strip())
    if found is not None and (found[1] != "00" or found[5] is None):
        trace, parent = int(found[2], 16), int(found[3], 16)
        if trace and parent:
            return Story(trace, span, parent, bool(int(found[4], 16) & _SAMPLED))
    trace = int(request_id.replace("-", ""), 16)
    return Story(trace, span, 0, trace % _SPREAD < share * _SPREAD)
