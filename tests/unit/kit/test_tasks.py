"""A part is kept running: again after an end, not for ever, and with a short memory."""

import asyncio
from collections.abc import Callable

import pytest

from mesh.kit.tasks import GIVE_UP_AFTER, PartKeepsFailing, keep_running
from tests.fakes.clock import FakeClock


class Failing:
    """Lives for as long as told, then fails."""

    def __init__(self, clock: FakeClock, lives_s: Callable[[int], float]) -> None:
        self.clock, self.lives_s, self.starts = clock, lives_s, 0

    async def run(self) -> None:
        self.starts += 1
        await self.clock.sleep(self.lives_s(self.starts))
        raise RuntimeError("again")


async def test_a_part_that_fails_at_once_is_given_up_after_five_ends_in_a_minute() -> None:
    clock = FakeClock()
    part = Failing(clock, lambda _: 0.1)
    task = asyncio.ensure_future(keep_running(part, clock))
    await clock.forward(60)
    with pytest.raises(PartKeepsFailing):
        await task
    assert part.starts == GIVE_UP_AFTER


async def test_ends_of_long_ago_neither_count_nor_delay() -> None:
    clock = FakeClock()
    part = Failing(clock, lambda _: 100.0)
    task = asyncio.ensure_future(keep_running(part, clock))
    await clock.forward(100 * 20)
    assert part.starts == 20, "each restart waits less than half a second"
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_ends_it() -> None:
    clock = FakeClock()
    task = asyncio.ensure_future(keep_running(Failing(clock, lambda _: 1e9), clock))
    await clock.forward(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
