"""Node rows are locked before gateways, by everyone: otherwise two changes wait for each other."""

import asyncio

from control_plane.store import gateways
from control_plane.store.db import Db, Pool, connection, transaction
from control_plane.store.gateways import Gateway
from mesh.kit.ids import GatewayId
from tests.store.rows import NOW, later, make_node, make_organization

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def until_someone_waits(db: Db) -> None:
    async with asyncio.timeout(30):
        while not await db.fetchval(_WAITING):  # noqa: ASYNC110 - what is asked is in another process
            await asyncio.sleep(0.01)


async def test_forgetting_a_gateway_waits_for_nodes_before_it_holds_gateways(pool: Pool) -> None:
    await make_organization(pool)
    node_id, _ = await make_node(pool)
    async with transaction(pool) as db:
        await gateways.record_seen(db, Gateway(GatewayId("gw-1"), "h:1", "gateway.mesh.local"), now=NOW)

    async def forget() -> list[GatewayId]:
        async with transaction(pool) as db:
            return await gateways.delete_silent(db, seen_before=later(hours=1))

    async with asyncio.TaskGroup() as group, connection(pool) as watching, transaction(pool) as db:
        # Another change, which holds a node and wants the gateway.
        await db.execute("SELECT FROM nodes WHERE node_id = $1 FOR UPDATE", node_id)
        forgetting = group.create_task(forget())
        await until_someone_waits(watching)
        await db.execute("SELECT FROM gateways FOR UPDATE NOWAIT")
    assert forgetting.result() == ["gw-1"]
