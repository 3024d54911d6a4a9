"""What the guard writes down: whoever calls in a loop must not fill the disk with our log."""

import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from mesh.kit.errors import InvalidInput, MeshError, TooManyRequests
from mesh.kit.logs import F
from pki.names import Kind
from pki.peer import Context
from tests.contract.grpc_server import serving
from tests.contract.test_guard import method, refused
from tests.fakes.clock import FakeClock
from tests.fakes.pki import Mesh


async def test_a_caller_in_a_loop_is_one_line_a_minute_and_one_who_was_limited_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, mesh = FakeClock(datetime.now(UTC)), Mesh()
    node = mesh.files(Kind.NODE, "node-1")
    raised: MeshError = InvalidInput("name", "too long")

    async def answer(_request: bytes, _context: Context) -> bytes:
        raise raised

    def lines() -> list[Any]:
        return [vars(record).get(F.COUNT) for record in caplog.records if record.message == "call refused"]

    with caplog.at_level(logging.INFO):
        async with serving(mesh, clock=clock) as server, server.channel(node) as channel:
            server.methods.answer = answer
            for name in ("ForAnyone", "Unary"):  # a stranger for all the guard knows, and a node
                for _ in range(5):
                    await refused(channel.unary_unary(method(name))(b""))
            assert lines() == [1, 1]
            await clock.forward(60)
            await refused(channel.unary_unary(method("ForAnyone"))(b""))
            assert lines() == [1, 1, 5]
            raised = TooManyRequests("slow down", retry_after_s=1)
            await refused(channel.unary_unary(method("ForAnyone"))(b""))
            assert lines() == [1, 1, 5]
