"""What goes wrong on a link, for those who use its streams.

Unavailable
├── LinkLost          the link is gone, or ended before it began
├── SessionDraining   the link takes no new streams
├── TooManyStreams    the link is full
└── StreamReset       the other side, or the link's end, cut this stream off
"""

from mesh.kit.errors import Unavailable
from mesh.link.frames import ResetCode


class LinkLost(Unavailable):
    """The link is gone. Nothing is known of what was under way."""

    def __init__(self, text: str = "the link is gone") -> None:
        super().__init__(text)


class SessionDraining(Unavailable):
    """The link takes no new streams; nothing has been sent."""

    def __init__(self) -> None:
        super().__init__("the link is draining")


class TooManyStreams(Unavailable):
    """The link is full; nothing has been sent."""

    def __init__(self) -> None:
        super().__init__("the link has no room for another stream")


class StreamReset(Unavailable):
    """The stream is over before its end. ``reason`` says why."""

    def __init__(self, reason: ResetCode) -> None:
        super().__init__(f"stream reset: {reason.name.lower()}")
        self.reason = reason
