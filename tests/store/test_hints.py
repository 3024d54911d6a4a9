"""Every change that someone should hear of sends its hint with the commit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from control_plane.core.access import ApiKey
from control_plane.core.fleet import Report, WorkerPhase
from control_plane.store import api_keys, deployments, gateways, join_tokens, models, nodes, organizations, usage
from control_plane.store.db import Db, Pool, transaction
from control_plane.store.gateways import Gateway
from control_plane.store.wake import CHANNEL, HUBS, PLACEMENT, SNAPSHOT, node_topic, revocation_topic
from mesh.kit.ids import GatewayId
from tests.store.rows import (
    MAC,
    NOW,
    ORG,
    a_model,
    ask_to_join,
    connect,
    later,
    make_deployment,
    make_node,
    make_online_node,
    make_organization,
    make_token,
    place_all,
    says,
)

Change = Callable[[Db], Awaitable[object]]
KEY = ApiKey("k1", ORG.organization_id, "ci", NOW)
GATEWAY = Gateway(GatewayId("gw-1"), "127.0.0.1:7450", "gateway.mesh.local")


class Ear:
    """Hears everything that is sent."""

    def __init__(self, database: str, pool: Pool) -> None:
        self._database, self._pool = database, pool

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[set[str]]:
        heard: set[str] = set()
        done = asyncio.Event()

        def hear(_db: object, _pid: int, _channel: str, topic: str) -> None:
            done.set() if topic == "done" else heard.add(topic)

        db = await asyncpg.connect(self._database)
        await db.add_listener(CHANNEL, hear)
        try:
            yield heard
            await db.execute("SELECT pg_notify($1, 'done')", CHANNEL)
            await asyncio.wait_for(done.wait(), 30)
        finally:
            await db.remove_listener(CHANNEL, hear)
            await db.close()

    async def during(self, change: Change) -> set[str]:
        async with self._listening() as heard, transaction(self._pool) as db:
            await change(db)
        return heard

    async def during_call(self, call: Callable[[], Awaitable[object]]) -> set[str]:
        async with self._listening() as heard:
            await call()
        return heard


@pytest.fixture
async def ear(database: str, pool: Pool) -> Ear:
    await make_organization(pool)
    return Ear(database, pool)


async def test_keys_reach_gateways(ear: Ear) -> None:
    assert await ear.during(lambda db: api_keys.record(db, KEY, mac=MAC)) == {SNAPSHOT}
    assert await ear.during(lambda db: api_keys.delete(db, "k1")) == {SNAPSHOT}


async def test_joining_reaches_the_placer(ear: Ear, pool: Pool) -> None:
    await make_token(pool)
    assert await ear.during_call(lambda: ask_to_join(pool)) == {PLACEMENT}


async def test_sessions_reach_the_placer(ear: Ear, pool: Pool) -> None:
    node_id, serial = await make_node(pool)
    # The node's own topic tells an older session, in whichever replica, that it is fenced.
    assert await ear.during(lambda db: connect(db, node_id, serial)) == {PLACEMENT, node_topic(node_id)}
    assert await ear.during(lambda db: nodes.end_session(db, node_id, 1, now=NOW)) == {PLACEMENT}
    assert await ear.during(lambda db: nodes.end_session(db, node_id, 1, now=NOW)) == set()


async def test_a_heartbeat_that_says_nothing_new_reaches_nobody(ear: Ear, pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    await make_deployment(pool)
    (worker,) = await place_all(pool)
    said = Report(1, (says(worker, WorkerPhase.READY),))
    assert await ear.during(lambda db: nodes.record_report(db, node_id, 1, said, now=NOW)) == {SNAPSHOT}
    assert await ear.during(lambda db: nodes.record_report(db, node_id, 1, said, now=NOW)) == set()


async def test_silence_and_its_end_reach_the_placer(ear: Ear, pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    assert await ear.during(lambda db: nodes.expire_silent(db, seen_before=later(days=1))) == {PLACEMENT}
    assert await ear.during(lambda db: nodes.expire_silent(db, seen_before=later(days=1))) == set()
    assert await ear.during(lambda db: nodes.record_report(db, node_id, 1, Report(0), now=NOW)) == {PLACEMENT}


async def test_a_revocation_reaches_everybody(ear: Ear, pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    heard = await ear.during(lambda db: nodes.revoke(db, node_id, now=NOW))
    assert heard == {revocation_topic(node_id), node_topic(node_id), PLACEMENT, SNAPSHOT}
    assert await ear.during(lambda db: nodes.revoke(db, node_id, now=NOW)) == set()
    assert await ear.during(lambda db: nodes.delete_revoked(db, expired_before=later(days=9))) == {SNAPSHOT}


async def test_a_deployment_reaches_the_placer_then_its_nodes(ear: Ear, pool: Pool) -> None:
    await make_online_node(pool, "t1")
    await make_online_node(pool, "t2")
    heard = await ear.during_call(lambda: make_deployment(pool))
    assert heard == {PLACEMENT, SNAPSHOT}
    heard = await ear.during_call(lambda: place_all(pool))
    (placed_on,) = heard - {SNAPSHOT}
    assert placed_on.startswith("node:")
    assert await ear.during_call(lambda: place_all(pool)) == set()
    heard = await ear.during(lambda db: deployments.delete(db, "chat"))
    assert heard == {PLACEMENT, SNAPSHOT, placed_on}


async def test_a_new_hub_reaches_every_node_with_one_hint(ear: Ear, pool: Pool) -> None:
    await make_online_node(pool)
    assert await ear.during(lambda db: gateways.record_seen(db, GATEWAY, now=NOW)) == {HUBS, SNAPSHOT}
    assert await ear.during(lambda db: gateways.record_seen(db, GATEWAY, now=NOW)) == set()
    assert await ear.during(lambda db: gateways.delete_silent(db, seen_before=later(days=1))) == {HUBS, SNAPSHOT}


async def test_a_gateway_that_only_its_peers_reach_elsewhere_is_told_to_gateways_alone(
    ear: Ear, pool: Pool
) -> None:
    await ear.during(lambda db: gateways.record_seen(db, GATEWAY, now=NOW))
    moved = replace(GATEWAY, peer_endpoint="127.0.0.1:7460")
    assert await ear.during(lambda db: gateways.record_seen(db, moved, now=NOW)) == {SNAPSHOT}
    assert await ear.during(lambda db: gateways.record_seen(db, moved, now=NOW)) == set()


async def test_what_concerns_nobody_is_not_told(ear: Ear, pool: Pool) -> None:
    async def quiet(db: Db) -> None:
        await models.record(db, a_model())
        await models.delete(db, "small")
        await usage.record_batch(db, [], gateway_id=GATEWAY.gateway_id, now=NOW)
        assert await nodes.list_(db) == []

    assert await ear.during(quiet) == set()
    await make_token(pool)
    assert await ear.during(lambda db: join_tokens.revoke(db, "t1", now=NOW)) == set()
    assert await ear.during(lambda db: organizations.delete(db, "acme")) == set()
