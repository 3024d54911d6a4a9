"""Every record is posted once, with the record and never without it, and the books balance."""

import random
from decimal import Decimal

import asyncpg
import pytest

from control_plane.core.usage import MAX_BATCH, MAX_MONEY, MAX_TOKENS, UsageRecord
from control_plane.store import ledger, usage
from control_plane.store.db import Pool, connection, transaction
from control_plane.store.ledger import Spent
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import GatewayId
from tests.store.rows import NOW, later
from tests.store.test_usage import a_record

GW = GatewayId("gw-1")


async def hand_in(pool: Pool, *records: UsageRecord) -> None:
    async with transaction(pool) as db:
        await usage.record_batch(db, records, gateway_id=GW, now=NOW)


async def kept_but_not_committed(pool: Pool) -> None:
    async with transaction(pool) as db:
        await usage.record_batch(db, [a_record(charged_tokens=10)], gateway_id=GW, now=NOW)
        await usage.record_batch(db, [a_record(status=1000)], gateway_id=GW, now=NOW)


async def entries(pool: Pool) -> list[tuple[str, str, str, str, Decimal]]:
    async with connection(pool) as db:
        rows = await db.fetch("SELECT posting, unit, debit, credit, amount FROM ledger_entries ORDER BY entry_id")
    return [tuple(row) for row in rows]


async def test_a_record_is_posted_with_all_its_parts(pool: Pool) -> None:
    await hand_in(pool, a_record(reserved_tokens=100, charged_tokens=30, reserved_money=5, charged_money=7))
    nano = Decimal("0.000000001")
    assert await entries(pool) == [
        ("reserve", "token", "key:k1:available", "key:k1:reserved", 100),
        ("settle", "token", "key:k1:reserved", "key:k1:spent", 30),
        ("refund", "token", "key:k1:reserved", "key:k1:available", 70),
        ("reserve", "EUR", "key:k1:available", "key:k1:reserved", 5 * nano),
        ("settle", "EUR", "key:k1:reserved", "key:k1:spent", 5 * nano),
        ("overrun", "EUR", "key:k1:available", "key:k1:spent", 2 * nano),
    ]


async def test_the_largest_amounts_are_exact(pool: Pool) -> None:
    one = a_record(charged_tokens=MAX_TOKENS, reserved_money=MAX_MONEY, charged_money=MAX_MONEY - 1)
    await hand_in(pool, one)
    async with connection(pool) as db:
        assert await usage.list_(db, limit=1) == [one]
        assert await ledger.spent(db, key_id="k1") == Spent(MAX_TOKENS, MAX_MONEY - 1)
        assert await ledger.drift(db) == 0


async def test_what_comes_again_is_not_posted_again_even_when_it_says_something_else(pool: Pool) -> None:
    first = a_record(charged_tokens=10)
    await hand_in(pool, first, a_record(request_id=first.request_id, charged_tokens=99))
    await hand_in(pool, a_record(request_id=first.request_id, charged_tokens=99))
    async with connection(pool) as db:
        await ledger.record(db, [first], now=NOW)
        assert await ledger.spent(db, key_id="k1") == Spent(tokens=10)


async def test_a_record_that_is_not_kept_is_not_posted(pool: Pool) -> None:
    with pytest.raises(InvalidInput, match="status"):
        await kept_but_not_committed(pool)
    assert await entries(pool) == []


async def test_spending_is_asked_for_by_key_or_by_project_and_from_some_moment_on(pool: Pool) -> None:
    await hand_in(
        pool,
        a_record(key_id="k1", project_id="p1", reserved_tokens=8, charged_tokens=5, charged_money=2),
        a_record(key_id="k2", project_id="p1", reserved_tokens=1, charged_tokens=5),
        a_record(key_id="k2", project_id="", charged_tokens=100),
    )
    async with connection(pool) as db:
        assert await ledger.spent(db, key_id="k1") == Spent(5, 2)
        assert await ledger.spent(db, key_id="k2") == Spent(105, 0)
        assert await ledger.spent(db, key_id="k2", since=later(seconds=1)) == Spent()
        assert await ledger.spent_by_project(db, project_id="p1") == Spent(10, 2)
        assert await ledger.spent_by_project(db, project_id="p1", since=later(seconds=1)) == Spent()
        assert await ledger.spent_by_project(db, project_id="") == Spent()


async def test_what_stays_set_aside_is_found(pool: Pool) -> None:
    async with transaction(pool) as db:
        await db.execute(
            "INSERT INTO ledger_entries (request_id, posting, unit, debit, credit, amount, at) VALUES "
            "(gen_random_uuid(), 'reserve', 'token', 'key:a:available', 'key:a:reserved', 3, $1),"
            "(gen_random_uuid(), 'refund', 'token', 'key:b:reserved', 'key:b:available', 3, $1)",
            NOW,
        )
        assert await ledger.drift(db) == 6


async def test_ten_thousand_records_handed_in_twice_in_any_batches_are_posted_once_each(pool: Pool) -> None:
    chance = random.Random(7)
    made = [
        a_record(
            key_id=f"k{chance.randrange(50)}",
            project_id=f"p{chance.randrange(5)}",
            reserved_tokens=chance.choice([0, chance.randrange(5000)]),
            charged_tokens=chance.choice([0, chance.randrange(5000)]),
            reserved_money=chance.choice([0, chance.randrange(10**10)]),
            charged_money=chance.choice([0, chance.randrange(10**10)]),
        )
        for _ in range(10_000)
    ]
    for _ in range(2):
        chance.shuffle(made)
        rest = list(made)
        while rest:
            size = chance.randint(1, MAX_BATCH)
            batch, rest = rest[:size], rest[size:]
            await hand_in(pool, *batch)
    async with connection(pool) as db:
        assert await usage.count_(db) == 10_000
        assert await ledger.drift(db) == 0
        of_k1 = [one for one in made if one.key_id == "k1"]
        assert await ledger.spent(db, key_id="k1") == Spent(
            sum(one.charged_tokens for one in of_k1), sum(one.charged_money for one in of_k1)
        )
        by_project = [await ledger.spent_by_project(db, project_id=f"p{n}") for n in range(5)]
    assert sum(one.tokens for one in by_project) == sum(one.charged_tokens for one in made)
    assert sum(one.money for one in by_project) == sum(one.charged_money for one in made)


@pytest.mark.parametrize(
    "statement", ["UPDATE ledger_entries SET amount = 1", "DELETE FROM ledger_entries", "TRUNCATE ledger_entries"]
)
async def test_the_ledger_only_grows(pool: Pool, statement: str) -> None:
    async with connection(pool) as db:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="ledger_entries only grows"):
            await db.execute(statement)
