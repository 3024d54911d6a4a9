"""What a Mux tells its driver. All of it is data; nothing here needs an answer before the next batch."""

from dataclasses import dataclass

from mesh.link.frames import ResetCode


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream."""

    stream: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Headed:
    """The answer's head has come; its body follows."""

    stream: int
    head: bytes


@dataclass(slots=True)
class Received:
    """Octets for the reader. Not frozen: freezing doubles what one costs, and there is one per DATA frame."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer has sent all of its direction."""

    stream: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream is over, for this reason. No further event names it."""

    stream: int
    code: ResetCode


@dataclass(frozen=True, slots=True)
class Credited:
    """A stream whose last ``send`` fell short may try again."""

    stream: int


@dataclass(frozen=True, slots=True)
class Probed:
    """The peer asked which streams we know. The answer is queued already."""

    nonce: int


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """The peer's answer to our newest probe."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Draining:
    """The peer takes no new streams; those that are open go on."""


@dataclass(frozen=True, slots=True)
class ProtocolFault:
    """The peer broke a rule. The stream (0: none) has been reset with ``code``; ``why`` is for the log."""

    stream: int
    code: ResetCode
    why: str


Event = Opened | Headed | Received | Ended | Reset | Credited | Probed | ProbeAnswered | Draining | ProtocolFault
