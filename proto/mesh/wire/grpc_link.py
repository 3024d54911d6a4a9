"""A Link over the gRPC stream of ``TunnelService/Attach``, seen from either end.

The first message each way is a greeting, exchanged here before a Session takes the link over. Whatever way gRPC
has of saying that a call is over, callers see LinkLost or None.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import grpc

from mesh.link.frames import LinkError
from mesh.tunnel.v1 import tunnel_pb2 as pb
from mesh.wire.errors import LinkLost

T = TypeVar("T")

ServerContext = grpc.aio.ServicerContext[pb.AttachRequest, pb.AttachResponse]
ClientCall = grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse]


async def unless_over(operation: Awaitable[T]) -> T:
    """The operation's result. LinkLost if gRPC says, in one of its ways, that the call is over."""
    try:
        return await operation
    except grpc.aio.AioRpcError as exc:
        raise LinkLost(f"{exc.code().name.lower()}: {exc.details()}") from exc
    except (grpc.aio.BaseError, asyncio.InvalidStateError) as exc:
        raise LinkLost(str(exc)) from exc
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Not we were cancelled but the call, which grpc.aio reports in the same way.
        raise LinkLost("the call was cancelled") from exc


class ServerLink:
    """The hub's end."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def hello(self) -> pb.Hello:
        """The agent's greeting. LinkLost if it goes away, LinkError if it says something else."""
        message = await unless_over(self._context.read())
        if not isinstance(message, pb.AttachRequest):  # EOF
            raise LinkLost
        if message.WhichOneof("message") != "hello":
            raise LinkError("no_hello")
        return message.hello

    async def welcome(self, hub_id: str) -> None:
        """Answer the greeting; from now on the link carries frames."""
        await unless_over(self._context.write(pb.AttachResponse(welcome=pb.Welcome(hub_id=hub_id))))

    async def receive(self) -> bytes | None:
        """The next batch; None when the agent has ended."""
        message = await unless_over(self._context.read())
        if not isinstance(message, pb.AttachRequest):  # EOF
            return None
        if message.WhichOneof("message") != "frames":
            raise LinkError("no_frames")
        return message.frames

    async def send(self, batch: bytes) -> None:
        """Send a batch."""
        await unless_over(self._context.write(pb.AttachResponse(frames=batch)))

    async def close(self) -> bool:
        """Nothing to say: the call ends when its handler returns."""
        return False


class ClientLink:
    """The agent's end."""

    def __init__(self, call: ClientCall) -> None:
        self._call = call

    async def greet(self, epoch: int) -> str:
        """Say hello; returns the id of the hub. LinkLost if it goes away, LinkError if it says something else."""
        await unless_over(self._call.write(pb.AttachRequest(hello=pb.Hello(epoch=epoch))))
        message = await unless_over(self._call.read())
        if not isinstance(message, pb.AttachResponse):  # EOF
            raise LinkLost
        if message.WhichOneof("message") != "welcome":
            raise LinkError("no_welcome")
        return message.welcome.hub_id

    async def receive(self) -> bytes | None:
        """The next batch; None when the hub has ended."""
        message = await unless_over(self._call.read())
        if not isinstance(message, pb.AttachResponse):  # EOF
            return None
        if message.WhichOneof("message") != "frames":
            raise LinkError("no_frames")
        return message.frames

    async def send(self, batch: bytes) -> None:
        """Send a batch."""
        await unless_over(self._call.write(pb.AttachRequest(frames=batch)))

    async def close(self) -> bool:
        """Say that nothing more comes. The hub's handler then returns, and the call ends without a cancel."""
        try:
            await unless_over(self._call.done_writing())
        except LinkLost:
            return False
        return True
