"""A Link over the gRPC stream of ``PeerService/Connect``, seen from either end.

Like ``grpc_link``, with one thing beside the frames: the accepting side says which nodes are attached to it, at
any time. The dialling side hands that on while it reads, so that a Session sees frames only.
"""

import asyncio
from collections.abc import Callable, Iterable

import grpc

from mesh.link.frames import LinkError
from mesh.tunnel.v1 import peer_pb2 as pb
from mesh.wire.errors import LinkLost
from mesh.wire.grpc_link import unless_over

PeerContext = grpc.aio.ServicerContext[pb.ConnectRequest, pb.ConnectResponse]
PeerCall = grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]


class AcceptingLink:
    """The end of the gateway that was dialled."""

    def __init__(self, context: PeerContext) -> None:
        self._context = context
        self._writing = asyncio.Lock()  # gRPC takes one write at a time; frames and nodes come from two tasks

    async def hello(self) -> str:
        """The hub that dials. LinkLost if it goes away, LinkError if it says something else."""
        message = await unless_over(self._context.read())
        if not isinstance(message, pb.ConnectRequest):  # EOF
            raise LinkLost
        if message.WhichOneof("message") != "hello":
            raise LinkError("no_hello")
        return message.hello.hub_id

    async def welcome(self, hub_id: str) -> None:
        """Answer the greeting; from now on the link carries frames."""
        await self._write(pb.ConnectResponse(welcome=pb.PeerWelcome(hub_id=hub_id)))

    async def tell_nodes(self, node_ids: Iterable[str]) -> None:
        """Say which nodes are attached; it may be said while frames are sent."""
        await self._write(pb.ConnectResponse(nodes=pb.AttachedNodes(node_ids=node_ids)))

    async def receive(self) -> bytes | None:
        """The next batch; None when the peer has ended."""
        message = await unless_over(self._context.read())
        if not isinstance(message, pb.ConnectRequest):  # EOF
            return None
        if message.WhichOneof("message") != "frames":
            raise LinkError("no_frames")
        return message.frames

    async def send(self, batch: bytes) -> None:
        """Send a batch."""
        await self._write(pb.ConnectResponse(frames=batch))

    async def close(self) -> bool:
        """Nothing to say: the call ends when its handler returns."""
        return False

    async def _write(self, message: pb.ConnectResponse) -> None:
        async with self._writing:
            await unless_over(self._context.write(message))


class DiallingLink:
    """The end of the gateway that dials."""

    def __init__(self, call: PeerCall, on_nodes: Callable[[frozenset[str]], None]) -> None:
        """``on_nodes`` is told all nodes that are attached there, at once and after every change."""
        self._call = call
        self._on_nodes = on_nodes

    async def greet(self, hub_id: str) -> str:
        """Say hello; returns the hub there. LinkLost if it goes away, LinkError if it says something else."""
        await unless_over(self._call.write(pb.ConnectRequest(hello=pb.PeerHello(hub_id=hub_id))))
        message = await unless_over(self._call.read())
        if not isinstance(message, pb.ConnectResponse):  # EOF
            raise LinkLost
        if message.WhichOneof("message") != "welcome":
            raise LinkError("no_welcome")
        return message.welcome.hub_id

    async def receive(self) -> bytes | None:
        """The next batch; None when the peer has ended."""
        while True:
            message = await unless_over(self._call.read())
            if not isinstance(message, pb.ConnectResponse):  # EOF
                return None
            match message.WhichOneof("message"):
                case "frames":
                    return message.frames
                case "nodes":
                    self._on_nodes(frozenset(message.nodes.node_ids))
                case _:
                    raise LinkError("no_frames")

    async def send(self, batch: bytes) -> None:
        """Send a batch."""
        await unless_over(self._call.write(pb.ConnectRequest(frames=batch)))

    async def close(self) -> bool:
        """Say that nothing more comes. The other's handler then returns, and the call ends without a cancel."""
        try:
            await unless_over(self._call.done_writing())
        except LinkLost:
            return False
        return True
