"""What only Redis can show: gateways that die, answers that are lost, and working on while it is away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from gateway.control.quota import AWAY_S
from gateway.control.quota_redis import HOLD_S, RedisQuota, open_redis
from gateway.core.limits import Need, Subject
from gateway.core.refusals import LimitReached
from gateway.core.snapshot import Limits
from gateway.core.windows import Kind
from mesh.kit.clock import WallClock
from mesh.kit.errors import Unavailable
from tests.contract.quota_contract import attempt
from tests.contract.test_quota import in_redis
from tests.fakes.clock import FakeClock
from tests.fakes.redis_server import RedisServer, running

HOLDERS = "mesh:{quota}:holders"
FEW = (Subject("few", Limits(requests_per_minute=10, concurrent_requests=4)),)
BUDGET = (Subject("budget", Limits(tokens_per_day=100)),)
RUNNING = ("few", Kind.CONCURRENT_REQUESTS)
REQUESTS = ("few", Kind.REQUESTS_PER_MINUTE)
TOKENS = ("budget", Kind.TOKENS_PER_DAY)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running() as one:
        yield one


@dataclass(frozen=True, slots=True)
class Two:
    """Two gateways, and a look at what Redis has."""

    one: RedisQuota
    other: RedisQuota
    clock: FakeClock
    redis: Redis


@pytest.fixture
async def two(server: RedisServer) -> AsyncIterator[Two]:
    clients = [open_redis(server.url) for _ in range(3)]
    await clients[0].flushall()
    clock = FakeClock()
    yield Two(RedisQuota(clients[1], clock), RedisQuota(clients[2], clock), clock, clients[0])
    for client in clients:
        await client.aclose()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def holders(redis: Redis) -> dict[str, float]:
    """Processes, and the second until which each is alive."""
    names = [str(name) for name in await redis.zrange(HOLDERS, 0, -1)]
    return {name: float(await redis.zscore(HOLDERS, name) or 0) for name in names}


async def test_what_a_killed_gateway_had_under_way_is_free_again_within_a_minute(two: Two) -> None:
    for _ in range(4):
        await two.one.reserve(FEW, Need())
    assert await attempt(two.other, FEW, Need()) is None
    holder = two.one._holder
    till = (await holders(two.redis))[holder]
    seconds, _ = await two.redis.time()
    assert HOLD_S - 5 <= till - int(seconds) <= HOLD_S
    await two.redis.zadd(HOLDERS, {holder: int(seconds)})  # as after a minute without a sign
    for _ in range(4):
        await two.other.reserve(FEW, Need())
    assert await attempt(two.other, FEW, Need()) is None
    assert (await in_redis(two.redis))[RUNNING] == 4


async def test_a_gateway_thought_dead_goes_on_under_a_new_name_and_frees_nothing_twice(two: Two) -> None:
    before = await two.one.reserve(FEW, Need())
    await two.redis.delete(HOLDERS)
    after = [await two.one.reserve(FEW, Need()) for _ in range(2)]
    two.one.settle(before, 0, 0)
    await two.one.deliver()
    assert (await in_redis(two.redis))[RUNNING] == 2
    for one in after:
        two.one.settle(one, 0, 0)
    await two.one.deliver()
    assert not (await in_redis(two.redis)).get(RUNNING)


async def test_what_ended_here_a_moment_ago_is_room_at_once(two: Two) -> None:
    inside = [await two.one.reserve(FEW, Need()) for _ in range(4)]
    two.one.settle(inside[0], 0, 0)
    await two.one.reserve(FEW, Need())
    assert await attempt(two.one, FEW, Need()) is None


async def test_counters_expire_with_their_windows(two: Two) -> None:
    await two.one.reserve(FEW, Need())
    await two.one.reserve(BUDGET, Need(tokens=1))
    keys = [key async for key in two.redis.scan_iter(match="mesh:*") if key != HOLDERS]
    left = {key: await two.redis.ttl(key) for key in keys}
    assert all(0 < ttl <= 86_400 + 120 for ttl in left.values()), left
    assert any(120 < ttl <= 180 for key, ttl in left.items() if Kind.REQUESTS_PER_MINUTE in key)


async def test_the_part_delivers_what_ended_and_shows_that_it_lives(two: Two) -> None:
    part = RedisQuota(two.one.redis, WallClock())
    one = await part.reserve(BUDGET, Need(tokens=100))
    await two.redis.zadd(HOLDERS, dict.fromkeys(await holders(two.redis), 0))

    async def delivered() -> bool:
        return (await in_redis(two.redis)).get(TOKENS) == 30

    async def alive() -> bool:
        return all((await holders(two.redis)).values())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(part.run())
        await until(alive)
        part.settle(one, 30, 0)
        await until(delivered)
        task.cancel()


async def test_while_redis_is_silent_each_gateway_has_its_even_part_and_budgets_wait(
    two: Two, server: RedisServer
) -> None:
    quota = RedisQuota(two.one.redis, two.clock, lambda: 2)
    early = await quota.reserve(BUDGET, Need(tokens=60))
    running = await quota.reserve(FEW, Need())
    server.pause()
    try:
        with pytest.raises(Unavailable):
            await quota.reserve(BUDGET, Need(tokens=40))  # sent, and never answered
        inside = [await quota.reserve(FEW, Need()) for _ in range(2)]
        with pytest.raises(LimitReached) as caught:
            await quota.reserve(FEW, Need())
        assert caught.value.kind is Kind.CONCURRENT_REQUESTS
        quota.settle(inside[0], 0, 0)
        await quota.reserve(FEW, Need())
        quota.settle(early, 25, 0)
        quota.settle(running, 0, 0)
    finally:
        server.resume()
    await quota.deliver()
    totals = await in_redis(two.redis)
    assert totals[TOKENS] == 25, "what was never answered is taken back, what ended meanwhile is settled"
    assert not totals.get(RUNNING)
    assert totals[REQUESTS] == 1
    await two.clock.forward(AWAY_S)
    await quota.reserve(BUDGET, Need(tokens=75))


async def test_a_caller_who_leaves_while_redis_is_asked_leaves_nothing_behind(
    two: Two, server: RedisServer
) -> None:
    await two.one.reserve(FEW, Need())
    server.pause()
    try:
        waiting = asyncio.ensure_future(two.one.reserve(FEW, Need()))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    finally:
        server.resume()
    await two.one.deliver()
    totals = await in_redis(two.redis)
    assert (totals[RUNNING], totals[REQUESTS]) == (1, 1)


async def test_a_reservation_that_arrives_after_it_was_taken_back_is_void(two: Two) -> None:
    await two.redis.set("mesh:{quota}:reservation:r", "0")
    late = RedisQuota(two.one.redis, two.clock, ids=lambda: "r")
    with pytest.raises(LimitReached):
        await late.reserve(FEW, Need())
    assert not any((await in_redis(two.redis)).values())


async def test_a_settling_whose_answer_was_lost_counts_once(two: Two) -> None:
    one = await two.one.reserve(BUDGET, Need(tokens=60))
    await two.one.reserve(BUDGET, Need(tokens=20))
    two.one.settle(one, 10, 0)
    sent = list(two.one._owed.items())
    await two.one.deliver()
    two.one._batch = [(*name, change) for name, change in sent]  # as if it had not been answered
    await two.one.deliver()
    assert (await in_redis(two.redis))[TOKENS] == 30


async def test_a_redis_that_lost_its_data_is_not_counted_below_nothing(two: Two) -> None:
    one = await two.one.reserve(BUDGET, Need(tokens=60))
    await two.redis.flushall()
    await two.one.reserve(BUDGET, Need(tokens=5))
    two.one.settle(one, 10, 0)
    await two.one.deliver()
    assert (await in_redis(two.redis))[TOKENS] == 0


async def test_without_any_redis_requests_are_decided_at_once() -> None:
    with running() as gone:
        pass
    client = open_redis(gone.url)
    clock = FakeClock()
    quota = RedisQuota(client, clock, lambda: 2)
    outcomes = await asyncio.gather(*(attempt(quota, FEW, Need()) for _ in range(1000)))
    inside = [one for one in outcomes if one is not None]
    assert len(inside) == 2
    for one in inside:
        quota.settle(one, 0, 0)
        quota.settle(one, 0, 0)
    with pytest.raises(Unavailable):
        await quota.reserve(BUDGET, Need(tokens=1))
    async with asyncio.TaskGroup() as group:
        part = group.create_task(quota.run())
        await clock.forward(60)
        assert not part.done(), "it waits for Redis"
        part.cancel()
    await client.aclose()
