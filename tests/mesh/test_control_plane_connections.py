"""Connections are bounded: strangers who hold many shut nobody out for long, and take no other door's files."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest

from control_plane.app import _listeners, read_trust
from control_plane.rpc.access import ENROLL
from control_plane.rpc.enroll_service import EnrollService, Enrolment
from control_plane.rpc.limits import Limiter, Limits
from control_plane.rpc.metrics import Metrics
from control_plane.rpc.server import Listener, RpcServer
from control_plane.store.db import open_pool
from mesh.enroll.v1 import enroll_pb2, enroll_pb2_grpc
from mesh.kit.clock import WallClock
from mesh.wire.channel import secure_channel
from pki.names import Kind
from pki.policy import Role
from pki.tls import ServerTls, channel_credentials
from tests.fakes.pki import Mesh
from tests.mesh.control_plane_clients import eventually, status_of
from tests.mesh.control_plane_harness import ANY_PORT, SERVER_NAME, open_folder, plane_in

FINE = (grpc.StatusCode.OK, "")


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


@asynccontextmanager
async def door(mesh: Mesh, **bounds: Any) -> AsyncIterator[str]:
    """The address of an enrolment listener with these bounds."""
    clock = WallClock()
    listener = Listener(
        name="enroll",
        address=ANY_PORT,
        tls=ServerTls(mesh.files(Kind.CONTROL_PLANE)),
        table=ENROLL,
        most_octets=64 * 1024,
        **{"most_calls": 64, "most_connections": 64, **bounds},
    )
    server = RpcServer((listener,), trust_domain=mesh.trust_domain, clock=clock)
    address = server.bind()["enroll"]
    service = EnrollService(
        await open_pool("postgresql://nobody:x@127.0.0.1:1/none"),
        clock,
        Metrics(),
        Limiter(Limits(per_second=1e6, burst=1_000_000), per_second_in_all=1e6),
        Enrolment(mesh.authorities[Role.NODE], mesh.bundle_pem, "127.0.0.1:1"),
        b"p" * 32,
    )
    await server.start({"enroll": lambda on: enroll_pb2_grpc.add_EnrollServiceServicer_to_server(service, on)})
    try:
        yield str(address)
    finally:
        await server.stop()


def connect(mesh: Mesh, address: str) -> grpc.aio.Channel:
    return secure_channel(address, channel_credentials(mesh.bundle_pem), server_name=SERVER_NAME)


async def ask(channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, str]:
    stub: Any = enroll_pb2_grpc.EnrollServiceStub(channel)
    return await status_of(stub.GetTrustBundle(enroll_pb2.GetTrustBundleRequest(), timeout=20))


async def test_idle_strangers_make_room_for_the_next_client(mesh: Mesh) -> None:
    async with door(mesh, most_connections=5, longest_idle=timedelta(seconds=1)) as address:
        idle = [connect(mesh, address) for _ in range(5)]
        assert [await ask(channel) for channel in idle] == [FINE] * 5

        async def newcomer() -> tuple[grpc.StatusCode, str]:
            async with connect(mesh, address) as channel:
                return await ask(channel)

        assert (await newcomer())[0] is grpc.StatusCode.UNAVAILABLE
        await eventually(newcomer, lambda answer: answer == FINE)
        for channel in idle:
            await channel.close()


async def test_a_call_that_is_never_finished_ends_with_its_connection(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.rpc.server.LAST_CALLS", timedelta(seconds=1))
    async with (
        door(mesh, most_calls=1, longest_life=timedelta(seconds=1)) as address,
        connect(mesh, address) as stranger,
        connect(mesh, address) as client,
    ):
        halves = []

        async def beside_half_a_call() -> tuple[grpc.StatusCode, str]:
            half = stranger.stream_unary("/mesh.enroll.v1.EnrollService/GetTrustBundle")()
            halves.append(half)
            with contextlib.suppress(grpc.aio.AioRpcError):  # refused beside the one before it
                await half.wait_for_connection()
            return await ask(client)

        # Again and again: on a busy machine, one may have had its time before the client is heard.
        await eventually(beside_half_a_call, lambda answer: answer[0] is grpc.StatusCode.RESOURCE_EXHAUSTED)
        await eventually(lambda: ask(client), lambda answer: answer == FINE)
        assert grpc.StatusCode.OK not in [await half.code() for half in halves]


def test_every_door_is_bounded_and_only_where_nobody_streams_connections_end_of_age() -> None:
    with open_folder() as folder:
        settings = plane_in(folder).settings
        doors = {one.name: one for one in _listeners(settings, read_trust(settings, WallClock()))}
    assert {name: one.most_connections for name, one in doors.items()} == {
        "enroll": 256,
        "node": 8192,
        "gateway": 512,
        "admin": 256,
    }
    assert doors["enroll"].longest_idle == timedelta(seconds=15)
    assert [name for name, one in doors.items() if one.longest_life is not None] == ["enroll"]
