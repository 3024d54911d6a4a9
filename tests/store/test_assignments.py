"""Plans carried out, desired states told, hubs."""

import asyncio

import pytest

from control_plane.core.desired import Hub, spec_hash
from control_plane.store import assignments, deployments, gateways, models, nodes
from control_plane.store.db import Pool, connection, transaction
from control_plane.store.gateways import Gateway
from mesh.kit.errors import AlreadyExists, InUse, NotFound
from mesh.kit.ids import GatewayId, NodeId
from tests.store.rows import (
    GIB,
    NOW,
    a_deployment,
    a_model,
    later,
    make_deployment,
    make_online_node,
    make_organization,
    place_all,
)

GATEWAY = Gateway(GatewayId("gw-1"), "127.0.0.1:7450", "gateway.mesh.local", "0.1.0")


@pytest.fixture(autouse=True)
async def organization(pool: Pool) -> None:
    await make_organization(pool)


async def revisions(pool: Pool) -> dict[NodeId, int]:
    async with connection(pool) as db:
        return {one.node_id: one.desired_revision for one in await nodes.list_(db)}


async def test_a_placed_worker_is_in_its_nodes_desired_state(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    deployment = await make_deployment(pool)
    (worker,) = await place_all(pool)
    async with connection(pool) as db:
        desired = await assignments.desired_for(db, node_id)
        assert await assignments.list_(db) == [worker]
    (spec,) = desired.workers
    assert (spec.worker_id, spec.deployment_id, spec.model) == (
        worker.worker_id,
        deployment.deployment_id,
        "model-of-chat",
    )
    assert (spec.source, spec.engine, spec.slots, spec.context_length) == (
        "package:weights/m.gguf",
        "llamacpp",
        4,
        4096,
    )
    assert (spec.memory_bytes, spec.gpu_uuids) == (GIB, ())
    assert spec.spec_hash == worker.spec_hash == spec_hash(spec)


async def test_a_gpu_worker_is_given_its_accelerators(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    await make_deployment(pool, gpus=1)
    (worker,) = await place_all(pool)
    assert worker.gpu_uuids == ("gpu-1",)
    async with connection(pool) as db:
        (spec,) = (await assignments.desired_for(db, node_id)).workers
    assert (spec.gpu_uuids, spec.memory_bytes) == (("gpu-1",), 0)
    assert spec.spec_hash == spec_hash(spec)


async def test_only_the_nodes_that_a_plan_touches_get_a_new_revision(pool: Pool) -> None:
    first, _ = await make_online_node(pool, "t1")
    second, _ = await make_online_node(pool, "t2")
    before = await revisions(pool)
    await make_deployment(pool)
    (worker,) = await place_all(pool)
    after = await revisions(pool)
    untouched = second if worker.node_id == first else first
    assert after[worker.node_id] == before[worker.node_id] + 1
    assert after[untouched] == before[untouched]
    assert await place_all(pool) == []
    assert await revisions(pool) == after


async def test_why_replicas_wait_is_kept_and_cleared(pool: Pool) -> None:
    deployment = await make_deployment(pool)
    await place_all(pool)
    async with connection(pool) as db:
        assert (await deployments.get(db, "chat")).pending_reason == "1 of 1 replicas wait: no node has joined"
    await make_online_node(pool)
    await place_all(pool)
    async with connection(pool) as db:
        assert await deployments.get(db, deployment.deployment_id) == deployment


async def test_placers_that_run_at_once_place_once(pool: Pool) -> None:
    await make_online_node(pool)
    await make_deployment(pool, replicas=3)
    async with asyncio.TaskGroup() as group:
        rounds = [group.create_task(place_all(pool)) for _ in range(8)]
    assert sorted(len(one.result()) for one in rounds) == [0] * 7 + [3]


async def test_workers_of_a_node_gone_for_long_are_moved(pool: Pool) -> None:
    first, _ = await make_online_node(pool, "t1")
    await make_deployment(pool)
    (old,) = await place_all(pool)
    async with transaction(pool) as db:
        await nodes.end_session(db, first, 1, now=NOW)
    second, _ = await make_online_node(pool, "t2")
    assert await place_all(pool, now=later(minutes=5)) == []
    (new,) = await place_all(pool, now=later(minutes=6))
    assert (new.node_id, new.worker_id != old.worker_id) == (second, True)
    async with connection(pool) as db:
        assert (await assignments.desired_for(db, first)).workers == ()


async def test_a_deleted_deployment_takes_its_workers_along(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    await make_deployment(pool)
    await place_all(pool)
    before = await revisions(pool)
    async with transaction(pool) as db:
        gone = await deployments.delete(db, "chat")
        assert gone.name == "chat"
        assert await assignments.list_(db) == []
        desired = await assignments.desired_for(db, node_id)
        assert (desired.workers, desired.revision) == ((), before[node_id] + 1)
        with pytest.raises(NotFound, match="no deployment 'chat'"):
            await deployments.delete(db, "chat")


async def test_deleting_while_others_place_leaves_no_worker_behind(pool: Pool) -> None:
    await make_online_node(pool)
    for name in ("one", "two", "three"):
        await make_deployment(pool, name=name, replicas=2)

    async def delete(name: str) -> None:
        async with transaction(pool) as db:
            await deployments.delete(db, name)

    async with asyncio.TaskGroup() as group:
        for name in ("one", "two", "three"):
            group.create_task(place_all(pool))
            group.create_task(delete(name))
    assert await place_all(pool) == []
    async with connection(pool) as db:
        assert await assignments.list_(db) == []


async def test_workers_of_one_deployment_are_listed_alone(pool: Pool) -> None:
    await make_online_node(pool)
    chat = await make_deployment(pool, name="chat", replicas=2)
    await make_deployment(pool, name="other")
    await place_all(pool)
    async with connection(pool) as db:
        mine = await assignments.list_(db, deployment_id=chat.deployment_id)
        assert len(mine) == 2
        assert len(await assignments.list_(db)) == 3


async def test_a_node_that_nobody_knows_has_no_desired_state(pool: Pool) -> None:
    async with connection(pool) as db:
        with pytest.raises(NotFound):
            await assignments.desired_for(db, NodeId("nobody"))


async def test_models_are_kept_found_listed_and_removed(pool: Pool) -> None:
    small, gpu = a_model("small"), a_model("gpu", gpus=2)
    async with transaction(pool) as db:
        await models.record(db, small)
        await models.record(db, gpu)
        assert await models.get(db, "small") == await models.get(db, "id-small") == small
        assert await models.list_(db) == [gpu, small]
        assert await models.delete(db, "gpu") == gpu
        for missing in (models.get, models.delete):
            with pytest.raises(NotFound, match="no model 'gpu'"):
                await missing(db, "gpu")
    with pytest.raises(AlreadyExists, match="small"):
        async with transaction(pool) as db:
            await models.record(db, small)


async def test_a_deployed_model_cannot_be_removed(pool: Pool) -> None:
    await make_deployment(pool)
    with pytest.raises(InUse, match="a deployment"):
        async with transaction(pool) as db:
            await models.delete(db, "model-of-chat")


async def test_deployments_have_unique_names_and_real_models(pool: Pool) -> None:
    chat = await make_deployment(pool)
    async with connection(pool) as db:
        assert await deployments.list_(db) == [chat]
        with pytest.raises(NotFound, match="no deployment 'x'"):
            await deployments.get(db, "x")
    with pytest.raises(AlreadyExists, match="chat"):
        async with transaction(pool) as db:
            await deployments.record(db, chat)
    with pytest.raises(NotFound, match="no model 'ghost'"):
        async with transaction(pool) as db:
            await deployments.record(db, a_deployment(a_model("ghost"), name="spooky"))


async def test_a_new_hub_reaches_every_node_and_one_that_is_known_disturbs_none(pool: Pool) -> None:
    first, _ = await make_online_node(pool, "t1")
    second, _ = await make_online_node(pool, "t2")
    before = await revisions(pool)
    async with transaction(pool) as db:
        assert await gateways.record_seen(db, GATEWAY, now=NOW)
    raised = await revisions(pool)
    assert raised == {node_id: revision + 1 for node_id, revision in before.items()}
    async with transaction(pool) as db:
        assert not await gateways.record_seen(db, GATEWAY, now=later(seconds=1))
        assert await gateways.touch(db, GATEWAY.gateway_id, now=later(seconds=2))
        for node_id in (first, second):
            desired = await assignments.desired_for(db, node_id)
            assert desired.hubs == (Hub("gw-1", "127.0.0.1:7450", "gateway.mesh.local"),)
    assert await revisions(pool) == raised


async def test_a_hub_that_moved_or_fell_silent_reaches_every_node_too(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    moved = Gateway(GATEWAY.gateway_id, "127.0.0.1:7451", GATEWAY.server_name)
    async with transaction(pool) as db:
        await gateways.record_seen(db, GATEWAY, now=NOW)
        assert await gateways.record_seen(db, moved, now=NOW)
        assert await gateways.list_(db) == [moved]
        assert await gateways.delete_silent(db, seen_before=NOW) == []
        before = (await assignments.desired_for(db, node_id)).revision
        assert await gateways.delete_silent(db, seen_before=later(seconds=1)) == ["gw-1"]
        desired = await assignments.desired_for(db, node_id)
        assert (desired.hubs, desired.revision) == ((), before + 1)
        assert not await gateways.touch(db, GATEWAY.gateway_id, now=NOW)
