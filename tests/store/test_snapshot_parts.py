"""What gateways are told beside keys and routes: budgets, prices, adapters, weights, and each other."""

from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.core.access import ApiKey
from control_plane.core.limits import KeyPolicy, Limits, Priority
from control_plane.core.model import Adapter, Engine, Price, RoutingPolicy
from control_plane.core.projects import Project
from control_plane.core.snapshot import KeyEntry, Peer, Snapshot
from control_plane.store import api_keys, assignments, deployments, gateways, models, nodes, projects, snapshot
from control_plane.store.db import Pool, connection, transaction
from control_plane.store.gateways import Gateway
from mesh.kit.ids import DeploymentId, GatewayId
from tests.store.rows import (
    AGENT,
    HARDWARE,
    MAC,
    NOW,
    ORG,
    a_deployment,
    a_model,
    later,
    make_deployment,
    make_online_node,
    make_organization,
    place_all,
)

GATEWAY = Gateway(GatewayId("gw-1"), "127.0.0.1:7450", "gateway.mesh.local", "0.1.0", 0, "127.0.0.1:7460")
BASE = replace(
    a_model("base"),
    source="simulator:seed=7",
    aliases=("gpt",),
    price=Price(1, 2, 3),
    adapters=(Adapter("base-fr", "simulator:seed=8"),),
)


@pytest.fixture(autouse=True)
async def organization(pool: Pool) -> None:
    await make_organization(pool)


async def load(pool: Pool) -> Snapshot:
    async with connection(pool) as db:
        return await snapshot.load(db, now=NOW)


async def test_keys_come_with_what_they_may_do_and_projects_with_their_limits(pool: Pool) -> None:
    project = Project("p1", ORG.organization_id, "apps", NOW, Limits(money_per_day=5))
    policy = KeyPolicy(("chat",), ("base-fr",), Limits(requests_per_minute=1), 9, Priority.LOW)
    async with transaction(pool) as db:
        await projects.record(db, project)
        await api_keys.record(db, ApiKey("k1", ORG.organization_id, "ci", NOW, None, "p1", policy), mac=MAC)
    told = await load(pool)
    assert told.api_keys == (KeyEntry("k1", MAC, ORG.organization_id, None, "p1", policy),)
    assert told.projects == (project,)


async def test_an_adapter_is_told_as_a_model_with_the_routes_that_can_serve_it(pool: Pool) -> None:
    await make_online_node(pool)
    able = replace(
        a_deployment(BASE, name="able"),
        engine=Engine.SIMULATOR,
        policy=RoutingPolicy.PREFIX,
        pass_through=("/v1/x",),
        created_at=NOW,
    )
    plain = replace(
        a_deployment(BASE, name="plain"), deployment_id=DeploymentId("id-plain"), created_at=later(seconds=1)
    )
    async with transaction(pool) as db:
        await models.record(db, BASE)
        await deployments.record(db, able)
        await deployments.record(db, plain)
    placed = {one.deployment_id: one for one in await place_all(pool)}
    base, adapter = (await load(pool)).models
    assert (base.name, base.aliases, base.price, base.policy) == (
        "base",
        ("gpt",),
        BASE.price,
        RoutingPolicy.PREFIX,
    )
    assert (base.pass_through, base.can_start, len(base.routes)) == (("/v1/x",), True, 2)
    assert (adapter.name, adapter.base_model, adapter.engine_name) == ("base-fr", "base", "base-fr")
    assert [one.worker_id for one in adapter.routes] == [placed[able.deployment_id].worker_id]
    async with connection(pool) as db:
        specs = {
            one.deployment_id: one for one in (await assignments.desired_for(db, base.routes[0].node_id)).workers
        }
    assert specs[able.deployment_id].adapters == BASE.adapters
    assert specs[plain.deployment_id].adapters == ()
    for spec in specs.values():
        assert spec.spec_hash == placed[spec.deployment_id].spec_hash


async def test_a_route_weighs_what_its_accelerators_can_do(pool: Pool) -> None:
    node_id, serial = await make_online_node(pool)
    cards = tuple(replace(HARDWARE.gpus[0], uuid=f"gpu-{n}", name="NVIDIA L40S") for n in range(3))
    async with transaction(pool) as db:
        await nodes.begin_session(
            db,
            node_id,
            serial=serial,
            agent_info=AGENT,
            hardware=replace(HARDWARE, gpus=cards),
            workers=(),
            applied_revision=0,
            now=NOW,
        )
    await make_deployment(pool, name="cpu")
    await make_deployment(pool, name="two", gpus=2)
    await place_all(pool)
    assert {one.name: [route.weight for route in one.routes] for one in (await load(pool)).models} == {
        "model-of-cpu": [1000],
        "model-of-two": [2 * 864],
    }


async def test_each_process_of_a_gateway_is_a_hub_and_a_peer_of_its_own(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    second = replace(GATEWAY, process=3, tunnel_endpoint="127.0.0.1:7453", peer_endpoint="")
    before = (await load(pool)).revision
    async with transaction(pool) as db:
        assert await gateways.record_seen(db, GATEWAY, now=NOW)
        assert await gateways.record_seen(db, second, now=later(hours=1))
        assert await gateways.list_(db) == [GATEWAY, second]
    told = await load(pool)
    assert told.revision > before
    assert told.peers == (
        Peer("gw-1", "127.0.0.1:7460", "gateway.mesh.local"),
        Peer("gw-1~3", "", "gateway.mesh.local"),
    )
    async with transaction(pool) as db:
        hubs = (await assignments.desired_for(db, node_id)).hubs
        assert [(one.hub_id, one.endpoint) for one in hubs] == [
            ("gw-1", "127.0.0.1:7450"),
            ("gw-1~3", "127.0.0.1:7453"),
        ]
        assert await gateways.touch(db, "gw-1~3", now=NOW + timedelta(hours=2))
        assert not await gateways.touch(db, "gw-1~1", now=NOW)
        assert await gateways.delete_silent(db, seen_before=later(minutes=30)) == ["gw-1"]
    assert [one.hub_id for one in (await load(pool)).peers] == ["gw-1~3"]


async def test_every_change_of_a_budget_a_price_or_a_route_raises_the_revision(pool: Pool) -> None:
    deployment = replace(a_deployment(BASE), engine=Engine.SIMULATOR)
    key = ApiKey("k1", ORG.organization_id, "ci", NOW)
    async with transaction(pool) as db:
        await models.record(db, BASE)
        await deployments.record(db, deployment)
        await api_keys.record(db, key, mac=MAC)
    changes = [
        lambda db: projects.record(db, Project("p1", ORG.organization_id, "apps", NOW)),
        lambda db: projects.update(db, "p1", Limits(1)),
        lambda db: projects.delete(db, "p1"),
        lambda db: api_keys.update(db, "k1", KeyPolicy(weight=2)),
        lambda db: models.update(db, replace(BASE, price=Price(9))),
        lambda db: deployments.update(db, deployment, policy=RoutingPolicy.SESSION, pass_through=()),
        lambda db: gateways.record_seen(db, GATEWAY, now=NOW),
        lambda db: gateways.delete_silent(db, seen_before=later(hours=1)),
    ]
    for change in changes:
        before = await load(pool)
        async with transaction(pool) as db:
            await change(db)
        assert (after := await load(pool)).revision > before.revision
        assert replace(after, revision=0) != replace(before, revision=0)
