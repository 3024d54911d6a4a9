"""One use of a token makes one node, whatever happens in between."""

import asyncio
from datetime import timedelta

import pytest

from control_plane.core.fleet import NodeState
from control_plane.store import audit, certificates, join_tokens, nodes
from control_plane.store.db import Pool, connection, transaction
from control_plane.store.joining import Joined, Refusal, join, record_unknown
from mesh.kit.ids import NodeId
from tests.store.rows import (
    MAC,
    NOW,
    ORG,
    ask_to_join,
    connect,
    later,
    make_organization,
    make_token,
)


@pytest.fixture(autouse=True)
async def organization(pool: Pool) -> None:
    await make_organization(pool)


async def count_nodes(pool: Pool) -> int:
    async with connection(pool) as db:
        return len(await nodes.list_(db))


async def actions(pool: Pool) -> list[str]:
    async with connection(pool) as db:
        return [entry.action for entry in await audit.list_(db, limit=1000)]


async def test_a_token_makes_a_node_with_a_certificate_and_an_audit_row(pool: Pool) -> None:
    await make_token(pool)
    joined = await ask_to_join(pool)
    assert isinstance(joined, Joined)
    assert not joined.retried
    async with connection(pool) as db:
        node = await nodes.get(db, joined.node_id)
        assert (node.state, node.organization_id, node.hostname) == (
            NodeState.JOINING,
            ORG.organization_id,
            "gpu-7",
        )
        assert (node.epoch, node.last_seen_at) == (0, None)
        assert node.certificate_expires_at == later(hours=24)
        certificate = await certificates.find(db, joined.issued.serial_hex)
        assert certificate is not None
        assert (certificate.node_id, certificate.spki) == (joined.node_id, "key-1")
        assert (await join_tokens.get(db, "t1")).uses_left == 0
        (entry,) = await audit.list_(db, limit=10)
    assert (entry.actor, entry.action, entry.object_) == ("join_token/t1", "node_joined", f"node/{joined.node_id}")
    assert entry.detail["address"] == "192.0.2.7"


async def test_one_token_used_200_times_at_once_by_different_keys_makes_one_node(pool: Pool) -> None:
    await make_token(pool)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask_to_join(pool, spki=f"key-{i}")) for i in range(200)]
    answers = [one.result() for one in asked]
    assert sum(isinstance(one, Joined) for one in answers) == 1
    assert answers.count(Refusal.REPLAYED) == 199
    assert await count_nodes(pool) == 1
    assert (await actions(pool)).count("token_replay") == 199


async def test_one_token_used_200_times_at_once_by_one_key_makes_one_node(pool: Pool) -> None:
    await make_token(pool, uses=50)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask_to_join(pool)) for _ in range(200)]
    answers = [one.result() for one in asked]
    assert len({one.node_id for one in answers if isinstance(one, Joined)}) == 1
    assert all(isinstance(one, Joined) for one in answers)
    assert await count_nodes(pool) == 1
    async with connection(pool) as db:
        assert (await join_tokens.get(db, "t1")).uses_left == 49


async def test_a_token_of_several_uses_makes_that_many_nodes(pool: Pool) -> None:
    await make_token(pool, uses=3)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask_to_join(pool, spki=f"key-{i}")) for i in range(10)]
    assert sum(isinstance(one.result(), Joined) for one in asked) == 3
    assert await count_nodes(pool) == 3


async def test_the_same_key_may_ask_again_and_gets_the_same_node_with_a_new_certificate(pool: Pool) -> None:
    await make_token(pool)
    first = await ask_to_join(pool)
    again = await ask_to_join(pool, now=later(minutes=10))
    assert isinstance(first, Joined)
    assert isinstance(again, Joined)
    assert (again.node_id, again.retried) == (first.node_id, True)
    assert again.issued != first.issued
    assert await count_nodes(pool) == 1
    assert await actions(pool) == ["node_join_retried", "node_joined"]


async def test_the_same_key_may_ask_again_although_the_token_expired_meanwhile(pool: Pool) -> None:
    await make_token(pool)
    assert isinstance(await ask_to_join(pool, now=later(minutes=14)), Joined)
    assert isinstance(await ask_to_join(pool, now=later(minutes=16)), Joined)


async def test_after_ten_minutes_the_same_key_is_refused(pool: Pool) -> None:
    await make_token(pool)
    await ask_to_join(pool)
    assert await ask_to_join(pool, now=later(minutes=10, seconds=1)) is Refusal.REPLAYED


async def test_once_the_node_has_connected_the_same_key_is_refused(pool: Pool) -> None:
    await make_token(pool)
    joined = await ask_to_join(pool)
    assert isinstance(joined, Joined)
    async with transaction(pool) as db:
        await connect(db, joined.node_id, joined.issued.serial_hex)
    assert await ask_to_join(pool) is Refusal.REPLAYED


async def test_another_key_on_a_spent_token_is_refused_and_audited(pool: Pool) -> None:
    await make_token(pool)
    await ask_to_join(pool)
    assert await ask_to_join(pool, spki="thief") is Refusal.REPLAYED
    async with connection(pool) as db:
        newest = (await audit.list_(db, limit=1))[0]
    assert (newest.action, newest.object_) == ("token_replay", "join_token/t1")
    assert newest.detail["spki"] == "thief"
    assert await count_nodes(pool) == 1


async def test_an_expired_token_is_refused(pool: Pool) -> None:
    token = await make_token(pool)
    assert await ask_to_join(pool, now=token.expires_at) is Refusal.EXPIRED
    assert await actions(pool) == ["token_expired"]
    assert isinstance(await ask_to_join(pool, now=token.expires_at - timedelta(seconds=1)), Joined)


async def test_a_revoked_token_is_refused_also_to_the_key_that_spent_it(pool: Pool) -> None:
    await make_token(pool, uses=2)
    await ask_to_join(pool)
    async with transaction(pool) as db:
        await join_tokens.revoke(db, "t1", now=NOW)
    assert await ask_to_join(pool) is Refusal.REVOKED
    assert await ask_to_join(pool, spki="key-2") is Refusal.REVOKED


async def test_a_wrong_secret_and_an_unknown_token_are_one_and_leave_no_trace(pool: Pool) -> None:
    await make_token(pool)
    assert await ask_to_join(pool, mac=b"\x01" * 32) is Refusal.UNKNOWN
    assert await ask_to_join(pool, "t2") is Refusal.UNKNOWN
    assert await actions(pool) == []
    assert isinstance(await ask_to_join(pool), Joined)


async def test_when_signing_fails_nothing_was_spent(pool: Pool) -> None:
    class NoKey(Exception):
        pass

    def broken(_: NodeId) -> object:
        raise NoKey

    await make_token(pool)
    with pytest.raises(NoKey):
        async with transaction(pool) as db:
            await join(
                db,
                token_id="t1",
                mac=MAC,
                spki="key-1",
                hostname="",
                agent_version="",
                address="",
                now=NOW,
                sign=broken,
            )
    assert await count_nodes(pool) == 0
    assert isinstance(await ask_to_join(pool), Joined)


async def test_expired_certificates_are_forgotten(pool: Pool) -> None:
    await make_token(pool)
    joined = await ask_to_join(pool)
    assert isinstance(joined, Joined)
    async with transaction(pool) as db:
        assert await certificates.delete_expired(db, before=later(hours=24)) == 0
        assert await certificates.delete_expired(db, before=later(hours=25)) == 1
        assert await certificates.find(db, joined.issued.serial_hex) is None


async def test_tokens_that_nobody_made_can_be_audited_with_their_number(pool: Pool) -> None:
    async with transaction(pool) as db:
        await record_unknown(db, token_id="t9", address="192.0.2.7", count=12, now=NOW)
        (entry,) = await audit.list_(db, limit=9)
    assert (entry.actor, entry.action, entry.object_) == ("address/192.0.2.7", "token_unknown", "join_token/t9")
    assert entry.detail == {"address": "192.0.2.7", "count": 12}
