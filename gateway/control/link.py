"""The gateway's channel to the control plane, which is replaced when its certificate is."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from mesh.gateway.v1.gateway_pb2_grpc import GatewayServiceStub
from mesh.kit.errors import Unavailable
from mesh.wire.channel import SNAPSHOT_CHANNEL_OPTIONS, secure_channel
from pki.tls import TlsFiles, channel_credentials


class ControlPlaneLost(Unavailable):
    """A call failed, or was never answered."""

    def __init__(self, status: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{status.name.lower()}: {details}")
        self.status = status


@dataclass(slots=True)
class ControlPlane:
    """Where the control plane is, and the channel there. ``connect`` before the first call."""

    address: str
    server_name: str
    _channel: grpc.aio.Channel | None = field(init=False, default=None)
    _stub: GatewayServiceStub | None = field(init=False, default=None)

    @property
    def stub(self) -> GatewayServiceStub:
        """For the next call; not to be kept."""
        assert self._stub is not None, "connected first"
        return self._stub

    async def connect(self, files: TlsFiles) -> None:
        """Use this certificate from now on. Calls under way over an earlier channel end with ControlPlaneLost."""
        credentials = channel_credentials(files.trust_bundle_pem, key_pem=files.key_pem, chain_pem=files.chain_pem)
        old = self._channel
        self._channel = secure_channel(
            self.address, credentials, server_name=self.server_name, options=SNAPSHOT_CHANNEL_OPTIONS
        )
        self._stub = GatewayServiceStub(self._channel)
        if old is not None:
            await old.close()

    async def close(self) -> None:
        """End every call."""
        if self._channel is not None:
            await self._channel.close()


@contextmanager
def calling() -> Iterator[None]:
    """Around a call: whatever way gRPC has of saying that it is over, callers see ControlPlaneLost."""
    try:
        yield
    except grpc.aio.AioRpcError as exc:
        raise ControlPlaneLost(exc.code(), exc.details() or "") from exc
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Not we were cancelled but the call, which grpc.aio reports in the same way.
        raise ControlPlaneLost(grpc.StatusCode.CANCELLED, "the channel was replaced") from None
