"""Of each hub the latest report counts, and only for a while."""

from datetime import datetime, timedelta

from control_plane.core.demand import FRESH, ModelDemand
from control_plane.loops.sweeper import Sweeper
from control_plane.store import demand
from control_plane.store.db import Pool, connection, transaction
from control_plane.store.demand import HubDemand
from tests.fakes.clock import FakeClock
from tests.store.rows import GRACE, NOW

BUSY = ModelDemand(
    "big", waiting=4, active=3, admitted=9, refused=2, wait_mean_ms=80, wait_p95_ms=200, oldest_wait_ms=900
)


async def report(pool: Pool, hub_id: str, *models: ModelDemand, now: datetime = NOW) -> None:
    async with transaction(pool) as db:
        await demand.record(db, models, hub_id=hub_id, now=now)


async def listed(pool: Pool, now: datetime = NOW) -> list[HubDemand]:
    async with connection(pool) as db:
        return await demand.list_(db, now)


async def test_every_hub_is_heard_and_its_later_report_replaces_its_earlier(pool: Pool) -> None:
    later = NOW + timedelta(seconds=5)
    await report(pool, "gw-1", ModelDemand("big", waiting=1), ModelDemand("small", waiting=2))
    await report(pool, "gw-1~1", ModelDemand("big", waiting=7))
    await report(pool, "gw-1", BUSY, now=later)
    assert await listed(pool) == [
        HubDemand("gw-1", later, BUSY),
        HubDemand("gw-1~1", NOW, ModelDemand("big", waiting=7)),
    ]
    await report(pool, "gw-1", now=later)
    assert [one.hub_id for one in await listed(pool)] == ["gw-1~1"]


async def test_a_report_that_is_too_old_says_nothing(pool: Pool) -> None:
    await report(pool, "gw-1", BUSY)
    assert await listed(pool, NOW + FRESH) == [HubDemand("gw-1", NOW, BUSY)]
    assert await listed(pool, NOW + FRESH + timedelta(milliseconds=1)) == []


async def test_hubs_that_have_long_been_silent_are_forgotten(pool: Pool) -> None:
    clock = FakeClock(NOW)
    sweeper = Sweeper(pool, clock, GRACE)
    await report(pool, "gw-1", BUSY)
    await clock.forward(3600)
    await sweeper.once()
    assert await listed(pool) != []
    await clock.forward(1)
    await sweeper.once()
    assert await listed(pool) == []
