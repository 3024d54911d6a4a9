"""What gateways get, and what they hand in."""

import re
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from control_plane.rpc import gateway_service
from mesh.admin.v1 import api_key_pb2, node_pb2, organization_pb2
from mesh.gateway.v1 import gateway_pb2
from mesh.kit.ids import uuid7
from mesh.types.v1 import worker_pb2
from mesh.wire.channel import CONTROL_CHANNEL_OPTIONS
from pki import api_keys
from tests.mesh.control_plane_clients import eventually, status, status_of
from tests.mesh.control_plane_harness import Plane

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")


def record(**fields: Any) -> gateway_pb2.UsageRecord:
    said: dict[str, Any] = {
        "request_id": uuid7(datetime.now(UTC)),
        "key_id": "nokey",
        "organization_id": "nobody",
        "model": "smol",
        "worker_id": "w",
        "node_id": "n",
        "outcome": gateway_pb2.USAGE_OUTCOME_COMPLETED,
        "duration_ms": 12,
        "completion_tokens": 0,
        "status": 200,
        **fields,
    }
    made = gateway_pb2.UsageRecord(**said)
    made.started_at.FromDatetime(datetime.now(UTC))
    return made


async def hand_in(plane: Plane, *records: gateway_pb2.UsageRecord, gateway_id: str = "gw-1") -> list[str]:
    reply = await plane.gateway(gateway_id).ReportUsage(gateway_pb2.ReportUsageRequest(records=records))
    return list(reply.stored_request_ids)


async def test_a_record_is_kept_once_however_often_it_comes(plane: Plane) -> None:
    before = await plane.usage_count()
    one, two = record(), record()
    assert sorted(await hand_in(plane, one, two)) == sorted([one.request_id, two.request_id])
    assert sorted(await hand_in(plane, one, two, one)) == sorted([one.request_id, two.request_id])
    assert await hand_in(plane, one, gateway_id="gw-2") == [one.request_id]
    assert await plane.usage_count() - before == 2


async def test_records_of_keys_and_organizations_that_are_gone_are_kept(plane: Plane) -> None:
    before = await plane.usage_count()
    await hand_in(plane, record(key_id="", organization_id="never-was"))
    assert await plane.usage_count() - before == 1


async def test_an_empty_batch_stores_nothing(plane: Plane) -> None:
    assert await hand_in(plane) == []


async def test_500_records_are_a_batch_and_501_are_not(plane: Plane) -> None:
    many = [record() for _ in range(501)]
    assert len(await hand_in(plane, *many[:500])) == 500
    call = plane.gateway().ReportUsage(gateway_pb2.ReportUsageRequest(records=many))
    assert await status_of(call) == INVALID
    assert (await call.details()) == "records: at most 500, not 501"


async def test_a_record_without_an_identity_is_refused_by_its_place(plane: Plane) -> None:
    before = await plane.usage_count()
    call = plane.gateway().ReportUsage(
        gateway_pb2.ReportUsageRequest(records=[record(), record(request_id="not a uuid")])
    )
    assert await status_of(call) == INVALID
    assert (await call.details()).startswith("records[1].request_id: ")
    assert await plane.usage_count() == before


async def test_odd_numbers_and_texts_in_a_record_are_made_fit_to_keep(plane: Plane) -> None:
    odd = record(model="m\x00" * 5000, prompt_tokens=2**32 - 1, duration_ms=2**32 - 1, status=7, outcome=99)
    assert await hand_in(plane, odd) == [odd.request_id]


async def test_a_moment_outside_the_calendar_is_refused(plane: Plane) -> None:
    odd = record()
    odd.started_at.seconds = 2**62
    call = plane.gateway().ReportUsage(gateway_pb2.ReportUsageRequest(records=[odd]))
    assert await status_of(call) == INVALID
    assert (await call.details()).startswith("records[0].started_at: ")


async def test_a_key_is_in_force_in_the_next_snapshot_and_out_of_it_when_deleted(plane: Plane) -> None:
    await plane.organization("acme")
    snapshots = plane.watch()
    await anext(snapshots)
    made = await plane.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(organization="acme", name="k"))
    async for seen in snapshots:
        known = {entry.key_id: entry for entry in seen.api_keys}
        if made.api_key.key_id in known:
            break
    entry = known[made.api_key.key_id]
    assert api_keys.parse(made.secret_key).matches(seen.key_pepper, entry.secret_mac)
    assert not entry.HasField("expires_at")
    await plane.api_keys.DeleteApiKey(api_key_pb2.DeleteApiKeyRequest(key_id=made.api_key.key_id))
    async for later in snapshots:
        assert later.revision > seen.revision
        if made.api_key.key_id not in {entry.key_id for entry in later.api_keys}:
            break


async def test_a_revoked_node_is_named_to_gateways_and_its_routes_are_gone(plane: Plane) -> None:
    joined = await plane.join()
    node = await plane.connect(joined)
    await node.welcome()
    await plane.deploy("doomed")
    [spec] = (await node.desired(lambda state: bool(state.workers))).workers
    snapshots = plane.watch()
    await node.report(workers=[status(spec)])
    async for seen in snapshots:
        routes = [route for model in seen.models for route in model.routes if route.node_id == joined.node_id]
        if routes and routes[0].phase == worker_pb2.WORKER_PHASE_READY:
            break
    await plane.nodes.DeleteNode(node_pb2.DeleteNodeRequest(node_id=joined.node_id))
    async for seen in snapshots:
        if joined.node_id in seen.revoked_nodes:
            break
    assert not [route for model in seen.models for route in model.routes if route.node_id == joined.node_id]


async def test_a_gateway_that_moves_is_dialled_at_its_new_address(plane: Plane) -> None:
    node = await plane.connect(await plane.join())
    await node.welcome()
    for endpoint in ("127.0.0.1:7001", "[::1]:7002"):
        snapshots = plane.watch("mover", endpoint)
        await anext(snapshots)
        await node.desired(lambda state, e=endpoint: ("mover", e) in {(h.hub_id, h.endpoint) for h in state.hubs})
    await node.hang_up()


@pytest.mark.parametrize(
    "endpoint", ["", "nowhere", "host:0", "host:99999", "ho st:1", "unix:/run/x", "a" * 300 + ":1"]
)
async def test_a_tunnel_endpoint_that_nobody_could_dial_is_refused(plane: Plane, endpoint: str) -> None:
    call = plane.gateway().WatchSnapshot(gateway_pb2.WatchSnapshotRequest(tunnel_endpoint=endpoint))

    async def read() -> None:
        async for _ in call:
            raise AssertionError("let in")

    assert await status_of(read()) == INVALID
    assert (await call.details()).startswith("tunnel_endpoint: ")


async def test_a_snapshot_larger_than_a_usual_message_reaches_gateways(plane: Plane) -> None:
    organization_id = (
        (await plane.organizations.ListOrganizations(organization_pb2.ListOrganizationsRequest()))
        .organizations[0]
        .organization_id
    )
    many = 50_000
    async with plane.database() as db:
        await db.execute(
            "INSERT INTO api_keys (key_id, organization_id, name, secret_mac, created_at) "
            "SELECT 'bulk-' || n, $1, 'k', sha256(n::text::bytea), now() FROM generate_series(1, $2::int) AS n",
            organization_id,
            many,
        )
    try:
        seen = await anext(plane.watch())
        assert len(seen.api_keys) >= many
        assert seen.ByteSize() > dict(CONTROL_CHANNEL_OPTIONS)["grpc.max_receive_message_length"]
    finally:
        async with plane.database() as db:
            await db.execute("DELETE FROM api_keys WHERE key_id LIKE 'bulk-%'")


async def test_a_snapshot_too_large_for_any_message_is_an_error_and_the_watch_goes_on(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = plane.watch()
    first = await anext(snapshots)
    monkeypatch.setattr(gateway_service, "SNAPSHOT_MESSAGE", first.ByteSize() - 1)
    made = await plane.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(organization="acme", name="big"))

    async def metrics() -> str:
        return (await plane.http("/metrics"))[1]

    await eventually(metrics, lambda page: re.search(r'snapshots_total\{outcome="too_large"\} [1-9]', page))
    assert "snapshot too large: gateways hear of no change" in [
        record.message for record in caplog.records if record.levelname == "ERROR"
    ]
    monkeypatch.undo()
    await plane.api_keys.DeleteApiKey(api_key_pb2.DeleteApiKeyRequest(key_id=made.api_key.key_id))
    async for seen in snapshots:
        if seen.revision >= first.revision + 2:
            break
