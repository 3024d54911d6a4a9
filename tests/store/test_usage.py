"""A record of usage is kept once, however often and from wherever it comes."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.core.usage import UsageOutcome, UsageRecord
from control_plane.store import usage
from control_plane.store.db import Pool, connection, transaction
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import GatewayId, uuid7
from tests.store.rows import NOW, later

GW = GatewayId("gw-1")


def a_record(**values: object) -> UsageRecord:
    record = UsageRecord(
        request_id=uuid7(NOW),
        key_id="k1",
        organization_id="org-1",
        model="small",
        worker_id="w1",
        node_id="n1",
        outcome=UsageOutcome.COMPLETED,
        started_at=NOW,
        duration_ms=1500,
        streamed=True,
        status=200,
        first_token_ms=90,
        prompt_tokens=10,
        completion_tokens=20,
        cached_tokens=5,
    )
    return replace(record, **values)  # type: ignore[arg-type]


async def keep(pool: Pool, *records: UsageRecord) -> list[str]:
    async with transaction(pool) as db:
        return await usage.record_batch(db, records, gateway_id=GW, now=later(minutes=1))


async def test_records_are_kept_as_they_came(pool: Pool) -> None:
    whole = a_record(
        started_at=NOW + timedelta(microseconds=123456),
        project_id="p1",
        deployment_id="d1",
        endpoint="chat",
        reserved_tokens=40,
        reserved_money=123_456_789_012,
        charged_tokens=30,
        charged_money=1,
        estimated=True,
        queue_ms=7,
        inter_token_us=20_000,
        continuations=1,
    )
    bare = a_record(
        started_at=later(seconds=1),
        outcome=UsageOutcome.INTERRUPTED,
        worker_id="",
        node_id="",
        status=0,
        streamed=False,
        first_token_ms=None,
        prompt_tokens=None,
        completion_tokens=None,
        cached_tokens=None,
    )
    assert set(await keep(pool, whole, bare)) == {whole.request_id, bare.request_id}
    async with connection(pool) as db:
        assert await usage.list_(db, limit=10) == [bare, whole]
        assert await usage.list_(db, limit=1) == [bare]


async def test_a_record_handed_in_again_is_not_doubled_and_not_changed(pool: Pool) -> None:
    first = a_record()
    assert await keep(pool, first) == [first.request_id]
    other = a_record()
    again = replace(first, completion_tokens=999)
    assert set(await keep(pool, again, other)) == {first.request_id, other.request_id}
    async with connection(pool) as db:
        assert await usage.count_(db) == 2
        assert first in await usage.list_(db, limit=10)


async def test_a_record_twice_in_one_batch_is_kept_once(pool: Pool) -> None:
    one = a_record()
    assert await keep(pool, one, one) == [one.request_id]


async def test_gateways_that_hand_in_the_same_at_once_keep_it_once(pool: Pool) -> None:
    batch = [a_record() for _ in range(50)]
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(keep(pool, *batch[i:], *batch[:i])) for i in range(0, 50, 5)]
    assert {len(one.result()) for one in calls} == {50}
    async with connection(pool) as db:
        assert await usage.count_(db) == 50


async def test_an_empty_batch_is_nothing(pool: Pool) -> None:
    assert await keep(pool) == []


async def test_one_bad_record_refuses_the_batch(pool: Pool) -> None:
    with pytest.raises(InvalidInput, match="status"):
        await keep(pool, a_record(), a_record(status=1000))
    async with connection(pool) as db:
        assert await usage.count_(db) == 0


@pytest.mark.parametrize("text", ["a'b\"c", "ünï–中文 🦙", "tab\tend", "\\", "{}", "x" * 256])
async def test_any_text_is_kept_as_it_is(pool: Pool, text: str) -> None:
    one = a_record(model=text, key_id=text)
    await keep(pool, one)
    async with connection(pool) as db:
        assert await usage.list_(db, limit=1) == [one]
