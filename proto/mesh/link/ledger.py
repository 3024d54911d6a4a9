"""Who may still send how much: the octets outstanding of every stream, and of all of them together.

The rules, and why they bound what a link holds, are in ``limits.py``. Nothing here looks into a frame.
"""

from mesh.link.flow import Flow
from mesh.link.frames import Kind, ResetCode, pack_reset
from mesh.link.limits import Limits
from mesh.link.outbox import Outbox


class Ledger:
    """The streams of a Mux and their counters. Whatever counts a stream's octets also counts the link's."""

    def __init__(self, limits: Limits, out: Outbox) -> None:
        self.flows: dict[int, Flow] = {}
        self.outstanding = 0  # taken from our senders, not yet credited
        self.held = 0  # received, not yet credited
        self.eager_above = limits.common // 2
        self.retired: list[int] = []
        self._limits = limits
        self._out = out
        self._cramped: dict[int, None] = {}  # flows that lacked the link's room, not their own

    # Sending

    def take(self, flow: Flow, data: bytes | memoryview) -> int:
        """Queue as much of the data as both windows allow; returns how much that was."""
        size = len(data)
        room = self._limits.common - self.outstanding
        if size > room or size > flow.credit:
            # Alone below its share a stream may always go on, whatever the others hold.
            room = max(room, self._limits.share - flow.outstanding, 0)
            taken = min(size, flow.credit, room)
            if taken < size:
                flow.short = True
                if taken == room:
                    self._cramped[flow.id] = None
                if not taken:
                    return 0
                data, size = data[:taken], taken
        flow.put(data)
        self.outstanding += size
        self._out.ready(flow)
        return size

    def credited(self, flow: Flow, octets: int) -> bool:
        """The peer has consumed octets; True if a sender waits for that."""
        flow.credit += octets
        self.outstanding -= octets
        waiting = flow.short and flow.sending
        flow.short = False
        self.settle(flow)
        return waiting

    def relieved(self) -> list[int]:
        """Streams that lacked the link's room, once there is some."""
        if not self._cramped or self.outstanding >= self._limits.common:
            return []
        streams = list(self._cramped)
        self._cramped.clear()
        return streams

    def sent_all(self, flow: Flow) -> None:
        """The flow's END has gone out."""
        flow.ending = False
        flow.sent_all = True
        self.settle(flow)

    # Receiving

    def press(self, arrived: int) -> bool:
        """More is held than comfortable: return all credit at once. False if it is more than the link may hold."""
        if self.held > self._limits.octets:
            return False
        if self.held - arrived <= self.eager_above:
            for flow in self.flows.values():
                if flow.owed:
                    self.grant(flow)
        return True

    def consume(self, flow: Flow, octets: int) -> None:
        """The reader is done with octets."""
        flow.owed += octets
        if flow.owed * 2 >= flow.window or self.held > self.eager_above:
            self.grant(flow)
        self.settle(flow)

    def grant(self, flow: Flow) -> None:
        """Return all credit the flow owes."""
        self._out.credit(flow.id, flow.owed)
        flow.room += flow.owed
        self.held -= flow.owed
        flow.owed = 0

    # Leaving

    def settle(self, flow: Flow) -> None:
        """Let a flow go that is over and counts no more."""
        if not flow.over or flow.unread:
            return
        if flow.owed > self._limits.share:
            self.grant(flow)
        if flow.outstanding <= self._limits.share:
            self.drop(flow)

    def cut_off(self, flow: Flow, code: ResetCode) -> None:
        """Drop the flow, and tell the peer unless it need not know."""
        unheard = self._out.recall(flow.id)
        if not unheard and not flow.over:
            self._out.control(Kind.RESET, flow.id, pack_reset(flow.id, code))
        self.drop(flow)

    def drop(self, flow: Flow) -> None:
        """The flow is gone; nothing of it counts any more."""
        del self.flows[flow.id]
        self._cramped.pop(flow.id, None)
        self.outstanding -= flow.outstanding
        self.held -= flow.window - flow.room
        flow.drop_queue()
        self.retired.append(flow.id)
