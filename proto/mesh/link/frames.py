"""The frames of a link: how they lie in a batch, and which batches are no batches at all.

A frame is nine octets (kind u8, stream u32, length u32, big endian) and a payload; a batch is whole frames,
back to back. The payloads:

    OPEN    the request's head, opaque here          stream: a new one
    HEAD    the answer's head, opaque here           stream: an open one
    DATA    1 to 16 KiB of body                      stream: an open one
    END     nothing: this direction is complete      stream: an open one
    RESET   one octet: why it is over                stream: an open one
    CREDIT  u32: octets the reader has consumed      stream: an open one
    PROBE   see ``pack_probe``                       stream: 0
    DRAIN   nothing: open no more streams            stream: 0
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

HEADER = Struct("!BII")
CREDIT = Struct("!BIII")
RESET = Struct("!BIIB")
AMOUNT = Struct("!I")
PROBE = Struct("!BQI")

MAX_DATA = 16 * 1024  # one stream's turn on the link: 0.13 ms at 1 Gbit/s
MAX_HEAD = 32 * 1024  # an HTTP head; servers in front of us refuse larger ones
MAX_BATCH = 256 * 1024  # one gRPC message: beyond it, messages no longer get cheaper
MAX_STREAM = (1 << 32) - 1


class Kind(IntEnum):
    """What a frame says. Numbers are never reused."""

    OPEN = 1
    HEAD = 2
    DATA = 3
    END = 4
    RESET = 5
    CREDIT = 6
    PROBE = 7
    DRAIN = 8


class ResetCode(IntEnum):
    """Why a stream is over before its end. Numbers are never reused."""

    CANCEL = 1  # whoever asked no longer wants it
    PROTOCOL = 2  # a frame that has no place there
    FLOW_CONTROL = 3  # more octets than the window had room for
    REFUSED = 4  # understood, and not done; nothing has happened
    WORKER_UNKNOWN = 5
    WORKER_UNREADY = 6
    UPSTREAM_FAILED = 7  # the engine could not be reached, or answered nonsense
    UPSTREAM_LOST = 8  # the engine went away in the middle
    TIMEOUT = 9
    LINK_LOST = 10  # never sent: what a side tells itself when the link is gone
    DRAINING = 11  # refused: this side is going away; nothing has happened
    TOO_MANY = 12  # refused: no room for another stream; nothing has happened
    FORGOTTEN = 13  # the other side no longer knows this stream


# Which lengths a payload may have, by kind. PROBE is bounded like a head: 13 octets and four per stream.
LENGTHS: dict[int, tuple[int, int]] = {
    Kind.OPEN: (0, MAX_HEAD),
    Kind.HEAD: (0, MAX_HEAD),
    Kind.DATA: (1, MAX_DATA),
    Kind.END: (0, 0),
    Kind.RESET: (1, 1),
    Kind.CREDIT: (4, 4),
    Kind.PROBE: (PROBE.size, MAX_HEAD),
    Kind.DRAIN: (0, 0),
}


class LinkError(Exception):
    """The peer sent what is no batch of frames, or does not read: the link must end. ``reason`` is a code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason.replace("_", " "))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Probe:
    """A question about streams, or its answer.

    ``streams`` are those the sender knows, out of all numbered up to ``highest``. About later ones it says
    nothing, since their OPEN may still be on its way.
    """

    answer: bool
    nonce: int
    highest: int
    streams: frozenset[int]


def pack(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(kind, stream, len(payload)) + payload


def pack_reset(stream: int, code: ResetCode) -> bytes:
    """A RESET frame."""
    return RESET.pack(Kind.RESET, stream, 1, code)


def pack_credit(stream: int, octets: int) -> bytes:
    """A CREDIT frame."""
    return CREDIT.pack(Kind.CREDIT, stream, 4, octets)


def pack_probe(probe: Probe) -> bytes:
    """A PROBE frame: answer u8, nonce u64, highest u32, then each stream as u32."""
    body = PROBE.pack(probe.answer, probe.nonce, probe.highest)
    return pack(Kind.PROBE, 0, body + b"".join(map(AMOUNT.pack, sorted(probe.streams))))


def read_probe(payload: bytes) -> Probe:
    """The probe in a PROBE frame's payload. LinkError if it is not whole."""
    if (len(payload) - PROBE.size) % AMOUNT.size:
        raise LinkError("malformed_probe")
    answer, nonce, highest = PROBE.unpack_from(payload)
    streams = frozenset(stream for (stream,) in AMOUNT.iter_unpack(payload[PROBE.size :]))
    return Probe(bool(answer), nonce, highest, streams)


def read_code(octet: int) -> ResetCode:
    """The code in a RESET frame; one that we do not know yet reads as CANCEL: over, and nobody to blame."""
    try:
        return ResetCode(octet)
    except ValueError:
        return ResetCode.CANCEL
