"""What gateways are told, and that they are told of every change."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from control_plane.core.access import ApiKey
from control_plane.core.fleet import Report, WorkerPhase
from control_plane.core.snapshot import KeyEntry, Snapshot
from control_plane.store import api_keys, deployments, models, nodes, snapshot
from control_plane.store.db import Db, Pool, connection, transaction
from mesh.kit.ids import DeploymentId
from tests.store.rows import (
    MAC,
    NOW,
    ORG,
    a_model,
    later,
    make_deployment,
    make_online_node,
    make_organization,
    place_all,
    says,
)


@pytest.fixture(autouse=True)
async def organization(pool: Pool) -> None:
    await make_organization(pool)


async def load(pool: Pool, *, now: datetime = NOW) -> Snapshot:
    async with connection(pool) as db:
        return await snapshot.load(db, now=now)


async def test_an_empty_mesh_has_a_snapshot_too(pool: Pool) -> None:
    assert await load(pool) == Snapshot(revision=1, api_keys=(), models=(), revoked_nodes=())


async def test_a_snapshot_holds_keys_and_deployed_models_with_their_workers(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    deployment = await make_deployment(pool, replicas=2)
    placed = await place_all(pool)
    expires_at = NOW + timedelta(hours=1)
    async with transaction(pool) as db:
        await models.record(db, a_model("undeployed"))
        await api_keys.record(db, ApiKey("k1", ORG.organization_id, "ci", NOW, expires_at), mac=MAC)
        ready = Report(1, (says(placed[0], WorkerPhase.READY),))
        await nodes.record_report(db, node_id, 1, ready, now=NOW)
    told = await load(pool)
    assert told.api_keys == (KeyEntry("k1", MAC, ORG.organization_id, expires_at),)
    (model,) = told.models
    assert (model.name, model.context_length, model.created_at) == ("model-of-chat", 4096, NOW)
    assert {one.worker_id: one.phase for one in model.routes} == {
        placed[0].worker_id: WorkerPhase.READY,
        placed[1].worker_id: WorkerPhase.PENDING,
    }
    route = model.routes[0]
    assert (route.node_id, route.deployment_id, route.engine, route.slots) == (
        node_id,
        deployment.deployment_id,
        "llamacpp",
        4,
    )


async def test_a_deployed_model_without_workers_is_known(pool: Pool) -> None:
    await make_deployment(pool)
    (model,) = (await load(pool)).models
    assert (model.name, model.routes) == ("model-of-chat", ())


async def test_two_deployments_of_a_model_are_one_entry(pool: Pool) -> None:
    await make_online_node(pool)
    one = await make_deployment(pool, name="one")
    async with transaction(pool) as db:
        twin = replace(one, deployment_id=DeploymentId("id-two"), name="two")
        await deployments.record(db, twin)
    await place_all(pool)
    (entry,) = (await load(pool)).models
    assert {route.deployment_id for route in entry.routes} == {"id-one", "id-two"}


Change = Callable[[Db], Awaitable[object]]


async def test_every_change_that_matters_raises_the_revision(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    await make_deployment(pool)
    key = ApiKey("k1", ORG.organization_id, "ci", NOW)
    changes: list[Change] = [
        lambda db: api_keys.record(db, key, mac=MAC),
        lambda db: api_keys.delete(db, "k1"),
        lambda db: deployments.delete(db, "chat"),
        lambda db: nodes.revoke(db, node_id, now=NOW),
    ]
    await place_all(pool)
    for change in changes:
        before = (await load(pool)).revision
        async with transaction(pool) as db:
            await change(db)
        assert (await load(pool)).revision > before


async def test_what_time_has_ended_is_left_out(pool: Pool) -> None:
    """Otherwise a snapshot only grows, until no message holds it."""
    node_id, serial = await make_online_node(pool)
    async with transaction(pool) as db:
        await api_keys.record(db, ApiKey("k1", ORG.organization_id, "ci", NOW, later(hours=1)), mac=MAC)
        await api_keys.record(db, ApiKey("k2", ORG.organization_id, "ci", NOW), mac=MAC)
        await nodes.revoke(db, node_id, now=NOW)
    before, after = await load(pool, now=later(minutes=59)), await load(pool, now=later(hours=1))
    assert [key.key_id for key in before.api_keys] == ["k1", "k2"]
    assert [key.key_id for key in after.api_keys] == ["k2"]
    # Certificates of 24 hours; gateways' clocks may be a day behind.
    assert set((await load(pool, now=later(hours=47))).revoked_nodes) == {node_id, serial}
    assert (await load(pool, now=later(hours=48))).revoked_nodes == (node_id,)
