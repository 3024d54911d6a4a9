"""The admin API as meshctl sees it: one channel, one call, every refusal a CommandFailed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from control_plane.ctl import identity
from control_plane.ctl.errors import from_status
from mesh.kit.clock import Clock

CALL_BUDGET_S = 15.0  # an admin call is a few rows; a control plane that needs longer is as good as gone

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class Target:
    """Which control plane, and as whom."""

    endpoint: str
    identity: Path


def path_of(request: Message) -> str:
    """The method that takes this request: each request message belongs to exactly one."""
    for service in request.DESCRIPTOR.file.services_by_name.values():
        for method in service.methods:
            if method.input_type.full_name == request.DESCRIPTOR.full_name:
                return f"/{service.full_name}/{method.name}"
    raise LookupError(request.DESCRIPTOR.full_name)


@dataclass(frozen=True, slots=True)
class Admin:
    """Calls of one control plane, as one operator."""

    channel: grpc.aio.Channel
    endpoint: str

    async def call(self, request: Message, answer: type[Answer], *, budget_s: float = CALL_BUDGET_S) -> Answer:
        """The answer, or CommandFailed: CallRefused when it said no, Unreachable when nobody answered."""
        method = self.channel.unary_unary(
            path_of(request),
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            reply: Answer = await method(request, timeout=budget_s)
        except grpc.aio.AioRpcError as exc:
            raise from_status(exc, self.endpoint) from exc
        return reply


@asynccontextmanager
async def connect(target: Target, clock: Clock) -> AsyncIterator[Admin]:
    """The admin API of that control plane. Nothing is sent before the first call."""
    operator = identity.load_operator(target.identity, clock.now())
    options = [
        ("grpc.ssl_target_name_override", operator.control_plane_name),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # The mesh is dialled as written: an HTTP proxy in the environment is not in between.
        ("grpc.enable_http_proxy", 0),
    ]
    async with grpc.aio.secure_channel(target.endpoint, operator.credentials(), options=options) as channel:
        yield Admin(channel, target.endpoint)
