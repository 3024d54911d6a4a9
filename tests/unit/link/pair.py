"""Hub and agent, back to back, without a link between them."""

from mesh.link.events import (
    Event,
    Headed,
    Opened,
    ProtocolFault,
)
from mesh.link.frames import (
    ResetCode,
)
from mesh.link.limits import Limits
from mesh.link.mux import Mux

SMALL = Limits(streams=4, window=64, octets=256)  # common 128, share 32


class Pair:
    """Hub and agent, back to back."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.hub = Mux(initiator=True, limits=limits)
        self.agent = Mux(initiator=False, limits=limits)

    def down(self) -> list[Event]:
        """Hub to agent."""
        return self.agent.receive(self.hub.outgoing())

    def up(self) -> list[Event]:
        """Agent to hub."""
        return self.hub.receive(self.agent.outgoing())

    def open(self, head: bytes = b"") -> int:
        """A stream that both know."""
        stream = self.hub.open(head)
        assert self.down() == [Opened(stream, head)]
        return stream

    def answered(self) -> int:
        """A stream whose answer has begun."""
        stream = self.open()
        self.agent.respond(stream, b"")
        assert self.up() == [Headed(stream, b"")]
        return stream


def faults(events: list[Event]) -> list[tuple[int, ResetCode]]:
    return [(e.stream, e.code) for e in events if isinstance(e, ProtocolFault)]
