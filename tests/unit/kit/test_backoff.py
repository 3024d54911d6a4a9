"""The reconnect loop: at once, then with growing, jittered delays, and afresh after a success that lasted."""

import asyncio
import itertools

from mesh.kit.backoff import STABLE_AFTER_S, Backoff
from tests.fakes.clock import FakeClock


async def attempt(backoff: Backoff, clock: FakeClock, *, lasting_s: list[float]) -> list[float]:
    """When each attempt began."""
    began: list[float] = []

    async def loop() -> None:
        async for _ in backoff.attempts():
            began.append(clock.monotonic())
            if len(began) > len(lasting_s):
                return
            await clock.sleep(lasting_s[len(began) - 1])

    task = asyncio.ensure_future(loop())
    for _ in range(5000):
        if task.done():
            break
        await clock.forward(0.5)
    await task
    return began


async def test_delays_grow_to_the_cap_and_never_beyond() -> None:
    clock = FakeClock()
    began = await attempt(Backoff(clock, first_s=1, cap_s=8), clock, lasting_s=[0.0] * 30)
    waits = [after - before for before, after in itertools.pairwise(began)]
    assert waits[0] <= 1.5
    assert max(waits) <= 8.5
    assert max(waits[5:]) > 2


async def test_an_attempt_that_lasted_begins_afresh() -> None:
    clock = FakeClock()
    lasting = [0.0] * 8 + [STABLE_AFTER_S + 1]
    began = await attempt(Backoff(clock, first_s=1, cap_s=64), clock, lasting_s=lasting)
    assert began[-1] - began[-2] - lasting[-1] <= 1.5
