"""What only leased shares can show: few calls, order, giving back, and working on while nobody grants."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from gateway.control.quota import TICK_S, LeasedQuota
from gateway.core.limits import Meter, Need, Reservation, Subject
from gateway.core.refusals import LimitReached, QuotaExhausted
from gateway.core.snapshot import Limits
from gateway.core.windows import Kind
from tests.contract.quota_contract import attempt
from tests.fakes.clock import FakeClock, settle
from tests.fakes.lessor import LEASE_S, FakeLessor

LIMITS = {
    "rpm": Limits(requests_per_minute=100),
    "tpm": Limits(tokens_per_minute=1000),
    "running": Limits(concurrent_requests=10),
    "budget": Limits(tokens_per_day=1000),
    "all": Limits(100, 1000, 10, 1500, 2000, 10**9, 10**9),
}


def subject(name: str) -> tuple[Subject, ...]:
    return (Subject(name, LIMITS[name]),)


@dataclass(slots=True)
class Fleet:
    """Gateways and their lessor."""

    clock: FakeClock = field(default_factory=FakeClock)
    size: int = 2
    lessor: FakeLessor = field(init=False)
    gateways: list[LeasedQuota] = field(init=False)

    def __post_init__(self) -> None:
        self.lessor = FakeLessor(self.clock, LIMITS)
        names = [f"gw-{number}" for number in range(self.size)]
        self.gateways = [
            LeasedQuota(Meter(), self.clock, self.lessor.lease(name), lambda: self.size) for name in names
        ]

    async def ticks(self, count: int = 2) -> None:
        for _ in range(count):
            for gateway in self.gateways:
                await gateway.tick()

    def shares(self, name: str, kind: Kind, window: int | None = None) -> list[int]:
        span = self.gateways[0].meter.window(subject(name)[0].bounds[0].span, self.clock.now())
        held = self.lessor.held((name, kind, span if window is None else window))
        return [held.get(f"gw-{number}", 0) for number in range(self.size)]


async def many(gateway: LeasedQuota, name: str, count: int, need: Need = Need(tokens=1)) -> list[Reservation]:  # noqa: B008
    outcomes = await asyncio.gather(*(attempt(gateway, subject(name), need) for _ in range(count)))
    return [one for one in outcomes if one is not None]


async def test_a_thousand_requests_that_wait_are_served_by_few_calls() -> None:
    fleet = Fleet()
    assert len(await many(fleet.gateways[0], "tpm", 1000)) == 1000
    assert len(fleet.lessor.calls) <= 2
    assert len(await many(fleet.gateways[0], "tpm", 1000)) == 0
    assert len(fleet.lessor.calls) <= 2, "what one has used up alone is nobody's to ask"


async def test_when_nothing_is_left_a_crowd_asks_once() -> None:
    fleet = Fleet()
    assert len(await many(fleet.gateways[0], "tpm", 1000)) == 1000
    calls = len(fleet.lessor.calls)
    for _ in range(3):
        assert not await many(fleet.gateways[1], "tpm", 500)
    assert len(fleet.lessor.calls) == calls + 1
    await fleet.clock.forward(0.2)
    assert not await many(fleet.gateways[1], "tpm", 500)
    assert len(fleet.lessor.calls) == calls + 2


async def test_room_at_hand_is_taken_without_waiting() -> None:
    fleet = Fleet()
    await many(fleet.gateways[0], "rpm", 1)
    coroutine = fleet.gateways[0].reserve(subject("rpm"), Need())
    with pytest.raises(StopIteration):
        coroutine.send(None)


async def test_who_waits_is_not_overtaken() -> None:
    fleet, order = Fleet(), []
    gateway = fleet.gateways[0]
    first = await gateway.reserve(subject("tpm"), Need(tokens=900))
    fleet.lessor.gate.clear()
    gateway.settle(first, 850, 0)

    async def come(name: str, tokens: int) -> None:
        await gateway.reserve(subject("tpm"), Need(tokens))
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(gateway.tick())  # gives back what was too much, and is answered late
        await settle()
        for number, tokens in enumerate((140, 1, 2, 3)):
            group.create_task(come(str(number), tokens))
            await settle()
        assert not order
        fleet.lessor.gate.set()
    assert order == ["0", "1", "2", "3"]


async def test_a_request_that_leaves_while_it_waits_takes_nothing() -> None:
    fleet = Fleet()
    fleet.lessor.gate.clear()
    gateway = fleet.gateways[0]
    waiting = [asyncio.ensure_future(attempt(gateway, subject("running"), Need())) for _ in range(10)]
    await settle()
    for one in waiting[:5]:
        one.cancel()
    fleet.lessor.gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, Reservation) for one in outcomes) == 5
    assert len(await many(gateway, "running", 10)) == 5


async def test_what_is_idle_is_given_back_and_can_be_had_by_another() -> None:
    fleet = Fleet()
    one = await fleet.gateways[0].reserve(subject("budget"), Need(tokens=1000))
    assert not await many(fleet.gateways[1], "budget", 1)
    fleet.gateways[0].settle(one, 300, 0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fleet.gateways[0].run())
        await fleet.clock.forward(2 * TICK_S)
        assert fleet.shares("budget", Kind.TOKENS_PER_DAY) == [300, 0]
        running.cancel()
    assert len(await many(fleet.gateways[1], "budget", 1000)) == 700


async def test_who_is_busy_keeps_a_little() -> None:
    fleet = Fleet()
    gateway = fleet.gateways[0]
    gateway.settle(await gateway.reserve(subject("tpm"), Need(tokens=600)), 100, 0)
    await gateway.tick()
    assert fleet.shares("tpm", Kind.TOKENS_PER_MINUTE) == [200, 0]
    await gateway.tick()
    assert fleet.shares("tpm", Kind.TOKENS_PER_MINUTE) == [100, 0]
    calls = len(fleet.lessor.calls)
    await gateway.tick()
    assert len(fleet.lessor.calls) == calls, "nothing to say"


async def test_shares_of_requests_at_once_are_asked_for_again_while_they_are_used() -> None:
    fleet = Fleet()
    assert len(await many(fleet.gateways[0], "running", 10)) == 10
    for _ in range(20):
        await fleet.clock.forward(TICK_S)
        await fleet.ticks(1)
        assert fleet.shares("running", Kind.CONCURRENT_REQUESTS, 0) == [10, 0]
        assert not await many(fleet.gateways[1], "running", 1)


async def test_many_subjects_are_told_in_calls_of_at_most_two_hundred() -> None:
    fleet = Fleet()
    fleet.lessor.limits = {f"k{number}": Limits(concurrent_requests=9) for number in range(450)}
    running = [
        await fleet.gateways[0].reserve((Subject(name, limits),), Need())
        for name, limits in fleet.lessor.limits.items()
    ]
    fleet.lessor.calls.clear()
    for one in running:
        fleet.gateways[0].settle(one, 0, 0)
    await fleet.ticks(2)
    assert [len(asks) for asks in fleet.lessor.calls] == [200, 200, 50]


async def test_while_nobody_grants_each_gateway_has_its_even_part_and_budgets_what_they_had() -> None:
    fleet = Fleet()
    one, other = fleet.gateways
    assert len(await many(one, "budget", 1, Need(tokens=10))) == 1
    fleet.lessor.down = True
    assert len(await many(one, "rpm", 200)) == 50
    assert len(await many(other, "rpm", 200)) == 50
    assert len(await many(other, "running", 20)) == 5
    assert len(fleet.lessor.calls) == 3, "nobody waits for a second call that fails"
    left = await many(one, "budget", 200)
    assert len(left) == 100, "a tenth beyond the first need was granted"
    with pytest.raises(QuotaExhausted):
        await other.reserve(subject("budget"), Need(tokens=1))
    fleet.lessor.down = False
    await fleet.clock.forward(2)
    assert len(await many(other, "budget", 1)) == 1


async def test_a_share_that_lapses_is_not_used() -> None:
    fleet = Fleet()
    one, other = fleet.gateways
    inside = await many(one, "running", 8)
    fleet.lessor.down = True
    for _ in range(int(LEASE_S / TICK_S) + 1):
        await fleet.clock.forward(TICK_S)
        await one.tick()
    for reservation in inside:
        one.settle(reservation, 0, 0)
    assert len(await many(one, "running", 8)) == 5
    fleet.lessor.down = False
    await fleet.clock.forward(2)
    assert len(await many(other, "running", 10)) == 10, "the lessor knows only of what was asked for again"
    await one.tick()
    assert len(await many(one, "running", 1)) == 0


async def test_a_lessor_that_says_too_little_is_not_asked_for_ever() -> None:
    async def mute(_: object) -> list[object]:
        return []

    quota = LeasedQuota(Meter(), FakeClock(), mute)  # type: ignore[arg-type]
    with pytest.raises(LimitReached):
        await quota.reserve(subject("rpm"), Need())


@pytest.mark.parametrize("seed", range(8))
async def test_all_together_never_exceed_a_limit_and_everything_unused_can_be_had_again(seed: int) -> None:
    dice, fleet = random.Random(seed), Fleet(size=3)
    for _ in range(15):
        open_: list[tuple[LeasedQuota, Reservation]] = []
        turns = [dice.choice(fleet.gateways) for _ in range(60)]
        needs = [Need(dice.randrange(60), dice.randrange(10**8)) for _ in turns]

        async def come(gateway: LeasedQuota, need: Need, into: list[tuple[LeasedQuota, Reservation]]) -> None:
            if (one := await attempt(gateway, subject("all"), need)) is not None:
                into.append((gateway, one))

        async with asyncio.TaskGroup() as group:
            for number, (gateway, need) in enumerate(zip(turns, needs, strict=True)):
                group.create_task(come(gateway, need, open_))
                if number % 7 == 0:
                    group.create_task(dice.choice(fleet.gateways).tick())
                    await settle(dice.randrange(3))
                if open_ and dice.random() < 0.3:
                    owner, one = open_.pop(dice.randrange(len(open_)))
                    if dice.random() < 0.3:
                        owner.settle(one, 1, 1)
                    else:
                        owner.refund(one)
                within_limits(fleet)
        for gateway, one in open_:
            gateway.refund(one)
        await fleet.clock.forward(dice.choice([0.2, 10, 61]))
    await fleet.ticks()
    await fleet.clock.forward(60)
    await fleet.ticks()
    assert not within_limits(fleet).get(("all", Kind.CONCURRENT_REQUESTS))
    assert len(await many(fleet.gateways[0], "all", 40)) == 10


def within_limits(fleet: Fleet) -> dict[tuple[str, Kind], int]:
    """What all gateways use together, having checked that it fits."""
    totals: dict[tuple[str, Kind], int] = {}
    for gateway in fleet.gateways:
        for name, kind, _, count in gateway.meter.counts(fleet.clock.now()):
            totals[name, kind] = totals.get((name, kind), 0) + count.used
    for (name, kind), used in totals.items():
        assert used <= getattr(LIMITS[name], kind), (name, kind)
    return totals


async def test_what_is_held_beyond_the_need_shrinks_as_the_limit_nears_its_end() -> None:
    fleet = Fleet()
    spare = []
    for used in range(1, 1001):
        await fleet.gateways[0].reserve(subject("tpm"), Need(tokens=1))
        spare.append(fleet.shares("tpm", Kind.TOKENS_PER_MINUTE)[0] - used)
    assert (max(spare), spare[0]) == (100, 100)
    assert max(spare[900:]) < 26
    assert max(spare[980:]) < 6
    assert len(fleet.lessor.calls) < 70
