"""A node's side of the control stream, written by hand against the schema, and what tests ask while they wait."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from mesh.node.v1 import node_pb2
from mesh.types.v1 import machine_pb2, worker_pb2

SOON_S = 60.0  # how long a test waits for what must happen; nothing is measured by it
GIB = 2**30


async def eventually(ask: Callable[[], Awaitable[Any]], met: Callable[[Any], bool]) -> Any:
    """Ask again and again until the answer is as wanted, and return it; the last answer is in the failure."""
    answer = None
    try:
        async with asyncio.timeout(SOON_S):
            while not met(answer := await ask()):  # noqa: ASYNC110 - what is asked is across the network
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still {answer}") from None
    return answer


@dataclass(slots=True)
class NodeTalk:
    """One control stream, from the node's side."""

    call: Any
    sequence: int = 0

    async def next(self) -> node_pb2.ConnectResponse:
        """The next thing the control plane says; AioRpcError when the stream ends instead."""
        async with asyncio.timeout(SOON_S):
            said = await self.call.read()
        if said is grpc.aio.EOF:
            raise AssertionError(f"the stream ended: {await self.call.code()} {await self.call.details()}")
        return said

    async def welcome(self) -> node_pb2.Welcome:
        said = await self.next()
        assert said.WhichOneof("message") == "welcome"
        return said.welcome

    async def desired(
        self, met: Callable[[node_pb2.DesiredState], bool] = lambda _: True
    ) -> node_pb2.DesiredState:
        """The next desired state that is as wanted."""
        while True:
            said = await self.next()
            assert said.WhichOneof("message") == "desired_state"
            if met(said.desired_state):
                return said.desired_state

    async def report(self, **fields: Any) -> None:
        self.sequence += 1
        await self.say(node_pb2.Report(**{"sequence": self.sequence, **fields}))

    async def say(self, report: node_pb2.Report) -> None:
        await self.call.write(node_pb2.ConnectRequest(report=report))

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """How the control plane ended the stream: status and reason."""
        async with asyncio.timeout(SOON_S):
            return await status_of(self._drained())

    async def _drained(self) -> None:
        while await self.call.read() is not grpc.aio.EOF:
            pass
        if (code := await self.call.code()) is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await self.call.initial_metadata(), await self.call.trailing_metadata()
            )

    async def hang_up(self) -> None:
        await self.call.done_writing()
        assert await self.ended() == (grpc.StatusCode.OK, "")


async def status_of(work: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """The status that a call ends with, and the reason in its trailing metadata."""
    try:
        await work
    except grpc.aio.AioRpcError as exc:
        trailing = exc.trailing_metadata() or grpc.aio.Metadata()
        return exc.code(), str(trailing.get("mesh-reason", ""))
    return grpc.StatusCode.OK, ""


def hello(**fields: Any) -> node_pb2.Hello:
    """What a machine of 16 GiB without accelerators says first."""
    said: dict[str, Any] = {
        "agent_info": machine_pb2.AgentInfo(version="0.1.0", build_date="2026-11-23", checksum="a" * 64),
        "hardware": machine_pb2.Hardware(
            hostname="box", os="linux", arch="x86_64", cpu_count=8, memory_bytes=16 * GIB, disk_bytes=100 * GIB
        ),
        **fields,
    }
    return node_pb2.Hello(**said)


def status(spec: worker_pb2.WorkerSpec, phase: str = "READY", **fields: Any) -> worker_pb2.WorkerStatus:
    """What a node says of a worker it was given."""
    return worker_pb2.WorkerStatus(
        worker_id=spec.worker_id, spec_hash=spec.spec_hash, phase=f"WORKER_PHASE_{phase}", **fields
    )
