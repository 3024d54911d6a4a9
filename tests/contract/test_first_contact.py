"""A machine that has only an address and the pin of a root: what it believes, and what it sends to whom."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from mesh.enroll.v1.enroll_pb2 import (
    GetTrustBundleRequest,
    GetTrustBundleResponse,
    JoinRequest,
    JoinResponse,
)
from mesh.enroll.v1.enroll_pb2_grpc import EnrollServiceServicer, add_EnrollServiceServicer_to_server
from mesh.kit.errors import InvalidInput, Unauthenticated, Unavailable
from pki.bundle import WrongPin
from pki.names import Kind
from pki.policy import Role
from pki.tls import TlsFiles, channel_credentials, fetch_bundle, server_credentials
from tests.contract.certificates import odd_files, odd_leaf
from tests.fakes.pki import Mesh


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture(scope="module")
def stranger() -> Mesh:
    """Another mesh of the same name."""
    return Mesh()


class Enroller(EnrollServiceServicer):  # type: ignore[misc]  # generated without types
    """An enrolment service that says what it is told to say, and remembers every token it was sent."""

    def __init__(self, bundle_pem: str) -> None:
        self.bundle_pem = bundle_pem
        self.tokens: list[str] = []

    async def GetTrustBundle(self, _request: GetTrustBundleRequest, _context: object) -> GetTrustBundleResponse:
        return GetTrustBundleResponse(trust_bundle_pem=self.bundle_pem, trust_domain="mesh.local")

    async def Join(self, request: JoinRequest, _context: object) -> JoinResponse:
        self.tokens.append(request.token)
        return JoinResponse()


@asynccontextmanager
async def enrolling(files: TlsFiles, bundle_pem: str) -> AsyncIterator[tuple[str, Enroller]]:
    """The address of an enrolment listener: server TLS only."""
    server, enroller = grpc.aio.server(), Enroller(bundle_pem)
    add_EnrollServiceServicer_to_server(enroller, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    try:
        yield f"127.0.0.1:{port}", enroller
    finally:
        await server.stop(0)


async def test_the_pinned_server_gives_the_bundle_and_the_token_goes_only_there(mesh: Mesh) -> None:
    async with enrolling(mesh.files(Kind.CONTROL_PLANE), mesh.bundle_pem) as (address, enroller):
        found = await fetch_bundle(address, mesh.pin, now=datetime.now(UTC))
        assert found.trust_bundle_pem == mesh.bundle_pem
        assert (found.trust_domain, found.server_name) == ("mesh.local", "control-plane.mesh.local")
        options = (("grpc.ssl_target_name_override", found.server_name),)
        credentials = channel_credentials(found.trust_bundle_pem)
        async with grpc.aio.secure_channel(address, credentials, options) as channel:
            join = channel.unary_unary(
                "/mesh.enroll.v1.EnrollService/Join", request_serializer=JoinRequest.SerializeToString
            )
            await join(JoinRequest(token="the token"))
        assert enroller.tokens == ["the token"]


async def test_a_wrong_pin_is_refused_naming_both(mesh: Mesh, stranger: Mesh) -> None:
    async with enrolling(mesh.files(Kind.CONTROL_PLANE), mesh.bundle_pem) as (address, enroller):
        with pytest.raises(WrongPin) as caught:
            await fetch_bundle(address, stranger.pin, now=datetime.now(UTC))
    assert (caught.value.expected, caught.value.found) == (stranger.pin, (mesh.pin,))
    assert enroller.tokens == []


@pytest.mark.parametrize("extra", ["", "own"], ids=["the true bundle", "its own root beside it"])
async def test_a_server_in_between_cannot_use_the_true_bundle(mesh: Mesh, stranger: Mesh, extra: str) -> None:
    bundle = mesh.bundle_pem + (stranger.bundle_pem if extra else "")
    async with enrolling(stranger.files(Kind.CONTROL_PLANE), bundle) as (address, _):
        with pytest.raises(Unauthenticated) as caught:
            await fetch_bundle(address, mesh.pin, now=datetime.now(UTC))
    assert caught.value.reason == "unknown_issuer"


async def test_what_the_server_adds_to_the_bundle_is_dropped(mesh: Mesh, stranger: Mesh) -> None:
    both = stranger.bundle_pem + mesh.bundle_pem
    async with enrolling(mesh.files(Kind.CONTROL_PLANE), both) as (address, _):
        found = await fetch_bundle(address, mesh.pin, now=datetime.now(UTC))
    assert found.trust_bundle_pem == mesh.bundle_pem


async def test_a_gateway_cannot_pose_as_the_control_plane(mesh: Mesh) -> None:
    async with enrolling(mesh.files(Kind.GATEWAY), mesh.bundle_pem) as (address, _):
        with pytest.raises(Unauthenticated) as caught:
            await fetch_bundle(address, mesh.pin, now=datetime.now(UTC))
    assert caught.value.reason == "wrong_server"


async def test_a_clock_that_is_far_off_is_told(mesh: Mesh) -> None:
    async with enrolling(mesh.files(Kind.CONTROL_PLANE), mesh.bundle_pem) as (address, _):
        with pytest.raises(Unauthenticated, match="a clock is wrong"):
            await fetch_bundle(address, mesh.pin, now=datetime.now(UTC) + timedelta(days=30))


async def test_a_server_without_a_usable_bundle_is_told(mesh: Mesh) -> None:
    async with enrolling(mesh.files(Kind.CONTROL_PLANE), "nothing") as (address, _):
        with pytest.raises(Unauthenticated) as caught:
            await fetch_bundle(address, mesh.pin, now=datetime.now(UTC))
    assert caught.value.reason == "bad_trust_bundle"


async def test_a_server_that_is_no_mesh_is_told(mesh: Mesh) -> None:
    nameless = odd_leaf(mesh.authorities[Role.CONTROL], usage=ExtendedKeyUsageOID.SERVER_AUTH)
    async with enrolling(odd_files(mesh, nameless), mesh.bundle_pem) as (address, _):
        with pytest.raises(Unauthenticated, match="no server of a mesh"):
            await fetch_bundle(address, mesh.pin, now=datetime.now(UTC))


async def test_nobody_there_is_unavailable(mesh: Mesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        await fetch_bundle(f"127.0.0.1:{port}", mesh.pin, now=datetime.now(UTC))


async def test_a_server_that_says_nothing_is_unavailable_after_the_budget(mesh: Mesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match="TimeoutError"):
            await fetch_bundle(address, mesh.pin, now=datetime.now(UTC), budget_s=0.1)


async def test_a_server_that_speaks_no_tls_is_unavailable(mesh: Mesh) -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n" * 10)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match="no trust bundle"):
            await fetch_bundle(f"127.0.0.1:{port}", mesh.pin, now=datetime.now(UTC))


@pytest.mark.parametrize(("address", "pin"), [("nowhere", "sha256:" + "0" * 64), ("127.0.0.1:1", "sha256:0")])
async def test_a_malformed_address_or_pin_is_refused_before_anything_is_sent(address: str, pin: str) -> None:
    with pytest.raises(InvalidInput):
        await fetch_bundle(address, pin, now=datetime.now(UTC))
