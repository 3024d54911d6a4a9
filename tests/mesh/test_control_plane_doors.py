"""Each listener opens for one kind of certificate and no other."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from mesh.admin.v1 import organization_pb2, organization_pb2_grpc
from mesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from mesh.node.v1 import node_pb2, node_pb2_grpc
from pki.authority import serial_hex
from pki.names import Kind
from pki.tls import TlsFiles
from tests.fakes.pki import Mesh
from tests.mesh.control_plane_clients import NodeTalk, eventually, hello, status_of
from tests.mesh.control_plane_harness import Plane

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _now() -> datetime:
    return datetime.now(UTC)


RIGHT = {"node": Kind.NODE, "gateway": Kind.GATEWAY, "admin": Kind.OPERATOR}


async def knock(plane: Plane, listener: str, files: TlsFiles | None) -> tuple[grpc.StatusCode, str]:
    """The status of one call at that listener with those files."""
    channel: Any = plane.channel(listener, files)
    if listener == "admin":
        stub = organization_pb2_grpc.OrganizationServiceStub(channel)
        return await status_of(stub.ListOrganizations(organization_pb2.ListOrganizationsRequest(), timeout=20))
    if listener == "gateway":
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        return await status_of(stub.ReportUsage(gateway_pb2.ReportUsageRequest(), timeout=20))
    call = node_pb2_grpc.NodeServiceStub(channel).Connect(timeout=20)

    async def talk() -> None:
        await call.write(node_pb2.ConnectRequest(hello=hello()))
        await call.read()
        raise AssertionError("let in")

    return await status_of(talk())


@pytest.mark.parametrize(
    ("listener", "kind"), [(listener, kind) for listener in RIGHT for kind in Kind if kind is not RIGHT[listener]]
)
async def test_the_wrong_kind_of_certificate_opens_no_door(plane: Plane, listener: str, kind: Kind) -> None:
    code, reason = await knock(plane, listener, plane.mesh.files(kind, "someone"))
    if (listener, kind) == ("gateway", Kind.CONTROL_PLANE):  # of the same issuing CA: the guard says no
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "wrong_kind")
    else:  # of another: the handshake fails, and TLS 1.3 clients see no more than that
        assert code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("listener", RIGHT)
async def test_without_a_certificate_no_door_opens(plane: Plane, listener: str) -> None:
    assert (await knock(plane, listener, None))[0] is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("listener", RIGHT)
async def test_a_certificate_of_another_mesh_opens_no_door(plane: Plane, listener: str) -> None:
    stranger = Mesh().files(RIGHT[listener], "someone")
    assert (await knock(plane, listener, stranger))[0] is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("listener", RIGHT)
async def test_an_expired_certificate_opens_no_door(plane: Plane, listener: str) -> None:
    short = plane.mesh.files(RIGHT[listener], "someone", ttl=timedelta(seconds=1))
    end = short.not_after + timedelta(seconds=1)  # TLS counts the last second in
    await eventually(_now, lambda now: now > end)
    assert (await knock(plane, listener, short))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_session_ends_with_its_certificate_and_a_new_call_on_its_connection_is_refused(
    plane: Plane,
) -> None:
    joined = await plane.join()
    short = plane.mesh.files(Kind.NODE, joined.node_id, ttl=timedelta(seconds=3))
    async with plane.database() as db:  # as if it had been issued at the join
        await db.execute(
            "INSERT INTO certificates (serial, node_id, spki, issued_at, not_after) "
            "VALUES ($1, $2, 'k', now(), $3)",
            serial_hex(short.certificate),
            joined.node_id,
            short.not_after,
        )
    stub = node_pb2_grpc.NodeServiceStub(plane.channel("node", short))
    node = NodeTalk(stub.Connect())
    await node.call.write(node_pb2.ConnectRequest(hello=hello()))
    await node.welcome()
    assert await node.ended() == (grpc.StatusCode.UNAUTHENTICATED, "certificate_expired")
    again = NodeTalk(stub.Connect())
    assert await again.ended() == (grpc.StatusCode.UNAUTHENTICATED, "certificate_expired")


async def test_a_node_that_never_joined_is_unknown_though_its_certificate_is_good(plane: Plane) -> None:
    assert await knock(plane, "node", plane.mesh.files(Kind.NODE, "0198c0de-0000-7000-8000-000000000000")) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "node_unknown",
    )


async def test_a_certificate_that_was_not_issued_to_this_node_is_unknown(plane: Plane) -> None:
    """The node CA signed it, the node exists, and still: its serial is not in our books."""
    joined = await plane.join()
    assert await knock(plane, "node", plane.mesh.files(Kind.NODE, joined.node_id)) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "certificate_unknown",
    )


@pytest.mark.parametrize("method", ["/mesh.admin.v1.OrganizationService/Nothing", "/nothing/at-all"])
async def test_an_unknown_method_is_unimplemented(plane: Plane, method: str) -> None:
    call = plane.operator.unary_unary(method)(b"")
    assert (await status_of(call))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_of_another_listener_is_not_served_here(plane: Plane) -> None:
    stub = gateway_pb2_grpc.GatewayServiceStub(plane.operator)
    status = await status_of(stub.ReportUsage(gateway_pb2.ReportUsageRequest()))
    assert status[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_past_its_bound_is_refused(plane: Plane) -> None:
    request = organization_pb2.CreateOrganizationRequest(name="x" * 100_000)
    assert (await status_of(plane.organizations.CreateOrganization(request)))[0] is (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )


async def test_octets_that_are_no_message_are_an_invalid_argument(plane: Plane) -> None:
    call = plane.operator.unary_unary("/mesh.admin.v1.OrganizationService/CreateOrganization")(b"\xff\xff")
    assert await status_of(call) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")
