"""Taking batches apart independently of the code under test."""

import struct

from mesh.link.frames import Kind


def frames_of(batch: bytes) -> list[tuple[Kind, int, bytes]]:
    """Every frame of a batch: kind, stream, payload."""
    found, at = [], 0
    while at < len(batch):
        kind, stream, length = struct.unpack_from("!BII", batch, at)
        found.append((Kind(kind), stream, batch[at + 9 : at + 9 + length]))
        at += 9 + length
    assert at == len(batch)
    return found


def frame(kind: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame, well formed or not."""
    return struct.pack("!BII", kind, stream, len(payload) if length is None else length) + payload
