"""A wire between a node and its engine that a test cuts at an octet of the engine's answer, framing included."""

import asyncio
import contextlib
from dataclasses import dataclass, field

PIECE = 64 * 1024
ASKING = (b"POST /v1/chat", b"POST /v1/completions")


@dataclass(slots=True)
class Cutter:
    """Several wires. ``at``: the next request on any of them is cut after so many octets of its answer, once."""

    at: int | None = None
    measured: int = 0
    """Octets of the answer to the first request after ``measure``."""
    asked: int = 0
    """Requests that came."""
    _measure: bool = False
    _servers: list[asyncio.Server] = field(default_factory=list)
    _ends: set[asyncio.StreamWriter] = field(default_factory=set)

    def measure(self) -> None:
        """Count the octets of the next answer."""
        self._measure, self.measured = True, 0

    async def wire(self, engine_port: int) -> int:
        """One more wire; the port at which it begins."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ends = {writer}
            self._ends.add(writer)
            try:
                from_engine, to_engine = await asyncio.open_connection("127.0.0.1", engine_port)
                ends.add(to_engine)
                self._ends.add(to_engine)
                await _Joint(self, writer, to_engine).join(reader, from_engine)
            except OSError:
                pass  # the engine is not there, or has gone
            finally:
                for end in ends:
                    end.close()
                for end in ends:
                    with contextlib.suppress(OSError):
                        await end.wait_closed()
                self._ends -= ends

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def take(self) -> tuple[int | None, bool]:
        """A request has come: where its answer is to be cut, and whether it is to be measured."""
        self.asked += 1
        at, self.at = self.at, None
        measuring, self._measure = self._measure, False
        return at, measuring

    async def close(self) -> None:
        """End all wires, and return when they have."""
        for server in self._servers:
            server.close()
        async with asyncio.timeout(10):
            while self._ends:
                for end in self._ends:
                    end.close()
                await asyncio.sleep(0.01)


@dataclass(slots=True)
class _Joint:
    """One connection's both directions."""

    cutter: Cutter
    to_node: asyncio.StreamWriter
    to_engine: asyncio.StreamWriter
    left: int | None = None
    measuring: bool = False

    async def join(self, from_node: asyncio.StreamReader, from_engine: asyncio.StreamReader) -> None:
        """Until one side is done, or it is cut."""
        await asyncio.gather(self._there(from_node), self._back(from_engine), return_exceptions=True)

    async def _there(self, reader: asyncio.StreamReader) -> None:
        try:
            while octets := await reader.read(PIECE):
                if octets.startswith(ASKING):
                    self.left, self.measuring = self.cutter.take()
                self.to_engine.write(octets)
                await self.to_engine.drain()
        finally:
            self.to_engine.close()

    async def _back(self, reader: asyncio.StreamReader) -> None:
        try:
            while self.left != 0 and (octets := await reader.read(PIECE)):
                if self.measuring:
                    self.cutter.measured += len(octets)
                if self.left is not None:
                    octets = octets[: self.left]
                    self.left -= len(octets)
                self.to_node.write(octets)
                await self.to_node.drain()
        finally:
            self.to_node.close()
            self.to_engine.close()
