"""All grants of a limit together never exceed it, however many gateways ask however many replicas at once."""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from control_plane.core.quota import KEPT, LATE, LEASE, SLACK, UNLIMITED, Ask, Grant, QuotaKind, Window
from control_plane.loops.sweeper import Sweeper
from control_plane.store import api_keys, quota
from control_plane.store.db import Pool, connection, open_pool, transaction
from mesh.kit.errors import InvalidInput, Unavailable
from tests.fakes.clock import FakeClock
from tests.store.rows import GRACE, MAC, NOW, ORG, later, make_organization
from tests.store.test_access import KEY

MINUTE = Window("k1", QuotaKind.TOKENS_PER_MINUTE, int(NOW.timestamp()))
AT_ONCE = Window("k1", QuotaKind.CONCURRENT_REQUESTS, 0)
MONTH = Window("p1", QuotaKind.MONEY_PER_MONTH, int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))
HELD = "SELECT COALESCE(sum(granted), 0)::bigint FROM quota_shares"


@pytest.fixture(autouse=True)
async def limited(pool: Pool) -> None:
    """A key and a project that may do 100 of this and 10 of that."""
    await make_organization(pool)
    async with transaction(pool) as db:
        await api_keys.record(db, KEY, mac=MAC)
        await db.execute("UPDATE api_keys SET tokens_per_minute = 100, concurrent_requests = 10")
        await db.execute(
            "INSERT INTO projects (project_id, organization_id, name, created_at, money_per_month)"
            " VALUES ('p1', $1, 'p', $2, 1000)",
            ORG.organization_id,
            NOW,
        )


async def lease(pool: Pool, hub_id: str, *asks: Ask, now: datetime = NOW) -> list[Grant]:
    async with transaction(pool) as db:
        return await quota.lease(db, asks, hub_id=hub_id, now=now)


async def ask(
    pool: Pool, hub_id: str, wanted: int, *, used: int = 0, of: Window = MINUTE, now: datetime = NOW
) -> int:
    [given] = await lease(pool, hub_id, Ask(of, wanted, used), now=now)
    return given.granted


async def test_what_nobody_else_holds_is_granted_and_the_rest_named(pool: Pool) -> None:
    assert await lease(pool, "a", Ask(MINUTE, 60, 0)) == [Grant(60, 40)]
    assert await lease(pool, "b", Ask(MINUTE, 60, 0)) == [Grant(40, 0)]
    assert await lease(pool, "a", Ask(MINUTE, 60, 0)) == [Grant(60, 0)]


async def test_what_is_given_back_can_be_had_by_others(pool: Pool) -> None:
    assert await ask(pool, "a", 100) == 100
    assert await ask(pool, "b", 50) == 0
    assert await ask(pool, "a", 20, used=30) == 30
    assert await ask(pool, "b", 100) == 70


async def test_windows_and_limits_are_apart(pool: Pool) -> None:
    asks = [Ask(MINUTE, 100, 0), Ask(MONTH, 1000, 0), Ask(AT_ONCE, 10, 0)]
    assert await lease(pool, "a", *asks) == [Grant(100, 0), Grant(1000, 0), Grant(10, 0, LEASE)]
    assert await ask(pool, "b", 100, of=replace(MINUTE, start=MINUTE.start + 60)) == 100
    assert await ask(pool, "b", 1, of=MONTH) == 0


async def test_who_has_no_limit_or_is_not_known_gets_what_is_wanted_and_leaves_no_row(pool: Pool) -> None:
    free = replace(MINUTE, kind=QuotaKind.REQUESTS_PER_MINUTE)
    unknown = replace(MINUTE, subject="nobody")
    grants = await lease(pool, "a", Ask(free, 10**6, 0), Ask(unknown, 2**63 - 1, 0))
    assert grants == [Grant(10**6, UNLIMITED), Grant(2**63 - 1, UNLIMITED)]
    assert await lease(pool, "a") == []
    async with connection(pool) as db:
        assert await db.fetchval("SELECT count(*) FROM quota_windows") == 0


async def test_a_limit_is_what_it_is_now(pool: Pool) -> None:
    assert await ask(pool, "a", 80) == 80
    async with connection(pool) as db:
        await db.execute("UPDATE api_keys SET tokens_per_minute = 50")
    assert await ask(pool, "b", 10) == 0
    assert await ask(pool, "a", 80, used=60) == 60
    async with connection(pool) as db:
        await db.execute("UPDATE api_keys SET tokens_per_minute = 200")
    assert await ask(pool, "b", 200) == 140


async def test_requests_at_once_are_held_for_a_while_and_renewed_by_asking(pool: Pool) -> None:
    assert await ask(pool, "a", 10, of=AT_ONCE) == 10
    assert await ask(pool, "a", 10, of=AT_ONCE, now=NOW + LEASE) == 10
    assert await ask(pool, "b", 5, of=AT_ONCE, now=NOW + LEASE + LEASE) == 0
    later_ = NOW + LEASE + LEASE + SLACK
    assert await ask(pool, "b", 5, of=AT_ONCE, now=later_) == 5
    assert await ask(pool, "a", 10, of=AT_ONCE, now=later_) == 5
    assert await ask(pool, "a", 10, used=8, of=AT_ONCE, now=later_) == 8


async def test_a_window_long_over_gives_no_more_and_is_not_stored_again(pool: Pool) -> None:
    assert await ask(pool, "a", 60, now=later(seconds=60) + LATE) == 60
    over = later(seconds=61) + LATE
    assert await lease(pool, "b", Ask(MINUTE, 50, 7), now=over) == [Grant(7, 0)]
    async with connection(pool) as db:
        assert await db.fetchval(HELD) == 60


async def test_bad_asks_are_refused_together(pool: Pool) -> None:
    with pytest.raises(InvalidInput, match=r"asks\[1\]\.window"):
        await lease(pool, "a", Ask(MINUTE, 10, 0), Ask(replace(MINUTE, start=MINUTE.start + 1), 10, 0))
    async with connection(pool) as db:
        assert await db.fetchval(HELD) == 0


async def everyone(pools: Iterable[Pool], held: dict[str, int], rounds: int, of: Window) -> None:
    """Every pool is a replica that all gateways ask at once; each gateway's calls come one after another."""
    locks = {hub: asyncio.Lock() for hub in held}

    async def one(pool: Pool, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(rounds):
            hub = chance.choice(sorted(held))
            async with locks[hub]:
                held[hub] = await ask(pool, hub, max(0, held[hub] + chance.randint(-20, 30)), of=of)
            async with connection(pool) as db:
                assert await db.fetchval(HELD) <= 100

    async with asyncio.TaskGroup() as group:
        for place, pool in enumerate(pools):
            for seed in range(10):
                group.create_task(one(pool, 100 * place + seed))


async def test_twenty_connections_of_five_gateways_never_get_more_than_the_limit_and_can_get_all_of_it(
    database: str, pool: Pool
) -> None:
    replicas = [await open_pool(database), await open_pool(database)]
    held = {f"gw-{n}": 0 for n in range(5)}
    try:
        await everyone(replicas, held, 10, MINUTE)
        async with connection(pool) as db:
            assert await db.fetchval(HELD) == sum(held.values())
        for hub in held:
            await ask(pool, hub, 0)
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(ask(replicas[n % 2], f"hub-{n}", 7)) for n in range(20)]
        assert sum(one.result() for one in calls) == 100
        assert sorted(one.result() for one in calls)[-14:] == [7] * 14
    finally:
        for one in replicas:
            one.terminate()


async def test_calls_that_ask_for_the_same_windows_in_any_order_wait_for_each_other(pool: Pool) -> None:
    windows = [MINUTE, AT_ONCE, MONTH, *(replace(MINUTE, start=MINUTE.start + 60 * n) for n in range(1, 20))]

    async def one(seed: int) -> list[Grant]:
        chance = random.Random(seed)
        return await lease(pool, f"gw-{seed}", *(Ask(w, 1, 0) for w in chance.sample(windows, len(windows))))

    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(one(seed)) for seed in range(10)]
    assert all(given.granted == 1 for call in calls for given in call.result())


async def test_what_was_granted_outlives_its_connection_and_what_was_not_committed_is_free(
    database: str, pool: Pool
) -> None:
    doomed = await open_pool(database)
    assert await ask(doomed, "a", 40) == 40
    with pytest.raises(Unavailable):
        await granted_but_killed(doomed, pool)
    doomed.terminate()
    assert await ask(pool, "b", 100) == 60


async def granted_but_killed(doomed: Pool, pool: Pool) -> None:
    """A grant whose connection dies before the commit."""
    async with transaction(doomed) as db:
        assert await quota.lease(db, [Ask(MINUTE, 90, 0)], hub_id="a", now=NOW) == [Grant(90, 10)]
        pid = await db.fetchval("SELECT pg_backend_pid()")
        async with connection(pool) as other:
            assert await other.fetchval("SELECT pg_terminate_backend($1, 10000)", pid)


async def test_ended_windows_are_forgotten_with_their_shares_and_those_in_force_stay(pool: Pool) -> None:
    clock = FakeClock(NOW)
    sweeper = Sweeper(pool, clock, GRACE)
    await lease(pool, "a", Ask(MINUTE, 100, 0), Ask(MONTH, 1000, 0), Ask(AT_ONCE, 10, 0))
    await clock.forward((timedelta(seconds=60) + KEPT).total_seconds())
    await sweeper.once()
    assert await windows(pool) == {MINUTE.kind, MONTH.kind}
    await clock.forward(1)
    await sweeper.once()
    assert await windows(pool) == {MONTH.kind}
    async with connection(pool) as db:
        assert await db.fetchval(HELD) == 1000


async def windows(pool: Pool) -> set[str]:
    async with connection(pool) as db:
        return {row["kind"] for row in await db.fetch("SELECT kind FROM quota_windows")}


async def test_the_sweeper_passes_by_a_window_that_is_being_asked_for(pool: Pool) -> None:
    await lease(pool, "a", Ask(AT_ONCE, 10, 0))
    old = NOW + KEPT + KEPT
    async with transaction(pool) as asking, transaction(pool) as sweeping:
        await quota.lease(asking, [Ask(AT_ONCE, 1, 0)], hub_id="b", now=old)
        assert await quota.delete_ended(sweeping, now=old) == 0


async def test_the_database_holds_no_share_of_a_window_that_is_not_there(pool: Pool) -> None:
    async with connection(pool) as db:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await db.execute("INSERT INTO quota_shares VALUES ('k', 'x', 0, 'a', 1, NULL)")
