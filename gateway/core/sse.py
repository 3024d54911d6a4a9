"""Takes a stream of server-sent events apart at the blank lines, however the bytes were cut, and no further.

Each whole event is shown to a function which returns what the client gets instead: the same bytes, fewer, or none.
What comes out does not depend on how the input was split.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

MAX_EVENT = 256 * 1024  # octets; a longer event passes unseen, so that no stream holds more than this in memory
_LF, _CRLF = b"\n\n", b"\r\n\r\n"
_LONGEST = len(_CRLF)


@dataclass(slots=True)
class Scanner:
    """One stream's scanner. ``show`` gets each event with its blank line."""

    show: Callable[[bytes], bytes]
    _tail: bytes = field(init=False, default=b"")
    _boundary: bytes = field(init=False, default=b"")
    """How this stream ends its events; the first event decides."""
    unseen: bool = field(init=False, default=False)
    """Whether an event has passed that was too long to be shown."""
    _passing: bool = field(init=False, default=False)
    """Inside an event that is too long to be looked at."""

    @property
    def inside(self) -> bool:
        """Whether what came out so far ends in the middle of an event."""
        return self._passing

    def feed(self, data: bytes) -> bytes:
        """What the client gets for these bytes; the rest of a begun event stays here."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if not self._boundary:
            self._boundary = _first_boundary(data)
        boundary = self._boundary
        if not boundary:
            return self._keep([], data, 0)
        size = len(boundary)
        end = data.find(boundary)
        if end >= 0 and end + size == len(data) and not self._passing and end + size <= MAX_EVENT:
            return self.show(data)  # one whole event: what an engine sends nearly always
        out: list[bytes] = []
        at = 0
        while end >= 0:
            end += size
            event = data[at:end]
            if self._passing or len(event) > MAX_EVENT:
                self.unseen = True
                out.append(event)
            else:
                out.append(self.show(event))
            self._passing = False
            at = end
            end = data.find(boundary, at)
        return self._keep(out, data, at)

    def finish(self) -> bytes:
        """What is left when the stream is over: an event that was never finished, as it is."""
        tail, self._tail = self._tail, b""
        return tail

    def _keep(self, out: list[bytes], data: bytes, at: int) -> bytes:
        """Hold the begun event back; let go of one that has grown too long, but for the octets of a blank line."""
        if self._passing or len(data) - at > MAX_EVENT:
            cut = max(at, len(data) - _LONGEST + 1)
            out.append(data[at:cut])
            self._passing = self.unseen = True
            at = cut
        self._tail = data[at:]
        return b"".join(out)


def _first_boundary(data: bytes) -> bytes:
    lf, crlf = data.find(_LF), data.find(_CRLF)
    if lf < 0 and crlf < 0:
        return b""
    return _CRLF if lf < 0 or 0 <= crlf < lf else _LF
