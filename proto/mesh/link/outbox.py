"""What waits to go down a link, and in which order it goes.

Control frames first, in the order they were made; then CREDIT; then probes, which therefore speak of a state the
peer has been told of; then DATA and END, one frame per stream and round. Every part is bounded: control frames
by ``Limits.frames``, the rest by one entry per stream.
"""

from collections import OrderedDict
from collections.abc import Callable

from mesh.link.flow import Flow
from mesh.link.frames import HEADER, Kind, Probe, pack_credit, pack_probe

_HEADER = HEADER.size
_CREDIT = len(pack_credit(1, 1))
_DATA, _END = int(Kind.DATA), int(Kind.END)


class Outbox:
    """Frames and flows that are ready to go."""

    def __init__(self) -> None:
        self._control: OrderedDict[int, bytes] = OrderedDict()  # by stream and kind, so that a reset can recall
        self._credits: dict[int, int] = {}
        self._probes: dict[bool, Callable[[], Probe]] = {}
        self._ring: OrderedDict[int, Flow] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._ring or self._control or self._credits or self._probes)

    @property
    def frames(self) -> int:
        """How many control frames wait."""
        return len(self._control)

    def control(self, kind: Kind, stream: int, frame: bytes) -> None:
        """Queue a control frame; one of its kind per stream."""
        self._control[stream << 4 | kind] = frame

    def credit(self, stream: int, octets: int) -> None:
        """Queue credit; what waits for the same stream is added up."""
        self._credits[stream] = self._credits.get(stream, 0) + octets

    def probe(self, *, answer: bool, make: Callable[[], Probe]) -> None:
        """Queue a probe, made when it leaves. The newest of each sort wins."""
        self._probes[answer] = make

    def ready(self, flow: Flow) -> None:
        """The flow has DATA or END to send."""
        if flow.id not in self._ring:
            self._ring[flow.id] = flow

    def recall(self, stream: int) -> bool:
        """Take back all that waits for the stream; True if the peer never heard of it."""
        self._ring.pop(stream, None)
        self._credits.pop(stream, None)
        for kind in (Kind.HEAD, Kind.RESET):
            self._control.pop(stream << 4 | kind, None)
        return self._control.pop(stream << 4 | Kind.OPEN, None) is not None

    def clear(self) -> None:
        """Forget everything."""
        self._control.clear()
        self._credits.clear()
        self._probes.clear()
        self._ring.clear()

    def take(self, room: int) -> tuple[bytes, list[Flow]]:
        """A batch of at most that many octets, and the flows whose END is in it."""
        parts: list[bytes | memoryview] = []
        if self._control or self._credits or self._probes:
            room = self._take_control(room, parts)
            if room < 0:
                return b"".join(parts), []
        ended: list[Flow] = []
        ring = self._ring
        pack_header = HEADER.pack
        while ring and room > _HEADER:
            stream, flow = ring.popitem(last=False)
            if flow.queued:
                size, pieces = flow.cut(room - _HEADER)
                parts.append(pack_header(_DATA, stream, size))
                parts += pieces
                room -= _HEADER + size
            if flow.queued or (flow.ending and room < _HEADER):  # the rest in a later round
                ring[stream] = flow
            elif flow.ending:
                parts.append(pack_header(_END, stream, 0))
                room -= _HEADER
                ended.append(flow)
        return b"".join(parts), ended

    def _take_control(self, room: int, parts: list[bytes | memoryview]) -> int:
        """Move what is not DATA or END into ``parts``; returns the room left, negative if it ran out."""
        control = self._control
        while control:
            key, frame = control.popitem(last=False)
            if len(frame) > room:
                control[key] = frame
                control.move_to_end(key, last=False)
                return -1
            parts.append(frame)
            room -= len(frame)
        for stream in list(self._credits):
            if room < _CREDIT:
                return -1
            parts.append(pack_credit(stream, self._credits.pop(stream)))
            room -= _CREDIT
        for answer in list(self._probes):
            frame = pack_probe(self._probes[answer]())
            if len(frame) > room:
                return -1
            del self._probes[answer]
            parts.append(frame)
            room -= len(frame)
        return room
