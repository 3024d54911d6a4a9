"""One request on a link, for those who ask and those who answer.

The asking side: ``write`` the body, ``end``; await ``head``, then ``read`` until nothing is left. The answering
side: ``read`` the body, ``respond``, ``write``, ``end``. Either side may ``reset`` at any time, also after a
cancelled ``read`` or ``write``, and should do so in a ``finally``: where all is done already, it does nothing.

What was read counts as consumed when the reader comes back for more, not before: a slow reader holds at most one
window, in its hands and in the buffer together. One task reads and one writes; they may be different ones.
"""

import asyncio
from collections.abc import Callable

from mesh.kit.errors import InvalidInput
from mesh.link.frames import MAX_HEAD, ResetCode
from mesh.link.mux import Mux
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire.errors import StreamReset

Waiter = asyncio.Future[None]


class Stream:
    """Made by a Session. Methods that are not coroutines only queue, and never wait."""

    __slots__ = (
        "_chunks",
        "_code",
        "_ended",
        "_hand",
        "_head",
        "_mux",
        "_on_cut_off",
        "_own_end",
        "_reader",
        "_wake",
        "_writer",
        "id",
        "request",
    )

    def __init__(self, stream: int, request: pb.Open, mux: Mux, wake: Callable[[], None]) -> None:
        self.id = stream
        self.request = request
        self._mux = mux
        self._wake = wake
        self._head: pb.Head | None = None
        self._chunks: list[bytes] = []
        self._hand = 0  # octets the reader holds, not yet consumed
        self._ended = False  # the peer has sent all
        self._own_end = False  # we have
        self._code: ResetCode | None = None
        self._on_cut_off: Callable[[ResetCode], None] | None = None
        self._reader: Waiter | None = None
        self._writer: Waiter | None = None

    @property
    def done(self) -> bool:
        """Whether the stream is over: reset, or both directions ended and all read."""
        return self._code is not None or (self._own_end and self._ended and not self._chunks)

    @property
    def code(self) -> ResetCode | None:
        """Why the stream was reset, by either side; None if it was not."""
        return self._code

    def when_cut_off(self, callback: Callable[[ResetCode], None]) -> None:
        """Call that once when the stream is cut off, now if it is already: for who waits for something else."""
        self._on_cut_off = callback
        if self._code is not None:
            callback(self._code)

    async def head(self) -> pb.Head:
        """The answer's head. StreamReset if there will be none."""
        while self._head is None:
            self._check()
            await self._readable()
        self._check()
        return self._head

    async def read(self) -> bytes:
        """All octets that are there, at least one; b"" at the end. StreamReset if the stream was cut off."""
        chunks = await self.read_chunks()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read_chunks(self) -> list[bytes]:
        """Like ``read``, as the pieces in which they came, uncopied; empty at the end."""
        if self._hand:
            self._consumed()
        while not self._chunks:
            self._check()
            if self._ended:
                return []
            await self._readable()
        chunks, self._chunks = self._chunks, []
        self._hand = sum(map(len, chunks))
        if self._ended:
            self._consumed()  # nobody waits for more credit, and the reader may know that this was all
        return chunks

    async def write(self, data: bytes) -> None:
        """Send octets; returns when all are queued, which waits for the peer's reader when it is slow.

        StreamReset if the stream is cut off before. What was cancelled half way has been sent half way.
        """
        self._check()
        if not data:
            return
        taken = self._mux.send(self.id, data)
        if taken == len(data):
            self._wake()
            return
        rest = memoryview(data)
        while rest := rest[taken:]:
            if taken:
                self._wake()
            await self._writable()
            self._check()
            taken = self._mux.send(self.id, rest)
        self._wake()

    def respond(self, head: pb.Head) -> None:
        """Send the answer's head, once, before its body. StreamReset if nobody wants it any more."""
        self._check()
        payload = head.SerializeToString()
        if len(payload) > MAX_HEAD:
            raise InvalidInput("headers", f"longer than {MAX_HEAD} octets")
        self._mux.respond(self.id, payload)
        self._head = head
        self._wake()

    def end(self) -> None:
        """Say that our direction is complete. Nothing happens if the stream was cut off, or we said so before."""
        if self._code is None and not self._own_end:
            self._mux.end(self.id)
            self._own_end = True
            self._wake()

    def reset(self, code: ResetCode) -> None:
        """Give up: what is unsent is discarded, what is unread forgotten. Nothing happens if all is done."""
        if not self.done:
            self._mux.reset(self.id, code)
            self.cut_off(code)
            self._wake()

    # For the session, which takes the link's batches apart

    def headed(self, head: pb.Head) -> None:
        """The answer's head has come."""
        self._head = head
        self._wake_reader()

    def received(self, data: bytes) -> None:
        """Octets have come."""
        if self._code is None:
            self._chunks.append(data)
            self._wake_reader()

    def ended(self) -> None:
        """The peer has sent all."""
        self._ended = True
        if self._hand and not self._chunks:
            self._consumed()
        self._wake_reader()

    def credited(self) -> None:
        """A writer that waited may try again."""
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def cut_off(self, code: ResetCode) -> None:
        """The stream is over; whoever waits learns of it."""
        if self._code is None:
            self._code = code
            self._chunks.clear()
            self._hand = 0
            self._wake_reader()
            self.credited()
            if self._on_cut_off is not None:
                self._on_cut_off(code)

    # Helpers

    def _check(self) -> None:
        if self._code is not None:
            raise StreamReset(self._code)

    def _consumed(self) -> None:
        self._mux.consumed(self.id, self._hand)
        self._hand = 0
        self._wake()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _readable(self) -> None:
        if self._reader is not None:
            raise RuntimeError("two tasks read one stream")
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    async def _writable(self) -> None:
        if self._writer is not None:
            raise RuntimeError("two tasks write one stream")
        self._writer = asyncio.get_running_loop().create_future()
        try:
            await self._writer
        finally:
            self._writer = None
