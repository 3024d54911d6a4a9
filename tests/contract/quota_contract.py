"""What every way of counting limits promises. Subclasses supply a ``rig`` fixture."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest

from gateway.control.quota import Quota
from gateway.core.limits import NOTHING, Need, Reservation, Subject
from gateway.core.refusals import LimitReached, QuotaExhausted
from gateway.core.snapshot import UNLIMITED, Limits
from gateway.core.windows import UNIT, Kind, Unit
from tests.fakes.clock import FakeClock

# All that the tests of the contract ask for, so that a lessor can be told.
LIMITS: Mapping[str, Limits] = {
    "tokens": Limits(tokens_per_minute=1000),
    "budget": Limits(tokens_per_month=1000, money_per_day=10**12),
    "running": Limits(concurrent_requests=10),
    "few": Limits(requests_per_minute=100, tokens_per_minute=50, concurrent_requests=50),
    "wide-1": Limits(*[10**12] * 7),
    "wide-2": Limits(*[10**12] * 7),
    "wide-3": Limits(concurrent_requests=10**6, money_per_day=10**15),
}
Totals = dict[tuple[str, Kind], int]


def subject(name: str, what: str = "key") -> Subject:
    return Subject(name, LIMITS[name], what)


@dataclass(frozen=True, slots=True)
class Rig:
    """Gateways that share limits. After ``calm`` each knows all that ended; ``totals``: what all of them used."""

    quotas: list[Quota]
    clock: FakeClock
    calm: Callable[[], Awaitable[None]]
    totals: Callable[[], Awaitable[Totals]]


async def attempt(quota: Quota, subjects: tuple[Subject, ...], need: Need) -> Reservation | None:
    """None: refused."""
    try:
        return await quota.reserve(subjects, need)
    except LimitReached:
        return None


async def storm(rig: Rig, subjects: tuple[Subject, ...], need: Need) -> list[tuple[Quota, Reservation]]:
    """A thousand at once, over all gateways in turn; those that were let in."""
    turns = [rig.quotas[number % len(rig.quotas)] for number in range(1000)]
    outcomes = await asyncio.gather(*(attempt(quota, subjects, need) for quota in turns))
    return [(quota, one) for quota, one in zip(turns, outcomes, strict=True) if one is not None]


class QuotaContract:
    """The promises."""

    @pytest.mark.parametrize("name", ["tokens", "budget"])
    async def test_of_a_thousand_requests_for_the_last_ten_units_ten_are_let_in(self, rig: Rig, name: str) -> None:
        who = (subject(name),)
        most = await rig.quotas[0].reserve(who, Need(tokens=995))
        rig.quotas[0].settle(most, 990, 0)
        await rig.calm()
        inside = await storm(rig, who, Need(tokens=1))
        assert len(inside) == 10
        for quota, one in inside:
            quota.refund(one)
        await rig.calm()
        assert len(await storm(rig, who, Need(tokens=1))) == 10

    async def test_of_a_thousand_requests_at_once_ten_run_and_ten_more_when_those_ended(self, rig: Rig) -> None:
        who = (subject("running"),)
        for _ in range(3):
            inside = await storm(rig, who, Need(tokens=5))
            assert len(inside) == 10
            for quota, one in inside:
                quota.settle(one, 3, 0)
            await rig.calm()
        assert not any((await rig.totals()).values())

    async def test_a_refused_request_takes_nothing_from_any_of_its_subjects(self, rig: Rig) -> None:
        quota, both = rig.quotas[0], (subject("wide-1"), subject("few", "project"))
        one = await quota.reserve(both, Need(tokens=40))
        before = await rig.totals()
        for _ in range(5):
            with pytest.raises(LimitReached) as caught:
                await quota.reserve(both, Need(tokens=11))
            refused = caught.value.refused
            assert (refused.subject, refused.subject_kind) == ("few", "project")
            assert refused.kind is Kind.TOKENS_PER_MINUTE
            assert refused.remaining == 10
        assert await rig.totals() == before
        quota.refund(one)
        await rig.calm()
        assert not any((await rig.totals()).values())

    async def test_ten_thousand_endings_in_any_order_and_number_leave_no_drift(self, rig: Rig) -> None:
        dice = random.Random(20_261_125)
        expected: Counter[tuple[str, Kind]] = Counter()
        open_: list[tuple[Quota, tuple[Subject, ...], Reservation]] = []
        ended: list[tuple[Quota, tuple[Subject, ...], Reservation]] = []
        events = 0

        def settle(quota: Quota, subjects: tuple[Subject, ...], one: Reservation) -> None:
            tokens, money = dice.randrange(2000), dice.randrange(10**6)
            quota.settle(one, tokens, money)
            actual = {Unit.REQUESTS: 1, Unit.RUNNING: 0, Unit.TOKENS: tokens, Unit.MONEY: money}
            expected.update({bound.key: actual[bound.unit] for who in subjects for bound in who.bounds})

        while events < 10_000 or open_:
            if events < 10_000:
                wanted = [
                    (
                        dice.choice(rig.quotas),
                        tuple(subject(name) for name in dice.sample(["wide-1", "wide-2", "wide-3"], 2)),
                        Need(dice.randrange(1000), dice.randrange(10**6)),
                    )
                    for _ in range(50)
                ]
                inside = await asyncio.gather(*(quota.reserve(who, need) for quota, who, need in wanted))
                open_ += [(quota, who, one) for (quota, who, _), one in zip(wanted, inside, strict=True)]
            for _ in range(80):
                events += 1
                if open_ and dice.random() < 0.6:
                    entry = open_.pop(dice.randrange(len(open_)))
                    ended.append(entry)
                    if dice.random() < 0.7:
                        settle(*entry)
                    else:
                        entry[0].refund(entry[2])
                elif ended:  # once more, which must not count
                    quota, _, one = dice.choice(ended)
                    if dice.random() < 0.5:
                        quota.settle(one, dice.randrange(2000), dice.randrange(10**6))
                    else:
                        quota.refund(one)
        await rig.calm()
        totals = await rig.totals()
        assert {key: used for key, used in totals.items() if used} == dict(+expected)
        assert not any(used for (_, kind), used in totals.items() if UNIT[kind] is Unit.RUNNING)

    async def test_spent_above_what_was_set_aside_counts(self, rig: Rig) -> None:
        who = (subject("tokens"),)
        rig.quotas[0].settle(await rig.quotas[0].reserve(who, Need(tokens=10)), 1500, 0)
        await rig.calm()
        assert (await rig.totals())["tokens", Kind.TOKENS_PER_MINUTE] == 1500
        assert not await storm(rig, who, Need(tokens=1))
        await rig.clock.forward(60)
        assert await attempt(rig.quotas[0], who, Need(tokens=1000))

    async def test_what_can_never_fit_is_told_so_and_budgets_have_their_own_error(self, rig: Rig) -> None:
        with pytest.raises(QuotaExhausted) as caught:
            await rig.quotas[-1].reserve((subject("budget"),), Need(tokens=1001))
        assert caught.value.refused.never
        assert caught.value.code == "insufficient_quota"
        assert not any((await rig.totals()).values())

    async def test_without_limits_nothing_is_waited_for(self, rig: Rig) -> None:
        coroutine = rig.quotas[0].reserve(
            (Subject("k", UNLIMITED), Subject("p", UNLIMITED, "project")), Need(9, 9)
        )
        with pytest.raises(StopIteration) as ended:
            coroutine.send(None)
        assert ended.value.value is NOTHING
        rig.quotas[0].settle(NOTHING, 1, 1)
        rig.quotas[0].refund(NOTHING)

    async def test_headers_tell_what_remains(self, rig: Rig) -> None:
        who = (subject("few"),)
        await rig.quotas[0].reserve(who, Need(tokens=20))
        shown = rig.quotas[0].headers(who)
        assert shown["x-ratelimit-remaining-requests"] == "99"
        assert shown["x-ratelimit-remaining-tokens"] == "30"
        assert shown["x-ratelimit-reset-tokens"] == "1m0s"
        assert rig.quotas[0].headers((subject("running"),)) == {}
