"""Gives an answer to a client at the client's pace, and gives up on one that takes nothing."""

import asyncio
import fcntl
import struct
import sys
import termios
from dataclasses import dataclass, field

from aiohttp import web

from gateway.core.errors import ClientStalled
from gateway.tunnel.patience import Patience
from mesh.kit.clock import Clock

STALL_S = 60.0  # a client that takes no octet for so long is gone, or as good as
_LOOK_S = 5.0  # how often we look whether one that keeps us waiting takes anything


class _Response(web.StreamResponse):
    """One whose headers leave together with the first octets of the body: a call to the kernel less."""

    _send_headers_immediately = False


@dataclass(slots=True)
class Delivery:
    """One answer. Raises ClientStalled, or ConnectionError when the client has gone."""

    request: web.BaseRequest
    headers: dict[str, str]
    patience: Patience
    clock: Clock
    response: web.StreamResponse | None = field(init=False, default=None)

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        """The status and the headers; they leave with the first octets."""
        self.response = _Response(status=status, headers={**self.headers, **headers})
        await self.response.prepare(self.request)

    async def send(self, octets: bytes) -> None:
        """Some of the body. Returns when little enough waits to be taken."""
        assert self.response is not None
        self.patience.allow(_LOOK_S)
        try:
            await self.response.write(octets)
        except asyncio.CancelledError:
            if not self.patience.is_up():
                raise
            await self._wait_for_client()

    async def end(self, octets: bytes = b"") -> None:
        """The rest of the body."""
        assert self.response is not None
        self.patience.allow(_LOOK_S)
        try:
            await self.response.write_eof(octets)
        except asyncio.CancelledError:
            if not self.patience.is_up():
                raise
            await self._wait_for_client()
            # All was handed over, but aiohttp's response does not know: it must not end a second time.
            transport = self.request.transport
            if transport is not None:
                transport.close()
            raise ConnectionResetError("a slow client's connection is not kept") from None

    async def _wait_for_client(self) -> None:
        """Until what was handed over is nearly all taken, as long as some is taken every minute."""
        left, since = self._left(), self.clock.monotonic()
        while True:
            self.patience.allow(_LOOK_S)
            try:
                return await self.request.writer.drain()
            except asyncio.CancelledError:
                if not self.patience.is_up():
                    raise
            now_left, now = self._left(), self.clock.monotonic()
            if now_left < left:
                left, since = now_left, now
            elif now - since >= STALL_S - _LOOK_S:  # the first look came after so long already
                if self.request.transport is not None:
                    self.request.transport.abort()
                raise ClientStalled(f"the client took nothing for {STALL_S:.0f} s")

    def _left(self) -> int:
        """Octets handed over that the client's machine has not acknowledged."""
        transport = self.request.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        buffered: int = transport.get_write_buffer_size()
        connection = transport.get_extra_info("socket")
        if sys.platform != "linux" or connection is None or transport.get_extra_info("sslcontext"):
            return buffered
        octets = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        (in_kernel,) = struct.unpack("i", octets)
        return buffered + int(in_kernel)
