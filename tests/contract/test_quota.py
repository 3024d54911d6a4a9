"""The contract of limits: alone, with leased shares, and in a real Redis."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from gateway.control.quota import LeasedQuota
from gateway.control.quota_redis import RedisQuota, open_redis
from gateway.core.limits import Meter
from gateway.core.windows import Kind
from tests.contract.quota_contract import LIMITS, QuotaContract, Rig, Totals
from tests.fakes.clock import FakeClock
from tests.fakes.lessor import FakeLessor
from tests.fakes.redis_server import RedisServer, running


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running() as one:
        yield one


def of_meters(clock: FakeClock, *meters: Meter) -> Totals:
    totals: Counter[tuple[str, Kind]] = Counter()
    for meter in meters:
        for subject, kind, _, count in meter.counts(clock.now()):
            totals[subject, kind] += count.used
    return dict(totals)


class TestAlone(QuotaContract):
    @pytest.fixture
    def rig(self) -> Rig:
        clock, meter = FakeClock(), Meter()

        quota = LeasedQuota(meter, clock)

        async def totals() -> Totals:
            return of_meters(clock, meter)

        return Rig([quota], clock, quota.tick, totals)


class TestLeased(QuotaContract):
    @pytest.fixture
    def rig(self) -> Rig:
        clock = FakeClock()
        lessor = FakeLessor(clock, LIMITS)
        quotas = [LeasedQuota(Meter(), clock, lessor.lease(name), lambda: 2) for name in ("gw-1", "gw-2")]

        async def calm() -> None:
            await clock.forward(0.2)
            for _ in range(2):
                for quota in quotas:
                    await quota.tick()

        async def totals() -> Totals:
            return of_meters(clock, *(quota.meter for quota in quotas))

        return Rig(list(quotas), clock, calm, totals)


async def in_redis(redis: Redis) -> Totals:
    """Of all windows together."""
    totals: Counter[tuple[str, Kind]] = Counter()
    async for key in redis.scan_iter(match="mesh:*"):
        *_, subject, kind, window = key.split(":")
        if kind in set(Kind):
            held = await redis.hvals(key) if window == "0" else [await redis.get(key)]
            totals[subject, Kind(kind)] += sum(int(one or 0) for one in held)
    return dict(totals)


class TestRedis(QuotaContract):
    @pytest.fixture
    async def rig(self, server: RedisServer) -> AsyncIterator[Rig]:
        clock, clients = FakeClock(), [open_redis(server.url) for _ in range(2)]
        quotas = [RedisQuota(client, clock) for client in clients]
        await clients[0].flushall()

        async def calm() -> None:
            for quota in quotas:
                await quota.deliver()

        async def totals() -> Totals:
            return await in_redis(clients[0])

        yield Rig(list(quotas), clock, calm, totals)
        for client in clients:
            await client.aclose()
